// The network is cut twenty times in one conversation. SEED=… repeats a run's choice of moments.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { answerHas, bubbles, eventually, openChat, say, settled, visitor } from "./support/browser.mjs";
import { answerTo } from "./support/processes.mjs";
import { Stage } from "./support/stage.mjs";
import { Wire } from "./support/wire.mjs";

const TOKENS = 40;
const DROPS = 20;
/** Drops in quick succession; then the connection holds, and the widget counts anew. */
const IN_A_ROW = 4;
/** The widget's own: a connection that held this long was good. */
const STABLE_MS = 5_000;
/** The widget's own: the first wait is anything up to this, each further one up to twice as much. */
const BASE_MS = 500;
/** From the end of a wait to a new connection, on a busy machine. */
const SLACK_MS = 1_500;

let stage;
let wire;

before(async () => {
  stage = await Stage.start({ tokens: TOKENS, tokenMs: 30 });
  wire = await Wire.to(stage.hubbub.port);
  // Behind the wire the page has an origin that the server does not know as its own.
  const { hubbub } = stage;
  await hubbub.api("PATCH", `/v1/bots/${hubbub.demo.bot}`, { allowed_origins: [wire.url] });
});
after(async () => {
  await wire?.stop();
  await stage?.stop();
});

/** Numbers from 0 to 1 that a seed decides (mulberry32). */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Keeps what a visitor can see of the connection's state: each change of it, in order. */
const watchState = (page) =>
  page.evaluate(() => {
    globalThis.shown = [];
    const look = () => {
      const online = document.querySelector(".state.on") !== null;
      const banner = document.querySelector(".banner:not([hidden])")?.textContent ?? "";
      const words = `${online ? "online" : document.querySelector(".state").textContent}|${banner}`;
      if (globalThis.shown.at(-1) !== words) globalThis.shown.push(words);
    };
    const all = { attributes: true, characterData: true, childList: true, subtree: true };
    new MutationObserver(look).observe(document.querySelector("main"), all);
    look();
  });

const changes = (page) => page.evaluate(() => globalThis.shown.length);

/** The visitor was told that the connection is away, and then that it is back. */
async function cameBack(page, since) {
  await page.waitForFunction(
    (from) => {
      const shown = globalThis.shown.slice(from);
      return shown.length > 1 && shown.at(-1) === "online|";
    },
    since,
    { timeout: 30_000 },
  );
  const told = await page.evaluate((from) => globalThis.shown.slice(from), since);
  assert.ok(told.some((words) => /^(?!online).*\|Reconnecting…/.test(words)), `shown: ${told}`);
}

const numberOf = (page, text) => page.locator(".bubble.me .text", { hasText: text }).count();

/** How often each text was sent, on whatever connection. */
function countSends(context) {
  const sends = new Map();
  const note = ({ payload }) => {
    const frame = JSON.parse(payload);
    if (frame.type === "send") sends.set(frame.text, (sends.get(frame.text) ?? 0) + 1);
  };
  context.on("page", (page) => page.on("websocket", (socket) => socket.on("framesent", note)));
  return sends;
}

/** How often a message is sent when the wire is cut then: once more if the server does not have it,
 * which the answer to `join` tells. */
const SENDS = { "mid-answer": 1, unsent: 2, unacknowledged: 1 };

/** The moments at which the wire is cut; each has just been brought about. */
const MOMENTS = {
  async idle(page) {
    await settled(page);
  },
  async "mid-answer"(page, question, chance) {
    await say(page, question);
    const token = 1 + Math.floor(chance() * (TOKENS - 8));
    await page.waitForFunction(
      ([start, word]) =>
        [...document.querySelectorAll(".bubble.them .text")].some(
          (one) => one.textContent.startsWith(start) && one.textContent.includes(word),
        ),
      [answerTo(question, 1), ` t${token}`],
    );
  },
  /** The message never leaves the browser's machine. */
  async unsent(page, question) {
    wire.swallow("up");
    await say(page, question);
    await page.waitForSelector("text=Sending…");
  },
  /** The message is stored; its acknowledgement is lost. */
  async unacknowledged(page, question) {
    wire.swallow("down");
    await say(page, question);
    await page.waitForSelector("text=Sending…");
    await eventually("the message is stored", async () =>
      (await stage.stored(page)).some(({ text }) => text === question),
    );
  },
};

// R011
test("the network is cut 20 times: it shows, heals, and nothing is lost or doubled", { timeout: 240_000 }, async (t) => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 2 ** 32));
  t.diagnostic(`seed ${seed}`);
  const chance = random(seed);
  const { context, noted } = await visitor(stage.browser);
  const sends = countSends(context);
  const page = await openChat(context, { url: wire.url, demo: stage.hubbub.demo });
  await watchState(page);
  // Opens the session.
  const asked = ["Question 0."];
  await say(page, asked[0]);
  await answerHas(page, ` t${TOKENS - 1}`);
  const names = Object.keys(MOMENTS);
  const drops = Array.from({ length: DROPS }, (_, index) => names[index % names.length])
    .map((name) => [chance(), name])
    .sort(([one], [other]) => one - other)
    .map(([, name]) => name);
  const waits = [];
  for (const [index, name] of drops.entries()) {
    if (index % IN_A_ROW === 0) {
      await settled(page);
      await new Promise((resolve) => setTimeout(resolve, STABLE_MS + 200));
    }
    const question = `Question ${index + 1}.`;
    await MOMENTS[name](page, question, chance);
    if (name !== "idle") asked.push(question);
    const [seen, opened] = [await changes(page), wire.opened.length];
    const cut = wire.cut();
    await cameBack(page, seen);
    const failures = index % IN_A_ROW;
    const wait = wire.opened[opened] - cut;
    const most = BASE_MS * 2 ** failures;
    assert.ok(wait <= most + SLACK_MS, `drop ${index} (${name}): back after ${wait} ms`);
    waits.push({ failures, wait, share: wait / most });
    await page.waitForSelector("text=/Sending…|Waiting to send/", { state: "detached" });
    if (name === "idle") continue;
    assert.equal(await numberOf(page, question), 1, `${name}: ${question}`);
    assert.equal(sends.get(question), SENDS[name], `${name}: sends of ${question}`);
  }
  t.diagnostic(`cut when ${drops.join(", ")}`);
  t.diagnostic(`waited ${waits.map(({ failures, wait }) => `${failures}:${Math.round(wait)}`).join(" ")} ms`);
  const longest = (failures) =>
    Math.max(...waits.filter((one) => one.failures === failures).map(({ wait }) => wait));
  assert.ok(longest(IN_A_ROW - 1) > BASE_MS, "the waits do not grow");
  const shares = waits.map(({ share }) => share);
  assert.ok(Math.max(...shares) - Math.min(...shares) > 0.2, "the waits have no jitter");

  // Everything once, in the order of asking, and the page has what the server has.
  await eventually("every question is answered", async () => {
    const texts = await bubbles(page);
    return asked.every((question) => texts.includes(answerTo(question, TOKENS)));
  });
  await settled(page);
  const messages = await stage.stored(page);
  assert.deepEqual(messages.map(({ seq }) => seq), messages.map((_, index) => index + 1));
  const by = (role) => messages.filter((message) => message.role === role).map(({ text }) => text);
  assert.deepEqual(by("visitor"), asked);
  assert.deepEqual(by("assistant"), asked.map((question) => answerTo(question, TOKENS)));
  assert.deepEqual(await bubbles(page), messages.map(({ text }) => text));
  assert.equal(await page.locator(".bubble.failed, .bubble.cancelled").count(), 0);
  assert.deepEqual(noted, []);
  await context.close();
});
