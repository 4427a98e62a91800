//! What a node stores, and how it executes its tasks: a state machine without I/O. The caller passes the time.
//!
//! It behaves as a real node does where replication depends on it. Tasks are durable when they are accepted, and their
//! numbers form one sequence, which deleting tasks doesn't reset. Tasks are executed one after the other. After a restart,
//! the current task starts again. Documents keep the order of their internal numbers, which are reused.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::time_of;

/// What a node stores on its disk.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk {
    pub(super) indexes: BTreeMap<String, Index>,
    pub(super) tasks: BTreeMap<u32, Task>,
    pub(super) keys: BTreeMap<String, Value>,
    pub(super) features: Map<String, Value>,
    /// The time when the current task ends, or when the last one ended.
    until: u64,
    working_on: Option<u32>,
    /// All tasks with lower numbers have ended: histories have thousands, and most of their time went into looking through them.
    ended_below: u32,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Index {
    pub(super) primary_key: Option<String>,
    /// Documents by their internal numbers.
    pub(super) documents: BTreeMap<u32, (String, Map<String, Value>)>,
    pub(super) settings: Map<String, Value>,
    numbers: BTreeMap<String, u32>,
}

/// A task as it is listed, and the work that it does.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) index: Option<String>,
    pub(super) kind: &'static str,
    pub(super) status: &'static str,
    pub(super) details: Map<String, Value>,
    pub(super) error: Option<Value>,
    pub(super) canceled_by: Option<u32>,
    pub(super) custom_metadata: Option<String>,
    work: Work,
    takes: u64,
    times: [Option<u64>; 3],
}

#[derive(Debug, Clone)]
pub(super) enum Work {
    Add {
        documents: Vec<Map<String, Value>>,
        key: Option<String>,
        merge: bool,
    },
    DeleteIds(Vec<String>),
    DeleteEqual(String, Value),
    Clear,
    Create(Option<String>),
    Update {
        key: Option<String>,
        name: Option<String>,
    },
    Drop,
    Swap(Vec<(String, String, bool)>),
    Settings(Map<String, Value>),
    Cancel(Vec<u32>),
    Forget(Vec<u32>),
    Nothing,
}

type Outcome = Result<Map<String, Value>, Value>;

impl Disk {
    /// Another disk, with as many tasks of the same kinds, enqueued at other times.
    pub(super) fn another(&self) -> Self {
        let mut other = self.clone();
        for task in other.tasks.values_mut() {
            task.times = task.times.map(|time| time.map(|time| time + 60_000));
        }
        other
    }

    /// Adds a task and returns its number.
    pub(super) fn enqueue(
        &mut self,
        now: u64,
        takes: u64,
        index: Option<&str>,
        kind: &'static str,
        details: Value,
        work: Work,
    ) -> u32 {
        let uid = self.newest().map_or(0, |newest| newest + 1);
        let task = Task {
            index: index.map(str::to_owned),
            kind,
            status: "enqueued",
            details: details.as_object().cloned().unwrap_or_default(),
            error: None,
            canceled_by: None,
            custom_metadata: None,
            work,
            takes,
            times: [Some(now), None, None],
        };
        self.tasks.insert(uid, task);
        self.ended_below = self.ended_below.min(uid);
        self.advance(now);
        uid
    }

    pub(super) fn newest(&self) -> Option<u32> {
        self.tasks.keys().next_back().copied()
    }

    pub(super) fn is_idle(&self) -> bool {
        let mut rest = self.tasks.range(self.ended_below..);
        rest.all(|(_, task)| !task.is_open())
    }

    /// Executes tasks until `now`.
    pub(super) fn advance(&mut self, now: u64) {
        loop {
            if let Some(uid) = self.working_on {
                if self.until > now {
                    return;
                }
                self.working_on = None;
                self.finish(uid);
            }
            // Cancelations are executed before everything else, as on a node.
            while let Some((uid, task)) = self.tasks.range(self.ended_below..).next()
                && !task.is_open()
            {
                self.ended_below = uid + 1;
            }
            let open = |urgent: bool| {
                self.tasks
                    .range(self.ended_below..)
                    .find(|(_, task)| {
                        task.status == "enqueued" && (task.kind == "taskCancelation") == urgent
                    })
                    .map(|(uid, _)| *uid)
            };
            let Some(uid) = open(true).or_else(|| open(false)) else {
                return;
            };
            let idle_since = self.until;
            let Some(task) = self.tasks.get_mut(&uid) else {
                return;
            };
            let begin = task.times[0].unwrap_or(0).max(idle_since);
            task.status = "processing";
            task.times[1] = Some(begin);
            self.until = begin + task.takes;
            self.working_on = Some(uid);
        }
    }

