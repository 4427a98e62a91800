//! Nested attributes, such as `content.author`, among the attributes to retrieve.
//!
//! If an index knows such an attribute, the engine shows what is in its place in documents that lack it: `{}`, or a text
//! where other documents have an object. A shard that doesn't know the attribute shows nothing there. So if a shard lacks
//! it while another shard has it, the merger also asks the shard for the attributes around it, and removes from the answer
//! what one node wouldn't have shown: see [`show`].
//!
//! That a shard has an attribute is remembered for a minute. A shard that lacks one is asked again before each search.

mod show;

use bytes::Bytes;
use futures_util::future::join_all;
use hashbrown::{HashMap, HashSet};
use http::{Method, StatusCode};
use memchr::memmem;
use serde_json::{Map, Value, json};
use std::time::Duration;
use weft_routing::operation::{Operation, classify};
use weft_routing::placement::ShardId;

use super::{Ask, Gathered, Reader};
use crate::filters::MOST_FIELDS;
use crate::search::request::Carrier;
use show::Shown;

/// A shard that doesn't report its attributes within this time counts as having all of them.
const PATIENCE: Duration = Duration::from_secs(1);

/// What must be removed from the answers again, by the request's position.
pub(super) type Surplus = HashMap<usize, Vec<(usize, Shown)>>;

/// The attributes that one query names: those to retrieve, and those that are formatted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    /// The query's position among the queries of its request.
    at: usize,
    index: String,
    shown: Vec<String>,
    /// The attributes named in `_formatted`; `None` if it holds everything.
    formatted: Option<Vec<String>>,
}

/// The requests, widened by the attributes around those that their shards lack and other shards have.
pub(super) async fn around(reader: &Reader<'_>, mut asks: Vec<Ask>) -> (Vec<Ask>, Surplus) {
    let mut surplus = Surplus::new();
    // The requests to the shards are mostly equal and share one piece of memory.
    let mut read: HashMap<(String, Option<Bytes>), Vec<Named>> = HashMap::new();
    let named: Vec<Vec<Named>> = asks
        .iter()
        .map(|ask| {
            if !ask.may_name_nested() {
                return Vec::new();
            }
            let key = (ask.path_and_query.clone(), ask.body.clone());
            read.entry(key).or_insert_with(|| ask.named()).clone()
        })
        .collect();
    let wanted: HashSet<(&str, &str)> = named
        .iter()
        .flatten()
        .flat_map(|query| query.nested().map(|name| (query.index.as_str(), name)))
        .collect();
    if wanted.is_empty() || wanted.len() > MOST_FIELDS {
        return (asks, surplus);
    }
    let Attributes { had, lacking } = attributes(reader, &wanted).await;
    if lacking.is_empty() {
        return (asks, surplus);
    }
    for (at, (ask, named)) in asks.iter_mut().zip(&named).enumerate() {
        for query in named {
            let lacks = |name: &&str| {
                let key = (query.index.clone(), (*name).to_owned());
                lacking.get(&key).is_some_and(|on| on.contains(&ask.shard))
            };
            let mut around: Vec<String> = query
                .nested()
                .filter(lacks)
                .flat_map(ancestors)
                .filter(|name| !query.shown.iter().any(|shown| shown == name))
                .map(str::to_owned)
                .collect();
            around.sort_unstable();
            around.dedup();
            if around.is_empty() {
                continue;
            }
            if let Some(wider) = ask.with(query, &around) {
                *ask = wider;
                // Of an attribute that no shard has, nothing is shown.
                let there = |names: &[String]| -> Vec<String> {
                    let is_there = |name: &&String| {
                        !name.contains('.') || had.contains(&(query.index.as_str(), name.as_str()))
                    };
                    names.iter().filter(is_there).cloned().collect()
                };
                let formatted = query.formatted.as_deref().map(there);
                let shown = Shown::new(there(&query.shown), formatted, around);
                surplus.entry(at).or_default().push((query.at, shown));
            }
        }
    }
    (asks, surplus)
}

