// A headless browser for the scripts of this folder, and what none of the pages may do.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

export const input = JSON.parse(readFileSync(process.argv[2], "utf8"));
const require = createRequire(`${input.modules}/`);
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
export const seen = { console: [], outside: [], failed: [], faults: [], overflow: [], figures: {} };

export const browser = await require("playwright-core").chromium.launch({
  executablePath: input.chromium,
  env: { ...process.env, ...input.environment },
  // A fleet's certificate is of the test's own authority, which a person would have imported. Said at the start, for a page which says it later has
  // its connections closed under it.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", ...(input.trusting ? ["--ignore-certificate-errors"] : [])],
});
// A hang is an error of the page or of this script, never a wait for ever.
setTimeout(() => { console.error("the browser hangs"); process.exit(1); }, 200000).unref();

/** A page whose requests go nowhere but to addresses which begin with one of `known`. */
export async function newPage(width, height, colorScheme, known, context) {
  const own = context ?? (await browser.newContext({ viewport: { width, height }, colorScheme, deviceScaleFactor: 1 }));
  const page = await own.newPage();
  page.setDefaultTimeout(60000);
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && seen.console.push(message.text()));
  page.on("pageerror", (error) => seen.console.push(String(error)));
  page.on("request", (request) => known.some((start) => request.url().startsWith(start)) || seen.outside.push(request.url()));
  page.on("response", (answer) => answer.status() >= 400 && seen.failed.push(`${answer.status()} ${answer.url()}`));
  return page;
}

/** Takes a picture, and has the page judged. */
export async function judge(page, name) {
  await page.screenshot({ path: `${input.screenshots}/${input.name}-${name}.png`, fullPage: true });
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document));
  for (const { id, impact, nodes } of violations) {
    if (["serious", "critical"].includes(impact)) seen.faults.push(`${name}: ${id}: ${nodes.map((node) => node.html).join(" | ")}`);
  }
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (wide > 0) seen.overflow.push(`${name}: ${wide} px`);
}

/** What a person reads: figures by name. */
export const figures = (page) =>
  page.evaluate(() => Object.fromEntries([...document.querySelectorAll("dl.stats > div")].map((entry) =>
    [entry.querySelector("dt").textContent, { value: entry.querySelector("dd").firstChild.textContent, unit: entry.querySelector("small")?.textContent ?? "" }])));

/** How many cells of the picture are drawn: pixels which are not transparent. */
export const drawn = (page) => page.evaluate(() => {
  const canvas = document.querySelector("canvas");
  if (canvas.width === 0 || canvas.height === 0) return 0;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let drawn = 0;
  for (let at = 3; at < data.length; at += 4) drawn += data[at] > 0 ? 1 : 0;
  return drawn;
});