    /// Resumes after a pause: the task that was current starts again now.
    pub(super) fn wake(&mut self, now: u64) {
        if let Some(task) = self
            .working_on
            .take()
            .and_then(|uid| self.tasks.get_mut(&uid))
        {
            task.status = "enqueued";
        }
        self.until = self.until.max(now);
        self.advance(now);
    }

    fn finish(&mut self, uid: u32) {
        let Some(task) = self.tasks.get(&uid) else {
            return;
        };
        let (index, work) = (task.index.clone(), task.work.clone());
        let outcome = self.perform(uid, index.as_deref().unwrap_or_default(), work);
        let until = self.until;
        if let Some(task) = self.tasks.get_mut(&uid) {
            task.times[2] = Some(until);
            task.work = Work::Nothing;
            match outcome {
                Ok(details) => {
                    task.status = "succeeded";
                    task.details.extend(details);
                }
                Err(error) => {
                    task.status = "failed";
                    task.error = Some(error);
                    if task.kind == "documentAdditionOrUpdate" {
                        task.details.insert("indexedDocuments".to_owned(), 0.into());
                    }
                }
            }
        }
    }

    fn perform(&mut self, uid: u32, name: &str, work: Work) -> Outcome {
        match work {
            Work::Add {
                documents,
                key,
                merge,
            } => self.indexes.entry(name.to_owned()).or_default().add(
                documents,
                key.as_deref(),
                merge,
            ),
            Work::Create(_) if self.indexes.contains_key(name) => Err(error(
                "index_already_exists",
                &format!("Index `{name}` already exists."),
            )),
            Work::Create(key) => {
                let index = Index {
                    primary_key: key,
                    ..Index::default()
                };
                self.indexes.insert(name.to_owned(), index);
                Ok(Map::new())
            }
            Work::Settings(change) => {
                let index = self.indexes.entry(name.to_owned()).or_default();
                for (name, value) in change {
                    match value {
                        Value::Null => drop(index.settings.remove(&name)),
                        value => drop(index.settings.insert(name, value)),
                    }
                }
                Ok(Map::new())
            }
            Work::Swap(pairs) => self.swap(&pairs),
            Work::Cancel(uids) => Ok(self.cancel(uid, &uids)),
            Work::Forget(uids) => {
                let open = |uid: &u32| self.tasks.get(uid).is_some_and(Task::is_open);
                let gone: BTreeSet<u32> = uids.into_iter().filter(|uid| !open(uid)).collect();
                let before = self.tasks.len();
                self.tasks.retain(|uid, _| !gone.contains(uid));
                Ok(object(json!({"deletedTasks": before - self.tasks.len()})))
            }
            Work::Nothing => Ok(Map::new()),
            Work::Update { key, name: new } => self.update(name, key, new),
            Work::Drop => {
                let index = self.indexes.remove(name).ok_or_else(|| missing(name))?;
                Ok(object(json!({"deletedDocuments": index.documents.len()})))
            }
            Work::DeleteIds(_) | Work::DeleteEqual(..) | Work::Clear => {
                let index = self.indexes.get_mut(name).ok_or_else(|| missing(name))?;
                let before = index.documents.len();
                match work {
                    Work::DeleteIds(ids) => ids.iter().for_each(|id| index.delete(id)),
                    Work::DeleteEqual(field, value) => {
                        let equal = |(id, document): &(String, Map<String, Value>)| {
                            (document.get(&field) == Some(&value)).then(|| id.clone())
                        };
                        let ids: Vec<String> = index.documents.values().filter_map(equal).collect();
                        ids.iter().for_each(|id| index.delete(id));
                    }
                    _ => {
                        index.documents.clear();
                        index.numbers.clear();
                    }
                }
                Ok(object(
                    json!({"deletedDocuments": before - index.documents.len()}),
                ))
            }
        }
    }

    fn update(&mut self, name: &str, key: Option<String>, new: Option<String>) -> Outcome {
        let index = self.indexes.get_mut(name).ok_or_else(|| missing(name))?;
        if let Some(key) = key {
            if !index.documents.is_empty() && index.primary_key.as_ref() != Some(&key) {
                let held = index.primary_key.clone().unwrap_or_default();
                return Err(error(
                    "index_primary_key_already_exists",
                    &format!("Index `{name}`: Index already has a primary key: `{held}`."),
                ));
            }
            index.primary_key = Some(key);
        }
        match new {
            Some(new) => self.swap(&[(name.to_owned(), new, true)]),
            None => Ok(Map::new()),
        }
    }

