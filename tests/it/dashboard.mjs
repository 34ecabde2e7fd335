// Drives the dashboard in a real browser: `node dashboard.mjs input.json`. Prints what it saw as one line of JSON.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const input = JSON.parse(readFileSync(process.argv[2], "utf8"));
const require = createRequire(`${input.modules}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

const browser = await chromium.launch({
  executablePath: input.chromium,
  env: { ...process.env, ...input.environment },
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
// A hang is an error of the page or of this script, never a wait for ever.
setTimeout(() => { console.error("the browser hangs"); process.exit(1); }, 200000).unref();
const seen = { console: [], outside: [], failed: [], faults: [], overflow: [], figures: {} };

async function open(width, height, colorScheme) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme, deviceScaleFactor: 1 });
  const page = await context.newPage();
  page.setDefaultTimeout(60000);
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && seen.console.push(message.text()));
  page.on("pageerror", (error) => seen.console.push(String(error)));
  page.on("request", (request) => request.url().startsWith(input.url) || seen.outside.push(request.url()));
  page.on("response", (answer) => answer.status() >= 400 && seen.failed.push(`${answer.status()} ${answer.url()}`));
  await page.goto(`${input.url}/`);
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  return page;
}

/** What a person reads: figures by name. */
const figures = (page) =>
  page.evaluate(() => Object.fromEntries([...document.querySelectorAll("dl.stats > div")].map((entry) =>
    [entry.querySelector("dt").textContent, { value: entry.querySelector("dd").firstChild.textContent, unit: entry.querySelector("small")?.textContent ?? "" }])));

async function judge(page, name) {
  await page.screenshot({ path: `${input.screenshots}/${input.name}-${name}.png`, fullPage: true });
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => window.axe.run(document));
  for (const { id, impact, nodes } of violations) {
    if (["serious", "critical"].includes(impact)) seen.faults.push(`${name}: ${id}: ${nodes.map((node) => node.html).join(" | ")}`);
  }
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  if (wide > 0) seen.overflow.push(`${name}: ${wide} px`);
}

/** Opens the job by the keyboard alone. */
async function openJob(page) {
  const link = page.getByRole("link", { name: input.job, exact: true });
  await link.waitFor();
  await link.focus();
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: input.job, level: 1 }).waitFor();
  await page.locator(".state", { hasText: input.state }).first().waitFor();
  if (input.splits) await page.locator(`canvas[aria-label*="${input.splits}"]`).waitFor();
}

try {
  const page = await open(1280, 900, "light");
  await page.locator("tbody .state", { hasText: input.state }).first().waitFor();
  seen.figures.overview = await figures(page);
  seen.rows = await page.locator("tbody tr").allInnerTexts();
  await judge(page, "overview-light");
  await openJob(page);
  seen.figures.job = await figures(page);
  seen.text = await page.locator("main").innerText();
  seen.picture = await page.locator("canvas").getAttribute("aria-label");
  // How many cells are drawn: pixels which are not transparent.
  seen.drawn = await page.evaluate(() => {
    const canvas = document.querySelector("canvas");
    if (canvas.width === 0 || canvas.height === 0) return 0;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let drawn = 0;
    for (let at = 3; at < data.length; at += 4) drawn += data[at] > 0 ? 1 : 0;
    return drawn;
  });
  await judge(page, "job-light");
  if (input.cancel) {
    const button = page.getByRole("button", { name: "Cancel …" });
    await button.focus();
    await page.keyboard.press("Enter");
    const dialog = page.getByRole("dialog");
    await dialog.waitFor();
    await judge(page, "question");
    // The question comes with the harmless answer chosen, and Escape takes it.
    seen.chosen = await page.evaluate(() => document.activeElement.textContent);
    await page.keyboard.press("Escape");
    await dialog.waitFor({ state: "hidden" });
    seen.stillRunning = await page.locator(".state", { hasText: "Running" }).first().isVisible();
    await button.focus();
    await page.keyboard.press("Enter");
    await dialog.waitFor();
    await page.keyboard.press("Tab");
    const answered = page.waitForResponse((answer) => answer.url().endsWith("/cancel"));
    await page.keyboard.press("Enter");
    seen.cancelled = (await answered).status();
  } else {
    const dark = await open(1280, 900, "dark");
    await judge(dark, "overview-dark");
    await openJob(dark);
    await judge(dark, "job-dark");
    const phone = await open(390, 844, "light");
    await judge(phone, "overview-phone");
    await openJob(phone);
    await judge(phone, "job-phone");
  }
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
