// Figures and times in words. All times are UTC, as in logs, events and commands.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
export const ABSENT = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

export function count(value) {
  return known(value) ? whole.format(value) : ABSENT;
}

/** For an axis or a small place: 12.3K. */
export function shortCount(value) {
  if (!known(value)) return ABSENT;
  if (value !== 0 && Math.abs(value) < 10) return String(Math.round(value * 100) / 100);
  return Math.abs(value) < 10000 ? whole.format(value) : short.format(value);
}

export function rate(value) {
  if (!known(value)) return ABSENT;
  return value > 0 && value < 9.95 ? value.toFixed(1) : whole.format(value);
}

/** An age or a wait: 820 ms, 4.2 s, 3 min 12 s, 2 h 4 min, 3 d 4 h. */
export function seconds(value) {
  if (!known(value)) return ABSENT;
  if (value <= 0) return "0 s";
  if (value < 0.01) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 9.95) return `${value.toFixed(1)} s`;
  if (value < 59.5) return `${Math.round(value)} s`;
  const all = Math.round(value);
  if (all < 3600) return `${Math.floor(all / 60)} min${all % 60 ? ` ${all % 60} s` : ""}`;
  if (all < 86400) return `${Math.floor(all / 3600)} h ${Math.floor((all % 3600) / 60)} min`;
  return `${Math.floor(all / 86400)} d ${Math.floor((all % 86400) / 3600)} h`;
}

/** The same for an axis: one figure, one unit. */
export function shortSeconds(value) {
  if (!(value >= 60)) return seconds(value).replace(".0 ", " ");
  const [size, unit] = value < 3600 ? [60, "min"] : value < 86400 ? [3600, "h"] : [86400, "d"];
  return `${Math.round((value / size) * 10) / 10} ${unit}`;
}

/** Two of them side by side: 1.2 / 8.4 ms. */
export function pair(one, other) {
  if (!known(one) || !known(other)) return ABSENT;
  const [first, second] = [seconds(one), seconds(other)];
  const unit = second.split(" ").at(-1);
  return first.endsWith(` ${unit}`) && first.split(" ").length === 2 ? `${first.split(" ")[0]} / ${second}` : `${first} / ${second}`;
}

export function age(time, now = Date.now()) {
  const since = Date.parse(time);
  return Number.isNaN(since) ? ABSENT : coarse(Math.max(0, (now - since) / 1000));
}

/** For ages in tables: no figure that changes each second once a minute is over. */
export function coarse(value) {
  if (!known(value)) return ABSENT;
  if (value < 60) return `${Math.floor(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min`;
  return seconds(value);
}

/** 12:03:09.120 for today, 2026-11-21 12:03:09 for other days. */
export function time(text, now = Date.now()) {
  if (!text) return ABSENT;
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return String(text);
  const iso = at.toISOString();
  return iso.slice(0, 10) === new Date(now).toISOString().slice(0, 10) ? iso.slice(11, 23) : `${iso.slice(0, 10)} ${iso.slice(11, 19)}`;
}

export function dateTime(text) {
  if (!text) return ABSENT;
  const at = new Date(text);
  return Number.isNaN(at.getTime()) ? String(text) : at.toISOString().replace("T", " ").replace("Z", "");
}

export function clock(millis) {
  return new Date(millis).toISOString().slice(11, 19);
}

export function bytes(value) {
  if (!known(value)) return ABSENT;
  if (value < 1024) return `${value} B`;
  if (value < 1048576) return `${(value / 1024).toFixed(1)} KiB`;
  return `${(value / 1048576).toFixed(1)} MiB`;
}

export function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** The part of an id in which two of the same moment differ. */
export function shortId(id) {
  return id ? `…${id.slice(-12)}` : ABSENT;
}
