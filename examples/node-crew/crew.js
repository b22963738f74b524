#!/usr/bin/env node
// A crew of three that needs nothing but Node. It stays, and works on one call after the other.
//
// Replace the bodies of the three with whatever writes your text; one that fails with a code of the network, such as
// ECONNREFUSED, is tried again.
"use strict";

const readline = require("node:readline");

const answer = process.stdout.write.bind(process.stdout);
// Whatever else is printed is no answer, and goes to the log.
process.stdout.write = process.stderr.write.bind(process.stderr);

const STEPS = {
  researcher: async () => ["What it is, in one paragraph", "Three questions that a newcomer to it asks first", "One worked example"],
  writer: async (topic, facts) => [`# ${topic}`, "", ...facts.map((fact, at) => `${at + 1}. ${fact}.`)].join("\n"),
  editor: async (topic, draft) => draft.replace("One worked example", "One worked example, with numbers"),
};

const TRANSIENT = new Set(["ECONNREFUSED", "ECONNRESET", "EAI_AGAIN", "ETIMEDOUT", "UND_ERR_CONNECT_TIMEOUT"]);

function say(line) {
  answer(`${JSON.stringify(line)}\n`);
}

async function run({ topic }) {
  if (typeof topic !== "string" || !topic.trim()) {
    throw Object.assign(new Error("inputs.topic must be a non-empty string"), { name: "ValueError" });
  }
  const steps = Object.entries(STEPS);
  let work;
  for (const [at, [name, step]] of steps.entries()) {
    say({ progress: { percent: Math.floor((100 * at) / steps.length), message: `${name}: at work` } });
    work = await step(topic, work);
  }
  return { text: work };
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      // JSON.parse rounds integers above 2^53, and refuses the NaN that a Python client may send.
      say({ result: await run(JSON.parse(line).kwargs.inputs) });
    } catch (error) {
      const code = error.code ?? error.cause?.code;
      say({ error: { type: error.name, message: error.message }, retry: TRANSIENT.has(code) });
    }
  }
}

main();
