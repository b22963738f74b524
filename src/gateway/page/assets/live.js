// Follows what changes, as long as it is looked at.

import { events } from "./api.js";

const FIRST = 1000;
const LONGEST = 30000;

/** Calls `changed` when the server says that something that is meant has changed, and `said` with how it is: live, paused, lost. */
export function follow(path, changed, said) {
  let [running, pause, timer] = [null, FIRST, 0];
  const run = async () => {
    running = new AbortController();
    const signal = running.signal;
    try {
      await events(path, signal, (event) => {
        pause = FIRST;
        if (event === "ready") said("live");
        if (event === "changed") changed();
      });
    } catch (error) {
      if (signal.aborted) return;
      if (error.status === 401 || error.status === 403) return said("lost");
    }
    if (signal.aborted) return;
    said("lost");
    timer = setTimeout(() => (changed(), run()), pause * (0.5 + Math.random()));
    pause = Math.min(pause * 2, LONGEST);
  };
  const stop = () => {
    clearTimeout(timer);
    running?.abort();
    running = null;
  };
  const look = () => {
    if (document.hidden) {
      stop();
      said("paused");
    } else if (!running) {
      changed();
      run();
    }
  };
  document.addEventListener("visibilitychange", look);
  if (document.hidden) said("paused");
  else run();
  return () => {
    document.removeEventListener("visibilitychange", look);
    stop();
  };
}

/** Runs one call of `read` at a time, and once more if it was asked for meanwhile. */
export function oneAtATime(read) {
  let [busy, again] = [false, false];
  const run = async () => {
    if (busy) {
      again = true;
      return;
    }
    busy = true;
    try {
      do {
        again = false;
        await read();
      } while (again);
    } finally {
      busy = false;
    }
  };
  return run;
}
