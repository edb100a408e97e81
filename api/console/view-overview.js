// How the service stands, at a glance.

import { h, reconcile, setAttribute, setText } from "./dom.js";
import { age, bytes, clock, count, pair, plural, rate, seconds, shortCount, shortSeconds } from "./format.js";
import { command, missingScope, setState, state, table } from "./parts.js";
import { plot } from "./plot.js";
import { explain, spoken } from "./reasons.js";
import { BEHIND, verdict } from "./verdict.js";
import { line, paced } from "./view-live.js";

const LATEST = 8;
/** A full bar is at least as many records: a few of them are no lag. */
const SMALL = 1000;
const LATEST_COLUMNS = [
  { name: "Time", kind: "time" },
  { name: "Event", kind: "event" },
  { name: "Source", kind: "grow" },
  { name: "Code", kind: "grow" },
  { name: "Lead", kind: "id" },
];

export function overview(session) {
  const { can, key, feed, health } = session;
  const heading = state("none", "…");
  const title = h("h1", { tabindex: "-1", class: "verdict" }, heading);
  const about = h("p", { class: "small about" });
  const problems = h("ul", { class: "problems" });
  const parts = can.system ? [tiles(health), partitions(health), side(health)] : [];
  const latest = feed && newest(feed);
  const node = h(
    "div",
    { class: "overview" },
    h("div", { class: "bar" }, title, about),
    problems,
    can.system ? parts[0].node : missingScope("system:read", "rate, latency, lag, dead letters and keys", key),
    h("div", { class: "columns" }, parts[1]?.node, parts[2]?.node),
    latest?.node ?? (can.system && missingScope("leads:read", "the leads of a workspace as they come", key)),
  );

  function draw() {
    const { level, title: words, problems: found } = verdict(health);
    setState(heading, level === "info" ? "ok" : health.status || health.ready || health.failure ? level : "none", words);
    setText(about, aboutOf(health.status));
    reconcile(problems, found, (it) => it.title.replace(/[\d,]+/g, "#"), problem, told);
    setAttribute(node, "data-stale", health.failure?.kind === "away" ? "true" : null);
    for (const part of parts) part.draw();
  }

  const off = health.changes.on(draw);
  draw();
  return {
    title: "Overview",
    focus: title,
    node,
    dispose() {
      off();
      latest?.dispose();
      for (const part of parts) part.dispose?.();
    },
  };
}

function aboutOf(status) {
  if (!status) return "";
  const { instance, version, at } = status;
  return `${instance.id}, version ${version}, up for ${age(instance.started_at, Date.parse(at))}`;
}

function problem(it) {
  return h("li", { class: it.level }, h("p", {}, state(it.level, it.title), " ", h("span", { class: "text" }), " ", it.link && h("a", { href: it.link.href }, it.link.text)), it.cure || it.command ? h("p", { class: "cure" }, it.cure, " ", it.command && command(it.command)) : null);
}

function told(node, it) {
  setState(node.querySelector(".state"), it.level, it.title);
  setText(node.querySelector(".text"), it.text);
}

/** The four plots. */
function tiles(health) {
  const taken = plot({ title: "Leads acknowledged", unit: "a second", axis: shortCount, least: 10 });
  const latency = plot({ title: "Acknowledgement", axis: shortSeconds, legend: [{ kind: "a", name: "p50", hint: "half within" }, { kind: "b", name: "p99", hint: "99 of 100 within" }] });
  const records = plot({ title: "Projection lag", unit: "records", axis: shortCount, least: 10 });
  const old = plot({ title: "Projection lag", unit: "age of the oldest", axis: shortSeconds });
  const all = [taken, latency, records, old];

  function draw() {
    const { series, status } = health;
    const now = health.answeredAt ?? Date.now();
    const each = [...series.instances.values()];
    const points = (name) => each.map(({ points }) => points.map((it) => ({ at: it.at, value: it[name] })));
    const figures = series.now();
    taken.draw(points("rate").map((points) => ({ kind: "a", points })), rate(figures.rate), now);
    latency.draw(
      [...points("p99").map((points) => ({ kind: "b", points })), ...points("p50").map((points) => ({ kind: "a", points }))],
      pair(figures.p50, figures.p99),
      now,
    );
    const lag = (name) => [{ kind: "a", points: series.lag.map((it) => ({ at: it.at, value: it[name] })) }];
    records.draw(lag("records"), count(status?.projection.lag_records), now);
    old.draw(lag("seconds"), seconds(status?.projection.lag_seconds), now);
  }

  return { node: h("div", { class: "tiles" }, all.map(({ node }) => node)), draw, dispose: () => all.forEach((it) => it.dispose()) };
}

/** A bar for each partition: where it stands, and how far behind. */
function partitions(health) {
  const body = h("ul", { class: "partitions", "aria-label": "Partitions" });
  const caption = h("span", { class: "small" });
  const none = h("p", { class: "none", hidden: true }, "Not known while PostgreSQL or Kafka is away.");
  const node = h("section", { class: "panel" }, h("h2", {}, "Partitions ", caption), none, body);

  function draw() {
    const projection = health.status?.projection;
    const all = projection?.partitions ?? [];
    setText(caption, projection ? `${projection.topic}${projection.generation === null ? "" : `, generation ${projection.generation}`}` : "");
    const most = Math.max(SMALL, ...all.map((it) => it.lag_records ?? 0));
    reconcile(body, all, (it) => it.partition, partition, (row, it) => place(row, it, most));
    setAttribute(none, "hidden", !health.status || all.length > 0);
  }
  return { node, draw };
}

