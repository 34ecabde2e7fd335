// All jobs, queries and executors.
import { bytes, count, fill, h, meter, moment, ratio, span, state, stateOf, stats, table, write } from "./dom.js";

const link = (name) => h("a", { href: `#/job/${encodeURIComponent(name)}`, "data-key": `job-${name}` }, name);

/** One tile an executor. A tile stays, and only what changes is written anew: a thousand of them cost no layout. */
function executorTiles() {
  const list = h("ul", { class: "tiles" });
  const tiles = new Map();
  const tile = (executor) => {
    const made = { name: h("b", { title: executor.id }, `${executor.host}:${executor.port}`), busy: h("span"), memory: h("span"), heard: h("span") };
    made.item = h("li", {}, made.name, made.busy, h("br"), made.memory, h("br"), made.heard);
    tiles.set(executor.id, made);
    list.append(made.item);
    return made;
  };
  return {
    list,
    show(executors, version) {
      const here = new Set();
      for (const executor of executors) {
        here.add(executor.id);
        const { busy, memory, heard } = tiles.get(executor.id) ?? tile(executor);
        const age = executor.heartbeat_age_seconds;
        write(busy, `${count(executor.slots_used)} of ${count(executor.slots)} slots in use`);
        write(memory, executor.memory_bytes == null ? "memory not told" : `${bytes(executor.memory_bytes)}, at most ${bytes(executor.memory_peak_bytes)}`);
        write(heard, `${executor.version ? `version ${executor.version}, ` : ""}heard ${count(age)} s ago`);
        heard.classList.toggle("late", age > 10 || (executor.version != null && executor.version !== version));
      }
      for (const [id, { item }] of tiles) {
        if (here.has(id)) continue;
        item.remove();
        tiles.delete(id);
      }
    },
  };
}

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
  return {
    path: "overview",
    show(data) {
      const running = new Set(data.running);
      const jobs = data.jobs.filter((job) => !job.query);
      const streams = data.jobs.filter((job) => job.query);
      const done = jobs.filter((job) => job.commit);
      const sum = (field) => done.reduce((total, job) => total + job.commit[field], 0);
      const all = data.executors.reduce((total, executor) => total + executor.slots, 0);
      const lag = streams.reduce((total, job) => total + (job.query.lag_records ?? 0), 0);
      fill(parts.stats, stats([
        ["Running", count(data.running.length), `of ${count(data.jobs.length)}`],
        data.mode === "fleet" ? ["Executors", count(data.executors.length), `${count(all)} slots`] : ["Threads", count(data.threads), `version ${data.version}`],
        ["Documents", count(sum("documents")), `${count(done.length)} ${done.length === 1 ? "job" : "jobs"} done`],
        ["Compressed", bytes(sum("raw_bytes")), `ratio ${ratio(sum("raw_bytes"), sum("compressed_bytes"))}`],
        ...(data.retries.length ? [["Tried again", count(data.retries.reduce((total, { count: often }) => total + often, 0)), data.retries.map(({ kind }) => kind).join(", ")]] : []),
        ...(streams.length ? [["Lag", count(lag), "records"]] : []),
      ]));
      parts.problems.hidden = data.problems.length === 0;
      fill(parts.problems, data.problems.map((text) => h("p", { class: "error" }, text)));
      fill(parts.jobs, table("Jobs", [
        ["Job", "name", (job) => link(job.job)],
        ["State", "", (job) => state(stateOf(job, running.has(job.job)))],
        ["Splits", "", (job) => meter(job.splits_done, job.splits, `splits of ${job.job}`, "")],
        ["Source", "number", (job) => bytes(job.source_bytes)],
        ["Documents", "number", (job) => (job.commit ? count(job.commit.documents) : "–")],
        ["Ratio", "number", (job) => (job.commit ? ratio(job.commit.raw_bytes, job.commit.compressed_bytes) : "–")],
        ["Dead letters", "number", (job) => count(job.dead_letters)],
        ["Finished", "number", (job) => (job.commit ? moment(job.commit.committed) : "–")],
      ], jobs, "No job yet: baler run FILE.sql --state … starts one."));
      queries.hidden = streams.length === 0;
      fill(parts.queries, table("Streaming queries", [
        ["Query", "name", (job) => link(job.job)],
        ["State", "", (job) => state(stateOf(job, running.has(job.job)))],
        ["Topic", "long", (job) => job.query.topic],
        ["Micro-batches", "number", (job) => `${count(job.splits_done)} of ${count(job.splits)}`],
        ["Lag", "number", (job) => (job.query.lag_records == null ? "unknown" : `${count(job.query.lag_records)} records`)],
        ["Behind", "number", (job) => span(job.query.lag_seconds)],
        ["Expires", "number", (job) => (job.query.expiry_minutes == null ? "–" : `in ${span(job.query.expiry_minutes * 60)}`)],
        ["Last commit", "number", (job) => (job.query.last_commit ? moment(job.query.last_commit.committed) : "–")],
      ], streams, ""));
      executors.hidden = data.mode !== "fleet";
      write(slots, `${count(data.executors.length)} with ${count(all)} slots, version ${data.version}`);
      nobody.hidden = data.executors.length > 0;
      tiles.list.hidden = data.executors.length === 0;
      tiles.show(data.executors, data.version);
      const failed = data.parts.filter((part) => part.error);
      failures.hidden = failed.length === 0;
      fill(parts.failures, table("Failures", [
        ["What", "name", (part) => part.name || part.id],
        ["When", "number", (part) => moment(part.ended || part.started)],
        ["Cause", "long", (part) => part.error],
      ], failed.slice(0, 20), ""));
    },
  };
}
