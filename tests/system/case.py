"""What the tests of the installed package share: a booted system with AEX in it, a simulated provider
beside it, and short ways to do what every test does.

To add a test: put a class into a new test_NAME.py (all.py finds it):

    from case import Installed

    class Floods(Installed):
        def test_a_flood_is_held_to_its_share(self):
            token = self.agent("flooder", "1.00", 600)
            self.assertEqual(self.ask(token).status, 200)
            self.boot.run("…", user="mallory")        # a shell line in there, as a local user
            self.boot.start("…")                      # a process that goes on beside the test

`Installed` boots once a class, installs the .deb, starts everything, and ends it; set `workers = 2` for
more workers, override `settings()` for another models.yaml. Use `boot.Boot` for a system without AEX.
Wait with `until(condition, limit_s, what)`, never with a sleep in place of a condition. Run one file:

    make deb PROFILE=debug && python3 tests/system/all.py test_serve [-k NAME]
"""

import functools
import json
import os
import re
import subprocess
import sys
import unittest
from pathlib import Path
from typing import NamedTuple

from boot import TREE, WORK, Boot, Failed, until

BIN = TREE / "target" / "debug"
# Fake as can be seen, and never elsewhere: finding one anywhere else is a leak.
OPERATOR_KEY = "fake-operator-key-7Qx2"
# A user of the host who has nothing to do with AEX, and one who is in a group of AEX's.
STRANGER = "mallory"
OPERATOR = "olga"
AUDITOR = "otto"
SIM = "127.0.0.1:8080"
PORT = 9000
START_LIMIT_S = 20
# After a SIGKILL: restart delay, start, and a slow machine.
RECOVERY_LIMIT_S = 10

MODELS = f"""
providers:
  sim:
    base_url: http://{SIM}/v1
models:
  m:
    provider: sim
    price: {{ input_per_mtok: 1, output_per_mtok: 10 }}
    max_output_tokens: 1000
    context_window: 8000
    hidden_output: false
"""

SIM_UNIT = f"""
[Service]
ExecStart=/opt/sim/aex-sim --listen {SIM} --threads 2
User=sim
"""


class Answer(NamedTuple):
    status: int
    head: str
    body: str

    @property
    def json(self):
        return json.loads(self.body)


@functools.cache
def deb(version):
    """The .deb of the programs in target/debug, under a version of the test's own."""
    out = WORK / "deb"
    made = subprocess.run(
        ["make", "--no-print-directory", "deb", "PROFILE=debug", f"VERSION={version}", f"DIST={out}"],
        cwd=TREE, env=dict(os.environ, COMPRESS="none", MAKEFLAGS=""), capture_output=True, text=True,
    )  # fmt: skip
    if made.returncode != 0:
        raise Failed(f"make deb: {made.stdout}{made.stderr}")
    (path,) = out.glob(f"aex_{version}_*.deb")
    return path


@functools.cache
def rpm():
    """The same programs as an .rpm."""
    out = WORK / "rpm"
    made = subprocess.run(
        ["make", "--no-print-directory", "rpm", "PROFILE=debug", f"DIST={out.relative_to(TREE)}",
         "RPMFLAGS=--define '_binary_payload w1.gzdio'"],
        cwd=TREE, env=dict(os.environ, MAKEFLAGS=""), capture_output=True, text=True,
    )  # fmt: skip
    if made.returncode != 0:
        raise Failed(f"make rpm: {made.stdout}{made.stderr}")
    (path,) = out.glob(f"*/aex-{installed_version()}-*.rpm")
    return path


def installed_version():
    return re.search(r'^version = "(.*)"', (TREE / "Cargo.toml").read_text(), re.M)[1]


