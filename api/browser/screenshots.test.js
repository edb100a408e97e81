// The pictures of the docs. UPDATE_SCREENSHOTS=1 writes docs/images, otherwise they go to target/.

import assert from "node:assert/strict";
import { mkdirSync, statSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { open, reads, PHONE } from "./support/browser.js";
import { eventually } from "./support/eventually.js";
import { ROOT } from "./support/process.js";
import { makeKey, patch, post, postMany, produce, projected } from "./support/system.js";

const MOST_BYTES = 200_000;
const FOLDER = path.join(ROOT, process.env.UPDATE_SCREENSHOTS ? "docs/images" : "target/screenshots");
const SOURCES = ["website", "webinar", "partner", "landing-page", "newsletter"];
const CODES = ["demo", "trial", "contact", "pricing"];
/** Seconds of load in the plots. */
const POINTS = process.env.UPDATE_SCREENSHOTS ? 150 : 5;
const VIEW = { width: 1280, height: 860 };

const lead = (i) => ({ source: SOURCES[i % SOURCES.length], code: CODES[i % CODES.length], properties: { plan: i % 3 ? "pro" : "free", seats: (i * 7) % 40 } });

async function picture(page, name, options = {}) {
  mkdirSync(FOLDER, { recursive: true });
  const file = path.join(FOLDER, `console-${name}.png`);
  await page.evaluate(() => document.activeElement?.blur());
  await page.screenshot({ path: file, ...options });
  assert.ok(statSync(file).size < MOST_BYTES, `${file}: ${statSync(file).size} bytes`);
}

/** Whose machine the pictures were taken on is nobody's business. */
function unnamed(context) {
  return context.route("**/api/v1/system/status", async (route) => {
    const response = await route.fetch();
    const json = await response.json();
    json.data.instance.id = "api-1:4711";
    await route.fulfill({ response, json });
  });
}

test("the pictures of the docs", { timeout: 900_000 }, async (t) => {
  const key = await makeKey({ name: "operations" });
  const [light, dark] = [await open(t, key, "#/", { viewport: VIEW, prepare: unnamed }), await open(t, key, "#/", { viewport: VIEW, scheme: "dark", prepare: unnamed })];
  const phone = await open(t, key, "#/", { viewport: PHONE, prepare: unnamed });
  const curve = () => light.evaluate(() => document.querySelector(".curve")?.getAttribute("d"));
  // A load that goes up and down for as long as the plots need to have a shape.
  for (let i = 0; i < POINTS; i++) {
    const before = await curve();
    const load = Math.round(180 + 120 * Math.sin(i / 5) + 60 * Math.sin(i * 1.7));
    await postMany(key, load, (n) => lead(n + i));
    await eventually("another point", async () => (await curve()) !== before);
  }
  for (let i = 0; i < 12; i++) await post(key, lead(i * 3));
  await picture(light, "overview");
  await picture(dark, "overview-dark");
  await picture(phone, "phone");

  const { id } = await post(key, { ...lead(1), location: { city: "Zürich", country: "CH" } });
  await patch(key, id, { summary: { text: "Asked for a demo with the whole team" } });
  await patch(key, id, { properties: { plan: "enterprise", seats: 250 }, code: null });
  await projected(key, 1);
  await light.goto(light.url().replace(/#.*/, `#/lead/${id}`));
  await eventually("the history is shown", async () => (await light.locator(".history > li").count()) === 3);
  await picture(light, "lead");

  const broken = await post(key, lead(2));
  const place = await produce(broken.id, "this is no event");
  await light.goto(light.url().replace(/#.*/, "#/dead-letters"));
  const letter = light.locator(".letters > li").filter({ has: light.locator(".place", { hasText: new RegExp(`^${place}$`) }) });
  await letter.waitFor();
  await patch(key, broken.id, { code: "later" });
  await reads(light.locator(".letters .reason"), "parked");
  await reads(light.locator(".causes"), "parked");
  await letter.locator("summary").click();
  await picture(light, "dead-letters");
});
