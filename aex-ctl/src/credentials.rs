//! Which environment variables carry a provider's credential: what `aex run` keeps from its command.
//! Pure: names are passed in, values are never looked at.

use std::ffi::OsStr;

/// Endings of names. Some catch what belongs to no model provider: a command that misses it fails
/// at once, while a credential that slips through would go past AEX in silence.
const ENDINGS: &[&str] = &[
    "_ADMIN_KEY",
    "_API_KEY",
    "_API_KEYS",
    "_API_TOKEN",
    "_AUTH_TOKEN",
    "_OPENAI_KEY",
];

/// Names that no ending covers. The organisation and the project of an account are no secrets, but
/// clients send them as headers that mean nothing beside AEX's own token.
const NAMES: &[&str] = &[
    "AZURE_OPENAI_AD_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "HF_TOKEN",
    "HUGGING_FACE_HUB_TOKEN",
    "OPENAI_ORG_ID",
    "OPENAI_ORGANIZATION",
    "OPENAI_PROJECT",
    "OPENAI_PROJECT_ID",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_BEARER_TOKEN_BEDROCK",
    "WATSONX_APIKEY",
    "WATSONX_TOKEN",
];

/// AEX's own settings are never taken away.
const OWN: &str = "AEX_";

/// Width of the help's lists.
const HELP_COLUMNS: usize = 92;

/// Whether a variable of this name is kept from the command. Some clients read names in any case.
pub(crate) fn is_provider_credential(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes().to_ascii_uppercase();
    !name.starts_with(OWN.as_bytes())
        && (ENDINGS.iter().any(|end| name.ends_with(end.as_bytes()))
            || NAMES.iter().any(|known| name == known.as_bytes()))
}

/// The same, for `aex run --help`.
pub(crate) fn help() -> String {
    let all = ENDINGS
        .iter()
        .map(|end| format!("*{end}"))
        .chain(NAMES.iter().map(|&name| name.to_owned()));
    let mut text = String::from("CMD keeps this environment, without (in capitals or not):");
    let mut column = HELP_COLUMNS;
    for name in all {
        if column + name.len() + 1 > HELP_COLUMNS {
            text.push_str("\n ");
            column = 1;
        }
        text.push(' ');
        text.push_str(&name);
        column += name.len() + 1;
    }
    text.push_str(
        "\nAEX_* stays. OPENAI_API_KEY, OPENAI_BASE_URL and OPENAI_API_BASE are set for AEX.\n\
         Credentials in files (~/.aws, ~/.config, …) are not touched.",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_known_by_ending_or_name() {
        for name in [
            "GROQ_API_KEY",
            "openai_api_key",
            "AZURE_OPENAI_KEY",
            "ANTHROPIC_AUTH_TOKEN",
            "HF_TOKEN",
            "HUGGING_FACE_HUB_TOKEN",
            "HUGGINGFACEHUB_API_TOKEN",
            "OPENAI_ORG_ID",
            "OPENAI_ORGANIZATION",
            "OPENAI_PROJECT",
            "REPLICATE_API_TOKEN",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "AWS_BEARER_TOKEN_BEDROCK",
        ] {
            assert!(is_provider_credential(OsStr::new(name)), "{name}");
        }
        for name in [
            "API_KEY_FILE",
            "PATH",
            "SSH_AUTH_SOCK",
            "AWS_REGION",
            "MY_HF_TOKEN_COUNT",
            "AEX_HOME",
            "AEX_SOCKET",
            "AEX_AUTH_TOKEN",
        ] {
            assert!(!is_provider_credential(OsStr::new(name)), "{name}");
        }
    }

    #[test]
    fn the_help_names_all_of_them() {
        let help = help();
        assert!(help.lines().all(|line| line.len() <= HELP_COLUMNS));
        for part in ENDINGS.iter().chain(NAMES) {
            assert!(help.contains(part), "{part}");
        }
    }
}
