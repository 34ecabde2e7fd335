// The plan of a job of several waves: all together at first, and each by choice.
import { browser, input, judge, newPage, seen } from "./browse.mjs";

try {
  const page = await newPage(1280, 900, "light", [input.url]);
  await page.goto(`${input.url}/#/job/${input.job}`);
  const card = page.locator('section[aria-label="Plan"]');
  const choice = card.locator("select");
  await choice.waitFor();
  seen.choices = await choice.locator("option").allTextContents();
  seen.together = await card.locator("p").first().textContent();
  await judge(page, "together");
  // By the keyboard, to the newest wave.
  await choice.focus();
  await page.keyboard.press("ArrowDown");
  await card.locator("p", { hasText: seen.choices[1] }).waitFor();
  seen.focused = await page.evaluate(() => document.activeElement.localName);
  // It stays chosen when the page looks again.
  await page.waitForResponse((answer) => answer.url().includes("?part=") && answer.ok());
  seen.chosen = await card.locator("p").first().textContent();
  await judge(page, "chosen");
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
