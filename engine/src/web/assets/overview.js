// All jobs, queries and executors.
import { bytes, count, fill, h, liveTable, meter, moment, ratio, refill, showStats, span, state, stateOf, table, write } from "./dom.js";

const link = (name) => h("a", { href: `#/job/${encodeURIComponent(name)}`, "data-key": `job-${name}` }, name);

/** Tiles which are not on the screen and are written in one go, while the browser has nothing else to do. */
const IDLE_TILES = 50;

/**
 * One tile an executor. A tile stays, and only what changes is written anew. Those on the screen are written at once, the others bit by bit when
 * there is time: a thousand of them cost a look no more than a screenful.
 */
function executorTiles() {
  const list = h("ul", { class: "tiles" });
  const tiles = new Map();
  let version = "";
  let waiting = [];
  let idle = 0;
  const onScreen = new IntersectionObserver((changes) => changes.forEach(({ target, isIntersecting }) => {
    const tile = tiles.get(target.dataset.id);
    if (!tile) return;
    tile.isSeen = isIntersecting;
    if (isIntersecting) writeTile(tile);
  }), { rootMargin: "200px" });

  function newTile(executor) {
    const made = { name: h("b", { title: executor.id }, `${executor.host}:${executor.port}`), busy: h("span"), memory: h("span"), heard: h("span"), isSeen: true };
    made.item = h("li", { "data-id": executor.id }, made.name, made.busy, h("br"), made.memory, h("br"), made.heard);
    tiles.set(executor.id, made);
    list.append(made.item);
    onScreen.observe(made.item);
    return made;
  }

  function writeTile({ executor, busy, memory, heard }) {
    const age = executor.heartbeat_age_seconds;
    write(busy, `${count(executor.slots_used)} of ${count(executor.slots)} slots in use`);
    write(memory, executor.memory_bytes == null ? "memory not told" : `${bytes(executor.memory_bytes)}, at most ${bytes(executor.memory_peak_bytes)}`);
    write(heard, `${executor.version ? `version ${executor.version}, ` : ""}heard ${count(age)} s ago`);
    heard.classList.toggle("late", age > 10 || (executor.version != null && executor.version !== version));
  }

  function writeWaiting() {
    waiting.splice(0, IDLE_TILES).forEach(writeTile);
    idle = waiting.length > 0 ? later(writeWaiting) : 0;
  }

  return {
    list,
    show(executors, now) {
      version = now;
      const here = new Set(executors.map(({ id }) => id));
      for (const [id, { item }] of tiles) {
        if (here.has(id)) continue;
        onScreen.unobserve(item);
        item.remove();
        tiles.delete(id);
      }
      waiting = [];
      for (const executor of executors) {
        const tile = tiles.get(executor.id) ?? newTile(executor);
        tile.executor = executor;
        if (tile.isSeen) writeTile(tile);
        else waiting.push(tile);
      }
      if (waiting.length > 0 && idle === 0) idle = later(writeWaiting);
    },
    leave() {
      onScreen.disconnect();
      waiting = [];
    },
  };
}

/** Does something when the browser has time, or soon where it does not tell. */
const later = (work) => (window.requestIdleCallback ? requestIdleCallback(work) : setTimeout(work, 50));

/** Fills the list when somebody opens it. */
async function showSettings(details, list) {
  if (!details.open || list.childElementCount > 0) return;
  const answer = await fetch("/api/baler/settings").catch(() => null);
  if (!answer?.ok) return;
  fill(list, (await answer.json()).flatMap(({ name, value }) => [h("dt", {}, name), h("dd", {}, value)]));
}

