use proptest::prelude::*;

use super::*;
use crate::etcd::simulated::{Line, Simulated};

const LEASE: Duration = Duration::from_secs(3);
const KEY: &str = "/weft/leader";

fn election(line: &Line, number: u16) -> Election {
    let me = Candidate {
        id: format!("merger-{number}"),
        address: SocketAddr::from(([127, 0, 0, 1], number)),
    };
    let prefix = "/weft".parse().unwrap();
    Election::new(Arc::new(line.clone()), &prefix, me, LEASE)
}

async fn leads_within(limit: Duration, election: &Election) -> Option<Leadership> {
    timeout(limit, election.win(|| true)).await.ok()
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_the_others_see_who_it_is() {
    let server = Simulated::default();
    let (one, two) = (server.line(1), server.line(2));
    let (one, two) = (election(&one, 1), election(&two, 2));
    let leadership = one.win(|| true).await;
    assert!(leadership.is_leader());
    assert!(leads_within(20 * LEASE, &two).await.is_none());
    assert!(leadership.is_leader());
    assert_eq!(two.leader().borrow().clone().unwrap().id, "merger-1");
    let key = server.entries(KEY);
    assert_eq!(key[0].created, leadership.term().created());
    leadership.step_down().await;
    let first = u64::try_from(key[0].created).unwrap();
    let next = two.win(|| true).await;
    let term = |leadership: &Leadership| leadership.term().fence().term().unwrap().0;
    assert!(term(&next) > first, "a later term has a higher number");
    assert_eq!(term(&next), u64::try_from(next.term().created()).unwrap());
}

#[tokio::test(start_paused = true)]
async fn who_is_cut_off_stops_before_another_can_lead() {
    let server = Simulated::default();
    let line = server.line(1);
    let leadership = election(&line, 1).win(|| true).await;
    sleep(LEASE).await;
    line.set_cut(true);
    let cut = Instant::now();
    leadership.lost().await;
    assert!(cut.elapsed() < LEASE, "it led on for {:?}", cut.elapsed());
    assert_eq!(server.entries(KEY).len(), 1, "the lease ended first");
    let next = election(&server.line(2), 2);
    assert!(leads_within(LEASE, &next).await.is_some());
    assert!(cut.elapsed() < LEASE * 3 / 2);
}

#[tokio::test(start_paused = true)]
async fn a_few_renewals_without_an_answer_are_no_loss() {
    for seed in 0..20 {
        let server = Simulated::default();
        let line = server.line(seed);
        let leadership = election(&line, 1).win(|| true).await;
        line.set_cut(true);
        sleep(LEASE / 2).await;
        line.set_cut(false);
        sleep(10 * LEASE).await;
        assert!(leadership.is_leader(), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_merger_that_slept_knows_at_once_that_it_leads_no_more() {
    let server = Simulated::default();
    let leadership = election(&server.line(1), 1).win(|| true).await;
    sleep(LEASE).await;
    assert!(leadership.is_leader());
    // Nothing else runs meanwhile, as with SIGSTOP.
    tokio::time::advance(LEASE).await;
    assert!(!leadership.is_leader());
    sleep(10 * LEASE).await;
    assert!(!leadership.is_leader(), "a renewal brought it back");
}

#[tokio::test(start_paused = true)]
async fn stepping_down_lets_the_next_one_lead_at_once() {
    let server = Simulated::default();
    let (one, two) = (server.line(1), server.line(2));
    let leadership = election(&one, 1).win(|| true).await;
    let fence = leadership.term().fence().clone();
    let under_way = fence.enter().unwrap();
    let down = tokio::spawn(leadership.step_down());
    sleep(DRAIN / 2).await;
    assert!(fence.is_open(), "what is under way may end");
    assert!(fence.enter().is_none(), "and nothing may begin");
    assert_eq!(server.entries(KEY).len(), 1);
    drop(under_way);
    down.await.unwrap();
    assert!(!fence.is_open() && server.entries(KEY).is_empty());
    assert!(leads_within(LEASE / 5, &election(&two, 2)).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn stepping_down_waits_for_nobody_for_ever() {
    let server = Simulated::default();
    let leadership = election(&server.line(1), 1).win(|| true).await;
    let _hangs = leadership.term().fence().enter().unwrap();
    timeout(DRAIN + LEASE, leadership.step_down())
        .await
        .unwrap();
    assert!(server.entries(KEY).is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_key_or_a_lease_that_somebody_removed_ends_the_term() {
    for what in 0..2 {
        let server = Simulated::default();
        let leadership = election(&server.line(1), 1).win(|| true).await;
        sleep(LEASE).await;
        match what {
            0 => server.act(vec![Action::Delete(KEY.into())]),
            _ => {
                let lease = server.entries(KEY)[0].lease;
                server.line(2).revoke(lease, ANSWER_WITHIN).await.unwrap();
            }
        }
        let removed = Instant::now();
        leadership.lost().await;
        assert!(removed.elapsed() < LEASE / 4, "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_made_without_an_answer_belongs_to_nobody_for_long() {
    for seed in 0..100 {
        let server = Simulated::default();
        let line = server.line(seed);
        line.set_trouble(70);
        let first = election(&line, 1);
        // It may lead or not, but if it doesn't, nobody is kept from it for longer than by a leader that died.
        let won = timeout(LEASE, first.win(|| true)).await.ok();
        line.set_cut(true);
        drop(won);
        let next = election(&server.line(1_000), 2);
        assert!(
            leads_within(3 * LEASE, &next).await.is_some(),
            "seed {seed}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_etcd_has_made_longer_keeps_nobody_from_leading_once_it_is_over_for_its_holder()
 {
    let server = Simulated::default();
    let line = server.line(1);
    let leadership = election(&line, 1).win(|| true).await;
    let lease = server.entries(KEY)[0].lease;
    // etcd elects a leader of its own, which gives all leases their whole time again and again.
    let promoting = tokio::spawn({
        let etcd = server.line(2);
        async move {
            loop {
                let _ = etcd.renew(lease, ANSWER_WITHIN).await;
                sleep(LEASE / 3).await;
            }
        }
    });
    line.set_cut(true);
    leadership.lost().await;
    sleep(2 * LEASE).await;
    let next = election(&server.line(3), 3);
    assert!(
        leads_within(LEASE, &next).await.is_none(),
        "the key is held"
    );
    line.set_cut(false);
    let back = Instant::now();
    assert!(leads_within(LEASE, &next).await.is_some());
    assert!(back.elapsed() < LEASE / 3, "{:?}", back.elapsed());
    promoting.abort();
}

/// What happens to one of the mergers.
#[derive(Debug, Clone, Copy)]
enum Trouble {
    Cut(usize),
    Whole(usize),
    Lossy(usize, u8),
    StepDown(usize),
    Pause(u16),
}

fn trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        (0..3_usize).prop_map(Trouble::Cut),
        (0..3_usize).prop_map(Trouble::Whole),
        ((0..3_usize), (0..80_u8)).prop_map(|(who, percent)| Trouble::Lossy(who, percent)),
        (0..3_usize).prop_map(Trouble::StepDown),
        (0..5_000_u16).prop_map(Trouble::Pause),
    ]
}

/// A merger that stands by again whenever it has lost the lead. Its fence is shown in `place`.
async fn take_part(
    election: Election,
    place: Arc<std::sync::Mutex<Option<Fence>>>,
    step_down: Arc<tokio::sync::Notify>,
) {
    loop {
        let leadership = election.win(|| true).await;
        *place.lock().unwrap() = Some(leadership.term().fence().clone());
        tokio::select! {
            () = leadership.lost() => {}
            () = step_down.notified() => leadership.step_down().await,
        }
    }
}

async fn never_two(seed: u64, troubles: Vec<Trouble>) -> usize {
    let server = Simulated::default();
    let lines: Vec<Line> = (0..3).map(|n| server.line(seed + n)).collect();
    let mut places = Vec::new();
    let mut downs = Vec::new();
    for (number, line) in lines.iter().enumerate() {
        let (place, down) = (Arc::default(), Arc::default());
        places.push(Arc::clone(&place));
        downs.push(Arc::clone(&down));
        let election = election(line, number as u16);
        tokio::spawn(take_part(election, place, down));
    }
    let open = || {
        let fences = places.iter().map(|place| place.lock().unwrap().clone());
        fences.flatten().filter(Fence::is_open).count()
    };
    let mut led = 0;
    for trouble in troubles {
        match trouble {
            Trouble::Cut(who) => lines[who].set_cut(true),
            Trouble::Whole(who) => lines[who].set_cut(false),
            Trouble::Lossy(who, percent) => lines[who].set_trouble(percent),
            Trouble::StepDown(who) => downs[who].notify_waiters(),
            Trouble::Pause(millis) => {
                for _ in 0..millis / 10 {
                    sleep(Duration::from_millis(10)).await;
                    assert!(open() <= 1, "two lead");
                    led += open();
                }
            }
        }
    }
    led
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn there_are_never_two_leaders(
        seed in any::<u32>(),
        troubles in prop::collection::vec(trouble(), 1..60),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(never_two(seed.into(), troubles));
    }
}

#[tokio::test(start_paused = true)]
async fn with_nothing_wrong_somebody_leads_nearly_all_the_time() {
    let led = never_two(5, vec![Trouble::Pause(10_000)]).await;
    assert!(led > 950, "{led}");
}

#[test]
fn leases_are_asked_for_in_whole_seconds() {
    let seconds = |millis| {
        let lease = Duration::from_millis(millis);
        Times { lease }.seconds()
    };
    assert_eq!(
        (seconds(1_000), seconds(2_001), seconds(60_000)),
        (1, 3, 60)
    );
}
