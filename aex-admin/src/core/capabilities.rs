//! What one scope lets a request ask for: routes, providers, streaming, tools, media, form, choices,
//! temperature. Asked of each scope on a request's path, one by one.
//!
//! Absent on purpose: which scopes there are, and money.

use std::borrow::Cow;
use std::collections::HashSet;

use aex_admin_proto::Refusal;
use aex_admin_proto::capabilities::{Capabilities, OnForbiddenTool, route_name, temperature_range};
use aex_admin_proto::operator::Settings;
use aex_admin_proto::tools::{
    HOSTED_TOOL, TOOL_PARAMS, Tool, ToolRules, may_be, may_offer_tools, may_set_form,
    may_set_temperature, tool_text,
};
use aex_admin_proto::worker::{Facts, Route};

/// How a worker names the type of a tool that is chosen.
const CHOSEN_TYPE: &str = "type ";

fn denied(capability: impl Into<String>) -> Refusal {
    Refusal::CapabilityNotAllowed {
        capability: capability.into(),
    }
}

/// Whether the scope with these settings lets the request go to this provider.
///
/// # Errors
/// The first capability that it may not use.
pub fn check(
    settings: &Settings,
    route: Route,
    provider: &str,
    facts: &Facts,
) -> Result<(), Refusal> {
    let capabilities = &settings.capabilities;
    let routes = capabilities.allowed_routes.as_ref();
    if routes.is_some_and(|routes| !routes.contains(&route)) {
        return Err(denied(format!("route {}", route_name(route))));
    }
    if !settings.has_provider(provider) {
        return Err(denied(format!("provider {provider}")));
    }
    let streams = facts.stream || may_set(facts, "stream");
    if streams && settings.streaming == Some(false) {
        return Err(denied("streaming"));
    }
    check_tools(settings, facts)?;
    check_media(settings, facts)?;
    check_form(settings, facts)?;
    if let Some(most) = capabilities.max_choices
        && facts.choices > most
    {
        return Err(denied(format!("choices above {most}")));
    }
    check_temperature(settings, facts)
}

/// Whether the settings have anything to say of what a request may ask for.
#[must_use]
pub fn has_any(settings: &Settings) -> bool {
    settings.streaming.is_some()
        || settings.vision.is_some()
        || ToolRules::of(settings).is_some()
        || *settings.capabilities != Capabilities::default()
}

/// Whether a parameter that AEX does not know may set one that it does, in another spelling: some
/// servers do not mind the case.
fn may_set(facts: &Facts, known: &str) -> bool {
    unknown(facts).any(|param| may_be(param, known))
}

/// Names that AEX does not know, at the top and inside.
fn unknown(facts: &Facts) -> impl Iterator<Item = &String> {
    facts.unknown_params.iter().chain(&facts.nested_params)
}

/// Hosted tools that a request offers, whatever the parameter.
pub(crate) fn hosted(facts: &Facts) -> impl Iterator<Item = &str> {
    facts
        .costly_params
        .iter()
        .filter_map(|param| hosted_of(param))
}

fn hosted_of(param: &str) -> Option<&str> {
    let by_type = param.strip_prefix(HOSTED_TOOL);
    by_type.or_else(|| TOOL_PARAMS.contains(&param).then_some(param))
}

fn check_tools(settings: &Settings, facts: &Facts) -> Result<(), Refusal> {
    match ToolRules::of(settings) {
        Some(rules) => check_rules(&rules, facts),
        None => Ok(()),
    }
}

/// Whether a request keeps rules of tools.
///
/// # Errors
/// The first tool, choice or hidden door that does not.
pub fn check_rules(rules: &ToolRules, facts: &Facts) -> Result<(), Refusal> {
    if rules.on_forbidden == OnForbiddenTool::Refuse {
        let named = facts.tools.iter().map(|name| Tool::Named(name));
        let offered = named.chain(hosted(facts).map(Tool::Hosted));
        if let Some(capability) = offered.into_iter().find_map(|tool| rules.forbids(tool)) {
            return Err(denied(capability));
        }
    }
    for chosen in &facts.chosen_tools {
        check_chosen(rules, chosen, facts)?;
    }
    // Where tools have rules, none may come in by a door that is not looked at.
    let hidden = unknown(facts).find(|name| may_offer_tools(name));
    if let Some(param) = hidden {
        return Err(denied(tool_text(param)));
    }
    if rules.one_call && facts.parallel_tool_calls == Some(true) {
        return Err(denied("parallel tool calls"));
    }
    Ok(())
}

