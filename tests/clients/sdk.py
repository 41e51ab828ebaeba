#!/usr/bin/env python3
"""The Python `openai` package through AEX: what works, which error class each refusal becomes, and
how often the SDK tries. The provider is aex-sim.

Run with the python of tests/clients/setup.sh; the programs are found as kernel.py says.
"""

import asyncio
import unittest

import openai
from openai import AsyncOpenAI, DefaultHttpxClient, OpenAI

from kernel import Kernel, simulator, wait_for

INPUT_PICO, CACHED_PICO, OUTPUT_PICO = 75_000, 37_500, 300_000
HELLO = [{"role": "user", "content": "Say hello."}]
MODELS = """
providers:
  sim:
    base_url: http://{listen}/v1
models:
  gpt-oss-20b:
    provider: sim
    upstream_model: openai/gpt-oss-20b
    price: {{ input_per_mtok: 0.075, cached_input_per_mtok: 0.0375, output_per_mtok: 0.30 }}
    max_output_tokens: 65536
    context_window: 131072
  sim-large:
    provider: sim
    price: {{ input_per_mtok: 30, output_per_mtok: 60 }}
    max_output_tokens: 4096
"""


def cost_pico(usage) -> int:
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    plain = usage.prompt_tokens - cached
    return plain * INPUT_PICO + cached * CACHED_PICO + usage.completion_tokens * OUTPUT_PICO


