// The dashboard with very many executors and splits, while they change: what a look at the API costs the page.
import { browser, drawn, figures, input, judge, newPage, seen } from "./browse.mjs";

/** Counts what happens on the page from now on: long tasks, frames, and tiles which are built. */
const observe = (page) => page.evaluate(() => {
  const cost = { longTasks: 0, longest: 0, frames: 0, worstFrame: 0, began: performance.now(), tilesBuilt: 0, pictures: [] };
  window.cost = cost;
  new PerformanceObserver((list) => list.getEntries().forEach((task) => {
    cost.longTasks += 1;
    cost.longest = Math.max(cost.longest, task.duration);
  })).observe({ entryTypes: ["longtask"] });
  new MutationObserver((changes) => changes.forEach((change) => {
    cost.tilesBuilt += change.target.classList?.contains("tiles") ? change.addedNodes.length : 0;
    const label = change.target.localName === "canvas" ? change.target.getAttribute("aria-label") : null;
    if (label && !cost.pictures.includes(label)) cost.pictures.push(label);
  })).observe(document.getElementById("main"), { subtree: true, childList: true, attributes: true, attributeFilter: ["aria-label"] });
  let last = performance.now();
  const frame = (now) => {
    cost.frames += 1;
    cost.worstFrame = Math.max(cost.worstFrame, now - last);
    last = now;
    requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
});
/** What the browser has spent on the page so far, in seconds, and how many answers of the API came. */
async function spent(session) {
  const { metrics } = await session.send("Performance.getMetrics");
  const of = (name) => metrics.find((metric) => metric.name === name).value;
  return { script: of("ScriptDuration"), style: of("RecalcStyleDuration"), layout: of("LayoutDuration"), task: of("TaskDuration") };
}
/** The same for each look, in milliseconds. */
const perLook = (before, after, count) =>
  Object.fromEntries(Object.keys(before).map((key) => [`${key}_ms`, +(((after[key] - before[key]) * 1000) / count).toFixed(1)]));
const costOf = (page) => page.evaluate(() => ({ ...window.cost, seconds: (performance.now() - window.cost.began) / 1000 }));
const told = ({ longTasks, longest, frames, worstFrame, seconds }) =>
  ({ seconds: +seconds.toFixed(1), frames_per_second: +(frames / seconds).toFixed(1), worst_frame_ms: Math.round(worstFrame), long_tasks: longTasks, longest_task_ms: Math.round(longest) });

/** Waits for so many further answers of the API. */
async function looks(page, path, wanted) {
  for (let number = 0; number < wanted; number += 1) await page.waitForResponse((answer) => answer.url().endsWith(path) && answer.ok());
}

try {
  const page = await newPage(1280, 900, "light", [input.url]);
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable");
  // The job first, while it runs.
  await page.goto(`${input.url}/#/job/${input.job}`);
  await page.locator("canvas").waitFor();
  const beforeJob = await spent(session);
  await looks(page, `/jobs/${input.job}`, 4);
  const jobLook = perLook(beforeJob, await spent(session), 4);
  await observe(page);
  await looks(page, `/jobs/${input.job}`, 3);
  const job = await costOf(page);
  seen.pictures = job.pictures;
  await page.goto(`${input.url}/#/`);
  await page.locator(".tiles li").nth(input.executors - 1).waitFor({ state: "attached" });
  seen.figures = await figures(page);
  seen.tiles = await page.locator(".tiles li").count();
  const beforeOverview = await spent(session);
  await looks(page, "/overview", 4);
  const overviewLook = perLook(beforeOverview, await spent(session), 4);
  await observe(page);
  const scroll = page.evaluate(() => new Promise((done) => {
    // Somebody reads: a screen down every half second.
    let steps = 0;
    const timer = setInterval(() => { scrollBy({ top: 400, behavior: "instant" }); steps += 1; if (steps > 10) { clearInterval(timer); done(); } }, 500);
  }));
  await looks(page, "/overview", 3);
  await scroll;
  const overview = await costOf(page);
  seen.tilesBuilt = overview.tilesBuilt;
  seen.cost = { overview: told(overview), job: told(job), each_look_of_the_overview: overviewLook, each_look_of_the_job: jobLook };
  await judge(page, "overview");
  // To its end.
  await page.goto(`${input.url}/#/job/${input.job}`);
  await page.locator(`canvas[aria-label^="${input.splits} done"]`).waitFor({ timeout: 180000 });
  seen.done = await page.locator("canvas").getAttribute("aria-label");
  await page.waitForFunction(() => document.querySelector("canvas").height > 0);
  seen.drawn = await drawn(page);
  await judge(page, "job");
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
