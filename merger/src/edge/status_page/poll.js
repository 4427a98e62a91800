// Asking: the key, the rhythm of the requests, and what happens when there is no answer.

const KEY_NAME = "weft-master-key";
const EVERY_MS = 2_000;
/** In a tab that nobody sees. */
const HIDDEN_MS = 30_000;
/** Between tries while there is no answer, at most. */
const LATEST_MS = 30_000;
/** Indexes change seldom, and listing them asks nodes. */
const INDEXES_EVERY_MS = 10_000;
const PATIENCE_MS = 10_000;
const PAGE_SIZE = 20;
const TASKS_SHOWN = 5;

const PARTS = { health: "health", nodes: "nodes", shards: "shards", mergers: "mergers", moves: "moves", jobs: "jobs", traffic: "traffic" };
const STATUSES = {
  enqueued: `limit=${TASKS_SHOWN}&reverse=true`,
  processing: `limit=${TASKS_SHOWN}&reverse=true`,
  succeeded: "limit=1",
  failed: `limit=${TASKS_SHOWN}`,
  canceled: "limit=1",
};

const known = { parts: {}, tasks: {}, indexes: null, errors: {} };
const state = {
  paused: false,
  /** How often in a row there was no answer at all. */
  failures: 0,
  answeredAt: null,
  /** Counts the rounds of requests: what an older one finds out decides nothing. */
  round: 0,
  timer: 0,
  /** The first index that is shown. */
  offset: 0,
  /** Counts the keys: what was asked with an older one is not shown. */
  session: 0,
  /** Ends the requests that have not been answered when the key goes. */
  stop: new AbortController(),
  indexTimer: 0,
  indexesWanted: true,
};

/** The cluster demands a key, or refuses the one that it got. */
class Refused extends Error {}
/** There is no answer at all. */
class Silent extends Error {}

const key = () => sessionStorage.getItem(KEY_NAME);

async function ask(path) {
  const headers = key() === null ? {} : { authorization: `Bearer ${key()}` };
  let answer;
  let body;
  try {
    answer = await fetch(path, { headers, cache: "no-store", signal: AbortSignal.any([state.stop.signal, AbortSignal.timeout(PATIENCE_MS)]) });
    body = await answer.json().catch(() => null);
  } catch (error) {
    throw new Silent(error.name === "TimeoutError" ? `no answer within ${PATIENCE_MS / 1000} s` : "it can’t be reached");
  }
  if (answer.status === 401) throw new Refused(key() === null ? "" : "The cluster doesn’t accept this key.");
  if (answer.status === 403) throw new Refused(key() === null ? "You are not allowed to see the cluster." : "The cluster refuses this key: it must be the master key.");
  if (!answer.ok || body === null) throw new Error(`${answer.status}${body?.message ? `: ${body.message}` : ""}`);
  return body;
}

/** Asks all at once, takes what comes, and notes what doesn't. */
async function askAll(wanted) {
  let refused = null;
  let silent = null;
  let answers = 0;
  const one = async ([name, path, take]) => {
    try {
      take(await ask(path));
      answers += 1;
      delete known.errors[name];
    } catch (error) {
      if (error instanceof Refused) refused ??= error;
      else if (error instanceof Silent) silent ??= error;
      known.errors[name] = error.message;
    }
  };
  await Promise.all(wanted.map(one));
  return { refused, silent, answers };
}

function coreRequests() {
  const parts = Object.entries(PARTS).map(([name, path]) => [
    `/_cluster/${path}`,
    `/_cluster/${path}`,
    (body) => {
      known.parts[name] = body;
      if (name === "traffic") noteTraffic(body);
    },
  ]);
  const tasks = Object.entries(STATUSES).map(([status, rest]) => [
    `/tasks (${status})`,
    `/tasks?statuses=${status}&${rest}`,
    (body) => {
      known.tasks[status] = body;
    },
  ]);
  return [...parts, ...tasks];
}

async function poll() {
  clearTimeout(state.timer);
  state.round += 1;
  const round = state.round;
  // Whether a key is wanted, one request finds out.
  const first = known.parts.health ? null : await askAll(coreRequests().slice(0, 1));
  const outcome = first?.refused ? first : await askAll(coreRequests());
  // The key was forgotten or replaced meanwhile.
  if (round !== state.round) return;
  if (outcome.refused) return wantKey(outcome.refused.message);
  if (state.failures > 0) state.indexesWanted = true;
  state.failures = outcome.answers > 0 ? 0 : state.failures + 1;
  if (outcome.answers > 0) state.answeredAt = new Date();
  render(outcome.answers > 0 ? null : (outcome.silent?.message ?? Object.values(known.errors)[0]));
  schedule();
  if (state.indexesWanted && state.failures === 0) {
    state.indexesWanted = false;
    pollIndexes();
  }
}

function wait() {
  const backoff = Math.min(EVERY_MS * 2 ** state.failures, LATEST_MS);
  return document.hidden ? Math.max(HIDDEN_MS, backoff) : backoff;
}

function schedule() {
  clearTimeout(state.timer);
  if (!state.paused) state.timer = setTimeout(poll, wait());
}

async function pollIndexes() {
  clearTimeout(state.indexTimer);
  const { session, offset } = state;
  const name = "/indexes";
  try {
    const page = await ask(`/indexes?offset=${offset}&limit=${PAGE_SIZE}`);
    // Those before were deleted meanwhile.
    if (page.results.length === 0 && offset > 0) return turn(-PAGE_SIZE);
    const shards = await Promise.all(page.results.map(({ uid }) => slotsOf(uid)));
    if (offset !== state.offset || session !== state.session) return;
    known.indexes = { total: page.total, offset, indexes: shards };
    delete known.errors[name];
  } catch (error) {
    if (session !== state.session) return;
    // Whether a key is wanted is the business of the other requests.
    if (!(error instanceof Refused)) known.errors[name] = error.message;
  }
  if (state.failures === 0) render(null);
  scheduleIndexes();
}

