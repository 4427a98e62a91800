//! `weft import SOURCE --compare`: asks source and cluster the same queries, and says how often they answer alike. Nothing is
//! written.

mod judge;
mod queries;
mod shares;

use std::collections::BTreeMap;
use std::path::Path;

use futures_util::StreamExt;
use http::Method;
use serde_json::{Value, json};

use super::Done;
use super::args::{ImportArgs, SourceKind};
use super::error::ImportError;
use super::progress::Progress;
use super::session;
use super::source::{Server, Side};
use crate::cli::remote::RemoteError;
use judge::Verdict;
use queries::Query;
use shares::Shares;

/// How many queries are asked at once.
const AT_ONCE: usize = 4;
/// How many queries are made for each index.
const MADE: u32 = 200;

/// Compares, and reports.
pub(super) async fn run(arguments: &ImportArgs, file: Option<&Path>) -> Result<Done, ImportError> {
    if !(0.0..=100.0).contains(&arguments.min_equal) {
        return Err(ImportError::Usage("--min-equal is a percentage: 0 to 100"));
    }
    let SourceKind::Live(remote) = arguments.source_kind()? else {
        return Err(ImportError::Usage(
            "--compare needs a running source: a dump answers nothing",
        ));
    };
    let source = Server::new(Side::Source, *remote);
    source.probe().await?;
    let cluster = session::target(arguments).await?.server;
    let mut indexes = source.indexes().await?;
    if let Some(wanted) = missing(arguments, &indexes) {
        return Err(ImportError::NoSuchIndex(wanted));
    }
    indexes.retain(|index| arguments.chooses(&index.uid));
    let mut queries = Vec::new();
    match file {
        Some(file) => {
            queries = queries::read(file, arguments.sample)?;
            queries.retain(|query| arguments.chooses(&query.index));
        }
        None => {
            for index in &indexes {
                let count = arguments.sample.unwrap_or(MADE);
                queries.extend(queries::make(&source, index, count).await?);
            }
        }
    }
    let keys: BTreeMap<String, String> = indexes
        .into_iter()
        .filter_map(|index| Some((index.uid, index.primary_key?)))
        .collect();
    let shares = ask_all(&source, &cluster, &keys, queries).await?;
    Ok(shares.done(arguments.min_equal, arguments.output.json))
}

fn missing(arguments: &ImportArgs, indexes: &[super::source::Index]) -> Option<String> {
    let there = |uid: &&String| !indexes.iter().any(|index| index.uid == **uid);
    arguments.indexes.iter().find(there).cloned()
}

async fn ask_all(
    source: &Server,
    cluster: &Server,
    keys: &BTreeMap<String, String>,
    queries: Vec<Query>,
) -> Result<Shares, ImportError> {
    let mut progress = Progress::of("queries", queries.len() as u64);
    let verdicts = queries.into_iter().map(|query| async move {
        let key = keys.get(&query.index).map(String::as_str);
        let body = asked(&query.body, key);
        let (one, many) = tokio::join!(
            search(source, &query.index, &body),
            search(cluster, &query.index, &body)
        );
        let verdict = Verdict::of(&one?, &many?, &body, key.unwrap_or_default());
        Ok::<_, ImportError>((query, verdict))
    });
    let mut verdicts = futures_util::stream::iter(verdicts).buffered(AT_ONCE);
    let mut shares = Shares::default();
    while let Some(next) = verdicts.next().await {
        let (query, verdict) = next?;
        shares.add(&query, &verdict);
        progress.add(1);
    }
    progress.end();
    Ok(shares)
}

/// A query as it is asked: with scores, and of documents only their ids.
fn asked(body: &Value, key: Option<&str>) -> Value {
    let mut body = body.clone();
    if let Some(members) = body.as_object_mut() {
        members.insert("showRankingScore".to_owned(), Value::Bool(true));
        if let Some(key) = key {
            members.insert("attributesToRetrieve".to_owned(), json!([key]));
        }
    }
    body
}

/// An answer; a refusal of the query is one, too.
async fn search(server: &Server, index: &str, body: &Value) -> Result<Value, ImportError> {
    let path = format!("/indexes/{index}/search");
    match server.ask(Method::POST, &path, Some(body)).await {
        Err(
            ImportError::Source(RemoteError::Refused { status, code, .. })
            | ImportError::Target(RemoteError::Refused { status, code, .. }),
        ) if matches!(status.as_u16(), 400 | 404) => Ok(json!({"code": code})),
        answer => answer,
    }
}