/// Removes from the answers what was requested in addition to the client's attributes.
pub(super) fn without(surplus: &Surplus, gathered: &mut Gathered) {
    for reply in &mut gathered.replies {
        if let Some(shown) = surplus.get(&reply.at)
            // If the answer can't be read, the caller that parses it next will notice.
            && let Ok(body) = show::only(&reply.body, shown)
        {
            reply.body = body.into();
        }
    }
}

impl Named {
    fn nested(&self) -> impl Iterator<Item = &str> {
        let formatted = self.formatted.iter().flatten();
        let all = self.shown.iter().chain(formatted).map(String::as_str);
        all.filter(|name| name.contains('.') && !name.contains('*'))
    }
}

/// `a` and `a.b`, for `a.b.c`.
fn ancestors(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.')
        .filter_map(|(at, _)| name.get(..at))
        .filter(|name| !name.is_empty())
}

impl Ask {
    fn may_name_nested(&self) -> bool {
        let names = |text: &[u8]| {
            memmem::find(text, b"attributesToRetrieve").is_some()
                || memmem::find(text, b"fields").is_some()
        };
        let nests = |text: &[u8]| memmem::find(text, b".").is_some();
        let query = self.path_and_query.as_bytes();
        // A dot may be escaped in a query string.
        names(query)
            || self
                .body
                .as_deref()
                .is_some_and(|text| names(text) && nests(text))
    }

    fn named(&self) -> Vec<Named> {
        let Ok(asked) = classify(self.method.as_str(), &self.path_and_query) else {
            return Vec::new();
        };
        let index = asked.index.as_deref().unwrap_or_default();
        let one = |carrier: Option<Carrier>| {
            let named = carrier.and_then(|carrier| named_by(&carrier, asked.operation, 0, index));
            named.into_iter().collect()
        };
        match asked.operation {
            Operation::MultiSearch => {
                let body = self.body.as_deref();
                let body = body.and_then(|body| serde_json::from_slice::<Value>(body).ok());
                let queries = body
                    .as_ref()
                    .and_then(|body| body.get("queries")?.as_array());
                let named = queries
                    .into_iter()
                    .flatten()
                    .enumerate()
                    .map(|(at, query)| {
                        let index = query.get("indexUid")?.as_str()?;
                        let carrier = Carrier::Body(query.as_object()?.clone());
                        named_by(&carrier, Operation::SearchPost, at, index)
                    });
                named.flatten().collect()
            }
            Operation::SearchPost | Operation::SimilarPost | Operation::FetchDocuments => {
                one(self.body.as_deref().and_then(Carrier::from_body))
            }
            Operation::SearchGet | Operation::SimilarGet | Operation::ListDocuments => {
                let pairs = form_urlencoded::parse(asked.query.as_bytes());
                one(Some(Carrier::from_query(pairs)))
            }
            _ => Vec::new(),
        }
    }

    /// The same request with more attributes to retrieve.
    fn with(&self, query: &Named, around: &[String]) -> Option<Self> {
        let asked = classify(self.method.as_str(), &self.path_and_query).ok()?;
        let parameter = parameter_of(asked.operation);
        let widen = |carrier: &mut Carrier| {
            for name in around {
                carrier.push(parameter, name);
            }
        };
        if asked.operation == Operation::MultiSearch {
            return self.change_body(|body| {
                let queries = body.get_mut("queries").and_then(Value::as_array_mut);
                let query = queries.and_then(|queries| queries.get_mut(query.at));
                let Some(query) = query.and_then(Value::as_object_mut) else {
                    return false;
                };
                let mut carrier = Carrier::Body(std::mem::take(query));
                widen(&mut carrier);
                if let Carrier::Body(wider) = carrier {
                    *query = wider;
                }
                true
            });
        }
        let mut carrier = match &self.body {
            Some(body) => Carrier::from_body(body)?,
            None => Carrier::from_query(form_urlencoded::parse(asked.query.as_bytes())),
        };
        widen(&mut carrier);
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        Some(Self::new(self.shard, path, &carrier))
    }
}

