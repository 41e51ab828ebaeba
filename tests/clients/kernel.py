"""Runs the real AEX programs and a provider for the Python tests, each kernel in a home of its own.

The programs are looked for in $AEX_BIN, else in target/release and target/debug of the checkout.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
PICO_PER_MICRO = 1_000_000
FAKE_KEY = "sk-sim-fake-operator-key"


def programs() -> pathlib.Path:
    root = HERE.parent.parent
    places = [os.environ.get("AEX_BIN"), root / "target/release", root / "target/debug"]
    for place in places:
        if place and (pathlib.Path(place) / "aex").exists():
            return pathlib.Path(place).resolve()
    sys.exit("the programs are not built: run `cargo build --workspace`, or set AEX_BIN")


def wait_for(what: str, condition, limit_s: float = 60):
    """What `condition` gives once it gives something; looked for, since nobody tells."""
    end = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < end, f"waited {limit_s} s for {what}"
        time.sleep(0.02)
    return found


class Provider:
    """A process that prints {"listen": ADDRESS} when it serves."""

    def __init__(self, command: list[str]) -> None:
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        line = self.process.stdout.readline()
        if not line:
            self.stop()
            self.log.seek(0)
            sys.exit(f"{command[0]} did not start: {self.log.read().decode(errors='replace')}")
        self.listen = json.loads(line)["listen"]

    def control(self, path: str, body: dict | None = None) -> dict:
        """The simulator's `bill`, `reset` and `behaviour`."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://{self.listen}/_sim/{path}", data)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def simulator() -> Provider:
    return Provider([str(programs() / "aex-sim"), "--listen", "127.0.0.1:0"])


def real_model() -> Provider:
    return Provider([sys.executable, str(HERE / "serve_smollm2.py")])


class Kernel:
    """A running kernel with `models_yaml` as its configuration."""

    def __init__(
        self,
        models_yaml: str,
        workers: int = 2,
        listen: str = "127.0.0.1:0",
        keys: dict[str, str] | None = None,
    ) -> None:
        self.bin = programs()
        self.dir = tempfile.mkdtemp(prefix="aex-clients-")
        self.home = pathlib.Path(self.dir) / "home"
        self.env = {
            name: value for name, value in os.environ.items() if not name.endswith("_API_KEY")
        }
        self.env["AEX_HOME"] = str(self.home)
        self.env.pop("AEX_SOCKET", None)
        try:
            self.aex("init")
            (self.home / "config/models.yaml").write_text(models_yaml)
            keys = {"SIM_API_KEY": FAKE_KEY} if keys is None else keys
            self.aex(
                "daemon", "start", "--listen", listen, "--workers", str(workers), env=self.env | keys
            )
            state = json.loads((self.home / "run/daemon.json").read_text())
            self.base_url = f"http://{state['listen']}/v1"
        except BaseException:
            self.show_logs()
            self.stop()
            raise

    def run(self, *args: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(self.bin / "aex"), *args],
            env=env or self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
        )

    def aex(self, *args: str, env: dict[str, str] | None = None) -> str:
        done = self.run(*args, env=env)
        if done.returncode != 0:
            raise AssertionError(f"aex {args}: {done.returncode} {done.stdout}{done.stderr}")
        return done.stdout

    def agent(self, name: str, budget: str, rpm: int, *options: str) -> str:
        """Creates an agent and gives its token."""
        reply = self.aex("agent", "create", name, budget, str(rpm), *options, "--json")
        return json.loads(reply)["token"]

    def sqlite(self, sql: str) -> list[list[str]]:
        """Rows, by the real sqlite3 shell."""
        done = subprocess.run(
            ["sqlite3", "-batch", "-cmd", ".timeout 5000", str(self.home / "aex.db"), sql],
            capture_output=True, text=True, timeout=60, check=True,
        )
        return [line.split("|") for line in done.stdout.splitlines()]

    def commits(self, agent: str) -> list[int]:
        """Exact cost of each settled request of an agent, in picodollars, oldest first."""
        rows = self.sqlite(
            "SELECT cost_pico FROM events WHERE action='usage.commit' "
            f"AND agent='{agent}' ORDER BY id"
        )
        return [int(row[0]) for row in rows]

    def spent_pico(self, agent: str) -> int:
        ((spent, carry),) = self.sqlite(
            f"SELECT spent_micro, carry_pico FROM agents WHERE name='{agent}'"
        )
        return int(spent) * PICO_PER_MICRO + int(carry)

    def audit(self) -> None:
        report = json.loads(self.aex("audit", "--json"))
        assert report["ok"], report

    def show_logs(self) -> None:
        for path in sorted(self.home.glob("logs/*")):
            print(f"--- {path.name}\n{path.read_text(errors='replace')}", file=sys.stderr)

    def stop(self) -> None:
        self.run("daemon", "stop")
        shutil.rmtree(self.dir, ignore_errors=True)
