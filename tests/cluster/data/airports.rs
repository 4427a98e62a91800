//! `airports.csv`: `iata,name,city,state,country,latitude,longitude`, with quotes if a name contains a comma.

use serde_json::{Value, json};

use super::DataSet;

pub(super) fn parse(text: &str) -> Option<DataSet> {
    let mut lines = text.lines();
    if lines.next()? != "iata,name,city,state,country,latitude,longitude" {
        return None;
    }
    Some(DataSet {
        index: "airports",
        primary_key: "iata",
        title: "name",
        settings: json!({
            "searchableAttributes": ["name", "city", "iata"],
            "filterableAttributes": ["state", "country", "_geo"],
            "sortableAttributes": ["_geo", "name"],
        }),
        documents: lines
            .filter(|line| !line.is_empty())
            .map(document)
            .collect::<Option<_>>()?,
    })
}

fn document(line: &str) -> Option<Value> {
    let fields = fields(line);
    let [iata, name, city, state, country, latitude, longitude] = fields.as_slice() else {
        return None;
    };
    let (lat, lng): (f64, f64) = (latitude.parse().ok()?, longitude.parse().ok()?);
    Some(json!({
        "iata": iata, "name": name, "city": city, "state": state, "country": country,
        "_geo": { "lat": lat, "lng": lng },
    }))
}

fn fields(line: &str) -> Vec<String> {
    let mut fields = Vec::new();
    let mut field = String::new();
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            _ => field.push(character),
        }
    }
    fields.push(field);
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_airport_has_coordinates_and_its_name_may_contain_commas() {
        let text = "iata,name,city,state,country,latitude,longitude\n00M,\"Thigpen, East\",Bay Springs,MS,USA,31.9,-89.2\n";
        let airport = &parse(text).unwrap().documents[0];
        assert_eq!(airport["name"], "Thigpen, East");
        assert_eq!(airport["_geo"], json!({ "lat": 31.9, "lng": -89.2 }));
        assert!(parse("something,else\n").is_none());
    }
}
