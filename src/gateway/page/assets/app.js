// Which screen is shown: what stands behind the # of the address.

import { get, hasToken, onLost, resume, signIn } from "./api.js";
import { byId, failure } from "./dom.js";
import { tick } from "./format.js";
import { jobScreen } from "./job.js";
import { jobsScreen } from "./jobs.js";
import { poolsScreen } from "./pools.js";
import { forgetRights } from "./rights.js";
import { schedulesScreen } from "./schedules.js";
import { signInScreen } from "./signin.js";
import { submitScreen } from "./submit.js";

const main = byId("main");
let [screen, session] = [null, null];

/** Writes what the list of jobs shows into the address, so that it can be gone back to; the screen itself stays. */
function record(hash, replaces) {
  if (hash === location.hash) return;
  if (replaces) history.replaceState(null, "", hash);
  else history.pushState(null, "", hash);
  main.dataset.list = hash;
}

function show() {
  screen?.end?.();
  screen = null;
  if (!session) return;
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [name, ...rest] = path.split("/");
  const words = new URLSearchParams(query ?? "");
  const title = { job: rest[1] && decode(rest[1]), pools: "Pools", schedules: "Schedules", submit: "Submit" }[name] ?? "Jobs";
  document.title = `${title} · CrewJob`;
  for (const link of byId("screens").querySelectorAll("a")) {
    const isIt = link.hash === `#/${name || "jobs"}` || (name === "job" && link.hash === "#/jobs");
    if (isIt) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name === "job" && rest.length === 2) screen = jobScreen(main, decode(rest[0]), decode(rest[1]));
  else if (name === "pools") screen = poolsScreen(main, words);
  else if (name === "schedules") screen = schedulesScreen(main, words);
  else if (name === "submit") screen = submitScreen(main, words);
  else {
    main.dataset.list = location.hash || "#/jobs";
    screen = jobsScreen(main, words, record);
  }
  scrollTo(0, 0);
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function began(found) {
  session = found;
  forgetRights();
  byId("user").textContent = found.user ?? "";
  byId("sign-out").hidden = !hasToken();
  show();
}

function ask(why) {
  screen?.end?.();
  screen = null;
  session = null;
  byId("user").textContent = "";
  byId("sign-out").hidden = true;
  document.title = "Sign in · CrewJob";
  signInScreen(main, began, why);
}

async function begin() {
  const isResumed = resume();
  try {
    began(await get("api/session"));
  } catch (error) {
    if (error.status !== 401) return main.replaceChildren(failure(error, begin));
    signIn(null);
    ask(isResumed ? "The token that this tab has kept is not taken any more." : null);
  }
}

onLost(() => {
  if (!session) return;
  signIn(null);
  ask("The token is not taken any more.");
});

byId("sign-out").addEventListener("click", () => {
  signIn(null);
  ask("You are signed out.");
});

byId("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

addEventListener("hashchange", () => {
  show();
  if (!main.contains(document.activeElement)) main.focus({ preventScroll: true });
});

addEventListener("keydown", (event) => {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || byId("dialog").open) return;
  const isField = event.target.matches?.("input, textarea, select");
  if (event.key === "/" && !isField && screen?.focusFilter) {
    event.preventDefault();
    screen.focusFilter();
  } else if (event.key === "Escape" && screen?.escape) {
    screen.escape();
  }
});

setInterval(() => !document.hidden && tick(), 1000);
begin();
