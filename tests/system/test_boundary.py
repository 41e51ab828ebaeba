"""Who may reach what, tried as those who may not: other users of the host, a worker that was taken over,
an egress that was taken over.

A process is taken over for real (takeover.py): the test makes the system calls from inside of it, under
its unit's sandbox and its own.
"""

import json
import os
import socket
import struct

from boot import until
from case import AUDITOR, OPERATOR, OPERATOR_KEY, PORT, STRANGER, Installed
from takeover import Takeover, borrow_socket

# Every place where something of AEX lies that is not for everybody.
SECRETS = (
    "/var/lib/aex", "/var/lib/aex/aex.db", "/var/lib/aex/aex.db-wal", "/var/lib/aex/aex.db.key",
    "/etc/aex/models.yaml", "/etc/aex/keys", "/etc/aex/keys/sim", "/etc/aex/keys.encrypted",
    "/run/aex-egress", "/run/aex-egress/egress.journal", "/run/aex/kept", "/run/aex/kept/spool",
    "/run/credentials/aex-egress.service", "/run/credentials/aex-egress.service/keys_sim",
)  # fmt: skip
SOCKETS = ("admin.sock", "audit.sock", "worker.sock", "egress-admin.sock", "egress.sock")
CONNECT = """
import socket, sys
for path in sys.argv[1:]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        print("connected", path)
    except OSError as error:
        print(type(error).__name__, path)
"""
# aex-egress/src/doors.rs
COMMON_PLACES = 4096
REFUSED = ("ENOENT", "EACCES", "EPERM")


def connects(boot, user, groups=None):
    """Which of the kernel's sockets a user may connect to."""
    paths = [f"/run/aex/{name}" for name in SOCKETS]
    said = boot.out(["python3", "-c", CONNECT, *paths], user=user, groups=groups)
    return {line.split("/")[-1] for line in said.splitlines() if line.startswith("connected")}


