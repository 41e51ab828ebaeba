#!/usr/bin/env python3
"""curl: what scripts send, chunked bodies and `Expect: 100-continue` among it."""

import json
import pathlib
import subprocess
import tempfile
import unittest
from concurrent.futures import ThreadPoolExecutor

from case import CITY_TOOL, EMBEDDING_MODEL, MODEL, PERSON, WORDS, ClientCase

HELLO = [{"role": "user", "content": "Say hello."}]


class CurlFlows(ClientCase):
    def curl(self, route: str, body: dict, *options: str, status: int = 200) -> str:
        with tempfile.NamedTemporaryFile("r") as file:
            done = subprocess.run(
                [
                    "curl", "--silent", "--show-error", "--max-time", "60", "--noproxy", "*",
                    "--output", file.name, "--write-out", "%{http_code}", "--data-binary", "@-",
                    "--header", f"Authorization: Bearer {self.token}",
                    "--header", "Content-Type: application/json", *options,
                    f"{self.base_url}/{route}",
                ],
                input=json.dumps(body), capture_output=True, text=True, check=True, timeout=90,
            )
            answer = pathlib.Path(file.name).read_text()
        self.assertEqual(int(done.stdout), status, answer)
        return answer

    def agent(self, *args) -> str:
        self.token = super().agent(*args)
        return self.token

    def chat(self, *options: str, **changes) -> dict:
        request = {"model": MODEL, "messages": HELLO} | changes
        return json.loads(self.curl("chat/completions", request, *options))

    def events(self, route: str, request: dict) -> list[dict]:
        lines = self.curl(route, request | {"stream": True}, "--no-buffer").splitlines()
        data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
        return [json.loads(event) for event in data if event != "[DONE]"]

    def test_plain(self) -> None:
        self.agent()
        for options in (
            ("--http1.1",), ("--header", "Expect: 100-continue"),
            ("--header", "Transfer-Encoding: chunked"), ("--compressed",),
        ):
            self.assertEqual(self.chat(*options)["choices"][0]["message"]["content"], WORDS)

    def test_large_body(self) -> None:
        self.agent()
        self.chat(messages=[{"role": "user", "content": "word " * 50_000}])

    def test_streamed(self) -> None:
        self.agent()
        chunks = self.events("chat/completions", {"model": MODEL, "messages": HELLO})
        text = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
        self.assertEqual("".join(text), WORDS)
        chunks = self.events("completions", {"model": MODEL, "prompt": "hello"})
        self.assertEqual("".join(chunk["choices"][0]["text"] for chunk in chunks), WORDS)
        events = self.events("responses", {"model": MODEL, "input": "hello"})
        self.assertEqual(
            [event["sequence_number"] for event in events], list(range(len(events)))
        )
        self.assertEqual(events[-1]["response"]["output"][0]["content"][0]["text"], WORDS)

    def test_tool_loop(self) -> None:
        self.agent()
        self.behave(tool_call=CITY_TOOL)
        said = self.chat()["choices"][0]["message"]
        result = {
            "role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": "rain"
        }
        answer = self.chat(messages=[*HELLO, said, result])
        self.assertEqual(answer["choices"][0]["message"]["content"], WORDS)

    def test_structured(self) -> None:
        self.agent()
        self.behave(text=json.dumps(PERSON))
        answer = self.chat(response_format={"type": "json_object"})
        self.assertEqual(json.loads(answer["choices"][0]["message"]["content"]), PERSON)

    def test_embeddings(self) -> None:
        self.agent()
        answer = self.curl("embeddings", {"model": EMBEDDING_MODEL, "input": ["one", "two"]})
        self.assertEqual(len(json.loads(answer)["data"]), 2)

    def test_64_at_once(self) -> None:
        self.agent()
        with ThreadPoolExecutor(64) as pool:
            answers = list(pool.map(lambda _: self.chat(max_tokens=8), range(64)))
        self.assertEqual({answer["usage"]["completion_tokens"] for answer in answers}, {8})

    def test_a_spent_budget(self) -> None:
        self.agent("0.000001")
        request = {"model": MODEL, "messages": HELLO}
        # --retry repeats what curl thinks transient: 408, 429 and some 5xx.
        answer = self.curl("chat/completions", request, "--retry", "3", status=402)
        self.assertEqual(json.loads(answer)["error"]["code"], "insufficient_budget")
        self.assertEqual(self.metrics()["refused"]["insufficient_budget"], 1)

    def test_a_busy_provider(self) -> None:
        answer = self.assert_busy_provider_is_tried_again(lambda: self.chat("--retry", "2"))
        self.assertEqual(answer["choices"][0]["message"]["content"], WORDS)


if __name__ == "__main__":
    unittest.main()
