//! Random batches on random documents: after each, every document is on the shard of its value, once, and is what one node has.

use std::collections::BTreeMap;
use std::sync::Arc;

use http_body_util::BodyExt;
use proptest::prelude::*;
use serde_json::{Value, json};
use weft_routing::placement::SlotMap;
use weft_routing::value::RoutingValue;

use super::*;
use crate::bounds::Budget;
use crate::write::format::Format;
use crate::write::split::{Batch, Home, SplitKey, Splitter};

/// Tenant and mark of each document, by id.
type Documents = BTreeMap<u64, (u8, u8)>;

fn slots() -> Arc<SlotMap> {
    let shards = [ShardId(0), ShardId(1), ShardId(2)];
    let strategy = "field:tenant".parse().unwrap();
    Arc::new(SlotMap::deal_by(&strategy, &shards).unwrap())
}

fn limits() -> SpoolLimits {
    SpoolLimits {
        memory_bytes: 64,
        piece_bytes: 90,
        folder: std::env::temp_dir(),
        memory: Budget::unbounded(),
        disk: Budget::unbounded(),
    }
}

fn home(tenant: u8) -> ShardId {
    let value = RoutingValue::from_json(&tenant.to_string()).unwrap();
    slots().shard_of_value(&value)
}

fn splitter() -> Splitter {
    let key = SplitKey {
        name: Some("id".to_owned()),
        is_open: false,
    };
    Splitter::new(Format::Json, &slots(), key, limits())
}

async fn split(mut splitter: Splitter, body: &Value) -> Batch {
    splitter.push(body.to_string().as_bytes()).unwrap();
    splitter.spill().await.unwrap();
    splitter.finish().await.unwrap()
}

async fn values(piece: &Piece) -> Vec<Value> {
    let body = piece.body().collect().await.unwrap().to_bytes();
    serde_json::from_slice(&body).unwrap()
}

/// The shards' documents.
fn spread(documents: &Documents) -> BTreeMap<ShardId, Documents> {
    let mut shards: BTreeMap<ShardId, Documents> = BTreeMap::new();
    for (id, document) in documents {
        let shard = shards.entry(home(document.0)).or_default();
        shard.insert(*id, *document);
    }
    shards
}

fn found(documents: &Documents) -> Owners {
    let mut owners = Owners::default();
    for (id, (tenant, _)) in documents {
        let home = Home {
            shard: home(*tenant),
            value: RoutingValue::from_json(&tenant.to_string()).ok(),
        };
        owners.put(&id.to_string(), home);
    }
    owners
}

/// Brings a batch to the shards as a delivery does: documents first, then removals.
async fn deliver(batch: &Batch, removals: &[Removal], shards: &mut BTreeMap<ShardId, Documents>) {
    for part in &batch.parts {
        let shard = shards.entry(part.shard).or_default();
        for piece in &part.pieces {
            for document in values(piece).await {
                let number = |name: &str| document[name].as_u64().map(|n| u8::try_from(n).unwrap());
                let (id, new) = (
                    document["id"].as_u64().unwrap(),
                    shard.entry(document["id"].as_u64().unwrap()),
                );
                let held = *new.or_default();
                let tenant = number("tenant").unwrap_or(held.0);
                shard.insert(id, (tenant, number("mark").unwrap_or(held.1)));
            }
        }
    }
    for removal in removals {
        for piece in &removal.pieces {
            for id in values(piece).await {
                let id: u64 = id.as_str().unwrap().parse().unwrap();
                shards.entry(removal.shard).or_default().remove(&id);
            }
        }
    }
}

fn batch() -> impl Strategy<Value = Vec<(u64, u8, u8)>> {
    prop::collection::vec((0_u64..12, 0_u8..9, any::<u8>()), 1..30)
}

fn documents() -> impl Strategy<Value = Documents> {
    prop::collection::btree_map(0_u64..12, (0_u8..9, any::<u8>()), 0..12)
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

/// Drops shards without documents, so that they compare as equal to shards that were never used.
fn tidy(mut shards: BTreeMap<ShardId, Documents>) -> BTreeMap<ShardId, Documents> {
    shards.retain(|_, documents| !documents.is_empty());
    shards
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whole_documents_end_on_the_shards_of_their_values_and_nowhere_else(
        before in documents(),
        batch in batch(),
        knows in any::<bool>(),
    ) {
        let body: Value = batch.iter().map(|(id, tenant, mark)| json!({"id": id, "tenant": tenant, "mark": mark})).collect();
        let mut after = before.clone();
        after.extend(batch.iter().map(|(id, tenant, mark)| (*id, (*tenant, *mark))));
        let mut shards = spread(&before);
        run(async {
            let batch = split(splitter(), &body).await;
            let held = found(&before);
            let owners = batch.owners.clone().unwrap();
            // A batch whose own documents supersede each other leaves some where they were not before.
            let held = (knows && !owners.are_superseded()).then_some(&held);
            let removals = removals(&owners, slots().shards(), held, &limits()).await.unwrap();
            deliver(&batch, &removals, &mut shards).await;
        });
        prop_assert_eq!(tidy(shards), spread(&after));
    }

    #[test]
    fn updates_go_to_the_shards_that_hold_their_documents(
        before in documents(),
        batch in prop::collection::vec((0_u64..12, any::<bool>(), any::<u8>()), 1..20),
    ) {
        let mut after = before.clone();
        let mut body = Vec::new();
        let mut lacks = false;
        for (id, names, mark) in &batch {
            let mut document = json!({"id": id, "mark": mark});
            // One that exists keeps its tenant; a new one has the tenant of its id.
            let tenant = after.get(id).map(|held| held.0);
            let own = u8::try_from(*id).unwrap();
            if *names {
                document["tenant"] = json!(tenant.unwrap_or(own));
            }
            lacks |= tenant.is_none() && !names;
            after.insert(*id, (tenant.unwrap_or(own), *mark));
            body.push(document);
        }
        let mut shards = spread(&before);
        let is_unplaced = run(async {
            let gathered = split(splitter().gathering(), &json!(body)).await;
            assert!(gathered.unplaced.is_none() && gathered.parts.len() == 1);
            let mut updating = splitter().updating(Arc::new(found(&before)), false);
            gathered.feed(&mut updating).await.unwrap();
            let batch = updating.finish().await.unwrap();
            deliver(&batch, &[], &mut shards).await;
            batch.unplaced.is_some()
        });
        prop_assert_eq!(is_unplaced, lacks);
        let expected = if lacks { before } else { after };
        prop_assert_eq!(tidy(shards), spread(&expected));
    }
}
