// One job or query.
import { bytes, clock, count, fill, h, moment, ratio, span, state, stateOf, stats, table } from "./dom.js";
import { chart, drawSplits, roundUp, roundUpBytes } from "./draw.js";

const LETTERS = [["d", "d", "done"], ["r", "r", "in a running task"], [".", "w", "waiting"], ["x", "x", "with dead letters"]];

function plot(label, points, unit, round, options = {}) {
  const top = round(Math.max(0, ...points.map(([, value]) => value)));
  return h("div", { class: "plot" },
    h("div", { class: "axis", "aria-hidden": "true" }, [top, top / 2, 0].map((value) => h("span", {}, unit(value)))),
    chart(label, points, { top, ...options }),
    h("div", { class: "times", "aria-hidden": "true" }, (options.bars && points.length < 24 ? points.slice(0, 1) : [points[0], points.at(-1)].filter(Boolean)).map(([time]) => h("span", {}, clock(time)))));
}

const STATES = { Running: ["running", "Running"], Successful: ["done", "Done"], Completed: ["done", "Done"], Failed: ["failed", "Failed"] };

/** Bytes per second of the newest points, so that a time left follows what happens now. */
function rate(series) {
  const newest = series.slice(-10);
  const seconds = newest.reduce((sum, point) => sum + point.seconds, 0);
  return seconds > 0 ? newest.reduce((sum, point) => sum + point.done.raw_bytes, 0) / seconds : 0;
}

