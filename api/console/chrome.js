// What is around every view: where one is, how the service stands, whose key it is.

import { h, replace, setAttribute, setText } from "./dom.js";
import { clock } from "./format.js";
import { openHelp } from "./help.js";
import { setState, state } from "./parts.js";
import { verdict } from "./verdict.js";

const PLACES = [
  ["", "Overview", "g o"],
  ["live", "Live", "g l"],
  ["search", "Search", "/"],
  ["dead-letters", "Dead letters", "g d"],
  ["keys", "Keys", "g k"],
];
/** A state has to last as long before it is read out. */
const STEADY = 3000;

export class Chrome {
  #nav = document.getElementById("nav");
  #tools = document.getElementById("tools");
  #announce = document.getElementById("announce");
  #forget;
  #off = () => {};
  #said = "";
  #saying = 0;

  constructor({ forget }) {
    this.#forget = forget;
    this.#bare();
  }

  enter({ key, health }) {
    const now = h("span", { class: "clock", title: "the time of the figures; all times are UTC" });
    const standing = h("a", { href: "#/", class: "standing" }, state("none", "…"));
    replace(
      this.#nav,
      PLACES.map(([name, text, keys]) => h("a", { href: `#/${name}`, "data-place": name, title: `${text} (${keys})` }, text)),
    );
    replace(
      this.#tools,
      now,
      standing,
      h("span", { class: "who", title: `${key.name ?? "key"}: ${key.scopes.join(", ")}` }, h("bdi", { class: "clip" }, key.name || key.key_id), h("span", { class: "kind" }, key.kind)),
      h("button", { type: "button", class: "quiet", "aria-label": "Forget key", onclick: () => this.#forget() }, "Forget", h("span", { class: "wide-word" }, " key")),
      h("button", { type: "button", class: "quiet help", "aria-label": "Help and keyboard shortcuts", title: "Help (?)", onclick: openHelp }, "?"),
    );
    this.#off = health.changes.on(() => {
      const { level, short, title } = verdict(health);
      setState(standing.firstChild, level === "info" ? "ok" : level, short);
      setAttribute(standing, "title", title);
      setText(now, health.answeredAt ? `${clock(health.answeredAt)} UTC` : "");
      this.#say(title);
    });
  }

  leave() {
    this.#off();
    clearTimeout(this.#saying);
    this.#said = "";
    this.#bare();
  }

  #bare() {
    replace(this.#nav);
    replace(this.#tools, h("button", { type: "button", class: "quiet help", "aria-label": "Help and keyboard shortcuts", onclick: openHelp }, "?"));
  }

  /** Says which view is shown. */
  mark(place) {
    for (const link of this.#nav.children) setAttribute(link, "aria-current", link.dataset.place === place ? "page" : null);
  }

  /** Reads out that the service's state is another one: not each figure, and not what passes. */
  #say(title) {
    if (title === this.#said) return;
    this.#said = title;
    clearTimeout(this.#saying);
    this.#saying = setTimeout(() => setText(this.#announce, title), STEADY);
  }
}
