#!/usr/bin/env python3
"""crewai."""

import json
import os
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor

from case import CITY_TOOL, MODEL, PERSON, WORDS, ClientCase

# It keeps its state in files of the user's home.
_home = tempfile.TemporaryDirectory(prefix="aex-crewai-")
os.environ.update({"HOME": _home.name, "XDG_DATA_HOME": _home.name, "CREWAI_STORAGE_DIR": "aex"})

from crewai import LLM, Agent, Crew, Task  # noqa: E402
from crewai.tools import tool  # noqa: E402
from pydantic import BaseModel  # noqa: E402


class Person(BaseModel):
    name: str
    age: int


@tool("weather")
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


class CrewAiFlows(ClientCase):
    def llm(self, **options) -> LLM:
        return LLM(
            model=f"openai/{MODEL}", base_url=self.base_url,
            api_key=os.environ["OPENAI_API_KEY"], **options,
        )

    def crew(self, tools=(), answer: type | None = None, **options) -> Crew:
        agent = Agent(
            role="helper", goal="help", backstory="none", llm=self.llm(), tools=list(tools),
            verbose=False, **options,
        )
        task = Task(
            description="The weather?", expected_output="a word", agent=agent,
            output_pydantic=answer,
        )
        return Crew(agents=[agent], tasks=[task], verbose=False)

    def test_plain(self) -> None:
        self.agent()
        self.assertEqual(self.llm().call("Say hello.").strip(), WORDS.strip())
        self.assertIn("tok", self.crew().kickoff().raw)

    def test_streamed(self) -> None:
        self.agent()
        self.assertEqual(self.llm(stream=True).call("Say hello.").strip(), WORDS.strip())

    def test_tool_loop(self) -> None:
        self.agent()
        self.behave(tool_call=CITY_TOOL)
        self.assertIn("tok", self.crew([weather]).kickoff().raw)
        self.assertIn("rain in Oslo", json.dumps(self.bodies()[-1]))

    def test_structured(self) -> None:
        self.agent()
        self.behave(text=json.dumps(PERSON))
        result = self.crew(answer=Person).kickoff()
        self.assertEqual(result.pydantic, Person(**PERSON))

    def test_64_at_once(self) -> None:
        self.agent()
        llm = self.llm()
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(lambda _: llm.call("Say hello.").strip(), range(64)))
        self.assertEqual(answers, [WORDS.strip()] * 64)

    def test_a_spent_budget(self) -> None:
        self.assert_spent_budget_is_tried_once(lambda: self.llm().call("Say hello."))
        self.assert_spent_budget_is_tried_once(lambda: self.crew(max_retry_limit=0).kickoff())
        # Of itself a crew does a failed task again, twice, whatever the error is.
        self.assert_spent_budget_is_tried_once(lambda: self.crew().kickoff(), tries=3)

    def test_a_busy_provider(self) -> None:
        answer = self.assert_busy_provider_is_tried_again(lambda: self.llm().call("Say hello."))
        self.assertEqual(answer.strip(), WORDS.strip())


if __name__ == "__main__":
    unittest.main()
