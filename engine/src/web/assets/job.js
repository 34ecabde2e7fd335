// One job or query.
import { bytes, clock, count, h, liveTable, moment, ratio, refill, showStats, span, state, stateOf, table, write } from "./dom.js";
import { chart, roundUp, roundUpBytes, splitPicture } from "./draw.js";
import { planOf } from "./plan.js";

const LETTERS = [["d", "d", "done"], ["r", "r", "in a running task"], [".", "w", "waiting"], ["x", "x", "with dead letters"]];

function plot(label, points, unit, round, options = {}) {
  const top = round(Math.max(0, ...points.map(([, value]) => value)));
  return h("div", { class: "plot" },
    h("div", { class: "axis", "aria-hidden": "true" }, [top, top / 2, 0].map((value) => h("span", {}, unit(value)))),
    chart(label, points, { top, ...options }),
    h("div", { class: "times", "aria-hidden": "true" }, (options.bars && points.length < 24 ? points.slice(0, 1) : [points[0], points.at(-1)].filter(Boolean)).map(([time]) => h("span", {}, clock(time)))));
}

const STATES = { Running: ["running", "Running"], Successful: ["done", "Done"], Completed: ["done", "Done"], Failed: ["failed", "Failed"] };

/** What this process tried again, as a figure. */
const triedAgain = (retries) =>
  (retries.length ? [["Tried again", count(retries.reduce((sum, { count: often }) => sum + often, 0)), retries.map(({ kind, count: often }) => `${kind} ${count(often)}`).join(", ")]] : []);

/** Bytes per second of the newest points, so that a time left follows what happens now. */
function rate(series) {
  const newest = series.slice(-10);
  const seconds = newest.reduce((sum, point) => sum + point.seconds, 0);
  return seconds > 0 ? newest.reduce((sum, point) => sum + point.done.raw_bytes, 0) / seconds : 0;
}

/** Processes which are listed; of a large fleet those which read most. */
const WRITERS = 40;
/** What tells two stages apart. */
const stageKey = ({ part, stage }) => `${part} ${stage}`;