class OtherUsers(Installed):
    def setUp(self):
        if not hasattr(type(self), "token"):
            type(self).token = self.agent("theirs")
            self.assertEqual(self.ask(self.token).status, 200)

    def test_no_socket_is_theirs(self):
        self.assertEqual(connects(self.boot, STRANGER), set())
        self.assertEqual(connects(self.boot, "nobody"), set())
        # The control: the same attempt as those who may.
        self.assertEqual(connects(self.boot, OPERATOR), {"admin.sock"})
        self.assertEqual(connects(self.boot, AUDITOR), {"audit.sock"})
        self.assertEqual(connects(self.boot, "aex-proxy"), {"worker.sock", "egress.sock"})
        self.assertEqual(connects(self.boot, "aex-egress"), {"egress-admin.sock"})

    def test_no_file_is_theirs(self):
        there = [path for path in SECRETS if self.boot.run(["test", "-e", path], check=False).returncode == 0]
        # They are what they are called: else the test would show nothing.
        for path in ("/var/lib/aex/aex.db", "/etc/aex/keys/sim", "/run/aex-egress/egress.journal",
                     "/run/credentials/aex-egress.service/keys_sim"):  # fmt: skip
            self.assertIn(path, there)
        for user in (STRANGER, AUDITOR, "aex-proxy"):
            for path in there:
                if user == "aex-proxy" and path.startswith("/run/aex/kept"):
                    continue
                read = self.boot.run(f"cat {path} || ls {path}", user=user, check=False)
                self.assertNotEqual(read.returncode, 0, f"{user} reads {path}")
                self.assertNotIn(OPERATOR_KEY, read.stdout)
        for path in ("/var/lib/aex/aex.db", "/etc/aex/keys/sim"):
            self.assertNotEqual(self.boot.run(["cat", path], user=OPERATOR, check=False).returncode, 0, path)
        # Operators read the settings; root alone writes them.
        self.boot.run(["cat", "/etc/aex/models.yaml"], user=OPERATOR)
        for place in ("/etc/aex/new", "/etc/aex/models.yaml", "/run/aex/new", "/var/lib/aex/new"):
            tried = self.boot.run(f"echo >> {place}", user=OPERATOR, check=False)
            self.assertNotEqual(tried.returncode, 0, place)

    def test_no_log_is_theirs(self):
        read = self.boot.run("journalctl -q --no-pager -u 'aex*'", user=STRANGER, check=False)
        self.assertNotIn("aex_", read.stdout)
        self.assertIn("aex_", self.boot.journal("aex-admin.service"))

    def test_nothing_of_the_processes_is_theirs(self):
        for unit in ("aex-admin.service", "aex-egress.service", "aex-proxy@1.service"):
            pid = self.boot.main_pid(unit)
            for what in ("environ", "mem", "maps", "fd", "root", "cwd", "io", "stack"):
                path = f"/proc/{pid}/{what}"
                for user in (STRANGER, OPERATOR, "aex-proxy", "aex-egress", "aex"):
                    tried = self.boot.run(f"cat {path} || ls {path}/", user=user, check=False)
                    self.assertNotEqual(tried.returncode, 0, f"{user} reads {path} of {unit}")
            for user in (STRANGER, OPERATOR, AUDITOR):
                self.assertNotEqual(self.boot.run(f"kill -9 {pid}", user=user, check=False).returncode, 0)
            self.assertNotIn(OPERATOR_KEY, self.boot.out(f"cat /proc/{pid}/environ /proc/{pid}/cmdline"))
            self.assertEqual(self.boot.out(f"grep 'Max core' /proc/{pid}/limits").split()[4:6], ["0", "0"])

    def test_the_command_line_says_what_they_lack(self):
        for user, line in ((STRANGER, "status"), (STRANGER, "agent list"), (AUDITOR, "agent pause theirs")):
            done = self.boot.run(f"aex {line}", user=user, check=False)
            self.assertEqual(done.returncode, 5, f"{user}: {line}: {done.stdout}{done.stderr}")
        self.assertIn("theirs", self.boot.out("aex agent list", user=AUDITOR))
        self.boot.run("aex audit", user=AUDITOR)

    def test_the_ledger_says_who_changed_what(self):
        boot = self.boot
        self.agent("raised")
        boot.aex("agent set raised --add 5.00")
        boot.run("aex agent pause raised")
        uids = {"agent.create": boot.out(f"id -u {OPERATOR}"), "agent.set": boot.out(f"id -u {OPERATOR}"),
                "agent.pause": "0"}  # fmt: skip
        # A whole configuration is a change too; what did not change is none.
        boot.run("echo '# by olga' >> /etc/aex/models.yaml")
        for _ in range(2):
            boot.run("aex config reload", user=OPERATOR)
        events = [json.loads(line) for line in boot.out("aex ledger export --format jsonl", user=AUDITOR).splitlines()]
        (reload,) = [e["detail"] for e in events if e["action"] == "config.reload"]
        self.assertEqual(str(reload["by_uid"]), boot.out(f"id -u {OPERATOR}").strip())
        digest = boot.out("sha256sum /etc/aex/models.yaml").split()[0]
        self.assertEqual(reload["files"]["models.yaml"], digest)
        for action, uid in uids.items():
            (event,) = [e for e in events if e["action"] == action and e["agent"] == "raised"]
            detail = event["detail"]
            detail = json.loads(detail) if isinstance(detail, str) else detail
            self.assertEqual(str(detail["by_uid"]), uid, action)
        boot.run("aex audit", user=AUDITOR)

    def test_a_token_is_enough_on_the_port(self):
        self.assertEqual(self.ask(self.token, user=STRANGER).status, 200)
        self.assertEqual(self.boot.ask("x", user=STRANGER).status, 401)


