// The key: entered, wrong, lost, and what it may see.

import assert from "node:assert/strict";
import { test } from "node:test";
import { visitor, open, reads } from "./support/browser.js";
import { makeKey, revoke } from "./support/system.js";

test("a key is entered, stays in its tab, and is forgotten", async (t) => {
  const key = await makeKey({ name: "night shift" });
  const { context, open } = await visitor(t);
  const page = await open("#/live");
  const field = page.getByLabel("API key", { exact: true });
  await field.waitFor();
  await page.waitForFunction(() => document.activeElement.id === "key");
  assert.equal(await field.getAttribute("type"), "password");
  await page.keyboard.insertText(key.key);
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Live", level: 1 }).waitFor();
  await reads(page.locator(".who"), "night shift");

  const kept = await page.evaluate(() => ({ tab: { ...sessionStorage }, disk: JSON.stringify({ ...localStorage }) + document.cookie, place: location.href }));
  assert.deepEqual(Object.values(kept.tab), [key.key]);
  assert.ok(!kept.disk.includes(key.key) && !kept.place.includes(key.key));
  await page.reload();
  await page.getByRole("heading", { name: "Live", level: 1 }).waitFor();
  const other = await open();
  await other.getByLabel("API key", { exact: true }).waitFor();
  assert.equal(context.pages().length, 2);

  await page.getByRole("button", { name: "Forget key" }).click();
  await page.getByLabel("API key", { exact: true }).waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  assert.equal(await page.locator("#nav a").count(), 0);
});

test("a wrong key is explained", async (t) => {
  const page = await (await visitor(t)).open();
  const field = page.getByLabel("API key", { exact: true });
  const said = page.getByRole("alert");
  for (const [text, why] of [
    ["", "Enter a key"],
    ["password123", "keys begin with lk_prod_ or lk_dev_"],
    ["lk_prod_0000000000000000000000000000000000000000000", "mistyped, cut short, revoked, rotated, or of another system"],
    ["lk_prod_two words", "spaces"],
    ["lk_prod_ключ", "no key has"],
  ]) {
    await field.fill(text);
    await field.press("Enter");
    await reads(said, why);
    assert.equal(await field.getAttribute("aria-invalid"), "true");
    await page.waitForFunction(() => document.activeElement.id === "key");
  }
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
});

test("an address that can't be read costs nobody the key", async (t) => {
  const key = await makeKey();
  const page = await open(t, key);
  const to = (place) => page.goto(page.url().replace(/#.*/, place));
  for (const place of ["#/lead/50%", "#/constructor", "#/no/such/page"]) {
    await to(place);
    await page.reload();
    await page.getByRole("heading", { name: "Not found" }).waitFor();
  }
  await to("#/search?created_after=yesterday");
  await page.reload();
  await reads(page.locator(".results"), "created_after");
  assert.deepEqual(await page.evaluate(() => Object.values(sessionStorage)), [key.key]);
  await to("#/");
  await reads(page.locator(".rebuild"), "None is under way");
});

test("a key that is revoked while it is used is asked for anew, and the place is kept", async (t) => {
  const key = await makeKey();
  const next = await makeKey();
  const page = await (await visitor(t)).open("#/keys");
  const enter = async ({ key }) => {
    await page.getByLabel("API key", { exact: true }).fill(key);
    await page.getByRole("button", { name: "Open the console" }).click();
    await page.getByRole("heading", { name: "Keys" }).waitFor();
  };
  await enter(key);
  await revoke(key);
  await reads(page.getByRole("alert"), "revoked or rotated");
  await enter(next);
});

test("a key sees what its scopes allow, and is told what it lacks", async (t) => {
  const [reader, watcher, writer] = await Promise.all(["leads:read", "system:read", "leads:write"].map((scopes) => makeKey({ scopes })));
  const lacks = async (page, place, scope) => {
    await page.goto(page.url().replace(/#.*/, place));
    await reads(page.locator(".notice"), `lacks the scope ${scope}`);
    await reads(page.locator(".notice"), "leads-api keys create");
  };
  const leads = await open(t, reader);
  await reads(leads.locator(".standing"), "All well");
  await lacks(leads, "#/", "system:read");
  await lacks(leads, "#/dead-letters", "system:read");
  await lacks(leads, "#/keys", "system:read");
  await leads.goto(leads.url().replace(/#.*/, "#/live"));
  await reads(leads.locator(".bar .state"), "Live");

  const figures = await open(t, watcher);
  await figures.locator("svg.plot").first().waitFor();
  await lacks(figures, "#/", "leads:read");
  await lacks(figures, "#/live", "leads:read");
  await lacks(figures, "#/search", "leads:read");
  await lacks(figures, "#/lead/0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55", "leads:read");

  const neither = await open(t, writer);
  await lacks(neither, "#/", "system:read");
  await lacks(neither, "#/search", "leads:read");
});

test("keys are listed with kind, limit and last use, and without their secrets", async (t) => {
  const key = await makeKey({ name: "مفتاح 🗝 the key of a very long name ".padEnd(120, "x"), kind: "dev", limit: 120 });
  const page = await open(t, key, "#/keys");
  const row = page.getByRole("row").filter({ hasText: key.id });
  await reads(row, "this one");
  await reads(row, "dev");
  await reads(row, "120");
  await reads(row, / s ago|min ago/);
  assert.ok(!(await page.content()).includes(key.key));
});
