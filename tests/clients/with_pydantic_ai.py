#!/usr/bin/env python3
"""pydantic-ai, over chat completions and over the Responses API."""

import asyncio
import json
import unittest

from case import (
    CITY_TOOL, EMBEDDING_MODEL, MODEL, PERSON, REASONING_MODEL, WORDS, ClientCase,
)

from pydantic import BaseModel
from pydantic_ai import Agent, Embedder, NativeOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel


class Person(BaseModel):
    name: str
    age: int


def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


class PydanticAiFlows(ClientCase):
    PATH = "chat/completions"
    model_class = OpenAIChatModel

    def helper(self, model: str = MODEL, **options) -> Agent:
        return Agent(self.model_class(model), **options)

    def test_plain(self) -> None:
        self.agent()
        self.assertEqual(self.helper().run_sync("Say hello.").output, WORDS)
        self.assert_requests(self.PATH)

    def test_streamed(self) -> None:
        self.agent()

        async def ask() -> str:
            async with self.helper().run_stream("Say hello.") as result:
                return "".join([text async for text in result.stream_text(delta=True)])

        self.assertEqual(asyncio.run(ask()), WORDS)

    def test_tool_loop(self) -> None:
        self.agent()
        self.behave(tool_call=CITY_TOOL)
        result = self.helper(tools=[weather]).run_sync("The weather in Oslo?")
        self.assertEqual(result.output, WORDS)
        self.assertIn("rain in Oslo", json.dumps(self.bodies()[-1]))
        self.assert_requests(self.PATH, self.PATH)

    def test_two_turns_with_reasoning(self) -> None:
        self.agent()
        self.behave(tool_call=CITY_TOOL, reasoning_tokens=7)
        helper = self.helper(REASONING_MODEL, tools=[weather])
        first = helper.run_sync("The weather in Oslo?")
        second = helper.run_sync("And now?", message_history=first.all_messages())
        self.assertEqual((first.output, second.output), (WORDS, WORDS))
        self.assert_requests(*[self.PATH] * 4)

    def test_structured(self) -> None:
        self.agent()
        self.behave(text=json.dumps(PERSON))
        native = self.helper(output_type=NativeOutput(Person))
        self.assertEqual(native.run_sync("Who?").output, Person(**PERSON))
        self.behave(tool_call={"name": "final_result", "arguments": PERSON})
        by_tool = self.helper(output_type=Person)
        self.assertEqual(by_tool.run_sync("Who?").output, Person(**PERSON))

    def test_embeddings(self) -> None:
        self.agent()
        embedder = Embedder(f"openai:{EMBEDDING_MODEL}")
        result = embedder.embed_sync(["one", "two"], input_type="document")
        self.assertEqual(len(result.embeddings), 2)

    def test_64_at_once(self) -> None:
        self.agent()

        async def all_at_once() -> list[str]:
            helper = self.helper()
            results = await asyncio.gather(*(helper.run("Say hello.") for _ in range(64)))
            return [result.output for result in results]

        self.assertEqual(asyncio.run(all_at_once()), [WORDS] * 64)

    def test_a_spent_budget(self) -> None:
        self.assert_spent_budget_is_tried_once(lambda: self.helper().run_sync("Say hello."))

    def test_a_busy_provider(self) -> None:
        result = self.assert_busy_provider_is_tried_again(
            lambda: self.helper().run_sync("Say hello.")
        )
        self.assertEqual(result.output, WORDS)


class PydanticAiOverResponses(PydanticAiFlows):
    PATH = "responses"
    model_class = OpenAIResponsesModel


if __name__ == "__main__":
    unittest.main()
