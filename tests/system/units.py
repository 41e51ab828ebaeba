#!/usr/bin/env python3
"""Holds the units to their scores: `systemd-analyze security`, 0 (best) to 10. No systemd need run.

Fails as well where a unit is missing, where systemd-analyze cannot read one, and where systemd-analyze
itself is missing.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

UNITS = Path(__file__).resolve().parents[2] / "packaging" / "systemd"
# The egress is the one that speaks to the network.
LIMITS = {
    "aex-admin.service": 0.3,
    "aex-proxy@.service": 0.3,
    "aex-proxy-group@.service": 0.3,
    "aex-egress.service": 1.2,
    # Root's, for the moment in which it loads rules.
    "nftables-aex.service": 5.0,
}


def analyze(*words):
    return subprocess.run(
        ["systemd-analyze", *map(str, words)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )


def score(unit, limit):
    """What is wrong with a unit's score, or nothing."""
    # The threshold is in tenths.
    held = analyze("security", "--offline=true", f"--threshold={round(limit * 10)}", unit)
    last = held.stdout.strip().splitlines()[-1:] or [held.stderr.strip()]
    print(f"{unit.name}: {last[0].lstrip('→ ')} (at most {limit})")
    return [] if held.returncode == 0 else [f"{unit.name}: above {limit}, or unreadable"]


def readable():
    """Unknown directives, bad values: systemd only warns of them, and goes on without."""
    with tempfile.TemporaryDirectory() as root:
        # systemd-analyze looks for the programs.
        programs = ("aex", "aex-admin", "aex-egress", "aex-proxy")
        for program in ("bin/kill", "usr/sbin/nft", *(f"usr/bin/{name}" for name in programs)):
            stand_in = Path(root, program)
            stand_in.parent.mkdir(parents=True, exist_ok=True)
            stand_in.write_text("#!/bin/true\n")
            stand_in.chmod(0o755)
        names = []
        for unit in sorted(filter(Path.is_file, UNITS.iterdir())):
            target = Path(root, "etc/systemd/system", unit.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(unit, target)
            names.append(unit.name.replace("@.", "@1."))
        checked = analyze("verify", f"--root={root}", "--man=no", "--recursive-errors=no", *names)
    # Units that every system has are not in that root.
    return [line for line in checked.stderr.splitlines() if "not found" not in line]


def main():
    if shutil.which("systemd-analyze") is None:
        sys.exit("units: systemd-analyze is missing: apt-get install systemd")
    services = {path.name for path in UNITS.glob("*.service")}
    problems = [f"{name}: has no limit here" for name in sorted(services - LIMITS.keys())]
    problems += [f"{name}: missing" for name in sorted(LIMITS.keys() - services)]
    for name in sorted(services & LIMITS.keys()):
        problems += score(UNITS / name, LIMITS[name])
    problems += readable()
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
