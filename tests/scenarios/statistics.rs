//! Statistics, in the format that the client asks for.

use serde_json::json;

use crate::batches::one_node_and_three_shards;
use crate::support::documents;

#[tokio::test]
async fn sizes_in_statistics_have_the_requested_format() {
    let (_single, one, _cluster, api) = one_node_and_three_shards(&json!({})).await;
    for api in [&one, &api] {
        let accepted = api
            .post("/indexes/x/documents", &documents(0..90))
            .await
            .unwrap();
        api.succeed(&accepted).await.unwrap();
    }
    for path in ["/stats", "/indexes/x/stats"] {
        let raw = api.get(&format!("{path}?sizeFormat=raw")).await.unwrap();
        let human = api.get(&format!("{path}?sizeFormat=human")).await.unwrap();
        let size = if path == "/stats" {
            "/indexes/x/rawDocumentDbSize"
        } else {
            "/rawDocumentDbSize"
        };
        assert!(raw.at(size).is_u64(), "{}", raw.text);
        assert!(
            human.at(size).as_str().unwrap().ends_with('B'),
            "{}",
            human.text
        );
        for refused in ["sizeFormat=big", "showInternalDatabaseSizes=2", "a=b"] {
            let path = format!("{path}?{refused}");
            let (expected, found) = (one.get(&path).await.unwrap(), api.get(&path).await.unwrap());
            assert_eq!((found.status, found.text), (400, expected.text));
        }
    }
}
