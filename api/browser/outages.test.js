// What is away, said plainly, and gone again when it is back.

import assert from "node:assert/strict";
import { test } from "node:test";
import { open, reads } from "./support/browser.js";
import { eventually } from "./support/eventually.js";
import { makeKey, post, request, server, startApi, stopApi } from "./support/system.js";

const TIMEOUT = { timeout: 240_000 };

test("an API that is stopped is said to be, and the console goes on by itself", TIMEOUT, async (t) => {
  const key = await makeKey();
  const page = await open(t, key);
  const list = await open(t, key, "#/live");
  await reads(page.locator("h1"), /./);
  await reads(list.locator(".bar .state"), "Live");
  await post(key, { source: "before" });
  await list.locator("tr").filter({ hasText: "before" }).waitFor();
  await stopApi();
  try {
    await reads(page.locator("h1"), "The API does not answer");
    await reads(page.locator(".problems"), /No answer since \d\d:\d\d:\d\d/);
    await reads(page.locator(".problems"), "The next try is in");
    await reads(page.locator(".standing"), "No answer");
    await reads(list.locator(".bar .state"), "Not connected");
    const late = page.locator("#announce");
    await reads(late, "The API does not answer");
  } finally {
    await startApi();
  }
  // What came in while the stream was away is read from where it broke off.
  await post(key, { source: "while it was away" });
  await list.locator("tr").filter({ hasText: "while it was away" }).waitFor();
  await eventually("the console has figures again", async () => !(await page.locator("h1").textContent()).includes("does not answer"));
  await eventually("both are listed once", async () => (await list.locator("table.rows tbody tr").count()) === 2);
});

test("a console that is opened while the API is away waits for it", TIMEOUT, async (t) => {
  const key = await makeKey();
  const page = await open(t, key, "#/keys");
  await page.route("**/whoami", (route) => route.abort());
  await page.reload();
  await reads(page.locator(".notice"), "The API does not answer");
  await page.unroute("**/whoami");
  await page.getByRole("heading", { name: "Keys" }).waitFor();
});

test("PostgreSQL away: leads are still taken, and the console says what stands", TIMEOUT, async (t) => {
  const key = await makeKey();
  const page = await open(t, key);
  await server("kill", "postgres");
  try {
    await reads(page.locator("h1"), "PostgreSQL is away");
    await reads(page.locator(".problems"), "Leads are still taken");
    await reads(page.locator(".side"), "Not known while PostgreSQL is away");
    await post(key, { source: "taken without PostgreSQL" });
    await page.locator("tr").filter({ hasText: "taken without PostgreSQL" }).waitFor();
    await page.goto(page.url().replace(/#.*/, "#/search"));
    await reads(page.locator(".notice"), "PostgreSQL is away");
    await page.goto(page.url().replace(/#.*/, "#/dead-letters"));
    await reads(page.locator(".notice"), "PostgreSQL is away");
  } finally {
    await server("start", "postgres");
  }
  await page.goto(page.url().replace(/#.*/, "#/"));
  await eventually("PostgreSQL is back", async () => !(await page.locator("main").textContent()).includes("PostgreSQL is away"));
});

test("Kafka away: no lead is taken, and the console says what to do", TIMEOUT, async (t) => {
  const key = await makeKey();
  const page = await open(t, key);
  await server("kill", "kafka");
  try {
    await reads(page.locator("h1"), "Kafka is away");
    await reads(page.locator(".problems"), "leads-consumer doctor");
    await reads(page.locator(".standing"), "Trouble");
    await reads(page.locator(".rebuild"), "None is under way");
    assert.equal((await request(key, "/api/v1/leads", { method: "POST", body: {} })).status, 503);
  } finally {
    await server("start", "kafka");
  }
  await eventually("Kafka is back", async () => !(await page.locator("h1").textContent()).includes("Kafka is away"), 120_000);
});

test("a key whose requests are used up waits for the next minute", TIMEOUT, async (t) => {
  const key = await makeKey({ limit: 30, kind: "dev" });
  const page = await open(t, key);
  await eventually("the limit is used up", async () => (await request(key, "/api/v1/system/whoami")).status === 429);
  await reads(page.locator(".problems"), "The key's limit is used up");
});

test("what is asked for by itself leaves 40 % of the key's limit to others", TIMEOUT, async (t) => {
  const key = await makeKey({ limit: 30, kind: "dev" });
  const page = await open(t, key);
  const asked = { "system/status": [], "system/dead-letters": [] };
  page.on("request", (request) => {
    for (const path in asked) if (request.url().includes(path)) asked[path].push(Date.now());
  });
  await page.goto(page.url().replace(/#.*/, "#/dead-letters"));
  await eventually("both are asked for anew", () => asked["system/status"].length > 2 && asked["system/dead-letters"].length > 1);
  // Two that ask share 18 a minute. The wait of the first was that of one alone.
  const gaps = Object.values(asked).flatMap((times) => times.slice(1).map((time, i) => time - times[i]).slice(-1));
  assert.ok(gaps.every((gap) => gap > 6000), `${gaps}`);
});
