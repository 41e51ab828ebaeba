//! What a confined command can still get at of AEX's and of other programs': other kernels of its user, files that
//! are kept elsewhere, sockets that are listened at, programs that the kernel runs as root.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use aex_tests::harness::root_or_skip;
use aex_tests::tls::Pki;
use nix::libc;

use super::escapes::for_both;
use super::{NOBODY, User, text};
use crate::common::sim;

/// A program of the user's that answers each request at a socket, until the test ends.
fn serves_at(path: &Path, user: &User) {
    let listener = UnixListener::bind(path).unwrap();
    chown(path, user.uid, user.uid).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // Whoever leaves early is answered all the same.
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nserved\n");
        }
    });
}

impl User {
    fn place(&self) -> PathBuf {
        self.home.parent().unwrap().parent().unwrap().to_owned()
    }

    fn confined(&self, options: &[&str], script: &str) -> String {
        let mut args = vec!["run", "-a", "bot", "--confine"];
        args.extend(options);
        args.extend(["--", "bash", "-c", script]);
        text(&self.aex(&args))
    }

    fn restart(&self, options: &[&str]) {
        assert!(self.aex(&["daemon", "stop"]).status.success());
        let mut args = vec!["daemon", "start", "--workers", "1"];
        args.extend(options);
        let started = self.aex(&args);
        assert!(started.status.success(), "{}", text(&started));
    }
}

#[test]
fn no_program_that_listens_outside_can_be_asked_but_one_that_is_named() {
    for_both(
        "no_program_that_listens_outside_can_be_asked_but_one_that_is_named",
        |user| {
            // As a bus is, where there is no directory of the session's own.
            let socket = user.place().join("dbus-0123456789");
            serves_at(&socket, user);
            let path = socket.display().to_string();
            let script = format!(
                "curl -sS --max-time 5 --unix-socket {path} http://x/; mv {path} {path}.old && echo moved; true"
            );
            assert!(text(&user.run(false, &script.replace("mv", "false"))).contains("served"));
            let said = user.confined(&[], &script);
            assert!(
                !said.contains("served") && !said.contains("moved"),
                "{said}"
            );
            let said = user.confined(&["--allow-socket", &path], &script);
            assert!(said.contains("served"), "{said}");
        },
    );
}

#[test]
fn no_other_kernel_of_the_user_is_there() {
    for_both("no_other_kernel_of_the_user_is_there", |user| {
        let other = User::start(user.uid, &sim());
        let (own, home) = (user.home.display(), other.home.display());
        let script = format!(
            "cat {home}/config/models.yaml; AEX_HOME={home} \"$AEX\" agent set bot --budget 7; \
             cat {own}/config/models.yaml; AEX_HOME={own} \"$AEX\" agent set bot --budget 7; echo done"
        );
        let said = user.confined(&[], &script);
        assert!(
            said.contains("done") && !said.contains("providers:"),
            "{said}"
        );
        // By its socket alone, which says nothing of where the rest is; also through a link.
        let link = user.place().join("link");
        symlink(user.home.join("run"), &link).unwrap();
        for socket in [user.home.join("run/admin.sock"), link.join("admin.sock")] {
            let mut command = user.command(&user.programs.join("aex"));
            command
                .env("AEX_HOME", user.place().join("nowhere"))
                .env("AEX_SOCKET", socket)
                .args(["run", "-a", "bot", "--confine", "--", "bash", "-c", &script]);
            let said = text(&command.output().unwrap());
            assert!(
                said.contains("done") && !said.contains("providers:"),
                "{said}"
            );
        }
        for user in [user, &other] {
            let shown = text(&user.aex(&["agent", "show", "bot", "--json"]));
            assert!(shown.contains("\"budget_micro\":1000000"), "{shown}");
        }
    });
}