fn parameter_of(operation: Operation) -> &'static str {
    match operation {
        Operation::FetchDocuments | Operation::ListDocuments => "fields",
        _ => "attributesToRetrieve",
    }
}

/// The attributes that a query names; `None` if it retrieves everything, or nothing that is nested.
fn named_by(carrier: &Carrier, operation: Operation, at: usize, index: &str) -> Option<Named> {
    let everything = |names: &[String]| names.iter().any(|name| name == "*");
    let shown = carrier.list(parameter_of(operation))??;
    // A list of documents knows no `*` among other fields.
    let alone = operation != Operation::FetchDocuments || shown.len() == 1;
    if everything(&shown) && alone {
        return None;
    }
    let highlighted = carrier.list("attributesToHighlight")?.unwrap_or_default();
    let cropped = carrier.list("attributesToCrop")?.unwrap_or_default();
    let cropped = cropped.iter().map(|name| match name.rsplit_once(':') {
        Some((name, length)) if length.parse::<usize>().is_ok() => name,
        _ => name,
    });
    let mut formatted = shown.clone();
    formatted.extend(highlighted);
    formatted.extend(cropped.map(str::to_owned));
    let named = Named {
        at,
        index: index.to_owned(),
        shown,
        formatted: (!everything(&formatted)).then_some(formatted),
    };
    let nests = named.nested().next().is_some();
    nests.then_some(named)
}

/// Attributes by index and name.
struct Attributes<'a> {
    /// Those that some shard of their index has.
    had: HashSet<(&'a str, &'a str)>,
    /// Of these, the shards that lack them.
    lacking: HashMap<(String, String), Vec<ShardId>>,
}

async fn attributes<'a>(
    reader: &Reader<'_>,
    wanted: &HashSet<(&'a str, &'a str)>,
) -> Attributes<'a> {
    let known = &reader.ctx.known_fields;
    let (mark, goes_by_memory) = (known.mark(), reader.from.goes_by_memory());
    let mut unsure: HashMap<(&'a str, ShardId), Vec<&'a str>> = HashMap::new();
    let mut had: HashSet<(&'a str, &'a str)> = HashSet::new();
    for &(index, name) in wanted {
        let Some(placement) = reader.ctx.cluster.placement(index) else {
            continue;
        };
        if placement.shards().len() < 2 {
            continue;
        }
        for shard in placement.shards() {
            if goes_by_memory && known.look(index, &on_shard(*shard, name)).is_some() {
                had.insert((index, name));
            } else {
                unsure.entry((index, *shard)).or_default().push(name);
            }
        }
    }
    let own = reader.on_own_authority();
    let answers = join_all(unsure.iter().map(|((index, shard), names)| {
        let request = own.request(&question(*shard, index, names), PATIENCE);
        reader.ctx.upstream.send(request)
    }));
    let mut lacking: HashMap<(String, String), Vec<ShardId>> = HashMap::new();
    for (((index, shard), names), answer) in unsure.iter().zip(answers.await) {
        let Some(found) = answer.ok().filter(|a| a.status == StatusCode::OK) else {
            continue;
        };
        let found = names_in(&found.body);
        for name in names {
            if found.contains(*name) {
                if goes_by_memory {
                    known.remember(mark, index, vec![(on_shard(*shard, name), ())]);
                }
                had.insert((index, name));
            } else {
                let key = ((*index).to_owned(), (*name).to_owned());
                lacking.entry(key).or_default().push(*shard);
            }
        }
    }
    lacking.retain(|(index, name), _| had.contains(&(index.as_str(), name.as_str())));
    Attributes { had, lacking }
}

/// The key under which it is remembered that a shard has an attribute. No field's name begins like this.
fn on_shard(shard: ShardId, name: &str) -> String {
    format!("\0{}\0{name}", shard.0)
}

