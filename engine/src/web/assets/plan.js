// A plan as a picture: data flows from the leaves below to the root on top. A node shows what it did, and how much of the time it took.
import { bytes, count, h, span, table } from "./dom.js";
import { shape } from "./draw.js";

const WIDTH = 250;
const GAP = { x: 24, y: 30 };
const LINE = 17;
const HEAD = 30;
const LINES = 5;

const UNITS = { bytes, seconds: span, count };
const figure = (metric) => `${metric.name.replaceAll("_", " ")} ${(UNITS[metric.unit] ?? count)(metric.value)}`;
/** What is worth a line: times which a person would not notice are none. */
const told = (node) => node.metrics.filter((metric) => metric.unit !== "seconds" || metric.value >= 0.05);
const compute = (node) => node.metrics.find((metric) => metric.name === "elapsed_compute")?.value ?? 0;

/** Where each node is: its column (of leaves) and its row (its distance from the root). */
function places(nodes) {
  const found = [];
  let columns = 0;
  const place = (index, row) => {
    const inputs = nodes[index].inputs.filter((input) => input > index);
    inputs.forEach((input) => place(input, row + 1));
    const middle = inputs.length ? (found[inputs[0]].column + found[inputs.at(-1)].column) / 2 : (columns += 1) - 1;
    found[index] = { column: middle, row };
  };
  const read = new Set(nodes.flatMap((node) => node.inputs));
  nodes.forEach((_, index) => read.has(index) || place(index, 0));
  return { found, columns };
}

const words = (text, attributes) => {
  const element = shape("text", attributes);
  element.textContent = text;
  return element;
};

function box(node, x, y, height, share) {
  const group = shape("g", { transform: `translate(${x},${y})` });
  const title = shape("title", {});
  title.textContent = `${node.name} ${node.detail}`;
  group.append(title, shape("rect", { class: "box", width: WIDTH, height, rx: 8 }));
  if (share > 0.01) group.append(shape("rect", { class: "heat", y: height - 4, width: Math.max(2, WIDTH * share).toFixed(1), height: 4, rx: 2 }));
  group.append(words(node.name, { class: "node", x: 10, y: 20 }));
  if (node.stage != null) group.append(words(`stage ${node.stage}`, { class: "stage", x: WIDTH - 10, y: 20, "text-anchor": "end" }));
  told(node).slice(0, LINES).forEach((metric, line) => group.append(words(figure(metric), { class: "did", x: 10, y: HEAD + 8 + line * LINE })));
  return group;
}

/** The picture, and the same as a list. */
export function planOf(plan) {
  const { nodes } = plan;
  const { found, columns } = places(nodes);
  const tall = nodes.map((node) => HEAD + Math.min(told(node).length, LINES) * LINE + 6);
  const rows = [];
  found.forEach(({ row }, index) => { rows[row] = Math.max(rows[row] ?? 0, tall[index]); });
  const tops = rows.map((_, row) => rows.slice(0, row).reduce((sum, height) => sum + height + GAP.y, 0));
  const at = (index) => ({ x: found[index].column * (WIDTH + GAP.x), y: tops[found[index].row] });
  const size = { width: columns * (WIDTH + GAP.x) - GAP.x, height: tops.at(-1) + rows.at(-1) };
  const svg = shape("svg", {
    class: "plan", role: "img", width: size.width + 2, height: size.height + 2, viewBox: `-1 -1 ${size.width + 2} ${size.height + 2}`,
    "aria-label": `plan of ${nodes.length} nodes; the list says the same`,
  });
  nodes.forEach((node, index) => {
    const to = at(index);
    for (const input of node.inputs.filter((input) => input > index)) {
      const from = at(input);
      const between = nodes[input].stage !== node.stage ? "edge shuffle" : "edge";
      const [x1, y1, x2, y2] = [from.x + WIDTH / 2, from.y, to.x + WIDTH / 2, to.y + tall[index]];
      svg.append(shape("path", { class: between, d: `M${x1},${y1} C${x1},${y1 - 16} ${x2},${y2 + 16} ${x2},${y2}` }));
    }
  });
  const most = Math.max(...nodes.map(compute), 0);
  nodes.forEach((node, index) => {
    const { x, y } = at(index);
    svg.append(box(node, x, y, tall[index], most >= 0.05 ? compute(node) / most : 0));
  });
  const rowsOf = table("Nodes of the plan", [
    ["Node", "name", (node) => node.name],
    ["Stage", "number", (node) => node.stage],
    ["What it did", "long", (node) => node.metrics.map(figure).join(", ") || "–"],
    ["Says", "long", (node) => node.detail || "–"],
  ], nodes, "");
  return [h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Plan as a picture" }, svg),
    h("details", { "data-plan": "list" }, h("summary", {}, "As a list"), rowsOf)];
}
