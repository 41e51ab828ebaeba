#!/usr/bin/env python3
"""openai-agents, over its default, the Responses API, and over chat completions."""

import asyncio
import json
import unittest

from case import CITY_TOOL, MODEL, PERSON, REASONING_MODEL, WORDS, ClientCase

from agents import (
    Agent, AsyncOpenAI, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner,
    SQLiteSession, function_tool,
)
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel


class Person(BaseModel):
    name: str
    age: int


@function_tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


class AgentsFlows(ClientCase):
    """Each flow over the Responses API; AgentsOverChat does them over chat completions."""

    PATH = "responses"
    model_class = OpenAIResponsesModel

    def run_agent(self, ask, *, model: str = MODEL, **options):
        """Runs `ask(agent)` with a client that is closed after it."""

        async def run():
            async with AsyncOpenAI() as client:
                served = self.model_class(model=model, openai_client=client)
                return await ask(Agent(name="helper", model=served, **options))

        return asyncio.run(run())

    def test_plain(self) -> None:
        self.agent()
        result = self.run_agent(lambda agent: Runner.run(agent, "Say hello."), instructions="Hi.")
        self.assertEqual(result.final_output, WORDS)
        self.assert_requests(self.PATH)

    def test_streamed(self) -> None:
        self.agent()

        async def ask(agent: Agent) -> str:
            result, text = Runner.run_streamed(agent, "Say hello."), ""
            async for event in result.stream_events():
                if event.type == "raw_response_event":
                    if isinstance(event.data, ResponseTextDeltaEvent):
                        text += event.data.delta
            return text

        self.assertEqual(self.run_agent(ask), WORDS)

    def test_tool_loop(self) -> None:
        self.agent()
        self.behave(tool_call=CITY_TOOL)
        result = self.run_agent(lambda agent: Runner.run(agent, "Oslo?"), tools=[weather])
        self.assertEqual(result.final_output, WORDS)
        self.assertIn("rain in Oslo", json.dumps(self.bodies()[-1]))
        self.assert_requests(self.PATH, self.PATH)

    def test_structured(self) -> None:
        self.agent()
        self.behave(text=json.dumps(PERSON))
        result = self.run_agent(lambda agent: Runner.run(agent, "Who?"), output_type=Person)
        self.assertEqual(result.final_output, Person(**PERSON))

    def test_64_at_once(self) -> None:
        self.agent()

        async def ask(agent: Agent) -> list[str]:
            results = await asyncio.gather(*(Runner.run(agent, "Say hello.") for _ in range(64)))
            return [result.final_output for result in results]

        self.assertEqual(self.run_agent(ask), [WORDS] * 64)

    def test_a_spent_budget(self) -> None:
        self.assert_spent_budget_is_tried_once(
            lambda: self.run_agent(lambda agent: Runner.run(agent, "Say hello."))
        )

    def test_a_busy_provider(self) -> None:
        result = self.assert_busy_provider_is_tried_again(
            lambda: self.run_agent(lambda agent: Runner.run(agent, "Say hello."))
        )
        self.assertEqual(result.final_output, WORDS)


class AgentsOverChat(AgentsFlows):
    PATH = "chat/completions"
    model_class = OpenAIChatCompletionsModel


class AgentsReasoning(ClientCase):
    """What a second turn replays of the first one's reasoning is there, though nothing is stored."""

    def two_turns(self, **settings) -> None:
        self.agent()
        self.behave(tool_call=CITY_TOOL, reasoning_tokens=7)

        async def run() -> None:
            async with AsyncOpenAI() as client:
                agent = Agent(
                    name="helper",
                    model=OpenAIResponsesModel(model=REASONING_MODEL, openai_client=client),
                    model_settings=ModelSettings(**settings),
                    tools=[weather],
                )
                session = SQLiteSession("two-turns")
                for question in ("The weather in Oslo?", "And now?"):
                    result = await Runner.run(agent, question, session=session)
                    self.assertEqual(result.final_output, WORDS)

        asyncio.run(run())
        self.assert_requests(*["responses"] * 4)
        for body in self.bodies():
            self.assertIs(body["store"], False)

    def test_as_it_is_by_default(self) -> None:
        self.two_turns()

    def test_stored(self) -> None:
        self.two_turns(store=True)

    def test_not_stored(self) -> None:
        self.two_turns(store=False, response_include=["reasoning.encrypted_content"])


if __name__ == "__main__":
    unittest.main()
