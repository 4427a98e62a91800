// Figures: how they are written, and what two answers of `/_cluster/traffic` say of the time between them.

/** How far back rates and latencies look, in milliseconds. */
const WINDOW_MS = 10_000;

const whole = new Intl.NumberFormat("en");
const count = (value) => (Number.isFinite(value) ? whole.format(value) : "?");

function plural(value, one, many = `${one}s`) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

/** A rate or a time: three digits are enough. */
function brief(value) {
  if (!Number.isFinite(value)) return "?";
  if (value >= 99.95) return whole.format(Math.round(value));
  if (value === 0) return "0";
  return value >= 9.995 ? value.toFixed(1) : value.toFixed(2);
}

function milliseconds(value) {
  if (!Number.isFinite(value)) return "–";
  return value >= 9_995 ? `${brief(value / 1000)} s` : `${brief(value)} ms`;
}

function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${at === 0 ? count(value) : brief(value)} ${units[at]}`;
}

function duration(seconds) {
  const total = Math.max(0, Math.round(seconds));
  if (total < 120) return `${total} s`;
  if (total < 7200) return `${Math.round(total / 60)} min`;
  if (total < 172_800) return `${Math.round(total / 3600)} h`;
  return `${Math.round(total / 86_400)} days`;
}

const clock = (at) => at.toLocaleTimeString("en-GB");

/** How long ago an RFC 3339 time was. */
function age(text, now = Date.now()) {
  const at = Date.parse(text ?? "");
  return Number.isNaN(at) ? "an unknown time" : duration((now - at) / 1000);
}

const ago = (text) => `${age(text)} ago`;

/** Answers of `/_cluster/traffic`, by merger: behind several Envoys, another one may answer each time. */
const samples = new Map();

function noteTraffic(answer) {
  const before = (samples.get(answer.merger) ?? []).filter(
    // A merger that started anew counts from zero.
    (old) => old.uptimeMs < answer.uptimeMs && old.uptimeMs >= answer.uptimeMs - WINDOW_MS,
  );
  if (samples.size > 16) samples.clear();
  samples.set(answer.merger, [...before, answer]);
}

/** What went on between the oldest and the newest sample of a merger: rates and latencies of each shard. */
function traffic(merger) {
  const all = samples.get(merger) ?? [];
  const [first, last] = [all.at(0), all.at(-1)];
  const shards = new Map();
  if (!last || first === last) return shards;
  const seconds = (last.uptimeMs - first.uptimeMs) / 1000;
  for (const now of last.shards) {
    const then = first.shards.find((shard) => shard.shardId === now.shardId);
    if (!then) continue;
    const of = (flow) => between(then[flow], now[flow], seconds, last.bucketsMs);
    shards.set(now.shardId, { reads: of("reads"), writes: of("writes") });
  }
  return shards;
}

function between(then, now, seconds, limits) {
  const number = now.count - then.count;
  const buckets = now.buckets.map((value, at) => value - then.buckets[at]);
  return {
    rate: number / seconds,
    failed: now.failed - then.failed,
    mean: number > 0 ? (now.sumMs - then.sumMs) / number : NaN,
    p95: percentile(buckets, limits, 0.95),
  };
}

/** A percentile by the buckets of a histogram, as if times were spread evenly within each. */
function percentile(buckets, limits, share) {
  const wanted = buckets.reduce((sum, value) => sum + value, 0) * share;
  let seen = 0;
  for (const [at, value] of buckets.entries()) {
    if (value > 0 && seen + value >= wanted) {
      const low = at === 0 ? 0 : limits[at - 1];
      const high = limits[at] ?? low;
      return low + (high - low) * ((wanted - seen) / value);
    }
    seen += value;
  }
  return NaN;
}
