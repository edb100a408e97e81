// Rates and latencies out of the differences of totals, one series for each instance that answers.

/** How far back the plots go, in milliseconds. */
export const SPAN = 300_000;
/** An instance that has not answered for so long is not counted in "now". */
const FRESH = 30_000;
const MOST_INSTANCES = 8;

/**
 * The value below which `share` of the observations are, from counts by bucket (not cumulative), as
 * Prometheus computes histogram_quantile. null without observations.
 */
export function quantile(share, bounds, counts) {
  const total = counts.reduce((sum, it) => sum + it, 0);
  if (total <= 0) return null;
  const rank = share * total;
  let below = 0;
  for (let i = 0; i < counts.length; i++) {
    if (below + counts[i] >= rank && counts[i] > 0) {
      const low = i === 0 ? 0 : bounds[i - 1];
      const high = bounds[i];
      // Beyond the last bound nothing is known but that.
      return high === null || high === undefined ? low : low + (high - low) * ((rank - below) / counts[i]);
    }
    below += counts[i];
  }
  return bounds.findLast((bound) => bound !== null) ?? null;
}

/** Cumulative buckets as counts of their own. */
export function apart(buckets) {
  return buckets.map((bucket, i) => bucket.count - (i ? buckets[i - 1].count : 0));
}

class Instance {
  points = [];
  last = null;
  /** Of the last interval: bounds, counts, leads a second, refused a second. */
  now = null;

  take(status, at) {
    const { ingest } = status;
    const histogram = ingest.acknowledge_seconds;
    const next = {
      at,
      clock: Date.parse(status.at),
      acknowledged: ingest.acknowledged_total ?? 0,
      refused: total(ingest.refused_total),
      bounds: histogram?.buckets.map((bucket) => bucket.le) ?? [],
      counts: histogram ? apart(histogram.buckets) : [],
    };
    const before = this.last;
    this.last = next;
    const took = before ? (next.clock - before.clock) / 1000 : 0;
    if (took <= 0 || next.acknowledged < before.acknowledged) return;
    const counts = next.counts.map((it, i) => Math.max(0, it - (before.counts[i] ?? 0)));
    this.now = {
      bounds: next.bounds,
      counts,
      rate: (next.acknowledged - before.acknowledged) / took,
      refused: Math.max(0, next.refused - before.refused) / took,
    };
    this.points.push({ at, rate: this.now.rate, p50: quantile(0.5, next.bounds, counts), p99: quantile(0.99, next.bounds, counts) });
  }
}

function total(refused) {
  if (typeof refused === "number") return refused;
  return Object.values(refused ?? {}).reduce((sum, it) => sum + it, 0);
}

export class Series {
  instances = new Map();
  lag = [];

  take(status, at = Date.now()) {
    const { id } = status.instance;
    if (!this.instances.has(id)) this.instances.set(id, new Instance());
    this.instances.get(id).take(status, at);
    const { lag_records: records, lag_seconds: age } = status.projection;
    this.lag.push({ at, records, seconds: age });
    this.#forget(at);
  }

  #forget(now) {
    const old = (point) => point.at < now - SPAN;
    drop(this.lag, old);
    for (const [id, instance] of this.instances) {
      drop(instance.points, old);
      if (instance.last.at < now - SPAN) this.instances.delete(id);
    }
    while (this.instances.size > MOST_INSTANCES) {
      const oldest = [...this.instances].reduce((a, b) => (b[1].last.at < a[1].last.at ? b : a));
      this.instances.delete(oldest[0]);
    }
  }

  /** What all instances together did in their last interval. */
  now(at = Date.now()) {
    const fresh = [...this.instances.values()].filter((it) => it.now && it.last.at > at - FRESH);
    if (!fresh.length) return { rate: null, refused: null, p50: null, p99: null };
    const { bounds } = fresh[0].now;
    const counts = bounds.map((_, i) => fresh.reduce((sum, it) => sum + (it.now.counts[i] ?? 0), 0));
    const sum = (name) => fresh.reduce((all, it) => all + it.now[name], 0);
    return { rate: sum("rate"), refused: sum("refused"), p50: quantile(0.5, bounds, counts), p99: quantile(0.99, bounds, counts) };
  }
}

function drop(points, old) {
  let keep = 0;
  while (keep < points.length && old(points[keep])) keep++;
  if (keep) points.splice(0, keep);
}