/// Asks a shard which of the attributes it has.
fn question(shard: ShardId, index: &str, names: &[&str]) -> Ask {
    const ALL: usize = 1 << 20;
    let body = json!({"filter": {"attributePatterns": names}, "limit": ALL});
    Ask {
        shard,
        method: Method::POST,
        path_and_query: format!("/indexes/{index}/fields"),
        body: Some(Bytes::from(body.to_string())),
    }
}

fn names_in(body: &[u8]) -> HashSet<String> {
    let body: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    let fields = body.get("results").and_then(Value::as_array);
    let names = fields.into_iter().flatten();
    names
        .filter_map(|field| Some(field.get("name")?.as_str()?.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: Method, path: &str, body: Option<Value>) -> Ask {
        Ask {
            shard: ShardId(0),
            method,
            path_and_query: path.to_owned(),
            body: body.map(|body| body.to_string().into()),
        }
    }

    /// The names that are asked about, and the request widened by the attributes around them.
    fn wider(ask: &Ask) -> (Vec<String>, Ask) {
        let mut wider = ask.clone();
        let mut names = Vec::new();
        if ask.may_name_nested() {
            for query in ask.named() {
                names.extend(query.nested().map(str::to_owned));
                let around: Vec<String> = query
                    .nested()
                    .flat_map(ancestors)
                    .map(str::to_owned)
                    .collect();
                wider = wider.with(&query, &around).unwrap();
            }
        }
        (names, wider)
    }

    fn check(path: &str, body: Value, names: &[&str], expected: Value) {
        let (found, wider) = wider(&ask(Method::POST, path, Some(body)));
        assert_eq!(found, names);
        let body: Value = serde_json::from_slice(&wider.body.unwrap()).unwrap();
        assert_eq!(body, expected);
    }

    #[test]
    fn what_is_around_nested_attributes_is_asked_for_in_every_way() {
        check(
            "/indexes/x/search",
            json!({"attributesToRetrieve": ["id", "a.b.c"]}),
            &["a.b.c", "a.b.c"],
            json!({"attributesToRetrieve": ["id", "a.b.c", "a", "a.b", "a", "a.b"]}),
        );
        check(
            "/indexes/x/documents/fetch",
            json!({"fields": ["a.b"], "filter": "n = 1.5"}),
            &["a.b", "a.b"],
            json!({"fields": ["a.b", "a", "a"], "filter": "n = 1.5"}),
        );
        let plain = json!({"indexUid": "x", "attributesToRetrieve": ["id"]});
        check(
            "/multi-search",
            json!({"queries": [plain, {"indexUid": "y", "attributesToRetrieve": [], "attributesToCrop": ["a.b:2"]}]}),
            &["a.b"],
            json!({"queries": [plain, {"indexUid": "y", "attributesToRetrieve": ["a"], "attributesToCrop": ["a.b:2"]}]}),
        );
        for (path, expected) in [
            (
                "search?q=x&attributesToRetrieve=id,a%2Eb",
                "search?q=x&attributesToRetrieve=id%2Ca.b%2Ca%2Ca",
            ),
            ("documents?fields=a.b", "documents?fields=a.b%2Ca%2Ca"),
        ] {
            let (_, wider) = wider(&ask(Method::GET, &format!("/indexes/x/{path}"), None));
            assert_eq!(wider.path_and_query, format!("/indexes/x/{expected}"));
        }
    }

    #[test]
    fn who_retrieves_everything_or_nothing_nested_asks_as_before() {
        for body in [
            json!({"q": "a.b", "attributesToRetrieve": ["*", "a.b"]}),
            json!({"q": "a.b", "attributesToRetrieve": ["a"]}),
            json!({"q": "a.b", "attributesToRetrieve": null, "attributesToCrop": ["a.b"]}),
            json!({"attributesToRetrieve": ["a.*"]}),
        ] {
            check("/indexes/x/search", body.clone(), &[], body);
        }
    }
}
