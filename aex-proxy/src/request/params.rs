//! The top-level parameters of each route, by what AEX does with them. One more parameter is one line.

use aex_admin_proto::worker::Route;

use super::place::Place;
use crate::tools::folded;

/// What a top-level parameter is to AEX.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Model,
    /// What the route is about, and must be there: messages, prompts, inputs.
    Prompt(Place),
    /// Prompt text beside it, a message of its own.
    Text,
    Stream,
    StreamOptions,
    /// The prompt is to come back as part of the answer.
    Echo,
    /// How many answers: `n`, `best_of`.
    Choices,
    OutputCap,
    /// Tools and schemas, which the provider renders again.
    Tools(Place),
    Store,
    ServiceTier,
    /// Further output of the Responses API.
    Include,
    Modalities,
    /// Known, and costs nothing by itself.
    Plain,
    /// Costs, raises the output, or acts outside this request: `aex-admin` decides.
    Costly,
    /// Not known on this route: `aex-admin` decides.
    Unknown,
}

type Table = &'static [(&'static str, Kind)];

const CHAT: Table = &[
    ("model", Kind::Model),
    ("messages", Kind::Prompt(Place::Messages)),
    ("stream", Kind::Stream),
    ("stream_options", Kind::StreamOptions),
    ("max_tokens", Kind::OutputCap),
    ("max_completion_tokens", Kind::OutputCap),
    ("n", Kind::Choices),
    ("tools", Kind::Tools(Place::Tools)),
    ("functions", Kind::Tools(Place::Functions)),
    ("tool_choice", Kind::Tools(Place::ToolChoice)),
    ("function_call", Kind::Tools(Place::ToolChoice)),
    ("response_format", Kind::Tools(Place::Schema)),
    ("store", Kind::Store),
    ("service_tier", Kind::ServiceTier),
    ("modalities", Kind::Modalities),
    ("temperature", Kind::Plain),
    ("top_p", Kind::Plain),
    ("stop", Kind::Plain),
    ("presence_penalty", Kind::Plain),
    ("frequency_penalty", Kind::Plain),
    ("logit_bias", Kind::Plain),
    ("logprobs", Kind::Plain),
    ("top_logprobs", Kind::Plain),
    ("user", Kind::Plain),
    ("seed", Kind::Plain),
    ("parallel_tool_calls", Kind::Plain),
    ("reasoning_effort", Kind::Plain),
    ("verbosity", Kind::Plain),
    ("metadata", Kind::Plain),
    ("safety_identifier", Kind::Plain),
    ("prompt_cache_key", Kind::Plain),
    ("prediction", Kind::Costly),
    ("audio", Kind::Costly),
];

const COMPLETIONS: Table = &[
    ("model", Kind::Model),
    ("prompt", Kind::Prompt(Place::Prompts)),
    ("suffix", Kind::Text),
    ("stream", Kind::Stream),
    ("stream_options", Kind::StreamOptions),
    ("max_tokens", Kind::OutputCap),
    ("n", Kind::Choices),
    ("best_of", Kind::Choices),
    ("echo", Kind::Echo),
    ("temperature", Kind::Plain),
    ("top_p", Kind::Plain),
    ("stop", Kind::Plain),
    ("presence_penalty", Kind::Plain),
    ("frequency_penalty", Kind::Plain),
    ("logit_bias", Kind::Plain),
    ("logprobs", Kind::Plain),
    ("seed", Kind::Plain),
    ("user", Kind::Plain),
    ("store", Kind::Costly),
    ("service_tier", Kind::Costly),
];

const EMBEDDINGS: Table = &[
    ("model", Kind::Model),
    ("input", Kind::Prompt(Place::Prompts)),
    ("encoding_format", Kind::Plain),
    ("dimensions", Kind::Plain),
    ("user", Kind::Plain),
    ("store", Kind::Costly),
    ("service_tier", Kind::Costly),
];