class Host(Boot):
    """A booted system with people, a provider and the .deb copied in, and what is done to it."""

    def __init__(self):
        super().__init__()
        try:
            self._furnish()
        except BaseException:
            self.stop()
            raise

    def _furnish(self):
        self.put(BIN / "aex-sim", "/opt/sim/aex-sim")
        self.write("/etc/systemd/system/sim.service", SIM_UNIT)
        self.run(
            f"useradd --system sim; useradd -m {STRANGER}; systemctl daemon-reload;"
            " systemctl start sim"
        )

    def install(self, version=None):
        """dpkg -i, as an operator would."""
        package = deb(version or installed_version())
        self.put(package, f"/root/{package.name}", 0o644)
        done = self.run(f"dpkg -i /root/{package.name}; code=$?; rm /root/{package.name}; exit $code")
        return done.stdout + done.stderr

    def configure(self, settings=MODELS, workers=1):
        """Settings and a key in force, everything started, two people in AEX's groups."""
        self.write("/etc/aex/models.yaml", settings, 0o640, "root:aex-admin")
        self.write("/etc/aex/keys/sim", OPERATOR_KEY, 0o600)
        self.run(f"useradd -m -G aex-admin {OPERATOR}; useradd -m -G aex-audit {AUDITOR}")
        self.run("systemctl restart aex-admin.service aex-egress.service")
        units = " ".join(f"aex-proxy@{n}.service" for n in range(1, workers + 1))
        self.run(f"systemctl enable --now aex.target {units}")
        until(lambda: self.get("/readyz").status == 200, START_LIMIT_S, self.state)

    def state(self):
        """For people, when a wait was in vain."""
        units = self.run("systemctl list-units --all --no-pager 'aex*'", check=False).stdout
        log = self.run("journalctl --no-pager -n 40 -o cat -u 'aex*'", check=False).stdout
        return f"AEX serves\n{units}\n{log}"

    def listeners(self):
        """The inode of each listening socket of AEX's, by address: the same as long as it is the same socket."""
        tcp = self.out(f"ss -Hltne 'sport = :{PORT}'").splitlines()
        unix = (line.split() for line in self.out("ss -Hlx").splitlines())
        found = {line.split()[3]: re.search(r"ino:(\d+)", line)[1] for line in tcp}
        return found | {line[4]: line[5] for line in unix if line[4].startswith("/run/aex/")}

    def aex(self, line, user=OPERATOR, **more):
        """`aex LINE --json` as an operator; its document."""
        said = self.out(f"aex --json {line}", user=user, **more)
        return json.loads(said) if said else None

    # -- HTTP, through the network of the booted system --------------------------------------------

    def http(self, method, path, token=None, body=None, headers=(), user=None, limit_s=30, socket=None):
        """One request with curl; status 0 where there was no answer."""
        words = ["curl", "-sS", "-i", "--max-time", str(limit_s), "-X", method,
                 f"http://127.0.0.1:{PORT}{path}"]  # fmt: skip
        if socket:
            words += ["--unix-socket", socket]
        for line in headers:
            words += ["-H", line]
        if token:
            words += ["-H", f"Authorization: Bearer {token}"]
        if body is not None:
            words += ["-H", "Content-Type: application/json", "--data-binary", "@-"]
        done = self.run(
            words, user=user, check=False, stdin=None if body is None else json.dumps(body)
        )
        if done.returncode != 0:
            return Answer(0, done.stderr, "")
        head, _, text = done.stdout.replace("\r\n", "\n").partition("\n\n")
        while head.startswith("HTTP/1.1 100"):
            head, _, text = text.partition("\n\n")
        return Answer(int(head.split()[1]), head, text)

    def get(self, path, **more):
        return self.http("GET", path, **more)

    def ask(self, token, text="hello", stream=False, **more):
        """A chat request."""
        body = {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 20}
        if stream:
            body["stream"] = True
        return self.http("POST", "/v1/chat/completions", token=token, body=body, **more)

    def behave(self, **behaviour):
        """Tells the simulated provider how to behave (tests/src/sim/behaviour.rs); nothing: as at first."""
        self.run(["curl", "-fsS", f"http://{SIM}/_sim/behaviour", "-d", json.dumps(behaviour)])

    def bill(self):
        """What the provider has billed, and the requests that it saw."""
        return json.loads(self.out(f"curl -fsS http://{SIM}/_sim/bill"))


class SystemCase(unittest.TestCase):
    """Shows the journal of the booted system beside a failure."""

    boot: Host

    def run(self, result=None):
        before = len(result.failures) + len(result.errors)
        super().run(result)
        if len(result.failures) + len(result.errors) > before and getattr(self, "boot", None):
            sys.stderr.write(f"\n--- {self.id()}\n{self.boot.state()}\n")
        return result


class Installed(SystemCase):
    """One booted system a class, AEX installed from the .deb and serving."""

    workers = 1

    @classmethod
    def settings(cls):
        return MODELS

    @classmethod
    def setUpClass(cls):
        cls.boot = Host()
        cls.addClassCleanup(cls.boot.stop)
        cls.boot.install()
        cls.boot.configure(cls.settings(), cls.workers)

    def agent(self, name, budget="1.00", rpm=6000, options=""):
        """A new agent; its token."""
        return self.boot.aex(f"agent create {name} {budget} {rpm} {options}")["token"]

    def ask(self, token, **more):
        return self.boot.ask(token, **more)

    def assert_serves(self, token, within_s=RECOVERY_LIMIT_S):
        """A request is answered, at the latest after a while."""
        answers = []

        def served():
            answers.append(self.ask(token))
            return answers[-1].status == 200

        until(served, within_s, lambda: f"a request is answered; last {answers[-1]}")

    def assert_sound(self):
        """The ledger is whole, and nobody changed it from outside."""
        self.boot.run("aex audit --strict", user=OPERATOR)


def path_of(name):
    """A file beside the tests."""
    return Path(__file__).parent / name
