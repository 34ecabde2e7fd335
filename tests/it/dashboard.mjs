// Drives the dashboard in a real browser: `node dashboard.mjs input.json`. Prints what it saw as one line of JSON.
import { browser, drawn, figures, input, judge, newPage, seen } from "./browse.mjs";

async function open(width, height, colorScheme) {
  const page = await newPage(width, height, colorScheme, [input.url]);
  await page.goto(`${input.url}/`);
  await page.getByRole("heading", { name: "Overview" }).waitFor();
  return page;
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
  seen.executors = await page.locator(".tiles li").allInnerTexts();
  await page.locator("summary", { hasText: "Settings" }).click();
  await page.locator(".pairs dd").first().waitFor();
  seen.settings = Object.fromEntries(await page.evaluate(() => [...document.querySelectorAll(".pairs dt")].map((name) => [name.textContent, name.nextElementSibling.textContent])));
  await page.locator("summary", { hasText: "Settings" }).click();
  await judge(page, "overview-light");
  await openJob(page);
  seen.figures.job = await figures(page);
  seen.text = await page.locator("main").innerText();
  if (input.plan) await page.locator("svg.plan .node", { hasText: input.plan }).first().waitFor();
  seen.nodes = await page.locator("svg.plan .node").allTextContents();
  seen.did = await page.locator("svg.plan .did").allTextContents();
  seen.stages = await page.locator('section[aria-label="Stages on the fleet"] tbody tr').allInnerTexts();
  seen.picture = await page.locator("canvas").getAttribute("aria-label");
  seen.drawn = await drawn(page);
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
    const before = seen.console.length;
    await page.keyboard.press("Enter");
    seen.cancelled = (await answered).status();
    // A driver which stops may be gone before the page asks it again.
    seen.console = seen.console.filter((text, place) => place < before || !/net::ERR_CONNECTION_(REFUSED|CLOSED|RESET)/.test(text));
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