export function job(main, name, ask) {
  const title = h("div", { class: "row" });
  const cancel = h("button", { type: "button", class: "danger", id: "cancel", hidden: true, onclick: () => ask(name) }, "Cancel …");
  const figures = h("dl", { class: "stats" });
  const canvas = h("canvas", { role: "img", "aria-label": "splits" });
  const legend = h("ul", { class: "legend" });
  const body = Object.fromEntries(["charts", "stages", "writers", "slow", "letters", "batches", "lag"].map((key) => [key, h("div")]));
  const statement = h("pre", { tabindex: "0", "aria-label": "statement" });
  const target = h("p", { class: "quiet long" });
  const card = (text, ...children) => h("section", { class: "card", "aria-label": text }, h("h2", {}, text), ...children);
  const cards = {
    splits: card("Splits", canvas, legend), charts: card("Throughput", body.charts), batches: card("Micro-batches", body.batches), lag: card("Lag by partition", body.lag),
    stages: card("Stages on the fleet", body.stages), writers: card("Who wrote it", body.writers), slow: card("Slowest splits", body.slow),
    letters: card("Dead letters", body.letters), statement: card("Statement", target, statement),
  };
  const pair = h("div", { class: "pair" }, cards.writers, cards.slow);
  main.replaceChildren(
    h("div", {}, h("p", { class: "crumb" }, h("a", { href: "#/" }, "Overview")), h("div", { class: "row apart" }, title, cancel)),
    figures, cards.splits, cards.charts, cards.batches, cards.lag, cards.stages, pair, cards.letters, cards.statement);
  let splits = "";
  const redraw = () => requestAnimationFrame(() => drawSplits(canvas, splits));
  const resized = new ResizeObserver(redraw);
  resized.observe(cards.splits);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", redraw);

  function showBatch(data) {
    const { summary, totals } = data;
    const letters = Object.fromEntries(LETTERS.map(([letter]) => [letter, 0]));
    for (const letter of data.splits) letters[letter] += 1;
    const speed = rate(data.series);
    const left = summary.splits > 0 ? 1 - summary.splits_done / summary.splits : 0;
    const perSplit = totals.raw_bytes / Math.max(1, letters.d + letters.x);
    const whole = data.series.reduce((sum, point) => sum + point.seconds, 0);
    fill(figures, stats([
      ["Progress", `${Math.floor((summary.splits_done / Math.max(1, summary.splits)) * 100)} %`, `${count(summary.splits_done)} of ${count(summary.splits)} splits`],
      ["Read", bytes(totals.raw_bytes), `of ${bytes(summary.source_bytes)}`],
      ["Stored", bytes(totals.compressed_bytes), `ratio ${ratio(totals.raw_bytes, totals.compressed_bytes)}`],
      ["Documents", count(totals.documents), `${count(totals.records)} records`],
      data.is_running ? ["Speed", `${bytes(speed)}/s`, ""] : ["Took", span(whole), whole > 0 ? `${bytes(totals.raw_bytes / whole)}/s` : ""],
      data.is_running && speed > 0 ? ["Time left", span((left * summary.splits * perSplit) / speed), ""] : ["Attempts", count(summary.attempts), ""],
    ]));
    if (splits !== data.splits) {
      splits = data.splits;
      redraw();
    }
    canvas.setAttribute("aria-label", LETTERS.map(([letter, , word]) => `${letters[letter]} ${word}`).join(", "));
    fill(legend, LETTERS.map(([letter, kind, word]) => h("li", { class: kind }, `${count(letters[letter])} ${word}`)));
    const points = data.series.map((point) => [point.at, point.done.raw_bytes / point.seconds]);
    const ratios = data.series.map(({ done }) => (done.compressed_bytes > 0 ? done.raw_bytes / done.compressed_bytes : 0));
    fill(body.charts, points.length ? plot("bytes a second over time; dashed, the ratio", points, (value) => `${bytes(value)}/s`, roundUpBytes, { second: ratios, bars: points.length < 3 }) : h("p", { class: "empty" }, "Nothing is written yet."));
    cards.slow.hidden = data.slowest.length === 0;
    fill(body.slow, table("Slowest splits", [
      ["Object", "long", (split) => split.object.split("/").at(-1)],
      ["From", "number", (split) => bytes(split.start)],
      ["Took", "number", (split) => span(split.seconds)],
    ], data.slowest, ""));
    const most = Math.max(1, ...data.writers.map((writer) => writer.raw_bytes));
    cards.writers.hidden = data.writers.length === 0;
    fill(body.writers, table("Who wrote it", [
      ["Process", "name", (writer) => writer.name],
      ["", "", (writer) => h("progress", { max: most, value: writer.raw_bytes, "aria-label": `share of ${writer.name}` })],
      ["Read", "number", (writer) => bytes(writer.raw_bytes)],
      ["Splits", "number", (writer) => count(writer.splits)],
    ], data.writers, ""));
  }

  function showQuery(data) {
    const { query } = data.summary;
    fill(figures, stats([
      ["Lag", count(query.lag_records), "records"],
      ["Behind", span(query.lag_seconds), query.topic],
      ["Expires in", query.expiry_minutes == null ? "–" : span(query.expiry_minutes * 60), ""],
      ["Micro-batches", count(data.summary.splits_done), `of ${count(data.summary.splits)}`],
      ["Last commit", query.last_commit ? clock(query.last_commit.committed) : "–", query.last_commit ? `${count(query.last_commit.records)} records` : ""],
      ["Drivers", count(data.summary.attempts), ""],
    ]));
    const took = (batch) => (new Date(batch.committed) - new Date(batch.planned)) / 1000;
    const done = data.batches.filter((batch) => batch.committed);
    fill(body.charts, plot("seconds of each micro-batch", done.map((batch) => [batch.planned, took(batch)]), span, roundUp, { bars: true }));
    cards.charts.querySelector("h2").textContent = "Time of micro-batches";
    fill(body.batches, table("Micro-batches", [
      ["Batch", "steps", (batch) => count(batch.batch)],
      ["Planned", "number", (batch) => `${moment(batch.planned).split(",")[0]}, ${clock(batch.planned)}`],
      ["Took", "number", (batch) => (batch.committed ? span(took(batch)) : "under way")],
      ["Records", "number", (batch) => count(batch.records)],
      ["Documents", "number", (batch) => count(batch.documents)],
    ], data.batches.slice(-12).reverse(), "None yet."));
    fill(body.lag, table("Lag by partition", [
      ["Partition", "steps", (partition) => count(partition.partition)],
      ["Next offset", "number", (partition) => count(partition.next_offset)],
      ["Records waiting", "number", (partition) => count(partition.records)],
      ["Oldest", "number", (partition) => (partition.oldest ? moment(partition.oldest) : "–")],
    ], query.lag?.partitions ?? [], "The brokers cannot be reached from here."));
  }

  async function showStages(parts) {
    cards.stages.hidden = parts.length === 0;
    const rows = [];
    for (const part of parts.slice(0, 6)) {
      const answer = await fetch(`/api/job/${encodeURIComponent(part.id)}/stages`).catch(() => null);
      const stages = answer?.ok ? (await answer.json()).stages : [];
      if (stages.length === 0) rows.push({ part, stage: null });
      for (const stage of stages.sort((a, b) => a.stage_id - b.stage_id)) rows.push({ part, stage });
    }
    const tasks = (stage, word) => stage.tasks.filter((task) => task && (typeof task.status === "string" ? task.status : "Failed") === word).length;
    fill(body.stages, table("Stages on the fleet", [
      ["Wave", "name", ({ part }) => part.name],
      ["Stage", "number", ({ stage }) => stage?.stage_id],
      ["State", "", ({ part, stage }) => state(STATES[stage?.stage_status ?? part.status] ?? ["idle", "Waiting"])],
      ["Tasks", "number", ({ stage }) => stage && `${count(tasks(stage, "Successful"))} done, ${count(tasks(stage, "Running"))} running`],
      ["Failed", "number", ({ stage }) => stage && count(tasks(stage, "Failed"))],
      ["Median", "number", ({ stage }) => (stage?.task_duration_percentiles ? span(stage.task_duration_percentiles.median / 1000) : "–")],
      ["Longest", "number", ({ stage }) => (stage?.task_duration_percentiles ? span(stage.task_duration_percentiles.max / 1000) : "–")],
    ], rows, "Nothing of it is on the fleet now."));
  }

  return {
    path: `jobs/${encodeURIComponent(name)}`,
    async show(data) {
      const isQuery = Boolean(data.summary.query);
      fill(title, h("h1", {}, name), state(stateOf(data.summary, data.is_running)));
      cancel.hidden = !data.is_running;
      for (const key of ["splits", "slow", "writers"]) cards[key].hidden = isQuery;
      pair.hidden = isQuery || data.writers.length === 0;
      for (const key of ["batches", "lag"]) cards[key].hidden = !isQuery;
      if (isQuery) showQuery(data);
      else showBatch(data);
      cards.letters.hidden = data.dead_letters.length === 0;
      fill(body.letters, table("Dead letters", [
        ["Object", "long", (letter) => letter.object],
        ["Document", "long", (letter) => letter.id ?? "–"],
        ["Reason", "long", (letter) => letter.reason],
      ], data.dead_letters, ""));
      target.textContent = `→ ${data.target}`;
      if (statement.textContent !== data.statement) statement.textContent = data.statement;
      await showStages(data.parts);
    },
    leave() {
      resized.disconnect();
      scheme.removeEventListener("change", redraw);
    },
  };
}
