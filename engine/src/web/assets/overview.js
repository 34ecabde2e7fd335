// All jobs, queries and executors.
import { bytes, count, fill, h, meter, moment, ratio, span, state, stateOf, stats, table } from "./dom.js";

const link = (name) => h("a", { href: `#/job/${encodeURIComponent(name)}`, "data-key": `job-${name}` }, name);

export function overview(main) {
  const parts = {
    stats: h("dl", { class: "stats" }), jobs: h("div"), queries: h("div"), executors: h("div"),
    failures: h("div"), settings: h("dl", { class: "pairs" }), problems: h("div"),
  };
  const card = (title, body, note) => h("section", { class: "card", "aria-label": title }, h("div", { class: "row apart" }, h("h2", {}, title), note), body);
  const slots = h("p", { class: "quiet" });
  const queries = card("Streaming queries", parts.queries);
  const executors = card("Executors", parts.executors, slots);
  const failures = card("Failures", parts.failures);
  main.replaceChildren(h("h1", {}, "Overview"), parts.stats, parts.problems, card("Jobs", parts.jobs), queries, executors, failures,
    h("section", { class: "card", "aria-label": "Settings" }, h("details", {}, h("summary", {}, "Settings"), parts.settings)));
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
        data.mode === "fleet" ? ["Executors", count(data.executors.length), `${count(all)} slots`] : ["Threads", data.settings[0]?.value ?? "–", "this process"],
        ["Documents", count(sum("documents")), `${count(done.length)} ${done.length === 1 ? "job" : "jobs"} done`],
        ["Compressed", bytes(sum("raw_bytes")), `ratio ${ratio(sum("raw_bytes"), sum("compressed_bytes"))}`],
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
      slots.textContent = `${count(data.executors.length)} with ${count(all)} slots`;
      fill(parts.executors, data.executors.length === 0 ? h("p", { class: "empty" }, "No executor has registered.") : h("ul", { class: "tiles" },
        data.executors.map((executor) => h("li", {}, h("b", { title: executor.id }, `${executor.host}:${executor.port}`),
          h("span", {}, `${executor.slots} slots, heard ${count(executor.heartbeat_age_seconds)} s ago`)))));
      const failed = data.parts.filter((part) => part.error);
      failures.hidden = failed.length === 0;
      fill(parts.failures, table("Failures", [
        ["What", "name", (part) => part.name || part.id],
        ["When", "number", (part) => moment(part.ended || part.started)],
        ["Cause", "long", (part) => part.error],
      ], failed.slice(0, 20), ""));
      fill(parts.settings, [["version", data.version], ["state", data.state], ...data.settings.map(({ name, value }) => [name, value])]
        .flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
    },
  };
}
