//! Agents and tokens.

use std::collections::HashMap;

use aex_admin_proto::limit::Quantity;
use aex_admin_proto::operator::{
    AgentList, AgentState, AgentView, LimitView, Passthrough, ScopeList, ScopeView, Settings,
    TokenList, TokenReply,
};
use aex_admin_proto::scope::ScopeId;

use nix::unistd::{Uid, User};

use super::capabilities::capabilities;
use super::table::{facts, table};
use super::{money, time};

pub(crate) fn agents(list: &AgentList) -> String {
    if list.agents.is_empty() {
        return "No agents yet: make one with `aex agent create NAME BUDGET RPM`.\n".into();
    }
    rows(&list.agents)
}

/// The table of agents, also in `aex metrics`.
pub(super) fn rows(agents: &[AgentView]) -> String {
    let rows: Vec<Vec<String>> = agents
        .iter()
        .map(|agent| {
            vec![
                agent.name.clone(),
                state(agent.state).into(),
                money(agent.budget_micro),
                money(agent.spent_micro),
                money(agent.reserved_micro),
                money(agent.remaining_micro),
                format!("{}/{}", agent.requests_last_minute, agent.rpm),
                agent.tokens_last_minute.to_string(),
                agent.in_flight.to_string(),
                bound(&agent.settings),
            ]
        })
        .collect();
    table(
        &[
            "AGENT", "STATE", ">BUDGET", ">SPENT", ">HELD", ">LEFT", ">RPM", ">TPM", ">OPEN",
            "BOUND TO",
        ],
        &rows,
    )
}

pub(crate) fn agent(agent: &AgentView) -> String {
    let mut lines = vec![
        ("agent", agent.name.clone()),
        ("state", state(agent.state).into()),
        ("budget", money(agent.budget_micro)),
        ("spent", money(agent.spent_micro)),
        ("held", money(agent.reserved_micro)),
        ("left", money(agent.remaining_micro)),
        ("rpm", agent.rpm.to_string()),
        ("in flight", agent.in_flight.to_string()),
        (
            "last minute",
            format!(
                "{} requests, {} tokens",
                agent.requests_last_minute, agent.tokens_last_minute
            ),
        ),
        ("created", time(agent.created_at_ms)),
    ];
    if let Some(group) = &agent.group {
        lines.push(("group", group.clone()));
    }
    lines.extend(settings(&agent.settings));
    format!("{}{}", facts(&lines), limits(&agent.limits, ""))
}

fn limit(budget_micro: Option<i64>) -> String {
    budget_micro.map_or_else(|| "no limit".into(), money)
}

/// Where limits over periods, sessions and all time stand, a line each.
fn limits(limits: &[LimitView], indent: &str) -> String {
    let amount = |view: &LimitView, amount: i64| match view.limit.key.what {
        Quantity::Money => money(amount),
        _ => amount.to_string(),
    };
    let line = |view: &LimitView| {
        let session = view.session.as_ref();
        let session = session.map_or_else(String::new, |session| format!(" [{session}]"));
        let resets = view
            .resets_at_ms
            .map_or_else(String::new, |at_ms| format!(", resets {}", time(at_ms)));
        format!(
            "{indent}{}{session}: {} used, {} held, {} left{resets}\n",
            view.limit,
            amount(view, view.used),
            amount(view, view.held),
            amount(view, view.left),
        )
    };
    limits.iter().map(line).collect()
}

/// A group, the kernel or a run.
pub(crate) fn scope(scope: &ScopeView) -> String {
    let mut lines = vec![
        (scope.kind.name(), scope.name.clone()),
        ("state", state(scope.state).into()),
        ("budget", limit(scope.budget_micro)),
        ("spent", money(scope.spent_micro)),
        ("held", money(scope.reserved_micro)),
        ("left", limit(scope.remaining_micro)),
        (
            "rpm",
            scope
                .rpm
                .map_or_else(|| "no limit".into(), |rpm| rpm.to_string()),
        ),
        ("in flight", scope.in_flight.to_string()),
        (
            "last minute",
            format!(
                "{} requests, {} tokens",
                scope.requests_last_minute, scope.tokens_last_minute
            ),
        ),
    ];
    lines.extend(settings(&scope.settings));
    format!("{}{}", facts(&lines), limits(&scope.limits, ""))
}

/// Scopes below each other, each after its parent.
pub(crate) fn tree(list: &ScopeList) -> String {
    let mut depths: HashMap<ScopeId, usize> = HashMap::new();
    let mut rows = Vec::with_capacity(list.scopes.len());
    for scope in &list.scopes {
        let above = scope.parent.and_then(|parent| depths.get(&parent).copied());
        let depth = above.map_or(0, |depth| depth + 1);
        depths.insert(scope.id, depth);
        let of = |most: Option<u64>| most.map_or_else(|| "-".to_owned(), |most| most.to_string());
        rows.push(vec![
            format!("{}{}", "  ".repeat(depth), scope.name),
            scope.kind.name().to_owned(),
            state(scope.state).to_owned(),
            scope.budget_micro.map_or_else(|| "-".into(), money),
            money(scope.spent_micro),
            money(scope.reserved_micro),
            scope.remaining_micro.map_or_else(|| "-".into(), money),
            format!("{}/{}", scope.requests_last_minute, of(scope.rpm)),
            format!(
                "{}/{}",
                scope.tokens_last_minute,
                of(scope.settings.max_tokens_per_minute)
            ),
            format!("{}/{}", scope.in_flight, of(scope.settings.max_concurrency)),
            bound(&scope.settings),
        ]);
    }
    let mut text = table(
        &[
            "SCOPE", "KIND", "STATE", ">BUDGET", ">SPENT", ">HELD", ">LEFT", ">RPM", ">TPM",
            ">OPEN", "BOUND TO",
        ],
        &rows,
    );
    for scope in list.scopes.iter().filter(|scope| !scope.limits.is_empty()) {
        text.push_str(&format!("\n{} {}\n", scope.kind.name(), scope.name));
        text.push_str(&limits(&scope.limits, "  "));
    }
    text
}

