//! The walk through a nested value: refuses duplicate keys and depth, measures prompt and tools (by
//! bytes, and by tokens where it has a tokenizer), and finds the parts that cost by item.
//!
//! A [`Place`] says where in the request a value stands; everything that depends on position is in
//! the two tables [`Place::element`] and [`Node::member`].

use std::fmt;

use aex_admin_proto::worker::Measured;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::tokenizer::Tokenizer;

use super::Invalid;
use super::strict::{Key, Keys, duplicate, shortened};

/// Deepest nesting of a request, its own object included.
const MAX_DEPTH: usize = 64;
/// Most tool and function names, and the longest.
const MAX_TOOLS: usize = 1024;
const MAX_TOOL_NAME_BYTES: usize = 128;
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

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Checked, not measured.
    Uncounted,
    /// Prompt text, whatever its form.
    Text,
    Messages,
    Message,
    /// The input of a response: a string, or a list of items.
    Input,
    Item,
    ItemType,
    ItemId,
    /// A message's content: a string, null, or a list of parts.
    Content,
    Part,
    PartType,
    /// An image, or where it is: counted by item, and in this form it is one.
    Image,
    /// Its URL, data or id, or how finely it is looked at.
    ImageField,
    /// Prompts or inputs: a string, a list of strings, or tokens as numbers.
    Prompts,
    /// One of a list of them.
    Prompt,
    TokenIds,
    /// Something that costs by item unless it is null.
    Media,
    Tools,
    Tool,
    ToolType,
    Functions,
    /// A function: its name, and a schema.
    Function,
    /// A choice of tools; names in it are uses of those tools.
    ToolChoice,
    ToolName,
    /// Rendered again by the provider.
    Schema,
}

enum Counted {
    Nothing,
    Prompt,
    Tool,
}

impl Place {
    fn counted(self) -> Counted {
        match self {
            Self::Uncounted | Self::Image | Self::ImageField | Self::TokenIds => Counted::Nothing,
            Self::Text
            | Self::Messages
            | Self::Message
            | Self::Input
            | Self::Item
            | Self::ItemType
            | Self::ItemId
            | Self::Prompts
            | Self::Prompt
            | Self::Content
            | Self::Part
            | Self::PartType
            | Self::Media => Counted::Prompt,
            Self::Tools
            | Self::Tool
            | Self::ToolType
            | Self::Functions
            | Self::Function
            | Self::ToolChoice
            | Self::ToolName
            | Self::Schema => Counted::Tool,
        }
    }

    /// The place of a list's elements; nothing where no list may stand.
    fn element(self) -> Option<Self> {
        match self {
            Self::Messages => Some(Self::Message),
            Self::Input => Some(Self::Item),
            Self::Content => Some(Self::Part),
            Self::Prompts => Some(Self::Prompt),
            Self::Prompt => Some(Self::TokenIds),
            Self::Tools => Some(Self::Tool),
            Self::Functions => Some(Self::Function),
            Self::Uncounted | Self::Text | Self::Schema | Self::ToolChoice => Some(self),
            Self::Media => Some(Self::Text),
            Self::Message
            | Self::Item
            | Self::ItemType
            | Self::ItemId
            | Self::Image
            | Self::ImageField
            | Self::TokenIds
            | Self::Part
            | Self::PartType
            | Self::Tool
            | Self::ToolType
            | Self::Function
            | Self::ToolName => None,
        }
    }

