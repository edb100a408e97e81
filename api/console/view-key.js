// Where the key is entered.

import { h, replace, setAttribute, setText } from "./dom.js";
import { command, state } from "./parts.js";

const WRONG = {
  away: "The API does not answer. Is it running? The key was not checked.",
  unavailable: "The API can't check keys yet: it is starting, or has no broker. Try again in a moment.",
  limited: "This key has used up its requests for this minute. Try again in the next one.",
};

export function keyForm({ enter, why }) {
  const problem = h("p", { id: "key-problem", class: "problem", role: "alert" });
  const input = h("input", {
    id: "key",
    type: "password",
    autocomplete: "off",
    spellcheck: "false",
    autocapitalize: "off",
    placeholder: "lk_prod_…",
    "aria-describedby": "key-hint key-problem",
    required: true,
  });
  const button = h("button", { class: "main" }, "Open the console");
  const form = h(
    "form",
    { class: "key-form", onsubmit: submit, novalidate: true },
    h("h1", {}, "Enter an API key"),
    h("label", { for: "key" }, "API key"),
    input,
    problem,
    button,
    h("p", { id: "key-hint", class: "small" }, "It stays in this tab: not on disk, not in the address, and gone when the tab is closed. Leads need the scope leads:read, the service's figures system:read."),
    h("details", {}, h("summary", {}, "No key yet?"), h("p", {}, command("leads-api keys create --workspace UUID --scopes leads:read,system:read"))),
  );

  function tell(text) {
    replace(problem, text && state("bad", text));
    setAttribute(input, "aria-invalid", text ? "true" : null);
  }

  async function submit(event) {
    event.preventDefault();
    const key = input.value.trim();
    if (!key) return refuse("Enter a key: it begins with lk_prod_ or lk_dev_.");
    // A header can't hold anything else; such a text is no key.
    if (!/^[\x21-\x7e]+$/.test(key)) return refuse("That is no key: it has spaces or signs that no key has. Was more than the key copied?");
    button.disabled = true;
    setText(button, "Checking …");
    tell("");
    try {
      await enter(key);
    } catch (failure) {
      refuse(explain(failure, key));
    } finally {
      button.disabled = false;
      setText(button, "Open the console");
    }
  }

  function refuse(text) {
    tell(text);
    input.focus();
    input.select();
  }

  if (why) tell(why);
  // Once it is in the page.
  queueMicrotask(() => input.focus({ preventScroll: true }));
  return { title: "Key", node: form };
}

function explain(failure, key) {
  if (failure.kind === "key") {
    return /^lk_(prod|dev)_/.test(key)
      ? "No such key here: mistyped, cut short, revoked, rotated, or of another system."
      : "That is no key of this service: keys begin with lk_prod_ or lk_dev_.";
  }
  return WRONG[failure.kind] ?? `The API answered: ${failure.message ?? failure}`;
}
