// Chromium, and pages that fail a test when something happens that never may.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { DEADLINE } from "./eventually.js";
import { address } from "./system.js";

const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--force-color-profile=srgb"];
const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"];

export const DESKTOP = { width: 1280, height: 800 };
export const PHONE = { width: 390, height: 844 };
export const SMALL_PHONE = { width: 320, height: 640 };

let browser = null;

async function launched() {
  browser ??= await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    // Chromium's sandbox does not work as root.
    args: process.getuid() === 0 ? [...FLAGS, "--no-sandbox"] : FLAGS,
  });
  return browser;
}

export async function closeBrowser() {
  await browser?.close();
  browser = null;
}

/**
 * A browser of its own for a test `t`: no storage, no cache. It closes with the test, which fails when a
 * page reported an error, broke the policy, or asked another host.
 */
export async function visitor(t, { viewport = DESKTOP, scheme = "light", key = null, motion = "reduce", prepare = () => {} } = {}) {
  const context = await (await launched()).newContext({ viewport, colorScheme: scheme, reducedMotion: motion, deviceScaleFactor: 1, locale: "en-GB", timezoneId: "America/New_York" });
  context.setDefaultTimeout(DEADLINE);
  const wrong = [];
  await context.exposeFunction("reportViolation", (text) => wrong.push(`policy: ${text}`));
  await context.addInitScript(() => document.addEventListener("securitypolicyviolation", (event) => window.reportViolation(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`)));
  // As if it had been entered in this tab; the tests of key.test.js enter it by hand.
  if (key) await context.addInitScript((text) => location.protocol === "http:" && sessionStorage.setItem("leads.key", text), key.key);
  context.on("request", (request) => {
    if (!request.url().startsWith(`${address()}/`)) wrong.push(`a request to ${request.url()}`);
  });
  context.on("weberror", (error) => wrong.push(`error: ${error.error().stack}`));
  context.on("console", (message) => {
    // What the network does is for the test to judge; everything else is a fault.
    if (["error", "warning"].includes(message.type()) && !message.text().startsWith("Failed to load resource")) wrong.push(`console: ${message.text()}`);
  });
  t.after(async () => {
    await context.close();
    assert.deepEqual(wrong, []);
  });
  await prepare(context);
  return {
    context,
    async open(place = "") {
      const page = await context.newPage();
      await page.goto(`${address()}/console${place}`);
      return page;
    },
  };
}

/** A page at a place of the console, with a key. */
export async function open(t, key, place = "#/", options = {}) {
  const page = await (await visitor(t, { ...options, key })).open(place);
  await page.locator("#nav a").first().waitFor();
  return page;
}

/** Text that stands in an element, sooner or later. */
export async function reads(locator, expected) {
  const pattern = expected instanceof RegExp ? expected : new RegExp(expected.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  await locator.filter({ hasText: pattern }).first().waitFor();
}

/** Nothing that axe-core knows to be a barrier. */
export async function accessible(page, what) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate((tags) => globalThis.axe.run(document, { runOnly: tags, resultTypes: ["violations"] }), RULES);
  const found = violations.map(({ id, help, nodes }) => `${id}: ${help}\n${nodes.map((node) => `    ${node.html}\n    ${node.failureSummary}`).join("\n")}`);
  assert.deepEqual(found, [], what);
}

/** The page is as wide as its window, and nothing sticks out. */
export async function fits(page, what) {
  const { wide, room, out } = await page.evaluate(() => {
    const room = document.documentElement.clientWidth;
    const hidden = (node) => {
      for (let up = node.parentElement; up; up = up.parentElement) if (getComputedStyle(up).overflowX !== "visible") return true;
      return false;
    };
    const out = [...document.querySelectorAll("body *")].filter((node) => node.getBoundingClientRect().right > room + 1 && !hidden(node)).map((node) => node.outerHTML.slice(0, 120));
    return { wide: document.documentElement.scrollWidth, room, out };
  });
  assert.ok(wide <= room, `${what}: ${wide} px wide in a window of ${room} px: ${out.join("\n")}`);
  assert.deepEqual(out, [], what);
}
