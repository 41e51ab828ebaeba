//! What the supervisor starts and what each program may know: names, arguments, environment, keys.
//! Pure: environments and texts are passed in.

use std::ffi::{OsStr, OsString};

use secrecy::{ExposeSecret, SecretString};

/// Descriptor from which on a program finds what it inherits: the keys, or the listeners.
pub(super) const INHERITED_FD: i32 = 3;
/// All keys together must fit into a pipe that nobody reads yet.
const MAX_KEYS_BYTES: usize = 48 * 1024;
/// What the configuration's own default is.
const DEFAULT_DRAIN_MS: u64 = 30_000;
/// Tokens of AEX begin so: one in `OPENAI_API_KEY` is an agent's, not a provider's key.
const AGENT_TOKEN_PREFIX: &str = "aex_";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Program {
    Admin,
    Egress,
    /// Counted from 1.
    Proxy(u32),
}

impl Program {
    /// The executable's file name.
    pub(super) fn binary(self) -> &'static str {
        match self {
            Self::Admin => "aex-admin",
            Self::Egress => "aex-egress",
            Self::Proxy(_) => "aex-proxy",
        }
    }

    /// The name of its pid file and its log.
    pub(super) fn instance(self) -> String {
        match self {
            Self::Proxy(worker) => format!("aex-proxy-{worker}"),
            other => other.binary().to_owned(),
        }
    }

    pub(super) fn of_instance(instance: &str) -> Option<Self> {
        match instance {
            "aex-admin" => Some(Self::Admin),
            "aex-egress" => Some(Self::Egress),
            other => Some(Self::Proxy(other.strip_prefix("aex-proxy-")?.parse().ok()?)),
        }
    }

    /// `listeners`: how many a worker finds from [`INHERITED_FD`] on.
    pub(super) fn arguments(self, listeners: usize) -> Vec<OsString> {
        let first = || INHERITED_FD.to_string().into();
        match self {
            Self::Admin => vec!["serve".into()],
            Self::Egress => vec!["--keys-fd".into(), first()],
            Self::Proxy(worker) => vec![
                "--worker".into(),
                worker.to_string().into(),
                "--listen-fd".into(),
                first(),
                "--listen-fds".into(),
                listeners.to_string().into(),
            ],
        }
    }

    /// Workers stop first, then the egress, then the ledger's owner.
    pub(super) fn stop_order(self) -> u8 {
        match self {
            Self::Proxy(_) => 0,
            Self::Egress => 1,
            Self::Admin => 2,
        }
    }
}

/// The whole environment of a program: a short list, so that no key and no token passes by.
pub(super) fn environment(
    program: Program,
    home: &OsStr,
    own: impl Iterator<Item = (OsString, OsString)>,
) -> Vec<(OsString, OsString)> {
    let passes = |name: &OsStr| match name.to_str() {
        Some("AEX_LOG" | "AEX_SANDBOX" | "TZ" | "LANG" | "RUST_BACKTRACE") => true,
        Some("SSL_CERT_FILE" | "SSL_CERT_DIR") => program == Program::Egress,
        _ => false,
    };
    own.filter(|(name, _)| passes(name))
        .chain([
            ("AEX_HOME".into(), home.to_owned()),
            ("PATH".into(), "/usr/bin:/bin".into()),
            // Their output goes to files.
            ("NO_COLOR".into(), "1".into()),
        ])
        .collect()
}

/// Provider keys of the supervisor's environment, on their way to the egress alone.
#[derive(Debug, Default)]
pub(super) struct Keys {
    keys: Vec<(String, SecretString)>,
    /// Why some were left out; names only.
    pub(super) notes: Vec<String>,
}

impl Keys {
    pub(super) fn from_environment(own: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut found = Self::default();
        let mut bytes = 0;
        for (name, value) in own {
            let Some(name) = name.to_str().filter(|name| is_key_name(name)) else {
                continue;
            };
            let problem = match value.to_str() {
                Some("") => continue,
                Some(value) if value.starts_with(AGENT_TOKEN_PREFIX) => "it is an agent's token",
                Some(value) if value.contains(['\n', '\r', '\0']) => "it has a line break",
                Some(value) if bytes + name.len() + value.len() + 2 > MAX_KEYS_BYTES => {
                    "all keys together are too long"
                }
                Some(value) => {
                    bytes += name.len() + value.len() + 2;
                    found.keys.push((name.to_owned(), value.into()));
                    continue;
                }
                None => "it is not UTF-8",
            };
            found.notes.push(format!(
                "{name} is not taken as a provider's key: {problem}"
            ));
        }
        found
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.keys.iter().map(|(name, _)| name.as_str()).collect()
    }

