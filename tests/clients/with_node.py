#!/usr/bin/env python3
"""The Node clients: a kernel and a simulator for the tests in node/, run by Node's own test runner.

$AEX_NODE is the node to run them with, $AEX_NODE_MODULES the directory of what they import.
"""

import json
import os
import pathlib
import subprocess
import sys

from case import MODELS, PRICES
from kernel import FAKE_KEY, HERE, Kernel, programs, simulator


def main() -> int:
    place = pathlib.Path(os.environ["AEX_NODE_MODULES"])
    # Node looks for packages beside the tests: they are run where the packages are.
    for test in (HERE / "node").glob("*.mjs"):
        (place / test.name).write_bytes(test.read_bytes())
    sim = simulator()
    try:
        kernel = Kernel(MODELS.format(listen=sim.listen), keys={"OPENAI_API_KEY": FAKE_KEY})
        try:
            tests = sorted(str(path) for path in place.glob("*.test.mjs"))
            env = kernel.env | {
                "AEX_BASE_URL": kernel.base_url,
                "AEX_BIN": str(programs()),
                "AEX_PRICES": json.dumps(PRICES),
                "AEX_SIM": sim.listen,
            }
            done = subprocess.run(
                [os.environ["AEX_NODE"], "--test", "--test-concurrency=1", *tests],
                cwd=place, env=env, stdin=subprocess.DEVNULL, timeout=600,
            )
            kernel.audit()
            return done.returncode
        finally:
            kernel.stop()
    finally:
        sim.stop()


if __name__ == "__main__":
    sys.exit(main())
