//! Capabilities as lines of a scope's settings.

use aex_admin_proto::capabilities::{Capabilities, OnForbiddenTool, route_name, temperature_range};

/// Each that is set, by its name.
pub(crate) fn capabilities(set: &Capabilities) -> Vec<(&'static str, String)> {
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let list = |names: &Vec<String>| names.join(", ");
    let routes = set.allowed_routes.as_ref().map(|routes| {
        let names: Vec<&str> = routes.iter().map(|&route| route_name(route)).collect();
        names.join(", ")
    });
    let on_forbidden = set.on_forbidden_tool.map(|what| {
        match what {
            OnForbiddenTool::Refuse => "refuse",
            OnForbiddenTool::Strip => "strip",
        }
        .to_owned()
    });
    [
        ("providers", set.allowed_providers.as_ref().map(list)),
        ("routes", routes),
        ("audio", set.audio.map(yes_no)),
        ("files", set.files.map(yes_no)),
        ("structured", set.structured_output.map(yes_no)),
        ("hosted tools", set.hosted_tools.map(yes_no)),
        ("denied tools", set.denied_tools.as_ref().map(list)),
        ("parallel calls", set.parallel_tool_calls.map(yes_no)),
        ("max choices", set.max_choices.map(|most| most.to_string())),
        ("temperature", temperature_range(set)),
        ("forbidden tool", on_forbidden),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}
