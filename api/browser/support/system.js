// One system for all tests: topics, tables, an API at a fixed address, a consumer.

import { randomUUID } from "node:crypto";
import { readdirSync } from "node:fs";
import { createServer } from "node:net";
import path from "node:path";
import { eventually } from "./eventually.js";
import { Process, ROOT, binary, command } from "./process.js";

const TOPIC = "leads.events.v1";
let port = 0;
let api = null;
let consumer = null;

export const address = () => `http://127.0.0.1:${port}`;

export async function startSystem() {
  if (!process.env.KAFKA_BROKERS || !process.env.DATABASE_URL) throw new Error("no servers: run make test-browser");
  await Promise.all([command(binary("leads-consumer"), ["topics"]), command(binary("leads-consumer"), ["migrate"])]);
  port = await freePort();
  await Promise.all([startApi(), startConsumer()]);
}

export async function stopSystem() {
  await Promise.all([api?.stop(), consumer?.stop()]);
}

/** The same port after each start: that is what a console that is open comes back to. */
export async function startApi() {
  api = new Process("leads-api", ["serve"], { API_LISTEN: `127.0.0.1:${port}`, METRICS_LISTEN: "127.0.0.1:0", SHUTDOWN_GRACE: "0s" });
  await api.said("listening");
  await eventually("the API is ready", async () => (await fetch(`${address()}/readyz`)).ok);
}

export const stopApi = () => api.stop();

export async function startConsumer() {
  consumer = new Process("leads-consumer", ["run"], { METRICS_LISTEN: "127.0.0.1:0" });
  await consumer.said("listening");
}

export const stopConsumer = () => consumer.stop();

export const rebuild = (env = {}) => new Process("leads-consumer", ["rebuild", "--yes"], env);

/** One of the servers: kill, start, pause or resume; kafka or postgres. */
export async function server(what, which) {
  await command(path.join(ROOT, "dev/stack"), [what, which, "--name", process.env.LEADS_STACK_OWNER]);
}

function freePort() {
  return new Promise((done, failed) => {
    const probe = createServer().on("error", failed);
    probe.listen(0, "127.0.0.1", () => {
      const { port } = probe.address();
      probe.close(() => done(port));
    });
  });
}

/** A key, usable at once. Scopes as in leads-api keys create. */
export async function makeKey({ scopes = "leads:read,leads:write,system:read", workspace = randomUUID(), name = "browser", kind = "prod", limit = 0 } = {}) {
  const printed = await command(binary("leads-api"), ["keys", "create", "--json", "--workspace", workspace, "--name", name, "--kind", kind, "--scopes", scopes, "--rate-limit", String(limit)]);
  const key = JSON.parse(printed);
  await eventually("the API knows the key", async () => (await request(key, "/api/v1/system/whoami")).status === 200);
  return { ...key, workspace };
}

export const revoke = (key) => command(binary("leads-api"), ["keys", "revoke", key.id]);

/** body: an object, or JSON as it is to be sent. */
export function request(key, where, { method = "GET", body, headers = {} } = {}) {
  return fetch(address() + where, {
    method,
    headers: { authorization: `Bearer ${key.key}`, ...(body === undefined ? {} : { "content-type": "application/json" }), ...headers },
    body: typeof body === "object" ? JSON.stringify(body) : body,
  });
}

async function asked(key, where, options) {
  const response = await request(key, where, options);
  if (!response.ok) throw new Error(`${options?.method ?? "GET"} ${where}: ${response.status} ${await response.text()}`);
  return (await response.json()).data;
}

export const get = (key, where) => asked(key, where);
export const post = (key, lead) => asked(key, "/api/v1/leads", { method: "POST", body: lead });
export const patch = (key, id, changes) => asked(key, `/api/v1/leads/${id}`, { method: "PATCH", body: changes });

const LARGEST_BATCH = 1000;

/** As many leads, made by a function of their number. */
export async function postMany(key, count, make) {
  for (let from = 0; from < count; from += LARGEST_BATCH) {
    const body = Array.from({ length: Math.min(LARGEST_BATCH, count - from) }, (_, i) => make(from + i));
    await asked(key, "/api/v1/leads/batch", { method: "POST", body });
  }
}

/** Until the read model has as many leads of the workspace. */
export function projected(key, count) {
  return eventually(`${count} leads are projected`, async () => {
    const response = await request(key, "/api/v1/leads?limit=1");
    return (await response.json()).pagination.total >= count;
  });
}

/** Writes past the API, as a producer with a fault would. Gives partition:offset. */
export async function produce(key, value) {
  const dist = path.join(ROOT, ".stack/dist");
  const [version] = readdirSync(dist, { withFileTypes: true }).filter((it) => it.isDirectory() && !it.name.endsWith(".part"));
  const java = process.env.JAVA_HOME ? path.join(process.env.JAVA_HOME, "bin/java") : "java";
  const jars = path.join(dist, version.name, "kafka/*");
  return (await command(java, ["-cp", jars, path.join(import.meta.dirname, "Produce.java"), process.env.KAFKA_BROKERS, TOPIC, key, value])).trim();
}
