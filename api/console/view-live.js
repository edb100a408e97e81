// Leads as they come.

import { h, reconcile, setAttribute, setText } from "./dom.js";
import { count, plural, seconds } from "./format.js";
import { KEPT } from "./feed.js";
import { instant, leadLink, missingScope, notice, row, setState, state, table, value } from "./parts.js";

const EACH = 250;
const COLUMNS = [
  { name: "Time", kind: "time" },
  { name: "Event", kind: "event" },
  { name: "Source", kind: "grow" },
  { name: "Code", kind: "grow" },
  { name: "Visitor", kind: "id wide-only" },
  { name: "Lead", kind: "id" },
];

export function live({ feed, key }) {
  const heading = h("h1", { tabindex: "-1" }, "Live");
  if (!feed) return { title: "Live", focus: heading, node: h("div", {}, heading, missingScope("leads:read", "the leads of a workspace", key)) };
  const standing = state("none", "…");
  const hold = h("button", { type: "button", onclick: () => pause() }, "Pause");
  const held = h("span", { class: "small held" });
  const { node: list, body } = table("Leads as they come, newest first", COLUMNS);
  list.classList.add("rows");
  const empty = notice("info", "No lead yet", h("p", {}, "The next one of this workspace appears here at once."));
  let upTo = null;
  let seen = 0;

  function pause() {
    upTo = upTo === null ? (feed.entries.at(-1)?.seq ?? 0) : null;
    seen = feed.total;
    setText(hold, upTo === null ? "Pause" : "Resume");
    setAttribute(hold, "class", upTo === null ? null : "main");
    draw();
  }

  function draw() {
    setState(standing, ...words(feed));
    const came = feed.total - seen;
    setText(held, upTo === null ? `${plural(feed.total, "event")} since this tab began` : `Paused: ${count(came)} more came${came > KEPT ? `, of which the newest ${KEPT} are kept` : ""}`);
    if (upTo === null) reconcile(body, feed.entries.slice(-KEPT).reverse(), (entry) => entry.seq, line);
    setAttribute(empty, "hidden", body.childElementCount > 0);
    setAttribute(list, "hidden", body.childElementCount === 0);
  }

  const stop = paced(feed, draw);
  const node = h("div", {}, h("div", { class: "bar" }, heading, standing, h("span", { class: "push" }), held, hold), empty, list);
  draw();
  return { title: "Live", focus: heading, node, pause, dispose: stop };
}

/** Draws at most each 250 ms, and not at all while nobody looks. */
export function paced(feed, draw) {
  let timer = 0;
  const later = () => {
    timer ||= setTimeout(() => requestAnimationFrame(() => {
      timer = 0;
      draw();
    }), EACH);
  };
  const off = feed.changes.on(later);
  return () => {
    off();
    clearTimeout(timer);
    draw = () => {};
  };
}

export function words({ state: at, failure, nextAt }) {
  const again = nextAt ? `, next try in ${seconds(Math.max(1, Math.round((nextAt - Date.now()) / 1000)))}` : "";
  switch (at) {
    case "live": return ["ok", "Live"];
    case "connecting": return ["none", "Connecting …"];
    case "resting": return ["none", "Resting while hidden"];
    case "refused": return ["bad", failure.message];
    default: return ["warn", failure?.kind && failure.kind !== "away" ? `${failure.message}${again}` : `Not connected${again}`];
  }
}

const EVENTS = { LeadCreated: "created", LeadUpdated: "updated" };

export function line(entry, columns = COLUMNS) {
  if (entry.type === "gap") {
    return h("tr", { role: "row", class: "gap" }, h("td", { role: "cell", colspan: columns.length }, instant(entry.time), ` Some are missing here: ${entry.note}. Search has them.`));
  }
  const cells = {
    Time: () => instant(entry.time),
    Event: () => h("span", { class: `tag ${EVENTS[entry.type] ?? ""}` }, EVENTS[entry.type] ?? entry.type),
    Source: () => value(entry.changed && entry.source === undefined ? null : entry.source),
    Code: () => (entry.changed ? h("span", { class: "small clip", title: entry.changed.join(", ") }, `changed: ${entry.changed.join(", ")}`) : value(entry.code)),
    Visitor: () => (entry.visitorId ? h("a", { class: "mono clip", href: `#/search?visitor_id=${entry.visitorId}`, title: entry.visitorId }, entry.visitorId) : value(null)),
    Lead: () => leadLink(entry.leadId),
  };
  return row(columns, columns.map(({ name }) => cells[name]()));
}
