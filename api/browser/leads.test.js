// Leads: as they come, found again, and how they came to be as they are.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { open, reads, fits } from "./support/browser.js";
import { eventually } from "./support/eventually.js";
import { get, makeKey, patch, post, postMany, projected } from "./support/system.js";

const LONG = "campaign-".padEnd(255, "long");
const rows = (page) => page.locator("table.rows tbody tr");

test("a lead arrives live, in any script, and markup stays text", async (t) => {
  const key = await makeKey();
  const page = await open(t, key, "#/live");
  await reads(page.locator(".bar .state"), "Live");
  await reads(page.locator(".notice"), "No lead yet");
  for (const source of ["website", "مرحبا بالعالم", "🦊 fox & friends", "<img src=x onerror=alert(1)>", LONG]) {
    const { id } = await post(key, { source, code: "demo" });
    const row = rows(page).filter({ hasText: id });
    await row.waitFor();
    assert.equal(await row.locator("bdi").first().textContent(), source);
  }
  assert.equal(await rows(page).first().locator("bdi").first().getAttribute("title"), LONG);
  assert.equal(await page.locator("main img").count(), 0);
  await fits(page, "live with long values");
  await page.goto(page.url().replace("#/live", "#/"));
  await reads(rows(page).first(), "campaign-");
});

test("the live list stands still while it is paused, and goes on with what came", async (t) => {
  const key = await makeKey();
  const page = await open(t, key, "#/live");
  await reads(page.locator(".bar .state"), "Live");
  await post(key, { source: "before" });
  await rows(page).filter({ hasText: "before" }).waitFor();
  await page.keyboard.press("p");
  await page.getByRole("button", { name: "Resume" }).waitFor();
  await post(key, { source: "meanwhile" });
  await reads(page.locator(".bar"), "Paused: 1 more came");
  assert.equal(await rows(page).count(), 1);
  await page.getByRole("button", { name: "Resume" }).click();
  await rows(page).filter({ hasText: "meanwhile" }).waitFor();
  assert.deepEqual(await rows(page).locator("bdi").allTextContents(), ["meanwhile", "before"]);
});

test("what was there before the console is in the list, once", async (t) => {
  const key = await makeKey();
  const { id } = await post(key, { source: "earlier" });
  await get(key, `/api/v1/leads/${id}`);
  const page = await open(t, key, "#/live");
  await rows(page).filter({ hasText: id }).waitFor();
  const next = await post(key, { source: "later" });
  await rows(page).filter({ hasText: next.id }).waitFor();
  assert.equal(await rows(page).count(), 2);
});