export function job(main, name, ask, lookNow) {
  const title = h("div", { class: "row" });
  const cancel = h("button", { type: "button", class: "danger", id: "cancel", hidden: true, onclick: () => ask(name) }, "Cancel …");
  const figures = h("dl", { class: "stats" });
  const canvas = h("canvas", { role: "img", "aria-label": "splits" });
  const legend = h("ul", { class: "legend" });
  const body = Object.fromEntries(["charts", "stages", "plan", "writers", "slow", "letters", "batches", "lag"].map((key) => [key, h("div")]));
  const statement = h("pre", { tabindex: "0", "aria-label": "statement" });
  const target = h("p", { class: "quiet long" });
  const card = (text, ...children) => h("section", { class: "card", "aria-label": text }, h("h2", {}, text), ...children);
  const cards = {
    splits: card("Splits", canvas, legend), charts: card("Throughput", body.charts), batches: card("Micro-batches", body.batches), lag: card("Lag by partition", body.lag),
    stages: card("Stages on the fleet", body.stages), plan: card("Plan", body.plan), writers: card("Who wrote it", body.writers), slow: card("Slowest splits", body.slow),
    letters: card("Dead letters", body.letters), statement: card("Statement", target, statement),
  };
  const pair = h("div", { class: "pair" }, cards.writers, cards.slow);
  main.replaceChildren(
    h("div", {}, h("p", { class: "crumb" }, h("a", { href: "#/" }, "Overview")), h("div", { class: "row apart" }, title, cancel)),
    figures, cards.splits, cards.charts, cards.batches, cards.lag, cards.stages, cards.plan, pair, cards.letters, cards.statement);
  const picture = splitPicture(canvas);
  const writers = liveTable("Who wrote it", [
    ["Process", "name", (writer) => writer.name],
    ["", "", (writer) => h("progress", { max: writer.most, value: writer.raw_bytes, "aria-label": `share of ${writer.name}` })],
    ["Read", "number", (writer) => bytes(writer.raw_bytes)],
    ["Splits", "number", (writer) => count(writer.splits)],
  ], (writer) => writer.name, "");
  const others = h("p", { class: "quiet", hidden: true });
  body.writers.append(writers.element, others);
  const skew = (stage) => (stage.done > 1 && stage.median_seconds > 0 ? `${(stage.longest_seconds / stage.median_seconds).toFixed(1)} ×` : "–");
  const stages = liveTable("Stages on the fleet", [
    ["Wave", "name", (stage) => stage.part],
    ["Stage", "number", (stage) => count(stage.stage)],
    ["State", "", (stage) => state(STATES[stage.status] ?? ["idle", "Waiting"])],
    ["Tasks", "number", (stage) => `${count(stage.done)} done, ${count(stage.running)} running`],
    ["Tried again", "number", (stage) => count(stage.failed + stage.attempt - 1)],
    ["Median", "number", (stage) => span(stage.median_seconds)],
    ["Longest", "number", (stage) => span(stage.longest_seconds)],
    ["Skew", "number", skew],
    ["Slowest on", "", (stage) => stage.slowest_executor],
  ], stageKey, "");
  const failedStages = h("div");
  body.stages.append(stages.element, failedStages);
  // Which wave's plan is shown; all of them together without a choice.
  const waves = h("select", { onchange: lookNow });
  const chooser = h("label", { class: "row quiet", hidden: true }, "Plan of", waves);
  const drawing = h("div");
  body.plan.append(chooser, drawing);

  function showBatch(data) {
    const { summary, totals } = data;
    const letters = Object.fromEntries(LETTERS.map(([letter]) => [letter, 0]));
    for (const letter of data.splits) letters[letter] += 1;
    const speed = rate(data.series);
    const left = summary.splits > 0 ? 1 - summary.splits_done / summary.splits : 0;
    const perSplit = totals.raw_bytes / Math.max(1, letters.d + letters.x);
    const whole = data.series.reduce((sum, point) => sum + point.seconds, 0);
    showStats(figures, [
      ["Progress", `${Math.floor((summary.splits_done / Math.max(1, summary.splits)) * 100)} %`, `${count(summary.splits_done)} of ${count(summary.splits)} splits`],
      ["Read", bytes(totals.raw_bytes), `of ${bytes(summary.source_bytes)}`],
      ["Stored", bytes(totals.compressed_bytes), `ratio ${ratio(totals.raw_bytes, totals.compressed_bytes)}`],
      ["Documents", count(totals.documents), `${count(totals.records)} records`],
      data.is_running ? ["Speed", `${bytes(speed)}/s`, ""] : ["Took", span(whole), whole > 0 ? `${bytes(totals.raw_bytes / whole)}/s` : ""],
      data.is_running && speed > 0 ? ["Time left", span((left * summary.splits * perSplit) / speed), ""] : ["Attempts", count(summary.attempts), ""],
      ...triedAgain(data.retries),
    ]);
    picture.show(data.splits);
    const label = LETTERS.map(([letter, , word]) => `${letters[letter]} ${word}`).join(", ");
    if (canvas.getAttribute("aria-label") !== label) canvas.setAttribute("aria-label", label);
    refill(legend, letters, () => LETTERS.map(([letter, kind, word]) => h("li", { class: kind }, `${count(letters[letter])} ${word}`)));
    refill(body.charts, data.series, speedOf);
    cards.slow.hidden = data.slowest.length === 0;
    refill(body.slow, data.slowest, (slowest) => table("Slowest splits", [
      ["Object", "long", (split) => split.object.split("/").at(-1)],
      ["From", "number", (split) => bytes(split.start)],
      ["Took", "number", (split) => span(split.seconds)],
    ], slowest, ""));
    cards.writers.hidden = data.writers.length === 0;
    const most = Math.max(1, data.writers[0]?.raw_bytes ?? 0);
    writers.show(data.writers.slice(0, WRITERS).map((writer) => ({ ...writer, most })));
    others.hidden = data.writers.length <= WRITERS;
    write(others, `The ${WRITERS} of ${count(data.writers.length)} which read most.`);
  }

  function speedOf(series) {
    if (series.length === 0) return h("p", { class: "empty" }, "Nothing is written yet.");
    const points = series.map((point) => [point.at, point.done.raw_bytes / point.seconds]);
    const ratios = series.map(({ done }) => (done.compressed_bytes > 0 ? done.raw_bytes / done.compressed_bytes : 0));
    return plot("bytes a second over time; dashed, the ratio", points, (value) => `${bytes(value)}/s`, roundUpBytes, { second: ratios, bars: points.length < 3 });
  }

  function showQuery(data) {
    const { query } = data.summary;
    showStats(figures, [
      ["Lag", count(query.lag_records), "records"],
      ["Behind", span(query.lag_seconds), query.topic],
      ["Expires in", query.expiry_minutes == null ? "–" : span(query.expiry_minutes * 60), ""],
      ["Micro-batches", count(data.summary.splits_done), `of ${count(data.summary.splits)}`],
      ["Last commit", query.last_commit ? `${span((Date.now() - Date.parse(query.last_commit.committed)) / 1000)} ago` : "–", query.last_commit ? `${count(query.last_commit.records)} records` : ""],
      ["Drivers", count(data.summary.attempts), ""],
      ...triedAgain(data.retries),
    ]);
    const took = (batch) => (new Date(batch.committed) - new Date(batch.planned)) / 1000;
    const done = data.batches.filter((batch) => batch.committed);
    refill(body.charts, done, () => plot("seconds of each micro-batch", done.map((batch) => [batch.planned, took(batch)]), span, roundUp, { bars: true }));
    cards.charts.querySelector("h2").textContent = "Time of micro-batches";
    refill(body.batches, data.batches.slice(-12).reverse(), (batches) => table("Micro-batches", [
      ["Batch", "steps", (batch) => count(batch.batch)],
      ["Planned", "number", (batch) => `${moment(batch.planned).split(",")[0]}, ${clock(batch.planned)}`],
      ["Took", "number", (batch) => (batch.committed ? span(took(batch)) : "under way")],
      ["Records", "number", (batch) => count(batch.records)],
      ["Documents", "number", (batch) => count(batch.documents)],
    ], batches, "None yet."));
    refill(body.lag, query.lag?.partitions ?? [], (partitions) => table("Lag by partition", [
      ["Partition", "steps", (partition) => count(partition.partition)],
      ["Next offset", "number", (partition) => count(partition.next_offset)],
      ["Records waiting", "number", (partition) => count(partition.records)],
      ["Oldest", "number", (partition) => (partition.oldest ? moment(partition.oldest) : "–")],
    ], partitions, "The brokers cannot be reached from here."));
  }

  function showStages(all) {
    cards.stages.hidden = all.length === 0;
    stages.show(all);
    const failed = all.filter((stage) => stage.error);
    refill(failedStages, failed, () => failed.map((stage) => h("p", { class: "error" }, `${stage.part}, stage ${stage.stage}: ${stage.error}`)));
  }

  function showWaves(parts) {
    chooser.hidden = parts.length < 2;
    const chosen = waves.value;
    refill(waves, parts.map(({ id, name: wave }) => [id, wave]), (named) => [h("option", { value: "" }, "all waves"), ...named.map(([id, wave]) => h("option", { value: id }, wave))]);
    // One that the scheduler has forgotten is chosen no more.
    waves.value = parts.some(({ id }) => id === chosen) ? chosen : "";
  }

  function showPlan(plan) {
    cards.plan.hidden = !plan;
    if (!plan) return;
    const isOpen = drawing.querySelector("details")?.open;
    const left = drawing.querySelector(".scroll")?.scrollLeft ?? 0;
    refill(drawing, plan, () => [h("p", { class: "quiet" }, plan.name === name ? "In this process" : plan.name), planOf(plan)].flat());
    drawing.querySelector("details").open = Boolean(isOpen);
    if (left > 0) drawing.querySelector(".scroll").scrollLeft = left;
  }

  return {
    get path() {
      return `jobs/${encodeURIComponent(name)}${waves.value ? `?part=${encodeURIComponent(waves.value)}` : ""}`;
    },
    show(data) {
      const isQuery = Boolean(data.summary.query);
      refill(title, stateOf(data.summary, data.is_running), (now) => [h("h1", {}, name), state(now)]);
      cancel.hidden = !data.is_running;
      for (const key of ["splits", "slow", "writers"]) cards[key].hidden = isQuery;
      pair.hidden = isQuery || data.writers.length === 0;
      for (const key of ["batches", "lag"]) cards[key].hidden = !isQuery;
      if (isQuery) showQuery(data);
      else showBatch(data);
      cards.letters.hidden = data.dead_letters.length === 0;
      refill(body.letters, data.dead_letters, (letters) => table("Dead letters", [
        ["Object", "long", (letter) => letter.object],
        ["Document", "long", (letter) => letter.id ?? "–"],
        ["Reason", "long", (letter) => letter.reason],
      ], letters, ""));
      write(target, `→ ${data.target}`);
      write(statement, data.statement);
      showStages(data.stages);
      showWaves(data.parts);
      showPlan(data.plan);
    },
    leave() {
      picture.leave();
    },
  };
}
