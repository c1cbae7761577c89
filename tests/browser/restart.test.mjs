// The server dies in mid-answer and comes back. The widget heals by itself.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { answerHas, bubbles, eventually, openChat, say, settled, visitor } from "./support/browser.mjs";
import { answerTo } from "./support/processes.mjs";
import { Stage } from "./support/stage.mjs";

const TOKENS = 80;
/** A reply of a dead server is failed when its lease has run out, after 15 s at the latest. */
const HEALED_MS = 40_000;

let stage;
let hubbub;

before(async () => {
  stage = await Stage.start({ tokens: TOKENS });
  ({ hubbub } = stage);
});
after(() => stage?.stop());

// R010, R011: kill -9, then messages written while there is no server.
test("the server is killed in mid-answer: nothing is lost, nothing doubled", { timeout: 150_000 }, async (t) => {
  const { context, noted } = await visitor(stage.browser);
  const page = await openChat(context, hubbub);
  await say(page, "Before");
  await answerHas(page, ` t${TOKENS - 1}`);
  await settled(page);
  await say(page, "Interrupted");
  await answerHas(page, answerTo("Interrupted", 21));
  await hubbub.kill();
  const shown = (await bubbles(page)).at(-1);
  await page.waitForSelector(".state:not(.on)");
  await page.waitForSelector(".banner:visible >> text=Reconnecting");
  await say(page, "While away, one");
  await say(page, "While away, two");
  await page.waitForSelector("text=Waiting to send");
  assert.equal(await page.locator("text='While away, two'").count(), 1);

  await hubbub.launch();
  const back = Date.now();
  await page.waitForSelector(".state.on", { timeout: HEALED_MS });
  t.diagnostic(`reconnected ${Date.now() - back} ms after the restart`);
  await page.waitForSelector(".bubble.failed", { timeout: HEALED_MS });
  t.diagnostic(`the interrupted answer was failed ${Date.now() - back} ms after the restart`);
  const last = answerTo("While away, two", TOKENS);
  await page.waitForFunction(
    (text) => [...document.querySelectorAll(".bubble .text")].some((one) => one.textContent === text),
    last,
    { timeout: HEALED_MS },
  );
  await settled(page);
  t.diagnostic(`all answered ${Date.now() - back} ms after the restart`);
  await page.waitForSelector("text=Waiting to send", { state: "detached" });

  const asked = ["Before", "Interrupted", "While away, one", "While away, two"];
  const mine = () => page.$$eval(".bubble.me .text", (all) => all.map((one) => one.textContent));
  assert.deepEqual(await mine(), asked);
  assert.equal(await page.locator(".bubble.failed").count(), 1);
  // W9: what was read stays, is marked, and can be asked for again although others followed.
  assert.ok((await page.textContent(".bubble.failed .text")).startsWith(shown));
  assert.equal(await page.locator(".bubble.failed >> text=Try again").count(), 1);
  const texts = await bubbles(page);
  for (const question of asked.filter((text) => text !== "Interrupted")) {
    const answer = answerTo(question, TOKENS);
    assert.equal(texts.filter((text) => text === answer).length, 1, `answers to ${question}`);
  }
  // The same, as the server has it, and as a new page of the visitor sees it.
  const messages = await stage.stored(page);
  const visitors = messages.filter(({ role }) => role === "visitor").map(({ text }) => text);
  assert.deepEqual(visitors, asked);
  assert.deepEqual(messages.map(({ seq }) => seq), messages.map((_, index) => index + 1));
  await page.reload();
  await eventually("the reloaded page shows the same", async () => {
    const shown = await bubbles(page);
    return shown.length >= texts.length;
  });
  assert.deepEqual(await mine(), asked);
  assert.equal(await page.locator(".bubble.failed").count(), 1);
  assert.deepEqual(noted, []);
  await context.close();
});