/// The only time that a token is shown.
pub(crate) fn new_token(reply: &TokenReply, base_url: &str) -> String {
    let mut lines = vec![
        ("agent", reply.name.clone()),
        ("budget", limit(reply.budget_micro)),
        (
            "rpm",
            reply
                .rpm
                .map_or_else(|| "no limit".into(), |rpm| rpm.to_string()),
        ),
    ];
    if let Some(run) = &reply.run {
        lines.push(("run", run.clone()));
    }
    lines.extend(settings(&reply.settings));
    if let Some(at_ms) = reply.expires_at_ms {
        lines.push(("token ends", time(at_ms)));
    }
    lines.push(("token", format!("{}  (shown only now)", reply.token)));
    format!(
        "{}\nexport OPENAI_BASE_URL={base_url}\nexport OPENAI_API_KEY={}\n",
        facts(&lines),
        reply.token
    )
}

pub(crate) fn tokens(list: &TokenList) -> String {
    if list.tokens.is_empty() {
        return "No tokens: make one with `aex agent rotate-token NAME`.\n".into();
    }
    let rows: Vec<Vec<String>> = list
        .tokens
        .iter()
        .map(|token| {
            vec![
                token.id.to_string(),
                token.agent.clone(),
                match (token.revoked, token.read_only) {
                    (true, _) => "revoked",
                    (false, true) => "read-only",
                    (false, false) => "valid",
                }
                .into(),
                time(token.created_at_ms),
                token.expires_at_ms.map_or_else(|| "-".into(), time),
                token.run.as_ref().unwrap_or(&token.label).clone(),
            ]
        })
        .collect();
    table(
        &[">ID", "AGENT", "STATE", "CREATED", "ENDS", "LABEL"],
        &rows,
    )
}

/// A uid, and its name where this host has one.
fn user(uid: u32) -> String {
    match User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => format!("{uid} ({})", super::one_line(&user.name)),
        _ => uid.to_string(),
    }
}

/// From whom alone a scope's tokens are taken, in short.
pub(super) fn bound(settings: &Settings) -> String {
    let cert = settings.client_cert.map(|cert| {
        let digits = cert.to_string();
        format!("cert {}…", digits.get(..12).unwrap_or_default())
    });
    let uid = settings.uid.map(|uid| format!("uid {uid}"));
    let both: Vec<String> = uid.into_iter().chain(cert).collect();
    match both.is_empty() {
        true => "-".to_owned(),
        false => both.join(", "),
    }
}

fn state(state: AgentState) -> &'static str {
    match state {
        AgentState::Active => "active",
        AgentState::Paused => "paused",
        AgentState::Closed => "closed",
    }
}

/// What is set, a line each; what is not set has no line.
fn settings(settings: &Settings) -> Vec<(&'static str, String)> {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let passthrough = |choice| {
        match choice {
            Passthrough::Deny => "denied",
            Passthrough::Allow => "allowed",
            Passthrough::Require => "required",
        }
        .to_owned()
    };
    let number = |n: u64| n.to_string();
    let list = |names: &Vec<String>| names.join(", ");
    [
        ("allowed models", settings.allowed_models.as_ref().map(list)),
        ("passthrough", settings.passthrough.map(passthrough)),
        ("max tokens/min", settings.max_tokens_per_minute.map(number)),
        ("max input", settings.max_input_tokens.map(number)),
        ("max output", settings.max_output_tokens.map(number)),
        ("max concurrency", settings.max_concurrency.map(number)),
        ("streaming", settings.streaming.map(yes_no)),
        ("tools", settings.tools.map(yes_no)),
        ("allowed tools", settings.allowed_tools.as_ref().map(list)),
        ("vision", settings.vision.map(yes_no)),
        (
            "limits",
            settings.limits.as_ref().map(|limits| {
                limits
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>()
                    .join(", ")
            }),
        ),
        (
            "max held",
            settings
                .max_held_percent
                .map(|percent| format!("{percent}%")),
        ),
        ("max sessions", settings.max_sessions.map(number)),
        ("time zone", settings.time_zone.clone()),
        ("labels", settings.labels.as_ref().map(list)),
        ("bound to uid", settings.uid.map(user)),
        (
            "bound to cert",
            settings.client_cert.map(|cert| format!("SHA-256 {cert}")),
        ),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .chain(capabilities(&settings.capabilities))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_token_comes_with_its_two_exports() {
        let reply = TokenReply {
            name: "a".into(),
            token: "fake-token".into(),
            token_id: 1,
            expires_at_ms: None,
            budget_micro: Some(2_010_000),
            rpm: Some(30),
            run: None,
            settings: Settings {
                passthrough: Some(Passthrough::Require),
                streaming: Some(false),
                ..Settings::default()
            },
        };
        let text = new_token(&reply, "http://127.0.0.1:9000/v1");
        assert!(text.contains("\nexport OPENAI_BASE_URL=http://127.0.0.1:9000/v1\n"));
        assert!(text.contains("\nexport OPENAI_API_KEY=fake-token\n"));
        assert!(text.contains("$2.010000"));
        assert!(text.contains("passthrough  required"), "{text}");
        assert!(text.contains("streaming    no"), "{text}");
        assert!(!text.contains("vision"));
    }
}
