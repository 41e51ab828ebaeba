//! The top-level parameters of chat completions, by what AEX does with them.

/// What a top-level parameter is to AEX.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Param {
    Model,
    Messages,
    Stream,
    StreamOptions,
    /// `n`.
    Choices,
    /// `max_tokens` or `max_completion_tokens`.
    OutputCap(&'static str),
    Tools,
    Functions,
    /// `tool_choice` or `function_call`.
    ToolChoice(&'static str),
    ResponseFormat,
    Store,
    ServiceTier,
    Modalities,
    /// Known, and costs nothing by itself.
    Plain(&'static str),
    /// Costs, raises the output, or acts outside this request: `aex-admin` decides.
    Costly(&'static str),
    /// Not known here: `aex-admin` decides.
    Other(String),
}

impl Param {
    /// The name as the client wrote it, decoded.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Model => "model",
            Self::Messages => "messages",
            Self::Stream => "stream",
            Self::StreamOptions => "stream_options",
            Self::Choices => "n",
            Self::Tools => "tools",
            Self::Functions => "functions",
            Self::ResponseFormat => "response_format",
            Self::Store => "store",
            Self::ServiceTier => "service_tier",
            Self::Modalities => "modalities",
            Self::OutputCap(name)
            | Self::ToolChoice(name)
            | Self::Plain(name)
            | Self::Costly(name) => name,
            Self::Other(name) => name,
        }
    }
}

const PLAIN: [&str; 16] = [
    "temperature",
    "top_p",
    "stop",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "top_logprobs",
    "user",
    "seed",
    "parallel_tool_calls",
    "reasoning_effort",
    "verbosity",
    "metadata",
    "safety_identifier",
    "prompt_cache_key",
];

const COSTLY: [&str; 20] = [
    "web_search_options",
    "prediction",
    "audio",
    "best_of",
    "plugins",
    "models",
    "route",
    "transforms",
    "extra_body",
    "options",
    "n_predict",
    "num_predict",
    "min_tokens",
    "ignore_eos",
    "previous_response_id",
    "conversation",
    "prompt",
    "background",
    "prompt_cache_retention",
    "max_output_tokens",
];

pub(super) fn of(name: &str) -> Param {
    match name {
        "model" => Param::Model,
        "messages" => Param::Messages,
        "stream" => Param::Stream,
        "stream_options" => Param::StreamOptions,
        "n" => Param::Choices,
        "max_tokens" => Param::OutputCap("max_tokens"),
        "max_completion_tokens" => Param::OutputCap("max_completion_tokens"),
        "tools" => Param::Tools,
        "functions" => Param::Functions,
        "tool_choice" => Param::ToolChoice("tool_choice"),
        "function_call" => Param::ToolChoice("function_call"),
        "response_format" => Param::ResponseFormat,
        "store" => Param::Store,
        "service_tier" => Param::ServiceTier,
        "modalities" => Param::Modalities,
        _ => {
            let known = |list: &'static [&'static str]| list.iter().find(|known| **known == name);
            if let Some(name) = known(&PLAIN) {
                Param::Plain(name)
            } else if let Some(name) = known(&COSTLY) {
                Param::Costly(name)
            } else {
                Param::Other(name.to_owned())
            }
        }
    }
}
