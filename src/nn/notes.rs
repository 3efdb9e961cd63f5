//! Notes of a network, for people and tools.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Notes by name, each a value of JSON: what a training script wrote, what compiling found. As text they are one JSON object, or `null`
/// where there are none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Notes(Value);

/// A text is no JSON.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NotesError(String);

impl Notes {
    pub(crate) fn from_object(object: Value) -> Self {
        Self(object)
    }

    /// Each note with its value as JSON, by name.
    pub fn entries(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.as_object().into_iter().flatten().map(|(name, value)| (name.as_str(), value.to_string()))
    }

    /// A note that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A note of a kind; none where it is another or missing.
    pub(crate) fn get<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        T::deserialize(self.0.get(name)?).ok()
    }

    /// A note that is itself numbers by name; those in it that are none are left out.
    pub fn numbers(&self, name: &str) -> BTreeMap<String, f64> {
        let numbers = self.0.get(name).and_then(Value::as_object);
        numbers.into_iter().flatten().filter_map(|(name, v)| Some((name.clone(), v.as_f64()?))).collect()
    }

    /// Notes a value, in the place of one of the same name; what was no object is forgotten. A value that JSON cannot have is `null`.
    pub fn insert(&mut self, name: &str, value: impl Serialize) {
        let value = serde_json::to_value(value).unwrap_or(Value::Null);
        match &mut self.0 {
            Value::Object(notes) => {
                notes.insert(name.to_owned(), value);
            }
            other => *other = Value::Object([(name.to_owned(), value)].into_iter().collect()),
        }
    }
}

impl fmt::Display for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Notes {
    type Err = NotesError;

    /// # Errors
    /// [`NotesError`] for a text that is no JSON.
    fn from_str(text: &str) -> Result<Self, NotesError> {
        serde_json::from_str(text).map(Self).map_err(|e| NotesError(e.to_string()))
    }
}