class TakenOver(Installed):
    workers = 2

    def process(self, unit):
        return self.boot.outer_pid(self.boot.main_pid(unit))

    def assert_cannot_open(self, taken, paths):
        for path in paths:
            self.assertIn(taken.open_error(path), REFUSED, path)
            # Nor around its own root, by way of another process's.
            for way in (f"/proc/1/root{path}", f"/proc/self/root/../..{path}"):
                self.assertIn(taken.open_error(way), REFUSED, way)

    def assert_confined(self, taken):
        """What no program of AEX can do once it serves."""
        for program in ("/bin/sh", "/usr/bin/python3", "/proc/self/exe", "/usr/bin/aex", "/usr/bin/aex-admin",
                        "/usr/bin/aex-proxy", "/usr/bin/aex-egress"):  # fmt: skip
            self.assertIn(taken.exec_error(program), REFUSED, program)
        for call, arguments in {
            "ptrace": (16, 1), "unshare": (0x10000000,), "mount": (b"none", b"/tmp", b"tmpfs", 0, 0),
            "bpf": (0, 0, 0), "process_vm_readv": (1, 0, 0, 0, 0, 0), "io_uring_setup": (8, 0),
        }.items():  # fmt: skip
            error = taken.error(call, *arguments)
            self.assertIn(error, ("EPERM", "EACCES", "ENOSYS"), call)
        for number in (1, 2):
            self.assertIn(taken.error("kill", number, 9), ("EPERM", "ESRCH"))
        tried = taken.signal_error(1)
        self.assertEqual(set(tried.values()), {"EPERM"}, tried)

    def test_a_worker(self):
        unit = "aex-proxy@1.service"
        with Takeover(self.process(unit)) as taken:
            self.assert_cannot_open(taken, [*SECRETS[:10], *SECRETS[12:], "/etc/passwd", "/etc/shadow", "/home"])
            for name in ("admin.sock", "audit.sock", "egress-admin.sock"):
                self.assertIn(taken.unix_error(f"/run/aex/{name}"), REFUSED, name)
            for path in ("/run/dbus/system_bus_socket", "/run/systemd/private", "/run/systemd/journal/socket"):
                self.assertIn(taken.unix_error(path), REFUSED, path)
            for place in ("127.0.0.1:8080", f"127.0.0.1:{PORT}", "10.0.0.1:443", "1.1.1.1:53"):
                host, port = place.split(":")
                self.assertTrue(taken.tcp_error(host, int(port)).startswith("socket: "), place)
            # The control: it does reach what it is for.
            for name in ("worker.sock", "egress.sock"):
                self.assertIsNone(taken.unix_error(f"/run/aex/{name}"), name)
            self.assert_confined(taken)
        # It went on as if nothing had been.
        self.assert_serves(self.agent("after-worker"))

    def test_a_worker_and_the_socket_that_all_share(self):
        token = self.agent("beside-it")
        fd = 3  # sd_listen_fds(3)
        sockets = self.boot.listeners()
        workers = [self.boot.main_pid(f"aex-proxy@{number}.service") for number in (1, 2)]
        with Takeover(self.process("aex-proxy@1.service")) as taken:
            # The control: it is the listener, and it does know it.
            self.assertEqual(taken.error("getsockname", fd, bytes(16), struct.pack("<I", 16)), None)
            tried = taken.end_listener(fd)
            self.assertEqual(set(tried.values()), {"EPERM"}, tried)
            # It stays stopped meanwhile: these are the other's.
            for _ in range(3):
                self.assertEqual(self.boot.ask(token, limit_s=5).status, 200)
        for _ in range(10):
            self.assertEqual(self.boot.ask(token, limit_s=5).status, 200)
        self.assertEqual(self.boot.listeners(), sockets)
        self.assertEqual([self.boot.main_pid(f"aex-proxy@{number}.service") for number in (1, 2)], workers)

    def test_a_shared_socket_that_root_shut_is_seen_and_opened_anew(self):
        boot = self.boot
        token = self.agent("after-shut")
        units = ("aex-proxy@1.service", "aex-proxy@2.service", "aex-proxy.socket")
        with borrow_socket(self.process(units[0]), 3) as listener:
            listener.shutdown(socket.SHUT_RDWR)
        # No start of a worker mends it, so none is tried; the socket's unit sees it once nobody has it.
        states = lambda: [boot.run(f"systemctl is-failed {unit}", check=False).stdout.strip() for unit in units]
        until(lambda: states() == ["failed"] * 3, 20, lambda: f"all are failed: {states()}")
        for unit in units[:2]:
            self.assertEqual(boot.out(f"systemctl show -P ExecMainStatus {unit}").strip(), "78")
        advice = "systemctl stop 'aex-proxy*'; systemctl start aex.target"
        self.assertEqual(boot.journal(units[0]).count(advice), 1)
        boot.run(advice)
        self.assert_serves(token)

    def test_the_egress(self):
        with Takeover(self.process("aex-egress.service")) as taken:
            self.assert_cannot_open(taken, [*SECRETS[:8], "/run/aex/kept/spool", "/etc/shadow", "/home"])
            for name in ("admin.sock", "audit.sock", "worker.sock", "egress.sock"):
                self.assertIn(taken.unix_error(f"/run/aex/{name}"), REFUSED, name)
            self.assert_confined(taken)
        self.assert_serves(self.agent("after-egress"))

    def test_the_ledgers_owner(self):
        with Takeover(self.process("aex-admin.service")) as taken:
            self.assert_cannot_open(taken, [*SECRETS[5:8], *SECRETS[8:], "/etc/shadow", "/home"])
            self.assertTrue(taken.tcp_error("127.0.0.1", 8080).startswith("socket: "))
            self.assert_confined(taken)
        self.assert_serves(self.agent("after-admin"))

    def test_the_attempts_work_where_nothing_confines(self):
        """The control of the others: the same calls, made from inside a process of root's own."""
        sleeper = self.boot.start(["sleep", "1000"])
        self.addCleanup(sleeper.wait)
        self.addCleanup(sleeper.kill)
        pid = until(
            lambda: next((p for p in os.listdir("/proc") if p.isdecimal() and self._is_sleep(p)), None),
            10, "it sleeps",
        )  # fmt: skip
        with Takeover(int(pid)) as taken:
            for path in ("/var/lib/aex/aex.db", "/etc/aex/keys/sim", "/run/aex-egress/egress.journal"):
                self.assertIsNone(taken.open_error(path), path)
            for name in SOCKETS:
                self.assertIsNone(taken.unix_error(f"/run/aex/{name}"), name)
            self.assertIsNone(taken.tcp_error("127.0.0.1", 8080))
            # Nobody is to be signalled by this one.
            tried = taken.signal_error(0)
            self.assertEqual(set(tried.values()), {None}, tried)
            self.assertIsNone(taken.exec_error("/bin/true"))

    def _is_sleep(self, pid):
        try:
            words = open(f"/proc/{pid}/cmdline").read().split("\0")[:2]
            same = os.readlink(f"/proc/{pid}/ns/mnt") == os.readlink(f"/proc/{self.boot.leader}/ns/mnt")
        except OSError:
            return False
        return words == ["sleep", "1000"] and same


