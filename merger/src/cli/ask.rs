//! What the commands that ask a cluster have in common: where it is, how the answer is shown, and what ends in which exit code.

use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::output::{self, Look, OutputOptions};
use super::remote::{ConnectOptions, Remote, RemoteError};

/// The options of every command that asks a cluster.
#[derive(Debug, Clone, Args)]
pub(super) struct AskOptions {
    #[command(flatten)]
    pub connect: ConnectOptions,
    #[command(flatten)]
    pub output: OutputOptions,
}

/// What a command found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    /// What is printed.
    pub text: String,
    /// Whether what was looked at is well.
    pub sound: bool,
}

impl Outcome {
    /// The answer itself for scripts, or the text that `show` makes of it for people.
    pub(super) fn of(
        options: &AskOptions,
        answer: &Value,
        sound: bool,
        show: impl FnOnce(Look) -> String,
    ) -> Self {
        let text = match options.output.json {
            true => output::json(answer),
            false => show(Look::of_stdout()),
        };
        Self { text, sound }
    }
}

/// Why a command found nothing, or did nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The cluster gave no answer that can be used.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// No threads could be set up.
    #[error("the runtime can't be set up: {0}")]
    Runtime(#[source] std::io::Error),
    /// A question would have to be asked, and nobody is there.
    #[error("this asks before it begins, and there is no terminal to ask on: add --yes, or {0}")]
    NobodyToAsk(&'static str),
    /// The operator said no.
    #[error("nothing was done")]
    Declined,
    /// Two things that don't go together, or one that is missing.
    #[error("{0}")]
    Wrong(String),
}

impl AskError {
    /// The code that the shell gets: see the table in the head of the command line.
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Remote(error) => remote_code(error),
            Self::Declined => super::NOT_WELL,
            Self::Runtime(_) | Self::NobodyToAsk(_) | Self::Wrong(_) => super::WRONG,
        }
    }
}

/// The exit code of an error of the way to a server.
pub(super) fn remote_code(error: &RemoteError) -> u8 {
    match error {
        RemoteError::KeyFile { .. }
        | RemoteError::Key
        | RemoteError::Url(_)
        | RemoteError::Tls(_) => super::WRONG,
        RemoteError::Request(_)
        | RemoteError::Unreachable { .. }
        | RemoteError::TimedOut { .. }
        | RemoteError::NotJson { .. }
        | RemoteError::Refused { .. } => super::NO_ANSWER,
    }
}

/// Connects, does the work, and prints what came of it.
pub(super) fn run(
    options: &AskOptions,
    work: impl AsyncFnOnce(Remote) -> Result<Outcome, AskError>,
) -> ExitCode {
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(AskError::Runtime)
        .and_then(|runtime| {
            let remote = Remote::connect(&options.connect)?;
            runtime.block_on(work(remote))
        });
    match done {
        Ok(outcome) => {
            output::write(&outcome.text);
            match outcome.sound {
                true => ExitCode::SUCCESS,
                false => ExitCode::from(super::NOT_WELL),
            }
        }
        Err(error) => {
            say(&format!("weft: {error}"));
            if let AskError::Remote(RemoteError::Refused { status, .. }) = &error
                && matches!(status.as_u16(), 401 | 403)
            {
                say(
                    "weft: the key comes from WEFT_MASTER_KEY, or from the file of --master-key-file",
                );
            }
            if let AskError::Remote(RemoteError::Unreachable { .. }) = &error {
                say(
                    "weft: --url or WEFT_URL names the cluster, by the address of an Envoy in front of it",
                );
            }
            ExitCode::from(error.code())
        }
    }
}

/// A line for a person, on standard error.
pub(super) fn say(line: &str) {
    // Nobody may read it; the exit code says it too.
    let _unread = writeln!(std::io::stderr().lock(), "{line}");
}

/// Asks on the terminal whether to go on, unless `yes` was said before. `otherwise` is what a script may do instead.
pub(super) fn confirm(question: &str, yes: bool, otherwise: &'static str) -> Result<(), AskError> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() || !std::io::stderr().is_terminal() {
        return Err(AskError::NobodyToAsk(otherwise));
    }
    let mut line = String::new();
    let asked = write!(std::io::stderr().lock(), "{question} [y/N] ");
    let read = asked.and_then(|()| stdin.lock().read_line(&mut line));
    match read.is_ok() && is_yes(&line) {
        true => Ok(()),
        false => Err(AskError::Declined),
    }
}

fn is_yes(line: &str) -> bool {
    matches!(line.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_a_yes() {
        for (line, expected) in [
            ("y\n", true),
            (" YES \n", true),
            ("\n", false),
            ("no", false),
        ] {
            assert_eq!(is_yes(line), expected, "{line:?}");
        }
    }

    #[test]
    fn a_refusal_and_a_wrong_option_end_in_different_codes() {
        let refused = RemoteError::Refused {
            status: http::StatusCode::FORBIDDEN,
            code: "invalid_api_key".to_owned(),
            message: "no".to_owned(),
        };
        assert_eq!(AskError::from(refused).code(), 3);
        assert_eq!(AskError::from(RemoteError::Key).code(), 2);
        assert_eq!(AskError::NobodyToAsk("--dry-run").code(), 2);
        assert_eq!(AskError::Declined.code(), 1);
    }
}
