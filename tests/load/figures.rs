//! One JSON object a line for each measurement; `cargo xtask bench collector` makes tables of them.

use serde_json::{Map, Value};

/// Figures of one measurement in one setup.
#[derive(Debug)]
#[must_use = "figures are for printing"]
pub struct Figures(Map<String, Value>);

impl Figures {
    /// Without any figure yet.
    pub fn new(measurement: &str, setup: &str) -> Self {
        let texts = [("measurement", measurement), ("setup", setup)];
        Self(texts.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect())
    }

    /// A figure; the name says what it counts in.
    pub fn number(mut self, name: &str, number: impl Into<Value>) -> Self {
        self.0.insert(name.to_owned(), number.into());
        self
    }

    /// A sentence on how to read them.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        let name = "note".to_owned();
        let note: String = note.into();
        if !note.is_empty() {
            self.0.insert(name, note.into());
        }
        self
    }

    /// Prints them.
    pub fn print(self) {
        println!("{}", Value::Object(self.0));
    }
}
