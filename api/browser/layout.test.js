// Every view: on phones, in both schemes, for readers of the screen, and without a mouse.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { DESKTOP, PHONE, SMALL_PHONE, accessible, fits, open, reads, visitor } from "./support/browser.js";
import { makeKey, patch, post, projected } from "./support/system.js";

const SOURCES = ["website", "مرحبا بالعالم وأهلا", "🦊🦊 partner", "source-".padEnd(255, "x")];

describe("every view", () => {
  let made = null;
  // Made by the first test that needs it: a hook would run, and might fail, without any test of these.
  const shown = () => (made ??= make());

  async function make() {
    const key = await makeKey({ name: "a name of some length for a key" });
    let lead;
    for (const source of SOURCES) lead = await post(key, { source, code: "demo", properties: { note: "n".repeat(400), ["a key ".repeat(20)]: 1 } });
    await patch(key, lead.id, { summary: { text: "x".repeat(300) } });
    await projected(key, SOURCES.length);
    return { key, lead, places: ["#/", "#/live", "#/search", `#/lead/${lead.id}`, "#/dead-letters", "#/dead-letters?state=all", "#/keys", "#/nowhere"] };
  }

  async function settled(page, place) {
    await page.goto(page.url().replace(/#.*/, place));
    await page.locator("main h1, main .notice").first().waitFor();
    await page.waitForFunction(() => !document.querySelector("[aria-busy]") && !document.querySelector("main").textContent.includes("Loading …"));
    if (place === "#/" || place === "#/live") await page.locator("table.rows tbody tr").nth(SOURCES.length - 1).waitFor();
  }

  for (const scheme of ["light", "dark"]) {
    for (const viewport of [DESKTOP, PHONE, SMALL_PHONE]) {
      test(`is accessible and fits: ${scheme}, ${viewport.width} px`, { timeout: 240_000 }, async (t) => {
        const { key, places } = await shown();
        const page = await open(t, key, "#/", { scheme, viewport });
        for (const place of places) {
          await settled(page, place);
          await fits(page, `${place} at ${viewport.width} px`);
          await accessible(page, `${place}, ${scheme}, ${viewport.width} px`);
        }
        await page.keyboard.press("?");
        await page.getByRole("dialog").waitFor();
        await accessible(page, "the help");
        const form = await (await visitor(t, { scheme, viewport })).open();
        await form.getByLabel("API key", { exact: true }).fill("wrong");
        await form.keyboard.press("Enter");
        await reads(form.getByRole("alert"), "no key");
        await fits(form, "the form of the key");
        await accessible(form, "the form of the key");
      });
    }
  }

  test("follows the scheme of the system", async (t) => {
    const { key } = await shown();
    const luminance = async (scheme) => {
      const page = await open(t, key, "#/", { scheme });
      return page.evaluate(() => {
        const of = (node, name) => getComputedStyle(node)[name].match(/\d+/g).slice(0, 3).reduce((sum, it) => sum + Number(it), 0);
        return { paper: of(document.body, "backgroundColor"), ink: of(document.body, "color") };
      });
    };
    const [light, dark] = [await luminance("light"), await luminance("dark")];
    assert.ok(light.paper > 600 && light.ink < 200, JSON.stringify(light));
    assert.ok(dark.paper < 150 && dark.ink > 500, JSON.stringify(dark));
  });

  test("is reached without a mouse", async (t) => {
    const { key, lead } = await shown();
    const page = await (await visitor(t)).open();
    await page.waitForFunction(() => document.activeElement.id === "key");
    await page.keyboard.insertText(key.key);
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
    await page.locator("#nav a").first().waitFor();
    const focused = () => page.evaluate(() => document.activeElement.textContent.trim() || document.activeElement.tagName);

    // From the top of the page: the way past the navigation, then each place, each with a visible focus.
    await page.waitForFunction(() => document.activeElement.tagName === "H1");
    await page.reload();
    await page.locator("#nav a").first().waitFor();
    await page.keyboard.press("Tab");
    assert.equal(await focused(), "Skip to the content");
    for (const name of ["Overview", "Live", "Search", "Dead letters", "Keys"]) {
      await page.keyboard.press("Tab");
      assert.equal(await focused(), name);
      assert.notEqual(await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle), "none", name);
    }
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: "Keys" }).waitFor();
    await page.waitForFunction(() => document.activeElement.tagName === "H1");

    for (const [keys, name] of [["go", "Leads are taken"], ["gl", "Live"], ["gd", "Dead letters"], ["gk", "Keys"], ["gs", "Search"]]) {
      // The field of the search takes letters for itself.
      await page.evaluate(() => document.activeElement.blur());
      for (const one of keys) await page.keyboard.press(one);
      if (keys === "go") await page.waitForURL(/#\/$/);
      else await page.getByRole("heading", { name, level: 1 }).waitFor();
    }
    await page.locator("table.rows tbody tr").first().waitFor();
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press("j");
    await page.keyboard.press("j");
    await page.keyboard.press("k");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { name: lead.id }).waitFor();

    await page.keyboard.press("?");
    await page.getByRole("dialog").waitFor();
    await page.getByLabel("Single keys are shortcuts").uncheck();
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "detached" });
    await page.keyboard.press("?");
    assert.equal(await page.getByRole("dialog").count(), 0);
  });
});
