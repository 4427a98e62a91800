//! Property tests with any replicas and times, on a paused clock: which replicas answer, which are late, and when.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Times lie so far apart that no two compared times are equal: replica `n` answers at a multiple of this plus `n`.
const STEP: u64 = 64;
const REPLICAS: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    Takes,
    Refuses,
    NeverAnswers,
    /// Is out of sync when its queue place comes first.
    IsOut,
}

#[derive(Debug, Clone, Copy)]
struct Replica {
    does: Does,
    is_held: bool,
    /// When its queue place comes first.
    place: u64,
    /// How long it takes from then on.
    takes: u64,
}

#[derive(Debug, Clone)]
struct Case {
    replicas: Vec<Replica>,
    takers: usize,
    everybody: bool,
    patience: u64,
}

fn replica() -> impl Strategy<Value = Replica> {
    let does = prop_oneof![
        5 => Just(Does::Takes),
        2 => Just(Does::Refuses),
        2 => Just(Does::NeverAnswers),
        1 => Just(Does::IsOut),
    ];
    (does, any::<bool>(), 0_u64..20, 0_u64..20).prop_map(|(does, is_held, place, takes)| Replica {
        does,
        is_held,
        place,
        takes,
    })
}

fn case() -> impl Strategy<Value = Case> {
    let replicas = prop::collection::vec(replica(), 1..=REPLICAS);
    (replicas, 1..=REPLICAS, any::<bool>(), 0_u64..20).prop_map(
        |(mut replicas, takers, everybody, patience)| {
            for (number, replica) in (0..).zip(&mut replicas) {
                replica.place = replica.place * STEP + number;
                replica.takes *= STEP;
            }
            let at_hand = replicas.iter().filter(|replica| !replica.is_held).count();
            Case {
                // Never more than are asked at once: otherwise no replica would be held back.
                takers: takers.min(at_hand).max(1),
                everybody,
                patience: patience * STEP + 20,
                replicas,
            }
        },
    )
}

/// What each replica answered, and when in milliseconds.
type Probe = BTreeMap<usize, (Option<bool>, u64)>;

#[derive(Debug, Default, PartialEq)]
struct Seen {
    enough_at: u64,
    /// The answers at that moment; the answers of late replicas are in `later`.
    answers: BTreeMap<usize, Option<bool>>,
    later: Probe,
}

async fn play(case: &Case) -> Seen {
    let start = Instant::now();
    let at = move |millis: u64| start + Duration::from_millis(millis);
    let now = move || u64::try_from(start.elapsed().as_millis()).unwrap();
    let mut asking = AckWait::new();
    for (number, replica) in case.replicas.iter().copied().enumerate() {
        let place = async move {
            tokio::time::sleep_until(at(replica.place)).await;
            (replica.does != Does::IsOut).then_some(())
        };
        let sending = async move {
            if replica.does == Does::NeverAnswers {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(Duration::from_millis(replica.takes)).await;
            replica.does == Does::Takes
        };
        asking.ask(number, replica.is_held, place, Box::pin(sending));
    }
    let enough = AckRule {
        takers: case.takers,
        everybody: case.everybody,
        patience: Duration::from_millis(case.patience),
    };
    // A replica that never answers, before any took the request, is waited for until the sender's own timeout.
    let waited = tokio::time::timeout(
        Duration::from_secs(3_600),
        asking.wait(enough, |taken| *taken),
    );
    let Ok(mut asked) = waited.await else {
        return Seen::default();
    };
    let mut seen = Seen {
        enough_at: now(),
        answers: asked.answers.into_iter().collect(),
        later: Probe::new(),
    };
    let late = asked.late.clone();
    while let Ok(Some((number, answer))) =
        tokio::time::timeout(Duration::from_secs(3_600), asked.rest.next()).await
    {
        if late.contains(&number) {
            seen.later.insert(number, (answer, now()));
        }
    }
    seen
}

/// The expected result, computed from the rules.
fn expected(case: &Case) -> Seen {
    let all = || case.replicas.iter().copied().enumerate();
    let finish = |replica: Replica| match replica.does {
        Does::NeverAnswers => None,
        Does::IsOut => Some((replica.place, None)),
        does => Some((replica.place + replica.takes, Some(does == Does::Takes))),
    };
    let mut at_hand: Vec<(u64, usize, Option<bool>)> = all()
        .filter(|(_, replica)| !replica.is_held)
        .filter_map(|(number, replica)| finish(replica).map(|(at, answer)| (at, number, answer)))
        .collect();
    at_hand.sort_unstable();
    let asked = all().filter(|(_, replica)| !replica.is_held).count();
    let first = at_hand.iter().find(|(_, _, answer)| *answer == Some(true));
    let limit = first.map(|(at, _, _)| case.patience + 2 * at);
    let until = first.map(|(at, _, _)| at + case.patience + 2 * at);
    let mut seen = Seen::default();
    let (mut takers, mut ended) = (0, false);
    for (at, number, answer) in &at_hand {
        if takers >= case.takers && !case.everybody || until.is_some_and(|until| *at > until) {
            ended = true;
            break;
        }
        seen.enough_at = *at;
        seen.answers.insert(*number, *answer);
        takers += usize::from(*answer == Some(true));
    }
    let enough = takers >= case.takers && !case.everybody;
    // An answer was still awaited: until the patience is over, or for ever.
    if !enough && (ended || seen.answers.len() < asked) {
        match until {
            Some(until) => seen.enough_at = until,
            None => return Seen::default(),
        }
    }
    for (number, replica) in all() {
        if seen.answers.contains_key(&number) {
            continue;
        }
        if takers == 0 || (!replica.is_held && !enough) {
            seen.answers.insert(number, None);
            continue;
        }
        let (until, limit) = (until.unwrap_or_default(), limit.unwrap_or_default());
        let heard = if replica.is_held {
            let begins = replica.place.max(seen.enough_at);
            match replica.does {
                Does::IsOut => (None, begins),
                Does::Takes | Does::Refuses if replica.takes <= limit => {
                    (Some(replica.does == Does::Takes), begins + replica.takes)
                }
                _ => (None, begins + limit),
            }
        } else {
            match finish(replica) {
                Some((at, answer)) if at <= until => (answer, at),
                _ => (None, until),
            }
        };
        seen.later.insert(number, heard);
    }
    seen
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// An acknowledgement waits for as many takers as it must and not longer. No replica gets more time than the patience and
    /// twice the first one's time. Each replica that was asked is reported exactly once.
    #[test]
    fn everybody_is_told_of_once_and_at_the_right_time(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let seen = runtime.block_on(play(&case));
        prop_assert_eq!(&seen, &expected(&case));
        if seen != Seen::default() {
            prop_assert_eq!(seen.answers.len() + seen.later.len(), case.replicas.len());
        }
    }
}
