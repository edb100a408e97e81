// Server-Sent Events out of a response's bytes. EventSource can send no key.
// Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream

/** Longer than any event that the API sends: whatever it is, it is no stream of events. */
const MOST_PENDING = 8 << 20;

export class SseParser {
  #rest = "";
  #data = [];
  #type = "";
  #id = null;
  /** The last position, also of what had no data. */
  lastId = null;
  retry = null;

  /** Takes text as it comes, and gives the events that it completes: [{type, data, id}]. */
  push(text) {
    this.#rest += text;
    const events = [];
    let from = 0;
    for (let end; (end = this.#rest.indexOf("\n", from)) >= 0; from = end + 1) {
      const last = end > from && this.#rest[end - 1] === "\r" ? end - 1 : end;
      const event = this.#line(this.#rest.slice(from, last));
      if (event) events.push(event);
    }
    this.#rest = this.#rest.slice(from);
    if (this.#rest.length > MOST_PENDING) throw new Error("an endless line in the stream of events");
    return events;
  }

  #line(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    if (colon === 0) return null;
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^\d+$/.test(value)) this.retry = Number(value);
    return null;
  }

  #dispatch() {
    if (this.#id !== null) this.lastId = this.#id;
    const event = this.#data.length ? { type: this.#type || "message", data: this.#data.join("\n"), id: this.lastId } : null;
    this.#data = [];
    this.#type = "";
    return event;
  }
}
