//! Where in a request a value stands, and what may stand there. Everything that depends on position is
//! in the tables here and in the node's `member`.

/// Where a value stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Checked, not measured.
    Uncounted,
    /// Prompt text, whatever its form.
    Text,
    /// What a message says was called: text too, in which functions and tools have their names.
    Call,
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
    /// The kind of a choice, or of the tool that is chosen.
    ChoiceType,
    ToolName,
    /// Rendered again by the provider.
    Schema,
}

pub(super) enum Counted {
    Nothing,
    Prompt,
    Tool,
}

impl Place {
    pub(super) fn counted(self) -> Counted {
        match self {
            Self::Uncounted | Self::Image | Self::ImageField | Self::TokenIds => Counted::Nothing,
            Self::Text
            | Self::Call
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
            | Self::ChoiceType
            | Self::ToolName
            | Self::Schema => Counted::Tool,
        }
    }

    /// The place of a list's elements; nothing where no list may stand.
    pub(super) fn element(self) -> Option<Self> {
        match self {
            Self::Messages => Some(Self::Message),
            Self::Input => Some(Self::Item),
            Self::Content => Some(Self::Part),
            Self::Prompts => Some(Self::Prompt),
            Self::Prompt => Some(Self::TokenIds),
            Self::Tools => Some(Self::Tool),
            Self::Functions => Some(Self::Function),
            Self::Uncounted | Self::Text | Self::Call | Self::Schema | Self::ToolChoice => {
                Some(self)
            }
            Self::ChoiceType => Some(Self::ToolChoice),
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
    pub(super) fn expected(self) -> &'static str {
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
            Self::Uncounted
            | Self::Text
            | Self::Call
            | Self::Media
            | Self::ToolChoice
            | Self::ChoiceType
            | Self::Schema => "JSON",
        }
    }

    pub(super) fn takes_map(self) -> bool {
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

    pub(super) fn takes_string(self) -> bool {
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
    pub(super) fn takes_other(self) -> bool {
        matches!(
            self,
            Self::Uncounted
                | Self::Text
                | Self::Call
                | Self::Media
                | Self::ToolChoice
                | Self::ChoiceType
                | Self::Schema
        )
    }

    /// Tokens may stand here as numbers.
    pub(super) fn takes_token_ids(self) -> bool {
        matches!(self, Self::Prompt | Self::TokenIds)
    }
}
