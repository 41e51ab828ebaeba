#!/usr/bin/env python3
"""autogen-agentchat, with the OpenAI client of autogen-ext."""

import asyncio
import json
import unittest

from case import CITY_TOOL, MODEL, PERSON, WORDS, ClientCase

from autogen_agentchat.agents import AssistantAgent
from autogen_core.models import ModelFamily, UserMessage
from autogen_ext.models.openai import OpenAIChatCompletionClient
from pydantic import BaseModel

MODEL_INFO = {
    "vision": False, "function_calling": True, "json_output": True,
    "structured_output": True, "family": ModelFamily.UNKNOWN,
}


class Person(BaseModel):
    name: str
    age: int


async def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def with_model(ask, **options):
    """Runs `ask(model)` with a model client that is closed after it."""

    async def run():
        model = OpenAIChatCompletionClient(model=MODEL, model_info=MODEL_INFO, **options)
        try:
            return await ask(model)
        finally:
            await model.close()

    return asyncio.run(run())


class AutogenFlows(ClientCase):
    def test_plain(self) -> None:
        self.agent()
        result = with_model(lambda model: AssistantAgent("helper", model).run(task="Say hello."))
        self.assertEqual(result.messages[-1].content, WORDS)

    def test_streamed(self) -> None:
        self.agent()

        async def ask(model) -> str:
            text = ""
            async for part in model.create_stream([UserMessage(content="Hello.", source="user")]):
                text += part if isinstance(part, str) else ""
            return text

        self.assertEqual(with_model(ask), WORDS)
        self.assertEqual(with_model(ask, include_usage_in_stream=True), WORDS)

    def test_tool_loop(self) -> None:
        self.agent()
        self.behave(tool_call=CITY_TOOL)
        result = with_model(lambda model: AssistantAgent(
            "helper", model, tools=[weather], reflect_on_tool_use=True
        ).run(task="The weather in Oslo?"))
        self.assertEqual(result.messages[-1].content, WORDS)
        self.assert_requests(*["chat/completions"] * 2)

    def test_structured(self) -> None:
        self.agent()
        self.behave(text=json.dumps(PERSON))
        result = with_model(lambda model: AssistantAgent(
            "helper", model, output_content_type=Person
        ).run(task="Who?"))
        self.assertEqual(result.messages[-1].content, Person(**PERSON))

    def test_64_at_once(self) -> None:
        self.agent()

        async def ask(model) -> list[str]:
            question = [UserMessage(content="Say hello.", source="user")]
            answers = await asyncio.gather(*(model.create(question) for _ in range(64)))
            return [answer.content for answer in answers]

        self.assertEqual(with_model(ask), [WORDS] * 64)

    def test_a_spent_budget(self) -> None:
        self.assert_spent_budget_is_tried_once(lambda: with_model(
            lambda model: AssistantAgent("helper", model).run(task="Say hello.")
        ))

    def test_a_busy_provider(self) -> None:
        result = self.assert_busy_provider_is_tried_again(lambda: with_model(
            lambda model: AssistantAgent("helper", model).run(task="Say hello.")
        ))
        self.assertEqual(result.messages[-1].content, WORDS)


if __name__ == "__main__":
    unittest.main()
