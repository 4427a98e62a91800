//! `weft mergers`: who leads and who follows.

use clap::Args;
use serde_json::Value;
use time::OffsetDateTime;

use super::ask::{AskError, AskOptions, Outcome};
use super::output::{Look, Mood, Rows, plain};
use super::remote::Remote;
use super::words::{ago, count, list, shown, text};
use crate::clock::now_utc;

/// Options of `weft mergers`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  weft mergers
  watch weft mergers

LAG: changes of the state that it has yet to apply. LEASE: what its lease in etcd has left.
Exit code 1 unless exactly one leads.")]
pub(super) struct MergersArgs {
    #[command(flatten)]
    pub ask: AskOptions,
}

/// Asks, and shows the answer.
pub(super) async fn run(arguments: &MergersArgs, remote: Remote) -> Result<Outcome, AskError> {
    let answer = remote.get("/_cluster/mergers").await?;
    let sound = leaders(&answer).count() == 1;
    Ok(Outcome::of(&arguments.ask, &answer, sound, |look| {
        table(&answer, now_utc(), look)
    }))
}

/// The mergers that say that they lead.
pub(super) fn leaders(answer: &Value) -> impl Iterator<Item = &Value> {
    let mergers = list(answer, "mergers").iter();
    mergers.filter(|merger| text(merger, "role") == "leader")
}

fn table(answer: &Value, now: OffsetDateTime, look: Look) -> String {
    let mut rows = Rows::with(
        &["MERGER", "ADDRESS", "ROLE", "SINCE", "LAG", "LEASE"],
        look,
    );
    for merger in list(answer, "mergers") {
        let number = |member| merger.get(member).and_then(Value::as_u64);
        let since = text(merger, "since");
        rows.add([
            plain(text(merger, "id")),
            plain(shown(merger.get("address").unwrap_or(&Value::Null))),
            role(text(merger, "role")),
            plain(match since {
                "" => String::new(),
                since => ago(since, now),
            }),
            plain(number("lag").map_or_else(String::new, count)),
            plain(number("leaseLeftMs").map_or_else(String::new, |left| format!("{left} ms"))),
        ]);
    }
    rows.text()
}

fn role(role: &str) -> (String, Mood) {
    let mood = match role {
        "leader" => Mood::Good,
        "leaving" => Mood::Warning,
        _ => Mood::Plain,
    };
    (role.to_owned(), mood)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_merger_that_is_alone_has_neither_lag_nor_lease() {
        let alone =
            json!({"mergers": [{"id": "alone", "address": "127.0.0.1:7703", "role": "leader"}]});
        assert_eq!(
            table(&alone, OffsetDateTime::UNIX_EPOCH, Look::PLAIN),
            "MERGER  ADDRESS         ROLE    SINCE  LAG  LEASE\nalone   127.0.0.1:7703  leader\n"
        );
        assert_eq!(leaders(&alone).count(), 1);
    }

    #[test]
    fn followers_show_how_far_behind_they_are() {
        let several = json!({"mergers": [
            {"id": "a", "address": "10.0.0.1:7703", "role": "leader", "since": "1970-01-01T00:00:00Z", "lag": 0, "leaseLeftMs": 2400},
            {"id": "b", "address": "10.0.0.2:7703", "role": "follower", "since": "1970-01-01T00:00:00Z", "lag": 1234, "leaseLeftMs": 2700},
        ]});
        let now = OffsetDateTime::from_unix_timestamp(60).unwrap();
        assert_eq!(
            table(&several, now, Look::PLAIN),
            "MERGER  ADDRESS        ROLE      SINCE       LAG  LEASE\n\
             a       10.0.0.1:7703  leader    60 s ago      0  2400 ms\n\
             b       10.0.0.2:7703  follower  60 s ago  1,234  2700 ms\n"
        );
    }
}
