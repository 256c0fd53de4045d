//! NiMbox's side of its HTTP API, as far as callpost sees it.

use std::collections::HashMap;

use serde_json::{Value, json};

/// Its calls, by their key: initiated, source, destination.
#[derive(Debug, Default)]
pub(super) struct Nimbox {
    calls: HashMap<(String, String, String), u64>,
    last: u64,
}

/// What is answered to a create.
pub(super) struct Created {
    pub body: Value,
    /// The field it was refused for.
    pub refused: Option<String>,
    /// Its call was there already.
    pub again: bool,
}

impl Nimbox {
    /// A second create with the same key is not made: the answer names the first.
    pub fn create(&mut self, key: [&str; 3], refuse: Option<&(String, String)>) -> Created {
        let missing = ["initiated", "source", "destination"]
            .into_iter()
            .zip(key)
            .find(|(_, value)| value.is_empty())
            .map(|(field, _)| (field.to_owned(), "is required".to_owned()));
        let key = (key[0].to_owned(), key[1].to_owned(), key[2].to_owned());
        let known = self.calls.get(&key).copied();
        if let Some((field, why)) = missing.as_ref().or(refuse) {
            let body = json!({ "error": true, "errors": { field.as_str(): why } });
            return Created { body, refused: Some(field.clone()), again: known.is_some() };
        }
        let id = known.unwrap_or_else(|| {
            self.last += 1;
            self.calls.insert(key, self.last);
            self.last
        });
        let body = json!({ "error": false, "contactId": 10_000 + id, "phonecallId": id });
        Created { body, refused: None, again: known.is_some() }
    }

    /// Deletes the calls of the days between the two, both exclusive; says how many.
    pub fn delete(&mut self, from: &str, to: &str) -> (Value, u64) {
        let is_day = |text: &str| text.parse::<jiff::civil::Date>().is_ok();
        if !is_day(from) || !is_day(to) {
            let why = "both dates are required, as 2012-08-23";
            return (json!({ "error": true, "errors": { "from": why } }), 0);
        }
        let before = self.calls.len();
        self.calls.retain(|(initiated, ..), _| {
            let day = initiated.get(..10).unwrap_or_default();
            !(from < day && day < to)
        });
        let count = before - self.calls.len();
        (json!({ "error": false, "count": count }), count as u64)
    }
}
