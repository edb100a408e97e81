// Elements without markup: text goes in as text nodes only.

const SVG = "http://www.w3.org/2000/svg";

/** h("a", {class: "x", href: "#/", onclick: f}, "text", child): attributes that are null or false stay away. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  append(node, children);
  return node;
}

function append(node, children) {
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) node.append(child);
  }
}

/** Changes the text only when it differs, so that nothing is laid out or read out anew for nothing. */
export function setText(node, text) {
  const wanted = String(text);
  if (node.textContent !== wanted) node.textContent = wanted;
}

export function setAttribute(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
    return;
  }
  const wanted = value === true ? "" : String(value);
  if (node.getAttribute(name) !== wanted) node.setAttribute(name, wanted);
}

export function replace(node, ...children) {
  node.replaceChildren();
  append(node, children);
}

/**
 * Makes the children of `parent` those of `items`, in their order, and keeps the nodes of those that
 * stay: what is focused or opened stays so. `make(item)` gives a node; `update(node, item)` changes it.
 */
export function reconcile(parent, items, keyOf, make, update = () => {}) {
  const before = new Map([...parent.children].map((node) => [node.dataset.key, node]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let node = before.get(key);
    if (node) {
      before.delete(key);
      update(node, item);
    } else {
      node = make(item);
      node.dataset.key = key;
      update(node, item);
    }
    if (node === at) at = at.nextElementSibling;
    else parent.insertBefore(node, at);
  }
  for (const node of before.values()) node.remove();
}

/** Those who want to know of changes. `on` gives back how to stop it. */
export class Watchers {
  #all = new Set();
  on(call) {
    this.#all.add(call);
    return () => this.#all.delete(call);
  }
  tell(...what) {
    for (const call of [...this.#all]) call(...what);
  }
}