class Sdk(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.sim = simulator()
        cls.addClassCleanup(cls.sim.stop)
        cls.kernel = Kernel(MODELS.format(listen=cls.sim.listen))
        cls.addClassCleanup(cls.kernel.stop)

    def setUp(self) -> None:
        self.sim.control("behaviour", {})
        self.sim.control("reset", {})
        self.tries = 0

    def count(self, _request) -> None:
        self.tries += 1

    def client(self, token: str, **options) -> OpenAI:
        http_client = DefaultHttpxClient(event_hooks={"request": [self.count]})
        self.addCleanup(http_client.close)
        return OpenAI(
            base_url=self.kernel.base_url, api_key=token, http_client=http_client, **options
        )

    def refused(self, client: OpenAI, error: type, status: int, tries: int, **changes):
        self.tries = 0
        request = {"model": "gpt-oss-20b", "messages": HELLO, "max_tokens": 8} | changes
        with self.assertRaises(error) as caught:
            client.chat.completions.create(**request)
        self.assertEqual(caught.exception.status_code, status, caught.exception)
        self.assertEqual(self.tries, tries, caught.exception)
        return caught.exception

    def test_plain_answer_and_its_cost(self) -> None:
        self.sim.control("behaviour", {"cached_tokens": 3})
        client = self.client(self.kernel.agent("plain", "1.00", 1000))
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-oss-20b", messages=HELLO, max_tokens=8, temperature=0.5, seed=7
        )
        answer = raw.parse()
        self.assertEqual(answer.choices[0].message.content, "tok " * 8)
        self.assertEqual(answer.usage.completion_tokens, 8)
        self.assertEqual(self.kernel.commits("plain"), [cost_pico(answer.usage)])
        for name in ("x-aex-request-id", "x-aex-remaining-micro", "x-aex-cost-micro"):
            self.assertIn(name, raw.headers)
        received = self.sim.control("bill")["log"][-1]
        self.assertEqual(received["body"]["model"], "openai/gpt-oss-20b")
        self.assertEqual((received["body"]["seed"], received["body"]["temperature"]), (7, 0.5))
        names = {name for name, _ in received["headers"]}
        self.assertFalse([name for name in names if name.startswith(("x-stainless", "x-aex"))])

    def test_stream_with_and_without_usage(self) -> None:
        client = self.client(self.kernel.agent("stream", "1.00", 1000))
        for asked in (False, True):
            options = {"stream_options": {"include_usage": True}} if asked else {}
            chunks = list(client.chat.completions.create(
                model="gpt-oss-20b", messages=HELLO, max_tokens=8, stream=True, **options
            ))
            text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
            self.assertEqual(text, "tok " * 8)
            with_usage = [chunk for chunk in chunks if chunk.usage]
            self.assertEqual(len(with_usage), int(asked))
            self.assertEqual([c for c in chunks if not c.choices], with_usage)
            if asked:
                self.wait_for_commits("stream", 2)
                self.assertEqual(
                    self.kernel.commits("stream"), [cost_pico(with_usage[0].usage)] * 2
                )

    def wait_for_commits(self, agent: str, count: int) -> None:
        """A stream is settled when its last bytes are already sent."""
        wait_for("the settles", lambda: len(self.kernel.commits(agent)) >= count)

    def test_no_output_cap(self) -> None:
        client = self.client(self.kernel.agent("uncapped", "1.00", 1000))
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-oss-20b", messages=HELLO
        )
        cap = int(raw.headers["x-aex-output-cap"])
        self.assertEqual(self.sim.control("bill")["log"][-1]["body"]["max_tokens"], cap)

    def test_tools_reach_the_provider(self) -> None:
        client = self.client(self.kernel.agent("tools", "1.00", 1000))
        tools = [{"type": "function", "function": {
            "name": "now", "parameters": {"type": "object", "properties": {}}}}]
        client.chat.completions.create(
            model="gpt-oss-20b", messages=HELLO, max_tokens=8, tools=tools, tool_choice="auto"
        )
        self.assertEqual(self.sim.control("bill")["log"][-1]["body"]["tools"], tools)

    def test_models(self) -> None:
        client = self.client(
            self.kernel.agent("models", "1.00", 1000, "--allowed-models", "gpt-oss-20b")
        )
        self.assertEqual([model.id for model in client.models.list()], ["gpt-oss-20b"])
        self.assertEqual(client.models.retrieve("gpt-oss-20b").owned_by, "sim")
        with self.assertRaises(openai.NotFoundError):
            client.models.retrieve("sim-large")

    def test_an_empty_budget_is_not_tried_again(self) -> None:
        client = self.client(self.kernel.agent("poor", "0.000001", 1000))
        error = self.refused(client, openai.APIStatusError, 402, tries=1)
        self.assertEqual(error.code, "insufficient_budget")
        self.assertIn("Insufficient budget", error.message)
        for word in ("429", "rate limit", "too many requests"):
            self.assertNotIn(word, str(error).lower())
        self.assertEqual(self.sim.control("bill")["requests"], 0)

    def test_who_may_not_is_not_tried_again(self) -> None:
        nobody = self.client("aex-not-a-token")
        error = self.refused(nobody, openai.AuthenticationError, 401, tries=1)
        self.assertEqual(error.code, "invalid_api_key")
        listed = self.client(
            self.kernel.agent("listed", "1.00", 1000, "--allowed-models", "gpt-oss-20b")
        )
        error = self.refused(listed, openai.PermissionDeniedError, 403, 1, model="sim-large")
        self.assertEqual(error.code, "model_not_allowed")
        free = self.client(self.kernel.agent("free", "1.00", 1000))
        error = self.refused(free, openai.NotFoundError, 404, 1, model="no-such-model")
        self.assertEqual(error.code, "model_not_found")
        error = self.refused(free, openai.BadRequestError, 400, 1, max_tokens=-1)
        self.assertEqual(error.param, "max_tokens")
        self.assertEqual(self.sim.control("bill")["requests"], 0)

    def test_rate_limits(self) -> None:
        token = self.kernel.agent("rpm", "1.00", 1)
        client = self.client(token, max_retries=0)
        client.chat.completions.create(model="gpt-oss-20b", messages=HELLO, max_tokens=8)
        error = self.refused(client, openai.RateLimitError, 429, tries=1)
        self.assertIn("RPM Rate limit exceeded", error.message)
        self.assertIn(int(error.response.headers["retry-after"]), range(1, 61))
        # Larger than the whole window: the SDK is told not to try again.
        token = self.kernel.agent("tpm", "1.00", 1000, "--max-tokens-per-minute", "50")
        error = self.refused(
            self.client(token), openai.RateLimitError, 429, tries=1, max_tokens=5000
        )
        self.assertIn("TPM Rate limit exceeded", error.message)

    def test_a_provider_that_is_busy_is_tried_again(self) -> None:
        client = self.client(self.kernel.agent("busy", "1.00", 1000))
        self.sim.control("behaviour", {"status": 429, "times": 1, "headers": {"retry-after": "1"}})
        answer = client.chat.completions.create(
            model="gpt-oss-20b", messages=HELLO, max_tokens=8
        )
        self.assertEqual(self.tries, 2)
        self.assertEqual(self.kernel.spent_pico("busy"), cost_pico(answer.usage))

    def test_the_operators_key_trouble_is_not_the_agents(self) -> None:
        client = self.client(self.kernel.agent("bystander", "1.00", 1000), max_retries=0)
        self.sim.control("behaviour", {"status": 401, "echo_authorization": True})
        error = self.refused(client, openai.InternalServerError, 502, tries=1)
        self.assertNotIn("sk-sim-fake", error.response.text)

    def test_many_at_once(self) -> None:
        token = self.kernel.agent("many", "1.00", 1000)

        async def all_at_once():
            async with AsyncOpenAI(base_url=self.kernel.base_url, api_key=token) as client:
                return await asyncio.gather(*(
                    client.chat.completions.create(
                        model="gpt-oss-20b", messages=HELLO, max_tokens=8
                    )
                    for _ in range(40)
                ))

        answers = asyncio.run(all_at_once())
        self.assertEqual(
            self.kernel.spent_pico("many"), sum(cost_pico(answer.usage) for answer in answers)
        )

    def test_zz_the_ledger_holds(self) -> None:
        self.kernel.audit()


if __name__ == "__main__":
    unittest.main()
