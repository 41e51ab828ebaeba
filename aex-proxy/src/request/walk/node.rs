//! One value on the walk through a request: what it is, and what is below it. Refuses duplicate keys and
//! depth.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use aex_admin_proto::tools::may_offer_tools;

use crate::tools::folded;

use super::super::place::Place;
use super::super::strict::{Key, Keys, duplicate, shortened};
use super::{IMAGE_KEYS, Medium, REASONING_ID, Walk};

/// Deepest nesting of a request, its own object included.
const MAX_DEPTH: usize = 64;

/// One value on the walk.
pub(super) struct Node<'w> {
    pub(super) walk: &'w mut Walk,
    pub(super) place: Place,
    pub(super) depth: usize,
}

impl Node<'_> {
    fn wrong<E: Error>(&self) -> E {
        E::custom(format_args!("must be {}", self.place.expected()))
    }

    fn scalar<E: Error>(self) -> Result<(), E> {
        if !self.place.takes_other() {
            return Err(self.wrong());
        }
        if self.place == Place::Media {
            self.walk.saw_of_message();
        }
        self.walk.count_scalar(self.place);
        Ok(())
    }

    fn check_depth<E: Error>(&self) -> Result<(), E> {
        if self.depth > MAX_DEPTH {
            return Err(E::custom(format_args!(
                "nested deeper than {MAX_DEPTH} levels"
            )));
        }
        Ok(())
    }

    /// What an object turns out to be at its end.
    fn object_ended<E: Error>(self, seen: &Seen) -> Result<(), E> {
        let walk = self.walk;
        match self.place {
            // What it is, only the provider knows. An image may be given by its file; any other part
            // with one is more than it says.
            Place::Part => {
                if !seen.typed {
                    walk.saw(Medium::Other);
                } else if seen.filed && !walk.image {
                    walk.saw(Medium::File);
                }
                walk.part_ended();
            }
            Place::Item => {
                // An id alone stands for an item that the provider keeps.
                walk.item.is_reference |= !(seen.typed || seen.spoken);
                return walk.item_ended();
            }
            Place::Function if !seen.named => return Err(E::custom("must have a name")),
            Place::Tool => {
                let hosted = std::mem::take(&mut walk.hosted);
                if !(seen.callable || seen.named || hosted) {
                    return Err(E::custom("must have a name"));
                }
                // Some take it for a hosted one of that name.
                if !seen.typed {
                    return Err(E::custom("must have a type"));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The place of the value under `key`, here.
    fn member<E: Error>(&mut self, key: &str) -> Result<Place, E> {
        if let Some(known) = in_another_case(self.place, key) {
            return Err(E::custom(format_args!(
                "{:?} is {known} in another case, which some servers take for it: write {known}",
                shortened(key)
            )));
        }
        if self.place == Place::Text {
            self.walk.nested(key)?;
        }
        self.walk.hides_tools |= self.hides_tools(key);
        // A tool's name is one in whichever case its key is: some servers do not mind it.
        let of_tools = matches!(
            self.place,
            Place::Tool | Place::Function | Place::ToolChoice
        );
        Ok(if of_tools {
            self.member_of(&folded(key))
        } else {
            self.member_of(key)
        })
    }

    /// Whether tools may be offered under `key` here. No rule of tools has seen them.
    fn hides_tools(&self, key: &str) -> bool {
        let known: &[&str] = match self.place {
            // As they are named in the history.
            Place::Message | Place::Item | Place::Part => {
                &["tool_calls", "tool_call_id", "function_call"]
            }
            Place::Tool => &[
                "function",
                "allowed_tools",
                "connector_id",
                "search_context_size",
            ],
            Place::Text | Place::Call => {
                return matches!(&*folded(key), "tools" | "functions");
            }
            _ => return false,
        };
        may_offer_tools(key) && !known.contains(&&*folded(key))
    }

    fn member_of(&mut self, key: &str) -> Place {
        match (self.place, key) {
            (Place::Message | Place::Item, "tool_calls" | "function_call") | (Place::Call, _) => {
                Place::Call
            }
            (Place::Message, "content") => Place::Content,
            (Place::Item, "content" | "output") => Place::Content,
            (Place::Item, "type") => Place::ItemType,
            (Place::Item, "id") => Place::ItemId,
            (Place::Message | Place::Item, "audio" | "images") => {
                self.walk.sound = key == "audio";
                Place::Media
            }
            (Place::Part, "type") => Place::PartType,
            (Place::Part, "image_url" | "input_image" | "image") => {
                self.walk.image = true;
                self.walk.image_sources += 1;
                Place::Image
            }
            (Place::Part, "file_id") => {
                self.walk.image_sources += 1;
                Place::Text
            }
            (Place::Image, key) if IMAGE_KEYS.contains(&key) => {
                self.walk.image_sources += u64::from(key == "file_id");
                Place::ImageField
            }
            (Place::Part, "input_audio" | "audio") => {
                self.walk.saw(Medium::Audio);
                Place::Text
            }
            (Place::Part, "file" | "file_data" | "file_url") => {
                self.walk.saw(Medium::File);
                Place::Text
            }
            (Place::Part, "video_url") => {
                self.walk.saw(Medium::Other);
                Place::Text
            }
            // What else an image's object has, some may write into the prompt.
            (
                Place::Message
                | Place::Item
                | Place::Part
                | Place::Image
                | Place::Text
                | Place::Media,
                _,
            ) => Place::Text,
            (Place::Tool, "type") => Place::ToolType,
            (Place::Tool, "function" | "custom") => Place::Function,
            (Place::Tool | Place::Function | Place::ToolChoice, "name") => Place::ToolName,
            (Place::ToolChoice, "type") => Place::ChoiceType,
            // These name no tool: which one of a server it is, stands under its name.
            (Place::ToolChoice, "server_label" | "parameters" | "description") => Place::Schema,
            (Place::ToolChoice, _) => Place::ToolChoice,
            (Place::Uncounted, _) => Place::Uncounted,
            _ => Place::Schema,
        }
    }
}

/// The key that a server which does not mind the case takes this one for.
fn in_another_case(place: Place, key: &str) -> Option<&'static str> {
    let known: &[&'static str] = match place {
        Place::Message => &MESSAGE_KEYS,
        Place::Item => &ITEM_KEYS,
        Place::Part => &PART_KEYS,
        Place::Image => &IMAGE_KEYS,
        _ => return None,
    };
    let folded = folded(key);
    known
        .iter()
        .find(|known| **known == folded && **known != key)
        .copied()
}

/// Keys by which a message, an item or a part is judged.
const MESSAGE_KEYS: [&str; 7] = [
    "role",
    "content",
    "name",
    "audio",
    "images",
    "tool_calls",
    "function_call",
];
const ITEM_KEYS: [&str; 7] = ["type", "id", "role", "content", "output", "audio", "images"];
const PART_KEYS: [&str; 12] = [
    "type",
    "text",
    "image_url",
    "input_image",
    "image",
    "file_id",
    "input_audio",
    "audio",
    "file",
    "file_data",
    "file_url",
    "video_url",
];

/// Which of the keys that matter an object has.
#[derive(Default)]
struct Seen {
    typed: bool,
    named: bool,
    callable: bool,
    spoken: bool,
    filed: bool,
}

impl Seen {
    fn note(&mut self, key: &str) {
        match key {
            "type" => self.typed = true,
            "name" => self.named = true,
            "function" | "custom" => self.callable = true,
            "role" => self.spoken = true,
            "file_id" => self.filed = true,
            _ => {}
        }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.place.expected())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.scalar()
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        if self.place.takes_token_ids() {
            if u32::try_from(number).is_err() {
                return Err(self.wrong());
            }
            self.walk.token_ids += 1;
            return Ok(());
        }
        self.scalar()
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.scalar()
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        if matches!(
            self.place,
            Place::Content | Place::Media | Place::ItemId | Place::Image | Place::ImageField
        ) {
            return Ok(());
        }
        self.scalar()
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        if !self.place.takes_string() {
            return Err(self.wrong());
        }
        self.walk.count(self.place, text);
        match self.place {
            Place::PartType => self.walk.part_type(text),
            Place::ToolType => self.walk.tool_type(text)?,
            Place::ToolName => self.walk.tool_name(text)?,
            Place::ItemType => self.walk.item_type(text)?,
            Place::ItemId => self.walk.item.is_of_reasoning = text.starts_with(REASONING_ID),
            Place::Input => self.walk.messages += 1,
            Place::Prompts | Place::Prompt => self.walk.prompt()?,
            Place::Media => self.walk.saw_of_message(),
            Place::ChoiceType => self.walk.choice_type(text)?,
            Place::ToolChoice => self.walk.choice_text(text)?,
            _ => {}
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.check_depth()?;
        let Some(place) = self.place.element() else {
            return Err(self.wrong());
        };
        if self.place == Place::Media {
            self.walk.saw_of_message();
        }
        let prompts = self.walk.prompts;
        if self.place == Place::Prompt {
            self.walk.prompt()?;
        }
        let mut index = 0_u64;
        loop {
            if matches!(self.place, Place::Tools | Place::Functions) {
                self.walk.element = usize::try_from(index).unwrap_or(usize::MAX);
            }
            let node = Node {
                walk: &mut *self.walk,
                place,
                depth: self.depth + 1,
            };
            match seq.next_element_seed(node) {
                Ok(Some(())) => index += 1,
                Ok(None) => break,
                Err(error) => {
                    self.walk.under(|| format!("[{index}]"), &error);
                    return Err(error);
                }
            }
        }
        self.walk.count_structure(self.place, 0, index);
        match self.place {
            Place::Messages | Place::Input if index == 0 => {
                Err(A::Error::custom("must have at least one message"))
            }
            Place::Messages | Place::Input => {
                self.walk.messages += index;
                Ok(())
            }
            Place::Prompts | Place::Prompt if index == 0 => {
                Err(A::Error::custom("must not be empty"))
            }
            // A list of numbers is one prompt.
            Place::Prompts if self.walk.prompts == prompts => self.walk.prompt(),
            Place::Prompts if self.walk.prompts - prompts < index => {
                Err(A::Error::custom("mixes tokens with prompts"))
            }
            _ => Ok(()),
        }
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.check_depth()?;
        if !self.place.takes_map() {
            return Err(self.wrong());
        }
        if self.place == Place::Media {
            self.walk.saw_of_message();
        }
        let mut keys = Keys::default();
        let mut members = 0;
        let mut seen = Seen::default();
        while let Some(key) = map.next_key_seed(Key)? {
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom(duplicate(&key)));
            }
            self.walk.count_key(self.place, &key);
            members += 1;
            seen.note(&key);
            let place = match self.member(&key) {
                Ok(place) => place,
                Err(error) => {
                    self.walk.under(|| shortened(&key).into_owned(), &error);
                    return Err(error);
                }
            };
            let node = Node {
                walk: &mut *self.walk,
                place,
                depth: self.depth + 1,
            };
            if let Err(error) = map.next_value_seed(node) {
                self.walk.under(|| shortened(&key).into_owned(), &error);
                return Err(error);
            }
        }
        self.walk.count_structure(self.place, members, 0);
        self.object_ended(&seen)
    }
}
