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

test("all of the console is less than 150 kB, and none of it may be missing", async () => {
  let bytes = 0;
  for (const name of readdirSync(path.join(ROOT, "api/console"))) {
    const response = await fetch(`${address()}/console/${name}`, { headers: { "accept-encoding": "identity" } });
    assert.equal(response.status, 200, name);
    bytes += (await response.arrayBuffer()).byteLength;
  }
  assert.ok(bytes < MOST_BYTES, `${bytes} bytes`);
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
  const { context, open } = await visitor(t);
  const asked = [];
  context.on("request", (request) => asked.push(request.url()));
  // The first page of a browser warms it up.
  await open();
  asked.length = 0;
  const page = await open();
  await page.getByLabel("API key", { exact: true }).waitFor();
  await page.waitForFunction(() => performance.getEntriesByName("first-contentful-paint").length > 0);
  const { paint, bytes } = await page.evaluate(() => ({
    paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
    bytes: performance.getEntriesByType("resource").reduce((sum, it) => sum + it.transferSize, 0),
  }));
  t.diagnostic(`first contentful paint after ${paint.toFixed(0)} ms; ${bytes} bytes of ${asked.length} files`);
  assert.ok(paint < MOST_MILLIS, `${paint} ms`);
  assert.equal(new Set(asked).size, asked.length, asked.join("\n"));
});
