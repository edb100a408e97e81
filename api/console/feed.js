// The workspace's leads as they come: one stream for all views, the newest of them kept.

import { Failure, failureOf } from "./api.js";
import { Watchers } from "./dom.js";
import { SseParser } from "./sse.js";

export const KEPT = 500;
const PREFILL = 50;
const FIRST_BACKOFF = 1000;
const LONGEST_BACKOFF = 30_000;
/** Three heartbeats of the API. */
const SILENCE = 45_000;
/** After a longer gap the list goes on with what is new, and says so. */
const LONGEST_GAP = 300_000;
/** A hidden tab lets go of its stream: a browser has six connections to a host, and keys have a limit too. */
const HIDDEN_FOR = 60_000;

export class Feed {
  changes = new Watchers();
  /** Newest last: {seq, time, type, leadId, source, code, visitorId, version, note}. */
  entries = [];
  /** connecting, live, waiting, resting, refused */
  state = "connecting";
  failure = null;
  nextAt = null;
  /** Events since the console was opened. */
  total = 0;

  #api;
  #seq = 0;
  #lastId = null;
  #lostAt = null;
  #stopped = new AbortController();
  #connection = null;
  #wake = () => {};
  #hiding = 0;
  #filled = false;
  #prefilled = new Set();

  constructor(api) {
    this.#api = api;
  }

  start() {
    document.addEventListener("visibilitychange", () => this.#seen(), { signal: this.#stopped.signal });
    this.#run();
  }

  stop() {
    clearTimeout(this.#hiding);
    this.#stopped.abort();
    this.#connection?.abort();
    this.#wake();
  }

  #seen() {
    clearTimeout(this.#hiding);
    if (document.hidden) {
      this.#hiding = setTimeout(() => {
        this.state = "resting";
        this.#connection?.abort();
      }, HIDDEN_FOR);
    } else {
      this.#wake();
    }
  }

  async #run() {
    let failed = 0;
    while (!this.#stopped.signal.aborted) {
      if (this.state !== "resting") this.#become("connecting");
      try {
        if (this.state !== "resting") await this.#connect(() => (failed = 0));
        this.failure = null;
      } catch (error) {
        this.failure = error instanceof Failure ? error : new Failure("away", "the stream broke off");
      }
      this.#lostAt ??= Date.now();
      if (this.#stopped.signal.aborted) return;
      if (this.state === "resting" && document.hidden) {
        this.changes.tell();
        await this.#sleep(2 ** 31 - 1);
        this.state = "connecting";
        continue;
      }
      if (this.failure?.kind === "key" || this.failure?.kind === "scope") return this.#become("refused");
      const backoff = Math.min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** failed);
      failed += 1;
      const wait = this.failure?.retryAfter ? this.failure.retryAfter * 1000 : backoff * (0.75 + Math.random() / 2);
      this.nextAt = Date.now() + wait;
      this.#become("waiting");
      await this.#sleep(wait);
    }
  }

  async #connect(opened) {
    const connection = new AbortController();
    this.#connection = connection;
    let watchdog = 0;
    const listen = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => connection.abort(), SILENCE);
    };
    try {
      listen();
      if (this.#lostAt && Date.now() - this.#lostAt > LONGEST_GAP) this.#skip("the gap was too long to fill");
      const headers = { accept: "text/event-stream" };
      if (this.#lastId) headers["last-event-id"] = this.#lastId;
      const response = await this.#api.open("api/v1/leads/events", { headers, signal: connection.signal });
      if (!response.ok) throw await this.#refusal(response);
      opened();
      this.#lostAt = null;
      this.failure = null;
      this.#become("live");
      if (!this.#filled) this.#prefill();
      await this.#read(response.body, listen);
    } finally {
      clearTimeout(watchdog);
      connection.abort();
    }
  }

  async #refusal(response) {
    const failure = await failureOf(response);
    if (failure.kind === "key") this.#api.onKeyLost(failure);
    if (["position_gone", "position_ahead", "validation_failed"].includes(failure.code)) this.#skip("the log was made anew");
    return failure;
  }

  async #read(body, listen) {
    const parser = new SseParser();
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      listen();
      const events = parser.push(value);
      for (const event of events) this.#take(event);
      this.#lastId = parser.lastId ?? this.#lastId;
      if (events.length) this.changes.tell();
    }
  }

  #take({ type, data }) {
    if (type === "stream_end") {
      const { reason } = JSON.parse(data);
      if (reason === "slow_reader") this.#skip("more came than a browser can show");
      if (reason === "log_changed") this.#skip("the log was made anew");
      return;
    }
    this.total += 1;
    let event;
    try {
      event = JSON.parse(data);
    } catch {
      return;
    }
    if (event.type === "LeadCreated" && this.#prefilled.delete(event.lead_id)) return;
    const { code, source, visitor_id: visitorId } = event.lead ?? event.changes ?? {};
    const changed = event.changes ? Object.keys(event.changes) : null;
    this.#add({ time: event.occurred_at, type: event.type, leadId: event.lead_id, code, source, visitorId, changed });
  }

  #add(entry) {
    this.#seq += 1;
    this.entries.push({ seq: this.#seq, ...entry });
    if (this.entries.length >= KEPT * 2) this.entries.splice(0, this.entries.length - KEPT);
  }

  /** Goes on with what comes from now on, and leaves a mark where something is missing. */
  #skip(note) {
    this.#lastId = null;
    this.#lostAt = null;
    this.#add({ time: new Date().toISOString(), type: "gap", note });
  }

  /** What was there before the stream, so that a quiet system's list is not empty. */
  async #prefill() {
    this.#filled = true;
    try {
      const { body } = await this.#api.get(`api/v1/leads?limit=${PREFILL}`, { signal: this.#stopped.signal });
      const live = new Set(this.entries.map((entry) => entry.leadId));
      const older = body.data.filter((lead) => !live.has(lead.id)).reverse();
      this.#prefilled = new Set(older.map((lead) => lead.id));
      const entries = older.map((lead, i) => ({
        seq: i - older.length,
        time: lead.created_at,
        type: "LeadCreated",
        leadId: lead.id,
        code: lead.code,
        source: lead.source,
        visitorId: lead.visitor_id,
      }));
      this.entries.unshift(...entries);
      this.changes.tell();
    } catch {
      // PostgreSQL may be away: the stream goes on without it.
    }
  }

  #become(state) {
    this.state = state;
    this.changes.tell();
  }

  #sleep(millis) {
    return new Promise((done) => {
      const timer = setTimeout(done, millis);
      this.#wake = () => {
        clearTimeout(timer);
        done();
      };
    });
  }
}
