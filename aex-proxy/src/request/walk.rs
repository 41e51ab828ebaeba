//! What a walk through a request measures: prompt and tools by bytes, and by tokens where it has a
//! tokenizer; the parts that cost by item; what stands for something that is kept elsewhere.

mod node;

use std::fmt;

use aex_admin_proto::tools::{may_offer_tools, may_set_form, may_set_temperature};
use aex_admin_proto::worker::Measured;
use serde::de::{DeserializeSeed, Error};

use crate::tokenizer::Tokenizer;

use super::Invalid;
use super::offers::{List, Offer};
use super::place::{Counted, Place};
use super::strict::shortened;
use node::Node;

/// Most tool and function names, and the longest.
const MAX_TOOLS: usize = 1024;
const MAX_TOOL_NAME_BYTES: usize = 128;
/// Words of a choice of tools that name none.
const CHOICES: [&str; 8] = [
    "auto",
    "none",
    "required",
    "any",
    "function",
    "custom",
    "tool",
    "allowed_tools",
];
/// Most prompts or inputs of one request: OpenAI's own limit.
const MAX_PROMPTS: u64 = 2048;
/// What an image's object has.
const IMAGE_KEYS: [&str; 3] = ["url", "detail", "file_id"];
/// Most references that are left out of one input.
const MAX_LEFT_OUT: usize = 256;
/// How OpenAI's ids of reasoning begin.
const REASONING_ID: &str = "rs_";
/// What a number, a boolean or a null may take when a template writes it out.
const SCALAR_BYTES: u64 = 24;
/// Quotes, colon and comma that a provider writes again around a key or a string of a schema.
const PUNCTUATION_BYTES: u64 = 4;
/// Keys that a chat template has no text for: what it writes in their place is counted by message.
const FRAME_KEYS: [&str; 4] = ["role", "content", "type", "text"];

/// What was measured so far.
#[derive(Debug, Default)]
pub(super) struct Walk {
    pub(super) ascii_bytes: u64,
    pub(super) other_bytes: u64,
    pub(super) tool_bytes: u64,
    /// Messages or items.
    pub(super) messages: u64,
    pub(super) prompts: u64,
    pub(super) token_ids: u64,
    pub(super) images: u64,
    pub(super) media: bool,
    pub(super) audio: bool,
    pub(super) files: bool,
    pub(super) other_media: bool,
    /// Names of the tools offered, and where.
    pub(super) offers: Vec<Offer>,
    /// What a choice of tools names.
    pub(super) chosen: Vec<String>,
    /// Tools stand in a message, an item, a part or another tool.
    pub(super) hides_tools: bool,
    /// The parameter that is being walked is none that AEX knows, or none that it lets pass.
    is_outside: bool,
    /// Keys in such parameters that may offer tools, prescribe a form or set the temperature.
    pub(super) nested: Vec<String>,
    /// The list of tools that is being walked, and the place of its element.
    list: Option<List>,
    element: usize,
    /// The medium that is being walked is audio.
    sound: bool,
    /// Types of tools that are neither a function nor custom, shortened.
    pub(super) hosted_tools: Vec<String>,
    /// Types of input items that stand for something which the provider keeps, shortened.
    pub(super) stored_items: Vec<String>,
    /// Places in the input of references to reasoning that no provider has kept.
    pub(super) left_out: Vec<usize>,
    /// Items so far, and what the one that is being walked is.
    items: usize,
    item: Item,
    tokenizer: Option<Tokenizer>,
    tokens: Measured,
    /// The part that is being walked is an image, and says so many times where one is.
    image: bool,
    image_sources: u64,
    /// The tool that is being walked is a hosted one.
    hosted: bool,
    fault: Option<Fault>,
}

enum Medium {
    Audio,
    File,
    Other,
}

/// An input item, as far as it may stand for something else.
#[derive(Debug, Default)]
struct Item {
    is_reference: bool,
    is_of_reasoning: bool,
}

/// A fault, with the path to it from the innermost step outwards.
#[derive(Debug)]
struct Fault {
    message: String,
    path: Vec<String>,
}

impl Walk {
    /// With a tokenizer, text is counted by it too.
    pub(super) fn new(tokenizer: Option<Tokenizer>) -> Self {
        Self {
            tokenizer,
            ..Self::default()
        }
    }

    /// What was counted by the tokenizer.
    pub(super) fn measured(&self) -> Option<Measured> {
        self.tokenizer.map(|_| self.tokens)
    }

    /// Walks a field of tools or schemas. By tokens it is counted as it is written.
    pub(super) fn tools(&mut self, name: &str, raw: &str, place: Place) -> Result<(), Invalid> {
        self.tokens.tools += self.tokenizer.map_or(0, |tokenizer| tokenizer.count(raw));
        self.list = match place {
            Place::Tools => Some(List::Tools),
            Place::Functions => Some(List::Functions),
            _ => None,
        };
        self.value(name, raw, place)
    }

