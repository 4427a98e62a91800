//! The queries that both servers are asked: from a file, or made of words of the source's documents.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::super::error::ImportError;
use super::super::source::{Index, Server};

/// The longest line of a file of queries, in bytes.
const MAX_LINE: u64 = 1 << 20;
/// The most queries that are read.
const MAX_QUERIES: usize = 1_000_000;
/// At how many places of an index documents are read, and how many at each.
const PLACES: u64 = 25;
const AT_A_PLACE: u64 = 8;
/// The most facets that a made query asks for.
const FACETS: usize = 3;
const SHORTEST_WORD: usize = 3;

/// A search of one index.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    /// The index.
    pub(super) index: String,
    /// The body of the search.
    pub(super) body: Value,
}

/// Reads a file: a JSON object a line, with the member `index` (or `indexUid`, as in a multi-search) and those of a search. Of
/// more than `sample`, so many are taken from all over the file.
///
/// # Errors
/// [`ImportError::Queries`].
pub(super) fn read(path: &Path, sample: Option<u32>) -> Result<Vec<Query>, ImportError> {
    let fail = |reason: String| ImportError::Queries {
        path: path.to_owned(),
        reason,
    };
    let file = File::open(path).map_err(|error| fail(error.to_string()))?;
    let mut file = BufReader::new(file);
    let (mut queries, mut line, mut number) = (Vec::new(), Vec::new(), 0);
    loop {
        line.clear();
        let read = (&mut file).take(MAX_LINE).read_until(b'\n', &mut line);
        if read.map_err(|error| fail(error.to_string()))? == 0 {
            break;
        }
        number += 1;
        let text = line.trim_ascii();
        if text.is_empty() {
            continue;
        }
        queries.push(parse(text).map_err(|reason| fail(format!("line {number}: {reason}")))?);
        if queries.len() > MAX_QUERIES {
            return Err(fail(format!("more than {MAX_QUERIES} queries")));
        }
    }
    Ok(match sample {
        Some(sample) => spread(queries, sample as usize),
        None => queries,
    })
}

fn parse(line: &[u8]) -> Result<Query, String> {
    let mut body: Map<String, Value> =
        serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let named = ["index", "indexUid"];
    let named: Vec<Value> = named.iter().filter_map(|name| body.remove(*name)).collect();
    match named.as_slice() {
        [Value::String(index)] if is_uid(index) => Ok(Query {
            index: index.clone(),
            body: Value::Object(body),
        }),
        _ => Err("it must have the member `index`, the uid of an index".to_owned()),
    }
}

fn is_uid(text: &str) -> bool {
    let named = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !text.is_empty() && text.bytes().all(named)
}

fn spread(queries: Vec<Query>, wanted: usize) -> Vec<Query> {
    let all = queries.len();
    let taken = |n: &usize| wanted >= all || n * wanted / all != (n + 1) * wanted / all;
    let numbered = queries.into_iter().enumerate();
    numbered
        .filter(|(n, _)| taken(n))
        .map(|(_, query)| query)
        .collect()
}

/// Makes queries of words that documents from all over an index hold.
pub(super) async fn make(
    source: &Server,
    index: &Index,
    count: u32,
) -> Result<Vec<Query>, ImportError> {
    let uid = &index.uid;
    let settings = source.settings(uid).await?;
    let total = source.count(uid).await?;
    let mut documents = Vec::new();
    for place in 0..PLACES {
        let offset = total * place / PLACES;
        if offset < total && (place == 0 || offset != total * (place - 1) / PLACES) {
            documents.extend(source.page(uid, offset, AT_A_PLACE).await?.results);
        }
    }
    let words = words(
        &documents,
        &searchable(&settings),
        index.primary_key.as_deref(),
    );
    let facets = facets(&settings);
    let query = |n| Query {
        index: uid.clone(),
        body: body(&words, &facets, n),
    };
    Ok(match words.is_empty() {
        true => Vec::new(),
        false => (0..count).map(query).collect(),
    })
}

/// The fields in which words are looked for; empty for all.
fn searchable(settings: &Value) -> Vec<String> {
    let named = settings
        .get("searchableAttributes")
        .and_then(Value::as_array);
    let named = named.into_iter().flatten().filter_map(Value::as_str);
    let named: Vec<String> = named.map(str::to_owned).collect();
    match named.iter().any(|name| name == "*") {
        true => Vec::new(),
        false => named,
    }
}

fn facets(settings: &Value) -> Vec<String> {
    let named = settings
        .get("filterableAttributes")
        .and_then(Value::as_array);
    let named = named.into_iter().flatten().filter_map(Value::as_str);
    let plain = named.filter(|name| !name.contains('*') && !name.starts_with('_'));
    plain.take(FACETS).map(str::to_owned).collect()
}

fn words(
    documents: &[Box<RawValue>],
    searchable: &[String],
    primary_key: Option<&str>,
) -> Vec<String> {
    let mut words = BTreeSet::new();
    for document in documents {
        let fields: Map<String, Value> = serde_json::from_str(document.get()).unwrap_or_default();
        for (name, value) in &fields {
            let wanted = searchable.is_empty() || searchable.iter().any(|one| one == name);
            if wanted && !name.starts_with('_') && Some(name.as_str()) != primary_key {
                words_of(value, &mut words);
            }
        }
    }
    words.into_iter().collect()
}

