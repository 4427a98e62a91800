//! What clients were told, and the contents that each document may have as a result.
//!
//! Each document is written by one client at a time, so its writes have an order. A write that succeeded must be there. A
//! write whose client was told that nothing was written must not be there. Any other write is unknown, and either is right.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// The key of a document: its index and its id.
pub(super) type DocumentKey = (String, String);

/// The content of a document: the number of the write that last replaced it, and of the write that last changed it.
pub(super) type Content = Option<(Option<u64>, u64)>;

/// The effect of a write on a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Replace(u64),
    Update(u64),
    Delete,
}

impl Effect {
    fn on(self, content: Content) -> Content {
        match self {
            Self::Replace(number) => Some((Some(number), number)),
            Self::Update(number) => Some((content.and_then(|(first, _)| first), number)),
            Self::Delete => None,
        }
    }
}

/// What its client knows of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    UnderWay,
    NotTaken,
    Accepted,
    Succeeded,
    Failed,
    Unknown,
}

/// A write, as its client knows it.
#[derive(Debug)]
struct Write {
    outcome: Outcome,
    task: Option<u32>,
    /// The answer that its client got instead of a task.
    said: String,
}

#[derive(Debug)]
struct Document {
    /// The contents that the document may have had at the last comparison.
    base: BTreeSet<Content>,
    log: Vec<(usize, Effect)>,
}

/// What all clients know.
#[derive(Debug, Default)]
pub(super) struct Model {
    writes: Vec<Write>,
    documents: BTreeMap<DocumentKey, Document>,
    uids: BTreeSet<u32>,
    numbers: u64,
    /// The longest that a client waited for a write's answer, in milliseconds.
    pub(super) longest: u64,
    /// Violations that were found so far.
    pub(super) violations: Vec<String>,
    pub(super) acknowledged: u64,
    pub(super) compared: u64,
    /// How often an operator had to confirm deletions.
    pub(super) confirmed: u32,
}

impl Model {
    /// The number of the next write.
    pub(super) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Records the start of a write and returns its position.
    pub(super) fn begin(&mut self, effects: Vec<(DocumentKey, Effect)>) -> usize {
        let place = self.writes.len();
        self.writes.push(Write {
            outcome: Outcome::UnderWay,
            task: None,
            said: String::new(),
        });
        for (key, effect) in effects {
            let document = self.documents.entry(key).or_insert_with(|| Document {
                base: BTreeSet::from([None]),
                log: Vec::new(),
            });
            document.log.push((place, effect));
        }
        place
    }

    /// The keys of all documents that an index may have.
    pub(super) fn keys(&self, index: &str) -> Vec<DocumentKey> {
        self.documents
            .keys()
            .filter(|(own, _)| own == index)
            .cloned()
            .collect()
    }

    /// Records that a write was accepted as a task.
    pub(super) fn accepted(&mut self, place: usize, uid: u32) {
        self.take_uid(uid);
        self.acknowledged += 1;
        self.writes[place].outcome = Outcome::Accepted;
        self.writes[place].task = Some(uid);
    }

    /// Records that a task's uid was given to a client.
    pub(super) fn take_uid(&mut self, uid: u32) {
        if !self.uids.insert(uid) {
            self.violations
                .push(format!("task uid {uid} was given twice"));
        }
    }

    pub(super) fn ended(&mut self, place: usize, outcome: Outcome) {
        self.writes[place].outcome = outcome;
    }

    /// Records that a write wasn't accepted, and what its client was told.
    pub(super) fn refused(&mut self, place: usize, outcome: Outcome, said: &str) {
        self.writes[place].outcome = outcome;
        self.writes[place].said = said.to_owned();
    }

    /// Accepted writes whose tasks haven't been seen to end.
    pub(super) fn open(&self) -> Vec<(usize, u32)> {
        let open = |(place, write): (usize, &Write)| match write.outcome {
            Outcome::Accepted => write.task.map(|task| (place, task)),
            _ => None,
        };
        self.writes.iter().enumerate().filter_map(open).collect()
    }

    /// Clients that lost their connection when the merger ended know nothing of their writes.
    pub(super) fn cut_off(&mut self) {
        for write in &mut self.writes {
            if write.outcome == Outcome::UnderWay {
                write.outcome = Outcome::Unknown;
            }
        }
    }

