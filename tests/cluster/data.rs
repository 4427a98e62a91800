//! Real documents: the films and airports of npm's `vega-datasets`, and Debian's package index.
//!
//! `make data` fetches the files into `.weft/data`. This module turns them into documents with an id. It
//! doesn't change their values.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use crate::HarnessError;
use crate::binaries::checkout;

mod airports;
mod debian;
mod movies;

/// Documents of one kind, and how they are indexed.
#[derive(Debug, Clone)]
pub struct DataSet {
    /// The index for these documents.
    pub index: &'static str,
    /// The field that holds the id.
    pub primary_key: &'static str,
    /// The field that a person would recognise a document by.
    pub title: &'static str,
    /// The index's settings.
    pub settings: Value,
    /// The documents.
    pub documents: Vec<Value>,
}

impl DataSet {
    /// 3,201 films: `title`, `genre`, `director`, `rating`, `votes`, `released`, ….
    pub fn movies() -> Result<Self, HarnessError> {
        read("movies.json", movies::parse)
    }

    /// 3,376 airports of the United States, with coordinates.
    pub fn airports() -> Result<Self, HarnessError> {
        read("airports.csv", airports::parse)
    }

    /// All packages in this machine's Debian package index.
    pub fn debian() -> Result<Self, HarnessError> {
        read("debian.txt", debian::parse)
    }

    /// At most `count` documents from position `from` on, as NDJSON.
    pub fn ndjson(&self, from: usize, count: usize) -> Vec<u8> {
        let mut text = Vec::new();
        for document in self.documents.iter().skip(from).take(count) {
            text.extend_from_slice(document.to_string().as_bytes());
            text.push(b'\n');
        }
        text
    }
}

fn read(file: &str, parse: fn(&str) -> Option<DataSet>) -> Result<DataSet, HarnessError> {
    let path = path(file);
    let text = fs::read_to_string(&path).map_err(|_| HarnessError::Missing {
        what: "the data set",
        path: path.clone(),
        remedy: "`make data` fetches it",
    })?;
    parse(&text).ok_or(HarnessError::Missing {
        what: "a readable data set",
        path,
        remedy: "remove it, and `make data` fetches it again",
    })
}

fn path(file: &str) -> PathBuf {
    checkout().join(".weft/data").join(file)
}
