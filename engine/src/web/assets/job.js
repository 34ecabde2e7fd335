// One job or query.
import { bytes, clock, count, fill, h, moment, ratio, span, state, stateOf, stats, table } from "./dom.js";
import { chart, drawSplits, roundUp, roundUpBytes } from "./draw.js";
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

export function job(main, name, ask) {
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
      ...triedAgain(data.retries),
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
      ["Last commit", query.last_commit ? `${span((Date.now() - Date.parse(query.last_commit.committed)) / 1000)} ago` : "–", query.last_commit ? `${count(query.last_commit.records)} records` : ""],
      ["Drivers", count(data.summary.attempts), ""],
      ...triedAgain(data.retries),
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

  function showStages(stages) {
    cards.stages.hidden = stages.length === 0;
    const skew = (stage) => (stage.done > 1 && stage.median_seconds > 0 ? `${(stage.longest_seconds / stage.median_seconds).toFixed(1)} ×` : "–");
    fill(body.stages, table("Stages on the fleet", [
      ["Wave", "name", (stage) => stage.part],
      ["Stage", "number", (stage) => count(stage.stage)],
      ["State", "", (stage) => state(STATES[stage.status] ?? ["idle", "Waiting"])],
      ["Tasks", "number", (stage) => `${count(stage.done)} done, ${count(stage.running)} running`],
      ["Tried again", "number", (stage) => count(stage.failed + stage.attempt - 1)],
      ["Median", "number", (stage) => span(stage.median_seconds)],
      ["Longest", "number", (stage) => span(stage.longest_seconds)],
      ["Skew", "number", skew],
      ["Slowest on", "", (stage) => stage.slowest_executor],
    ], stages, ""), stages.filter((stage) => stage.error).map((stage) => h("p", { class: "error" }, `${stage.part}, stage ${stage.stage}: ${stage.error}`)));
  }

  let shownPlan = "";
  function showPlan(plan) {
    cards.plan.hidden = !plan;
    const now = JSON.stringify(plan);
    if (!plan || now === shownPlan) return;
    shownPlan = now;
    const isOpen = body.plan.querySelector("details")?.open;
    const left = body.plan.querySelector(".scroll")?.scrollLeft ?? 0;
    fill(body.plan, h("p", { class: "quiet" }, plan.name === name ? "In this process" : plan.name), planOf(plan));
    body.plan.querySelector("details").open = Boolean(isOpen);
    body.plan.querySelector(".scroll").scrollLeft = left;
  }

  return {
    path: `jobs/${encodeURIComponent(name)}`,
    show(data) {
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
      showStages(data.stages);
      showPlan(data.plan);
    },
    leave() {
      resized.disconnect();
      scheme.removeEventListener("change", redraw);
    },
  };
}
