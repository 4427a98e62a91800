//! Searches of an index by field: one tenant's asks one shard.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::Method;
use serde_json::{Value, json};
use weft_cluster::{Api, Cluster, Single};

use super::{JSON, by_tenant, create, document, held, tenant_of};
use crate::strategies::{asked, write};
use crate::support::{MASTER_KEY, node, start};

#[tokio::test]
async fn a_tenants_search_asks_its_shard_alone() {
    let (cluster, api) = start(Cluster::builder().shards(3)).await;
    create(&api, "x", Some(&by_tenant(3))).await;
    let all: Value = (0..300).map(|id| document(id, &tenant_of(id))).collect();
    write(
        &api,
        Method::POST,
        "/indexes/x/documents",
        JSON,
        &all.to_string(),
    )
    .await;
    let mut homes = BTreeMap::new();
    for shard in 0..3 {
        for document in held(&node(&cluster, shard), "x").await.into_values() {
            homes.insert(document["tenant"].to_string(), u64::from(shard));
        }
    }
    let home = |tenant: Value| homes[&tenant.to_string()];
    let on = |tenants: &[Value]| -> BTreeSet<u64> { tenants.iter().cloned().map(home).collect() };
    for (filter, shards) in [
        (json!("tenant = acme"), on(&[json!("acme")])),
        (json!("tenant = 'CITÉ' AND group = 3"), on(&[json!("cité")])),
        (json!("tenant = 7"), on(&[json!(7)])),
        (
            json!(["group = 1", ["tenant = BOLT", "tenant = ember"]]),
            on(&[json!("Bolt"), json!("ember")]),
        ),
        (
            json!("tenant IN [dune, fjord] AND NOT tenant = dune"),
            on(&[json!("dune"), json!("fjord")]),
        ),
        (
            json!("tenant = acme OR group = 1"),
            BTreeSet::from([0, 1, 2]),
        ),
        (json!("NOT tenant = acme"), BTreeSet::from([0, 1, 2])),
        (json!("id = 1"), BTreeSet::from([0, 1, 2])),
    ] {
        let search = json!({"q": "", "filter": filter});
        assert_eq!(
            asked(&api, "/indexes/x/search", &search).await,
            shards,
            "{filter}"
        );
        let fetch = json!({"filter": filter});
        assert_eq!(
            asked(&api, "/indexes/x/documents/fetch", &fetch).await,
            shards,
            "{filter}"
        );
    }
}

#[tokio::test]
async fn similar_documents_are_found_whichever_shard_holds_the_one_that_is_named() {
    let (_cluster, api) = start(Cluster::builder().shards(3)).await;
    let single = Single::start(Some(MASTER_KEY)).await.unwrap();
    let single = Api::new(single.url(), Some(MASTER_KEY));
    let mut told = Vec::new();
    for (api, sharding) in [(&api, Some(by_tenant(3))), (&single, None)] {
        create(api, "x", sharding.as_ref()).await;
        let settings = json!({"embedders": {"own": {"source": "userProvided", "dimensions": 2}}});
        let set = api.json(Method::PATCH, "/indexes/x/settings", &settings);
        api.succeed(&set.await.unwrap()).await.unwrap();
        let all: Value = (0..60_u64)
            .map(|id| {
                let mut document = document(id, &tenant_of(id));
                // No two neighbours of a document are equally far from it.
                let angle = f64::from(u32::try_from(id * id).unwrap()) * 0.0005;
                document["_vectors"] = json!({"own": [angle.cos(), angle.sin()]});
                document
            })
            .collect();
        write(
            api,
            Method::POST,
            "/indexes/x/documents",
            JSON,
            &all.to_string(),
        )
        .await;
        let mut found = Vec::new();
        for id in [0, 7, 33, 59] {
            let body = json!({"id": id, "embedder": "own", "limit": 5});
            let reply = api.post("/indexes/x/similar", &body).await.unwrap();
            let hits = reply.at("/hits").as_array().unwrap().clone();
            found.push(hits.iter().map(|hit| hit["id"].clone()).collect::<Vec<_>>());
        }
        let nobody = json!({"id": 999, "embedder": "own"});
        let nobody = api.post("/indexes/x/similar", &nobody).await.unwrap();
        told.push((found, nobody.status, nobody.body["code"].clone()));
    }
    assert_eq!(told[0], told[1]);
    assert_eq!(told[0].0[0].len(), 5);
}