    /// What must stand here, for error texts; nothing where anything may.
    fn expected(self) -> &'static str {
        match self {
            Self::Messages | Self::Tools | Self::Functions => "a list",
            Self::Message | Self::Item | Self::Part | Self::Tool | Self::Function => "an object",
            Self::Content => "a string or a list of parts",
            Self::Input => "a string or a list of items",
            Self::Prompts => "a string, a list of strings, or tokens as whole numbers",
            Self::Prompt => "a string, or tokens as whole numbers",
            Self::TokenIds => "a token as a whole number",
            Self::ItemType | Self::PartType | Self::ToolType | Self::ToolName => "a string",
            Self::Image => "a string or an object with a url",
            Self::ItemId | Self::ImageField => "a string or null",
            Self::Uncounted | Self::Text | Self::Media | Self::ToolChoice | Self::Schema => "JSON",
        }
    }

    fn takes_map(self) -> bool {
        !matches!(
            self,
            Self::Messages
                | Self::Input
                | Self::Prompts
                | Self::Prompt
                | Self::TokenIds
                | Self::Tools
                | Self::Functions
                | Self::Content
                | Self::ItemType
                | Self::ItemId
                | Self::ImageField
                | Self::PartType
                | Self::ToolType
                | Self::ToolName
        )
    }

    fn takes_string(self) -> bool {
        matches!(
            self,
            Self::Content
                | Self::Input
                | Self::Prompts
                | Self::Prompt
                | Self::ItemType
                | Self::ItemId
                | Self::Image
                | Self::ImageField
                | Self::PartType
                | Self::ToolType
                | Self::ToolName
        ) || self.takes_other()
    }

    /// Numbers and booleans.
    fn takes_other(self) -> bool {
        matches!(
            self,
            Self::Uncounted | Self::Text | Self::Media | Self::ToolChoice | Self::Schema
        )
    }

    /// Tokens may stand here as numbers.
    fn takes_token_ids(self) -> bool {
        matches!(self, Self::Prompt | Self::TokenIds)
    }
}

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
    pub(super) tools: Vec<String>,
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
            _ => self.media = true,
        }
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
        if self.tools.len() == MAX_TOOLS {
            return Err(E::custom(format_args!("more than {MAX_TOOLS} tools")));
        }
        self.tools.push(name.to_owned());
        Ok(())
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

fn note_kind<E: Error>(kinds: &mut Vec<String>, kind: &str) -> Result<(), E> {
    let kind: String = shortened(kind).chars().take(32).collect();
    if kinds.contains(&kind) {
        return Ok(());
    }
    if kinds.len() == super::MAX_NAMED_PARAMS {
        return Err(E::custom("too many different types"));
    }
    kinds.push(kind);
    Ok(())
}

/// One value on the walk.
struct Node<'w> {
    walk: &'w mut Walk,
    place: Place,
    depth: usize,
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
            self.walk.media = true;
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

    /// The place of the value under `key`, here.
    fn member(&mut self, key: &str) -> Place {
        match (self.place, key) {
            (Place::Message, "content") => Place::Content,
            (Place::Item, "content" | "output") => Place::Content,
            (Place::Item, "type") => Place::ItemType,
            (Place::Item, "id") => Place::ItemId,
            (Place::Message | Place::Item, "audio" | "images") => Place::Media,
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
            (
                Place::Part,
                "input_audio" | "audio" | "file" | "file_data" | "file_url" | "video_url",
            ) => {
                self.walk.media = true;
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
            (Place::ToolChoice, _) => Place::ToolChoice,
            (Place::Uncounted, _) => Place::Uncounted,
            _ => Place::Schema,
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
            Place::Media => self.walk.media = true,
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
            self.walk.media = true;
        }
        let prompts = self.walk.prompts;
        if self.place == Place::Prompt {
            self.walk.prompt()?;
        }
        let mut index = 0_u64;
        loop {
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
            self.walk.media = true;
        }
        let mut keys = Keys::default();
        let mut members = 0;
        let (mut typed, mut named, mut callable) = (false, false, false);
        let (mut spoken, mut filed) = (false, false);
        while let Some(key) = map.next_key_seed(Key)? {
            if !keys.insert(key.clone()) {
                return Err(A::Error::custom(duplicate(&key)));
            }
            self.walk.count_key(self.place, &key);
            members += 1;
            typed |= key == "type";
            named |= key == "name";
            callable |= key == "function" || key == "custom";
            spoken |= key == "role";
            filed |= key == "file_id";
            let place = self.member(&key);
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
        match self.place {
            // What it is, only the provider knows.
            Place::Part if !typed => self.walk.media = true,
            // An image may be given by its file; any other part with one is more than it says.
            Place::Part if filed && !self.walk.image => self.walk.media = true,
            // An id alone stands for an item that the provider keeps.
            Place::Item if !(typed || spoken) => self.walk.item.is_reference = true,
            Place::Function if !named => return Err(A::Error::custom("must have a name")),
            Place::Tool if !(callable || named || self.walk.hosted) => {
                return Err(A::Error::custom("must have a name"));
            }
            // Some take it for a hosted one of that name.
            Place::Tool if !typed => return Err(A::Error::custom("must have a type")),
            _ => {}
        }
        match self.place {
            Place::Tool => self.walk.hosted = false,
            Place::Item => self.walk.item_ended()?,
            Place::Part => self.walk.part_ended(),
            _ => {}
        }
        Ok(())
    }
}
