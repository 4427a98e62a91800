//! `weft search`: a search as clients send it, and how its answer came about.

mod explain;

use clap::Args;
use http::HeaderValue;
use serde_json::{Map, Value, json};

use super::ask::{AskError, AskOptions, Outcome};
use super::output::{Look, Mood, Rows, plain};
use super::remote::Remote;
use super::words::{count, cut, encoded, list, number, shown};

/// How wide the columns beside a document are.
const BESIDE: usize = 16;

/// Options of `weft search`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  weft search films alien
  weft search films alien --filter 'year > 1980' --sort year:desc --fields id,title --limit 5
  weft search films alien --explain              which shards were asked, what each took and gave
  weft search films --json | jq .estimatedTotalHits

Exit code 1 if the answer is incomplete, which only --partial allows.")]
pub(super) struct SearchArgs {
    /// The index.
    #[arg(value_name = "INDEX")]
    pub index: String,
    /// What is searched for; nothing finds everything.
    #[arg(value_name = "QUERY")]
    pub query: Option<String>,
    /// Only documents for which this is true, such as `genre = horror AND year > 1980`.
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<String>,
    /// In this order: `attribute:asc` or `attribute:desc`.
    #[arg(long, value_delimiter = ',', value_name = "ATTRIBUTE:ORDER")]
    pub sort: Vec<String>,
    /// Show only these attributes.
    #[arg(long, value_delimiter = ',', value_name = "ATTRIBUTE")]
    pub fields: Vec<String>,
    /// How many hits.
    #[arg(long, default_value_t = 20)]
    pub limit: u32,
    /// How many hits are skipped.
    #[arg(long, default_value_t = 0)]
    pub offset: u32,
    /// Show how the answer came about.
    #[arg(long)]
    pub explain: bool,
    /// Take an answer that lacks shards which don't answer, instead of an error.
    #[arg(long)]
    pub partial: bool,
    #[command(flatten)]
    pub ask: AskOptions,
}

/// Searches, and shows the answer.
pub(super) async fn run(arguments: &SearchArgs, mut remote: Remote) -> Result<Outcome, AskError> {
    if arguments.explain {
        remote = remote.with_header("x-weft-explain", HeaderValue::from_static("true"));
    }
    if arguments.partial {
        remote = remote.with_header("x-weft-partial", HeaderValue::from_static("partial"));
    }
    let path = format!("/indexes/{}/search", encoded(&arguments.index));
    let answer = remote.post(&path, &body(arguments)).await?;
    let sound = answer.get("degraded").is_none_or(Value::is_null);
    Ok(Outcome::of(&arguments.ask, &answer, sound, |look| {
        let explained = answer.get("explain").map(|told| explain::show(told, look));
        show(&answer, look) + &explained.unwrap_or_default()
    }))
}

fn body(arguments: &SearchArgs) -> Value {
    let mut body = Map::new();
    let mut set = |name: &str, value: Value| body.insert(name.to_owned(), value);
    set("q", json!(arguments.query.as_deref().unwrap_or("")));
    set("limit", json!(arguments.limit));
    set("offset", json!(arguments.offset));
    set("showRankingScore", json!(true));
    if let Some(filter) = &arguments.filter {
        set("filter", json!(filter));
    }
    if !arguments.sort.is_empty() {
        set("sort", json!(arguments.sort));
    }
    if !arguments.fields.is_empty() {
        set("attributesToRetrieve", json!(arguments.fields));
    }
    Value::Object(body)
}

fn show(answer: &Value, look: Look) -> String {
    let first = number(answer, "offset") + 1;
    let widest = look.width().map(|width| width.saturating_sub(BESIDE));
    let mut rows = Rows::with(&["HIT", "SCORE", "DOCUMENT"], look);
    for (hit, place) in list(answer, "hits").iter().zip(first..) {
        let score = hit.get("_rankingScore").and_then(Value::as_f64);
        let mut document = hit.clone();
        if let Some(fields) = document.as_object_mut() {
            // The others stay in their order.
            fields.shift_remove("_rankingScore");
        }
        rows.add([
            plain(place.to_string()),
            plain(score.map_or_else(String::new, |score| format!("{score:.4}"))),
            plain(cut(&document.to_string(), widest.unwrap_or(usize::MAX))),
        ]);
    }
    let table = match list(answer, "hits").is_empty() {
        true => String::new(),
        false => rows.text() + "\n",
    };
    table + &foot(answer, look)
}

fn foot(answer: &Value, look: Look) -> String {
    let hits = count(list(answer, "hits").len() as u64);
    let total = match answer.get("totalHits").and_then(Value::as_u64) {
        Some(total) => count(total),
        None => format!("about {}", count(number(answer, "estimatedTotalHits"))),
    };
    let mut foot = format!(
        "{hits} of {total} hits in {} ms\n",
        number(answer, "processingTimeMs")
    );
    if let Some(degraded) = answer
        .get("degraded")
        .filter(|degraded| !degraded.is_null())
    {
        let missing: Vec<String> = list(degraded, "missingShards").iter().map(shown).collect();
        let line = format!("incomplete: no answer from shard {}", missing.join(", "));
        foot.push_str(&look.paint(&line, Mood::Bad));
        foot.push('\n');
    }
    foot
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        search: SearchArgs,
    }

    #[test]
    fn hits_are_lines_with_their_scores() {
        let answer = json!({"hits": [{"id": 7, "title": "Alien", "_rankingScore": 0.98765}, {"id": 8, "title": "A\nB"}],
            "offset": 10, "estimatedTotalHits": 1_200, "processingTimeMs": 3,
            "degraded": {"missingShards": [1, 2], "coverage": 0.33}});
        assert_eq!(
            show(&answer, Look::PLAIN),
            "HIT   SCORE  DOCUMENT\n \
             11  0.9877  {\"id\":7,\"title\":\"Alien\"}\n \
             12          {\"id\":8,\"title\":\"A\\nB\"}\n\n\
             2 of about 1,200 hits in 3 ms\nincomplete: no answer from shard 1, 2\n"
        );
        let none = json!({"hits": [], "totalHits": 0, "processingTimeMs": 0});
        assert_eq!(show(&none, Look::PLAIN), "0 of 0 hits in 0 ms\n");
    }

    #[test]
    fn options_become_the_body() {
        let words = [
            "weft",
            "films",
            "alien",
            "--filter",
            "year > 1980",
            "--sort",
            "year:desc,id:asc",
            "--fields",
            "id",
        ];
        let command = Command::try_parse_from(words).unwrap();
        assert_eq!(
            body(&command.search),
            json!({"q": "alien", "limit": 20, "offset": 0, "showRankingScore": true, "filter": "year > 1980",
                "sort": ["year:desc", "id:asc"], "attributesToRetrieve": ["id"]})
        );
        assert!(Command::try_parse_from(["weft"]).is_err());
    }
}
