//! Every example for a shell, and every piece of JSON, YAML or Python, in the READMEs and in `--help`: what can't be understood fails.
//!
//! `weft` is parsed by the command line itself, `make` is looked up in the Makefile, and of other programs only those are known that
//! are named here. A fenced block of a kind that nobody has thought of fails, too.

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser};

use super::Cli;

/// Other programs that stand in examples. What they do is theirs.
const FOREIGN: [&str; 7] = ["aws", "cargo", "curl", "helm", "jq", "kubectl", "man"];

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A file with its fenced blocks: the line of each, its language and its text.
fn blocks(path: &Path) -> Vec<(usize, String, String)> {
    let text = std::fs::read_to_string(path).unwrap();
    let mut found: Vec<(usize, String, String)> = Vec::new();
    let mut inside = false;
    for (line, text) in text.lines().enumerate() {
        match (text.trim_start().strip_prefix("```"), inside) {
            (Some(language), false) => {
                found.push((line + 1, language.trim().to_owned(), String::new()));
                inside = true;
            }
            (Some(_), true) => inside = false,
            (None, true) => {
                let block = &mut found.last_mut().unwrap().2;
                block.push_str(text);
                block.push('\n');
            }
            (None, false) => {}
        }
    }
    assert!(!inside, "{}: a block has no end", path.display());
    found
}

/// The commands of a script: words without quotes, comments and redirections.
fn commands(script: &str) -> Result<Vec<Vec<String>>, String> {
    let (mut commands, mut words, mut word) = (Vec::new(), Vec::new(), None::<String>);
    let mut letters = script.chars().peekable();
    let end_word = |word: &mut Option<String>, words: &mut Vec<String>| words.extend(word.take());
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => match letters.next() {
                Some('\n') | None => {}
                Some(other) => word.get_or_insert_default().push(other),
            },
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next() {
                        Some(end) if end == letter => break,
                        Some(other) => word.push(other),
                        None => return Err("a quote has no end".to_owned()),
                    }
                }
            }
            '#' if word.is_none() => while letters.next_if(|letter| *letter != '\n').is_some() {},
            '\n' | ';' | '|' | '&' => {
                end_word(&mut word, &mut words);
                commands.push(std::mem::take(&mut words));
            }
            '>' | '<' => {
                end_word(&mut word, &mut words);
                while letters
                    .next_if(|letter| letter.is_whitespace() || *letter == '>')
                    .is_some()
                {}
                while letters
                    .next_if(|letter| !letter.is_whitespace() && *letter != ';')
                    .is_some()
                {}
            }
            letter if letter.is_whitespace() => end_word(&mut word, &mut words),
            other => word.get_or_insert_default().push(other),
        }
    }
    end_word(&mut word, &mut words);
    commands.push(words);
    for words in &mut commands {
        // `…` stands for more of the same.
        words.retain(|word| word != "…");
        let is_variable = |word: &String| {
            let name = word.split('=').next().unwrap_or_default();
            word.contains('=')
                && name
                    .chars()
                    .all(|one| one.is_ascii_uppercase() || one == '_')
        };
        let shell = ["export", "until", "while", "do", "done", "watch"];
        let before = words
            .iter()
            .take_while(|word| is_variable(word) || shell.contains(&word.as_str()));
        let before = before.count();
        words.drain(..before);
    }
    commands.retain(|words| !words.is_empty());
    Ok(commands)
}

fn understand(words: &[String]) -> Result<(), String> {
    let first = words.first().map(String::as_str).unwrap_or_default();
    match first {
        "weft" => match Cli::try_parse_from(words) {
            Ok(_) => Ok(()),
            Err(error) => match error.kind() {
                clap::error::ErrorKind::DisplayHelp | clap::error::ErrorKind::DisplayVersion => {
                    Ok(())
                }
                _ => Err(error.to_string()),
            },
        },
        "make" => {
            let makefile = std::fs::read_to_string(top().join("Makefile")).unwrap();
            let arguments = words.iter().skip(1);
            for argument in arguments {
                let known = match argument.split_once('=') {
                    // Set with a default, or used where it is set.
                    Some((name, _)) => {
                        makefile.contains(&format!("{name} "))
                            || makefile.contains(&format!("$({name})"))
                    }
                    None => makefile
                        .lines()
                        .any(|line| line.starts_with(&format!("{argument}:"))),
                };
                if !known {
                    return Err(format!("the Makefile knows no {argument}"));
                }
            }
            Ok(())
        }
        "sleep" => Ok(()),
        foreign if FOREIGN.contains(&foreign) => Ok(()),
        other => Err(format!("nobody knows the program {other}")),
    }
}

fn understand_script(script: &str) -> Result<usize, String> {
    let commands = commands(script)?;
    for words in &commands {
        understand(words).map_err(|error| format!("{}: {error}", words.join(" ")))?;
    }
    Ok(commands.len())
}

