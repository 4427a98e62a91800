//! `movies.json`: an array of objects with keys such as `IMDB Rating`, and no id.

use serde_json::{Map, Value, json};

use super::DataSet;

/// The file's field names, and the ones used here.
const FIELDS: [(&str, &str); 15] = [
    ("Title", "title"),
    ("Major Genre", "genre"),
    ("Director", "director"),
    ("Distributor", "distributor"),
    ("Creative Type", "kind"),
    ("Source", "source"),
    ("MPAA Rating", "mpaa"),
    ("Release Date", "released"),
    ("Running Time min", "minutes"),
    ("IMDB Rating", "rating"),
    ("IMDB Votes", "votes"),
    ("Rotten Tomatoes Rating", "tomatoes"),
    ("Production Budget", "budget"),
    ("Worldwide Gross", "gross"),
    ("US DVD Sales", "dvd_sales"),
];

pub(super) fn parse(text: &str) -> Option<DataSet> {
    let films: Vec<Map<String, Value>> = serde_json::from_str(text).ok()?;
    let documents = films
        .iter()
        .zip(1..)
        .map(|(film, id)| {
            let mut document = Map::new();
            document.insert("id".to_owned(), Value::from(id));
            for (theirs, ours) in FIELDS {
                document.insert(
                    ours.to_owned(),
                    film.get(theirs).cloned().unwrap_or(Value::Null),
                );
            }
            Value::Object(document)
        })
        .collect();
    Some(DataSet {
        index: "movies",
        primary_key: "id",
        title: "title",
        settings: json!({
            "searchableAttributes": ["title", "director", "distributor", "genre"],
            "filterableAttributes": ["genre", "mpaa", "rating", "votes", "director", "kind"],
            "sortableAttributes": ["rating", "votes", "gross", "budget", "title"],
        }),
        documents,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_film_keeps_the_values_of_the_file() {
        let text = r#"[{"Title": 300, "US Gross": 1, "IMDB Rating": 7.8, "Major Genre": null}]"#;
        let film = &parse(text).unwrap().documents[0];
        assert_eq!(film["id"], 1);
        assert_eq!(film["title"], 300);
        assert_eq!(film["rating"], 7.8);
        assert_eq!(film["genre"], Value::Null);
    }
}
