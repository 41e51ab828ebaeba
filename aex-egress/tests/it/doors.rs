//! Sockets that systemd hands over: what one is flooded with does not reach the others.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use aex_egress::doors::{GROUP_PLACES, PLACES};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{User, getuid};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::PATIENCE;
use crate::admin::{Admin, provider_config, ticket};
use crate::egress::{Egress, Home};
use crate::provider::Provider;
use crate::worker::post;

/// Well below the 10 s after which a silent connection gives its place up.
const AT_ONCE: Duration = Duration::from_secs(5);
/// More than the common socket has places: were they shared, none would be left.
const FLOOD: usize = PLACES + 200;

/// As the service manager starts it: three sockets from descriptor 3 on.
fn as_a_service(home: &Home, names: [&str; 3]) -> (Command, [PathBuf; 3]) {
    let paths = names.map(|name| home.run().join(format!("{name}.listening")));
    let [one, two, three] = (paths.each_ref())
        .map(|path| std::os::fd::OwnedFd::from(UnixListener::bind(path).unwrap()));
    let user = User::from_uid(getuid()).unwrap().unwrap().name;
    let keys = home.path().join("credentials");
    std::fs::create_dir(&keys).unwrap();
    std::fs::write(keys.join("keys_sim"), crate::OPERATOR_KEY).unwrap();
    let program = home.command().get_program().to_owned();
    let mut command = Command::new("/bin/sh");
    command
        .env_clear()
        .env("AEX_LOG", "debug")
        .env("CREDENTIALS_DIRECTORY", keys)
        .env("LISTEN_FDS", "3")
        .env("LISTEN_FDNAMES", names.join(":"))
        .env("LOG", home.path().join("log"))
        .arg("-c")
        .arg("LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 4<&1 5<&2 </dev/null >/dev/null 2>\"$LOG\"")
        .arg(program)
        .args(["--system", "--worker-user", &user, "--admin-socket"])
        .arg(home.run().join("egress-admin.sock"))
        .arg("--journal")
        .arg(home.run().join("egress.journal"))
        .stdin(Stdio::from(one))
        .stdout(Stdio::from(two))
        .stderr(Stdio::from(three));
    (command, paths)
}

/// Connections on which nothing is ever said.
async fn flood(path: &Path) -> Vec<UnixStream> {
    let mut held = Vec::with_capacity(FLOOD);
    let flooding = async {
        while held.len() < FLOOD {
            match UnixStream::connect(path).await {
                Ok(stream) => held.push(stream),
                // Its queue is full for the moment.
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    };
    assert!(timeout(AT_ONCE, flooding).await.is_ok(), "no flood");
    held
}

async fn status(path: &Path) -> u16 {
    let ticket = ticket("sim", "/echo").1;
    let got = timeout(AT_ONCE, post(path, "/echo", &ticket, "x")).await;
    got.expect("nobody is kept waiting").status.as_u16()
}

#[tokio::test]
async fn a_flood_at_one_groups_socket_keeps_nobody_out_at_another() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let home = Home::new();
    let provider = Provider::start().await;
    let admin = Admin::start(&home.run(), vec![provider_config("sim", &provider.url())]);
    let (command, [red, common, blue]) =
        as_a_service(&home, ["egress-red", "egress", "egress-blue"]);
    let mut egress = Egress::spawn(command, common.clone());
    admin.acting_on(1).await;

    let flood = flood(&red).await;
    for _ in 0..20 {
        assert_eq!(status(&common).await, 200);
        assert_eq!(status(&blue).await, 200);
    }
    // The control: the flood has all of its own places, and stands in its own way.
    assert!(flood.len() > GROUP_PLACES);
    let mut last = UnixStream::connect(&red).await.unwrap();
    last.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut byte = [0];
    let waits = timeout(Duration::from_secs(1), last.read(&mut byte)).await;
    assert!(waits.is_err(), "{waits:?}");
    drop(flood);
    let answered = timeout(PATIENCE, last.read(&mut byte)).await.unwrap();
    assert_eq!(answered.unwrap(), 1);
    assert_eq!(status(&red).await, 200);

    egress.terminate();
    assert!(egress.exit().await.success(), "{}", home.log());
}

#[tokio::test]
async fn a_socket_that_nobody_knows_ends_the_start() {
    let home = Home::new();
    let (command, [common, ..]) = as_a_service(&home, ["egress", "egress-red", "worker"]);
    let mut egress = Egress::spawn(command, common);
    assert!(!egress.exit().await.success());
    assert!(home.log().contains("\"worker\""), "{}", home.log());
}