class Groups(Installed):
    """A worker of one group: a door of its own, behind which nobody else's agents are."""

    def enable(self, group):
        """As docs/OPERATIONS.md says: sockets cannot be handed to programs that run already."""
        units = " ".join(name.format(group) for name in (
            "aex-admin-worker@{}.socket", "aex-egress@{}.socket", "aex-proxy-group@{}.socket", "aex-proxy-group@{}.service",
        ))  # fmt: skip
        self.boot.run(f"systemctl enable {units}")
        self.boot.run("systemctl restart aex.target")

    def test_it_serves_its_group_and_sees_no_other(self):
        boot = self.boot
        boot.run("aex group create red && aex group create blue", user=OPERATOR)
        red, blue = (self.agent(f"of-{group}", options=f"--group {group}") for group in ("red", "blue"))
        self.enable("red")
        door = "/run/aex/agents/red.sock"
        self.assertEqual(boot.ask(red, socket=door, user=STRANGER).status, 200)
        self.assertEqual(boot.ask(blue, socket=door, user=STRANGER).status, 401)
        self.assertEqual(boot.ask(blue).status, 200)
        # Kept answers of other workers, whose user is the same.
        boot.run("install -m 644 -o aex-proxy /dev/null /run/aex/kept/spool/of-others")
        taken_unit = "aex-proxy-group@red.service"
        with Takeover(boot.outer_pid(boot.main_pid(taken_unit))) as taken:
            for name in ("admin.sock", "groups/worker-red.sock", "groups/egress-red.sock", "agents/red.sock"):
                self.assertIn(taken.unix_error(f"/run/aex/{name}"), REFUSED, name)
            for path in ("/run/aex/kept/spool/of-others", "/etc/passwd", "/etc/aex"):
                self.assertIn(taken.open_error(path), REFUSED, path)
        # Nor does a worker of all others get at what is this group's own, which is there.
        with Takeover(boot.outer_pid(boot.main_pid("aex-proxy@1.service"))) as taken:
            self.assertIsNone(taken.open_error("/run/aex/kept/spool/of-others"))
            for name in ("worker-red.sock", "egress-red.sock"):
                boot.run(["test", "-S", f"/run/aex/groups/{name}"])
                self.assertEqual(taken.unix_error(f"/run/aex/groups/{name}"), "EACCES", name)
        # Everything comes back by itself with the target.
        boot.run("systemctl stop aex.target 'aex-*'; systemctl start aex.target")
        self.assertEqual(boot.ask(red, socket=door).status, 200)
        # Restarted with it, the sockets stay the same, and who calls meanwhile waits.
        sockets = boot.listeners()
        self.assertIn(door, sockets)
        boot.run("systemctl restart aex.target")
        self.assertEqual(boot.ask(red, socket=door).status, 200)
        self.assertEqual(boot.listeners(), sockets)
        self.assert_sound()

    def test_what_it_writes_is_bounded(self):
        boot = self.boot
        boot.run("aex group create gray", user=OPERATOR)
        gray, other = self.agent("of-gray", options="--group gray"), self.agent("roomy")
        self.enable("gray")
        door = "/run/aex/agents/gray.sock"
        again = ["Idempotency-Key: once"]
        first = boot.ask(gray, socket=door, headers=again)
        self.assertEqual(first.status, 200)
        # The control: its answers are kept there.
        self.assertEqual(boot.ask(gray, socket=door, headers=again).body, first.body)
        self.assertEqual(boot.ask(other, headers=again).body, boot.ask(other, headers=again).body)
        room = lambda: int(boot.out("stat -f -c '%a * %S' /run | xargs expr"))
        before = room()
        for unit, most_bytes in (("aex-proxy-group@gray.service", 64 << 20), ("aex-proxy@1.service", 128 << 20)):
            with Takeover(boot.outer_pid(boot.main_pid(unit))) as taken:
                held, error = taken.fill("/run/aex/kept/spool")
            self.assertEqual(error, "ENOSPC", unit)
            self.assertGreater(held, most_bytes // 2, unit)
            self.assertLessEqual(held, most_bytes, unit)
            self.assertGreater(room(), before - (1 << 20), unit)
            # It costs others no request, nor its own tenants.
            self.assertEqual(boot.ask(other).status, 200, unit)
            self.assertEqual(boot.ask(gray, socket=door).status, 200, unit)
        boot.run("rm /run/aex/kept/spool/fill-*; systemctl restart aex-proxy-group@gray.service")
        self.assertEqual(boot.ask(other, headers=["Idempotency-Key: later"]).status, 200)
        # Memory and threads have an end too.
        for unit in ("aex-proxy-group@gray", "aex-proxy@1", "aex-egress", "aex-admin"):
            for limit in ("MemoryMax", "TasksMax"):
                self.assertLess(int(boot.property(f"{unit}.service", limit)), 3 << 30, f"{limit} of {unit}")
        self.assert_sound()

    def test_its_flood_of_the_egress_keeps_no_other_out(self):
        boot = self.boot
        boot.run("aex group create green", user=OPERATOR)
        green, other = self.agent("of-green", options="--group green"), self.agent("elsewhere")
        self.enable("green")
        door = "/run/aex/agents/green.sock"
        self.assertEqual(boot.ask(green, socket=door).status, 200)
        unit = "aex-proxy-group@green.service"
        with Takeover(boot.outer_pid(boot.main_pid(unit))) as taken:
            # It has every place of its own socket, and its queue is full.
            held, error = taken.flood_unix("/run/aex/egress.sock")
            self.assertEqual(error, "EAGAIN")
            # That would be all places of a socket that workers share.
            self.assertGreater(held, COMMON_PLACES)
            for _ in range(5):
                # Each of its connections ends after 10 s; what waited for that would come later.
                self.assertEqual(boot.ask(other, limit_s=5).status, 200)
        boot.run(f"systemctl kill -s KILL {unit}")
        until(lambda: boot.ask(green, socket=door, limit_s=5).status == 200, 20, boot.state)
        self.assert_sound()
