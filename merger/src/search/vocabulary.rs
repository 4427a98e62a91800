//! Which of a query's words each shard has seen. This is asked only if a hit's score makes its exactness doubtful (see
//! [`super::rank::suspects`]): one more round of small requests, for the words that aren't remembered.

use serde_json::Map;
use weft_routing::placement::ShardId;

use super::rank::Known;
use super::scatter::Reader;
use super::word_counts::counts_of;

/// For each of `shards`, which of `words` it knows and which any shard knows; `None` if a shard doesn't answer. A shard may
/// occur in `shards` several times in a row: once for each list of its hits.
///
/// A word in quotes matches documents that hold exactly this word.
pub(super) async fn known_words(
    reader: &Reader<'_>,
    index: &str,
    words: &[String],
    shards: &[ShardId],
) -> Option<Vec<Known>> {
    let mut asked = shards.to_vec();
    asked.dedup();
    let exactly = words.iter().map(|word| format!("\"{word}\"")).collect();
    let counts = counts_of(reader, index, exactly, &Map::new(), &asked).await?;
    let seen = |at| {
        let of = |word: &Vec<u64>| {
            let here = word.get(at).is_some_and(|count| *count > 0);
            (here, word.iter().any(|count| *count > 0))
        };
        Known {
            words: counts.iter().map(of).collect(),
        }
    };
    let place = |shard: &ShardId| asked.iter().position(|known| known == shard);
    shards.iter().map(|shard| place(shard).map(seen)).collect()
}
