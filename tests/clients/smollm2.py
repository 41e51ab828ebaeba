#!/usr/bin/env python3
"""A real model through AEX: SmolLM2-135M on llama.cpp, the Python `openai` package in front, plain and
streamed. The ledger must equal the model's reported usage x price, to the picodollar.

Run with the python of tests/clients/setup.sh; the programs are found as kernel.py says.
"""

import json
import unittest
import urllib.error
import urllib.request

import openai
from openai import OpenAI

from kernel import Kernel, real_model, wait_for

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
  smollm2-free:
    provider: llama
    upstream_model: smollm2
    price: free
    max_output_tokens: 512
    context_window: 2048
"""
QUESTIONS = [
    "hi",
    "What is the capital of France?",
    "Count: 1 2 3 4 5 6 7 8 9 10 11 12",
    "Was bedeutet »Übermut«? 日本語でも答えてください。",
]


# Each of them on its own lets some server, or this one, generate more than its cap says.
CAP = 3
KNOBS = [
    {"n_predict": 40}, {"num_predict": 40}, {"n_predict": -1}, {"max_tokens": -1}, {"max_tokens": 0},
    {"max_tokens": 2**32 - 1}, {"max_tokens": 2**70}, {"max_tokens": "40"}, {"max_tokens": 40.5},
    {"max_completion_tokens": 40}, {"max_output_tokens": 40}, {"max_new_tokens": 40},
    {"max_length": 400}, {"min_tokens": 40}, {"min_length": 40}, {"ignore_eos": True},
    {"n": 2}, {"n_cmpl": 2}, {"best_of": 2}, {"num_return_sequences": 2},
    {"options": {"num_predict": 40}}, {"extra_body": {"n_predict": 40}},
    {"generation_config": {"max_new_tokens": 40}}, {"t_max_predict_ms": -1},
    {"N_PREDICT": 40}, {"logit_bias": [[2, -100]]}, {"logit_bias": {"2": -100}},
    {"grammar": 'root ::= "a"{40}'}, {"json_schema": {"type": "string", "minLength": 40}},
    {"response_format": {"type": "json_schema", "json_schema": {
        "name": "s", "schema": {"type": "string", "minLength": 40}}}},
    {"reasoning_budget": -1}, {"thinking_budget_tokens": 40}, {"n_discard": 1}, {"n_keep": -1},
    {"cache_prompt": False}, {"id_slot": 0}, {"samplers": []}, {"stop": []}, {"stream": True},
    {"stream": True, "n": 2}, {"speculative.n_max": 40}, {"return_progress": True},
    {"model": "smollm2-40"}, {"models": ["smollm2"]}, {"prompt": "tell me a long story"},
]
ROUTES = {
    "chat/completions": ({"messages": [{"role": "user", "content": "hi"}]}, "max_tokens"),
    "completions": ({"prompt": ["Once", "Twice"]}, "max_tokens"),
    "responses": ({"input": "hi"}, "max_output_tokens"),
}


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
        # A stream is settled when its last bytes are already sent.
        wait_for("the settles", lambda: len(self.kernel.commits(agent)) >= len(wanted))
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

    def counters(self) -> tuple[int, int]:
        """Prompt tokens and generated tokens so far, as the model server itself counts them."""
        with urllib.request.urlopen(f"http://{self.model.listen}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        totals = dict(line.split() for line in lines if not line.startswith("#"))
        number = lambda name: int(float(totals.get(f"llamacpp:{name}_total", 0)))
        return number("prompt_tokens") + number("prompt_tokens_cached"), number("tokens_predicted")

    def post(self, route: str, token: str, body: dict) -> int:
        request = urllib.request.Request(
            f"{self.kernel.base_url}/{route}",
            json.dumps(body).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                answer.read()
                return answer.status
        except urllib.error.HTTPError as error:
            error.read()
            return error.code

    def test_no_parameter_generates_beyond_the_hold(self) -> None:
        passed = 0
        for model in ("smollm2", "smollm2-free"):
            token = self.kernel.agent(f"crafty-{model}", "1.00", 10_000)
            for route, (body, cap) in ROUTES.items():
                for knob in KNOBS:
                    with self.subTest(model=model, route=route, knob=knob):
                        passed += self.check_knob(token, route, {"model": model, cap: CAP} | body | knob)
        # A test in which everything is refused would show nothing.
        self.assertGreater(passed, 40)
        self.kernel.audit()

    def check_knob(self, token: str, route: str, body: dict) -> bool:
        before = self.counters()
        status = self.post(route, token, body)
        self.wait_until_settled()
        prompt, generated = (now - then for now, then in zip(self.counters(), before))
        if status != 200:
            self.assertEqual((prompt, generated), (0, 0), status)
            return False
        ((detail,),) = self.kernel.sqlite(
            "SELECT detail FROM events WHERE action='hold.open' ORDER BY id DESC LIMIT 1"
        )
        hold = json.loads(detail)
        self.assertGreater(generated, 0)
        self.assertLessEqual(generated, hold["output_cap"] * hold["choices"])
        self.assertLessEqual(prompt, hold["input_tokens"])
        return True

    def wait_until_settled(self) -> None:
        wait_for("the last hold", lambda: self.kernel.sqlite("SELECT COUNT(*) FROM holds") == [["0"]])

    def test_zz_no_bill_was_above_its_hold(self) -> None:
        metrics = json.loads(self.kernel.aex("metrics", "--json"))
        self.assertEqual(metrics["overruns"], 0)


if __name__ == "__main__":
    unittest.main()
