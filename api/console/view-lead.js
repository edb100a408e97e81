// One lead: its fields as they are, and how they came to be so.

import { Failure } from "./api.js";
import { h, replace, setAttribute } from "./dom.js";
import { dateTime, plural } from "./format.js";
import { pretty } from "./json.js";
import { command, failed, instant, missingScope, notice, state, value } from "./parts.js";

const IDS = ["visitor_id", "identity_id", "session_id", "company_id", "workspace_id"];
const OBJECTS = ["properties", "location", "summary"];
const PAGE = 50;

export function lead({ api, can, key, feed, rest }) {
  const [id = ""] = rest;
  const heading = h("h1", { tabindex: "-1", class: "lead-title" }, "Lead ", h("span", { class: "mono" }, id));
  if (!can.read) return { title: "Lead", focus: heading, node: h("div", {}, heading, missingScope("leads:read", "the leads of a workspace", key)) };
  const gone = new AbortController();
  const fields = h("section", { "aria-busy": "true" }, h("p", {}, "Loading …"));
  const list = h("ol", { class: "history" });
  const more = h("button", { type: "button", hidden: true }, "More");
  const story = h("section", { hidden: true }, h("h2", {}, "History"), list, more);
  const fresh = h("p", { class: "fresh", role: "status" });
  let newest = feed?.entries.at(-1)?.seq ?? 0;

  async function load() {
    replace(fresh);
    newest = feed?.entries.at(-1)?.seq ?? newest;
    try {
      const { body, etag } = await api.get(`api/v1/leads/${encodeURIComponent(id)}`, { signal: gone.signal, exact: true });
      replace(fields, table(body.data, etag));
      setAttribute(story, "hidden", null);
      replace(list);
      await history(null);
    } catch (failure) {
      if (gone.signal.aborted) return;
      if (!(failure instanceof Failure)) throw failure;
      const missing = notice("info", "This workspace has no such lead", h("p", {}, "That is true as of the log's end a moment ago. Was the id of a visitor, or of another workspace? ", h("a", { href: `#/search?visitor_id=${encodeURIComponent(id)}` }, "Search for it as a visitor id")));
      replace(fields, failure.kind === "missing" ? missing : failed(failure, load));
    }
    setAttribute(fields, "aria-busy", null);
  }

  async function history(cursor) {
    setAttribute(more, "hidden", true);
    const asked = new URLSearchParams({ limit: PAGE });
    if (cursor) asked.set("cursor", cursor);
    try {
      const { body } = await api.get(`api/v1/leads/${encodeURIComponent(id)}/events?${asked}`, { signal: gone.signal, exact: true });
      list.append(...body.data.map(entry));
      const next = body.pagination.next_cursor;
      if (!next) return;
      // A page may be empty while the log is being looked through.
      if (!body.data.length) return await history(next);
      more.onclick = () => history(next);
      setAttribute(more, "hidden", null);
    } catch (failure) {
      if (gone.signal.aborted) return;
      if (!(failure instanceof Failure)) throw failure;
      const again = h("li", { class: "plain" }, failed(failure, () => (again.remove(), history(cursor))));
      list.append(again);
    }
  }

  const off = feed?.changes.on(() => {
    if (fresh.firstChild || !feed.entries.some((entry) => entry.seq > newest && entry.leadId === id)) return;
    replace(fresh, "A newer event of this lead came. ", h("button", { type: "button", onclick: load }, "Show it"));
  });
  load();
  return {
    title: `Lead ${id.slice(-12)}`,
    focus: heading,
    node: h("div", { class: "lead" }, h("div", { class: "bar" }, heading, fresh), fields, story),
    dispose: () => (gone.abort(), off?.()),
  };
}

function table(it, etag) {
  const items = [
    ["source", value(it.source, "long")],
    ["code", value(it.code, "long")],
    ["created_at", instant(it.created_at, dateTime)],
    ["updated_at", instant(it.updated_at, dateTime)],
    ["version", (etag ?? "").replaceAll('"', "") || "–"],
    ...IDS.map((name) => [name, id(name, it[name])]),
  ];
  return h(
    "div",
    { class: "fields" },
    h("dl", { class: "facts" }, items.map(([name, shown]) => h("div", {}, h("dt", {}, name), h("dd", {}, shown)))),
    h("div", { class: "objects" }, OBJECTS.map((name) => h("section", {}, h("h2", {}, name), it[name] === null ? h("p", { class: "none" }, "–") : json(it[name], name)))),
  );
}

function id(name, text) {
  if (!text) return value(null);
  const shown = h("span", { class: "mono long" }, text);
  return name === "visitor_id" ? h("a", { href: `#/search?visitor_id=${text}` }, shown) : shown;
}

function json(object, label) {
  return h("pre", { tabindex: "0", role: "group", "aria-label": label, dir: "auto" }, pretty(object));
}

function entry({ type, time, position, effective, version, event }) {
  const body = event?.lead ?? event?.changes;
  const names = body ? Object.keys(body).filter((name) => (event.changes ? true : body[name] !== null && !["id", "workspace_id", "created_at", "updated_at"].includes(name))) : [];
  return h(
    "li",
    { class: effective ? null : "idle" },
    h(
      "p",
      { class: "event-line" },
      h("span", { class: "version", title: "the lead's version behind it" }, `v${version}`),
      h("strong", {}, type ?? "no event"),
      instant(time, dateTime),
      h("span", { class: "small", title: "partition and offset in the log" }, `at ${position}`),
      !effective && state("info", "changed nothing"),
    ),
    names.length > 0 && h("dl", { class: "changes" }, names.map((name) => [h("dt", {}, name), h("dd", {}, change(body[name]))])),
    event && h("details", {}, h("summary", {}, "Whole event"), json(event, `Event at ${position}`)),
    !event && h("p", {}, "Not to be read as JSON. ", command(`leads-consumer dlq show ${position}`)),
  );
}

function change(given) {
  if (given === null) return h("em", {}, "cleared");
  const text = typeof given === "object" ? JSON.stringify(given) : String(given);
  return h("bdi", { class: "long", title: typeof given === "object" ? plural(Object.keys(given).length, "entry", "entries") : null }, text);
}
