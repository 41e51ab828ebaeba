use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use secrecy::ExposeSecret;

use super::*;

fn provider(name: &str, keys: KeyPolicy) -> ProviderConfig {
    ProviderConfig {
        name: name.into(),
        base_url: "http://127.0.0.1:1".into(),
        keys,
        ca_file: None,
        connect_timeout_ms: 1,
        request_timeout_ms: 1,
    }
}

fn uid() -> u32 {
    nix::unistd::getuid().as_raw()
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("keys")).unwrap();
        fs::create_dir(dir.path().join("creds")).unwrap();
        Self(dir)
    }

    fn put(&self, name: &str, text: &str, mode: u32) {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn ring(&self, handed: &str, environment: &[(&str, &str)]) -> KeyRing {
        KeyRing::new(
            parse_handed(handed.as_bytes()).unwrap(),
            environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
            Some(self.0.path().join("creds")),
            Some(self.0.path().join("keys")),
            uid(),
        )
    }
}

fn key_of(ring: &KeyRing, name: &str) -> Option<String> {
    let keys = ring.load(&[provider(name, KeyPolicy::Either)]).unwrap();
    keys.get(name)
        .map(|found| found.key.expose_secret().to_owned())
}

#[test]
fn names_become_variables() {
    for (name, variable) in [
        ("groq", "GROQ_API_KEY"),
        ("open-router.ai", "OPEN_ROUTER_AI_API_KEY"),
        ("a_1", "A_1_API_KEY"),
        ("\u{e9}", "__API_KEY"),
    ] {
        assert_eq!(variable_of(name), variable);
    }
}

#[test]
fn the_first_place_that_has_a_key_wins() {
    let home = Home::new();
    assert_eq!(key_of(&home.ring("", &[]), "groq"), None);
    home.put("keys/groq", "fake-file\n", 0o600);
    assert_eq!(key_of(&home.ring("", &[]), "groq").unwrap(), "fake-file");
    home.put("creds/sealed_groq", "fake-sealed", 0o400);
    assert_eq!(key_of(&home.ring("", &[]), "groq").unwrap(), "fake-sealed");
    home.put("creds/keys_groq", "fake-loaded\n", 0o400);
    assert_eq!(key_of(&home.ring("", &[]), "groq").unwrap(), "fake-loaded");
    home.put("creds/GROQ_API_KEY", "fake-cred\r\n", 0o444);
    assert_eq!(key_of(&home.ring("", &[]), "groq").unwrap(), "fake-cred");
    home.put("creds/groq", "fake-cred-2", 0o400);
    assert_eq!(key_of(&home.ring("", &[]), "groq").unwrap(), "fake-cred-2");
    let environment = [("GROQ_API_KEY", "fake-env"), ("PATH", "/bin")];
    let ring = home.ring("", &environment);
    assert_eq!(key_of(&ring, "groq").unwrap(), "fake-env");
    let ring = home.ring("X_API_KEY=1\nGROQ_API_KEY=fake=fd\n", &environment);
    assert_eq!(key_of(&ring, "groq").unwrap(), "fake=fd");
}

#[test]
fn a_key_file_that_others_may_read_is_refused() {
    let home = Home::new();
    for mode in [0o644, 0o640, 0o604, 0o660, 0o610] {
        home.put("keys/groq", "fake", mode);
        let error = home
            .ring("", &[])
            .load(&[provider("groq", KeyPolicy::Either)])
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("chmod 600"), "{mode:o}: {error}");
        assert!(!error.contains("fake"));
    }
    home.put("keys/groq", "fake", 0o400);
    assert!(key_of(&home.ring("", &[]), "groq").is_some());
}

#[test]
fn a_key_file_of_another_user_is_refused() {
    let home = Home::new();
    home.put("keys/groq", "fake", 0o600);
    let mut ring = home.ring("", &[]);
    ring.uid = uid() + 1;
    assert!(matches!(
        ring.load(&[provider("groq", KeyPolicy::Either)]),
        Err(EgressError::KeyExposed { .. })
    ));
}

