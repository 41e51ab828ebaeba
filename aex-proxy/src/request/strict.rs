//! JSON read without leniency: keys once, borrowed where they can be, and short in error texts.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Invalid;

/// Up to this many keys a linear search is faster than hashing.
const FEW_KEYS: usize = 16;
/// How much of a hostile key an error text repeats.
const SHOWN_BYTES: usize = 64;

/// The keys of one object, compared decoded.
#[derive(Default)]
pub(super) struct Keys<'de> {
    few: Vec<Cow<'de, str>>,
    many: HashSet<Cow<'de, str>>,
}

impl<'de> Keys<'de> {
    /// Whether the key is new.
    pub(super) fn insert(&mut self, key: Cow<'de, str>) -> bool {
        if !self.many.is_empty() {
            return self.many.insert(key);
        }
        if self.few.contains(&key) {
            return false;
        }
        self.few.push(key);
        if self.few.len() > FEW_KEYS {
            self.many.extend(self.few.drain(..));
        }
        true
    }
}

/// A decoded key, borrowed when it has no escapes.
pub(super) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}

/// The beginning of a client's text, for an error text.
pub(super) fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= SHOWN_BYTES {
        return Cow::Borrowed(text);
    }
    let mut end = SHOWN_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(format!("{}…", &text[..end]))
}

/// The fields of the one JSON object that `text` must be: decoded name, raw value, in order.
pub(super) fn top_level(text: &str) -> Result<Vec<(Cow<'_, str>, &str)>, Invalid> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let fields = deserializer
        .deserialize_map(TopLevel)
        .and_then(|fields| deserializer.end().map(|()| fields));
    fields.map_err(|error| Invalid::whole(format!("the body is not a JSON object: {error}")))
}

struct TopLevel;

impl<'de> Visitor<'de> for TopLevel {
    type Value = Vec<(Cow<'de, str>, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut keys = Keys::default();
        let mut fields = Vec::with_capacity(8);
        while let Some(key) = map.next_key_seed(Key)? {
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom(duplicate(&key)));
            }
            let raw: &'de RawValue = map.next_value()?;
            fields.push((key, raw.get()));
        }
        Ok(fields)
    }
}

pub(super) fn duplicate(key: &str) -> String {
    format!("duplicate key {:?}", shortened(key))
}
