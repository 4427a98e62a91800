// What is shown: each function turns answers of the API into elements. None of them asks the cluster.

const shardName = (id) => `shard-${id}`;

/** Signs beside colours, for those who don't see colours. */
const SIGNS = { good: "●", warn: "▲", bad: "■" };
const sign = (level) => el("span", { class: `mark ${level}`, "aria-hidden": "true" }, SIGNS[level]);
const LEVELS = { green: "good", yellow: "warn", red: "bad" };
const level = (state) => LEVELS[state] ?? "warn";

function summary(health) {
  if (health.nodeCount === 0) return "Red: no node is known. Envoy’s configuration lists no shard.";
  const state = health.status[0].toUpperCase() + health.status.slice(1);
  const some = health.activeShards === health.nodeCount ? "all" : `${health.activeShards} of`;
  return `${state}: ${some} ${plural(health.nodeCount, "node")} ${health.nodeCount === 1 ? "is" : "are"} active`;
}

/** Why a node is no good replica at the moment, in words; `null` for one that is. */
function trouble(node) {
  const since = node.since ? ` for ${age(node.since)}` : "";
  const why = node.reason ? ` It has been out of sync${since}: ${node.reason}.` : "";
  switch (node.status) {
    case "lost":
      return ["bad", `came back with another disk and was the last replica in sync.${why} Give it its disk back; only if that is gone, resume the node that holds most with acceptDataLoss.`];
    case "stopped":
      return ["bad", `waits for somebody: its resync stopped, because it would delete much and nothing explains that.${why} Compare it with its shard; if the deletion is right, resume it with acceptDeletions.`];
    case "drained":
      return ["warn", `has been drained${since}: it serves nothing until it is resumed.`];
    case "down":
      return ["bad", `doesn’t answer.${why} Start it; it is brought back by itself.`];
    case "silent":
      return ["warn", `doesn’t answer, or isn’t yet known to be the node that it was.${why}`];
    default:
  }
  if (!node.inSync) {
    const back = node.lastResyncError ? ` The last resync failed: ${node.lastResyncError}. It is tried again.` : " It is being brought back.";
    return ["warn", `is back, and not in sync yet.${why}${back}`];
  }
  return null;
}

/** All that somebody should look at, the worst first: `[level, text]`. */
function problems(data) {
  const found = [];
  for (const shard of data.shards?.shards ?? []) {
    const name = shardName(shard.shardId);
    if (shard.state === "red") found.push(["bad", `${name} has no active replica: searches miss its documents, and writes to it are refused.`]);
    if (shard.inDoubt) found.push(["warn", `${name}: a write or a change of indexes was interrupted and is yet to be settled.`]);
    if (shard.removable) found.push(["warn", `${name} is drained and empty: take it out of Envoy’s configuration.`]);
  }
  for (const node of data.nodes?.nodes ?? []) {
    const what = trouble(node);
    if (what) found.push([what[0], `${node.id} ${what[1]}`]);
    else if (!node.ready) found.push(["warn", `${node.id} gets no reads at the moment: it has just come back, or Envoy has yet to hear of it.`]);
  }
  for (const move of data.moves?.moves ?? []) {
    if (move.error && !hasEnded(move)) found.push(["warn", `Move ${move.id} of ${move.index}: the last attempt failed: ${move.error}. It is tried again.`]);
  }
  if (data.moves?.paused) found.push(["warn", "Moves are paused."]);
  for (const [kind, last] of Object.entries(data.jobs?.last ?? {})) {
    const lately = Date.now() - Date.parse(last.failure) < 86_400_000;
    if (lately && !(Date.parse(last.success) > Date.parse(last.failure))) found.push(["warn", `The last ${kind} failed ${ago(last.failure)}: ${last.error}. Run it again.`]);
  }
  const mergers = data.mergers?.mergers;
  if (mergers && !mergers.some((merger) => merger.role === "leader")) found.push(["bad", "No merger leads: nothing is written until one does."]);
  if (found.length === 0 && data.health && data.health.status !== "green") found.push(["warn", "A replica gets no reads from Envoy at the moment, or a merger has not yet heard of a change."]);
  const rank = { bad: 0, warn: 1 };
  return found.sort((one, other) => rank[one[0]] - rank[other[0]]);
}

function viewAttention(data, errors) {
  const found = problems(data);
  const reasons = new Map();
  for (const [path, text] of Object.entries(errors)) reasons.set(text, [...(reasons.get(text) ?? []), path]);
  for (const [text, paths] of reasons) found.push(["warn", `What is shown of ${paths.join(", ")} is old: ${text}`]);
  if (found.length === 0) return el("p", {}, sign("good"), "Nothing.");
  const item = ([how, text]) => el("li", { class: `is-${how}` }, sign(how), text);
  return el("ul", { class: "list" }, found.map(item));
}