test("leads are found by what they have, and pages go on where the last one ended", async (t) => {
  const key = await makeKey();
  const visitor = randomUUID();
  await postMany(key, 120, (i) => ({ source: i % 2 ? "web" : "import", code: `code-${i % 3}`, ...(i < 3 ? { visitor_id: visitor } : {}) }));
  await projected(key, 120);
  const page = await open(t, key, "#/");
  await page.keyboard.press("/");
  await page.getByRole("heading", { name: "Search" }).waitFor();
  await page.waitForFunction(() => document.activeElement.id === "f-source");
  const summary = page.locator(".summary");
  await reads(summary, "1–50 of 120");
  await page.keyboard.insertText("web");
  await page.keyboard.press("Enter");
  await reads(summary, "1–50 of 60");
  await page.getByRole("button", { name: "Older" }).click();
  await reads(summary, "51–60 of 60");
  assert.equal(await rows(page).count(), 10);
  assert.ok(await page.getByRole("button", { name: "Older" }).isDisabled());
  await page.getByRole("button", { name: "Newer" }).click();
  await reads(summary, "1–50 of 60");

  await page.getByLabel("Code").fill("code-1");
  await page.getByRole("button", { name: "Search", exact: true }).click();
  await reads(summary, "1–20 of 20");
  assert.match(page.url(), /#\/search\?source=web&code=code-1$/);
  await page.reload();
  await reads(summary, "1–20 of 20");
  assert.equal(await page.getByLabel("Source").inputValue(), "web");
  await page.goBack();
  await reads(summary, "1–50 of 60");

  await page.getByRole("button", { name: "Clear" }).click();
  await page.getByLabel("Visitor id").fill(visitor);
  await page.keyboard.press("Enter");
  await reads(summary, "1–3 of 3");
  await page.getByLabel("Created after (UTC)").fill("2020-01-01T00:00:00");
  await page.getByLabel("Created before (UTC)").fill("2020-01-02T00:00:00");
  await page.getByRole("button", { name: "Search", exact: true }).click();
  await reads(page.locator(".notice"), "No lead is like that");
  await page.getByLabel("Visitor id").fill("no id");
  await page.keyboard.press("Enter");
  await reads(page.getByRole("alert"), "No UUID: visitor id");
});

test("a lead shows its fields and its history, by a link that can be passed on", async (t) => {
  const key = await makeKey();
  const lead = await post(key, { source: "🦊 مرحبا", code: LONG, properties: { plan: "pro", seats: 12 }, location: { city: "Zürich" } });
  await patch(key, lead.id, { summary: { text: "asked for a demo" }, code: null });
  const page = await open(t, key, "#/search");
  await page.getByLabel("Lead id").fill(lead.id.toUpperCase());
  await page.keyboard.press("Enter");
  const events = page.locator(".history > li");
  await eventually("both events are shown", async () => (await events.count()) === 2);
  assert.match(page.url(), new RegExp(`#/lead/${lead.id}$`));
  await reads(page.locator(".fields"), "asked for a demo");
  await reads(page.locator(".fields"), "Zürich");
  await reads(events.nth(0), "LeadCreated");
  await reads(events.nth(0), LONG);
  await reads(events.nth(1), "LeadUpdated");
  await reads(events.nth(1), "cleared");
  await events.nth(1).getByText("Whole event").click();
  await reads(events.nth(1).locator("pre"), '"schema_version": 1');
  await fits(page, "a lead with long values");

  await reads(page.locator(".standing"), /All well|Needs a look/);
  await patch(key, lead.id, { code: "third" });
  await page.getByRole("button", { name: "Show it" }).click();
  await eventually("the third event is shown", async () => (await events.count()) === 3);
  await page.reload();
  await reads(page.locator(".fields"), "third");
});

test("numbers of a lead are shown digit for digit", async (t) => {
  const key = await makeKey();
  const digits = "12345678901234567890.000000000000012340";
  const { id } = await post(key, `{"properties": {"n": ${digits}}}`);
  const page = await open(t, key, `#/lead/${id}`);
  await reads(page.locator(".fields pre"), `"n": ${digits}`);
  await page.getByText("Whole event").click();
  await reads(page.locator(".history pre"), `"n": ${digits}`);
  await reads(page.locator(".history .changes"), digits);
});

test("a lead that is not there is no dead end", async (t) => {
  const page = await open(t, await makeKey(), `#/lead/${randomUUID()}`);
  await reads(page.locator(".notice"), "no such lead");
  await page.getByRole("link", { name: "Search for it as a visitor id" }).click();
  await reads(page.locator(".notice"), "No lead is like that");
});

test("ten thousand leads stay a short list", { timeout: 180_000 }, async (t) => {
  const key = await makeKey();
  const page = await open(t, key, "#/live");
  await reads(page.locator(".bar .state"), "Live");
  await postMany(key, 10_000, (i) => ({ source: `source-${i % 7}`, code: `n-${i}` }));
  await projected(key, 10_000);
  await reads(page.locator(".bar"), "10,000 events since this tab began");
  await eventually("the newest 500 are shown", async () => (await rows(page).count()) === 500);
  await page.goto(page.url().replace("#/live", "#/search?source=source-3"));
  await reads(page.locator(".summary"), "1–50 of 1,429");
  assert.equal(await rows(page).count(), 50);
});
