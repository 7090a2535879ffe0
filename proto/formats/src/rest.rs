//! What of an event was not placed yet.

use sekimori_proto::{json, v1};
use serde_json::{Map, Value};

/// An object whose values are taken one by one.
#[derive(Debug, Default)]
pub struct Rest(Map<String, Value>);

impl Rest {
    /// The whole event in its own JSON form.
    pub fn of(event: &v1::Event) -> Self {
        match json::event(event) {
            Value::Object(object) => Self(object),
            _ => Self::default(),
        }
    }

    /// Moves a value out. None when there is none, or it is null.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.0.shift_remove(name).filter(|value| !value.is_null())
    }

    /// Moves a text out. A value that is no text stays.
    pub fn take_text(&mut self, name: &str) -> Option<String> {
        self.text(name)?;
        match self.take(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        }
    }

    /// A text that stays here.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// A number that stays here.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    /// A value that stays here.
    pub fn copy(&self, name: &str) -> Option<Value> {
        self.0.get(name).filter(|value| !value.is_null()).cloned()
    }

    /// Puts a value back, or a new one in.
    pub fn put(&mut self, name: &str, value: Value) {
        self.0.insert(name.to_owned(), value);
    }

    /// Texts of a list that stays here.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let Some(list) = self.0.get(name).and_then(Value::as_array) else { return Vec::new() };
        list.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect()
    }

    /// Moves texts out of a list.
    pub fn take_texts(&mut self, name: &str) -> Vec<String> {
        let texts = self.texts(name);
        self.0.shift_remove(name);
        texts
    }

    /// Lets `place` take from the object `name`. None when there is none. What it leaves stays.
    pub fn inside<T>(&mut self, name: &str, place: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if !self.0.get(name)?.is_object() {
            return None;
        }
        let Some(Value::Object(object)) = self.0.get_mut(name) else { return None };
        let mut inner = Self(std::mem::take(object));
        let placed = place(&mut inner);
        *object = inner.0;
        Some(placed)
    }

    /// A copy, for what is told twice.
    pub fn copy_of(&self, name: &str) -> Option<Self> {
        self.0.get(name)?.as_object().cloned().map(Self)
    }

    /// Everything that is left, without what says nothing.
    pub fn left(self) -> Map<String, Value> {
        match pruned(Value::Object(self.0)) {
            Some(Value::Object(object)) => object,
            _ => Map::new(),
        }
    }
}

/// Without nulls and without objects that are empty. Lists keep their places.
fn pruned(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Object(object) => {
            let kept = object.into_iter().filter_map(|(name, it)| Some((name, pruned(it)?)));
            let kept: Map<String, Value> = kept.collect();
            (!kept.is_empty()).then_some(Value::Object(kept))
        }
        other => Some(other),
    }
}
