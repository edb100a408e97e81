// The keys there are, without their secrets.

import { h, replace, setText } from "./dom.js";
import { age, count, dateTime, plural } from "./format.js";
import { pager } from "./pager.js";
import { command, failed, instant, missingScope, notice, row, state, table, value } from "./parts.js";

const PAGE = 100;
const EACH = 15_000;
const COLUMNS = [
  { name: "Name", kind: "grow" },
  { name: "State", kind: "short" },
  { name: "Kind", kind: "short" },
  { name: "Limit a minute", kind: "number" },
  { name: "Last use", kind: "ago", hint: "noted once a minute at most" },
  { name: "Scopes", kind: "grow" },
  { name: "Created", kind: "time" },
  { name: "Workspace", kind: "id" },
  { name: "Key id", kind: "id" },
];

export function keys({ api, can, key }) {
  const heading = h("h1", { tabindex: "-1" }, "Keys");
  if (!can.system) return { title: "Keys", focus: heading, node: h("div", {}, heading, missingScope("system:read", "the keys of all workspaces", key)) };
  const summary = h("p", { class: "summary" }, "Loading …");
  const results = h("div", {});
  const pages = pager({ api, path: "api/v1/system/keys", asked: { limit: PAGE }, each: EACH, show, fail });
  let drawn = "";

  function show(all, { total }) {
    setText(summary, `${plural(total ?? all.length, "key")} of all workspaces`);
    // Rows that did not change stay as they are: someone may be in the midst of them.
    const seen = JSON.stringify(all) + Math.floor(Date.now() / 60_000);
    if (seen === drawn) return;
    drawn = seen;
    if (!all.length) return replace(results, notice("info", "No key"));
    const { node, body } = table("Keys", COLUMNS);
    node.classList.add("keys");
    body.append(...[...all].sort((a, b) => Boolean(a.revoked_at) - Boolean(b.revoked_at)).map((it) => line(it, it.id === key.key_id)));
    replace(results, node);
  }

  function fail(failure, again) {
    setText(summary, "");
    drawn = "";
    replace(results, failed(failure, again));
  }

  pages.go(0);
  const node = h(
    "div",
    {},
    h("div", { class: "bar" }, heading, summary, h("span", { class: "push" }), pages.buttons),
    results,
    h("p", { class: "small after" }, "Keys are made and ended where the service runs: ", command("leads-api keys --help")),
  );
  return { title: "Keys", focus: heading, node, dispose: pages.end };
}

function line(it, own) {
  return row(
    COLUMNS,
    [
      h("span", { class: "name" }, value(it.name), own && h("span", { class: "tag" }, "this one")),
      it.revoked_at ? h("span", { title: `${dateTime(it.revoked_at)} UTC` }, state("none", "revoked")) : h("span", { title: it.rotated_at ? `rotated ${dateTime(it.rotated_at)} UTC` : null }, state("ok", it.rotated_at ? "rotated" : "active")),
      h("span", { class: `kind ${it.kind}` }, it.kind),
      it.rate_limit ? count(it.rate_limit) : "no limit",
      it.last_used_at ? h("time", { datetime: it.last_used_at, title: `${dateTime(it.last_used_at)} UTC` }, `${age(it.last_used_at)} ago`) : h("span", { class: "none" }, "not known"),
      h("span", { class: "scopes" }, it.scopes.join(", ")),
      instant(it.created_at, (text) => dateTime(text).slice(0, 10)),
      h("span", { class: "mono clip", title: it.workspace_id }, it.workspace_id),
      h("span", { class: "mono clip", title: it.id }, it.id),
    ],
    { class: it.revoked_at ? "ended" : null },
  );
}
