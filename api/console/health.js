// How the service stands: asked each second, more slowly when nobody looks.

import { Failure, readiness } from "./api.js";
import { Watchers } from "./dom.js";
import { Series } from "./series.js";

const EACH = 1000;
const HIDDEN = 10_000;
const LONGEST_BACKOFF = 10_000;
/** Without the scope there is only the readiness, which is not worth asking for each second. */
const READINESS_EACH = 5000;

export class Health {
  changes = new Watchers();
  series = new Series();
  /** The last answer of /system/status; null before it, and without the scope. */
  status = null;
  /** The same of /readyz, where that has to do. */
  ready = null;
  answeredAt = null;
  awaySince = null;
  failure = null;
  /** When it asks again after a failure. */
  nextAt = null;

  #api;
  #full;
  #stopped = new AbortController();
  #failed = 0;
  #wake = () => {};

  constructor(api, full) {
    this.#api = api;
    this.#full = full;
    if (full) api.pollers += 1;
  }

  start() {
    document.addEventListener("visibilitychange", () => document.hidden || this.#wake(), { signal: this.#stopped.signal });
    this.#run();
  }

  stop() {
    this.#stopped.abort();
    this.#wake();
  }

  /** Asks now. */
  hurry() {
    this.#wake();
  }

  async #run() {
    while (!this.#stopped.signal.aborted) {
      const began = Date.now();
      await this.#ask();
      if (this.#stopped.signal.aborted) return;
      const wait = this.#wait();
      this.nextAt = this.failure ? Date.now() + wait : null;
      this.changes.tell();
      await this.#sleep(this.failure ? wait : wait - (Date.now() - began));
    }
  }

  async #ask() {
    try {
      if (this.#full) {
        const { body } = await this.#api.get("api/v1/system/status", { signal: this.#stopped.signal });
        this.status = body.data;
        this.series.take(body.data);
      } else {
        this.ready = await readiness();
      }
      this.answeredAt = Date.now();
      this.awaySince = null;
      this.failure = null;
      this.#failed = 0;
    } catch (error) {
      if (this.#stopped.signal.aborted) return;
      this.failure = error instanceof Failure ? error : new Failure("refused", `the answer can't be read: ${error.message}`);
      this.awaySince ??= this.answeredAt ?? Date.now();
      this.#failed += 1;
    }
  }

  #wait() {
    if (this.failure?.retryAfter) return this.failure.retryAfter * 1000;
    if (this.failure) return Math.min(LONGEST_BACKOFF, EACH * 2 ** (this.#failed - 1));
    if (!this.#full) return document.hidden ? HIDDEN : READINESS_EACH;
    return Math.max(document.hidden ? HIDDEN : EACH, this.#api.spacing);
  }

  #sleep(millis) {
    return new Promise((done) => {
      const timer = setTimeout(done, Math.max(0, millis));
      this.#wake = () => {
        clearTimeout(timer);
        done();
      };
    });
  }
}
