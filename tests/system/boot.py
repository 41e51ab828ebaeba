"""A Debian with a systemd of its own, booted in a second: namespaces of this machine's kernel
(systemd-nspawn), a network of its own, and a root file system that every boot finds clean.

Owns: making that root once (debootstrap), booting, running commands in it as any user, taking files in
and out, and ending it whatever happens. Absent on purpose: anything about AEX (see case.py).

Needs root, debootstrap and systemd-container. Where one of them is missing it says so and fails:
nothing is skipped.
"""

import atexit
import fcntl
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
WORK = TREE / "target" / "system"
SUITE = "bookworm"
# What the tests use in there, beside what a minimal Debian has.
PACKAGES = (
    "systemd,systemd-sysv,dbus,iproute2,libcap2-bin,procps,nftables,"
    "sqlite3,curl,debconf,python3,ca-certificates,rpm,sudo"
)
BOOT_LIMIT_S = 30
STOP_LIMIT_S = 20
COMMAND_LIMIT_S = 120
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/root",
    "DEBIAN_FRONTEND": "noninteractive",
    "SYSTEMD_COLORS": "0",
    "SYSTEMD_PAGER": "",
}


# Two booted systems at once would share their control groups, and end each other's services.
LOCK = Path("/tmp/aex-test-system.lock")
_held = []


def alone():
    """Waits until no other run on this machine has a booted system. Held until this process ends."""
    if not _held:
        lock = LOCK.open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        _held.append(lock)


class CannotRun(Exception):
    """This machine cannot boot a system; the text says what to do."""


class Failed(AssertionError):
    """A command in the booted system ended otherwise than it should."""


def need_machine():
    """Raises CannotRun where a boot is not possible here."""
    if os.geteuid() != 0:
        raise CannotRun("the system tests need root: sudo make test-system")
    missing = [
        name
        for name in ("debootstrap", "systemd-nspawn", "nsenter", "setpriv", "dpkg-deb")
        if shutil.which(name) is None
    ]
    if missing:
        raise CannotRun(
            f"missing: {', '.join(missing)}; "
            "apt-get install debootstrap systemd-container util-linux dpkg"
        )


def root_tree():
    """The clean root file system, made if it is not there or was made of other packages."""
    root, stamp = WORK / "root", WORK / "root.packages"
    wanted = f"{SUITE} {PACKAGES}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return root
    WORK.mkdir(parents=True, exist_ok=True)
    stamp.unlink(missing_ok=True)
    fresh = WORK / "root.new"
    for old in (fresh, root):
        shutil.rmtree(old, ignore_errors=True)
    with (WORK / "debootstrap.log").open("w") as log:
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, fresh],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
        )
    if made.returncode != 0:
        raise CannotRun(f"debootstrap failed: see {log.name}")
    shutil.rmtree(fresh / "var/cache/apt/archives", ignore_errors=True)
    fresh.rename(root)
    stamp.write_text(wanted)
    return root


