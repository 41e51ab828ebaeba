//! The shape of the source: who depends on whom, and what pure code does not name.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const PROGRAMS: [&str; 4] = ["aex-admin", "aex-proxy", "aex-egress", "aex-ctl"];
/// What programs may depend on, of AEX's own.
const SHARED: [&str; 2] = ["aex-admin-proto", "aex-sandbox"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// Names of a crate's dependencies, by the section that they stand in.
fn dependencies(directory: &str) -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(root().join(directory).join("Cargo.toml")).unwrap();
    let mut section = String::new();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
        } else if section.ends_with("dependencies")
            && !line.starts_with('#')
            && let Some((name, _)) = line.split_once(['=', '.'])
        {
            found
                .entry(section.clone())
                .or_default()
                .push(name.trim().to_owned());
        }
    }
    assert!(
        !found.is_empty(),
        "{directory} has no dependencies: is it read right?"
    );
    found
}

fn real_dependencies(directory: &str) -> Vec<String> {
    let mut all = dependencies(directory);
    all.retain(|section, _| !section.contains("dev-"));
    all.into_values().flatten().collect()
}

#[test]
fn no_program_depends_on_another() {
    for program in PROGRAMS {
        let all: Vec<String> = dependencies(program).into_values().flatten().collect();
        let own: Vec<&String> = all.iter().filter(|name| name.starts_with("aex-")).collect();
        assert_eq!(own, SHARED, "{program}");
    }
    for directory in SHARED.into_iter().chain(["tests"]) {
        let all: Vec<String> = dependencies(directory).into_values().flatten().collect();
        let programs: Vec<&String> = all
            .iter()
            .filter(|name| PROGRAMS.contains(&name.as_str()))
            .collect();
        assert!(programs.is_empty(), "{directory} depends on {programs:?}");
    }
    // The sandbox is entered before there is a runtime, and is told of by the wire's own type.
    let sandbox = real_dependencies("aex-sandbox");
    assert!(sandbox.contains(&"aex-admin-proto".to_owned()));
    assert!(!sandbox.contains(&"tokio".to_owned()), "{sandbox:?}");
    let wire = real_dependencies("aex-admin-proto");
    assert!(!wire.contains(&"aex-sandbox".to_owned()), "{wire:?}");
}

#[test]
fn only_the_admin_links_sqlite_and_only_the_egress_connects_by_tls() {
    for (library, owners) in [
        ("rusqlite", &["aex-admin"][..]),
        // Agents' connections are taken by TLS; providers are connected to.
        ("rustls", &["aex-egress", "aex-proxy"]),
        ("tokio-rustls", &["aex-egress", "aex-proxy"]),
        ("hyper-rustls", &["aex-egress"]),
        ("rustls-native-certs", &["aex-egress"]),
    ] {
        for program in PROGRAMS.into_iter().chain(SHARED) {
            let links = real_dependencies(program)
                .iter()
                .any(|name| name == library);
            assert!(
                !links || owners.contains(&program),
                "{program} depends on {library}"
            );
        }
    }
    assert!(real_dependencies("aex-admin").contains(&"rusqlite".to_owned()));
    let hyper = real_dependencies("aex-admin")
        .iter()
        .any(|name| name.contains("hyper"));
    assert!(!hyper, "the ledger's process speaks HTTP");
}

#[test]
fn every_crate_has_the_workspaces_lints() {
    for directory in (PROGRAMS.into_iter().chain(SHARED)).chain(["tests"]) {
        let text = fs::read_to_string(root().join(directory).join("Cargo.toml")).unwrap();
        assert!(text.contains("[lints]\nworkspace = true"), "{directory}");
    }
    let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    assert!(workspace.contains("unsafe_code = \"forbid\""));
    // The one that has its own, since it may be unsafe, is no part of any program.
    let members = workspace.lines().find(|line| line.starts_with("members"));
    let named = members.unwrap().matches('"').count() / 2;
    assert_eq!(named, PROGRAMS.len() + SHARED.len() + 2, "{members:?}");
    for directory in (PROGRAMS.into_iter().chain(SHARED)).chain(["tests"]) {
        let all: Vec<String> = dependencies(directory).into_values().flatten().collect();
        assert!(!all.contains(&"aex-interpose".to_owned()), "{directory}");
    }
}

/// Source files below a module, whether it is a file, a directory or both.
fn sources(module: &str) -> Vec<PathBuf> {
    let base = root().join(module);
    let mut found = Vec::new();
    let file = base.with_extension("rs");
    if file.is_file() {
        found.push(file);
    }
    let mut directories = vec![base];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// The code without comments and without its tests.
fn code_of(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs")
}

/// Words of the code, with `::` kept inside.
fn names(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
}

#[test]
fn pure_code_names_nothing_impure() {
    const IMPURE: [&str; 16] = [
        "tokio",
        "hyper",
        "rusqlite",
        "nix",
        "getrandom",
        "rand",
        "clock",
        "async",
        "await",
        "SystemTime",
        "Instant",
        "UnixStream",
        "TcpStream",
        "File",
        "std::fs",
        "std::net",
    ];
    const PATHS: [&str; 5] = [
        "std::net",
        "std::fs",
        "std::time::Instant",
        "std::time::SystemTime",
        "std::env",
    ];
    for module in [
        "aex-admin/src/core",
        "aex-admin/src/policy/ask",
        "aex-admin/src/policy/judge",
        "aex-admin/src/policy/parse",
        "aex-admin/src/policy/slice",
        "aex-admin/src/policy/time",
        "aex-proxy/src/exchange",
        "aex-proxy/src/fallback",
        "aex-proxy/src/usage",
        "aex-proxy/src/tools",
        "aex-egress/src/attach",
        "aex-admin-proto/src/frame",
    ] {
        let files: Vec<PathBuf> = sources(module)
            .into_iter()
            .filter(|path| !is_test(path))
            .collect();
        assert!(!files.is_empty(), "{module} is not there");
        for path in files {
            let code = code_of(&path);
            for path_name in PATHS {
                assert!(
                    !code.contains(path_name),
                    "{} names {path_name}",
                    path.display()
                );
            }
            for name in names(&code).flat_map(|name| name.split("::")) {
                assert!(!IMPURE.contains(&name), "{} names {name}", path.display());
            }
        }
    }
}

/// It takes connections that it is given, and reaches the others by Unix sockets.
#[test]
fn a_worker_connects_to_nobody_over_a_network() {
    for path in sources("aex-proxy/src") {
        let code = code_of(&path);
        for word in [
            "TcpStream::connect",
            "TcpSocket",
            "UdpSocket",
            "TlsConnector",
            "ClientConfig",
        ] {
            assert!(!code.contains(word), "{} has {word}", path.display());
        }
    }
}

#[test]
fn sql_is_in_one_module() {
    let mut seen = false;
    for path in sources("aex-admin/src")
        .into_iter()
        .filter(|path| !is_test(path))
    {
        let code = code_of(&path);
        let has_sql = [
            "SELECT ",
            "INSERT INTO",
            "UPDATE agents",
            "DELETE FROM",
            "CREATE TABLE",
        ]
        .iter()
        .any(|word| code.contains(word));
        seen |= has_sql;
        let in_ledger = path.components().any(|part| part.as_os_str() == "ledger")
            || path.ends_with("ledger.rs");
        assert!(!has_sql || in_ledger, "{} has SQL", path.display());
    }
    assert!(seen, "no SQL was found at all");
}
