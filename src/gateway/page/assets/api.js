// Calls of the gateway. All addresses are relative to this page, so that it works below any path.

const ROOT = new URL("..", import.meta.url);
const KEPT = "crewjob-token";

// The token is in memory, and goes with the tab; in the tab's storage only where that was asked for.
let token = null;
let lost = () => {};

/** What the gateway answers when it does not do what it was asked for. */
export class Problem extends Error {
  constructor(status, title, message, body = {}) {
    super(message);
    Object.assign(this, { status, title, body });
  }
}

/** Called when the caller is not known, or not any more. */
export function onLost(handler) {
  lost = handler;
}

/** Signs in with a token; null signs out. */
export function signIn(given, isKept) {
  token = given;
  try {
    if (given && isKept) sessionStorage.setItem(KEPT, given);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // It stays in memory.
  }
}

/** Takes up the token that this tab has kept. */
export function resume() {
  try {
    token = sessionStorage.getItem(KEPT);
  } catch {
    token = null;
  }
  return token !== null;
}

export const hasToken = () => token !== null;

function headers(more = {}) {
  // The own header keeps other sites from sending what a proxy would sign in: browsers ask before they send it.
  return { ...(token ? { Authorization: `Bearer ${token}` } : {}), "X-Crewjob-Page": "1", ...more };
}

async function problem(answer) {
  let body = {};
  try {
    body = JSON.parse(await answer.text());
  } catch {
    // Something between the page and the gateway has answered.
  }
  const title = body.title ?? body.reason ?? `The gateway answered ${answer.status}`;
  const more = (body.errors ?? []).map((error) => `${error.field ?? error.pointer ?? ""}: ${error.detail ?? error.message ?? ""}`);
  return new Problem(answer.status, title, [body.detail ?? body.message ?? answer.statusText, ...more].filter(Boolean).join("\n"), body);
}

async function call(path, options) {
  let answer;
  try {
    answer = await fetch(new URL(path, ROOT), { credentials: "same-origin", cache: "no-store", redirect: "error", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The gateway cannot be reached", "It is tried again as soon as you ask for it.");
  }
  if (answer.ok) return answer;
  const found = await problem(answer);
  if (answer.status === 401) lost(found);
  throw found;
}

/** What is read there. */
export async function get(path, signal) {
  return (await call(path, { headers: headers({ Accept: "application/json" }), signal })).json();
}

/** Sends a value, and returns the answer. */
export async function send(method, path, value, kind = "application/json") {
  const options = { method, headers: headers({ "Content-Type": kind, Accept: "application/json" }), body: JSON.stringify(value) };
  return (await call(path, options)).json();
}

/** Changes an object by a merge patch. */
export const patch = (path, value) => send("PATCH", path, value, "application/merge-patch+json");

/** Calls `each` with every event of a stream, until it ends. */
export async function events(path, signal, each) {
  const answer = await call(path, { headers: headers({ Accept: "text/event-stream" }), signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let [text, event] = ["", "message"];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (line.startsWith("event:")) event = line.slice(6).trim();
      else if (line.startsWith("data:")) each(event, line.slice(5).trim());
      else if (line === "") event = "message";
    }
  }
}

const KINDS = "apis/crewjob.dev/v1alpha1";
const part = encodeURIComponent;

/** The address of objects of a kind, in a namespace or in all; of one of them. */
export function objects(kind, namespace, name) {
  const place = namespace ? `${KINDS}/namespaces/${part(namespace)}/${kind}` : `${KINDS}/${kind}`;
  return name ? `${place}/${part(name)}` : place;
}

/** What the gateway says of one job. */
export const ofJob = (what, namespace, name) => `api/${what}/${part(namespace)}.${part(name)}`;
