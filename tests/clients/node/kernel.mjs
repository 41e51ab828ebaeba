// What the tests of all Node clients share: agents of the kernel that with_node.py started, and the
// proof after each flow that the ledger has what the provider bills.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import dns from "node:dns";
import { join } from "node:path";
import { afterEach, beforeEach } from "node:test";
import { setTimeout as pause } from "node:timers/promises";

const { AEX_BIN, AEX_HOME, AEX_SIM, AEX_BASE_URL } = process.env;

export const MODEL = "gpt-oss-20b";
export const REASONING_MODEL = "gpt-5-mini";
export const EMBEDDING_MODEL = "text-embedding-3-small";
export const CITY_TOOL = { name: "weather", arguments: { city: "Oslo" } };
export const PERSON = { name: "Ada", age: 36 };
export const WORDS = "tok ".repeat(20);
export const baseURL = AEX_BASE_URL;
// Input, cached input and output, in picodollars a token.
const PRICES = JSON.parse(process.env.AEX_PRICES);

const askedFor = [];
const { lookup } = dns;
dns.lookup = (host, ...rest) => {
  if (!["127.0.0.1", "localhost", "::1"].includes(host)) askedFor.push(host);
  return lookup(host, ...rest);
};

let agents = [];

async function control(path, body) {
  const options = body && { method: "POST", body: JSON.stringify(body) };
  return (await fetch(`http://${AEX_SIM}/_sim/${path}`, options)).json();
}

export const behave = (behaviour) => control("behaviour", behaviour);
export const bill = () => control("bill");
export const bodies = async () => (await bill()).log.map((request) => request.body);
export const paths = async () =>
  (await bill()).log.map((request) => request.path.replace("/v1/", ""));

function aex(...args) {
  const env = { PATH: process.env.PATH, AEX_HOME };
  return JSON.parse(execFileSync(join(AEX_BIN, "aex"), [...args, "--json"], { env }));
}

const metrics = () => aex("metrics");

function sqlite(sql) {
  const args = ["-batch", "-cmd", ".timeout 5000", join(AEX_HOME, "aex.db"), sql];
  return Number(execFileSync("sqlite3", args).toString().trim() || 0);
}

/** Creates an agent for this test, puts its token and the address where clients look for them. */
export function agent(budget = "1.00") {
  const name = `node-${process.pid}-${process.hrtime.bigint()}`;
  const { token } = aex("agent", "create", name, budget, "10000");
  agents.push(name);
  process.env.OPENAI_API_KEY = token;
  process.env.OPENAI_BASE_URL = baseURL;
  return token;
}

async function settledAsBilled() {
  const end = performance.now() + 30_000;
  while ((await bill()).in_flight || metrics().open_holds) {
    assert.ok(performance.now() < end, "not settled in time");
    await pause(20);
  }
  let billed = 0;
  for (const [model, of] of Object.entries((await bill()).models)) {
    const [plain, cached, output] = PRICES[model];
    billed += (of.prompt_tokens - of.cached_tokens) * plain + of.cached_tokens * cached;
    billed += of.completion_tokens * output;
  }
  const names = agents.map((name) => `'${name}'`).join();
  const ledger = sqlite(
    `SELECT SUM(cost_pico) FROM events WHERE action='usage.commit' AND agent IN (${names})`,
  );
  assert.equal(ledger, billed, "the ledger, and the provider's bill");
}

/** Each test of the file has agents of its own, and the simulator's bill to itself. */
export function holdAgainstTheBill() {
  beforeEach(async () => {
    agents = [];
    await behave({});
    await control("reset", {});
  });
  afterEach(async () => {
    await settledAsBilled();
    assert.deepEqual(askedFor, [], "asked for names off this machine");
  });
}

/** `ask` runs a flow as an agent without money: one refusal, an error, nothing sent. */
export async function assertSpentBudgetIsTriedOnce(ask) {
  agent("0.000001");
  const sum = (counts) => Object.values(counts).reduce((all, count) => all + count, 0);
  const refused = (figures) => figures.refused.insufficient_budget ?? 0;
  const before = metrics();
  let error;
  try {
    await ask();
  } catch (caught) {
    error = caught;
  }
  assert.ok(error, "it was no error");
  const after = metrics();
  assert.equal(refused(after) - refused(before), 1, String(error));
  assert.equal(sum(after.refused) - sum(before.refused), 1, String(error));
  assert.equal(after.granted, before.granted, String(error));
  assert.equal((await bill()).requests, 0);
  assert.match(String(error) + (error.responseBody ?? ""), /Insufficient budget/);
  return error;
}

/** A 429 with `Retry-After` reaches the client, which waits and asks again. */
export async function assertBusyProviderIsTriedAgain(ask) {
  agent();
  await behave({ status: 429, times: 1, headers: { "retry-after": "1" } });
  const answer = await ask();
  assert.equal((await bill()).requests, 2);
  return answer;
}

export const manyAtOnce = (ask) => Promise.all(Array.from({ length: 64 }, ask));

export async function joined(parts, text = (part) => part) {
  let all = "";
  for await (const part of parts) all += text(part) ?? "";
  return all;
}
