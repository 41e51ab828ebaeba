//! The table of methods: which role may call what, and the OpenRPC document made from it.

use aex_admin_proto::operator::method as m;
use aex_admin_proto::{egress, worker};
use serde_json::{Value, json};

use super::Role;

const OPERATOR: &[Role] = &[Role::Operator];
const READ: &[Role] = &[Role::Operator, Role::Auditor];
const WORKER: &[Role] = &[Role::Worker];
const EGRESS: &[Role] = &[Role::Egress];

/// Name, roles, what it does, its parameters.
const METHODS: &[(&str, &[Role], &str, &[&str])] = &[
    (
        m::AGENT_CREATE,
        OPERATOR,
        "Makes an agent and its first token, which is shown once.",
        &["name", "budget_micro", "rpm", "ttl_s", "settings"],
    ),
    (m::AGENT_LIST, READ, "Every agent.", &[]),
    (m::AGENT_SHOW, READ, "One agent.", &["name"]),
    (
        m::AGENT_SET,
        OPERATOR,
        "Changes budget, rate and settings.",
        &[
            "name",
            "budget_micro",
            "add_micro",
            "rpm",
            "settings",
            "clear",
            "drop_limits",
            "group",
        ],
    ),
    (
        m::AGENT_ROTATE_TOKEN,
        OPERATOR,
        "A new token; the old ones end now, or after grace_s.",
        &["name", "ttl_s", "grace_s"],
    ),
    (m::AGENT_PAUSE, OPERATOR, "Refuses its requests.", &["name"]),
    (
        m::AGENT_RESUME,
        OPERATOR,
        "Takes its requests again.",
        &["name"],
    ),
    (
        m::AGENT_SEVER,
        OPERATOR,
        "Pauses it and cuts its open streams.",
        &["name"],
    ),
    (
        m::AGENT_DELETE,
        OPERATOR,
        "Closes it; its history stays, its name stays taken.",
        &["name"],
    ),
    (
        m::GROUP_CREATE,
        OPERATOR,
        "Makes a group.",
        &["name", "parent", "budget_micro", "rpm", "settings"],
    ),
    (m::GROUP_LIST, READ, "The kernel and every group.", &[]),
    (m::GROUP_SHOW, READ, "One group.", &["name"]),
    (
        m::GROUP_SET,
        OPERATOR,
        "Changes a group, or the kernel's own scope (kernel).",
        &[
            "name",
            "budget_micro",
            "add_micro",
            "rpm",
            "settings",
            "clear",
            "drop_limits",
            "parent",
        ],
    ),
    (
        m::GROUP_PAUSE,
        OPERATOR,
        "Refuses requests of all below it.",
        &["name"],
    ),
    (
        m::GROUP_RESUME,
        OPERATOR,
        "Takes their requests again.",
        &["name"],
    ),
    (
        m::GROUP_SEVER,
        OPERATOR,
        "Pauses it and cuts what is open anywhere below it.",
        &["name"],
    ),
    (
        m::GROUP_DELETE,
        OPERATOR,
        "Closes an empty group; its name stays taken.",
        &["name"],
    ),
    (
        m::TREE,
        READ,
        "Every scope that has not ended, each after its parent.",
        &[],
    ),
    (
        m::RUN_CREATE,
        OPERATOR,
        "A narrower scope below an agent or run, and its token.",
        &["parent", "run"],
    ),
    (
        m::RUN_END,
        OPERATOR,
        "Ends a run and all below it, open streams included.",
        &["name"],
    ),
    (
        m::TOKEN_LIST,
        READ,
        "The tokens of an agent, without their text.",
        &["name"],
    ),
    (
        m::TOKEN_CREATE,
        OPERATOR,
        "A further token of an agent.",
        &["name", "ttl_s", "label", "read_only"],
    ),
    (m::TOKEN_REVOKE, OPERATOR, "Ends one token.", &["id"]),
    (m::STATUS, READ, "State of the kernel.", &[]),
    (m::METRICS, READ, "Figures since the start.", &[]),
    (
        m::LEDGER_TAIL,
        READ,
        "Events, newest last.",
        &["after", "limit", "follow"],
    ),
    (
        m::LEDGER_AUDIT,
        READ,
        "Checks the whole ledger, also against kept checkpoints.",
        &["against"],
    ),
    (
        m::LEDGER_REPLAY,
        READ,
        "Rebuilds every balance from the events, and compares.",
        &[],
    ),
    (
        m::LEDGER_CHECKPOINT,
        OPERATOR,
        "Signs the last event; to be kept elsewhere.",
        &[],
    ),
    (
        m::LEDGER_BACKUP,
        OPERATOR,
        "Makes a copy of the ledger: in a new file, or to be read part by part.",
        &["path"],
    ),
    (
        m::LEDGER_BACKUP_PART,
        OPERATOR,
        "Reads a part of the copy that was made last.",
        &["id", "offset"],
    ),
    (
        m::LEDGER_RESOLVE,
        OPERATOR,
        "Appends a correction: what a request really cost, or an agent's money.",
        &["hold", "agent", "cost_pico", "reason"],
    ),
    (
        m::POLICY_EXPLAIN,
        OPERATOR,
        "Which rule decides about a request of an agent, with figures.",
        &["agent", "run", "route", "model", "facts"],
    ),
    (
        m::POLICY_REHEARSE,
        OPERATOR,
        "Which recorded requests a proposal would have refused.",
        &["policies", "scopes", "since_ms"],
    ),
    (
        m::PROVIDER_LIST,
        READ,
        "Providers: where they are, whose keys they take.",
        &[],
    ),
    (m::MODEL_LIST, READ, "Models and their prices.", &[]),
    (
        m::CONFIG_CHECK,
        OPERATOR,
        "Checks a models.yaml given as text.",
        &["text"],
    ),
    (m::CONFIG_RELOAD, OPERATOR, "Reads models.yaml again.", &[]),
    (m::DISCOVER, READ, "This document.", &[]),
    (
        worker::SETTINGS,
        WORKER,
        "Long poll: what a worker must know.",
        &["known", "worker", "pid", "sandbox"],
    ),
    (
        worker::RESERVE,
        WORKER,
        "Asks for a hold.",
        &["id", "token", "route", "model", "facts"],
    ),
    (worker::CANCEL, WORKER, "Gives up a wait.", &["id"]),
    (
        worker::SETTLE,
        WORKER,
        "Reports how an exchange ended.",
        &["id", "ticket", "observed"],
    ),
    (
        worker::RECLAIM,
        WORKER,
        "Says which requests are alive.",
        &["tickets"],
    ),
    (
        worker::MODELS,
        WORKER,
        "Models of a token's agent.",
        &["token", "peer"],
    ),
    (
        worker::WHOSE,
        WORKER,
        "Whether a token is one, and whose.",
        &["token", "peer"],
    ),
    (
        worker::ME,
        WORKER,
        "A token's own scope.",
        &["token", "peer"],
    ),
    (
        worker::QUOTE,
        WORKER,
        "What a request would come to.",
        &["id", "token", "route", "model", "facts", "peer"],
    ),
    (
        worker::RUN,
        WORKER,
        "A run below a token's scope.",
        &["token", "run", "peer"],
    ),
    (
        worker::RUN_END,
        WORKER,
        "Ends a run below a token's scope.",
        &["token", "name", "peer"],
    ),
    (
        worker::TOKENS,
        WORKER,
        "The tokens of a token's own agent.",
        &["token", "peer"],
    ),
    (
        worker::TOKEN_ROTATE,
        WORKER,
        "A new token of a token's own agent; the old ones end.",
        &["token", "ttl_s", "grace_s", "peer"],
    ),
    (
        worker::TOKEN_REVOKE,
        WORKER,
        "Ends a token of a token's own agent.",
        &["token", "id", "peer"],
    ),
    (
        worker::READY,
        WORKER,
        "Whether a request would be answered.",
        &[],
    ),
    (
        egress::ORDERS,
        EGRESS,
        "Long poll: configuration, voids, cuts.",
        &["pid", "acting_on", "operator_keys", "problem", "sandbox"],
    ),
    (
        egress::RECEIPTS,
        EGRESS,
        "How exchanges ended.",
        &["receipts"],
    ),
];

pub(super) fn known(method: &str) -> bool {
    METHODS.iter().any(|(name, ..)| *name == method)
}

pub(super) fn allowed(role: Role, method: &str) -> bool {
    METHODS
        .iter()
        .any(|(name, roles, ..)| *name == method && roles.contains(&role))
}

/// What an operator's socket answers to, as OpenRPC 1.3 (<https://spec.open-rpc.org>).
pub(super) fn document() -> Value {
    let methods: Vec<Value> = METHODS
        .iter()
        .filter(|(_, roles, ..)| roles.contains(&Role::Operator))
        .map(|(name, _, summary, params)| {
            let params: Vec<Value> = params
                .iter()
                .map(|name| json!({ "name": name, "schema": {} }))
                .collect();
            json!({
                "name": name,
                "summary": summary,
                "paramStructure": "by-name",
                "params": params,
                "result": { "name": "result", "schema": {} },
            })
        })
        .collect();
    json!({
        "openrpc": "1.3.2",
        "info": { "title": "aex-admin", "version": env!("CARGO_PKG_VERSION") },
        "methods": methods,
    })
}
