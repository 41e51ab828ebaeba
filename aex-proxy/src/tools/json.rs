//! JSON as its own text: members and elements in their order, each value as it was written.
//!
//! Keys are compared as the most lenient client does, without case; two that are the same then make an
//! object ambiguous.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Stop, folded};

/// An object's members.
#[derive(Debug, Default)]
pub(super) struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Object<'a> {
    /// Of a text that must be an object.
    pub(super) fn read(text: &'a str) -> Result<Self, Stop> {
        serde_json::from_str(text).map_err(|_| Stop::Unreadable)
    }

    /// The value under a key; null is none.
    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        let mut members = self.0.iter();
        let found = members.find(|(name, _)| folded(name) == key);
        found.map(|(_, raw)| raw.get()).filter(|&raw| raw != "null")
    }

    pub(super) fn members(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, raw)| (&**name, raw.get()))
    }

    /// An object under a key, where there is one.
    pub(super) fn object(&self, key: &str) -> Result<Option<Object<'a>>, Stop> {
        self.get(key).map(Object::read).transpose()
    }

    pub(super) fn list(&self, key: &str) -> Result<Option<Vec<&'a str>>, Stop> {
        self.get(key).map(list).transpose()
    }

    pub(super) fn string(&self, key: &str) -> Result<Option<Cow<'a, str>>, Stop> {
        self.get(key).map(string).transpose()
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, Stop> {
        let number = |raw: &str| raw.parse().map_err(|_| Stop::Unreadable);
        self.get(key).map(number).transpose()
    }

    /// The object again, with each member as `change` has it: as it was, another, or none.
    pub(super) fn rewritten(&self, mut change: impl FnMut(&str, &'a str) -> Change) -> String {
        let mut out = String::from("{");
        for (name, raw) in &self.0 {
            let changed;
            let value = match change(&folded(name), raw.get()) {
                Change::Stays => raw.get(),
                Change::Goes => continue,
                Change::Becomes(value) => {
                    changed = value;
                    &changed
                }
            };
            if out.len() > 1 {
                out.push(',');
            }
            out.push_str(&quoted(name));
            out.push(':');
            out.push_str(value);
        }
        out.push('}');
        out
    }
}

/// What becomes of a member.
pub(super) enum Change {
    Stays,
    Goes,
    Becomes(String),
}

impl Change {
    /// Another value where there is one.
    pub(super) fn of(value: Option<String>) -> Self {
        value.map_or(Self::Stays, Self::Becomes)
    }
}

pub(super) fn list(raw: &str) -> Result<Vec<&str>, Stop> {
    let elements: Vec<&RawValue> = serde_json::from_str(raw).map_err(|_| Stop::Unreadable)?;
    Ok(elements.into_iter().map(RawValue::get).collect())
}

pub(super) fn string(raw: &str) -> Result<Cow<'_, str>, Stop> {
    let text: Text<'_> = serde_json::from_str(raw).map_err(|_| Stop::Unreadable)?;
    Ok(text.0)
}

pub(super) fn joined(elements: &[impl AsRef<str>]) -> String {
    let elements: Vec<&str> = elements.iter().map(AsRef::as_ref).collect();
    format!("[{}]", elements.join(","))
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
        let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
        let mut seen = HashSet::new();
        while let Some(Text(key)) = map.next_key()? {
            if !seen.insert(folded(&key).into_owned()) {
                return Err(A::Error::custom("a key twice"));
            }
            members.push((key, map.next_value()?));
        }
        Ok(Object(members))
    }
}

/// A string, borrowed where it has no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cow<'de, str>, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}
