// Records that could not be projected: why, and what to do.

import { h, reconcile, replace, setAttribute, setText } from "./dom.js";
import { age, bytes, count, dateTime, plural } from "./format.js";
import { pager } from "./pager.js";
import { command, failed, instant, leadLink, missingScope, notice, state, value } from "./parts.js";
import { explain, spoken } from "./reasons.js";

const PAGE = 50;
const EACH = 5000;

export function deadLetters({ api, can, key, query, health }) {
  const heading = h("h1", { tabindex: "-1" }, "Dead letters");
  if (!can.system) return { title: "Dead letters", focus: heading, node: h("div", {}, heading, missingScope("system:read", "what could not be projected, and why", key)) };
  const all = query.get("state") === "all";
  const summary = h("p", { class: "summary" }, "Loading …");
  const choice = h("nav", { class: "choice", "aria-label": "Which dead letters" }, h("a", { href: "#/dead-letters", "aria-current": all ? null : "true" }, "Waiting"), h("a", { href: "#/dead-letters?state=all", "aria-current": all ? "true" : null }, "All"));
  const causes = h("ul", { class: "causes", "aria-label": "Causes" });
  const list = h("ul", { class: "letters", "aria-label": "Records" });
  const trouble = h("div", {});
  const asked = { limit: PAGE, state: all ? "all" : "waiting" };
  const pages = pager({ api, path: "api/v1/system/dead-letters", asked, each: EACH, show, fail });
  let said = "";

  function show(letters, { total, next_cursor: next }, at) {
    // The total is of a moment before; where one page is all, it is what is listed.
    const there = at === 0 && !next ? letters.length : total;
    setText(summary, there ? `${count(there)} ${all ? "in all" : "waiting"}, newest first` : "");
    const empty = letters.length ? "" : "nothing";
    if (said !== empty) replace(trouble, empty && nothing(all));
    said = empty;
    reconcile(list, letters, (it) => `${it.partition}:${it.offset}`, (it) => letter(it, can), refresh);
  }

  function fail(failure, again) {
    setText(summary, list.childElementCount ? "As of before:" : "");
    // Asked for again and again: what is the same stays, and with it what is focused.
    if (said !== failure.message) replace(trouble, failed(failure, again));
    said = failure.message;
  }

  let waiting = null;
  function drawCauses() {
    const dead = health.status?.dead_letters;
    const reasons = dead?.by_reason ?? [];
    // The list must not contradict the counts for long.
    if (dead && waiting !== null && dead.waiting !== waiting) pages.renew();
    waiting = dead?.waiting ?? waiting;
    reconcile(causes, reasons, (it) => it.reason, cause, (node, it) => setText(node.firstChild.lastChild, count(it.count)));
    setAttribute(causes, "hidden", reasons.length === 0);
  }

  const off = health.changes.on(drawCauses);
  drawCauses();
  pages.go(0);
  const node = h("div", {}, h("div", { class: "bar" }, heading, choice, summary, h("span", { class: "push" }), pages.buttons), causes, trouble, list);
  return { title: "Dead letters", focus: heading, node, dispose: () => (pages.end(), off()) };
}

function nothing(all) {
  return all
    ? notice("ok", "There has been no dead letter", h("p", {}, "Every record of the log could be projected."))
    : notice("ok", "No dead letter waits", h("p", {}, "Every record of the log is projected, or was redriven."));
}

function cause({ reason }) {
  const { what, cure } = explain(reason);
  return h("li", {}, h("p", { class: "cause-name" }, h("strong", {}, spoken(reason)), " ", h("span", { class: "count" })), h("p", {}, what), h("p", { class: "cure" }, cure));
}

function letter(it, can) {
  const place = `${it.partition}:${it.offset}`;
  const { what, cure } = explain(it.reason);
  const facts = [
    ["Set aside", instant(it.dead_at, dateTime)],
    ["Record's time", instant(it.record_time, dateTime)],
    ["Size", bytes(it.size_bytes)],
    ["Workspace", it.workspace_id ? h("span", { class: "mono long" }, it.workspace_id) : value(null)],
    ["Lead", it.lead_id ? (can.read ? leadLink(it.lead_id) : h("span", { class: "mono long" }, it.lead_id)) : h("span", { class: "none" }, "none that can be read")],
  ];
  return h(
    "li",
    {},
    h(
      "details",
      {},
      h(
        "summary",
        { "data-row": true },
        h("span", { class: "mono place" }, place),
        h("span", { class: "reason" }, state("warn", spoken(it.reason))),
        h("span", { class: "age" }),
        h("span", { class: "error clip", title: it.error }, it.error),
      ),
      h(
        "div",
        { class: "letter" },
        h("p", {}, what, " ", h("span", { class: "redriven" })),
        h("p", { class: "holds" }),
        h("p", { class: "cause" }, h("strong", {}, "Cause: "), h("bdi", { class: "long" }, it.error)),
        h("p", {}, h("strong", {}, "What to do: "), cure),
        h("ul", { class: "commands" }, h("li", {}, command(`leads-consumer dlq show ${place}`), " shows all of it, its contents too"), h("li", {}, command(`leads-consumer dlq redrive ${place}`), " tells what would come of it; with --yes does it")),
        h("dl", { class: "facts" }, facts.map(([name, shown]) => h("div", {}, h("dt", {}, name), h("dd", {}, shown)))),
        h("div", { class: "tries" }),
      ),
    ),
  );
}

function refresh(node, it) {
  setText(node.querySelector(".age"), `${age(it.dead_at)} ago`);
  setText(node.querySelector(".holds"), it.parked ? "It waits behind an earlier record of its lead." : it.holds_lead ? "It holds its lead: later events of it are parked behind." : "It holds nothing back: later events of its lead went on.");
  setText(node.querySelector(".redriven"), it.redriven_at ? `Redriven ${dateTime(it.redriven_at)} UTC.` : "");
  setAttribute(node, "class", it.redriven_at ? "ended" : null);
  const tries = node.querySelector(".tries");
  const history = it.history ?? [];
  if (tries.childElementCount && tries.dataset.count === String(history.length)) return;
  tries.dataset.count = history.length;
  if (!history.length) return;
  replace(tries, h("p", {}, plural(it.failed_redrives ?? history.length, "redrive that failed", "redrives that failed")), h("ol", {}, history.map((one) => h("li", {}, instant(one.at, dateTime), " ", spoken(one.reason), ": ", h("bdi", { class: "long" }, one.error)))));
}
