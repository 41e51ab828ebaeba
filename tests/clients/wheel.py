#!/usr/bin/env python3
"""The wheel: `pip install` in an empty environment gives `aex` and the programs that it starts, all of one
version, and they serve.

Usage: wheel.py DIRECTORY (where `make wheel` has left it); the simulator is found as kernel.py says.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import urllib.request
import venv

from kernel import Kernel, simulator

PROGRAMS = ("aex", "aex-ctl", "aex-admin", "aex-egress", "aex-proxy")
MODELS = """
providers: {{ sim: {{ base_url: http://{listen}/v1 }} }}
models:
  small: {{ provider: sim, price: {{ input_per_mtok: 1, output_per_mtok: 1 }}, max_output_tokens: 64 }}
"""


class Wheel(unittest.TestCase):
    directory: str

    def test_an_empty_environment_gets_all_of_it_and_it_serves(self) -> None:
        (wheel,) = pathlib.Path(self.directory).glob("aex-*.whl")
        sim = simulator()
        self.addCleanup(sim.stop)
        with tempfile.TemporaryDirectory(prefix="aex-wheel-") as home:
            venv.create(home, with_pip=True)
            bin = pathlib.Path(home) / "bin"
            install = ["-m", "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check", str(wheel)]
            subprocess.run([str(bin / "python"), *install], check=True)
            said = [subprocess.run([str(bin / name), "--version"], capture_output=True, text=True) for name in PROGRAMS]
            versions = {done.stdout.split()[-1] for done in said}
            self.assertEqual(versions, {wheel.name.split("-")[1]})
            os.environ["AEX_BIN"] = str(bin)
            kernel = Kernel(MODELS.format(listen=sim.listen))
            try:
                self.ask(kernel)
                kernel.audit()
            finally:
                kernel.stop()

    def ask(self, kernel: Kernel) -> None:
        token = kernel.agent("bot", "0.01", 60)
        body = {"model": "small", "messages": [{"role": "user", "content": "Say hello."}]}
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{kernel.base_url}/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            self.assertTrue(json.load(answer)["choices"])
        self.assertGreater(kernel.spent_pico("bot"), 0)


if __name__ == "__main__":
    Wheel.directory = sys.argv.pop(1)
    unittest.main()