fn words_of(value: &Value, words: &mut BTreeSet<String>) {
    match value {
        Value::String(text) => {
            let parts = text.split(|letter: char| !letter.is_alphanumeric());
            let long = parts.filter(|word| word.chars().count() >= SHORTEST_WORD);
            words.extend(long.take(50).map(str::to_lowercase));
        }
        Value::Array(values) => values
            .iter()
            .take(20)
            .for_each(|value| words_of(value, words)),
        _ => {}
    }
}

/// The query with a number: of one word or two, cut short, or with a mistake; every fourth with facets. The same number gives the
/// same query.
fn body(words: &[String], facets: &[String], n: u32) -> Value {
    let pick = |salt: u32| {
        let number = xxh3_64(&[n.to_le_bytes(), salt.to_le_bytes()].concat());
        let place = usize::try_from(number % words.len().max(1) as u64).unwrap_or(0);
        words.get(place).cloned().unwrap_or_default()
    };
    let first = pick(0);
    let text = match n % 4 {
        0 => first,
        1 => format!("{first} {}", pick(1)),
        2 => first.chars().take(SHORTEST_WORD).collect(),
        _ => mistyped(&first),
    };
    match n % 4 == 1 && !facets.is_empty() {
        true => json!({"q": text, "facets": facets}),
        false => json!({"q": text}),
    }
}

/// A word with two letters in the middle swapped.
fn mistyped(word: &str) -> String {
    let mut letters: Vec<char> = word.chars().collect();
    let middle = letters.len() / 2;
    if middle > 0 && middle + 1 < letters.len() {
        letters.swap(middle, middle + 1);
    }
    letters.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("queries.jsonl");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    #[test]
    fn a_file_has_a_query_a_line() {
        let (_folder, path) = written(
            "{\"index\":\"films\",\"q\":\"alien\",\"limit\":5}\n\n{\"indexUid\":\"books\"}",
        );
        let queries = read(&path, None).unwrap();
        assert_eq!(queries.len(), 2);
        assert_eq!(queries[0].index, "films");
        assert_eq!(queries[0].body, json!({"q": "alien", "limit": 5}));
        assert_eq!(queries[1].body, json!({}));
    }

    #[test]
    fn a_line_that_is_no_query_is_named() {
        for bad in [
            "{",
            "[]",
            "{\"q\":\"x\"}",
            "{\"index\":7}",
            "{\"index\":\"a/b\"}",
        ] {
            let (_folder, path) = written(&format!("{{\"index\":\"films\"}}\n{bad}\n"));
            let error = read(&path, None).unwrap_err().to_string();
            assert!(error.contains("line 2"), "{bad}: {error}");
        }
    }

    #[test]
    fn a_sample_is_taken_from_all_over_the_file() {
        let lines: String = (0..100)
            .map(|n| format!("{{\"index\":\"x\",\"offset\":{n}}}\n"))
            .collect();
        let (_folder, path) = written(&lines);
        let queries = read(&path, Some(10)).unwrap();
        assert_eq!(queries.len(), 10);
        let offsets: Vec<u64> = queries
            .iter()
            .map(|query| query.body["offset"].as_u64().unwrap())
            .collect();
        assert!(offsets[0] < 10 && offsets[9] > 89, "{offsets:?}");
        assert_eq!(read(&path, Some(1000)).unwrap().len(), 100);
    }

    #[test]
    fn queries_are_made_of_words_that_can_be_found() {
        let document = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let documents = [
            document(
                r#"{"id":"key","title":"The Alien, 1979","tags":["space"],"secret":"hidden"}"#,
            ),
            document(r#"{"id":"other","title":"Ran"}"#),
        ];
        let fields = ["title".to_owned(), "tags".to_owned()];
        let found = words(&documents, &fields, Some("id"));
        assert_eq!(found, ["1979", "alien", "ran", "space", "the"]);
        let all = words(&documents, &[], Some("id"));
        assert!(all.contains(&"hidden".to_owned()) && !all.contains(&"key".to_owned()));
        let facets = facets(&json!({"filterableAttributes": ["a", "b.*", "_geo", {"x": 1}]}));
        assert_eq!(facets, ["a"]);
        let queries: Vec<Value> = (0..40).map(|n| body(&found, &facets, n)).collect();
        assert_eq!(queries[1]["facets"], json!(["a"]));
        assert!(
            queries
                .iter()
                .all(|query| query["q"].as_str().unwrap().len() >= 3)
        );
        assert_eq!(
            queries[7],
            body(&found, &facets, 7),
            "they can be asked again"
        );
    }

    #[test]
    fn a_mistyped_word_has_two_letters_swapped() {
        assert_eq!(mistyped("alien"), "alein");
        assert_eq!(mistyped("ab"), "ab");
        assert_eq!(mistyped(""), "");
    }
}