#[test]
fn a_link_and_a_name_that_leaves_the_directory_lead_nowhere() {
    let home = Home::new();
    home.put("elsewhere", "fake", 0o600);
    std::os::unix::fs::symlink("../elsewhere", home.0.path().join("keys/groq")).unwrap();
    let told = home.ring("", &[]);
    let told = told.load(&[provider("groq", KeyPolicy::Either)]).err();
    let told = told.unwrap().to_string();
    assert!(
        told.contains("keys/groq is a symbolic link") && told.contains("not followed"),
        "{told}"
    );
    assert_eq!(key_of(&home.ring("", &[]), "../elsewhere"), None);
}

#[test]
fn an_operators_key_for_a_passthrough_provider_is_refused_wherever_it_is() {
    let check = |ring: &KeyRing, place: &str| {
        let error = ring
            .load(&[provider("groq", KeyPolicy::Passthrough)])
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains(place), "{error}");
        assert!(!error.contains("fake"), "{error}");
    };
    let home = Home::new();
    assert!(
        home.ring("", &[])
            .load(&[provider("groq", KeyPolicy::Passthrough)])
            .is_ok()
    );
    check(&home.ring("GROQ_API_KEY=fake", &[]), "GROQ_API_KEY");
    check(
        &home.ring("", &[("GROQ_API_KEY", "fake")]),
        "environment variable GROQ_API_KEY",
    );
    home.put("keys/groq", "fake", 0o600);
    check(&home.ring("", &[]), "keys/groq");
    // All of them at once, also one that could not be used.
    home.put("keys/groq", "fake", 0o644);
    for name in ["groq", "GROQ_API_KEY", "keys_groq"] {
        home.put(&format!("creds/{name}"), "fake", 0o400);
    }
    let ring = home.ring("GROQ_API_KEY=fake", &[("GROQ_API_KEY", "fake")]);
    for place in [
        "handed over",
        "environment variable GROQ_API_KEY",
        "creds/groq",
        "creds/GROQ_API_KEY",
        "creds/keys_groq",
        "keys/groq",
    ] {
        check(&ring, place);
    }
}

#[test]
fn a_directory_of_keys_may_be_one_credential() {
    let home = Home::new();
    home.put("creds/keys_groq", "fake-cred\n", 0o400);
    assert_eq!(key_of(&home.ring("", &[]), "groq").unwrap(), "fake-cred");
    // A service of the host reads no directory of its own.
    home.put("keys/openai", "fake-file", 0o600);
    let uid = uid();
    let creds = Some(home.0.path().join("creds"));
    let ring = KeyRing::new(HashMap::new(), std::iter::empty(), creds, None, uid);
    assert_eq!(key_of(&ring, "openai"), None);
    assert_eq!(key_of(&ring, "groq").unwrap(), "fake-cred");
}

#[test]
fn handed_lines_are_name_and_value() {
    let error = parse_handed(b"GOOD_API_KEY=fake\nsecret-without-name\n")
        .err()
        .unwrap();
    assert!(matches!(error, EgressError::KeysLine { line: 2 }));
    assert!(!error.to_string().contains("secret"));
    assert!(parse_handed(b"=x").is_err());
    assert!(parse_handed(b"\n\nA_API_KEY=\n").unwrap().is_empty());
}

#[test]
fn the_handed_descriptor_is_read_to_its_end_and_closed() {
    use std::io::Write;
    use std::os::fd::IntoRawFd;
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"GROQ_API_KEY=fake-fd\n").unwrap();
    drop(writer);
    let fd = reader.into_raw_fd();
    let keys = read_handed(fd).unwrap();
    assert_eq!(keys["GROQ_API_KEY"].expose_secret(), "fake-fd");
    assert!(read_handed(1).is_err());
}

#[test]
fn no_key_is_printed() {
    let home = Home::new();
    let ring = home.ring("GROQ_API_KEY=canary", &[("X_API_KEY", "canary")]);
    assert!(!format!("{ring:?}").contains("canary"));
}
