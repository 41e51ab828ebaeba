// @langchain/openai.

import assert from "node:assert/strict";
import { test } from "node:test";
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai";
import { z } from "zod";
import {
  CITY_TOOL, EMBEDDING_MODEL, MODEL, PERSON, REASONING_MODEL, WORDS, agent,
  assertBusyProviderIsTriedAgain, assertSpentBudgetIsTriedOnce, baseURL, behave, holdAgainstTheBill, joined, manyAtOnce, paths,
} from "./kernel.mjs";

holdAgainstTheBill();

const APIS = [["chat/completions", {}], ["responses", { useResponsesApi: true }]];
const weather = tool(({ city }) => `rain in ${city}`, {
  name: "weather",
  description: "The weather in a city.",
  schema: z.object({ city: z.string() }),
});

const chat = (options) => new ChatOpenAI({ model: MODEL, configuration: { baseURL }, ...options });

for (const [path, options] of APIS) {
  test(`${path}: plain`, async () => {
    agent();
    assert.equal((await chat(options).invoke("Say hello.")).text, WORDS);
    assert.deepEqual(await paths(), [path]);
  });

  test(`${path}: streamed`, async () => {
    agent();
    const stream = await chat(options).stream("Say hello.");
    assert.equal(await joined(stream, (chunk) => chunk.text), WORDS);
  });

  for (const [id, thoughts] of [[MODEL, 0], [REASONING_MODEL, 7]]) {
    test(`${path}: tool loop of ${id}`, async () => {
      agent();
      await behave({ tool_call: CITY_TOOL, reasoning_tokens: thoughts });
      const model = chat({ ...options, model: id }).bindTools([weather]);
      const messages = [new HumanMessage("The weather in Oslo?")];
      const called = await model.invoke(messages);
      const result = await weather.invoke(called.tool_calls[0]);
      assert.ok(result instanceof ToolMessage);
      messages.push(called, result);
      assert.equal((await model.invoke(messages)).text, WORDS);
    });
  }

  test(`${path}: structured`, async () => {
    agent();
    await behave({ text: JSON.stringify(PERSON) });
    const schema = z.object({ name: z.string(), age: z.number() });
    const model = chat(options).withStructuredOutput(schema, { method: "jsonSchema", name: "person" });
    assert.deepEqual(await model.invoke("Who?"), PERSON);
  });

  test(`${path}: 64 at once`, async () => {
    agent();
    const model = chat(options);
    const answers = await manyAtOnce(() => model.invoke("Say hello."));
    assert.ok(answers.every((answer) => answer.text === WORDS));
  });

  test(`${path}: a spent budget`, async () => {
    const ask = () => chat(options).invoke("Say hello.");
    const error = await assertSpentBudgetIsTriedOnce(ask);
    assert.equal(error.status, 402);
  });

  test(`${path}: a busy provider`, async () => {
    const ask = () => chat(options).invoke("Say hello.");
    assert.equal((await assertBusyProviderIsTriedAgain(ask)).text, WORDS);
  });
}

test("embeddings", async () => {
  agent();
  const embeddings = new OpenAIEmbeddings({ model: EMBEDDING_MODEL, configuration: { baseURL } });
  assert.equal((await embeddings.embedDocuments(["one", "two"])).length, 2);
});
