#!/usr/bin/env python3
"""The flows of the `openai` package that sdk.py leaves: each route, tools, structured answers."""

import asyncio
import json
import unittest

from case import (
    CITY_TOOL, EMBEDDING_MODEL, MODEL, PERSON, REASONING_MODEL, WORDS, ClientCase,
)

from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

HELLO = [{"role": "user", "content": "Say hello."}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
CHAT_TOOL = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
TOOL = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": False}


class Person(BaseModel):
    name: str
    age: int


class OpenAiFlows(ClientCase):
    def client(self) -> OpenAI:
        self.agent()
        client = OpenAI()
        self.addCleanup(client.close)
        return client

    def test_chat_with_a_tool(self) -> None:
        client = self.client()
        self.behave(tool_call=CITY_TOOL)
        messages = list(HELLO)
        answer = client.chat.completions.create(model=MODEL, messages=messages, tools=[CHAT_TOOL])
        call = answer.choices[0].message.tool_calls[0]
        self.assertEqual(json.loads(call.function.arguments), CITY_TOOL["arguments"])
        messages.append(answer.choices[0].message)
        messages.append({"role": "tool", "tool_call_id": call.id, "content": "rain"})
        with client.chat.completions.stream(
            model=MODEL, messages=messages, tools=[CHAT_TOOL]
        ) as stream:
            text = stream.get_final_completion().choices[0].message.content
        self.assertEqual(text, WORDS)

    def test_chat_with_a_structured_answer(self) -> None:
        client = self.client()
        self.behave(text=json.dumps(PERSON))
        answer = client.chat.completions.parse(
            model=MODEL, messages=HELLO, response_format=Person
        )
        self.assertEqual(answer.choices[0].message.parsed, Person(**PERSON))
        response = client.responses.parse(model=MODEL, input="Who?", text_format=Person)
        self.assertEqual(response.output_parsed, Person(**PERSON))

    def test_completions(self) -> None:
        client = self.client()
        answer = client.completions.create(model=MODEL, prompt=["a", "b"], max_tokens=8, n=2)
        self.assertEqual([choice.text for choice in answer.choices], ["tok " * 8] * 4)
        chunks = client.completions.create(model=MODEL, prompt="a", max_tokens=8, stream=True)
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks), "tok " * 8)

    def test_embeddings(self) -> None:
        client = self.client()
        for form in ("float", "base64", None):
            options = {"encoding_format": form} if form else {}
            answer = client.embeddings.create(
                model=EMBEDDING_MODEL, input=["one", "two"], **options
            )
            self.assertEqual(len(answer.data), 2)
        self.assertEqual(self.bodies()[2]["encoding_format"], "base64")
        client.embeddings.create(model=EMBEDDING_MODEL, input=[[1, 2, 3], [4]])

    def test_a_response_plain_and_streamed(self) -> None:
        client = self.client()
        response = client.responses.create(model=MODEL, input="hello", instructions="Be brief.")
        self.assertEqual(response.output_text, WORDS)
        with client.responses.stream(model=MODEL, input="hello") as stream:
            kinds = [event.type for event in stream]
            final = stream.get_final_response()
        self.assertEqual((kinds[0], kinds[-1]), ("response.created", "response.completed"))
        self.assertEqual(final.output_text, WORDS)
        self.assertEqual(final.usage.output_tokens, 20)

    def test_a_response_that_its_cap_ends(self) -> None:
        client = self.client()
        events = list(client.responses.create(
            model=MODEL, input="hello", max_output_tokens=16, stream=True
        ))
        self.assertEqual(events[-1].type, "response.incomplete")
        self.assertEqual(events[-1].response.usage.output_tokens, 16)

    def test_a_response_that_fails(self) -> None:
        client = self.client()
        self.behave(fail=True)
        events = list(client.responses.create(model=MODEL, input="hello", stream=True))
        self.assertEqual(events[-1].type, "response.failed")

    def test_responses_with_a_tool_and_reasoning(self) -> None:
        client = self.client()
        self.behave(tool_call=CITY_TOOL, reasoning_tokens=7)
        ask = {"model": REASONING_MODEL, "tools": [TOOL], "store": False,
               "include": ["reasoning.encrypted_content"]}
        items = [{"role": "user", "content": "What is the weather?"}]
        first = client.responses.create(input=items, **ask)
        self.assertEqual([item.type for item in first.output], ["reasoning", "function_call"])
        items += first.output
        items.append({
            "type": "function_call_output", "call_id": first.output[1].call_id, "output": "rain"
        })
        self.assertEqual(client.responses.create(input=items, **ask).output_text, WORDS)

    def test_64_at_once(self) -> None:
        self.agent()

        async def all_at_once() -> list[str]:
            async with AsyncOpenAI() as client:
                responses = await asyncio.gather(*(
                    client.responses.create(model=MODEL, input="hello") for _ in range(64)
                ))
            return [response.output_text for response in responses]

        self.assertEqual(asyncio.run(all_at_once()), [WORDS] * 64)

    def test_a_spent_budget(self) -> None:
        for ask in (
            lambda client: client.responses.create(model=MODEL, input="hello"),
            lambda client: list(client.responses.create(model=MODEL, input="a", stream=True)),
            lambda client: client.completions.create(model=MODEL, prompt="hello"),
            lambda client: client.embeddings.create(
                model=EMBEDDING_MODEL, input=["hello there, who is it"] * 100
            ),
        ):
            error = self.assert_spent_budget_is_tried_once(lambda: ask(OpenAI()))
            self.assertEqual(error.status_code, 402)

    def test_a_busy_provider(self) -> None:
        answer = self.assert_busy_provider_is_tried_again(
            lambda: OpenAI().responses.create(model=MODEL, input="hello")
        )
        self.assertEqual(answer.output_text, WORDS)

    def test_aex_says_when_to_come_again(self) -> None:
        self.agent("1.00", 10_000, "--max-concurrency", "1")
        self.behave(delay_ms=500)
        before = self.metrics()["refused"].get("rate_limit_exceeded", 0)

        async def two_at_once() -> list[str]:
            async with AsyncOpenAI() as client:
                responses = await asyncio.gather(*(
                    client.responses.create(model=MODEL, input="hello") for _ in range(2)
                ))
            return [response.output_text for response in responses]

        self.assertEqual(asyncio.run(two_at_once()), [WORDS] * 2)
        self.assertEqual(self.metrics()["refused"]["rate_limit_exceeded"], before + 1)


if __name__ == "__main__":
    unittest.main()