#[test]
fn settings_that_are_kept_elsewhere_are_hidden() {
    for_both("settings_that_are_kept_elsewhere_are_hidden", |user| {
        let kept = user.place().join("dotfiles");
        fs::create_dir(&kept).unwrap();
        let file = user.home.join("config/models.yaml");
        fs::copy(&file, kept.join("models.yaml")).unwrap();
        fs::remove_file(&file).unwrap();
        symlink(kept.join("models.yaml"), &file).unwrap();
        for path in [&kept, &kept.join("models.yaml")] {
            chown(path, user.uid, user.uid).unwrap();
        }
        let script = format!(
            "cat {0}/models.yaml; mv {0} {0}.old && echo moved; mv {0}/models.yaml {0}/x && echo moved; echo done",
            kept.display()
        );
        let said = user.confined(&[], &script);
        assert!(said.contains("done"), "{said}");
        assert!(
            !said.contains("providers:") && !said.contains("moved\n"),
            "{said}"
        );
    });
}

#[test]
fn of_tls_it_has_the_certificate_and_not_the_key() {
    for_both("of_tls_it_has_the_certificate_and_not_the_key", |user| {
        let pair = Pki::make().unwrap();
        let files = [("cert.pem", &pair.cert_pem), ("key.pem", &pair.key_pem)];
        let [cert, key] = files.map(|(name, pem)| {
            let path = user.place().join(name);
            fs::write(&path, pem).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            chown(&path, user.uid, user.uid).unwrap();
            path.display().to_string()
        });
        user.restart(&[
            "--listen",
            "127.0.0.1:0",
            "--tls-cert",
            &cert,
            "--tls-key",
            &key,
        ]);
        let script = format!(
            "cat {key}; cat {cert}; {{ : >> {cert}; }} && echo written; mv {cert} {cert}.old && echo moved; true"
        );
        let said = user.confined(&[], &script);
        assert!(said.contains("BEGIN CERTIFICATE"), "{said}");
        for gone in ["PRIVATE KEY", "written\n", "moved\n"] {
            assert!(!said.contains(gone), "{gone}: {said}");
        }
    });
}

#[test]
fn the_socket_of_its_requests_cannot_be_replaced_and_others_not_used() {
    for_both(
        "the_socket_of_its_requests_cannot_be_replaced_and_others_not_used",
        |user| {
            let [own, other] =
                ["sockets/own.sock", "other.sock"].map(|name| user.place().join(name));
            fs::create_dir(own.parent().unwrap()).unwrap();
            chown(own.parent().unwrap(), user.uid, user.uid).unwrap();
            let [own, other] = [own, other].map(|path| path.display().to_string());
            let listen = [&own, &other].map(|path| format!("unix:{path}"));
            user.restart(&["--listen", &listen[0], "--listen", &listen[1]]);
            let me = "-sS -o /dev/null -w 'status %{http_code}\\n' -H \"Authorization: Bearer $OPENAI_API_KEY\" \
                      http://x/v1/aex/me";
            let script = format!(
                "curl --unix-socket {own} {me}; echo other; curl --unix-socket {other} {me}; \
                 mv {own} {own}.old && echo moved; rm {own} && echo moved; dir=$(dirname {own}); \
                 mv $dir $dir.old && echo moved; true"
            );
            let said = user.confined(&[], &script);
            let (first, second) = said.split_once("other\n").unwrap();
            assert!(first.contains("status 200"), "{said}");
            assert!(second.contains("status 000"), "{said}");
            assert!(!said.contains("moved\n"), "{said}");
        },
    );
}

/// The kernel asks a program of root's for a key that it has not, outside of every namespace.
#[test]
fn the_kernels_keys_are_not_asked_for() {
    for_both("the_kernels_keys_are_not_asked_for", |user| {
        let calls = [libc::SYS_add_key, libc::SYS_request_key, libc::SYS_keyctl];
        for call in calls {
            let script = format!(
                "python3 -c 'import ctypes as c; c.CDLL(None, use_errno=True).syscall({call}, 0, 0, 0, 0, 0); \
                 print(\"errno\", c.get_errno())'"
            );
            let said = user.confined(&[], &script);
            assert!(
                said.contains(&format!("errno {}\n", libc::EPERM)),
                "{call}: {said}"
            );
        }
    });
}

