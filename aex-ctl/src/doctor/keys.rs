//! Keys of providers: where the operator's lie, and where one lies that must not.

use std::ffi::OsString;

use aex_admin_proto::egress::KeyPolicy;
use aex_admin_proto::operator::ProviderView;
use aex_admin_proto::places::Places;

use super::{Finding, State};
use crate::commands::key_variable;
use crate::credentials::is_provider_credential;

/// `environment` is this process's: a start from here would hand its keys over.
pub(super) fn look(
    places: &Places,
    providers: &[ProviderView],
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<Finding> {
    let names: Vec<String> = environment
        .filter(|(_, value)| !value.is_empty())
        .filter_map(|(name, _)| name.into_string().ok())
        .collect();
    let mut findings = Vec::new();
    for provider in providers {
        let variable = key_variable(&provider.name);
        let file = places.keys.join(&provider.name);
        let mut found = Vec::new();
        if names.contains(&variable) {
            found.push(format!("the environment variable {variable}"));
        }
        // That it cannot be looked at is told with the files.
        if file.symlink_metadata().is_ok() {
            found.push(file.display().to_string());
        }
        if found.is_empty() {
            continue;
        }
        let found = found.join(" and in ");
        let name = &provider.name;
        findings.push(if provider.keys == KeyPolicy::Passthrough {
            let says = format!(
                "provider {name} takes agents' own keys alone (strict BYOK), and an operator's key for it \
                 is in {found}"
            );
            Finding::new("keys", State::Failed, says)
                .fix("remove it: a start with it is refused")
        } else {
            Finding::ok("keys", format!("provider {name}: a key is in {found}"))
        });
    }
    findings.extend(of_this_shell(&names));
    findings
}

/// What a program that is started from here could go past AEX with.
fn of_this_shell(names: &[String]) -> Option<Finding> {
    let credentials: Vec<&str> = names
        .iter()
        .filter(|name| is_provider_credential(name.as_ref()))
        // In this one agents carry their token of AEX.
        .filter(|name| *name != "OPENAI_API_KEY" || std::env::var_os("OPENAI_BASE_URL").is_none())
        .map(String::as_str)
        .collect();
    if credentials.is_empty() {
        return None;
    }
    let says = format!(
        "this environment has {}: a program that is started from it can call providers past AEX",
        credentials.join(", ")
    );
    Some(
        Finding::new("ways around", State::Warning, says)
            .fix("start agents with `aex run`, which takes them away, or from a clean environment"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provider(name: &str, keys: KeyPolicy) -> ProviderView {
        ProviderView {
            name: name.into(),
            base_url: "https://provider.invalid".into(),
            keys,
            loopback: false,
        }
    }

    #[test]
    fn a_key_that_must_not_be_there_is_named_with_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::user(dir.path());
        std::fs::create_dir(&places.keys).unwrap();
        std::fs::write(places.keys.join("groq"), "fake").unwrap();
        let providers = [
            provider("groq", KeyPolicy::Passthrough),
            provider("open-router", KeyPolicy::Either),
            provider("none", KeyPolicy::Passthrough),
        ];
        let environment = [("OPEN_ROUTER_API_KEY", "fake"), ("GROQ_API_KEY", "fake")];
        let environment = environment.map(|(name, value)| (name.into(), value.into()));
        let findings = look(&places, &providers, environment.into_iter());
        let of: Vec<(&str, State)> = findings.iter().map(|f| (f.check, f.state)).collect();
        assert_eq!(
            of,
            [
                ("keys", State::Failed),
                ("keys", State::Ok),
                ("ways around", State::Warning)
            ]
        );
        for place in ["GROQ_API_KEY", "keys/groq"] {
            assert!(findings[0].says.contains(place), "{findings:?}");
        }
        assert!(
            findings
                .iter()
                .all(|finding| !finding.says.contains("fake"))
        );
    }
}