function viewShards(data, rates) {
  const nodes = data.nodes?.nodes ?? [];
  const card = (shard) => {
    const how = level(shard.state);
    const replicas = nodes.filter((node) => node.shard === shard.shardId);
    const facts = [plural(shard.indexes, "index", "indexes"), shard.draining && "draining", shard.inDoubt && "in doubt"];
    return el(
      "li",
      { class: `is-${how}` },
      el("div", { class: "head" }, el("h3", {}, shardName(shard.shardId)), el("p", {}, sign(how), shard.state)),
      el("p", { class: "quiet" }, facts.filter(Boolean).join(", ")),
      el("ul", { class: "replicas" }, replicas.map(viewReplica)),
      viewTraffic(shardName(shard.shardId), rates.get(shard.shardId)),
    );
  };
  const shards = data.shards?.shards;
  if (!shards) return el("p", {}, "Not known yet.");
  if (shards.length === 0) return el("p", {}, "None is known.");
  return el("ul", { class: "cards" }, shards.map(card));
}

function viewReplica(node) {
  const what = trouble(node);
  const how = what ? what[0] : node.ready ? "good" : "warn";
  const facts = [
    node.role,
    node.status,
    node.inSync ? "in sync" : `not in sync${node.since ? ` for ${age(node.since)}` : ""}`,
    node.status === "up" && node.inSync && !node.ready && "gets no reads",
    node.lagTasks > 0 && `${plural(node.lagTasks, "task")} to do`,
    node.behind > 0 && `${plural(node.behind, "write")} behind`,
  ];
  return el(
    "li",
    {},
    el("div", {}, sign(how), el("span", { class: "id" }, node.id), " ", el("span", { class: "quiet id" }, node.address)),
    el("p", how === "good" ? {} : { class: how }, facts.filter(Boolean).join(", ")),
  );
}

function viewTraffic(shard, flows) {
  const row = (name, flow) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, name),
      el("td", {}, flow ? `${brief(flow.rate)}/s` : "–"),
      el("td", {}, milliseconds(flow?.mean ?? NaN)),
      el("td", {}, milliseconds(flow?.p95 ?? NaN)),
      el("td", flow?.failed > 0 ? { class: "bad" } : {}, flow ? count(flow.failed) : "–"),
    );
  const heads = ["rate", "mean", "95 %", "failed"];
  return el(
    "table",
    { "aria-label": `Traffic of ${shard}` },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Traffic"), heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, row("Reads", flows?.reads), row("Writes", flows?.writes)),
  );
}

/** The bar of an index: a piece for each shard, as wide as its share of the slots. */
function viewIndex({ uid, shards, error }) {
  if (error) return el("li", {}, el("h3", { class: "id" }, uid), el("p", { class: "warn" }, sign("warn"), error));
  const all = shards.shards.reduce((sum, shard) => sum + shard.slots, 0);
  let before = 0;
  const pieces = shards.shards.map((shard) => {
    const [left, width] = [(100 * before) / all, (100 * shard.slots) / all];
    before += shard.slots;
    return [
      svg("rect", { x: `${left.toFixed(3)}%`, width: `${Math.max(width - 0.25, 0.1).toFixed(3)}%`, height: "100%", class: `is-${level(shard.state)}` }),
      width >= 4 && svg("text", { x: `${(left + width / 2).toFixed(3)}%`, y: "50%" }, String(shard.shardId)),
    ];
  });
  const share = (shard) => {
    const state = shard.state === "green" ? "" : ` (${shard.state})`;
    return `${shardName(shard.shardId)} ${count(shard.slots)}${state}`;
  };
  const facts = [
    `on ${plural(shards.shardCount, "shard")}`,
    `${plural(shards.replicationFactor, "replica")} each`,
    `writes ${shards.writeMode}`,
    shards.unsettled.length > 0 && `slots are being moved (${shards.unsettled.map(shardName).join(", ")})`,
  ];
  return el(
    "li",
    {},
    el("div", { class: "head" }, el("h3", { class: "id" }, uid), el("p", { class: "quiet" }, facts.filter(Boolean).join(", "))),
    svg("svg", { "aria-hidden": "true", focusable: "false" }, pieces),
    el("p", {}, shards.shards.map(share).join(" · ")),
  );
}

function viewIndexes(list) {
  if (!list) return el("p", {}, "Not known yet.");
  if (list.indexes.length === 0) return el("p", {}, "There is none.");
  return el("ul", { class: "indexes" }, list.indexes.map(viewIndex));
}

const hasEnded = (move) => ["done", "cancelled"].includes(move.state);
const PHASES = {
  waitingForOldTasks: "works off the tasks that it had before",
  instance: "keys and features are made equal",
  copying: "documents are compared and copied",
  verifying: "all is compared once more",
  catchingUp: "what was written meanwhile is brought over",
  lastTurn: "the rest is brought over while writers wait",
};

