// Elements, and figures as people read them.

/** An element: attributes, then children. Text is always text, never markup. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

/** Changes an element's text, if it is another one. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Puts children into an element; the keyboard's focus stays where it was. */
export function fill(element, ...children) {
  const active = document.activeElement;
  const key = element.contains(active) ? active.dataset.key : null;
  element.replaceChildren(...children.flat().filter((child) => child != null && child !== false));
  if (key) element.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

const told = new WeakMap();

/** Puts children into an element, if `shown`, from which they are built, is something else than the last time. */
export function refill(element, shown, build) {
  const now = JSON.stringify(shown);
  if (told.get(element) === now) return;
  told.set(element, now);
  fill(element, build(shown));
}

const headOf = (columns) => h("thead", {}, h("tr", {}, columns.map(([title, kind]) => h("th", { scope: "col", class: kind }, title))));
const rowOf = (columns, row) => h("tr", {}, columns.map(([, kind, show]) => h("td", { class: kind }, show(row) ?? "–")));
const around = (label, table) => h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, table);

/** A table. A column: its head, its class, and what a row shows in it. */
export function table(label, columns, rows, empty) {
  if (rows.length === 0) return h("p", { class: "empty" }, empty);
  return around(label, h("table", { "aria-label": label }, headOf(columns), h("tbody", {}, rows.map((row) => rowOf(columns, row)))));
}

/** A table which stays: of its rows only those are built which are new or show something else. `key` tells them apart; `rows` are plain data. */
export function liveTable(label, columns, key, empty) {
  const body = h("tbody");
  const nothing = h("p", { class: "empty" }, empty);
  const whole = around(label, h("table", { "aria-label": label }, headOf(columns), body));
  const known = new Map();

  /** The row's element, built anew if it has to be. */
  function built(row) {
    const [id, now] = [key(row), JSON.stringify(row)];
    const before = known.get(id);
    if (before?.now === now) return before.element;
    const element = rowOf(columns, row);
    known.set(id, { now, element });
    if (before) {
      const focused = before.element.contains(document.activeElement) ? document.activeElement.dataset.key : null;
      before.element.replaceWith(element);
      if (focused) element.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    }
    return element;
  }

  return {
    element: h("div", {}, nothing, whole),
    show(rows) {
      nothing.hidden = rows.length > 0;
      whole.hidden = rows.length === 0;
      const here = new Set(rows.map(key));
      for (const [id, { element }] of known) {
        if (here.has(id)) continue;
        element.remove();
        known.delete(id);
      }
      let next = body.firstElementChild;
      for (const row of rows) {
        const isNext = next != null && known.get(key(row))?.element === next;
        const after = isNext ? next.nextElementSibling : next;
        const element = built(row);
        if (!isNext) body.insertBefore(element, next);
        next = after;
      }
    },
  };
}

const statOf = ([name, value, unit]) => h("div", {}, h("dt", {}, name), h("dd", {}, value, h("small", {}, unit || "\u00a0")));

/** Writes a list of figures, `[name, value, unit]`; what says the same is not touched. */
export function showStats(list, entries) {
  const isSame = list.childElementCount === entries.length && entries.every(([name], at) => list.children[at].firstChild.textContent === name);
  if (!isSame) return fill(list, entries.map(statOf));
  entries.forEach(([, value, unit], at) => {
    const [text, small] = list.children[at].lastChild.childNodes;
    if (text.data !== value) text.data = value;
    write(small, unit || "\u00a0");
  });
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function bytes(value) {
  if (value == null) return "–";
  let unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${UNITS[unit]}`;
}

export const count = (value) => (value == null ? "–" : value.toLocaleString("en-US"));

export function span(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  const hours = seconds / 3600;
  return hours < 48 ? `${Math.floor(hours)} h ${Math.round((hours % 1) * 60)} min` : `${Math.round(hours / 24)} days`;
}

export const clock = (time) => new Date(time).toLocaleTimeString("en-GB");
export const moment = (time) => new Date(time).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "short" });
export const ratio = (raw, packed) => (packed > 0 ? (raw / packed).toFixed(2) : "–");

/** Where a job is: its class and its word. */
export function stateOf(job, isRunning) {
  if (job.status === "committed") return ["done", "Done"];
  if (isRunning) return ["running", "Running"];
  return job.status === "streaming" ? ["idle", "Idle"] : ["stopped", "Incomplete"];
}

export const state = ([kind, word]) => h("span", { class: `state ${kind}` }, word);

export function meter(done, all, label, unit) {
  return h("div", { class: "meter" },
    h("progress", { max: Math.max(all, 1), value: done, "aria-label": label }),
    h("span", {}, `${count(done)} of ${count(all)}${unit}`));
}
