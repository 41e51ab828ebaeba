// The AI SDK: `openai()` is the Responses API, `openai.chat()` chat completions.

import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { Output, embedMany, generateText, isStepCount, streamText, tool } from "ai";
import { z } from "zod";
import {
  CITY_TOOL, EMBEDDING_MODEL, MODEL, PERSON, REASONING_MODEL, WORDS, agent,
  assertBusyProviderIsTriedAgain, assertSpentBudgetIsTriedOnce, behave, bodies,
  holdAgainstTheBill, joined, manyAtOnce, paths,
} from "./kernel.mjs";

holdAgainstTheBill();

const APIS = [
  ["responses", (id) => createOpenAI()(id)],
  ["chat/completions", (id) => createOpenAI().chat(id)],
];
const prompt = "Say hello.";
const tools = {
  weather: tool({
    description: "The weather in a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => `rain in ${city}`,
  }),
};

for (const [path, model] of APIS) {
  test(`${path}: plain`, async () => {
    agent();
    assert.equal((await generateText({ model: model(MODEL), prompt })).text, WORDS);
    assert.deepEqual(await paths(), [path]);
  });

  test(`${path}: streamed`, async () => {
    agent();
    const result = streamText({ model: model(MODEL), prompt });
    assert.equal(await joined(result.textStream), WORDS);
    assert.equal((await result.usage).outputTokens, 20);
  });

  const loops = async (id, options) => {
    agent();
    await behave({ tool_call: CITY_TOOL, reasoning_tokens: id === REASONING_MODEL ? 7 : 0 });
    const ask = { model: model(id), prompt, tools, stopWhen: isStepCount(5), ...options };
    assert.equal((await generateText(ask)).text, WORDS);
    assert.equal(await joined(streamText(ask).textStream), WORDS);
    assert.deepEqual(await paths(), [path, path, path, path]);
    assert.match(JSON.stringify((await bodies())[1]), /rain in Oslo/);
  };

  test(`${path}: tool loop`, () => loops(MODEL));

  test(`${path}: tool loop with reasoning, not stored`, () =>
    loops(REASONING_MODEL, { providerOptions: { openai: { store: false } } }));

  // By default it stores, and refers to what was thought: input[] of type item_reference.
  // AEX leaves the reference out, since nothing was stored, and tells so.
  test(`${path}: tool loop with reasoning`, () => loops(REASONING_MODEL));

  test(`${path}: structured`, async () => {
    agent();
    await behave({ text: JSON.stringify(PERSON) });
    const schema = z.object({ name: z.string(), age: z.number() });
    const result = await generateText({
      model: model(MODEL), prompt, output: Output.object({ schema }),
    });
    assert.deepEqual(result.output, PERSON);
  });

  test(`${path}: 64 at once`, async () => {
    agent();
    const answers = await manyAtOnce(() => generateText({ model: model(MODEL), prompt }));
    assert.ok(answers.every((answer) => answer.text === WORDS));
  });

  test(`${path}: a spent budget`, async () => {
    const error = await assertSpentBudgetIsTriedOnce(
      () => generateText({ model: model(MODEL), prompt }),
    );
    assert.equal(error.statusCode, 402);
    await assertSpentBudgetIsTriedOnce(async () => {
      const failed = [];
      const result = streamText({
        model: model(MODEL), prompt, onError: ({ error }) => failed.push(error),
      });
      assert.equal(await joined(result.textStream), "");
      throw failed[0];
    });
  });

  test(`${path}: a busy provider`, async () => {
    const answer = await assertBusyProviderIsTriedAgain(
      () => generateText({ model: model(MODEL), prompt }),
    );
    assert.equal(answer.text, WORDS);
  });
}

test("embeddings", async () => {
  agent();
  const model = createOpenAI().embedding(EMBEDDING_MODEL);
  const { embeddings } = await embedMany({ model, values: ["one", "two"] });
  assert.equal(embeddings.length, 2);
});