function viewMove(move) {
  const what = `Move ${move.id}: ${plural(move.slots, "slot")} of ${move.index} from ${shardName(move.from)} to ${shardName(move.to)}`;
  if (hasEnded(move)) return el("li", {}, `${what}: ${move.state}, ${ago(move.finishedAt)}`);
  const facts = [
    `${Math.floor(move.progress * 100)} %`,
    `${count(move.documentsMoved)} of ${plural(move.documents, "document")}`,
    `${bytes(move.bytesCopied)} copied`,
    Number.isFinite(move.secondsLeft) && `${duration(move.secondsLeft)} left`,
  ];
  return el(
    "li",
    { class: move.error ? "is-warn" : null },
    el("p", {}, `${what}: ${move.state}`),
    el("progress", { max: 1, value: move.progress, "aria-label": `Progress of move ${move.id}` }),
    el("p", { class: "quiet" }, facts.filter(Boolean).join(", ")),
    move.error && el("p", { class: "warn" }, `The last attempt failed: ${move.error}`),
  );
}

function viewResync(node) {
  const { resync } = node;
  const facts = `${plural(resync.documentsChecked, "document")} compared, ${count(resync.documentsCopied)} copied (${bytes(resync.bytesCopied)}), ${count(resync.documentsRemoved)} removed`;
  const of = resync.index ? ` (${resync.index})` : "";
  return el("li", {}, el("p", {}, `Resync of ${node.id}: ${PHASES[resync.phase] ?? resync.phase}${of}`), el("p", { class: "quiet" }, facts));
}

/** A backup, restore or import, as its program tells of it. */
function viewProgram(job) {
  const name = job.kind[0].toUpperCase() + job.kind.slice(1);
  if (job.state !== "running") {
    const why = job.error ? `: ${job.error}` : "";
    const how = ["failed", "vanished"].includes(job.state) ? "is-warn" : null;
    return el("li", { class: how }, `${name}: ${job.state}, ${ago(job.finishedAt)}${why}`);
  }
  const of = job.documentsExpected ? ` of ${count(job.documentsExpected)}` : "";
  return el(
    "li",
    {},
    el("p", {}, `${name}: running for ${age(job.startedAt)}`),
    job.documentsExpected && el("progress", { max: job.documentsExpected, value: job.documents, "aria-label": `Progress of the ${job.kind}` }),
    el("p", { class: "quiet" }, `${count(job.documents)}${of} documents, ${bytes(job.bytes)}`),
  );
}

function viewJobs(data) {
  const moves = data.moves?.moves ?? [];
  const running = moves.filter((move) => !hasEnded(move));
  const ended = moves.filter(hasEnded).sort((one, other) => other.id - one.id).slice(0, 3);
  const resyncs = (data.nodes?.nodes ?? []).filter((node) => node.resync);
  const programs = [...(data.jobs?.jobs ?? [])].reverse();
  const busy = programs.filter((job) => job.state === "running");
  const most = 20;
  const more = running.length > most && el("li", {}, `and ${plural(running.length - most, "more move")}`);
  const over = programs.filter((job) => job.state !== "running").slice(0, 3);
  const items = [resyncs.map(viewResync), busy.map(viewProgram), running.slice(0, most).map(viewMove), more, over.map(viewProgram), ended.map(viewMove)].flat();
  const none = running.length + resyncs.length + busy.length === 0 && el("p", { class: "quiet" }, "None is under way.");
  return [none, items.some(Boolean) && el("ul", { class: "list" }, items)];
}

function viewTask(task) {
  const on = task.indexUid ? ` on ${task.indexUid}` : "";
  const when = { processing: `for ${age(task.startedAt)}`, enqueued: `for ${age(task.enqueuedAt)}` };
  const text = `${task.uid} ${task.type}${on}: ${task.status}, ${when[task.status] ?? ago(task.finishedAt)}`;
  return el("li", { class: task.error ? "is-bad" : null }, el("p", {}, text), task.error && el("p", { class: "quiet" }, task.error.message));
}

function viewTasks(tasks) {
  const counts = ["enqueued", "processing", "succeeded", "failed", "canceled"].map((status) =>
    el("div", {}, el("dt", {}, status), el("dd", {}, tasks[status] ? count(tasks[status].total) : "–")),
  );
  const list = (title, all) => all.length > 0 && [el("h3", {}, title), el("ul", { class: "list" }, all.map(viewTask))];
  const open = [...(tasks.processing?.results ?? []), ...(tasks.enqueued?.results ?? [])];
  return [
    el("dl", { class: "counts" }, counts),
    list("Oldest that have not ended", open.slice(0, 5)),
    list("Last that failed", tasks.failed?.results ?? []),
  ];
}

function viewMergers(data) {
  const all = data.mergers?.mergers;
  if (!all) return el("p", {}, "Not known yet.");
  const item = (merger) => {
    const facts = [
      merger.since && `there for ${age(merger.since)}`,
      merger.role === "follower" && `${plural(merger.lag, "change")} of the state behind`,
      Number.isFinite(merger.leaseLeftMs) && `lease: ${duration(merger.leaseLeftMs / 1000)} left`,
    ];
    const how = merger.role === "leaving" ? "warn" : "good";
    return el(
      "li",
      {},
      el("p", {}, sign(how), el("span", { class: "id" }, merger.id), ` ${merger.role}`, " ", el("span", { class: "quiet id" }, merger.address)),
      facts.some(Boolean) && el("p", { class: "quiet" }, facts.filter(Boolean).join(", ")),
    );
  };
  return el("ul", { class: "list" }, all.map(item));
}
