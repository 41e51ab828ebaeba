//! What a scope may ask for, as options: for agents, and for whatever else carries the same settings.

use aex_admin_proto::capabilities::{Capabilities, OnForbiddenTool};
use aex_admin_proto::worker::Route;
use clap::{Args, ValueEnum};

use super::values::{self, Names, Temperatures};

/// Absent: no rule of its own.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What it may ask for")]
pub(crate) struct CapabilityArgs {
    /// Only models of these providers; * is any run of characters
    #[arg(long, value_name = "A,B", value_parser = values::names)]
    allowed_providers: Option<Names>,
    /// Only these routes
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    allowed_routes: Vec<RouteName>,
    /// May send and ask for audio
    #[arg(long, conflicts_with = "no_audio")]
    audio: bool,
    /// May not send or ask for audio
    #[arg(long)]
    no_audio: bool,
    /// May send files
    #[arg(long, conflicts_with = "no_files")]
    files: bool,
    /// May not send files
    #[arg(long)]
    no_files: bool,
    /// May prescribe the form of an answer (JSON, a schema)
    #[arg(long, conflicts_with = "no_structured_output")]
    structured_output: bool,
    /// May not prescribe the form of an answer
    #[arg(long)]
    no_structured_output: bool,
    /// May use tools that the provider carries out (web search, MCP)
    #[arg(long, conflicts_with = "no_hosted_tools")]
    hosted_tools: bool,
    /// May not use tools that the provider carries out
    #[arg(long)]
    no_hosted_tools: bool,
    /// None of these tools, in any case; * is any run of characters
    #[arg(long, value_name = "A,B", value_parser = values::names)]
    denied_tools: Option<Names>,
    /// May let the model call several tools at once
    #[arg(long, conflicts_with = "no_parallel_tool_calls")]
    parallel_tool_calls: bool,
    /// One tool call a message
    #[arg(long)]
    no_parallel_tool_calls: bool,
    /// Answers of one request (n, best_of)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=128))]
    max_choices: Option<u64>,
    /// The temperatures that may be asked for: 0..1.5, 0.2.. or ..1
    #[arg(long, value_name = "MIN..MAX", value_parser = values::temperatures)]
    temperature: Option<Temperatures>,
    /// What happens to a tool that may not be offered or called [default: refuse]
    #[arg(long, value_name = "WHAT")]
    on_forbidden_tool: Option<Forbidden>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum RouteName {
    ChatCompletions,
    Completions,
    Embeddings,
    Responses,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Forbidden {
    /// The request, or the answer, is refused
    Refuse,
    /// It is cut out, and the rest goes on
    Strip,
}

impl CapabilityArgs {
    pub(crate) fn capabilities(self) -> Capabilities {
        let temperature = self.temperature.unwrap_or_default();
        let routes = self.allowed_routes.into_iter().map(RouteName::route);
        let routes: Vec<Route> = routes.collect();
        Capabilities {
            allowed_providers: self.allowed_providers.map(|names| names.0),
            allowed_routes: (!routes.is_empty()).then_some(routes),
            audio: either(self.audio, self.no_audio),
            files: either(self.files, self.no_files),
            structured_output: either(self.structured_output, self.no_structured_output),
            hosted_tools: either(self.hosted_tools, self.no_hosted_tools),
            denied_tools: self.denied_tools.map(|names| names.0),
            parallel_tool_calls: either(self.parallel_tool_calls, self.no_parallel_tool_calls),
            max_choices: self.max_choices,
            min_temperature_milli: temperature.min_milli,
            max_temperature_milli: temperature.max_milli,
            on_forbidden_tool: self.on_forbidden_tool.map(|what| match what {
                Forbidden::Refuse => OnForbiddenTool::Refuse,
                Forbidden::Strip => OnForbiddenTool::Strip,
            }),
        }
    }
}

impl RouteName {
    fn route(self) -> Route {
        match self {
            Self::ChatCompletions => Route::ChatCompletions,
            Self::Completions => Route::Completions,
            Self::Embeddings => Route::Embeddings,
            Self::Responses => Route::Responses,
        }
    }
}

/// Whether the setting of that name is among them.
pub(crate) fn is_set(capabilities: &Capabilities, name: &str) -> bool {
    let mut without = capabilities.clone();
    without.clear(name) && without != *capabilities
}

pub(crate) fn either(yes: bool, no: bool) -> Option<bool> {
    (yes || no).then_some(yes)
}
