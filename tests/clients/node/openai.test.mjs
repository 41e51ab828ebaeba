// The `openai` package.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import {
  CITY_TOOL, EMBEDDING_MODEL, MODEL, PERSON, REASONING_MODEL, WORDS, agent,
  assertBusyProviderIsTriedAgain, assertSpentBudgetIsTriedOnce, behave, bodies,
  holdAgainstTheBill, joined, manyAtOnce,
} from "./kernel.mjs";

holdAgainstTheBill();

const messages = [{ role: "user", content: "Say hello." }];
const parameters = { type: "object", properties: { city: { type: "string" } } };
const Person = z.object({ name: z.string(), age: z.number() });

function client() {
  agent();
  return new OpenAI();
}

test("plain", async () => {
  const openai = client();
  const answer = await openai.chat.completions.create({ model: MODEL, messages });
  assert.equal(answer.choices[0].message.content, WORDS);
  const response = await openai.responses.create({ model: MODEL, input: "hello" });
  assert.equal(response.output_text, WORDS);
  const completion = await openai.completions.create({ model: MODEL, prompt: "hello" });
  assert.equal(completion.choices[0].text, WORDS);
});

test("streamed", async () => {
  const openai = client();
  const chunks = await openai.chat.completions.create({ model: MODEL, messages, stream: true });
  assert.equal(await joined(chunks, (chunk) => chunk.choices[0].delta.content), WORDS);
  const stream = openai.responses.stream({ model: MODEL, input: "hello" });
  const text = (event) => (event.type === "response.output_text.delta" ? event.delta : "");
  assert.equal(await joined(stream, text), WORDS);
  assert.equal((await stream.finalResponse()).output_text, WORDS);
});

test("tool loop", async () => {
  const openai = client();
  await behave({ tool_call: CITY_TOOL });
  const runner = openai.chat.completions.runTools({
    model: MODEL,
    messages,
    tools: [{
      type: "function",
      function: {
        name: "weather", parameters, parse: JSON.parse, function: ({ city }) => `rain in ${city}`,
      },
    }],
  });
  assert.equal(await runner.finalContent(), WORDS);
  assert.match(JSON.stringify((await bodies())[1]), /rain in Oslo/);
});

test("tool loop of responses, with reasoning", async () => {
  const openai = client();
  await behave({ tool_call: CITY_TOOL, reasoning_tokens: 7 });
  const tools = [{ type: "function", name: "weather", parameters, strict: false }];
  const input = [...messages];
  const first = await openai.responses.create({ model: REASONING_MODEL, input, tools });
  const call = first.output.find((item) => item.type === "function_call");
  input.push(...first.output);
  input.push({ type: "function_call_output", call_id: call.call_id, output: "rain" });
  const second = await openai.responses.create({ model: REASONING_MODEL, input, tools });
  assert.equal(second.output_text, WORDS);
});

test("structured", async () => {
  const openai = client();
  await behave({ text: JSON.stringify(PERSON) });
  const answer = await openai.chat.completions.parse({
    model: MODEL, messages, response_format: zodResponseFormat(Person, "person"),
  });
  assert.deepEqual(answer.choices[0].message.parsed, PERSON);
  const response = await openai.responses.parse({
    model: MODEL, input: "Who?", text: { format: zodTextFormat(Person, "person") },
  });
  assert.deepEqual(response.output_parsed, PERSON);
});

test("embeddings", async () => {
  const answer = await client().embeddings.create({
    model: EMBEDDING_MODEL, input: ["one", "two"],
  });
  assert.deepEqual(answer.data.map((item) => item.embedding.length), [16, 16]);
  assert.equal((await bodies())[0].encoding_format, "base64");
});

test("64 at once", async () => {
  const openai = client();
  const answers = await manyAtOnce(() => openai.chat.completions.create({ model: MODEL, messages }));
  assert.ok(answers.every((answer) => answer.choices[0].message.content === WORDS));
});

test("a spent budget", async () => {
  for (const ask of [
    (openai) => openai.chat.completions.create({ model: MODEL, messages }),
    (openai) => openai.responses.create({ model: MODEL, input: "hello" }),
    async (openai) => joined(
      await openai.responses.create({ model: MODEL, input: "hello", stream: true }),
    ),
  ]) {
    const error = await assertSpentBudgetIsTriedOnce(() => ask(new OpenAI()));
    assert.equal(error.status, 402);
    assert.equal(error.code, "insufficient_budget");
  }
});

test("a busy provider", async () => {
  const answer = await assertBusyProviderIsTriedAgain(
    () => new OpenAI().chat.completions.create({ model: MODEL, messages }),
  );
  assert.equal(answer.choices[0].message.content, WORDS);
});
