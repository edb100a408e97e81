// Small, quick, and from one place alone.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import path from "node:path";
import { test } from "node:test";
import { visitor } from "./support/browser.js";
import { ROOT } from "./support/process.js";
import { address } from "./support/system.js";

const MOST_BYTES = 150_000;
/** An idle machine needs a tenth of it. */
const MOST_MILLIS = 1000;
const PAGES = 6;

test("all of the console is less than 150 kB, and none of it may be missing", async () => {
  let bytes = 0;
  for (const name of readdirSync(path.join(ROOT, "api/console"))) {
    const response = await fetch(`${address()}/console/${name}`, { headers: { "accept-encoding": "identity" } });
    assert.equal(response.status, 200, name);
    bytes += (await response.arrayBuffer()).byteLength;
  }
  assert.ok(bytes < MOST_BYTES, `${bytes} bytes`);
});

test("each module is named in the page, so that none waits for another", async () => {
  const page = await (await fetch(`${address()}/console`)).text();
  for (const name of readdirSync(path.join(ROOT, "api/console"))) {
    if (name.endsWith(".js")) assert.ok(page.includes(`"/console/${name}"`), name);
  }
});

test("the policy lets in nothing but the console's own files", async () => {
  const response = await fetch(`${address()}/console`);
  const policy = response.headers.get("content-security-policy");
  for (const part of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"]) assert.ok(policy.includes(part), `${part} in ${policy}`);
  assert.ok(!policy.includes("unsafe"), policy);
  const page = await response.text();
  assert.doesNotMatch(page, /<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=|https?:/);
});

test("it paints at once, and asks for each file once", async (t) => {
  const { open } = await visitor(t);
  const paints = [];
  let files = [];
  for (let i = 0; i < PAGES; i++) {
    const page = await open();
    await page.getByLabel("API key", { exact: true }).waitFor();
    await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length > 0);
    paints.push(await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime));
    if (i === 0) files = await page.evaluate(() => performance.getEntriesByType("resource").map(({ name, transferSize }) => ({ name, transferSize })));
    await page.close();
  }
  const bytes = files.reduce((sum, it) => sum + it.transferSize, 0);
  const [first, ...again] = paints;
  const least = Math.min(...again);
  t.diagnostic(`first contentful paint: ${first.toFixed(0)} ms with an empty cache, then ${least.toFixed(0)} ms at best; ${bytes} bytes of ${files.length} files over the wire`);
  assert.ok(least < MOST_MILLIS, `${paints} ms`);
  const names = files.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length, names.join("\n"));
});
