// The page: which view is open, and a look at the API every two seconds while somebody sees it.
import { job } from "./job.js";
import { overview } from "./overview.js";

const LOOK_EVERY = 2000;
const main = document.getElementById("main");
const pulse = document.getElementById("pulse");
const place = document.getElementById("place");
const dialog = document.getElementById("ask");

let view = null;
let looks = 0;

async function get(path) {
  const answer = await fetch(`/api/baler/${path}`, { headers: { accept: "application/json" } });
  if (!answer.ok) throw new Error(`${answer.status}: ${await answer.text()}`);
  return answer.json();
}

/** Looks once, and again later unless another view was opened meanwhile. */
async function look(number) {
  if (number !== looks) return;
  if (!document.hidden) {
    const current = view;
    try {
      const data = await get(current.path);
      if (number !== looks) return;
      await current.show(data);
      if (data.state) place.textContent = data.state;
      tell("Live", false);
    } catch (error) {
      tell(/^404/.test(error.message) ? "No such job" : "No answer; trying again", true);
    }
  }
  setTimeout(() => look(number), LOOK_EVERY);
}

/** Looks at once, and from then on as always. */
function lookNow() {
  looks += 1;
  return look(looks);
}

function tell(text, isLost) {
  if (pulse.textContent !== text) pulse.textContent = text;
  pulse.classList.toggle("lost", isLost);
}

function ask(name) {
  document.getElementById("ask-title").textContent = `Cancel ${name}?`;
  document.getElementById("ask-text").textContent =
    "What is done keeps its receipts. The same command goes on where it stopped.";
  dialog.returnValue = "";
  dialog.showModal();
  document.getElementById("ask-no").focus();
  document.getElementById("ask-yes").onclick = async () => {
    dialog.close();
    const answer = await fetch(`/api/baler/jobs/${encodeURIComponent(name)}/cancel`, { method: "POST", headers: { "x-baler-action": "cancel" } });
    tell(answer.ok ? "Cancelled" : `Not cancelled: ${await answer.text()}`, !answer.ok);
  };
}

document.getElementById("ask-no").onclick = () => dialog.close();

function open() {
  view?.leave?.();
  const name = location.hash.match(/^#\/job\/(.+)$/)?.[1];
  const isSkip = location.hash === "#main";
  if (isSkip && view) return main.focus();
  view = name ? job(main, decodeURIComponent(name), ask, lookNow) : overview(main);
  document.title = name ? `${decodeURIComponent(name)} · Baler` : "Baler";
  window.scrollTo(0, 0);
  return lookNow();
}

addEventListener("hashchange", open);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) lookNow();
});
open();
