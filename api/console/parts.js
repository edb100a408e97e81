// Pieces that several views are made of.

import { h, setText } from "./dom.js";
import { ABSENT, dateTime, time } from "./format.js";

/** A value of a client's: any script, any length, on one line; whole in its title. */
export function value(text, extra = "") {
  if (text === null || text === undefined || text === "") return h("span", { class: "none" }, ABSENT);
  return h("bdi", { class: `clip ${extra}`, title: text }, String(text));
}

export function instant(text, format = time) {
  if (!text) return h("span", { class: "none" }, ABSENT);
  return h("time", { datetime: text, title: `${dateTime(text)} UTC` }, format(text));
}

export function leadLink(id, text = id) {
  return h("a", { href: `#/lead/${id}`, class: "mono clip", title: id, "data-row": true }, text);
}

/** Text to be pasted into a shell, with a button that copies it. */
export function command(text) {
  const button = h("button", { type: "button", class: "quiet copy", "aria-label": `Copy: ${text}`, onclick: () => copy(text, button, code) }, "Copy");
  const code = h("code", {}, text);
  return h("span", { class: "command" }, code, button);
}

async function copy(text, button, code) {
  try {
    await navigator.clipboard.writeText(text);
    setText(button, "Copied");
  } catch {
    // Without TLS a browser gives no clipboard: selected, it is one keystroke away.
    const range = document.createRange();
    range.selectNodeContents(code);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    setText(button, "Selected");
  }
  setTimeout(() => setText(button, "Copy"), 2000);
}

const GLYPHS = { ok: "●", info: "◆", warn: "▲", bad: "■", none: "○" };

/** State by shape and word, never by colour alone. */
export function state(level, text) {
  return h("span", { class: `state ${level}` }, h("span", { class: "glyph", "aria-hidden": "true" }, GLYPHS[level]), text);
}

export function setState(node, level, text) {
  const className = `state ${level}`;
  if (node.className !== className) node.className = className;
  setText(node.firstChild, GLYPHS[level]);
  if (node.lastChild.textContent !== text) node.lastChild.textContent = text;
}

/** A notice in a view's place: nothing there, or something wrong. */
export function notice(level, title, ...more) {
  return h("div", { class: `notice ${level}` }, h("p", { class: "notice-title" }, state(level, title)), more);
}

/** What the key lacks, and who mends it. */
export function missingScope(scope, shows, key) {
  return notice(
    "info",
    `This key lacks the scope ${scope}`,
    h("p", {}, `With it, ${shows} would be here. An operator makes a key that has it:`),
    h("p", {}, command(`leads-api keys create --workspace ${key.workspace_id} --scopes leads:read,system:read`)),
  );
}

/**
 * A table that a phone shows as a list: rows become blocks, and roles keep its meaning for readers of
 * the screen. columns: [{name, class}].
 */
export function table(label, columns) {
  const body = h("tbody", { role: "rowgroup" });
  const head = h("tr", { role: "row" }, columns.map(({ name, kind = "", hint }) => h("th", { role: "columnheader", scope: "col", class: kind, title: hint }, name)));
  const node = h("table", { role: "table", "aria-label": label }, h("thead", { role: "rowgroup" }, head), body);
  return { node, body };
}

export function row(columns, cells, attributes = {}) {
  return h("tr", { role: "row", ...attributes }, cells.map((cell, i) => h("td", { role: "cell", class: columns[i].kind ?? "", "data-label": columns[i].name }, cell)));
}

/** What went wrong with a request, in words, with a way to try again. */
export function failed(failure, again) {
  const unavailable = failure.kind === "away" || failure.kind === "unavailable";
  const title = failure.kind === "away" ? "The API does not answer" : failure.code === "read_model_unavailable" ? "PostgreSQL is away" : "That did not work";
  return notice(unavailable ? "warn" : "bad", title, h("p", {}, failure.message), again && h("p", {}, h("button", { type: "button", onclick: again }, "Try again")));
}
