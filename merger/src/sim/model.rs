//! What clients were told, and from it what each document may be.
//!
//! Each document is written by one client at a time, so that its writes have an order. A write that succeeded is there; one of
//! which it was said that nothing was written is not; of any other nobody knows, and both is right.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// An index and an id.
pub(super) type DocumentKey = (String, String);

/// What a document holds: the number of the write that replaced it last, and of the one that changed it last.
pub(super) type Content = Option<(Option<u64>, u64)>;

/// What a write does to a document.
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

/// What is known of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    UnderWay,
    NotTaken,
    Accepted,
    Succeeded,
    Failed,
    Unknown,
}

/// A write as its client knows it.
#[derive(Debug)]
struct Write {
    outcome: Outcome,
    task: Option<u32>,
    /// What its client was told instead of a task.
    said: String,
}

#[derive(Debug)]
struct Document {
    /// What it may have been when all was last compared.
    base: BTreeSet<Content>,
    log: Vec<(usize, Effect)>,
}

/// Everything that clients know.
#[derive(Debug, Default)]
pub(super) struct Model {
    writes: Vec<Write>,
    documents: BTreeMap<DocumentKey, Document>,
    uids: BTreeSet<u32>,
    numbers: u64,
    /// The longest that a client waited for a write's answer, in milliseconds.
    pub(super) longest: u64,
    /// What must not be, as soon as it was seen.
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

    /// A write begins; gives its place.
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

    /// All documents of an index that there may be.
    pub(super) fn keys(&self, index: &str) -> Vec<DocumentKey> {
        self.documents
            .keys()
            .filter(|(own, _)| own == index)
            .cloned()
            .collect()
    }

    /// A write was accepted as a task.
    pub(super) fn accepted(&mut self, place: usize, uid: u32) {
        self.take_uid(uid);
        self.acknowledged += 1;
        self.writes[place].outcome = Outcome::Accepted;
        self.writes[place].task = Some(uid);
    }

    /// A task's uid was given to a client.
    pub(super) fn take_uid(&mut self, uid: u32) {
        if !self.uids.insert(uid) {
            self.violations
                .push(format!("task uid {uid} was given twice"));
        }
    }

    pub(super) fn ended(&mut self, place: usize, outcome: Outcome) {
        self.writes[place].outcome = outcome;
    }

    /// A write was not accepted, and its client was told why.
    pub(super) fn refused(&mut self, place: usize, outcome: Outcome, said: &str) {
        self.writes[place].outcome = outcome;
        self.writes[place].said = said.to_owned();
    }

    /// Accepted writes whose tasks have not been seen to end.
    pub(super) fn open(&self) -> Vec<(usize, u32)> {
        let open = |(place, write): (usize, &Write)| match write.outcome {
            Outcome::Accepted => write.task.map(|task| (place, task)),
            _ => None,
        };
        self.writes.iter().enumerate().filter_map(open).collect()
    }

    /// Clients that were cut off by the merger's end know nothing of their writes.
    pub(super) fn cut_off(&mut self) {
        for write in &mut self.writes {
            if write.outcome == Outcome::UnderWay {
                write.outcome = Outcome::Unknown;
            }
        }
    }

    /// What a document may be.
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

    /// Whether nothing is under way on the document: then what it may be doesn't change by itself. Gives how many writes it had.
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

    /// Compares an index with what it may be, and takes what it is for what it was from now on.
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

/// What a document holds, read from its fields.
pub(super) fn content_of(document: &Map<String, Value>) -> (Option<u64>, u64) {
    let number = |name: &str| document.get(name).and_then(Value::as_u64);
    (number("first"), number("last").unwrap_or(0))
}