function scheduleIndexes() {
  clearTimeout(state.indexTimer);
  const busy = known.parts.health?.relocatingShards > 0;
  const every = busy ? EVERY_MS * 2 : INDEXES_EVERY_MS;
  if (!state.paused) state.indexTimer = setTimeout(pollIndexes, Math.max(every, wait()));
}

async function slotsOf(uid) {
  try {
    return { uid, shards: await ask(`/indexes/${encodeURIComponent(uid)}/_shards`) };
  } catch (error) {
    return { uid, error: `Where it lies is not known: ${error.message}` };
  }
}

/** Shows all that is known. `silence` says why there was no answer this time. */
function render(silence) {
  const { parts, tasks, errors, indexes } = known;
  if (silence !== null) {
    say("summary", `No answer from the cluster${state.answeredAt ? ` since ${clock(state.answeredAt)}` : ""}: ${silence}`);
    byId("summary").className = "bad";
    document.title = `■ no answer · Weft ${location.host}`;
    say("updated", state.answeredAt ? "What is shown is what it said then. The page goes on asking." : "The page goes on asking.");
    byId("data").classList.add("is-old");
    byId("controls").hidden = false;
    byId("forget").hidden = key() === null;
    return;
  }
  byId("key-form").hidden = true;
  byId("controls").hidden = false;
  byId("data").hidden = false;
  byId("data").classList.remove("is-old");
  byId("forget").hidden = key() === null;
  if (errors["/_cluster/health"]) {
    say("summary", `The cluster’s state is not known: ${errors["/_cluster/health"]}`);
    byId("summary").className = "bad";
    document.title = `■ not known · Weft ${location.host}`;
  } else if (parts.health) {
    say("summary", summary(parts.health));
    byId("summary").className = level(parts.health.status);
    document.title = `${SIGNS[level(parts.health.status)]} ${parts.health.status} · Weft ${location.host}`;
  }
  const paused = state.paused ? "Paused. " : "";
  say("updated", `${paused}As of ${clock(state.answeredAt)}, asked every ${EVERY_MS / 1000} s.`);
  show("attention", viewAttention(parts, errors));
  show("shards", viewShards(parts, traffic(parts.traffic?.merger)));
  const several = parts.mergers?.mergers.length > 1 && parts.traffic;
  say("traffic-note", `Traffic: what went through ${several ? `merger ${parts.traffic.merger}` : "the merger"} in the last ${WINDOW_MS / 1000} s. What Envoy’s filter sends straight to a shard is not in it.`);
  show("indexes", viewIndexes(indexes));
  show("jobs", viewJobs(parts));
  show("tasks", viewTasks(tasks));
  show("mergers", viewMergers(parts));
  pages(indexes);
}

function pages(indexes) {
  const total = indexes?.total ?? 0;
  byId("pages").hidden = total <= PAGE_SIZE;
  byId("previous").disabled = state.offset === 0;
  byId("next").disabled = state.offset + PAGE_SIZE >= total;
  const last = Math.min(state.offset + PAGE_SIZE, total);
  say("page", `${count(state.offset + 1)} to ${count(last)} of ${count(total)}`);
}

function turn(by) {
  state.offset = Math.max(0, state.offset + by);
  pages(known.indexes);
  pollIndexes();
}

/** Shows the form for the key, and nothing of what was known. */
function wantKey(message) {
  state.round += 1;
  state.session += 1;
  state.stop.abort();
  state.stop = new AbortController();
  clearTimeout(state.timer);
  clearTimeout(state.indexTimer);
  sessionStorage.removeItem(KEY_NAME);
  Object.assign(known, { parts: {}, tasks: {}, indexes: null, errors: {} });
  samples.clear();
  byId("data").hidden = true;
  byId("controls").hidden = true;
  document.title = `Weft ${location.host}`;
  say("updated", "");
  say("summary", "The cluster asks for its master key");
  byId("summary").className = "";
  say("key-error", message);
  const input = byId("key");
  input.toggleAttribute("aria-invalid", false);
  if (message) input.setAttribute("aria-invalid", "true");
  byId("key-form").hidden = false;
  input.focus();
}

function begin() {
  state.failures = 0;
  state.indexesWanted = true;
  poll();
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const typed = byId("key").value.trim();
  if (!/^[\x20-\x7e]+$/.test(typed)) {
    say("key-error", "A request can carry only keys of ASCII letters, digits and signs.");
    byId("key").setAttribute("aria-invalid", "true");
    return;
  }
  byId("key").value = "";
  say("key-error", "");
  say("summary", "Asking the cluster …");
  sessionStorage.setItem(KEY_NAME, typed);
  begin();
});

byId("forget").addEventListener("click", () => {
  wantKey("");
  say("summary", "The key is forgotten");
});

byId("pause").addEventListener("click", () => {
  state.paused = !state.paused;
  byId("pause").setAttribute("aria-pressed", String(state.paused));
  if (!state.paused) return begin();
  clearTimeout(state.timer);
  clearTimeout(state.indexTimer);
  if (state.answeredAt) render(null);
});

byId("previous").addEventListener("click", () => turn(-PAGE_SIZE));
byId("next").addEventListener("click", () => turn(PAGE_SIZE));

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && !state.paused && byId("key-form").hidden) begin();
});

say("host", location.host);
begin();
