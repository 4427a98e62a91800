//! Which requests may change what nodes hold, noted as they leave: so that who remembers a node's answer knows whether it
//! still holds.
//!
//! Everything that the merger changes on a node goes through [`Upstream::send`](super::Upstream::send), whichever part wants it:
//! clients' writes, settings, swaps, resyncs, moves, repairs. So one place sees all of it, before it leaves.
//!
//! For each *subject* (an index, or the names of all indexes) there is a generation. It grows before a request leaves that may
//! change the subject, and again when it was answered. What is the same in two [`Stamp`]s was not touched by a request in between.
//! Nodes carry such a request out later, as a task. So there is also, for each subject, the set of nodes that were heard to have no
//! task of it under way, since the last request to them left. Nothing is in that set until somebody has asked.
//!
//! Invariant: if a stamp was taken while all nodes were in that set, and an equal one later, then no node has changed the subject
//! in between, by anything that this merger has sent.
//!
//! Not seen here: what others send to nodes, namely filters (direct writes), other mergers, and people. Who finds such a task on a
//! node [says so](Changing::touch_node).

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use http::Method;
use tokio::time::Instant;
use weft_routing::operation::{Operation, classify};

use super::Target;

/// The most indexes that are noted. Beyond this, all are forgotten, and nodes are asked anew.
const MOST_INDEXES: usize = 10_000;
/// A request whose answer was lost may still be on its way to its node for this long.
const LOST_FOR: Duration = Duration::from_secs(60);

/// What a request to a node may change.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Concerns {
    /// Nothing that an answer to a read depends on.
    Nothing,
    /// One index.
    Index(String),
    /// Any index, for example because indexes change their names.
    Any,
}

impl Concerns {
    fn of(method: &Method, path_and_query: &str) -> Self {
        use Operation as Op;
        if matches!(*method, Method::GET | Method::HEAD) {
            return Self::Nothing;
        }
        let Ok(classified) = classify(method.as_str(), path_and_query) else {
            return Self::Any;
        };
        match classified.operation {
            Op::SearchPost
            | Op::MultiSearch
            | Op::FacetSearch
            | Op::SimilarPost
            | Op::FetchDocuments
            | Op::ListFields
            | Op::RenderTemplate => Self::Nothing,
            // Its body may give the index another name.
            Op::UpdateIndex => Self::Any,
            _ => classified
                .index
                .map_or(Self::Any, |uid| Self::Index(uid.into_owned())),
        }
    }
}

/// What is known of a subject.
#[derive(Debug, Default)]
struct Subject {
    generation: u64,
    /// Requests that have left and are not answered.
    under_way: usize,
    /// Until when a request may arrive whose answer was lost.
    lost_until: Option<Instant>,
    /// The nodes that have no task of this subject under way.
    done: HashSet<SocketAddr>,
}

impl Subject {
    fn is_open(&self) -> bool {
        self.under_way > 0 || self.lost_until.is_some_and(|until| Instant::now() < until)
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// Grows with whatever may concern everything.
    generation: u64,
    /// What concerns any index.
    any: Subject,
    indexes: HashMap<String, Subject>,
}

impl Inner {
    fn stamp<'a>(&self, uids: impl IntoIterator<Item = &'a str>) -> Stamp {
        let generation = |uid| {
            let subject = self.indexes.get(uid);
            subject.map_or(0, |subject: &Subject| subject.generation)
        };
        let own = uids.into_iter().map(generation);
        let all = [self.generation, self.any.generation];
        Stamp(all.into_iter().chain(own).collect())
    }

    fn subject(&mut self, concerns: &Concerns) -> Option<&mut Subject> {
        match concerns {
            Concerns::Nothing => None,
            Concerns::Any => Some(&mut self.any),
            Concerns::Index(uid) => {
                if self.indexes.len() >= MOST_INDEXES && !self.indexes.contains_key(uid) {
                    self.generation += 1;
                    self.indexes.retain(|_, subject| subject.is_open());
                }
                Some(self.indexes.entry_ref(uid).or_default())
            }
        }
    }
}

/// The state of some indexes at one time: equal if nothing was sent that may change them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Vec<u64>);

/// What has to be asked before it is known that nothing changes some indexes.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unknown {
    /// A request is under way, so asking would be of no use yet.
    pub(crate) under_way: bool,
    /// The nodes that may have tasks of any index's name under way.
    pub(crate) any: Vec<SocketAddr>,
    /// The nodes that may have tasks of this index under way.
    pub(crate) indexes: Vec<(String, Vec<SocketAddr>)>,
}

impl Unknown {
    /// Whether nothing is unknown: no node has anything to do for the indexes.
    pub(crate) fn is_nothing(&self) -> bool {
        !self.under_way && self.any.is_empty() && self.indexes.is_empty()
    }
}

