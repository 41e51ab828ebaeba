use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use rcgen::{CertificateParams, KeyPair};

use super::*;

struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        files.pair();
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    /// A fresh pair. Answers its certificate.
    fn pair(&self) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let cert = params.self_signed(&key).unwrap();
        self.write("cert", &cert.pem(), 0o644);
        self.write("key", &key.serialize_pem(), 0o600);
        cert.der().clone()
    }

    fn named(&self) -> TlsFiles {
        TlsFiles {
            cert: self.path("cert"),
            key: self.path("key"),
            client_ca: None,
        }
    }

    #[track_caller]
    fn refused(&self, because: &str) {
        let why = Tls::load(self.named()).unwrap_err().to_string();
        assert!(why.contains(because), "{why}");
    }
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let files = Files::new();
    for (mode, good) in [
        (0o600, true),
        (0o640, true),
        (0o400, true),
        (0o440, true),
        (0o644, false),
        (0o604, false),
        (0o660, false),
        (0o700, false),
        (0o650, false),
    ] {
        fs::set_permissions(files.path("key"), Permissions::from_mode(mode)).unwrap();
        assert_eq!(Tls::load(files.named()).is_ok(), good, "{mode:o}");
    }
    fs::set_permissions(files.path("key"), Permissions::from_mode(0o644)).unwrap();
    files.refused("chmod 0600");
}

#[test]
fn files_that_are_something_else_are_refused_without_repeating_them() {
    let files = Files::new();
    files.write("key", "my secret, which is no key", 0o600);
    let why = Tls::load(files.named()).unwrap_err().to_string();
    assert!(
        why.contains("no private key") && !why.contains("secret"),
        "{why}"
    );
    files.pair();
    files.write("cert", "", 0o644);
    files.refused("no certificate");
    files.pair();
    fs::remove_file(files.path("key")).unwrap();
    files.refused("No such file");
    nix::unistd::mkfifo(&files.path("key"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    files.refused("not a regular file");
    fs::remove_file(files.path("key")).unwrap();
    let other = KeyPair::generate().unwrap();
    files.write("key", &other.serialize_pem(), 0o600);
    files.refused("do not belong together");
}

#[test]
fn a_changed_pair_is_taken_up_and_a_bad_one_is_not() {
    let files = Files::new();
    let tls = Tls::load(files.named()).unwrap();
    let is_in_force = |config: &Arc<ServerConfig>| Arc::ptr_eq(config, &tls.in_force());
    let first = tls.in_force();
    tls.reload(false);
    assert!(is_in_force(&first), "nothing has changed");
    tls.reload(true);
    assert!(!is_in_force(&first), "asked for by name");

    let second = tls.in_force();
    let other = KeyPair::generate().unwrap();
    files.write("key", &other.serialize_pem(), 0o600);
    tls.reload(false);
    assert!(is_in_force(&second), "the key is another's");
    files.pair();
    tls.reload(false);
    assert!(!is_in_force(&second));

    let third = tls.in_force();
    fs::set_permissions(files.path("key"), Permissions::from_mode(0o644)).unwrap();
    tls.reload(false);
    assert!(is_in_force(&third), "a key that is open to others");
    fs::remove_file(files.path("cert")).unwrap();
    tls.reload(true);
    assert!(is_in_force(&third), "a file that is gone");
}
