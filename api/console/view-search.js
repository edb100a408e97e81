// Search among the workspace's leads.

import { h, replace, setAttribute, setText } from "./dom.js";
import { count, dateTime } from "./format.js";
import { pager } from "./pager.js";
import { failed, instant, leadLink, missingScope, notice, row, table, value } from "./parts.js";

const PAGE = 50;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const FIELDS = [
  { name: "id", label: "Lead id", mono: true, placeholder: "opens the lead" },
  { name: "visitor_id", label: "Visitor id", mono: true },
  { name: "source", label: "Source" },
  { name: "code", label: "Code" },
  { name: "created_after", label: "Created after (UTC)", type: "datetime-local" },
  { name: "created_before", label: "Created before (UTC)", type: "datetime-local" },
];
const COLUMNS = [
  { name: "Created", kind: "time" },
  { name: "Source", kind: "grow" },
  { name: "Code", kind: "grow" },
  { name: "Visitor", kind: "id wide-only" },
  { name: "Updated", kind: "time wide-only" },
  { name: "Lead", kind: "id" },
];

export function search({ api, can, key, query }) {
  const heading = h("h1", { tabindex: "-1" }, "Search");
  if (!can.read) return { title: "Search", focus: heading, node: h("div", {}, heading, missingScope("leads:read", "the leads of a workspace", key)) };
  const inputs = Object.fromEntries(FIELDS.map((field) => [field.name, input(field, query.get(field.name))]));
  const problem = h("p", { class: "problem", role: "alert" });
  const form = h(
    "form",
    { class: "filters", role: "search", "aria-label": "Leads", onsubmit: submit, novalidate: true },
    FIELDS.map(({ name, label }) => h("p", { class: `field ${name}` }, h("label", { for: `f-${name}` }, label), inputs[name])),
    h("p", { class: "field actions" }, h("button", { class: "main" }, "Search"), h("button", { type: "button", class: "quiet", onclick: clear }, "Clear")),
  );
  const summary = h("p", { class: "summary", role: "status" }, "Loading …");
  const results = h("div", { class: "results", "aria-busy": "true" });
  const asked = new URLSearchParams({ limit: PAGE });
  for (const { name } of FIELDS) if (name !== "id" && query.get(name)) asked.set(name, query.get(name));
  const pages = pager({ api, path: "api/v1/leads", asked, names: ["Newer", "Older"], off: "disabled", busy: results, show, fail });

  function clear() {
    if (location.hash === "#/search") for (const field of Object.values(inputs)) field.value = "";
    location.hash = "#/search";
  }

  function submit(event) {
    event.preventDefault();
    const given = new URLSearchParams();
    const bad = [];
    for (const { name, label, type, mono } of FIELDS) {
      const text = inputs[name].value.trim();
      const wrong = mono && text && !UUID.test(text);
      setAttribute(inputs[name], "aria-invalid", wrong ? "true" : null);
      if (wrong) bad.push(label.toLowerCase());
      if (text) given.set(name, type ? new Date(`${text}Z`).toISOString() : text);
    }
    if (bad.length) {
      setText(problem, `No UUID: ${bad.join(", ")}. It looks like 0190d5a4-7c3e-7c1a-9c39-1f0a8d2b6e55.`);
      return form.querySelector("[aria-invalid]").focus();
    }
    setText(problem, "");
    const next = given.has("id") ? `#/lead/${given.get("id").toLowerCase()}` : `#/search${given.size ? `?${given}` : ""}`;
    if (next === location.hash) pages.go(0);
    else location.hash = next;
  }

  function show(leads, { total }, at) {
    const first = at * PAGE + 1;
    setText(summary, leads.length ? `${count(first)}–${count(first + leads.length - 1)} of ${count(total)}` : "");
    if (!leads.length) {
      const filtered = FIELDS.some(({ name }) => query.has(name));
      return replace(results, notice("info", filtered ? "No lead is like that" : "No lead yet", h("p", {}, filtered ? "Nothing that is projected fits all the fields above." : "Leads of this workspace appear here when they are projected.")));
    }
    const { node, body } = table("Leads found", COLUMNS);
    node.classList.add("rows");
    body.append(...leads.map(line));
    replace(results, node);
  }

  function fail(failure, again) {
    setText(summary, "");
    replace(results, failed(failure, again), details(failure));
  }

  pages.go(0);
  const node = h("div", {}, h("div", { class: "bar" }, heading), form, problem, h("div", { class: "bar under" }, summary, h("span", { class: "push" }), pages.buttons), results);
  const focusSearch = () => {
    inputs.source.focus();
    inputs.source.select();
  };
  return { title: "Search", focus: inputs.source, node, search: focusSearch, dispose: pages.end };
}

function input({ name, type = "text", mono, placeholder }, given) {
  const node = h("input", { id: `f-${name}`, name, type, class: mono ? "mono" : null, placeholder, step: type === "text" ? null : "1", autocomplete: "off", spellcheck: "false", dir: type === "text" ? "auto" : null });
  // A time that can't be read is left to the API, which says so.
  if (given && type === "text") node.value = given;
  else if (given && !Number.isNaN(Date.parse(given))) node.value = new Date(given).toISOString().slice(0, 19);
  return node;
}

function line(lead) {
  return row(COLUMNS, [
    instant(lead.created_at),
    value(lead.source),
    value(lead.code),
    lead.visitor_id ? h("a", { class: "mono clip", href: `#/search?visitor_id=${lead.visitor_id}`, title: lead.visitor_id }, lead.visitor_id) : value(null),
    lead.updated_at === lead.created_at ? value(null) : h("time", { datetime: lead.updated_at, title: `${dateTime(lead.updated_at)} UTC` }, dateTime(lead.updated_at)),
    leadLink(lead.id),
  ]);
}

function details({ details: given }) {
  return given?.fields && h("ul", {}, given.fields.map(({ field, message }) => h("li", {}, `${field}: ${message}`)));
}