/// Looks at a block; says how many commands it has.
fn look(language: &str, text: &str) -> Result<usize, String> {
    let json = |text: &str| {
        serde_json::from_str::<serde_json::Value>(text).map_err(|error| error.to_string())
    };
    match language {
        "sh" => understand_script(text),
        "json" => json(text).map(|_| 0),
        "yaml" => super::config_check::parses(text).map(|()| 0),
        // A request, and its body.
        "http" => {
            let (first, body) = text.split_once('\n').unwrap_or((text, ""));
            let (method, path) = first.split_once(' ').unwrap_or((first, ""));
            if !["GET", "POST", "PUT", "PATCH", "DELETE"].contains(&method)
                || !path.starts_with('/')
            {
                return Err("this is no request".to_owned());
            }
            if !body.trim().is_empty() {
                json(body)?;
            }
            Ok(0)
        }
        // What a command prints, after the command.
        "console" => {
            let first = text.lines().next().unwrap_or_default();
            let command = first.strip_prefix("$ ").ok_or("no command begins with $")?;
            understand_script(command)
        }
        // The official client's suite runs elsewhere.
        "python" if text.contains("meilisearch.Client(") => Ok(0),
        // A picture.
        "text" => Ok(0),
        other => Err(format!(
            "nobody knows what a block of the kind `{other}` is"
        )),
    }
}

/// All READMEs.
fn readmes() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = [
        "README.md",
        "merger/README.md",
        "filter/README.md",
        "tests/README.md",
    ]
    .map(|path| top().join(path))
    .to_vec();
    for folder in std::fs::read_dir(top().join("envoy")).unwrap() {
        let readme = folder.unwrap().path().join("README.md");
        found.extend(readme.is_file().then_some(readme));
    }
    found
}

#[test]
fn every_block_of_every_readme_is_understood() {
    let (mut mistakes, mut seen) = (Vec::new(), 0);
    for path in readmes() {
        for (line, language, text) in blocks(&path) {
            match look(&language, &text) {
                Ok(commands) => seen += commands,
                Err(error) => mistakes.push(format!("{}:{line}: {error}", path.display())),
            }
        }
    }
    assert_eq!(mistakes, Vec::<String>::new());
    assert!(seen > 20, "only {seen} commands were found");
}

#[test]
fn commands_in_the_text_of_every_readme_exist() {
    let mut mistakes = Vec::new();
    for path in readmes() {
        let text = std::fs::read_to_string(&path).unwrap();
        let outside = text.split("```").step_by(2);
        let spans = outside.flat_map(|part| part.split('`').skip(1).step_by(2));
        for span in spans.filter(|span| span.starts_with("weft ")) {
            let mut command = Cli::command();
            // Line ends are spaces in such a piece.
            for word in span.split_whitespace().skip(1) {
                if let Some(flag) = word.strip_prefix("--") {
                    let name = flag.split('=').next().unwrap_or(flag);
                    let mut flags = command.get_arguments();
                    if name != "help" && !flags.any(|one| one.get_long() == Some(name)) {
                        mistakes.push(format!("{}: `{span}`: no --{name}", path.display()));
                    }
                    continue;
                }
                match command.find_subcommand(word) {
                    Some(found) => command = found.clone(),
                    None if !command.has_subcommands()
                        || !word.chars().all(|one| one.is_ascii_lowercase()) => {}
                    None if ["help"].contains(&word) => break,
                    None => mistakes.push(format!("{}: `{span}`: no {word}", path.display())),
                }
            }
        }
    }
    assert_eq!(mistakes, Vec::<String>::new());
}

#[test]
fn every_example_of_every_help_is_understood() {
    fn each(command: &clap::Command, mistakes: &mut Vec<String>, seen: &mut usize) {
        let help = command.get_after_help().or(command.get_after_long_help());
        let help = help.map(ToString::to_string).unwrap_or_default();
        let examples = help.split("Examples:").nth(1).unwrap_or_default();
        let examples = examples.lines().skip(1);
        for line in examples.take_while(|line| line.starts_with("  ")) {
            // What an example is good for stands far to the right.
            let example = line.trim().split("  ").next().unwrap_or_default();
            match understand_script(example) {
                Ok(commands) => *seen += commands,
                Err(error) => mistakes.push(format!("{}: {error}", command.get_name())),
            }
        }
        for below in command.get_subcommands() {
            each(below, mistakes, seen);
        }
    }
    let (mut mistakes, mut seen) = (Vec::new(), 0);
    each(&Cli::command(), &mut mistakes, &mut seen);
    assert_eq!(mistakes, Vec::<String>::new());
    assert!(seen > 20, "only {seen} examples were found");
}

#[test]
fn what_is_wrong_is_not_understood() {
    for script in [
        "weft stauts",
        "weft status --jsno",
        "weft config envoy --shards many",
        "make demmo",
        "rm -rf /",
        "weft search 'films",
    ] {
        assert!(understand_script(script).is_err(), "{script}");
    }
    for (language, text) in [
        ("json", "{"),
        ("http", "FETCH /x"),
        ("http", "POST /x\n{"),
        ("console", "weft status"),
        ("", "anything"),
        ("rust", "fn main() {}"),
        ("yaml", "a: [b"),
    ] {
        assert!(look(language, text).is_err(), "{language}: {text}");
    }
    let words = "A=b weft status \\\n --json > x # and then\nweft nodes; make up SHARDS=3";
    assert_eq!(understand_script(words), Ok(3));
}