def children(pid):
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def is_init(pid):
    """Whether a process is the first of a PID namespace below ours."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()[1:]
    return len(numbers) > 1 and numbers[-1] == "1"


def until(condition, limit_s, what, pause_s=0.02):
    """What `condition` returns once it is true; Failed after the limit."""
    end = time.monotonic() + limit_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Failed(f"not within {limit_s} s: {what() if callable(what) else what}")
        time.sleep(pause_s)


class Boot:
    """One booted system. Use it as a context manager, or call `stop`."""

    def __init__(self):
        need_machine()
        alone()
        root = root_tree()
        self.console = tempfile.NamedTemporaryFile(
            mode="w+", prefix="console-", suffix=".log", dir=WORK, delete=False
        )
        # nspawn's own filters would take away what the units are to have: seccomp, Landlock, mlock.
        environment = dict(os.environ, SYSTEMD_SECCOMP="0", SYSTEMD_NSPAWN_LOCK="0")
        self.nspawn = subprocess.Popen(
            # Ends with this process even when that is killed.
            ["setpriv", "--pdeathsig", "TERM", "systemd-nspawn", "--quiet", f"--directory={root}",
             "--boot", "--private-network", "--register=no", "--keep-unit", "--console=pipe",
             "--capability=all", "--volatile=overlay", f"--machine=aex-{os.getpid()}-{id(self):x}"[:60]],
            stdout=self.console, stderr=self.console, stdin=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        self.leader = None
        atexit.register(self.stop)
        try:
            self._wait_until_up()
        except BaseException:
            self.stop()
            raise

    def _wait_until_up(self):
        def up():
            if self.nspawn.poll() is not None:
                raise Failed(f"the boot ended: {Path(self.console.name).read_text()}")
            if self.leader is None:
                # It has another child for a moment, which makes this one.
                self.leader = next(filter(is_init, children(self.nspawn.pid)), None)
                return False
            said = self.run("systemctl is-system-running", check=False).stdout.strip()
            return said in ("running", "degraded")

        until(up, BOOT_LIMIT_S, lambda: f"booted: {Path(self.console.name).read_text()}", 0.05)
        self.run("ip link set lo up")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Powers off; kills what does not end by itself. Safe to call again."""
        atexit.unregister(self.stop)
        if self.nspawn.poll() is None:
            try:
                if self.leader:
                    os.kill(self.leader, signal.SIGRTMIN + 4)
                self.nspawn.wait(STOP_LIMIT_S)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                for pid in children(self.nspawn.pid):
                    os.kill(pid, signal.SIGKILL)
                self.nspawn.kill()
                self.nspawn.wait()
        self.console.close()
        Path(self.console.name).unlink(missing_ok=True)

    # -- commands ----------------------------------------------------------------------------------

    def enter(self, user=None, groups=None):
        """The words before a command that runs in there: as root, or as another user.

        `groups` replaces the user's supplementary groups.
        """
        words = ["nsenter", f"--target={self.leader}", "--all", "--"]
        if user is not None:
            name = str(user)
            groups_as = ["--init-groups"] if groups is None else [f"--groups={groups}"]
            if groups is None and name.isdecimal():
                groups_as = ["--clear-groups"]
            gid = name if name.isdecimal() else self.run(f"id -g {name}").stdout.strip()
            words += ["setpriv", f"--reuid={name}", f"--regid={gid}", *groups_as,
                      "--inh-caps=-all", "--bounding-set=-all", "--"]  # fmt: skip
        return words

    def run(self, command, user=None, groups=None, check=True, stdin=None, limit_s=COMMAND_LIMIT_S, env=None):
        """Runs a shell line (or a list of words) in there; a CompletedProcess with texts."""
        words = ["sh", "-c", command] if isinstance(command, str) else [str(w) for w in command]
        done = subprocess.run(
            self.enter(user, groups) + words,
            input=stdin if stdin is not None else "",
            capture_output=True, text=True, errors="replace", timeout=limit_s,
            env=dict(ENVIRONMENT, **({"HOME": "/nonexistent"} if user else {}), **(env or {})),
        )  # fmt: skip
        if check and done.returncode != 0:
            raise Failed(
                f"{command!r} as {user or 'root'} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def out(self, command, **more):
        """What a command prints, without the last newline."""
        return self.run(command, **more).stdout.rstrip("\n")

    def start(self, command, user=None, **more):
        """A process that runs on in there; a Popen."""
        words = ["sh", "-c", command] if isinstance(command, str) else [str(w) for w in command]
        more.setdefault("stdin", subprocess.DEVNULL)
        more.setdefault("stdout", subprocess.PIPE)
        more.setdefault("stderr", subprocess.STDOUT)
        return subprocess.Popen(self.enter(user) + words, text=True, env=ENVIRONMENT, **more)

    # -- files -------------------------------------------------------------------------------------

    def inside(self, path):
        """A path of the booted system, as this process reaches it."""
        return Path(f"/proc/{self.leader}/root") / str(path).lstrip("/")

    def put(self, source, path, mode=0o755):
        """Copies a file in."""
        target = self.inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        target.chmod(mode)

    def write(self, path, text, mode=0o644, owner=None):
        """Writes a file in there; `owner` as for chown."""
        target = self.inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)
        if owner:
            self.run(["chown", owner, path])

    # -- units -------------------------------------------------------------------------------------

    def journal(self, unit=None):
        of = f"-u '{unit}'" if unit else ""
        return self.out(f"journalctl --no-pager -o short-monotonic {of}")

    def property(self, unit, name):
        return self.out(["systemctl", "show", "--value", "-p", name, unit])

    def main_pid(self, unit):
        """The unit's main process as it is numbered in there; 0: none."""
        return int(self.property(unit, "MainPID"))

    def outer_pid(self, inner):
        """The same process, as it is numbered out here."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            try:
                status = (entry / "status").read_text()
                same = os.readlink(entry / "ns/pid") == os.readlink(f"/proc/{self.leader}/ns/pid")
            except OSError:
                continue
            numbers = next(line for line in status.splitlines() if line.startswith("NSpid:"))
            if same and int(numbers.split()[-1]) == inner:
                return int(entry.name)
        raise Failed(f"there is no process {inner} in the booted system")

    def is_active(self, unit):
        return self.run(["systemctl", "is-active", "--quiet", unit], check=False).returncode == 0
