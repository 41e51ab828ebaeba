"""What an installation leaves behind, and how the services are started, stopped and reloaded."""

import re
import subprocess

from boot import until
from case import MODELS, OPERATOR, PORT, STRANGER, Host, Installed, SystemCase, installed_version

UNITS = (
    "aex-admin.service aex-egress.service aex-proxy@1.service aex-admin.socket aex-admin-audit.socket "
    "aex-admin-worker.socket aex-admin-egress.socket aex-egress.socket aex-proxy.socket"
).split()
# Tries to get a port until its standard input ends, and once more then; tells whether it did, and how often
# it tried.
SQUAT = """
import select, socket, sys
print("trying", flush=True)
tries, last = 0, False
while not last:
    last = bool(select.select([sys.stdin], [], [], 0)[0])
    tries += 1
    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(("127.0.0.1", int(sys.argv[1])))
        taken.listen()
    except OSError:
        taken.close()
        continue
    print("taken")
    sys.stdin.read()
    last = True
print(tries)
"""


def root_processes(boot):
    """Processes of root's, by command; not those of this test, nor kernel threads."""
    lines = boot.out("ps -eo user:32,pid,ppid,args --no-headers").splitlines()
    found = [line.split(None, 3) for line in lines]
    return {args for user, _, parent, args in found if user == "root" and parent not in ("0", "2")}


class FreshInstall(SystemCase):
    """dpkg -i on a clean Debian, and nothing more."""

    @classmethod
    def setUpClass(cls):
        cls.boot = Host()
        cls.addClassCleanup(cls.boot.stop)
        cls.before = root_processes(cls.boot)
        cls.said = cls.boot.install()

    def test_it_runs_at_once_and_after_the_next_boot(self):
        for unit in UNITS:
            until(lambda: self.boot.is_active(unit), 10, self.boot.state)
        enabled = self.boot.out("systemctl list-unit-files --state=enabled --no-legend 'aex*'")
        for unit in ("aex.target", "aex-admin.service", "aex-proxy.socket"):
            self.assertIn(unit, enabled)
        self.assertEqual(self.boot.out("systemctl is-enabled aex-proxy@1.service"), "enabled")
        until(lambda: self.boot.get("/readyz").status == 200, 10, self.boot.state)

    def test_nothing_of_it_runs_as_root(self):
        self.assertEqual(root_processes(self.boot) - self.before, set())
        until(lambda: self.boot.main_pid("aex-admin.service"), 10, self.boot.state)
        for unit, user in (
            ("aex-admin.service", "aex"),
            ("aex-egress.service", "aex-egress"),
            ("aex-proxy@1.service", "aex-proxy"),
        ):
            pid = self.boot.main_pid(unit)
            self.assertEqual(self.boot.out(f"ps -o user:32= -p {pid}"), user)

    def test_files_have_their_owners_and_modes(self):
        for path, wanted in {
            "/etc/aex": "2750 root aex-admin",
            "/etc/aex/models.yaml": "640 root aex-admin",
            "/etc/aex/policies": "2750 root aex-admin",
            "/etc/aex/keys": "700 root root",
            "/etc/aex/tls": "750 root aex-proxy",
            "/etc/aex/keys.encrypted": "700 root root",
            "/var/lib/aex": "700 aex aex-admin",
            "/var/lib/aex/aex.db": "600 aex aex-admin",
            "/run/aex": "755 root root",
            "/run/aex/admin.sock": "660 root aex-admin",
            "/run/aex/audit.sock": "660 root aex-audit",
            "/run/aex/worker.sock": "660 root aex-proxy",
            "/run/aex/egress-admin.sock": "660 root aex-egress",
            "/run/aex/egress.sock": "660 root aex-proxy",
            "/run/aex-egress": "700 aex-egress aex-egress",
            "/run/aex/kept": "770 root aex-proxy",
        }.items():
            self.assertEqual(self.boot.out(f"stat -c '%a %U %G' {path}"), wanted, path)
        # Nothing that the package brought is anybody's to write but root's, or runs with more rights.
        odd = self.boot.out("dpkg -L aex | xargs -d '\\n' -I{} find {} -maxdepth 0 ! -type l "
                            "\\( -perm /6022 -o ! -user root \\)")  # fmt: skip
        self.assertEqual(odd, "")

    def test_the_command_line_comes_with_its_pages_and_completions(self):
        for file in (
            "man/man1/aex.1.gz",
            "man/man1/aex-agent-create.1.gz",
            "bash-completion/completions/aex",
            "zsh/vendor-completions/_aex",
            "fish/vendor_completions.d/aex.fish",
        ):
            self.assertGreater(int(self.boot.out(f"stat -c %s /usr/share/{file}")), 100, file)
        self.boot.run("bash -n /usr/share/bash-completion/completions/aex")
        for program in ("aex", "aex-ctl", "aex-admin", "aex-egress", "aex-proxy"):
            self.assertIn(installed_version(), self.boot.out(f"{program} --version"))

    def test_dpkg_has_nothing_to_complain_of(self):
        self.assertEqual(self.boot.out("dpkg --verify aex; dpkg --audit"), "")
        self.assertNotRegex(self.said, re.compile("warn|fail|error", re.I))


