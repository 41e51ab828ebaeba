#!/usr/bin/env python3
"""langgraph and langchain-openai."""

import asyncio
import json
import unittest

from case import (
    CITY_TOOL, EMBEDDING_MODEL, MODEL, PERSON, REASONING_MODEL, WORDS, ClientCase,
)

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import BaseModel


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def weather(city: str) -> str:
    """The weather in a city."""
    return f"rain in {city}"


def looping_graph(model: ChatOpenAI):
    """A model that calls tools until it has an answer."""
    with_tools = model.bind_tools([weather])
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [with_tools.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([weather]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


class LangGraphFlows(ClientCase):
    def test_plain(self) -> None:
        self.agent()
        self.assertEqual(ChatOpenAI(model=MODEL).invoke("Say hello.").content, WORDS)
        answer = ChatOpenAI(model=MODEL, max_tokens=8).invoke("Say hello.")
        self.assertEqual(answer.content, "tok " * 8)

    def test_streamed(self) -> None:
        self.agent()
        for options in ({}, {"stream_usage": True}, {"use_responses_api": True}):
            chunks = ChatOpenAI(model=MODEL, **options).stream("Say hello.")
            self.assertEqual("".join(chunk.text for chunk in chunks), WORDS)

    def test_tool_loop(self) -> None:
        self.agent()
        self.behave(tool_call=CITY_TOOL)
        for path, options in (
            ("chat/completions", {}), ("responses", {"use_responses_api": True})
        ):
            graph = looping_graph(ChatOpenAI(model=MODEL, **options))
            state = graph.invoke({"messages": [HumanMessage("The weather in Oslo?")]})
            self.assertEqual(state["messages"][-1].text, WORDS)
            self.assertEqual(state["messages"][-2].content, "rain in Oslo")
            self.assertEqual(self.paths()[-2:], [path] * 2)

    def test_two_turns_with_reasoning(self) -> None:
        self.agent()
        self.behave(tool_call=CITY_TOOL, reasoning_tokens=7)
        for options in ({}, {"output_version": "responses/v1"}):
            model = ChatOpenAI(model=REASONING_MODEL, use_responses_api=True, **options)
            graph, messages = looping_graph(model), []
            for question in ("The weather in Oslo?", "And now?"):
                state = graph.invoke({"messages": [*messages, HumanMessage(question)]})
                messages = state["messages"]
                self.assertEqual(messages[-1].text, WORDS)

    def test_structured(self) -> None:
        self.agent()
        self.behave(text=json.dumps(PERSON))
        model = ChatOpenAI(model=MODEL)
        self.assertEqual(model.with_structured_output(Person).invoke("Who?"), Person(**PERSON))
        self.behave(tool_call={"name": "Person", "arguments": PERSON})
        by_tool = model.with_structured_output(Person, method="function_calling")
        self.assertEqual(by_tool.invoke("Who?"), Person(**PERSON))

    def test_embeddings(self) -> None:
        self.agent()
        # Its own counting of tokens would fetch a vocabulary from elsewhere.
        embeddings = OpenAIEmbeddings(model=EMBEDDING_MODEL, check_embedding_ctx_length=False)
        self.assertEqual(len(embeddings.embed_documents(["one", "two"])), 2)

    def test_64_at_once(self) -> None:
        self.agent()

        async def all_at_once() -> list[str]:
            model = ChatOpenAI(model=MODEL)
            answers = await asyncio.gather(*(model.ainvoke("Say hello.") for _ in range(64)))
            return [answer.content for answer in answers]

        self.assertEqual(asyncio.run(all_at_once()), [WORDS] * 64)

    def test_a_spent_budget(self) -> None:
        for options in ({}, {"use_responses_api": True}):
            self.assert_spent_budget_is_tried_once(
                lambda: ChatOpenAI(model=MODEL, **options).invoke("Say hello.")
            )
        self.assert_spent_budget_is_tried_once(
            lambda: looping_graph(ChatOpenAI(model=MODEL)).invoke({"messages": ["Say hello."]})
        )

    def test_a_busy_provider(self) -> None:
        answer = self.assert_busy_provider_is_tried_again(
            lambda: ChatOpenAI(model=MODEL).invoke("Say hello.")
        )
        self.assertEqual(answer.content, WORDS)


if __name__ == "__main__":
    unittest.main()
