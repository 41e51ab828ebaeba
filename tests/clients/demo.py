#!/usr/bin/env python3
"""`make run`: a whole kernel on 127.0.0.1:9000, an agent with one cent, and a loop that does not stop
by itself. Prints a line a request until the budget cuts it off, then the audit, then stops cleanly.

The provider is, in this order: the real model with MODEL=smollm2; a provider whose key is in the
environment (GROQ_API_KEY, OPENAI_API_KEY); a model server on this machine (Ollama); the simulator.
Standard library only; MODEL=smollm2 wants the python of tests/clients/setup.sh.
"""

import argparse
import json
import os
import signal
import sys
import urllib.error
import urllib.request

from kernel import Kernel, real_model, simulator

BUDGET_USD = "0.01"
MOST_REQUESTS = 500
OLLAMA = "http://127.0.0.1:11434/v1"
# High prices, so that a cent is gone in a few dozen answers of a local model.
LOCAL = """
providers:
  {provider}:
    base_url: {base_url}
models:
  {model}:
    provider: {provider}
    upstream_model: {upstream}
    price: {{ input_per_mtok: 4.00, output_per_mtok: 16.00 }}
    hidden_output: false
"""
REMOTE = """
providers:
  {provider}:
    base_url: {base_url}
models:
  {model}:
    provider: {provider}
"""
KEYS = {
    "GROQ_API_KEY": ("groq", "https://api.groq.com/openai/v1", "gpt-oss-20b"),
    "OPENAI_API_KEY": ("openai", "https://api.openai.com/v1", "gpt-4o-mini"),
}


def local(provider: str, base_url: str, model: str, upstream: str | None = None) -> str:
    return LOCAL.format(
        provider=provider, base_url=base_url, model=model, upstream=json.dumps(upstream or model)
    )


def ollama_model() -> str | None:
    try:
        with urllib.request.urlopen(f"{OLLAMA}/models", timeout=0.5) as answer:
            models = json.load(answer)["data"]
        return models[0]["id"] if models else None
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None


def choose(wanted: str):
    """(what it is, models.yaml, model, process or None, environment for the kernel)"""
    if wanted == "smollm2":
        process = real_model()
        text = local("llama", f"http://{process.listen}/v1", "smollm2")
        return "SmolLM2-135M, a real model on this machine", text, "smollm2", process, {}
    if wanted:
        sys.exit(f"MODEL={wanted} is not known; leave MODEL out, or say MODEL=smollm2")
    for variable, (provider, base_url, model) in KEYS.items():
        if os.environ.get(variable):
            text = REMOTE.format(provider=provider, base_url=base_url, model=model)
            what = f"{provider}, with {variable} from the environment"
            return what, text, model, None, {variable: os.environ[variable]}
    if upstream := ollama_model():
        return "Ollama on this machine", local("ollama", OLLAMA, "local", upstream), "local", None, {}
    process = simulator()
    text = local("sim", f"http://{process.listen}/v1", "gpt-oss-20b")
    return "the simulator (no key, no local model server)", text, "gpt-oss-20b", process, {}


def ask(base_url: str, token: str, model: str, number: int):
    """Status, headers and document of one chat request."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": f"Question {number}: tell me something."}],
        "max_tokens": 64,
    }
    request = urllib.request.Request(
        f"{base_url}/chat/completions",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.loads(error.read() or b"{}")


def usd(micro: str | None) -> str:
    return "-" if micro is None else f"${int(micro) / 1_000_000:.6f}"


def loop(kernel: Kernel, model: str) -> bool:
    """Asks until the budget says no. True when it did."""
    token = kernel.agent("test-agent", BUDGET_USD, 10_000)
    print(f"agent test-agent has ${BUDGET_USD} and asks until it is stopped\n")
    print(f"{'#':>3} {'status':>6} {'tokens':>6} {'cost':>10} {'remaining':>10}")
    for number in range(1, MOST_REQUESTS + 1):
        status, headers, document = ask(kernel.base_url, token, model, number)
        tokens = document.get("usage", {}).get("total_tokens", "-")
        cost, left = usd(headers["x-aex-cost-micro"]), usd(headers["x-aex-remaining-micro"])
        print(f"{number:>3} {status:>6} {tokens:>6} {cost:>10} {left:>10}", flush=True)
        if status == 402:
            print(f"\nHTTP 402\n{json.dumps(document, indent=2)}\n")
            return True
        if status != 200:
            print(f"\nthe request failed: {json.dumps(document)}", file=sys.stderr)
            return False
    print(f"\nnot cut off within {MOST_REQUESTS} requests", file=sys.stderr)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="", help="smollm2 for the real model")
    parser.add_argument("--listen", default="127.0.0.1:9000")
    args = parser.parse_args()
    # An interrupt unwinds, so that everything is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    what, models_yaml, model, process, env = choose(args.model)
    kernel = None
    try:
        print(f"provider: {what}")
        kernel = Kernel(models_yaml, listen=args.listen, keys=env)
        print(f"kernel:   {kernel.base_url}, home {kernel.home}")
        cut_off = loop(kernel, model)
        audit = kernel.run("audit")
        print(audit.stdout + audit.stderr, end="")
        return 0 if cut_off and audit.returncode == 0 else 1
    except KeyboardInterrupt:
        return 130
    finally:
        if kernel:
            kernel.stop()
        if process:
            process.stop()
        print("stopped")


if __name__ == "__main__":
    sys.exit(main())
