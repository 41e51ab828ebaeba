#!/usr/bin/env python3
"""smolagents."""

import unittest
from concurrent.futures import ThreadPoolExecutor

from case import CITY_TOOL, MODEL, WORDS, ClientCase

from smolagents import CodeAgent, OpenAIModel, ToolCallingAgent, tool

HELLO = [{"role": "user", "content": [{"type": "text", "text": "Say hello."}]}]
FINAL = {"name": "final_answer", "arguments": {"answer": "rain"}}
CODE = "Thought: easy.\n<code>\nfinal_answer('rain')\n</code>"


@tool
def weather(city: str) -> str:
    """The weather in a city.

    Args:
        city: Where.
    """
    return f"rain in {city}"


def model() -> OpenAIModel:
    return OpenAIModel(MODEL)


class SmolagentsFlows(ClientCase):
    def test_plain(self) -> None:
        self.agent()
        self.assertEqual(model().generate(HELLO).content, WORDS)

    def test_streamed(self) -> None:
        self.agent()
        deltas = model().generate_stream(HELLO)
        self.assertEqual("".join(delta.content or "" for delta in deltas), WORDS)

    def test_tool_loop(self) -> None:
        self.agent()
        # It puts a tool's result into a user's message: the second call is told by its count.
        self.behave(tool_call=CITY_TOOL, times=1)
        self.sim.control("behaviour", {"tool_call": FINAL, "times": 1})
        agent = ToolCallingAgent(tools=[weather], model=model(), verbosity_level=0)
        self.assertEqual(agent.run("The weather in Oslo?"), "rain")
        self.assertIn("rain in Oslo", str(self.bodies()[-1]))
        self.assert_requests(*["chat/completions"] * 2)

    def test_code_agent(self) -> None:
        self.agent()
        self.behave(text=CODE)
        agent = CodeAgent(tools=[weather], model=model(), verbosity_level=0)
        self.assertEqual(agent.run("The weather in Oslo?"), "rain")

    def test_64_at_once(self) -> None:
        self.agent()
        shared = model()
        with ThreadPoolExecutor(64) as pool:
            answers = pool.map(lambda _: shared.generate(HELLO).content, range(64))
            self.assertEqual(list(answers), [WORDS] * 64)

    def test_a_spent_budget(self) -> None:
        self.assert_spent_budget_is_tried_once(lambda: model().generate(HELLO))
        self.assert_spent_budget_is_tried_once(
            lambda: ToolCallingAgent(tools=[weather], model=model(), verbosity_level=0).run("Oslo?")
        )

    def test_a_busy_provider(self) -> None:
        answer = self.assert_busy_provider_is_tried_again(lambda: model().generate(HELLO))
        self.assertEqual(answer.content, WORDS)


if __name__ == "__main__":
    unittest.main()
