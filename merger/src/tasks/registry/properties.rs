//! Property tests: the registry under any sequence of writes, nodes' answers, replicas that leave or take a write late, and
//! restarts.

use std::collections::BTreeMap;
use std::pin::pin;

use futures_util::poll;
use proptest::prelude::*;
use tokio::sync::mpsc::Receiver;
use weft_routing::placement::ShardId;

use super::*;
use crate::cluster::{NodeId, until};
use crate::store::memory::MemoryStore;
use crate::tasks::{LocalState, ReplicaTask, ShardTask, Status};

const NODES: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    /// Writes that go together, or a lone one, that the replicas in the bitmask `taken` have taken (at least one), and that the
    /// others take later.
    Create {
        taken: u8,
        writes: u32,
    },
    /// A replica takes the oldest write that it hasn't taken yet.
    TakesLate(usize),
    /// A replica will never take the oldest write that it hasn't taken yet.
    NeverTakes(usize),
    /// A node finishes its oldest outstanding task.
    Does(usize),
    /// A replica leaves the in-sync set.
    Leaves(usize),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1_u8..8, 1_u32..4).prop_map(|(taken, writes)| Step::Create { taken, writes }),
        3 => (0..NODES).prop_map(Step::TakesLate),
        1 => (0..NODES).prop_map(Step::NeverTakes),
        6 => (0..NODES).prop_map(Step::Does),
        1 => (0..NODES).prop_map(Step::Leaves),
        1 => Just(Step::Restart),
    ]
}

fn id(number: usize) -> NodeId {
    NodeId::from(format!("node-{number}"))
}

/// What a task waits for, by replica: `None` if the replica hasn't taken the write yet, else its local uid and whether it is
/// done.
type Waits = BTreeMap<usize, Option<(u32, bool)>>;

struct Model {
    store: MemoryStore,
    tasks: Arc<Tasks>,
    _settled: Receiver<SettledTask>,
    next_local: [u32; NODES],
    /// By the first uid of writes that went together: how many they are, their first copy, and what they wait for.
    written: BTreeMap<u32, (u32, (usize, u32), Waits)>,
}

async fn open(store: &MemoryStore) -> (Arc<Tasks>, Receiver<SettledTask>) {
    let (sender, receiver) = mpsc::channel(10_000);
    let limits = Limits {
        max_tasks: 10_000,
        one_record_each: false,
        max_age: None,
    };
    let tasks = Tasks::open(Arc::new(store.clone()), limits, sender, Marks::unknown())
        .await
        .unwrap();
    (Arc::new(tasks), receiver)
}

/// What others wait for: where these tasks are applied, and which nodes have nothing left to do.
fn seen(tasks: &Tasks, uids: &[u32]) -> (Vec<Option<Applied>>, Vec<usize>) {
    let idle = |number: &usize| !tasks.has_outstanding(&id(*number));
    let applied = uids.iter().map(|uid| tasks.applied(*uid));
    (applied.collect(), (0..NODES).filter(idle).collect())
}

impl Model {
    /// Takes a step. Whatever waits for something that has come by it must be woken.
    async fn take_watched(&mut self, step: Step) {
        let tasks = Arc::clone(&self.tasks);
        let uids: Vec<u32> = self.written.keys().copied().collect();
        let (applied, idle) = seen(&tasks, &uids);
        let has_come = || {
            let (applied_now, idle_now) = seen(&tasks, &uids);
            let new = |number: &usize| !idle.contains(number);
            (applied_now != applied || idle_now.iter().any(new)).then_some(())
        };
        let mut waiting = pin!(until([&tasks.changes], has_come));
        assert!(poll!(&mut waiting).is_pending());
        let what = format!("{step:?}");
        self.take(step).await;
        // After a restart, nobody waits for the last merger's tasks.
        if Arc::ptr_eq(&tasks, &self.tasks) {
            let woken = poll!(&mut waiting).is_ready();
            assert_eq!(woken, has_come().is_some(), "{what}");
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Create { taken, writes } => self.create(taken, writes).await,
            Step::TakesLate(number) => {
                let local = self.local(number);
                self.comes_late(number, Some(local)).await;
            }
            Step::NeverTakes(number) => self.comes_late(number, None).await,
            Step::Does(number) => self.does(number).await,
            Step::Leaves(number) => self.leaves(number).await,
            Step::Restart => {
                let (tasks, settled) = open(&self.store).await;
                // Node states that were not stored before the restart are asked for again.
                for (uid, (_, _, waits)) in &mut self.written {
                    let ended = tasks.get(*uid).await.unwrap().status.is_settled();
                    for wait in waits.values_mut().flatten() {
                        let open = (0..NODES)
                            .any(|node| tasks.outstanding(&id(node), 999).contains(&wait.0));
                        let open = open && !ended;
                        wait.1 = !open;
                    }
                }
                (self.tasks, self._settled) = (tasks, settled);
            }
        }
    }

