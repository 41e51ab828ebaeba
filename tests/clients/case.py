"""What the tests of all Python clients share: a kernel and a simulator, agents, and the proof after
each flow that the ledger has what the provider bills.

To be imported before the client: it switches off what would call home, and notes every name or
address off this machine that is asked for all the same.
"""

import json
import os
import socket
import time
import unittest

from kernel import FAKE_KEY, Kernel, simulator, wait_for

os.environ.update({
    "ANONYMIZED_TELEMETRY": "false",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "NO_PROXY": "127.0.0.1,localhost",
    "OTEL_SDK_DISABLED": "true",
})

MODEL = "gpt-oss-20b"
REASONING_MODEL = "gpt-5-mini"
EMBEDDING_MODEL = "text-embedding-3-small"
# Input, cached input and output, in picodollars a token.
PRICES = {
    "gpt-oss-20b": (75_000, 37_500, 300_000),
    "gpt-5-mini": (250_000, 25_000, 2_000_000),
    "text-embedding-3-small": (20_000, 20_000, 0),
}
# Under this name the catalogue knows what the provider's API takes and keeps.
MODELS = """
providers:
  openai:
    base_url: http://{listen}/v1
models:
  gpt-oss-20b:
    provider: openai
    price: {{ input_per_mtok: 0.075, cached_input_per_mtok: 0.0375, output_per_mtok: 0.30 }}
    max_output_tokens: 65536
    context_window: 131072
  gpt-5-mini:
    provider: openai
    price: {{ input_per_mtok: 0.25, cached_input_per_mtok: 0.025, output_per_mtok: 2 }}
    max_output_tokens: 128000
    context_window: 400000
    hidden_output: true
  text-embedding-3-small:
    provider: openai
    price: {{ input_per_mtok: 0.02, output_per_mtok: 0 }}
"""
CITY_TOOL = {"name": "weather", "arguments": {"city": "Oslo"}}
PERSON = {"name": "Ada", "age": 36}
WORDS = "tok " * 20
BUSY_ONCE = {"status": 429, "times": 1, "headers": {"retry-after": "1"}}

_asked_for: list[str] = []
_getaddrinfo = socket.getaddrinfo


def _only_this_machine(host, *args, **options):
    if host not in (None, "", "127.0.0.1", "localhost", "::1", b"127.0.0.1", b"localhost"):
        _asked_for.append(str(host))
        raise socket.gaierror(socket.EAI_NONAME, f"{host}: the tests stay on this machine")
    return _getaddrinfo(host, *args, **options)


socket.getaddrinfo = _only_this_machine


class ClientCase(unittest.TestCase):
    """One client. Each test has agents of its own, and the simulator's bill to itself."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.sim = simulator()
        cls.addClassCleanup(cls.sim.stop)
        keys = {"OPENAI_API_KEY": FAKE_KEY}
        cls.kernel = Kernel(MODELS.format(listen=cls.sim.listen), keys=keys)
        cls.addClassCleanup(cls.kernel.stop)
        cls.base_url = cls.kernel.base_url

    @classmethod
    def tearDownClass(cls) -> None:
        cls.kernel.audit()

    def setUp(self) -> None:
        self.agents: list[str] = []
        self.behave()
        self.sim.control("reset", {})

    def tearDown(self) -> None:
        # Not a cleanup: what a client left open is closed after it.
        self.assert_settled_as_billed()
        self.assertEqual(_asked_for, [], "asked for names off this machine")

    def behave(self, **behaviour) -> None:
        self.sim.control("behaviour", behaviour)

    def agent(self, budget: str = "1.00", rpm: int = 10_000, *options: str) -> str:
        """Creates an agent for this test, puts its token and the address where clients look for
        them, and gives the token."""
        name = f"{self.id().rsplit('.', 1)[1]}-{len(self.agents)}".replace("_", "-")
        token = self.kernel.agent(name, budget, rpm, *options)
        self.agents.append(name)
        os.environ["OPENAI_API_KEY"] = token
        os.environ["OPENAI_BASE_URL"] = self.base_url
        os.environ["OPENAI_API_BASE"] = self.base_url
        return token

    def bill(self) -> dict:
        return self.sim.control("bill")

    def bodies(self) -> list[dict]:
        """The requests as the provider got them, oldest first."""
        return [request["body"] for request in self.bill()["log"]]

    def paths(self) -> list[str]:
        return [request["path"].removeprefix("/v1/") for request in self.bill()["log"]]

    def metrics(self) -> dict:
        return json.loads(self.kernel.aex("metrics", "--json"))

    def wait_until_settled(self) -> None:
        """A stream is settled when its last bytes are already sent."""
        wait_for(
            "the settles", lambda: not (self.bill()["in_flight"] or self.metrics()["open_holds"])
        )

    def assert_settled_as_billed(self) -> None:
        """The ledger's sum over this test's agents is what the provider bills, at the prices."""
        self.wait_until_settled()
        billed = 0
        for model, bill in self.bill()["models"].items():
            plain, cached, output = PRICES[model]
            billed += (bill["prompt_tokens"] - bill["cached_tokens"]) * plain
            billed += bill["cached_tokens"] * cached + bill["completion_tokens"] * output
        ledger = sum(sum(self.kernel.commits(agent)) for agent in self.agents)
        self.assertEqual(ledger, billed, f"{self.agents}: the ledger, and the provider's bill")
        spent = sum(self.kernel.spent_pico(agent) for agent in self.agents)
        self.assertEqual(spent, ledger)

    def assert_requests(self, *paths: str) -> None:
        self.assertEqual(self.paths(), list(paths))

    def assert_spent_budget_is_tried_once(self, ask, tries: int = 1) -> BaseException:
        """`ask` runs a flow as an agent without money: one refusal, an error, nothing sent."""
        self.agent("0.000001")
        before = self.metrics()
        started = time.monotonic()
        with self.assertRaises(Exception) as caught:
            ask()
        self.assertLess(time.monotonic() - started, 60, "it hung")
        after = self.metrics()
        refused = {
            code: count - before["refused"].get(code, 0)
            for code, count in after["refused"].items()
            if count != before["refused"].get(code, 0)
        }
        self.assertEqual(refused, {"insufficient_budget": tries}, caught.exception)
        self.assertEqual(after["granted"], before["granted"], caught.exception)
        self.assertEqual(self.bill()["requests"], 0)
        self.assertIn("Insufficient budget", everything_said(caught.exception))
        return caught.exception

    def assert_busy_provider_is_tried_again(self, ask, tries: int = 2):
        """A 429 with `Retry-After` reaches the client, which waits and asks again."""
        self.agent()
        self.behave(**BUSY_ONCE)
        answer = ask()
        self.assertEqual(self.bill()["requests"], tries)
        return answer


def everything_said(error: BaseException) -> str:
    """The texts of an error and of those behind it."""
    seen: list[BaseException] = []
    while error is not None and error not in seen:
        seen.append(error)
        error = error.__cause__ or error.__context__
    return "\n".join(map(str, seen))