/// Notes requests that may change what nodes hold.
#[derive(Debug, Default)]
pub struct Changing(Mutex<Inner>);

impl Changing {
    /// Notes that a request leaves; the returned guard is told of its answer. `None` if it changes nothing.
    pub(super) fn leaves(
        self: &Arc<Self>,
        method: &Method,
        path_and_query: &str,
        target: &Target,
    ) -> Option<Leaving> {
        let concerns = Concerns::of(method, path_and_query);
        let mut inner = self.lock();
        let subject = inner.subject(&concerns)?;
        subject.generation += 1;
        subject.under_way += 1;
        match target {
            Target::Node(address) => drop(subject.done.remove(address)),
            Target::Shard(_) => subject.done.clear(),
        }
        drop(inner);
        Some(Leaving {
            changing: Arc::clone(self),
            concerns,
            may_arrive: true,
        })
    }

    /// The state of these indexes now.
    pub(crate) fn stamp<'a>(&self, uids: impl IntoIterator<Item = &'a str>) -> Stamp {
        self.lock().stamp(uids)
    }

    /// What is unknown about these indexes, each with the nodes that its reads may go to.
    pub(crate) fn unknown(&self, indexes: &[(&str, &[SocketAddr])]) -> Unknown {
        let inner = self.lock();
        let nothing = Subject::default();
        let mut unknown = Unknown {
            under_way: inner.any.is_open(),
            ..Unknown::default()
        };
        for (uid, nodes) in indexes {
            let subject = inner.indexes.get(*uid).unwrap_or(&nothing);
            unknown.under_way |= subject.is_open();
            let not_in = |done: &HashSet<SocketAddr>| -> Vec<SocketAddr> {
                let open = nodes.iter().filter(|node| !done.contains(*node));
                open.copied().collect()
            };
            unknown.any.extend(not_in(&inner.any.done));
            let open = not_in(&subject.done);
            if !open.is_empty() {
                unknown.indexes.push(((*uid).to_owned(), open));
            }
        }
        unknown.any.sort_unstable();
        unknown.any.dedup();
        unknown
    }

    /// Notes nodes that have no task of an index under way, or with `None` none that may concern any index. They were asked after
    /// `since` was taken; if something left meanwhile, nothing is noted.
    pub(crate) fn are_done(&self, since: &Stamp, uid: Option<&str>, nodes: &[SocketAddr]) {
        let concerns = uid.map_or(Concerns::Any, |uid| Concerns::Index(uid.to_owned()));
        let mut inner = self.lock();
        if inner.stamp(uid) != *since {
            return;
        }
        let Some(subject) = inner.subject(&concerns) else {
            return;
        };
        if !subject.is_open() {
            subject.done.extend(nodes);
        }
    }

    /// What was made of an index's state is no longer true, although no request has left.
    pub(crate) fn touch(&self, uid: &str) {
        let mut inner = self.lock();
        if let Some(subject) = inner.subject(&Concerns::Index(uid.to_owned())) {
            subject.generation += 1;
        }
    }

    /// The same for all indexes.
    pub(crate) fn touch_all(&self) {
        self.lock().generation += 1;
    }

    /// A node has work to do that was not sent from here: whatever it holds may change.
    pub(crate) fn touch_node(&self, node: SocketAddr) {
        let mut inner = self.lock();
        inner.generation += 1;
        inner.any.done.remove(&node);
        for subject in inner.indexes.values_mut() {
            subject.done.remove(&node);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that has left, until its answer is there. If it is dropped before, the request may still arrive.
pub(super) struct Leaving {
    changing: Arc<Changing>,
    concerns: Concerns,
    may_arrive: bool,
}

impl Leaving {
    /// The request was answered, or won't arrive any more, unless `may_arrive`.
    pub(super) fn ended(mut self, may_arrive: bool) {
        self.may_arrive = may_arrive;
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        let mut inner = self.changing.lock();
        let Some(subject) = inner.subject(&self.concerns) else {
            return;
        };
        subject.generation += 1;
        subject.under_way = subject.under_way.saturating_sub(1);
        if self.may_arrive {
            subject.lost_until = Some(Instant::now() + LOST_FOR);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 7700))
    }

    fn leave(changing: &Arc<Changing>, method: Method, path: &str, at: u8) -> Option<Leaving> {
        changing.leaves(&method, path, &Target::Node(node(at)))
    }

    /// All that is unknown of `films`, which lies on two nodes, is asked for, and each node says that it is done.
    fn all_are_done(changing: &Changing) {
        for uid in [None, Some("films")] {
            changing.are_done(&changing.stamp(uid), uid, &[node(1), node(2)]);
        }
    }

    fn is_quiet(changing: &Changing) -> bool {
        let nodes = [node(1), node(2)];
        changing.unknown(&[("films", &nodes)]).is_nothing()
    }

    #[test]
    fn reads_change_nothing_and_everything_else_changes_one_index_or_any() {
        let of = |method: &str, path| Concerns::of(&method.parse().unwrap(), path);
        let films = Concerns::Index("films".to_owned());
        for (method, path, concerns) in [
            ("GET", "/indexes/films/documents?limit=3", Concerns::Nothing),
            ("POST", "/indexes/films/search", Concerns::Nothing),
            ("POST", "/multi-search", Concerns::Nothing),
            ("POST", "/indexes/films/documents/fetch", Concerns::Nothing),
            (
                "POST",
                "/indexes/films/documents?primaryKey=id",
                films.clone(),
            ),
            ("PATCH", "/indexes/films/settings", films.clone()),
            ("PUT", "/indexes/films/settings/stop-words", films.clone()),
            ("DELETE", "/indexes/films", films),
            ("PATCH", "/indexes/films", Concerns::Any),
            ("POST", "/indexes", Concerns::Any),
            ("POST", "/swap-indexes", Concerns::Any),
            ("PATCH", "/experimental-features", Concerns::Any),
            ("POST", "/of-another-version", Concerns::Any),
        ] {
            assert_eq!(of(method, path), concerns, "{method} {path}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_quiet_until_nodes_were_asked_and_no_longer_once_a_write_leaves() {
        let changing = Arc::new(Changing::default());
        assert!(!is_quiet(&changing));
        all_are_done(&changing);
        assert!(is_quiet(&changing));
        let before = changing.stamp(["films"]);
        let other = changing.stamp(["books"]);
        let leaving = leave(&changing, Method::POST, "/indexes/films/documents", 1);
        let left = changing.stamp(["films"]);
        assert!(before != left && !is_quiet(&changing));
        // Whoever asks while the request is under way learns nothing.
        all_are_done(&changing);
        assert!(!is_quiet(&changing));
        leaving.unwrap().ended(false);
        assert!(changing.stamp(["films"]) != left && !is_quiet(&changing));
        all_are_done(&changing);
        assert!(is_quiet(&changing));
        assert_eq!(changing.stamp(["books"]), other);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_node_said_before_a_write_left_does_not_count_after_it() {
        let changing = Arc::new(Changing::default());
        all_are_done(&changing);
        let asked = changing.stamp(["films"]);
        let leaving = leave(&changing, Method::DELETE, "/indexes/films/documents/3", 2);
        leaving.unwrap().ended(false);
        changing.are_done(&asked, Some("films"), &[node(1), node(2)]);
        let unknown = changing.unknown(&[("films", &[node(1), node(2)])]);
        assert_eq!(unknown.indexes, [("films".to_owned(), vec![node(2)])]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_of_names_concerns_every_index() {
        let changing = Arc::new(Changing::default());
        all_are_done(&changing);
        let before = changing.stamp(["films"]);
        let leaving = leave(&changing, Method::POST, "/swap-indexes", 1);
        leaving.unwrap().ended(false);
        assert!(changing.stamp(["films"]) != before && !is_quiet(&changing));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_whose_answer_was_lost_may_arrive_for_a_while() {
        let changing = Arc::new(Changing::default());
        all_are_done(&changing);
        let path = "/indexes/films/documents";
        // The one who sent it doesn't wait any more.
        drop(leave(&changing, Method::POST, path, 1));
        all_are_done(&changing);
        assert!(!is_quiet(&changing));
        tokio::time::advance(LOST_FOR).await;
        all_are_done(&changing);
        assert!(is_quiet(&changing));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_with_work_from_elsewhere_is_asked_again() {
        let changing = Arc::new(Changing::default());
        all_are_done(&changing);
        let before = changing.stamp(["films"]);
        changing.touch_node(node(2));
        assert_ne!(changing.stamp(["films"]), before);
        let unknown = changing.unknown(&[("films", &[node(1), node(2)])]);
        assert_eq!(unknown.any, [node(2)]);
        assert_eq!(unknown.indexes, [("films".to_owned(), vec![node(2)])]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_noted_is_bounded_and_no_stamp_comes_twice() {
        let changing = Arc::new(Changing::default());
        let leaving = leave(&changing, Method::POST, "/indexes/films/documents", 1);
        let before = changing.stamp(["0"]);
        for number in 0..=MOST_INDEXES {
            changing.touch(&number.to_string());
        }
        assert!(changing.lock().indexes.len() <= MOST_INDEXES);
        assert!(changing.lock().indexes.contains_key("films"));
        assert_ne!(changing.stamp(["0"]), before);
        drop(leaving);
    }
}
