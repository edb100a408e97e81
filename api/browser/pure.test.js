// What needs no browser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { apart, quantile, Series } from "../console/series.js";
import { seconds, shortCount } from "../console/format.js";
import { ceiling } from "../console/plot.js";
import { SseParser } from "../console/sse.js";
import { verdict } from "../console/verdict.js";

test("events come out of a stream whole, wherever it is cut", () => {
  const text = 'retry: 1000\nid: A\n\n: heartbeat\nid: B\n\nid: C\r\nevent: LeadCreated\r\ndata: {"a":\r\ndata: 1}\r\n\r\ndata: x\n\n';
  const expected = [{ type: "LeadCreated", data: '{"a":\n1}', id: "C" }, { type: "message", data: "x", id: "C" }];
  for (let cut = 0; cut <= text.length; cut++) {
    const parser = new SseParser();
    assert.deepEqual([...parser.push(text.slice(0, cut)), ...parser.push(text.slice(cut))], expected);
    assert.equal(parser.lastId, "C");
    assert.equal(parser.retry, 1000);
  }
});

test("a position without an event is remembered, and one of an event that is not whole is not", () => {
  const parser = new SseParser();
  parser.push("id: A\n\nid: B\ndata: half");
  assert.equal(parser.lastId, "A");
  parser.push("\n\n");
  assert.equal(parser.lastId, "B");
});

test("quantiles are within the bucket that holds them", () => {
  const bounds = [0.001, 0.01, 0.1, null];
  assert.equal(quantile(0.5, bounds, [0, 0, 0, 0]), null);
  assert.equal(quantile(0.5, bounds, [10, 0, 0, 0]), 0.0005);
  assert.equal(quantile(0.99, bounds, [0, 100, 0, 0]).toFixed(5), "0.00991");
  assert.equal(quantile(0.99, bounds, [1, 0, 0, 99]), 0.1);
});

const status = (id, at, acknowledged, counts, lag = 0) => ({
  at: new Date(at).toISOString(),
  instance: { id },
  ingest: { acknowledged_total: acknowledged, refused_total: {}, acknowledge_seconds: { buckets: counts.map((count, i) => ({ le: [0.001, 0.01, null][i], count })) } },
  projection: { lag_records: lag, lag_seconds: lag / 100 },
});

test("rates are of each instance, and together what all do", () => {
  const series = new Series();
  const start = Date.parse("2026-01-31T12:00:00Z");
  for (let second = 0; second < 4; second++) {
    const at = start + second * 1000;
    series.take(status("a", at, second * 100, [second * 100, second * 100, second * 100]), at);
    series.take(status("b", at, second * 10, [0, second * 10, second * 10]), at);
  }
  const now = series.now(start + 3000);
  assert.equal(now.rate, 110);
  assert.ok(now.p50 < 0.001 && now.p99 > 0.001);
  assert.deepEqual(apart(status("a", start, 0, [1, 3, 7]).ingest.acknowledge_seconds.buckets), [1, 2, 4]);
  // An instance that begins anew is no negative rate.
  series.take(status("a", start + 4000, 5, [5, 5, 5]), start + 4000);
  assert.equal(series.instances.get("a").points.at(-1).rate, 100);
});

test("nothing grows through hours of figures", () => {
  const series = new Series();
  for (let second = 0; second < 20_000; second++) {
    series.take(status(`instance-${Math.floor(second / 100)}`, second * 1000, second, [second, second, second]), second * 1000);
  }
  assert.ok(series.instances.size <= 8);
  assert.ok(series.lag.length <= 301);
  assert.ok([...series.instances.values()].every((it) => it.points.length <= 301));
});

test("figures are short and exact enough", () => {
  assert.deepEqual([0, 0.0042, 0.25, 4.24, 12, 192, 7440, 273600].map(seconds), ["0 s", "4.2 ms", "250 ms", "4.2 s", "12 s", "3 min 12 s", "2 h 4 min", "3 d 4 h"]);
  assert.deepEqual([0, 0.5, 12, 9999, 12345].map(shortCount), ["0", "0.5", "12", "9,999", "12.3K"]);
  assert.deepEqual([0, 0.9, 3, 41, 100].map(ceiling), [1, 1, 4, 50, 100]);
});

test("the worst comes first, and tells what to do", () => {
  const all = {
    ...status("a", 0, 0, [0, 0, 0]),
    dead_letters: { waiting: 2, parked: 1 },
    rebuild: null,
  };
  Object.assign(all.ingest, { status: "ready", kafka: "up", postgres: "up" });
  Object.assign(all.projection, { status: "up", error: null });
  const of = (change = {}) => verdict({ status: { ...all, ...change }, series: new Series(), failure: null });
  assert.equal(of({ dead_letters: null }).level, "ok");
  assert.match(of().title, /2 dead letters wait/);
  const rebuild = { generation: 2, abandoned: false };
  assert.ok(of({ rebuild }).problems.some((it) => it.level === "info" && /under way/.test(it.title)));
  assert.ok(of({ rebuild: { ...rebuild, abandoned: true } }).problems.some((it) => it.level === "warn" && it.command === "leads-consumer rebuild"));
  const noBroker = of({ ingest: { ...all.ingest, status: "no_broker", kafka: "down" } });
  assert.equal(noBroker.level, "bad");
  assert.match(noBroker.title, /Kafka is away/);
  const noPostgres = of({ ingest: { ...all.ingest, postgres: "down" }, dead_letters: null });
  assert.equal(noPostgres.title, "PostgreSQL is away");
  assert.ok(noPostgres.problems.every((it) => it.cure || it.command || it.link));
});