class Running(Installed):
    def test_a_stop_ends_all_of_it_and_a_start_brings_it_back(self):
        token = self.agent("stopped")
        self.boot.run("systemctl stop aex.target 'aex-*'")
        for unit in UNITS:
            self.assertFalse(self.boot.is_active(unit), unit)
        self.assertEqual(self.boot.out("pgrep -u aex,aex-egress,aex-proxy || true"), "")
        self.assertEqual(self.boot.out("find /run/aex -type s"), "")
        self.assertEqual(self.ask(token).status, 0)
        self.assertEqual(self.boot.run("aex status", user=OPERATOR, check=False).returncode, 3)
        self.boot.run("systemctl start aex.target")
        self.assert_serves(token)
        for unit in UNITS:
            self.assertTrue(self.boot.is_active(unit), unit)

    def test_stopping_the_target_alone_stops_everything_too(self):
        token = self.agent("target")
        self.boot.run("systemctl stop aex.target")
        until(lambda: not any(map(self.boot.is_active, UNITS)), 15, self.boot.state)
        self.boot.run("systemctl start aex.target")
        self.assert_serves(token)

    def test_a_restart_of_the_target_restarts_everything_but_the_sockets(self):
        token = self.agent("restarted")
        services = [unit for unit in UNITS if unit.endswith(".service")]
        sockets = self.boot.listeners()
        self.assertGreaterEqual(len(sockets), 6)
        for _ in range(3):
            before = {unit: self.boot.main_pid(unit) for unit in services}
            self.boot.run("systemctl restart aex.target")
            self.assert_serves(token)
            for unit in UNITS:
                until(lambda: self.boot.is_active(unit), 15, unit)
            for unit in services:
                self.assertNotIn(self.boot.main_pid(unit), (0, before[unit]), unit)
            self.assertEqual(self.boot.listeners(), sockets)

    def test_nobody_takes_the_port_while_the_target_is_restarted(self):
        token = self.agent("kept-out")
        self.assertNotIn("taken", self.squatted("systemctl restart aex.target"))
        self.assert_serves(token)
        # The control: once it is let go, they do.
        self.assertIn("taken", self.squatted("systemctl stop aex.target 'aex-*'"))
        self.boot.run("systemctl start aex.target")
        self.assert_serves(token)

    def squatted(self, command):
        """What another user says who tries to get the port for as long as the command takes."""
        squatter = self.boot.start(["python3", "-c", SQUAT, str(PORT)], user=STRANGER, stdin=subprocess.PIPE)
        self.assertEqual(squatter.stdout.readline(), "trying\n")
        self.boot.run(command)
        said, _ = squatter.communicate(timeout=20)
        self.assertGreater(int(said.split()[-1]), 100, said)
        return said

    def test_a_reload_takes_new_settings_and_keeps_the_old_ones_when_they_are_bad(self):
        def write(text):
            self.boot.write("/etc/aex/models.yaml", text, 0o640, "root:aex-admin")

        pid = self.boot.main_pid("aex-admin.service")
        write(MODELS.replace("\n  m:", "\n  renamed:"))
        self.boot.run("systemctl reload aex-admin.service")
        self.assertIn("renamed", self.boot.out("aex models", user=OPERATOR))
        write("models: [")
        self.assertNotEqual(self.boot.run("systemctl reload aex-admin.service", check=False).returncode, 0)
        self.assertIn("models.yaml:", self.boot.journal("aex-admin.service"))
        self.assertIn("renamed", self.boot.out("aex models", user=OPERATOR))
        write(MODELS)
        self.boot.run("systemctl reload aex-admin.service")
        self.assertNotIn("renamed", self.boot.out("aex models", user=OPERATOR))
        self.assertEqual(self.boot.main_pid("aex-admin.service"), pid)

    def test_keys_are_taken_plain_and_encrypted(self):
        token = self.agent("keys")
        boot = self.boot
        for name, key in (("plain", "fake-key-plain-2"), ("sealed", "fake-key-sealed-3")):
            with self.subTest(name):
                if name == "sealed":
                    boot.run("rm /etc/aex/keys/sim")
                    boot.run(
                        "systemd-creds encrypt --name=sealed_sim - /etc/aex/keys.encrypted/sim", stdin=key
                    )
                    self.assertNotIn(key, boot.out("cat /etc/aex/keys.encrypted/sim"))
                else:
                    boot.write("/etc/aex/keys/sim", key + "\n", 0o600)
                boot.run("systemctl restart aex-egress.service")
                self.assert_serves(token)
                sent = dict(boot.bill()["log"][-1]["headers"])
                self.assertEqual(sent["authorization"], f"Bearer {key}")
