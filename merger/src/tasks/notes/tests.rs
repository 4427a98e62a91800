use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const NAMES: [&str; 4] = ["films", "books", "songs", "maps"];

fn course(status: Status, minute: i64) -> Course {
    let enqueued_at = datetime!(2026-05-05 12:00 UTC) + time::Duration::minutes(minute);
    let later = |minutes| Some(enqueued_at + time::Duration::minutes(minutes));
    Course {
        status,
        canceled_by: None,
        enqueued_at,
        started_at: later(1).filter(|_| status != Status::Enqueued),
        finished_at: later(2).filter(|_| status.is_settled()),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Set(u32, usize, bool),
    Remove(u32),
    /// The first of the names becomes the second in all tasks before this one.
    Rename(u32, usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    // Over the borders of chunks.
    let uid = || 1_000_u32..1_050;
    prop_oneof![
        5 => (uid(), 0..NAMES.len(), any::<bool>()).prop_map(|(uid, name, ended)| Step::Set(uid, name, ended)),
        2 => uid().prop_map(Step::Remove),
        1 => (uid(), 0..NAMES.len(), 0..NAMES.len()).prop_map(|(uid, one, two)| Step::Rename(uid, one, two)),
    ]
}

proptest! {
    #[test]
    fn what_is_known_of_all_tasks_is_what_looking_at_each_finds(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut notes = Notes::default();
        let mut model: BTreeMap<u32, (&str, bool)> = BTreeMap::new();
        for (minute, step) in (0..).zip(steps) {
            match step {
                Step::Set(uid, name, ended) => {
                    let status = if ended { Status::Succeeded } else { Status::Enqueued };
                    notes.set(uid, ("indexCreation", Some(NAMES[name])), &course(status, minute), 0);
                    // A task keeps its index.
                    model.entry(uid).or_insert((NAMES[name], ended)).1 = ended;
                }
                Step::Remove(uid) => {
                    notes.remove(uid);
                    model.remove(&uid);
                }
                Step::Rename(before, one, two) => {
                    let renamed = |name: &str| (name == NAMES[one]).then(|| NAMES[two].to_owned());
                    notes.rename(..before, renamed);
                    for (_, (name, _)) in model.range_mut(..before) {
                        if *name == NAMES[one] {
                            *name = NAMES[two];
                        }
                    }
                }
            }
            let known: BTreeMap<u32, (&str, bool)> = notes
                .range(..)
                .map(|(uid, note)| (uid, (notes.index_uid(note).unwrap(), note.status.is_settled())))
                .collect();
            prop_assert_eq!(&known, &model);
            prop_assert_eq!(notes.len(), model.len());
            let names: BTreeSet<String> = model.values().map(|(name, _)| (*name).to_owned()).collect();
            prop_assert_eq!(notes.index_uids(), names);
            for name in NAMES {
                let one = [name.to_owned()];
                let wanted = notes.wanted(Some(&[Status::Succeeded]), None, Some(&one));
                let count = model.values().filter(|task| **task == (name, true)).count() as u64;
                prop_assert_eq!(notes.count(&wanted), count);
                prop_assert_eq!(notes.chunks(&wanted, ..).map(|part| part.count).sum::<u64>(), count);
            }
            let last = |time| notes.chunks.values().filter_map(|chunk| chunk.span(time).last()).max();
            let latest = notes.range(..).filter_map(|(_, note)| note.finished_at()).max();
            prop_assert!(last(Time::Finished) >= latest);
        }
    }
}

#[test]
fn what_ended_before_a_time_is_found() {
    let mut notes = Notes::default();
    for uid in 0..3_000 {
        let status = [Status::Succeeded, Status::Enqueued][(uid % 2) as usize];
        let of = ("indexCreation", Some("films"));
        notes.set(uid, of, &course(status, uid.into()), 0);
    }
    let time = datetime!(2026-05-05 12:00 UTC) + time::Duration::minutes(10);
    let found: Vec<u32> = notes.finished_before(time).collect();
    assert_eq!(found, [0, 2, 4, 6]);
    let is_films = |label: &Label| label.index_uid.as_deref() == Some("films");
    let since = |minute| datetime!(2026-05-05 12:00 UTC) + time::Duration::minutes(minute);
    assert!(notes.any_since(since(2_999), is_films));
    assert!(!notes.any_since(since(3_000), is_films));
    assert!(!notes.any_since(since(0), |label| !is_films(label)));
}
