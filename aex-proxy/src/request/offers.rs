//! The tools that a request offers, and what of them is cut out before it is forwarded.

use std::collections::HashSet;

use aex_admin_proto::capabilities::OnForbiddenTool;
use aex_admin_proto::tools::{TOOL_PARAMS, Tool, ToolRules};
use aex_admin_proto::worker::Route;

use super::ApiRequest;
use super::forward::without;
use super::params::Kind;
use super::place::Place;
use crate::tools::Offered;

/// Most places that are told to the client.
const MAX_PLACES: usize = 256;

/// The two lists in which tools are offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    Tools,
    Functions,
}

/// One name of one element of a list. An element may have several; all of them count.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) list: List,
    pub(super) at: usize,
    pub(super) name: String,
    pub(super) hosted: bool,
}

impl Offer {
    pub(super) fn tool(&self) -> Tool<'_> {
        if self.hosted {
            Tool::Hosted(&self.name)
        } else {
            Tool::Named(&self.name)
        }
    }
}

/// What is changed in a request whose token has rules of tools.
#[derive(Debug, Default)]
pub(super) struct Cut {
    tools: Vec<usize>,
    functions: Vec<usize>,
    params: Vec<&'static str>,
    /// No element of the list is left.
    no_tools: bool,
    no_functions: bool,
    /// AEX says itself that calls come one by one.
    one_call: bool,
}

/// What becomes of one field.
pub(super) enum Fate {
    Stays,
    Goes,
    Becomes(Vec<u8>),
}

impl Cut {
    pub(super) fn fate(&self, name: &str, kind: Kind, raw: &[u8]) -> Fate {
        let list = |cut: &[usize], none_left: bool| match (none_left, cut.is_empty()) {
            (true, _) => Fate::Goes,
            (false, true) => Fate::Stays,
            (false, false) => Fate::Becomes(without(raw, cut)),
        };
        match (kind, name) {
            (Kind::Tools(Place::Tools), _) => list(&self.tools, self.no_tools),
            (Kind::Tools(Place::Functions), _) => list(&self.functions, self.no_functions),
            (_, "tool_choice") if self.no_tools => Fate::Goes,
            (_, "function_call") if self.no_functions => Fate::Goes,
            (_, "parallel_tool_calls") if self.no_tools || self.one_call => Fate::Goes,
            (Kind::Costly, name) if self.params.contains(&name) => Fate::Goes,
            _ => Fate::Stays,
        }
    }

    /// `parallel_tool_calls` is to be set to false.
    pub(super) fn sets_one_call(&self) -> bool {
        self.one_call && !self.no_tools
    }

    /// As in an error's `param`.
    pub(super) fn places(&self) -> impl Iterator<Item = String> {
        let tools = self.tools.iter().map(|at| format!("tools[{at}]"));
        let functions = self.functions.iter().map(|at| format!("functions[{at}]"));
        let params = self.params.iter().map(|&name| name.to_owned());
        tools.chain(functions).chain(params)
    }
}

impl ApiRequest {
    /// Puts the request under the rules of its token: cuts out what they forbid, and says what is left
    /// for the answer to call. Nothing where there are no rules.
    pub fn govern(&mut self, rules: &[ToolRules]) -> Option<Offered> {
        if rules.is_empty() {
            return None;
        }
        let forbidden = |tool: Tool<'_>| rules.iter().any(|rules| rules.forbids(tool).is_some());
        let mut cut = Cut::default();
        for offer in &self.offers {
            let list = match offer.list {
                List::Tools => &mut cut.tools,
                List::Functions => &mut cut.functions,
            };
            // An element's names stand one after another.
            if forbidden(offer.tool()) && list.last() != Some(&offer.at) {
                list.push(offer.at);
            }
        }
        let fields = self.fields.iter().map(|field| field.name.as_ref());
        let sent: HashSet<&str> = fields.collect();
        let params = TOOL_PARAMS.into_iter().filter(|name| sent.contains(name));
        let (gone, stay): (Vec<_>, Vec<_>) = params.partition(|name| forbidden(Tool::Hosted(name)));
        cut.params = gone;
        let left = |list: List, cut: &[usize]| {
            let all = self.offers.iter().filter(move |offer| offer.list == list);
            all.filter(|offer| !cut.contains(&offer.at)).count()
        };
        cut.no_tools = !cut.tools.is_empty() && left(List::Tools, &cut.tools) == 0;
        cut.no_functions = !cut.functions.is_empty() && left(List::Functions, &cut.functions) == 0;
        let offers_tools = self.offers.iter().any(|offer| offer.list == List::Tools);
        let one_call = rules.iter().any(|rules| rules.one_call);
        let knows = matches!(self.route, Route::ChatCompletions | Route::Responses);
        cut.one_call = one_call && knows && offers_tools;
        let offered = self.offered(&cut, &stay, one_call, refuses(rules));
        self.cut = Some(cut);
        Some(offered)
    }

    fn offered(&self, cut: &Cut, params: &[&str], one_call: bool, refuses: bool) -> Offered {
        let mut offered = Offered {
            one_call,
            refuses,
            ..Offered::default()
        };
        for offer in &self.offers {
            let gone = match offer.list {
                List::Tools => &cut.tools,
                List::Functions => &cut.functions,
            };
            if gone.contains(&offer.at) {
                continue;
            }
            let names = if offer.hosted {
                &mut offered.hosted
            } else {
                &mut offered.names
            };
            names.insert(offer.name.clone());
        }
        let params = params.iter().map(|&name| name.to_owned());
        offered.hosted.extend(params);
        offered
    }

    /// What of the request is not forwarded, by place.
    #[must_use]
    pub fn left_out_places(&self) -> Vec<String> {
        let items = self.left_out.iter().map(|at| format!("input[{at}]"));
        let cut = self.cut.iter().flat_map(Cut::places);
        items.chain(cut).take(MAX_PLACES).collect()
    }
}

/// One scope that refuses is enough.
fn refuses(rules: &[ToolRules]) -> bool {
    rules
        .iter()
        .any(|rules| rules.on_forbidden == OnForbiddenTool::Refuse)
}

#[cfg(test)]
mod tests;