    /// `NAME=VALUE` lines.
    pub(super) fn lines(&self) -> SecretString {
        let mut lines = String::with_capacity(MAX_KEYS_BYTES);
        for (name, value) in &self.keys {
            lines.push_str(name);
            lines.push('=');
            lines.push_str(value.expose_secret());
            lines.push('\n');
        }
        lines.into()
    }
}

/// `<PROVIDER>_API_KEY`, as the egress spells a provider's name.
fn is_key_name(name: &str) -> bool {
    name.strip_suffix("_API_KEY").is_some_and(|provider| {
        !provider.is_empty()
            && provider
                .bytes()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
    })
}

/// `drain_timeout` of a models.yaml that `aex-admin` has accepted. The workers keep to it by
/// themselves; it only tells how long a stop waits before it uses force, so a line that is written
/// in an unusual way may cost the default.
pub(super) fn drain_timeout_ms(config: &str) -> u64 {
    config
        .lines()
        .find_map(|line| line.strip_prefix("drain_timeout:"))
        .and_then(duration_ms)
        .unwrap_or(DEFAULT_DRAIN_MS)
}

fn duration_ms(text: &str) -> Option<u64> {
    let text = text.split('#').next()?.trim().trim_matches(['"', '\'']);
    let at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(at);
    let each = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(each)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect()
    }

    #[test]
    fn a_program_is_known_by_its_instance() {
        for program in [Program::Admin, Program::Egress, Program::Proxy(12)] {
            assert_eq!(Program::of_instance(&program.instance()), Some(program));
        }
        for other in ["daemon", "aex-proxy", "aex-proxy-x", ""] {
            assert_eq!(Program::of_instance(other), None);
        }
    }

    #[test]
    fn no_program_gets_a_key_by_its_environment() {
        let mine = own(&[
            ("GROQ_API_KEY", "sk-fake"),
            ("OPENAI_BASE_URL", "x"),
            ("AEX_LOG", "debug"),
            ("SSL_CERT_FILE", "/ca"),
            ("AEX_HOME", "elsewhere"),
            ("LD_PRELOAD", "/x.so"),
            ("PATH", "/evil"),
            ("HTTPS_PROXY", "x"),
        ]);
        let of = |program| {
            let mut names: Vec<_> =
                environment(program, OsStr::new("/home"), mine.clone().into_iter())
                    .into_iter()
                    .map(|(name, value)| format!("{}={}", name.display(), value.display()))
                    .collect();
            names.sort();
            names
        };
        let plain = [
            "AEX_HOME=/home",
            "AEX_LOG=debug",
            "NO_COLOR=1",
            "PATH=/usr/bin:/bin",
        ];
        assert_eq!(of(Program::Admin), plain);
        assert_eq!(of(Program::Proxy(1)), plain);
        assert_eq!(of(Program::Egress).len(), 5);
    }

    #[test]
    fn keys_are_taken_by_name_and_never_printed() {
        let keys = Keys::from_environment(
            own(&[
                ("GROQ_API_KEY", "sk-fake-1"),
                ("EMPTY_API_KEY", ""),
                ("OPENAI_API_KEY", "aex_fake-token"),
                ("BAD_API_KEY", "sk-fake-2\nOTHER_API_KEY=x"),
                ("API_KEY_FILE", "sk-fake-3"),
                ("_API_KEY", "sk-fake-4"),
                ("a=b_API_KEY", "sk-fake-5"),
            ])
            .into_iter(),
        );
        assert_eq!(keys.names(), ["GROQ_API_KEY"]);
        assert_eq!(keys.lines().expose_secret(), "GROQ_API_KEY=sk-fake-1\n");
        assert_eq!(keys.notes.len(), 2);
        let printed = format!("{keys:?}");
        assert!(
            !printed.contains("sk-fake") && !printed.contains("fake-token"),
            "{printed}"
        );
    }

    #[test]
    fn keys_fit_into_a_pipe() {
        let long = "k".repeat(MAX_KEYS_BYTES / 2);
        let keys = Keys::from_environment(
            own(&[
                ("A_API_KEY", &long),
                ("B_API_KEY", &long),
                ("C_API_KEY", "v"),
            ])
            .into_iter(),
        );
        assert_eq!(keys.names(), ["A_API_KEY", "C_API_KEY"]);
        assert!(keys.lines().expose_secret().len() <= MAX_KEYS_BYTES);
    }

    #[test]
    fn the_drain_timeout_is_found() {
        for (text, ms) in [
            ("", 30_000),
            ("drain_timeout: 5s\n", 5_000),
            ("models:\ndrain_timeout:  \"2m\"  # long\n", 120_000),
            ("#drain_timeout: 5s", 30_000),
            ("drain_timeout: soon", 30_000),
            ("drain_timeout: 99999999999999999999s", 30_000),
        ] {
            assert_eq!(drain_timeout_ms(text), ms, "{text}");
        }
    }
}
