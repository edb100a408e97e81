// The projection: behind, at odds with a record, and made anew.

import assert from "node:assert/strict";
import { test } from "node:test";
import { open, reads, accessible, fits, PHONE } from "./support/browser.js";
import { eventually } from "./support/eventually.js";
import { get, makeKey, patch, post, postMany, produce, projected, rebuild, request, startConsumer, stopConsumer } from "./support/system.js";

const tile = (page, text) => page.locator(".tile").filter({ hasText: text });

async function number(locator) {
  return Number((await locator.textContent()).replaceAll(",", ""));
}

test("a lag builds while the consumer is stopped, and drains when it is back", { timeout: 180_000 }, async (t) => {
  const key = await makeKey();
  const page = await open(t, key);
  const records = tile(page, "records").locator(".figure");
  const age = tile(page, "age of the oldest").locator(".figure");
  await eventually("nothing is behind", async () => (await records.textContent()) === "0");
  await stopConsumer();
  try {
    await postMany(key, 600, (i) => ({ code: `n-${i}` }));
    await eventually("600 records are behind", async () => (await number(records)) >= 600);
    await eventually("the oldest has an age", async () => /[1-9]/.test(await age.textContent()));
    const behind = page.locator(".partitions .behind");
    await eventually("partitions are behind", async () => (await behind.count()) > 0);
    const bars = await behind.locator(".fill").evaluateAll((all) => all.map((it) => it.getBoundingClientRect().width));
    assert.ok(bars.every((width) => width > 0), String(bars));
    const curve = await tile(page, "records").locator("path.curve").getAttribute("d");
    assert.match(curve, /L/);
    // More than half a minute: the verdict says so.
    await reads(page.locator("h1"), "The projection is behind");
    await reads(page.locator(".problems"), "leads-consumer status");
  } finally {
    await startConsumer();
  }
  await eventually("the lag is gone", async () => (await records.textContent()) === "0");
  await eventually("the partitions are even", async () => (await page.locator(".partitions .behind").count()) === 0);
  await projected(key, 600);
  // How many were taken is in the plot: the rate of that moment.
  await reads(page.locator(".side"), /Acknowledged[\s\d,]+since it started/);
});

test("a dead letter appears and is explained", { timeout: 180_000 }, async (t) => {
  const key = await makeKey();
  const { id } = await post(key, { source: "before the fault" });
  const page = await open(t, key, "#/dead-letters");
  const place = await produce(id, '{"secret": "not an event"');
  const letter = page.locator(".letters > li").filter({ has: page.locator(".place", { hasText: new RegExp(`^${place}$`) }) });
  await letter.waitFor();
  await patch(key, id, { code: "behind it" });
  await eventually("an update is parked", async () => (await page.locator(".letters .reason", { hasText: "parked" }).count()) > 0);
  await letter.locator("summary").focus();
  await page.keyboard.press("Enter");
  for (const text of ["undecodable", "No event: not JSON", "later events of it are parked", "give it up", `leads-consumer dlq show ${place}`, `leads-consumer dlq redrive ${place}`, id]) await reads(letter, text);
  await reads(page.locator(".causes"), "Redrive the one that it waits behind");
  assert.ok(!(await page.content()).includes("secret"));
  await accessible(page, "dead letters, one open");
  await page.setViewportSize(PHONE);
  await fits(page, "dead letters, one open");
  await accessible(page, "dead letters on a phone, one open");
  // It stays open while the list is asked for again and again.
  const before = await letter.locator(".age").textContent();
  await eventually("the list is fresh", async () => (await letter.locator(".age").textContent()) !== before);
  await letter.getByText("What to do").waitFor();
  await page.goto(page.url().replace(/#.*/, "#/"));
  await reads(page.locator(".problems"), "Causes and what to do");
  await reads(page.locator(".side"), "undecodable");
});

test("a rebuild is shown, also when its process is gone", { timeout: 240_000 }, async (t) => {
  const key = await makeKey();
  await postMany(key, 5000, (i) => ({ code: `n-${i}` }));
  await projected(key, 5000);
  const page = await open(t, key);
  const panel = page.locator(".rebuild");
  await reads(panel, "None is under way");
  const { generation } = (await get(key, "/api/v1/system/status")).projection;
  // A transaction for each record: slow enough to be seen, and to be ended in its midst.
  const slow = rebuild({ BATCH_MAX_RECORDS: "1", PROJECTION_LANES: "1" });
  await reads(panel, new RegExp(`Generation ${generation + 1}: \\d+ %.* a second, about .* left. By `));
  await reads(page.locator(".problems"), "A rebuild is under way");
  await slow.stop("SIGKILL");
  await reads(page.locator(".problems"), "A rebuild was broken off");
  await reads(panel, "is gone: start leads-consumer rebuild again");
  const rest = rebuild();
  await eventually("the rebuild ended", () => rest.ended);
  assert.equal(rest.child.exitCode, 0, rest.lines.join("\n"));
  await reads(panel, "None is under way");
  await reads(page.locator(".panel").first(), `generation ${generation + 1}`);
  assert.equal((await request(key, "/api/v1/leads?limit=1")).status, 200);
});