    /// A local uid that no other node uses, so that the uid alone identifies the copy.
    fn local(&mut self, number: usize) -> u32 {
        self.next_local[number] += 1;
        u32::try_from(number).unwrap() * 100_000 + self.next_local[number]
    }

    async fn create(&mut self, taken: u8, writes: u32) {
        let (took, late): (Vec<usize>, Vec<usize>) =
            (0..NODES).partition(|number| taken & (1 << number) != 0);
        let copies: Vec<(usize, u32)> = took
            .iter()
            .map(|number| (*number, self.local(*number)))
            .collect();
        let part = ShardTask {
            pending: late.iter().map(|number| id(*number)).collect(),
            ..ShardTask::taken(
                ShardId(0),
                copies
                    .iter()
                    .map(|(number, local)| ReplicaTask::acknowledged(id(*number), *local))
                    .collect(),
            )
        };
        let new = NewTask {
            kind: "documentAdditionOrUpdate".to_owned(),
            parts: vec![part],
            members: match writes {
                1 => Vec::new(),
                _ => super::shared::tests::members(writes as usize),
            },
            ..NewTask::default()
        };
        let uid = self.tasks.reserve_all(writes);
        let created = self.tasks.create_as(uid, new, Vec::new()).await.unwrap();
        assert_eq!(created.task_uid, uid);
        let mut waits: Waits = copies
            .iter()
            .map(|(number, local)| (*number, Some((*local, false))))
            .collect();
        waits.extend(late.into_iter().map(|number| (number, None)));
        assert!(
            self.written
                .insert(uid, (writes, copies[0], waits))
                .is_none(),
            "a uid is given twice"
        );
    }

    async fn comes_late(&mut self, number: usize, taken: Option<u32>) {
        let oldest = self
            .written
            .iter_mut()
            .find(|(_, (_, _, waits))| waits.get(&number) == Some(&None));
        let Some((uid, (writes, (first, local), waits))) = oldest else {
            return;
        };
        match taken {
            Some(taken) => drop(waits.insert(number, Some((taken, false)))),
            None => drop(waits.remove(&number)),
        }
        self.tasks
            .came_late(
                *uid..=*uid + *writes - 1,
                (&id(*first), *local),
                &id(number),
                taken.map(|taken| ReplicaTask::acknowledged(id(number), taken)),
            )
            .await;
    }

    async fn does(&mut self, number: usize) {
        let Some(local) = self.tasks.outstanding(&id(number), 1).first().copied() else {
            return;
        };
        let done = LocalState {
            status: Status::Succeeded,
            ..LocalState::default()
        };
        self.tasks.apply(&id(number), vec![(local, done)]).await;
        for wait in self
            .written
            .values_mut()
            .flat_map(|(_, _, waits)| waits.values_mut())
            .flatten()
        {
            wait.1 |= wait.0 == local;
        }
    }

    async fn leaves(&mut self, number: usize) {
        self.tasks.abandon(&id(number)).await;
        for (_, _, waits) in self.written.values_mut() {
            let another = waits
                .iter()
                .any(|(other, wait)| *other != number && wait.is_some());
            let settled = waits
                .values()
                .all(|wait| wait.is_some_and(|(_, done)| done));
            let pending = waits.get(&number) == Some(&None);
            if !settled && (another || pending) {
                waits.remove(&number);
            }
        }
    }

    async fn check(&self) {
        for (first, (writes, _, waits)) in &self.written {
            let ended = waits
                .values()
                .all(|wait| wait.is_some_and(|(_, done)| done));
            for uid in *first..*first + *writes {
                let view = self.tasks.get(uid).await.unwrap();
                assert_eq!(view.uid, uid);
                let status = view.status;
                assert_eq!(
                    status == Status::Succeeded,
                    ended,
                    "task {uid} is {status:?}: {waits:?}"
                );
            }
        }
        for number in 0..NODES {
            let owed = self
                .written
                .values()
                .any(|(_, _, waits)| waits.get(&number) == Some(&None));
            assert_eq!(
                self.tasks.pending().contains(&id(number)),
                owed,
                "node {number}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_task_ends_when_every_copy_that_counts_is_done_and_no_replica_is_pending(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = MemoryStore::default();
            let (tasks, settled) = open(&store).await;
            let mut model = Model {
                store,
                tasks,
                _settled: settled,
                next_local: [0; NODES],
                written: BTreeMap::new(),
            };
            for step in steps {
                model.take_watched(step).await;
                model.check().await;
            }
        });
    }
}