/// A tool that is chosen must be offered and allowed: what is cut out cannot be insisted on.
fn check_chosen(rules: &ToolRules, chosen: &str, facts: &Facts) -> Result<(), Refusal> {
    let (tool, offered) = match chosen.strip_prefix(CHOSEN_TYPE) {
        Some(kind) => (Tool::Hosted(kind), hosted(facts).any(|other| other == kind)),
        None => (
            Tool::Named(chosen),
            facts.tools.iter().any(|name| name == chosen),
        ),
    };
    if let Some(capability) = rules.forbids(tool) {
        return Err(denied(capability));
    }
    if offered {
        return Ok(());
    }
    Err(denied(tool_text(chosen)))
}

/// Without a word of its own, audio and files are what vision is. What a part is that nobody knows, any
/// of the three may be.
fn check_media(settings: &Settings, facts: &Facts) -> Result<(), Refusal> {
    let (audio, files) = (settings.capabilities.audio, settings.capabilities.files);
    // A worker that does not tell them apart has seen something that is none of them.
    let other = facts.other_media || (facts.media && !facts.audio && !facts.files);
    let refused = |allowed: Option<bool>, asked: bool| allowed == Some(false) && (asked || other);
    if refused(settings.vision, facts.images > 0) {
        return Err(denied("vision"));
    }
    if refused(audio.or(settings.vision), facts.audio) {
        return Err(denied("audio"));
    }
    if refused(files.or(settings.vision), facts.files) {
        return Err(denied("files"));
    }
    Ok(())
}

fn check_form(settings: &Settings, facts: &Facts) -> Result<(), Refusal> {
    let asked = facts.structured_output || unknown(facts).any(|name| may_set_form(name));
    if asked && settings.capabilities.structured_output == Some(false) {
        return Err(denied("structured output"));
    }
    Ok(())
}

/// None is the provider's default, which is always allowed.
fn check_temperature(settings: &Settings, facts: &Facts) -> Result<(), Refusal> {
    let capabilities = &settings.capabilities;
    let Some(range) = temperature_range(capabilities) else {
        return Ok(());
    };
    if unknown(facts).any(|name| may_set_temperature(name)) {
        return Err(denied(format!("temperature outside {range}")));
    }
    let Some(asked) = facts.temperature else {
        return Ok(());
    };
    let bound = |bound: Option<u64>| bound.and_then(|bound| i64::try_from(bound).ok());
    let below =
        bound(capabilities.min_temperature_milli).is_some_and(|least| asked.at_least_milli < least);
    let above =
        bound(capabilities.max_temperature_milli).is_some_and(|most| asked.at_most_milli > most);
    if below || above {
        return Err(denied(format!("temperature outside {range}")));
    }
    Ok(())
}

/// The facts without the tools that are cut out of the request, by whichever scope.
#[must_use]
pub fn without_stripped<'a>(rules: &[ToolRules], facts: &'a Facts) -> Cow<'a, Facts> {
    let strips = |tool: Tool<'_>| {
        let mut rules = rules.iter();
        rules.any(|rules| {
            rules.on_forbidden == OnForbiddenTool::Strip && rules.forbids(tool).is_some()
        })
    };
    let named = |name: &String| strips(Tool::Named(name));
    let typed = |param: &String| hosted_of(param).is_some_and(|kind| strips(Tool::Hosted(kind)));
    if !facts.tools.iter().any(named) && !facts.costly_params.iter().any(typed) {
        return Cow::Borrowed(facts);
    }
    let mut left = facts.clone();
    left.tools.retain(|name| !named(name));
    left.costly_params.retain(|param| !typed(param));
    Cow::Owned(left)
}

/// The names of the tools that [`without_stripped`] leaves out, each once, named ones first.
#[must_use]
pub fn stripped(rules: &[ToolRules], facts: &Facts) -> Vec<String> {
    let Cow::Owned(left) = without_stripped(rules, facts) else {
        return Vec::new();
    };
    // A function may be called what a hosted tool is: each is compared with its own kind.
    let named: HashSet<&str> = left.tools.iter().map(String::as_str).collect();
    let typed: HashSet<&str> = hosted(&left).collect();
    let names = facts.tools.iter().map(String::as_str);
    let names = names.filter(|name| !named.contains(name));
    let kinds = hosted(facts).filter(|kind| !typed.contains(kind));
    let mut told = HashSet::new();
    let out = names.chain(kinds).filter(|name| told.insert(*name));
    out.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
