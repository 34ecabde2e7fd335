// Pictures: the manifest on one canvas, and charts as SVG.

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

const COLORS = { ".": "--wait", r: "--accent-soft", d: "--accent", x: "--bad" };

/** The picture of the manifest, one cell a split: `.` waiting, `r` running, `d` done, `x` dead letters. A look draws the cells which have changed. */
export function splitPicture(canvas) {
  // What is on the canvas; null when all of it has to be drawn.
  let drawn = null;
  let wanted = "";
  let width = 0;
  let isDue = false;

  function layOut() {
    const cell = Math.max(3, Math.min(22, Math.floor(Math.sqrt((width * 200) / Math.max(wanted.length, 1)))));
    const columns = Math.max(1, Math.floor(width / cell));
    const height = Math.ceil(wanted.length / columns) * cell;
    const scale = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.scale(scale, scale);
    const colors = Object.fromEntries(Object.entries(COLORS).map(([letter, name]) => [letter, color(name)]));
    drawn = { splits: "", context, cell, columns, colors, size: cell - (cell > 6 ? 2 : cell > 4 ? 1 : 0.5) };
  }

  function draw() {
    isDue = false;
    if (drawn === null || drawn.splits.length !== wanted.length) layOut();
    const { splits, context, cell, columns, colors, size } = drawn;
    for (const letter of Object.keys(COLORS)) {
      context.fillStyle = colors[letter];
      for (let index = 0; index < wanted.length; index += 1) {
        if (wanted[index] !== letter || splits[index] === letter) continue;
        const [x, y] = [(index % columns) * cell, Math.floor(index / columns) * cell];
        // An edge within a pixel would mix with what was there before.
        if (splits) context.clearRect(x, y, size, size);
        context.fillRect(x, y, size, size);
      }
    }
    drawn.splits = wanted;
  }

  const later = () => {
    if (isDue || width === 0) return;
    isDue = true;
    requestAnimationFrame(draw);
  };
  const all = () => {
    drawn = null;
    later();
  };
  // The width is told by the browser, which has laid out the page by then; asking for it would make it do so.
  const resized = new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === width) return;
    width = contentRect.width;
    all();
  });
  resized.observe(canvas);
  const scheme = matchMedia("(prefers-color-scheme: dark)");
  scheme.addEventListener("change", all);
  return {
    show(splits) {
      if (splits === wanted) return;
      wanted = splits;
      later();
    },
    leave() {
      resized.disconnect();
      scheme.removeEventListener("change", all);
    },
  };
}

const SVG = "http://www.w3.org/2000/svg";

/** An element of SVG. */
export function shape(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** A round number at or above `value`, for the top of an axis. */
export function roundUp(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((step) => step >= value);
}

/** The same for bytes, whose units are powers of 1,024. */
export function roundUpBytes(value) {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log2(Math.max(value, 1)) / 10));
  return roundUp(value / unit) * unit;
}

/** A chart over `[time, value]`, filled to its base, or as bars; `second` is another line of its own scale. */
export function chart(label, points, { top, bars = false, second = [] }) {
  const svg = shape("svg", { class: "chart", viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": label });
  for (const y of [0, 50, 100]) svg.append(shape("line", { class: "grid", x1: 0, x2: 100, y1: y, y2: y }));
  if (points.length === 0) return svg;
  const at = (index) => (points.length === 1 ? 50 : (index / (points.length - 1)) * 100);
  const y = (value) => (100 - Math.min(1, value / top) * 100).toFixed(2);
  if (bars) {
    // Few bars stay slim, and stand at the left.
    const width = 100 / Math.max(points.length, 24);
    points.forEach(([, value], index) => {
      svg.append(shape("rect", { class: "bar", x: (index * width + width * 0.15).toFixed(2), width: (width * 0.7).toFixed(2), y: y(value), height: (100 - y(value)).toFixed(2) }));
    });
    return svg;
  }
  const line = points.map(([, value], index) => `${at(index).toFixed(2)},${y(value)}`).join(" L");
  svg.append(shape("path", { class: "area", d: `M${at(0)},100 L${line} L${at(points.length - 1)},100 Z` }));
  svg.append(shape("path", { class: "stroke", d: `M${line}` }));
  const highest = roundUp(Math.max(0, ...second));
  if (second.length > 1) {
    const other = second.map((value, index) => `${at(index).toFixed(2)},${(100 - (value / highest) * 100).toFixed(2)}`).join(" L");
    svg.append(shape("path", { class: "second", d: `M${other}` }));
  }
  return svg;
}
