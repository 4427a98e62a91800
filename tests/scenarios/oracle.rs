//! A client can't tell a cluster's answers from one node's.

use serde_json::{Value, json};
use weft_cluster::data::DataSet;
use weft_cluster::oracle::{self, RIGHT, Row, ask_while_moving, check_pages};
use weft_cluster::{Api, Cluster, ClusterBuilder, Single};

const ADJECTIVES: [&str; 14] = [
    "silent", "golden", "broken", "hidden", "endless", "crimson", "distant", "frozen", "gentle",
    "burning", "lonely", "ancient", "electric", "velvet",
];
const NOUNS: [&str; 16] = [
    "river",
    "garden",
    "mountain",
    "library",
    "harbour",
    "station",
    "winter",
    "machine",
    "letter",
    "island",
    "mirror",
    "orchestra",
    "detective",
    "journey",
    "shadow",
    "kingdom",
];

/// Invented films, with missing, null and multiple values.
fn films() -> DataSet {
    let genres = ["Drama", "comedy", "Horror", "Western", "Musical"];
    let documents = (0..900_usize).map(|at| {
        let (adjective, noun) = (ADJECTIVES[at * 7 % 14], NOUNS[at * 5 % 16]);
        let title = match at % 4 {
            0 => format!("The {adjective} {noun}"),
            1 => format!("{noun} of the {adjective} {}", NOUNS[at * 3 % 16]),
            2 => format!("{adjective} {noun} {}", at % 90),
            _ => format!("A {} for the {noun}", NOUNS[(at / 4) % 16]),
        };
        let mut film = json!({"id": at, "title": title, "director": format!("{} {}", ADJECTIVES[at % 14], at % 23)});
        let members = film.as_object_mut().unwrap();
        match at % 5 {
            0 => members.insert("genre".to_owned(), json!([genres[at % 5], genres[at / 5 % 5]])),
            1 => members.insert("genre".to_owned(), Value::Null),
            _ => members.insert("genre".to_owned(), json!(genres[at / 2 % 5])),
        };
        if at % 6 != 0 {
            members.insert("rating".to_owned(), json!((at * 37 % 97) as f64 / 10.0));
            members.insert("votes".to_owned(), json!(at * 7919 % 500));
        }
        film
    });
    DataSet {
        index: "movies",
        primary_key: "id",
        title: "title",
        settings: json!({
            "searchableAttributes": ["title", "director"],
            "filterableAttributes": ["genre", "rating", "votes", "director"],
            "sortableAttributes": ["rating", "votes", "title"],
        }),
        documents: documents.collect(),
    }
}

/// How many of forty answers may differ, as tests/README.md says.
fn may_differ(row: &Row, what: &str) -> usize {
    match (row.variant.as_str(), what) {
        (_, "status") => 0,
        ("threshold" | "distinct", _) => row.asked,
        ("frequency", _) => 4,
        // The engine's own limits may affect rare words.
        _ => 1,
    }
}

#[tokio::test]
async fn a_client_cannot_tell_a_cluster_from_one_node() {
    compare(Cluster::builder().shards(3)).await;
}

#[tokio::test]
async fn nor_can_it_tell_several_mergers_through_an_envoy_whose_merger_follows() {
    compare(Cluster::builder().shards(3).through_follower(true)).await;
}

async fn compare(builder: ClusterBuilder) {
    let set = films();
    let single = Single::start(None).await.unwrap();
    let cluster = builder.start().await.unwrap();
    let (one, many) = (Api::new(single.url(), None), Api::new(cluster.url(), None));
    oracle::load(&one, &set).await.unwrap();
    oracle::load(&many, &set).await.unwrap();
    let queries = oracle::queries(&set, 40);
    let mut differences = Vec::new();
    for variant in oracle::variants(&set) {
        let row = oracle::ask(&one, &many, &set, &variant, &queries)
            .await
            .unwrap();
        for (what, same) in &row.same {
            if same + may_differ(&row, what) < row.asked {
                differences.push(format!(
                    "{} {what}: {same} of {}: {:?}",
                    row.variant, row.asked, row.examples
                ));
            }
        }
    }
    assert!(differences.is_empty(), "{differences:#?}");
    let errors = oracle::ask_refused(&one, &many, &set).await.unwrap();
    assert_eq!(errors.examples, [], "refusals differ");
    for query in &queries {
        let verdict = check_pages(&many, &set, query, 5, 6).await.unwrap();
        assert!(
            verdict.adds_up && verdict.twice.is_empty(),
            "{query:?}: {verdict:?}"
        );
    }
}

/// How many documents two shards may hold at the same time.
const BATCH: u64 = 60;

#[tokio::test]
async fn nor_can_it_tell_while_the_cluster_grows_and_shrinks() {
    let set = films();
    let single = Single::start(None).await.unwrap();
    let builder = Cluster::builder().shards(2).watched(1);
    let builder = builder.merger_env("WEFT_LEASE_MS", "1000");
    let builder = builder.merger_env("WEFT_MOVE_BATCH", BATCH.to_string());
    let mut cluster = builder.start().await.unwrap();
    let (one, many) = (Api::new(single.url(), None), Api::new(cluster.url(), None));
    oracle::load(&one, &set).await.unwrap();
    oracle::load(&many, &set).await.unwrap();
    let mut kinds = oracle::variants(&set);
    // Their totals are estimates, and the words that `frequency` drops depend on a shard's own counts.
    kinds.retain(|kind| !["threshold", "distinct", "frequency"].contains(&kind.name));
    let queries = oracle::queries(&set, 41);
    let shard = cluster.add_shard().await.unwrap();
    let slow = json!({"bytesPerSecond": 2_500});
    let set_pace = many.json(reqwest::Method::PATCH, "/_cluster/moves", &slow);
    assert_eq!(set_pace.await.unwrap().status, 200);
    let drain = format!("/_cluster/shards/shard-{shard}/drain");
    for path in ["/_cluster/rebalance", drain.as_str()] {
        let begun = many.post(path, &json!({})).await.unwrap();
        assert_eq!(begun.status, 202, "{}", begun.text);
        let rows = ask_while_moving((&one, &many), &set, (&kinds, &queries), BATCH)
            .await
            .unwrap();
        let asked: usize = rows.iter().map(|row| row.asked).sum();
        let right: usize = rows.iter().filter_map(|row| row.same.get(RIGHT)).sum();
        assert!(asked > kinds.len(), "{path}: {asked} answers only");
        // As when nothing moves: one of forty, by the engine's own limits.
        assert!(
            right + asked / 40 >= asked,
            "{path}: {right} of {asked}: {rows:#?}"
        );
    }
}