const RESPONSES: Table = &[
    ("model", Kind::Model),
    ("input", Kind::Prompt(Place::Input)),
    ("instructions", Kind::Text),
    ("stream", Kind::Stream),
    ("stream_options", Kind::StreamOptions),
    ("max_output_tokens", Kind::OutputCap),
    ("tools", Kind::Tools(Place::Tools)),
    ("tool_choice", Kind::Tools(Place::ToolChoice)),
    ("text", Kind::Tools(Place::Schema)),
    ("store", Kind::Store),
    ("service_tier", Kind::ServiceTier),
    ("include", Kind::Include),
    ("temperature", Kind::Plain),
    ("top_p", Kind::Plain),
    ("top_logprobs", Kind::Plain),
    ("user", Kind::Plain),
    ("parallel_tool_calls", Kind::Plain),
    ("max_tool_calls", Kind::Plain),
    ("reasoning", Kind::Plain),
    ("truncation", Kind::Plain),
    ("metadata", Kind::Plain),
    ("safety_identifier", Kind::Plain),
    ("prompt_cache_key", Kind::Plain),
    ("prompt", Kind::Costly),
];

/// What costs, or acts outside the request, on whichever route. A route's own table comes first.
const ANYWHERE: Table = &[
    ("web_search_options", Kind::Costly),
    ("plugins", Kind::Costly),
    ("models", Kind::Costly),
    ("route", Kind::Costly),
    ("transforms", Kind::Costly),
    ("extra_body", Kind::Costly),
    ("options", Kind::Costly),
    ("n_predict", Kind::Costly),
    ("num_predict", Kind::Costly),
    ("min_tokens", Kind::Costly),
    ("ignore_eos", Kind::Costly),
    ("n", Kind::Costly),
    ("best_of", Kind::Costly),
    ("max_tokens", Kind::Costly),
    ("max_completion_tokens", Kind::Costly),
    ("max_output_tokens", Kind::Costly),
    ("previous_response_id", Kind::Costly),
    ("conversation", Kind::Costly),
    ("background", Kind::Costly),
    ("prompt", Kind::Costly),
    ("prompt_cache_retention", Kind::Costly),
];

/// The parameter of that name on that route; its name is the caller's where none is known.
pub(super) fn of(route: Route, name: &str) -> (Option<&'static str>, Kind) {
    table(route)
        .find(|(known, _)| *known == name)
        .map_or((None, Kind::Unknown), |(known, kind)| (Some(known), *kind))
}

fn table(route: Route) -> impl Iterator<Item = &'static (&'static str, Kind)> {
    let own = match route {
        Route::ChatCompletions => CHAT,
        Route::Completions => COMPLETIONS,
        Route::Embeddings => EMBEDDINGS,
        Route::Responses => RESPONSES,
    };
    own.iter().chain(ANYWHERE)
}

/// The known parameter that a server which does not mind the case takes this one for.
pub(super) fn in_another_case(route: Route, name: &str) -> Option<&'static str> {
    let folded = folded(name);
    let mut known = table(route).map(|(known, _)| *known);
    known.find(|known| *known == folded && *known != name)
}

/// The name of the parameter that a route is about.
pub(super) fn prompt_name(route: Route) -> &'static str {
    match route {
        Route::ChatCompletions => "messages",
        Route::Completions => "prompt",
        Route::Embeddings | Route::Responses => "input",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documentation_names_every_parameter() {
        let text = include_str!("../../../docs/API.md");
        for route in [CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, ANYWHERE] {
            for (name, _) in route {
                assert!(text.contains(&format!("`{name}`")), "{name}");
            }
        }
    }

    #[test]
    fn no_name_is_twice_in_a_table() {
        for route in [CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, ANYWHERE] {
            let mut names: Vec<_> = route.iter().map(|(name, _)| name).collect();
            names.sort();
            names.dedup();
            assert_eq!(names.len(), route.len());
        }
    }
}
