#!/usr/bin/env python3
"""Runs the tests of all clients, two at a time, each with its own environment.

Usage: all.py DIR, where setup-clients.sh has made DIR. What failed is printed whole.
"""

import os
import pathlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

HERE = pathlib.Path(__file__).resolve().parent
# The longest first.
TESTS = [
    ("crewai", "crewai"),
    ("node", None),
    ("agents", "frameworks"),
    ("langgraph", "frameworks"),
    ("pydantic_ai", "frameworks"),
    ("autogen", "frameworks"),
    ("openai", "frameworks"),
    ("smolagents", "frameworks"),
    ("curl", None),
]
LIMIT_S = 600


def run(test: tuple[str, str | None], place: pathlib.Path) -> bool:
    name, environment = test
    python = place / environment / "bin/python" if environment else sys.executable
    env = os.environ | {"AEX_NODE": str(place / "node/node"), "AEX_NODE_MODULES": str(place / "node")}
    started = time.monotonic()
    done = subprocess.run(
        [str(python), "-W", "ignore", str(HERE / f"with_{name}.py")],
        env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=LIMIT_S,
    )
    passed = done.returncode == 0
    text = "" if passed else done.stdout.decode(errors="replace")
    seconds = time.monotonic() - started
    print(f"{text}{name}: {'passed' if passed else 'FAILED'} in {seconds:.0f} s", flush=True)
    return passed


def main() -> int:
    place = pathlib.Path(sys.argv[1]).resolve()
    with ThreadPoolExecutor(2) as pool:
        passed = list(pool.map(lambda test: run(test, place), TESTS))
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
