// Drives k8s/dashboard.html, opened from its file.
import { browser, input, judge, newPage, seen } from "./browse.mjs";

const NAMES = { baler: "Baler", airflow: "Airflow", minio: "MinIO", grafana: "Grafana", prometheus: "Prometheus" };
const known = [input.page, input.baler, input.closed, input.prometheus, input.minio, input.nobody, "http://localhost:", "https://localhost:"];

async function setAddress(page, key, address) {
  await page.getByLabel(`address of ${NAMES[key]}`).fill(address);
  await page.keyboard.press("Tab");
}
const rowOf = (page, key) => page.locator("#services tr", { has: page.locator(`#address-${key}`) });
const stateOf = (page, key) => rowOf(page, key).locator(".state");
const settle = async (page, states) => {
  for (const [key, state] of Object.entries(states)) await stateOf(page, key).filter({ hasText: state }).waitFor();
};

try {
  const page = await newPage(1280, 900, "light", known);
  await page.goto(input.page);
  seen.defaults = await page.locator("#services input").evaluateAll((all) => all.map((one) => one.value));
  for (const key of Object.keys(NAMES)) await setAddress(page, key, input[key] ?? input.nobody);
  const wanted = { baler: "Answers", airflow: "No answer", minio: "Answers", grafana: "No answer", prometheus: "Answers" };
  await settle(page, wanted);
  await page.locator("#live", { hasText: "may want a token" }).waitFor();
  await page.getByLabel("Token").fill(input.token);
  await page.keyboard.press("Tab");
  await page.locator("#live", { hasText: "Live, from" }).waitFor();
  seen.states = Object.fromEntries(await Promise.all(Object.keys(NAMES).map(async (key) => [NAMES[key], await stateOf(page, key).textContent()])));
  seen.live = await page.locator("#live").textContent();
  seen.jobs = await page.locator("#jobs tr").allInnerTexts();
  seen.flow = await page.locator("#flow li").allInnerTexts();
  seen.link = await page.locator("#jobs a").first().getAttribute("href");
  await judge(page, "light");
  // The same browser later, in the dark and on a phone.
  await page.reload();
  await settle(page, wanted);
  seen.forgotten = await page.getByLabel("Token").inputValue();
  seen.kept = await page.getByLabel("address of Prometheus").inputValue();
  await page.emulateMedia({ colorScheme: "dark" });
  await judge(page, "dark");
  await page.setViewportSize({ width: 390, height: 844 });
  await page.emulateMedia({ colorScheme: "light" });
  await judge(page, "phone");
  await setAddress(page, "grafana", "javascript:alert(1)");
  await settle(page, { grafana: "No web address" });
  seen.wrong = await stateOf(page, "grafana").textContent();
  seen.wrongLink = await rowOf(page, "grafana").locator("a").getAttribute("href");
  await page.getByLabel("Token").fill(input.token);
  await page.keyboard.press("Tab");
  await page.locator("#live", { hasText: "Live, from" }).waitFor();
  await setAddress(page, "baler", input.closed);
  await page.locator("#live", { hasText: "cors-allowed-origins" }).waitFor();
  seen.refused = await page.locator("#live").textContent();
  await page.getByRole("button", { name: "Addresses as" }).click();
  const back = await page.locator("#services input").evaluateAll((all) => all.map((one) => one.value));
  if (JSON.stringify(back) !== JSON.stringify(seen.defaults)) throw new Error(`not the defaults: ${back}`);
  // That nobody answers, or lets this page read, is what is looked for; the browser notes each such request, and services answer as they like. The page asks
  // again where a connection ends under it.
  const expected = /net::ERR_CONNECTION_(REFUSED|CLOSED|RESET)|net::ERR_NETWORK_CHANGED|net::ERR_SOCKET_NOT_CONNECTED|blocked by CORS policy|net::ERR_FAILED|status of 40[0-9]/;
  seen.console = seen.console.filter((text) => !expected.test(text));
  seen.failed = seen.failed.filter((text) => !text.endsWith(`${input.minio}/`) && !/^40[15] .*\/api\/baler\/overview$/.test(text));
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