    /// The contents that a document may have.
    pub(super) fn possible(&self, key: &DocumentKey) -> BTreeSet<Content> {
        let Some(document) = self.documents.get(key) else {
            return BTreeSet::from([None]);
        };
        let mut possible = document.base.clone();
        for (place, effect) in &document.log {
            let after: BTreeSet<Content> =
                possible.iter().map(|content| effect.on(*content)).collect();
            match self.writes[*place].outcome {
                Outcome::NotTaken => {}
                Outcome::Succeeded => possible = after,
                _ => possible.extend(after),
            }
        }
        possible
    }

    /// If no write to the document is open, so that its possible contents don't change: the number of its writes. Otherwise `None`.
    pub(super) fn at_rest(&self, key: &DocumentKey) -> Option<usize> {
        let log = self
            .documents
            .get(key)
            .map_or(&[][..], |document| &document.log);
        let rests = |(place, _): &(usize, Effect)| {
            matches!(
                self.writes[*place].outcome,
                Outcome::Succeeded | Outcome::NotTaken
            )
        };
        log.iter().all(rests).then_some(log.len())
    }

    /// Compares an index with its possible contents. From then on, the contents found are the only possible ones.
    pub(super) fn compare(&mut self, index: &str, held: &BTreeMap<&str, &Map<String, Value>>) {
        let mut keys: BTreeSet<DocumentKey> = self.keys(index).into_iter().collect();
        keys.extend(held.keys().map(|id| (index.to_owned(), (*id).to_owned())));
        for key in keys {
            let content = held
                .get(key.1.as_str())
                .map(|document| content_of(document));
            let possible = self.possible(&key);
            self.compared += 1;
            if !possible.contains(&content) {
                let history = self.history(&key);
                self.violations.push(format!(
                    "document {}/{} is {content:?} and may be {possible:?}: {history}",
                    key.0, key.1
                ));
            }
            let document = Document {
                base: BTreeSet::from([content]),
                log: Vec::new(),
            };
            self.documents.insert(key, document);
        }
    }

    /// Checks that each version of documents of which shards hold several may be there, and that the merger was cut off while it
    /// wrote it: one of the document's writes is unknown to its client.
    pub(super) fn allow_doubles(
        &mut self,
        index: &str,
        doubles: &BTreeMap<String, Vec<Map<String, Value>>>,
    ) {
        for (id, versions) in doubles {
            let key = (index.to_owned(), id.clone());
            let possible = self.possible(&key);
            let wrong = versions
                .iter()
                .find(|version| !possible.contains(&Some(content_of(version))));
            if let Some(version) = wrong {
                let history = self.history(&key);
                self.violations.push(format!(
                    "document {index}/{id} is also {version:?} and may be {possible:?}: {history}"
                ));
            }
        }
    }

    /// From now on, the document may have any of these contents, too.
    pub(super) fn stay_double(
        &mut self,
        index: &str,
        doubles: &BTreeMap<String, Vec<Map<String, Value>>>,
    ) {
        for (id, versions) in doubles {
            let document = self.documents.get_mut(&(index.to_owned(), id.clone()));
            if let Some(document) = document {
                let contents = versions.iter().map(|version| Some(content_of(version)));
                document.base.extend(contents);
            }
        }
    }

    pub(super) fn history(&self, key: &DocumentKey) -> String {
        let Some(document) = self.documents.get(key) else {
            return "never written".to_owned();
        };
        let line = |(place, effect): &(usize, Effect)| {
            let write = &self.writes[*place];
            let task = write
                .task
                .map_or_else(String::new, |uid| format!(" task {uid}"));
            format!("{effect:?} {:?}{task} {}", write.outcome, write.said)
        };
        let log: Vec<String> = document.log.iter().map(line).collect();
        format!("{:?}, {}", document.base, log.join(", "))
    }
}

/// The content of a document, read from its fields.
pub(super) fn content_of(document: &Map<String, Value>) -> (Option<u64>, u64) {
    let number = |name: &str| document.get(name).and_then(Value::as_u64);
    (number("first"), number("last").unwrap_or(0))
}
