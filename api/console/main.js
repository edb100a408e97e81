// Boot, the key, and which view is shown.

import { Api, Failure } from "./api.js";
import { Chrome } from "./chrome.js";
import { h, replace } from "./dom.js";
import { Feed } from "./feed.js";
import { Health } from "./health.js";
import { shortcuts } from "./help.js";
import { notice } from "./parts.js";
import { deadLetters } from "./view-dead.js";
import { keyForm } from "./view-key.js";
import { keys } from "./view-keys.js";
import { lead } from "./view-lead.js";
import { live } from "./view-live.js";
import { overview } from "./view-overview.js";
import { search } from "./view-search.js";

/** The key lives as long as its tab. */
const STORED = "leads.key";
const VIEWS = { __proto__: null, "": overview, live, search, lead, "dead-letters": deadLetters, keys };

const main = document.getElementById("main");
const chrome = new Chrome({ forget: () => forget() });
let session = null;
let view = null;

/** byHand: the form is left, and what was typed into goes away: its place is the view. */
async function enter(text, byHand = false) {
  const api = new Api(text);
  const { body } = await api.get("api/v1/system/whoami");
  leave();
  sessionStorage.setItem(STORED, text);
  const key = body.data;
  const can = { read: key.scopes.includes("leads:read"), system: key.scopes.includes("system:read") };
  session = { api, key, can, health: new Health(api, can.system), feed: can.read ? new Feed(api) : null };
  api.onKeyLost = () => forget("This key is not valid any more: it was revoked or rotated. Enter the new one.");
  session.health.start();
  session.feed?.start();
  chrome.enter(session);
  show(byHand);
}

function leave() {
  session?.health.stop();
  session?.feed?.stop();
  session = null;
}

function forget(why) {
  sessionStorage.removeItem(STORED);
  leave();
  chrome.leave();
  ask(why);
}

function ask(why) {
  mount(keyForm({ enter: (text) => enter(text, true), why }));
}

function mount(next) {
  view?.dispose?.();
  view = next;
  replace(main, next.node);
  document.title = `${next.title} – leads`;
}

/** Addresses come from anywhere. One that can't be decoded has no view. */
function route() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?", 2);
  const [name, ...rest] = path.split("/");
  try {
    return { name, make: VIEWS[name], rest: rest.map(decodeURIComponent), query: new URLSearchParams(query) };
  } catch {
    return { name };
  }
}

function show(moved = false) {
  if (!session) return;
  const { name, make, rest, query } = route();
  chrome.mark(name === "lead" ? "search" : name);
  const next = make ? make({ ...session, query, rest, chrome }) : { title: "Not found", node: h("div", {}, h("h1", {}, "Not found"), notice("info", "There is no such page in this console")) };
  mount(next);
  if (!moved) return;
  scrollTo(0, 0);
  (next.focus ?? main).focus();
}

/** With the tab's key; waits for an API that is away. */
async function resume(text, wait = 1000) {
  try {
    await enter(text);
  } catch (failure) {
    if (!(failure instanceof Failure)) throw failure;
    if (failure.kind === "key") return forget("The key of this tab is not valid any more. Enter another one.");
    const waiting = notice("warn", failure.kind === "away" ? "The API does not answer" : "The API can't check the key now");
    waiting.append(`${failure.message}. Trying again until it does.`);
    replace(main, h("h1", {}, "One moment"), waiting);
    setTimeout(() => resume(text, Math.min(wait * 2, 10_000)), wait);
  }
}

addEventListener("hashchange", () => show(true));
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
shortcuts({ view: () => view, entered: () => session !== null });
const stored = sessionStorage.getItem(STORED);
if (stored) resume(stored);
else ask();
