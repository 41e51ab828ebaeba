//! The names of the schema, as Cedar's own values.

use std::str::FromStr;

use aex_admin_proto::worker::Route;
use cedar_policy::{EntityId, EntityTypeName, EntityUid};

/// The action of a route.
pub(super) fn action(route: Route) -> &'static str {
    match route {
        Route::ChatCompletions => "Chat",
        Route::Completions => "Complete",
        Route::Embeddings => "Embed",
        Route::Responses => "Respond",
    }
}

pub(super) const CALL_TOOL: &str = "CallTool";

/// The entity types; a name is read once and then shared.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) agent: EntityTypeName,
    pub(super) group: EntityTypeName,
    pub(super) provider: EntityTypeName,
    pub(super) model: EntityTypeName,
    pub(super) tool: EntityTypeName,
    pub(super) action: EntityTypeName,
}

impl Names {
    pub(super) fn new() -> Self {
        let name = |text| EntityTypeName::from_str(text).expect("a name of the schema");
        Self {
            agent: name("Agent"),
            group: name("Group"),
            provider: name("Provider"),
            model: name("Model"),
            tool: name("Tool"),
            action: name("Action"),
        }
    }
}

pub(super) fn uid(kind: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
}