    fn swap(&mut self, pairs: &[(String, String, bool)]) -> Outcome {
        for (one, two, rename) in pairs {
            if !self.indexes.contains_key(one) {
                return Err(missing(one));
            }
            match (self.indexes.contains_key(two), rename) {
                (true, true) => {
                    return Err(error(
                        "index_already_exists",
                        &format!("Index `{two}` already exists."),
                    ));
                }
                (false, false) => return Err(missing(two)),
                _ => {}
            }
        }
        for (one, two, _) in pairs {
            let (first, second) = (self.indexes.remove(one), self.indexes.remove(two));
            self.indexes.extend(first.map(|index| (two.clone(), index)));
            self.indexes
                .extend(second.map(|index| (one.clone(), index)));
            for task in self.tasks.values_mut().filter(|task| !task.is_open()) {
                match task.index.as_deref() {
                    Some(name) if name == one => task.index = Some(two.clone()),
                    Some(name) if name == two => task.index = Some(one.clone()),
                    _ => {}
                }
            }
        }
        Ok(Map::new())
    }

    fn cancel(&mut self, by: u32, uids: &[u32]) -> Map<String, Value> {
        let mut canceled = 0;
        let until = self.until;
        for uid in uids {
            if let Some(task) = self.tasks.get_mut(uid)
                && task.is_open()
            {
                task.status = "canceled";
                task.canceled_by = Some(by);
                task.times[2] = Some(until);
                canceled += 1;
            }
        }
        object(json!({"canceledTasks": canceled}))
    }
}

impl Index {
    pub(super) fn document(&self, id: &str) -> Option<&Map<String, Value>> {
        let number = self.numbers.get(id)?;
        self.documents.get(number).map(|(_, document)| document)
    }

    /// Documents by their ids.
    pub(super) fn contents(&self) -> BTreeMap<&str, &Map<String, Value>> {
        let documents = self.documents.values();
        documents
            .map(|(id, document)| (id.as_str(), document))
            .collect()
    }

    fn add(
        &mut self,
        documents: Vec<Map<String, Value>>,
        key: Option<&str>,
        merge: bool,
    ) -> Outcome {
        if let (Some(held), Some(asked)) = (&self.primary_key, key)
            && held != asked
        {
            let said = format!("Index already has a primary key: `{held}`.");
            return Err(error("index_primary_key_already_exists", &said));
        }
        let guessed = documents.first().and_then(|first| {
            let mut names = first
                .keys()
                .filter(|name| name.to_lowercase().ends_with("id"));
            names.next().cloned()
        });
        let key = self
            .primary_key
            .clone()
            .or(key.map(str::to_owned))
            .or(guessed);
        let (indexed, name) = (documents.len(), key.clone().unwrap_or_default());
        let mut ids = Vec::with_capacity(indexed);
        for document in &documents {
            match document.get(&name) {
                Some(Value::String(id)) => ids.push(id.clone()),
                Some(Value::Number(id)) => ids.push(id.to_string()),
                _ => {
                    let said = format!("Document doesn't have a `{name}` attribute.");
                    return Err(error("missing_document_id", &said));
                }
            }
        }
        if documents
            .iter()
            .any(|document| document.contains_key("refused"))
        {
            let said = "A document has a field that the engine refuses.";
            return Err(error("refused_document", said));
        }
        self.primary_key = key;
        for (id, document) in ids.into_iter().zip(documents) {
            let number = self.number(&id);
            let held = self
                .documents
                .entry(number)
                .or_insert_with(|| (id, Map::new()));
            if !merge {
                held.1.clear();
            }
            held.1.extend(document);
        }
        Ok(object(json!({"indexedDocuments": indexed})))
    }

    fn number(&mut self, id: &str) -> u32 {
        if let Some(number) = self.numbers.get(id) {
            return *number;
        }
        let free = (0..)
            .find(|number| !self.documents.contains_key(number))
            .unwrap_or(0);
        self.numbers.insert(id.to_owned(), free);
        free
    }

    fn delete(&mut self, id: &str) {
        if let Some(number) = self.numbers.remove(id) {
            self.documents.remove(&number);
        }
    }
}

impl Task {
    pub(super) fn is_open(&self) -> bool {
        matches!(self.status, "enqueued" | "processing")
    }

    pub(super) fn view(&self, uid: u32) -> Value {
        let [enqueued, started, finished] = self.times.map(|at| at.map(time_of));
        json!({
            "uid": uid, "batchUid": started.as_ref().map(|_| uid), "indexUid": self.index,
            "status": self.status, "type": self.kind, "canceledBy": self.canceled_by,
            "details": self.details, "error": self.error, "duration": null,
            "enqueuedAt": enqueued, "startedAt": started, "finishedAt": finished,
            "customMetadata": self.custom_metadata,
        })
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// Meilisearch's error shape.
pub(super) fn error(code: &str, message: &str) -> Value {
    let link = format!("https://docs.meilisearch.com/errors#{code}");
    json!({"message": message, "code": code, "type": "invalid_request", "link": link})
}

pub(super) fn missing(name: &str) -> Value {
    error("index_not_found", &format!("Index `{name}` not found."))
}
