//! A search's query string as the equivalent body.
//!
//! Pure: functions of values.

use serde_json::{Map, Value, json};

/// The parameters of `GET /indexes/{uid}/search` as a body; `None` if a value can't be read.
pub fn body_of_query(query: &str) -> Option<Map<String, Value>> {
    let mut body = Map::new();
    let mut hybrid = Map::new();
    for (name, text) in form_urlencoded::parse(query.as_bytes()) {
        let text = &*text;
        match &*name {
            "hybridEmbedder" => hybrid.insert("embedder".to_owned(), text.into()),
            "hybridSemanticRatio" => {
                hybrid.insert("semanticRatio".to_owned(), text.parse::<f64>().ok()?.into())
            }
            "personalizeUserContext" => {
                body.insert("personalize".to_owned(), json!({"userContext": text}))
            }
            name => body.insert(name.to_owned(), value_of(name, text)?),
        };
    }
    if !hybrid.is_empty() {
        body.insert("hybrid".to_owned(), hybrid.into());
    }
    Some(body)
}

fn value_of(name: &str, text: &str) -> Option<Value> {
    Some(match name {
        "offset" | "limit" | "page" | "hitsPerPage" | "cropLength" => {
            text.parse::<u64>().ok()?.into()
        }
        "rankingScoreThreshold" => text.parse::<f64>().ok()?.into(),
        "showMatchesPosition"
        | "showRankingScore"
        | "showRankingScoreDetails"
        | "showPerformanceDetails"
        | "retrieveVectors"
        | "useNetwork" => text.parse::<bool>().ok()?.into(),
        "vector" => {
            let numbers = text
                .split(',')
                .map(|number| number.trim().parse::<f64>().ok());
            numbers.collect::<Option<Vec<f64>>>()?.into()
        }
        "sort" => sort_of_query(text).into(),
        "attributesToRetrieve"
        | "attributesToCrop"
        | "attributesToHighlight"
        | "attributesToSearchOn"
        | "facets"
        | "locales" => text.split(',').collect(),
        "filter" => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        _ => text.into(),
    })
}

/// The criteria of a query string's `sort`: separated by commas, except for commas inside `_geoPoint(…)`.
pub fn sort_of_query(text: &str) -> Vec<String> {
    let mut criteria: Vec<String> = Vec::new();
    let mut within = false;
    for part in text.trim_matches('"').split(',').map(str::trim) {
        match criteria.last_mut().filter(|_| within) {
            Some(last) => {
                last.push(',');
                last.push_str(part);
                within = !(part.ends_with("):asc") || part.ends_with("):desc"));
            }
            None => {
                within = part.starts_with("_geoPoint(");
                criteria.push(part.to_owned());
            }
        }
    }
    criteria
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_string_says_what_a_body_says() {
        let query = "q=a+b&limit=3&page=2&attributesToSearchOn=a,b.*&filter=x+%3D+1&sort=_geoPoint(1,+2):asc,y:desc\
                     &vector=1,0.5&showRankingScore=true&hybridEmbedder=e&hybridSemanticRatio=0.25&facets=*";
        let expected = json!({
            "q": "a b", "limit": 3, "page": 2, "attributesToSearchOn": ["a", "b.*"], "filter": "x = 1",
            "sort": ["_geoPoint(1,2):asc", "y:desc"], "vector": [1.0, 0.5], "showRankingScore": true,
            "facets": ["*"], "hybrid": {"embedder": "e", "semanticRatio": 0.25},
        });
        assert_eq!(body_of_query(query).map(Value::from), Some(expected));
        let list = body_of_query("filter=%5B%22a+%3D+1%22%5D").unwrap();
        assert_eq!(list["filter"], json!(["a = 1"]));
        for query in ["limit=x", "showRankingScore=yes", "vector=1,b"] {
            assert_eq!(body_of_query(query), None, "{query}");
        }
    }
}
