// One visitor's chat, over a simulated model that answers slowly, so that there is a middle to act in.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { answerHas, bubbles, eventually, openChat, say, settled, visitor } from "./support/browser.mjs";
import { answerTo } from "./support/processes.mjs";
import { Stage } from "./support/stage.mjs";

const TOKENS = 80;

let stage;
let context;
let noted;
let hubbub;
let sim;

before(async () => {
  stage = await Stage.start({ tokens: TOKENS });
  ({ hubbub, sim } = stage);
});
after(() => stage?.stop());
beforeEach(async () => {
  await sim.control({ ...stage.pace, reset_counters: true });
  ({ context, noted } = await visitor(stage.browser));
});
afterEach(async () => {
  await context.close();
  assert.deepEqual(noted, []);
});

// R001, R003: every device of a session sees the same, while it grows and at its end.
test("two tabs show the same text while it is written and at the end", { timeout: 60_000 }, async () => {
  const one = await openChat(context, hubbub);
  const question = "What do both of us see?";
  const answer = answerTo(question, TOKENS);
  await say(one, question);
  await answerHas(one, " t3");
  const two = await openChat(context, hubbub);
  for (const word of [" t20", " t40", " t60"]) {
    await Promise.all([answerHas(one, word), answerHas(two, word)]);
    for (const page of [one, two]) {
      const [asked, grown] = await bubbles(page);
      assert.equal(asked, question);
      assert.ok(answer.startsWith(grown), `not the answer's beginning: ${grown}`);
      assert.ok(grown.length < answer.length, "the answer was there before it was written");
    }
  }
  await Promise.all([settled(one), settled(two)]);
  assert.deepEqual(await bubbles(one), [question, answer]);
  assert.deepEqual(await bubbles(two), [question, answer]);
  const again = "And what does the other tab ask?";
  await say(two, again);
  await Promise.all([one, two].map((page) => answerHas(page, ` t${TOKENS - 1}`)));
  await Promise.all([one, two].map((page) => page.waitForSelector(`text="${again}"`)));
  await eventually("four texts in the first tab", async () => (await bubbles(one)).length === 4);
  await Promise.all([settled(one), settled(two)]);
  const all = [question, answer, again, answerTo(again, TOKENS)];
  assert.deepEqual(await bubbles(one), all);
  assert.deepEqual(await bubbles(two), all);
});

// R010
test("a reload in mid-answer keeps everything and doubles nothing", { timeout: 60_000 }, async () => {
  const page = await openChat(context, hubbub);
  await say(page, "Go on");
  await answerHas(page, " t20");
  await page.reload();
  await answerHas(page, " t20");
  assert.equal((await bubbles(page))[1].includes(` t${TOKENS - 1}`), false, "reloaded too late");
  await answerHas(page, ` t${TOKENS - 1}`);
  await settled(page);
  const all = ["Go on", answerTo("Go on", TOKENS)];
  assert.deepEqual(await bubbles(page), all);
  await page.reload();
  await page.waitForSelector(".bubble.them .text");
  await settled(page);
  assert.deepEqual(await bubbles(page), all);
  assert.deepEqual((await stage.stored(page)).map(({ text }) => text), all);
});

// R004
test("dots show before the first token, and none after any end", { timeout: 60_000 }, async () => {
  await sim.control({ ttft_ms: 1_500 });
  const page = await openChat(context, hubbub);
  await say(page, "Think first");
  await page.waitForSelector(".thinking");
  assert.equal(await page.getAttribute(".log", "aria-busy"), "true");
  assert.equal(await page.locator(".bubble.them .text").count(), 0);
  await answerHas(page, " t1");
  assert.equal(await page.locator(".thinking").count(), 0);
  assert.equal(await page.getAttribute(".log", "aria-busy"), "true");
  await settled(page);
});

test("stop cancels the answer and keeps what was written, marked", { timeout: 60_000 }, async () => {
  const page = await openChat(context, hubbub);
  await say(page, "Tell me a long story");
  await answerHas(page, " t10");
  await page.click("[aria-label='Stop answering']");
  await page.waitForSelector(".bubble.cancelled >> text=Stopped");
  await settled(page);
  const [, partial] = await bubbles(page);
  const whole = answerTo("Tell me a long story", TOKENS);
  assert.ok(partial.includes(" t10") && partial.length < whole.length, partial);
  assert.ok(whole.startsWith(partial), partial);
  // Nobody pays for words that nobody will read: the upstream's request is closed.
  await eventually("the upstream's request is cancelled", async () => {
    const { cancelled, running } = await sim.counters();
    return cancelled === 1 && running === 0;
  });
  await page.reload();
  await page.waitForSelector(".bubble.cancelled >> text=Stopped");
  assert.deepEqual(await bubbles(page), ["Tell me a long story", partial]);
  await say(page, "Go on then");
  await answerHas(page, ` t${TOKENS - 1}`);
  await settled(page);
  assert.equal((await bubbles(page)).length, 4);
});

// R005
test("a failed upstream shows one failed answer; trying again works when it is back", { timeout: 90_000 }, async () => {
  const page = await openChat(context, hubbub);
  await sim.control({ mode: "error" });
  await say(page, "Are you there?");
  await page.waitForSelector(".bubble.failed");
  await settled(page);
  assert.equal(await page.locator(".bubble.failed").count(), 1);
  const words = await page.textContent(".bubble.failed .line");
  assert.doesNotMatch(words, /127\.0\.0\.1|500|sim|http/i, "the inside shows");
  assert.equal(await page.locator(".bubble.failed button").textContent(), "Try again");
  await sim.control(stage.pace);
  await page.click(".bubble.failed button");
  await answerHas(page, ` t${TOKENS - 1}`);
  await settled(page);
  assert.equal((await bubbles(page)).at(-1), answerTo("Are you there?", TOKENS));
  assert.equal(await page.locator(".bubble.failed").count(), 1);
  assert.equal(await page.locator(".bubble button").count(), 0);
});
