use super::*;

fn at(millis: u64) -> At {
    Duration::from_millis(millis)
}

fn read(began: u64, ended: u64, failed: bool) -> Read {
    Read {
        began: at(began),
        ended: at(ended),
        edge: 0,
        kind: ReadKind::Search,
        failure: failed.then(|| "503".to_owned()),
    }
}

#[test]
fn failures_count_from_the_fault_on_and_late_ones_twice() {
    let all = [
        read(100, 200, true),
        read(900, 1_100, true),
        read(1_500, 1_600, false),
        read(3_100, 3_200, true),
    ];
    let figures = reads(&all, at(1_000), at(1_000), &[]);
    assert_eq!(
        (figures.asked, figures.failed, figures.failed_late),
        (3, 2, 1)
    );
    assert!((figures.failed_per_cent() - 200.0 / 3.0).abs() < 1e-9);
    // The last of several things that break one after the other counts.
    assert_eq!(reads(&all, at(1_000), at(1_500), &[]).failed_late, 0);
}

#[test]
fn only_failures_while_no_replica_could_answer_are_excused() {
    let all = [
        read(1_000, 1_400, true),
        read(1_400, 1_600, true),
        read(5_000, 5_100, true),
        read(5_200, 5_300, true),
    ];
    let outage = |edge| Outage {
        from: at(1_500),
        to: at(5_100),
        edge,
    };
    let figures = reads(&all, at(1_000), at(1_000), &[outage(None)]);
    assert_eq!((figures.asked, figures.failed, figures.excused), (2, 2, 2));
    // An outage of another edge excuses nothing.
    let figures = reads(&all, at(1_000), at(1_000), &[outage(Some(1))]);
    assert_eq!((figures.asked, figures.failed, figures.excused), (4, 4, 0));
}

#[test]
fn a_gap_is_the_longest_time_without_a_success_after_the_fault() {
    let beat: Vec<At> = (0..200).map(|n| at(n * 25)).collect();
    let gap = |beat: &[At]| longest_gap(beat, at(1_000), at(5_000)).unwrap();
    assert_eq!(gap(&beat), at(25));
    let without = |from: u64, to: u64| -> Vec<At> {
        let silent = at(from)..at(to);
        beat.iter()
            .copied()
            .filter(|at| !silent.contains(at))
            .collect()
    };
    // From the last success before the fault to the first one after it; earlier gaps don't count.
    assert_eq!(gap(&without(1_000, 2_000)), at(1_025));
    assert_eq!(gap(&without(300, 900)), at(25));
    // No success until the end.
    assert_eq!(gap(&without(2_000, 9_000)), at(5_000 - 1_975));
    assert_eq!(gap(&[]), at(4_000));
}

#[test]
fn p99_is_the_time_within_which_99_of_100_were_answered() {
    let hundred: Vec<Duration> = (1..=100).rev().map(at).collect();
    assert_eq!(p99(&hundred), Some(at(99)));
    assert_eq!(p99(&[at(7)]), Some(at(7)));
    assert_eq!(p99(&[]), None);
}