    /// Walks the value of the top-level field `name`.
    pub(super) fn value(&mut self, name: &str, raw: &str, place: Place) -> Result<(), Invalid> {
        let mut deserializer = serde_json::Deserializer::from_str(raw);
        let node = Node {
            walk: self,
            place,
            depth: 2,
        };
        match node.deserialize(&mut deserializer) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.under(|| shortened(name).into_owned(), &error);
                Err(self.invalid())
            }
        }
    }

    /// Walks the value of a field that AEX does not know, or does not let pass by itself.
    pub(super) fn outside(&mut self, name: &str, raw: &str) -> Result<(), Invalid> {
        self.is_outside = true;
        let walked = self.value(name, raw, Place::Text);
        self.is_outside = false;
        walked
    }

    /// A key inside such a field.
    fn nested<E: Error>(&mut self, key: &str) -> Result<(), E> {
        let matters = may_offer_tools(key) || may_set_form(key) || may_set_temperature(key);
        if !self.is_outside || !matters || self.nested.iter().any(|known| known == key) {
            return Ok(());
        }
        if self.nested.len() == super::MAX_NAMED_PARAMS {
            return Err(E::custom("too many keys that need a decision"));
        }
        self.nested.push(shortened(key).into_owned());
        Ok(())
    }

    /// Notes that `error` came from below `step`.
    fn under(&mut self, step: impl FnOnce() -> String, error: &impl fmt::Display) {
        let fault = self.fault.get_or_insert_with(|| {
            let text = error.to_string();
            // Positions count from the value's own start, which says nothing to the client.
            let end = text.find(" at line ").unwrap_or(text.len());
            Fault {
                message: text[..end].to_owned(),
                path: Vec::new(),
            }
        });
        fault.path.push(step());
    }

    fn invalid(&mut self) -> Invalid {
        let Some(fault) = self.fault.take() else {
            return Invalid::whole("the body cannot be read");
        };
        let mut path = String::new();
        for step in fault.path.iter().rev() {
            if !path.is_empty() && !step.starts_with('[') {
                path.push('.');
            }
            path.push_str(step);
        }
        Invalid {
            message: format!("{path}: {}", fault.message),
            param: Some(path),
        }
    }

    fn count(&mut self, place: Place, text: &str) {
        match place.counted() {
            Counted::Nothing => {}
            Counted::Prompt => {
                // Most text is, and that is seen many bytes at a time.
                let ascii = if text.is_ascii() {
                    text.len()
                } else {
                    text.bytes().filter(u8::is_ascii).count()
                };
                self.ascii_bytes += ascii as u64;
                self.other_bytes += (text.len() - ascii) as u64;
                if let Some(tokenizer) = self.tokenizer {
                    self.tokens.text += tokenizer.count(text);
                }
            }
            Counted::Tool => self.tool_bytes += escaped_bytes(text) + PUNCTUATION_BYTES,
        }
    }

    fn count_key(&mut self, place: Place, key: &str) {
        let framed = matches!(place, Place::Message | Place::Item | Place::Part)
            && FRAME_KEYS.contains(&key);
        if framed {
            self.ascii_bytes += key.len() as u64;
        } else if place == Place::Image && !IMAGE_KEYS.contains(&key) {
            self.count(Place::Text, key);
        } else {
            self.count(place, key);
        }
    }

    /// Bytes of prompt that are not a text: at most a token each.
    fn count_other(&mut self, bytes: u64) {
        self.ascii_bytes += bytes;
        self.tokens.text += bytes;
    }

    fn count_scalar(&mut self, place: Place) {
        match place.counted() {
            Counted::Nothing => {}
            Counted::Prompt => self.count_other(SCALAR_BYTES),
            Counted::Tool => self.tool_bytes += SCALAR_BYTES,
        }
    }

    /// Brackets, and what stands around `members` keys or `elements`, of JSON that a provider may
    /// write into the prompt. Messages and their parts go through a template instead.
    fn count_structure(&mut self, place: Place, members: u64, elements: u64) {
        let bytes = 2 + members * PUNCTUATION_BYTES + elements;
        match place {
            Place::Messages
            | Place::Message
            | Place::Input
            | Place::Item
            | Place::Prompts
            | Place::Prompt
            | Place::Content
            | Place::Part => {}
            _ => match place.counted() {
                Counted::Nothing => {}
                Counted::Prompt => self.count_other(bytes),
                Counted::Tool => self.tool_bytes += bytes,
            },
        }
    }

    fn part_type(&mut self, kind: &str) {
        match kind {
            "text" | "refusal" | "input_text" | "output_text" | "summary_text"
            | "reasoning_text" => {}
            "image_url" | "input_image" => self.image = true,
            "input_audio" | "audio" | "output_audio" => self.saw(Medium::Audio),
            "file" | "input_file" => self.saw(Medium::File),
            _ => self.saw(Medium::Other),
        }
    }

    fn saw(&mut self, medium: Medium) {
        self.media = true;
        match medium {
            Medium::Audio => self.audio = true,
            Medium::File => self.files = true,
            Medium::Other => self.other_media = true,
        }
    }

    /// Audio or images of a message, by the key that was read last.
    fn saw_of_message(&mut self) {
        self.saw(if self.sound {
            Medium::Audio
        } else {
            Medium::Other
        });
    }

    fn item_type<E: Error>(&mut self, kind: &str) -> Result<(), E> {
        match kind {
            "message"
            | "function_call"
            | "function_call_output"
            | "custom_tool_call"
            | "custom_tool_call_output"
            | "reasoning" => Ok(()),
            "item_reference" => {
                self.item.is_reference = true;
                Ok(())
            }
            _ => note_kind(&mut self.stored_items, kind),
        }
    }

    fn tool_type<E: Error>(&mut self, kind: &str) -> Result<(), E> {
        if matches!(kind, "function" | "custom") {
            return Ok(());
        }
        self.hosted = true;
        let noted = noted_kind(kind);
        self.offer(noted, true)?;
        note_kind(&mut self.hosted_tools, kind)
    }

    /// An input item's end. A reference to reasoning is left out: nothing was stored, so that it leads
    /// nowhere, and the reasoning is not needed to go on. Any other stands for text that is missing.
    fn item_ended<E: Error>(&mut self) -> Result<(), E> {
        let item = std::mem::take(&mut self.item);
        let at = self.items;
        self.items += 1;
        if !item.is_reference {
            return Ok(());
        }
        if item.is_of_reasoning && self.left_out.len() < MAX_LEFT_OUT {
            self.left_out.push(at);
            return Ok(());
        }
        note_kind(&mut self.stored_items, "item_reference")
    }

    /// A part's end. Where an image is given in two ways, a provider may take both.
    fn part_ended(&mut self) {
        let sources = std::mem::take(&mut self.image_sources);
        if std::mem::take(&mut self.image) {
            self.images += sources.max(1);
        }
    }

    /// One prompt more.
    fn prompt<E: Error>(&mut self) -> Result<(), E> {
        self.prompts += 1;
        if self.prompts > MAX_PROMPTS {
            return Err(E::custom(format_args!("more than {MAX_PROMPTS} of them")));
        }
        Ok(())
    }

    fn tool_name<E: Error>(&mut self, name: &str) -> Result<(), E> {
        if name.len() > MAX_TOOL_NAME_BYTES {
            return Err(E::custom(format_args!(
                "a tool's name is at most {MAX_TOOL_NAME_BYTES} bytes long"
            )));
        }
        match self.list {
            Some(_) => self.offer(name.to_owned(), false),
            None => self.choose(name.to_owned()),
        }
    }

    fn offer<E: Error>(&mut self, name: String, hosted: bool) -> Result<(), E> {
        self.check_room()?;
        let Some(list) = self.list else {
            return Ok(());
        };
        self.offers.push(Offer {
            list,
            at: self.element,
            name,
            hosted,
        });
        Ok(())
    }

    /// A name in a choice of tools.
    fn choose<E: Error>(&mut self, name: String) -> Result<(), E> {
        self.check_room()?;
        self.chosen.push(name);
        Ok(())
    }

    fn check_room<E: Error>(&self) -> Result<(), E> {
        if self.offers.len() + self.chosen.len() >= MAX_TOOLS {
            return Err(E::custom(format_args!("more than {MAX_TOOLS} tools")));
        }
        Ok(())
    }

    /// A type in a choice of tools: a tool where it is none of the ways to choose.
    fn choice_type<E: Error>(&mut self, kind: &str) -> Result<(), E> {
        if CHOICES.contains(&kind) {
            return Ok(());
        }
        self.choose(format!("type {}", noted_kind(kind)))
    }

    /// Another text in a choice of tools, which some may read as a tool's name.
    fn choice_text<E: Error>(&mut self, text: &str) -> Result<(), E> {
        if CHOICES.contains(&text) {
            return Ok(());
        }
        self.choose(shortened(text).into_owned())
    }
}

/// Bytes of a text when it is written as JSON again.
fn escaped_bytes(text: &str) -> u64 {
    let escapes = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\t' | b'\n' | b'\r' | 0x08 | 0x0c => 1,
        0..0x20 => 5,
        _ => 0,
    });
    text.len() as u64 + escapes.sum::<u64>()
}

/// A type as it is noted: cut where it is long.
fn noted_kind(kind: &str) -> String {
    shortened(kind).chars().take(32).collect()
}

fn note_kind<E: Error>(kinds: &mut Vec<String>, kind: &str) -> Result<(), E> {
    let kind = noted_kind(kind);
    if kinds.contains(&kind) {
        return Ok(());
    }
    if kinds.len() == super::MAX_NAMED_PARAMS {
        return Err(E::custom("too many different types"));
    }
    kinds.push(kind);
    Ok(())
}
