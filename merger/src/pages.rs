//! Checks that the files, folders and headings that Weft's pages name exist.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

const ARCHITECTURE: &str = include_str!("lib.rs");
const PAGES: [(&str, &str); 6] = [
    ("README.md", include_str!("../../README.md")),
    ("merger/README.md", include_str!("../README.md")),
    ("filter/README.md", include_str!("../../filter/README.md")),
    ("tests/README.md", include_str!("../../tests/README.md")),
    (
        "envoy/istio/README.md",
        include_str!("../../envoy/istio/README.md"),
    ),
    (
        "envoy/observability/README.md",
        include_str!("../../envoy/observability/README.md"),
    ),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The targets of the page's links.
fn links(page: &str) -> impl Iterator<Item = &str> {
    page.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link)
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> HashSet<String> {
    let mut is_code = false;
    page.lines()
        .filter(|line| {
            is_code ^= line.starts_with("```");
            !is_code && line.starts_with('#')
        })
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            words
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// What is wrong with a link on a page; `None` if it is right.
fn fault(name: &str, page: &str, link: &str) -> Option<String> {
    if link.starts_with("https://") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let folder = root().join(name);
    let target = folder.parent()?.join(path);
    let text = if path.is_empty() {
        page.to_owned()
    } else if target.is_file() {
        std::fs::read_to_string(&target).unwrap_or_default()
    } else {
        return Some(format!("{name} links to {link}: there is no such file"));
    };
    let lacks = !anchor.is_empty() && !anchors(&text).contains(anchor);
    lacks.then(|| format!("{name} links to {link}: there is no such heading"))
}

#[test]
fn the_code_map_names_no_path_that_is_gone() {
    let rows = ARCHITECTURE
        .lines()
        .filter_map(|line| line.strip_prefix("//! | `")?.split_once("` |"));
    let paths: Vec<&str> = rows
        .map(|(path, _)| path)
        .filter(|path| path.ends_with('/'))
        .collect();
    assert!(paths.len() > 6, "the code map is gone");
    for path in paths {
        assert!(root().join(path).is_dir(), "{path} is gone");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    let mut faults = Vec::new();
    for (name, page) in PAGES {
        for link in links(page) {
            count += 1;
            faults.extend(fault(name, page, link));
        }
    }
    assert!(count > 30, "only {count} links were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let page = "# One two, `three`\n```sh\n# no heading\n```\n";
    let fault = |link| fault("merger/README.md", page, link);
    assert_eq!(fault("#one-two-three"), None);
    assert!(fault("#no-heading").is_some());
    assert_eq!(fault("../README.md#try-it"), None);
    assert!(fault("../README.md#try-that").is_some());
    assert!(fault("README.txt").is_some());
}
