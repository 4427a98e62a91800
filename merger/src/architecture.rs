//! Checks the code against the table of parts at the head of `lib.rs`: which part may import which.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("lib.rs");

/// The parts in the order of the table, each with the parts that it may import.
fn table() -> Vec<(String, BTreeSet<String>)> {
    let names = |cell: &str| -> Vec<String> {
        let quoted = cell.split('`').skip(1).step_by(2);
        quoted.map(str::to_owned).collect()
    };
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let mut parts = Vec::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        let [part, _, uses, ..] = cells.as_slice() else {
            continue;
        };
        let part = part.trim().trim_matches('`').to_owned();
        if part.contains('/') {
            // This is a row of the code map, not of the table.
            continue;
        }
        parts.push((part, names(uses).into_iter().collect()));
    }
    parts
}

fn source_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The source without comments and without its tests, which may import anything.
fn code(text: &str) -> String {
    let before_tests = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let lines = before_tests.lines();
    let uncommented = lines.map(|line| line.split("//").next().unwrap());
    uncommented.collect::<Vec<_>>().join("\n")
}

/// The parts that a file names after `crate::`.
fn imports(code: &str) -> BTreeSet<String> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let mut found = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        match after.strip_prefix('{') {
            Some(list) => {
                let mut depth = 0;
                let mut name = String::new();
                for letter in list.chars() {
                    match letter {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => drop(found.insert(std::mem::take(&mut name))),
                        _ if depth == 0 => name.push(letter),
                        _ => {}
                    }
                }
                found.insert(name);
            }
            None => drop(found.insert(after.chars().take_while(|c| is_name(*c)).collect())),
        }
    }
    let first = |name: &String| name.trim().split("::").next().unwrap().to_owned();
    found.iter().map(first).collect()
}

/// The parts that each part imports, each with a file that does.
fn imported() -> BTreeMap<String, BTreeMap<String, PathBuf>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&root, &mut files);
    let mut imported: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for file in files {
        let relative = file.strip_prefix(&root).unwrap();
        let top = relative.components().next().unwrap();
        let part = top.as_os_str().to_str().unwrap().trim_end_matches(".rs");
        let stem = relative.file_stem().unwrap();
        let is_test = ["tests", "properties"].iter().any(|name| stem == *name);
        if is_test || ["lib", "main", "sim", "architecture", "pages"].contains(&part) {
            continue;
        }
        let uses = imported.entry(part.to_owned()).or_default();
        for import in imports(&code(&std::fs::read_to_string(&file).unwrap())) {
            if import != part {
                uses.entry(import).or_insert_with(|| relative.to_owned());
            }
        }
    }
    imported
}

#[test]
fn parts_import_only_what_the_table_allows() {
    let table: BTreeMap<String, BTreeSet<String>> = table().into_iter().collect();
    let parts: BTreeSet<String> = table.keys().cloned().collect();
    let mut forbidden = Vec::new();
    for (part, uses) in imported() {
        let Some(allowed) = table.get(&part) else {
            forbidden.push(format!("the table lacks `{part}`"));
            continue;
        };
        for (import, file) in uses {
            if parts.contains(&import) && !allowed.contains(&import) {
                forbidden.push(format!("{} imports `{import}`", file.display()));
            }
        }
    }
    assert!(forbidden.is_empty(), "{}", forbidden.join("\n"));
}

#[test]
fn the_table_leads_down_and_allows_nothing_that_is_not_needed() {
    let (mut above, mut wrong) = (BTreeSet::new(), Vec::new());
    let imported = imported();
    for (part, allowed) in table() {
        above.insert(part.clone());
        for other in allowed {
            if above.contains(&other) {
                wrong.push(format!("`{part}` stands above `{other}`, or uses itself"));
            }
            if !imported
                .get(&part)
                .is_some_and(|uses| uses.contains_key(&other))
            {
                wrong.push(format!("`{part}` doesn't need `{other}`"));
            }
        }
    }
    assert!(above.len() > 20, "the table is gone");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
