// Requests to the API, and what their failures mean to the person who looks.

import { parse } from "./json.js";

const ROOT = new URL("../", import.meta.url);
/** Longer than any wait that the API itself has. */
const PATIENCE = 15_000;
/** The share of the key's limit that all that is asked for by itself may use. */
const SHARE = 0.6;

/**
 * kind: away (no answer), key (401), scope (403), missing (404), limited (429), unavailable (503), refused
 * (any other).
 */
export class Failure extends Error {
  constructor(kind, message, { status = 0, code = null, retryAfter = null, details = null } = {}) {
    super(message);
    Object.assign(this, { kind, status, code, retryAfter, details });
  }
}

const KINDS = { 401: "key", 403: "scope", 404: "missing", 429: "limited", 503: "unavailable" };

export async function failureOf(response) {
  let body = {};
  try {
    body = await response.json();
  } catch {
    // A proxy's page: the status says what there is to say.
  }
  const after = Number(response.headers.get("retry-after"));
  return new Failure(KINDS[response.status] ?? "refused", body?.message ?? `the answer was ${response.status} ${response.statusText}`.trim(), {
    status: response.status,
    code: typeof body?.error === "string" ? body.error : null,
    retryAfter: Number.isFinite(after) && after > 0 ? after : null,
    details: body?.details ?? null,
  });
}

export class Api {
  #key;
  /** Requests a minute that the key has; null: no limit, or not known yet. */
  limit = null;
  /** How many ask by themselves, again and again; they share alike. */
  pollers = 0;
  /** Called with the failure when the key is not valid any more. */
  onKeyLost = () => {};

  constructor(key) {
    this.#key = key;
  }

  /** Milliseconds from one request to the next of one that asks by itself; 0 without a limit. */
  get spacing() {
    return this.limit ? (60_000 * this.pollers) / (this.limit * SHARE) : 0;
  }

  url(path) {
    return new URL(path, ROOT);
  }

  /** A request with the key; the answer as it is. */
  open(path, { headers = {}, signal } = {}) {
    return fetch(this.url(path), {
      headers: { authorization: `Bearer ${this.#key}`, ...headers },
      signal,
      cache: "no-store",
      credentials: "omit",
      redirect: "error",
    });
  }

  /**
   * The body of a 2xx, with the ETag. Anything else is thrown as a Failure. exact: numbers keep their digits,
   * for what is shown as it is and not reckoned with.
   */
  async get(path, { signal, exact = false } = {}) {
    const patience = AbortSignal.timeout(PATIENCE);
    const either = signal ? AbortSignal.any([signal, patience]) : patience;
    let response, text;
    try {
      response = await this.open(path, { headers: { accept: "application/json" }, signal: either });
      if (response.ok) text = await response.text();
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Failure("away", patience.aborted ? `no answer within ${PATIENCE / 1000} s` : "the API can't be reached");
    }
    if (response.headers.has("x-workspace-id")) {
      const limit = Number(response.headers.get("x-ratelimit-limit"));
      this.limit = limit > 0 ? limit : null;
    }
    if (!response.ok) {
      const failure = await failureOf(response);
      if (failure.kind === "key") this.onKeyLost(failure);
      throw failure;
    }
    try {
      return { body: exact ? parse(text) : JSON.parse(text), etag: response.headers.get("etag") };
    } catch (error) {
      throw new Failure("refused", `the answer can't be read: ${error.message}`);
    }
  }
}

/** What the API says of itself to anybody: who has no scope for more sees at least that. */
export async function readiness() {
  try {
    const response = await fetch(new URL("readyz", ROOT), { cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
    return await response.json();
  } catch {
    throw new Failure("away", "the API can't be reached");
  }
}
