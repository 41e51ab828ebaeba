#!/usr/bin/env python3
"""A real model through AEX: SmolLM2-135M on llama.cpp, the Python `openai` package in front, plain and
streamed. The ledger must equal the model's reported usage x price, to the picodollar.

Run with the python of tests/clients/setup.sh; the programs are found as kernel.py says.
"""

import json
import time
import unittest

import openai
from openai import OpenAI

from kernel import Kernel, real_model

INPUT_PICO, CACHED_PICO, OUTPUT_PICO = 150_000, 75_000, 600_000
MODELS = """
providers:
  llama:
    base_url: http://{listen}/v1
models:
  smollm2:
    provider: llama
    price: {{ input_per_mtok: 0.15, cached_input_per_mtok: 0.075, output_per_mtok: 0.60 }}
    max_output_tokens: 512
    context_window: 2048
"""
QUESTIONS = [
    "hi",
    "What is the capital of France?",
    "Count: 1 2 3 4 5 6 7 8 9 10 11 12",
    "Was bedeutet »Übermut«? 日本語でも答えてください。",
]


def cost_pico(usage) -> int:
    cached = usage.prompt_tokens_details.cached_tokens if usage.prompt_tokens_details else 0
    plain = usage.prompt_tokens - cached
    return plain * INPUT_PICO + cached * CACHED_PICO + usage.completion_tokens * OUTPUT_PICO


class RealModel(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.model = real_model()
        cls.addClassCleanup(cls.model.stop)
        cls.kernel = Kernel(MODELS.format(listen=cls.model.listen))
        cls.addClassCleanup(cls.kernel.stop)

    def client(self, agent: str, budget: str = "1.00") -> OpenAI:
        return OpenAI(
            base_url=self.kernel.base_url,
            api_key=self.kernel.agent(agent, budget, 1000),
            max_retries=0,
        )

    def stream(self, client: OpenAI, question: str):
        """The text and usage of one streamed answer."""
        text, usage = "", None
        for chunk in client.chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": question}],
            max_tokens=24,
            stream=True,
            stream_options={"include_usage": True},
        ):
            if chunk.choices:
                text += chunk.choices[0].delta.content or ""
            usage = chunk.usage or usage
        return text, usage

    def assert_costs(self, agent: str, usages: list) -> None:
        wanted = [cost_pico(usage) for usage in usages]
        end = time.monotonic() + 20
        while len(self.kernel.commits(agent)) < len(wanted) and time.monotonic() < end:
            time.sleep(0.02)  # a stream is settled when its last bytes are already sent
        self.assertEqual(self.kernel.commits(agent), wanted)
        self.assertEqual(self.kernel.spent_pico(agent), sum(wanted))
        self.kernel.audit()

    def test_plain(self) -> None:
        client = self.client("plain")
        usages = []
        for question in QUESTIONS:
            answer = client.chat.completions.create(
                model="smollm2", messages=[{"role": "user", "content": question}], max_tokens=24
            )
            self.assertTrue(answer.choices[0].message.content)
            usages.append(answer.usage)
        self.assertGreater(usages[0].prompt_tokens, 20, "the chat template is part of the prompt")
        self.assert_costs("plain", usages)

    def test_streamed(self) -> None:
        client = self.client("streamed")
        usages = []
        for question in QUESTIONS:
            text, usage = self.stream(client, question)
            self.assertTrue(text)
            usages.append(usage)
        self.assert_costs("streamed", usages)

    def test_no_cap_in_the_request(self) -> None:
        client = self.client("uncapped", budget="0.01")
        answer = client.chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": "Say one word."}]
        )
        self.assert_costs("uncapped", [answer.usage])

    def test_a_loop_is_cut_off(self) -> None:
        client = self.client("looper", budget="0.0002")
        usages = []
        with self.assertRaises(openai.APIStatusError) as caught:
            for _ in range(100):
                answer = client.chat.completions.create(
                    model="smollm2",
                    messages=[{"role": "user", "content": "Tell me a story."}],
                    max_tokens=24,
                )
                usages.append(answer.usage)
        self.assertEqual(caught.exception.status_code, 402, caught.exception)
        self.assertGreater(len(usages), 2)
        self.assert_costs("looper", usages)
        self.assertLessEqual(self.kernel.spent_pico("looper"), 200 * 1_000_000)

    def test_zz_no_bill_was_above_its_hold(self) -> None:
        metrics = json.loads(self.kernel.aex("metrics", "--json"))
        self.assertEqual(metrics["overruns"], 0)


if __name__ == "__main__":
    unittest.main()