#[test]
fn root_cannot_change_what_the_kernel_runs() {
    if !root_or_skip("root_cannot_change_what_the_kernel_runs") {
        return;
    }
    let user = User::start(None, &sim());
    let exchange = "import ctypes as c, os; os.symlink(\"/tmp\", \"/aex-trial-link\"); \
                    c.CDLL(None).renameat2(-100, b\"/aex-trial-link\", -100, b\"/aex-trial-none\", 0)";
    let said = user.confined(&[], &format!("python3 -c '{exchange}'; ls / | grep trial; touch /tmp/aex-trial-$$ && rm /tmp/aex-trial-$$ && echo free"));
    assert!(
        said.contains("Read-only file system") && !said.contains("aex-trial-link\n"),
        "{said}"
    );
    assert!(said.contains("free"), "{said}");
    let script = "for dir in / /usr /usr/bin /usr/sbin /usr/lib /sbin /bin /lib /etc /boot; do
            [ -d $dir ] || continue
            { : > $dir/aex-trial-file; } 2>/dev/null && rm $dir/aex-trial-file && echo CAN $dir
        done; echo done";
    assert!(text(&user.run(false, script)).contains("CAN /etc"));
    let said = user.confined(&[], script);
    assert!(said.contains("done") && !said.contains("CAN"), "{said}");
}

#[test]
fn its_own_programs_cannot_be_replaced() {
    for_both("its_own_programs_cannot_be_replaced", |user| {
        // As a user has them in a directory of his own.
        chown(&user.programs, user.uid, user.uid).unwrap();
        let script = "cd \"${AEX%/*}\"; for name in aex-proxy aex-egress aex-admin aex; do
                mv $name $name.old && echo moved; rm -f $name && echo moved
                { : >> $name; } 2>/dev/null && echo written
            done; : > beside && echo done";
        let said = user.confined(&[], script);
        assert!(said.contains("done"), "{said}");
        assert!(
            !said.contains("moved\n") && !said.contains("written"),
            "{said}"
        );
    });
}

#[test]
fn what_is_mounted_in_aex_home_is_hidden_where_it_comes_from() {
    if !root_or_skip("what_is_mounted_in_aex_home_is_hidden_where_it_comes_from") {
        return;
    }
    let user = User::start(None, &sim());
    let kept = user.place().join("kept.yaml");
    fs::copy(user.home.join("config/models.yaml"), &kept).unwrap();
    let aex = user.programs.join("aex");
    let script = format!(
        "mount --bind {0} {1}/config/models.yaml && exec {2} run -a bot --confine -- \
         sh -c 'cat {0}; echo \"#\" >> {0}; echo done'",
        kept.display(),
        user.home.display(),
        aex.display()
    );
    let mut command = user.command(Path::new("unshare"));
    let said = text(
        &command
            .args(["-m", "bash", "-c", &script])
            .output()
            .unwrap(),
    );
    assert!(
        said.contains("done") && !said.contains("providers:"),
        "{said}"
    );
    assert!(!fs::read_to_string(&kept).unwrap().contains('#'), "{said}");
}

#[test]
fn what_is_no_socket_is_not_allowed_as_one() {
    let user = User::start(None, &sim());
    for path in ["/etc/passwd", "/tmp/aex-no-such-socket", "/tmp"] {
        let said = user.confined(&["--allow-socket", path], "echo started");
        assert!(
            said.contains("there is no socket") && !said.contains("started\n"),
            "{said}"
        );
    }
}

#[test]
fn nobody_else_chooses_what_is_hidden() {
    if !root_or_skip("nobody_else_chooses_what_is_hidden") {
        return;
    }
    let user = User::start(Some(NOBODY), &sim());
    let sockets = user.place().join("tm");
    fs::create_dir(&sockets).unwrap();
    fs::set_permissions(&sockets, fs::Permissions::from_mode(0o1777)).unwrap();
    let work = user.place().join("work");
    fs::create_dir(&work).unwrap();
    fs::write(work.join("file"), "still here\n").unwrap();
    // Root's, so not the user's.
    symlink(&work, sockets.join(format!("tmux-{NOBODY}"))).unwrap();
    let mut command = user.command(&user.programs.join("aex"));
    command.env("TMUX_TMPDIR", &sockets);
    let show = format!("cat {}/file", work.display());
    command.args(["run", "-a", "bot", "--confine", "--", "bash", "-c", &show]);
    let said = text(&command.output().unwrap());
    assert!(said.contains("still here"), "{said}");
}
