// What an operator has to know first: is all well, and if not, what is it and what to do.

import { clock, count, plural, seconds } from "./format.js";

/** An age of the oldest record that is not projected that is worth a word. */
export const BEHIND = 30;
const LEVELS = ["ok", "info", "warn", "bad"];

/** {level, title, problems: [{level, text, cure, command, link}]}; level is one of ok, info, warn, bad. */
export function verdict(health, now = Date.now()) {
  const problems = [...connection(health, now), ...(health.status ? service(health) : readiness(health.ready))];
  const level = problems.reduce((worst, { level }) => (LEVELS.indexOf(level) > LEVELS.indexOf(worst) ? level : worst), "ok");
  return { level, title: title(health, level, problems), short: short(health, level), problems };
}

function title(health, level, problems) {
  if (!health.status && !health.ready && !health.failure) return "Asking the API …";
  const first = problems.find((problem) => problem.level === level);
  if (level === "bad" || level === "warn") return first.title;
  return health.status ? "Leads are taken and projected" : "Leads are taken";
}

function short(health, level) {
  if (health.failure?.kind === "away") return "No answer";
  if (!health.status && !health.ready) return health.failure ? "Unknown" : "…";
  return { ok: "All well", info: "All well", warn: "Needs a look", bad: "Trouble" }[level];
}

function connection({ failure, awaySince, nextAt }, now) {
  if (!failure) return [];
  const again = nextAt === null ? "" : ` The next try is in ${seconds(Math.max(1, Math.ceil((nextAt - now) / 1000)))}.`;
  if (failure.kind === "limited") {
    return [{ level: "info", title: "The key's limit is used up", text: `This key has no more requests for this minute.${again}` }];
  }
  const since = `${clock(awaySince)} (${seconds(Math.round((now - awaySince) / 1000))})`;
  if (failure.kind === "away") {
    return [{
      level: "bad",
      title: "The API does not answer",
      text: `No answer since ${since}. What stands below is from then.${again}`,
      cure: "Is leads-api running, and reachable from here?",
    }];
  }
  return [{ level: "bad", title: "The API answers with an error", text: `${failure.message}. No figures since ${since}.${again}` }];
}

const KAFKA = {
  starting: "The API has not read the keys yet.",
  stopping: "This instance is shutting down.",
  stalled: "The brokers do not acknowledge.",
  connecting: "The API is connecting to the brokers.",
  topic_missing: "The topic of events is not there.",
  replacing: "The producer failed and is being replaced.",
};

function ingestDown(kafka, status) {
  const why = KAFKA[kafka] ?? KAFKA[status] ?? "The brokers can't be reached.";
  return {
    level: "bad",
    title: kafka === "up" ? "No leads are taken" : "Kafka is away: no leads are taken",
    text: `${why} Clients get 503 and try again; nothing that was acknowledged is lost.`,
    cure: kafka === "topic_missing" ? "Create the topics." : "Look at the brokers. The API goes on by itself when they answer.",
    command: kafka === "topic_missing" ? "leads-consumer topics" : "leads-consumer doctor",
  };
}

const POSTGRES = {
  level: "warn",
  title: "PostgreSQL is away",
  text: "Leads are still taken. Reads, the projection, dead letters and keys' last use stand still.",
  cure: "Look at PostgreSQL. Everything goes on by itself when it answers.",
  command: "leads-consumer doctor",
};

function readiness(ready) {
  if (!ready) return [];
  const problems = [];
  if (ready.status === "unavailable") problems.push(ingestDown(ready.kafka, ready.shutting_down ? "stopping" : ready.keys === "loaded" ? "" : "starting"));
  if (ready.postgres === "down") problems.push(POSTGRES);
  return problems;
}

function service({ status, series }) {
  const { ingest, projection, dead_letters: dead, rebuild } = status;
  const problems = [];
  if (ingest.status !== "ready" || ingest.kafka !== "up") problems.push(ingestDown(ingest.kafka, ingest.status));
  if (ingest.postgres === "down") problems.push(POSTGRES);
  else if (projection.error) {
    problems.push({ level: "warn", title: "The projection's state is unknown", text: sentence(projection.error), command: "leads-consumer doctor" });
  }
  if (projection.lag_seconds > BEHIND) {
    problems.push({
      level: "warn",
      title: "The projection is behind",
      text: `${plural(projection.lag_records, "record")} not projected; the oldest has waited ${seconds(projection.lag_seconds)}. Reads show what was before.`,
      cure: "Is leads-consumer running? What holds it up:",
      command: "leads-consumer status",
    });
  }
  const { refused } = series.now();
  if (refused > 0) {
    problems.push({ level: "warn", title: "Leads are refused", text: `${count(Math.ceil(refused))} a second get 503: the bounds of what may be in flight are reached, or the brokers are slow.`, cure: "See docs/http.md, Back-pressure." });
  }
  if (dead?.waiting > 0) {
    problems.push({
      level: "warn",
      title: `${plural(dead.waiting, "dead letter")} ${dead.waiting === 1 ? "waits" : "wait"}`,
      text: `${dead.waiting === 1 ? "One record" : `${count(dead.waiting)} records`} could not be projected${dead.parked ? `, ${count(dead.parked)} of them parked behind another` : ""}.`,
      link: { href: "#/dead-letters", text: "Causes and what to do" },
    });
  }
  if (rebuild?.abandoned) problems.push({ level: "warn", title: "A rebuild was broken off", text: `Generation ${rebuild.generation} is half built and its process is gone. Reads and ingest go on. It goes on where it was:`, command: "leads-consumer rebuild" });
  else if (rebuild) problems.push({ level: "info", title: "A rebuild is under way", text: `Generation ${rebuild.generation} is being built beside the live one. Reads and ingest go on.` });
  return problems;
}

function sentence(text) {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}
