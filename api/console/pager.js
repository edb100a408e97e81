// Lists that the API gives a page at a time: a page is one screen of rows, however many there are.

import { Failure } from "./api.js";
import { h, setAttribute } from "./dom.js";

/**
 * The pages of the list at `path`, asked for with the parameters `asked`, and the buttons that turn them.
 * `show(items, pagination, at)` shows a page; `fail(failure, again)` says that it did not come.
 * off: what a button becomes that leads nowhere, hidden or disabled. each: milliseconds until a page is
 * asked for anew. busy: the node that is aria-busy meanwhile.
 */
export function pager({ api, path, asked, names = ["Back", "More"], off = "hidden", each, busy, show, fail }) {
  const gone = new AbortController();
  const [back, on] = names.map((name, i) => h("button", { type: "button", [off]: true, onclick: () => go(i ? at + 1 : at - 1) }, name));
  // The cursors of the pages up to here.
  const cursors = [null];
  let at = 0;
  let timer = 0;
  let underWay = false;
  let askedAt = 0;
  if (each) api.pollers += 1;

  async function go(to) {
    clearTimeout(timer);
    mark(true);
    askedAt = Date.now();
    let pause = each;
    const query = new URLSearchParams(asked);
    if (cursors[to]) query.set("cursor", cursors[to]);
    try {
      const { body } = await api.get(`${path}?${query}`, { signal: gone.signal });
      at = to;
      cursors[to + 1] = body.pagination.next_cursor;
      turn();
      show(body.data, body.pagination, at);
    } catch (failure) {
      if (gone.signal.aborted) return;
      if (!(failure instanceof Failure)) throw failure;
      fail(failure, () => go(to));
      if (failure.retryAfter) pause = Math.max(each, failure.retryAfter * 1000);
    }
    mark(false);
    if (each && !gone.signal.aborted) wait(Math.max(pause, api.spacing));
  }

  function mark(now) {
    underWay = now;
    if (busy) setAttribute(busy, "aria-busy", now && "true");
  }

  // A button that is focused must not go away under the hand: the other one takes over.
  function turn() {
    const focused = document.activeElement;
    setAttribute(back, off, at === 0);
    setAttribute(on, off, !cursors[at + 1]);
    if (focused === back && back[off]) on.focus();
    if (focused === on && on[off]) back.focus();
  }

  const wait = (pause) => (timer = setTimeout(() => (document.hidden ? wait(pause) : go(at)), pause));

  /** Before its time, as far as the key's limit goes. */
  function renew() {
    if (!underWay && Date.now() - askedAt >= api.spacing) go(at);
  }

  function end() {
    gone.abort();
    clearTimeout(timer);
    if (each) api.pollers -= 1;
  }

  return { buttons: [back, on], go, renew, end };
}