function partition({ partition: number }) {
  return h("li", {}, h("span", { class: "number name" }, number), h("span", { class: "track", "aria-hidden": "true" }, h("span", { class: "fill" })), h("span", { class: "number lag" }), h("span", { class: "number age" }), h("span", { class: "number end", title: "next offset of the projection" }));
}

function place(row, { lag_records: lag, lag_seconds: old, next_offset: next, end_offset: end }, most) {
  const [, track, records, wait, at] = row.children;
  track.firstChild.style.width = `${lag ? Math.max(2, (lag / most) * 100) : 0}%`;
  setText(records, lag === 0 ? "even" : lag === null ? "–" : `${count(lag)} behind`);
  setText(wait, lag ? seconds(old) : "");
  setText(at, next === null ? count(end) : count(next));
  setAttribute(row, "class", !lag ? null : old > BEHIND ? "behind late" : "behind");
}

/** Dead letters, a rebuild, and what is in flight. */
function side(health) {
  const letters = h("ul", { class: "reasons" });
  const lettersNote = h("p", { class: "small" });
  const bar = h("progress", { max: "1", "aria-label": "Rebuild" });
  const rebuilt = h("p", { class: "small" });
  const rebuild = h("section", { class: "panel rebuild" }, h("h2", {}, "Rebuild"), bar, rebuilt);
  const flight = h("dl", { class: "facts tight" });
  const speed = { generation: null, at: 0, done: 0, rate: null };
  const node = h("div", { class: "side" }, h("section", { class: "panel" }, h("h2", {}, "Dead letters"), lettersNote, letters), rebuild, h("section", { class: "panel" }, h("h2", {}, "This instance"), flight));

  function draw() {
    const { status } = health;
    drawLetters(status?.dead_letters ?? null);
    drawRebuild(status?.rebuild ?? null);
    if (status) drawFlight(status);
  }

  function drawLetters(dead) {
    const reasons = dead?.by_reason ?? [];
    const since = dead?.oldest_at ? `, the oldest for ${age(dead.oldest_at)}` : "";
    setText(lettersNote, !health.status ? "…" : !dead ? "Not known while PostgreSQL is away." : dead.waiting ? `${plural(dead.waiting, "record")} ${dead.waiting === 1 ? "waits" : "wait"}${since}.` : "None waits.");
    reconcile(letters, reasons, (it) => it.reason, ({ reason }) => h("li", { title: explain(reason).what }, h("a", { href: "#/dead-letters" }, spoken(reason)), h("span", { class: "number" })), (row, it) => setText(row.lastChild, count(it.count)));
  }

  function drawRebuild(it) {
    if (!it) {
      setAttribute(bar, "hidden", true);
      return setText(rebuilt, !health.status ? "…" : health.status.dead_letters ? "None is under way." : "Not known while PostgreSQL is away.");
    }
    const { generation, builder, abandoned, started_at: began, done_records: done, total_records: all } = it;
    // An answer can be as old as the last one: the servers are looked at for all who ask.
    const now = Date.parse(health.status.projection.at);
    if (speed.generation !== generation) Object.assign(speed, { generation, at: now, done, rate: null });
    else if (now - speed.at > 2000) Object.assign(speed, { rate: ((done - speed.done) / (now - speed.at)) * 1000, at: now, done });
    const share = all ? Math.min(1, done / all) : 0;
    setAttribute(bar, "hidden", null);
    bar.value = share;
    const left = all !== null && speed.rate > 0 ? `, ${count(speed.rate)} a second, about ${seconds((all - done) / speed.rate)} left` : "";
    const by = abandoned ? `Its process ${builder ?? ""} is gone: start leads-consumer rebuild again, it goes on where it was.` : `By ${builder ?? "?"} since ${began ? clock(Date.parse(began)) : "?"}.`;
    setText(rebuilt, `Generation ${generation}: ${Math.floor(share * 100)} %, ${count(done)} of ${count(all)} records${abandoned ? "" : left}. ${by}`);
  }

  function drawFlight({ ingest }) {
    const { in_flight: now, refused_total: refused, acknowledged_total: taken } = ingest;
    const gone = Object.entries(refused ?? {}).filter(([, n]) => n > 0).map(([why, n]) => `${count(n)} ${spoken(why)}`);
    const facts = [
      ["Kafka", ingest.kafka],
      ["PostgreSQL", ingest.postgres],
      ["In flight", `${count(now.leads)} of ${count(now.max_leads)} leads, ${bytes(now.bytes)} of ${bytes(now.max_bytes)}`],
      ["Acknowledged", `${count(taken)} since it started`],
      ["Refused", gone.length ? gone.join(", ") : "none"],
    ];
    reconcile(flight, facts, ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd", {})), (row, [, text]) => setText(row.lastChild, text));
  }

  return { node, draw };
}

/** The newest of the stream. */
function newest(feed) {
  const { node: list, body } = table("Newest leads", LATEST_COLUMNS);
  list.classList.add("rows");
  const none = h("p", { class: "none" }, "No lead yet. The next one of this workspace appears here at once.");
  const draw = () => {
    reconcile(body, feed.entries.slice(-LATEST).reverse(), (entry) => entry.seq, (entry) => line(entry, LATEST_COLUMNS));
    setAttribute(none, "hidden", body.childElementCount > 0);
    setAttribute(list, "hidden", body.childElementCount === 0);
  };
  const dispose = paced(feed, draw);
  draw();
  return { node: h("section", { class: "panel" }, h("h2", {}, "Newest leads ", h("a", { class: "small", href: "#/live" }, "all as they come")), none, list), dispose };
}