export function overview(main) {
  const parts = {
    stats: h("dl", { class: "stats" }), jobs: h("div"), queries: h("div"), executors: h("div"),
    failures: h("div"), settings: h("dl", { class: "pairs" }), problems: h("div"),
  };
  const card = (title, body, note) => h("section", { class: "card", "aria-label": title }, h("div", { class: "row apart" }, h("h2", {}, title), note), body);
  const slots = h("p", { class: "quiet" });
  const tiles = executorTiles();
  const nobody = h("p", { class: "empty" }, "No executor has registered.");
  parts.executors.append(nobody, tiles.list);
  const settings = h("details", { ontoggle: () => showSettings(settings, parts.settings) }, h("summary", {}, "Settings"), parts.settings);
  const queries = card("Streaming queries", parts.queries);
  const executors = card("Executors", parts.executors, slots);
  const failures = card("Failures", parts.failures);
  main.replaceChildren(h("h1", {}, "Overview"), parts.stats, parts.problems, card("Jobs", parts.jobs), queries, executors, failures,
    h("section", { class: "card", "aria-label": "Settings" }, settings));
  const jobs = liveTable("Jobs", [
    ["Job", "name", ({ job }) => link(job.job)],
    ["State", "", ({ job, isRunning }) => state(stateOf(job, isRunning))],
    ["Splits", "", ({ job }) => meter(job.splits_done, job.splits, `splits of ${job.job}`, "")],
    ["Source", "number", ({ job }) => bytes(job.source_bytes)],
    ["Documents", "number", ({ job }) => (job.commit ? count(job.commit.documents) : "–")],
    ["Ratio", "number", ({ job }) => (job.commit ? ratio(job.commit.raw_bytes, job.commit.compressed_bytes) : "–")],
    ["Dead letters", "number", ({ job }) => count(job.dead_letters)],
    ["Finished", "number", ({ job }) => (job.commit ? moment(job.commit.committed) : "–")],
  ], ({ job }) => job.job, "No job yet: baler run FILE.sql --state … starts one.");
  parts.jobs.append(jobs.element);
  const streams = liveTable("Streaming queries", [
    ["Query", "name", ({ job }) => link(job.job)],
    ["State", "", ({ job, isRunning }) => state(stateOf(job, isRunning))],
    ["Topic", "long", ({ job }) => job.query.topic],
    ["Micro-batches", "number", ({ job }) => `${count(job.splits_done)} of ${count(job.splits)}`],
    ["Lag", "number", ({ job }) => (job.query.lag_records == null ? "unknown" : `${count(job.query.lag_records)} records`)],
    ["Behind", "number", ({ job }) => span(job.query.lag_seconds)],
    ["Expires", "number", ({ job }) => (job.query.expiry_minutes == null ? "–" : `in ${span(job.query.expiry_minutes * 60)}`)],
    ["Last commit", "number", ({ job }) => (job.query.last_commit ? moment(job.query.last_commit.committed) : "–")],
  ], ({ job }) => job.job, "");
  parts.queries.append(streams.element);
  return {
    path: "overview",
    show(data) {
      const running = new Set(data.running);
      const rows = data.jobs.map((job) => ({ job, isRunning: running.has(job.job) }));
      const batch = rows.filter(({ job }) => !job.query);
      const query = rows.filter(({ job }) => job.query);
      const done = batch.filter(({ job }) => job.commit);
      const sum = (field) => done.reduce((total, { job }) => total + job.commit[field], 0);
      const all = data.executors.reduce((total, executor) => total + executor.slots, 0);
      const lag = query.reduce((total, { job }) => total + (job.query.lag_records ?? 0), 0);
      showStats(parts.stats, [
        ["Running", count(data.running.length), `of ${count(data.jobs.length)}`],
        data.mode === "fleet" ? ["Executors", count(data.executors.length), `${count(all)} slots`] : ["Threads", count(data.threads), `version ${data.version}`],
        ["Documents", count(sum("documents")), `${count(done.length)} ${done.length === 1 ? "job" : "jobs"} done`],
        ["Compressed", bytes(sum("raw_bytes")), `ratio ${ratio(sum("raw_bytes"), sum("compressed_bytes"))}`],
        ...(data.retries.length ? [["Tried again", count(data.retries.reduce((total, { count: often }) => total + often, 0)), data.retries.map(({ kind }) => kind).join(", ")]] : []),
        ...(query.length ? [["Lag", count(lag), "records"]] : []),
      ]);
      parts.problems.hidden = data.problems.length === 0;
      refill(parts.problems, data.problems, (problems) => problems.map((text) => h("p", { class: "error" }, text)));
      jobs.show(batch);
      queries.hidden = query.length === 0;
      streams.show(query);
      executors.hidden = data.mode !== "fleet";
      write(slots, `${count(data.executors.length)} with ${count(all)} slots, version ${data.version}`);
      nobody.hidden = data.executors.length > 0;
      tiles.list.hidden = data.executors.length === 0;
      tiles.show(data.executors, data.version);
      const failed = data.parts.filter((part) => part.error).slice(0, 20);
      failures.hidden = failed.length === 0;
      refill(parts.failures, failed, () => table("Failures", [
        ["What", "name", (part) => part.name || part.id],
        ["When", "number", (part) => moment(part.ended || part.started)],
        ["Cause", "long", (part) => part.error],
      ], failed, ""));
    },
    leave() {
      tiles.leave();
    },
  };
}
