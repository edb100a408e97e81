// Keys, and the dialog that lists them.

import { h } from "./dom.js";

const OFF = "leads.shortcuts";
const PATHS = { o: "#/", l: "#/live", s: "#/search", d: "#/dead-letters", k: "#/keys" };
/** The second key has to follow the first within. */
const PAIR = 1500;
const LIST = [
  ["/", "Search"],
  ["g o", "Overview"],
  ["g l", "Live"],
  ["g d", "Dead letters"],
  ["g k", "Keys"],
  ["j  k", "Next and previous row"],
  ["p", "Pause or resume the live list"],
  ["?", "This help"],
  ["Esc", "Close it"],
];

const enabled = () => localStorage.getItem(OFF) !== "off";

export function shortcuts({ view, entered }) {
  let first = null;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || typing(event.target) || !enabled()) return;
    if (document.querySelector("dialog[open]")) return;
    const pair = first && event.timeStamp - first < PAIR;
    first = null;
    if (event.key === "?") openHelp();
    else if (!entered()) return;
    else if (pair && PATHS[event.key]) location.hash = PATHS[event.key];
    else if (event.key === "g") first = event.timeStamp;
    else if (event.key === "/") toSearch(view());
    else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "p") view()?.pause?.();
    else return;
    event.preventDefault();
  });
}

function typing(target) {
  return target instanceof HTMLElement && (target.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(target.tagName));
}

function toSearch(view) {
  if (view?.search) view.search();
  else location.hash = "#/search";
}

function step(by) {
  const rows = [...document.querySelectorAll("#main [data-row]")].filter((node) => node.offsetParent);
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement);
  const next = at < 0 ? rows[by > 0 ? 0 : rows.length - 1] : rows[Math.min(rows.length - 1, Math.max(0, at + by))];
  next.focus();
  next.scrollIntoView({ block: "nearest" });
}

export function openHelp() {
  if (document.querySelector("dialog[open]")) return;
  const box = h("input", { type: "checkbox", id: "single", checked: enabled() });
  box.addEventListener("change", () => (box.checked ? localStorage.removeItem(OFF) : localStorage.setItem(OFF, "off")));
  const dialog = h(
    "dialog",
    { "aria-labelledby": "help-title", onclose: () => dialog.remove() },
    h("h2", { id: "help-title" }, "Keyboard"),
    h("dl", { class: "shortcuts" }, LIST.map(([keys, what]) => [h("dt", {}, keys.split(/\s+/).map((key) => h("kbd", {}, key))), h("dd", {}, what)])),
    h("p", { class: "choice" }, box, h("label", { for: "single" }, "Single keys are shortcuts")),
    h("p", { class: "small" }, "All times are UTC. The key stays in this tab, and is gone when the tab is closed or with “Forget key”."),
    h("form", { method: "dialog" }, h("button", { class: "main" }, "Close")),
  );
  document.body.append(dialog);
  dialog.showModal();
}
