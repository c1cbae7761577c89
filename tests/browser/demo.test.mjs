// The demo as `make run` has it: the page, the widget, the embedded model.

import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { bubbles, frameOf, launch, say, settled, visitor } from "./support/browser.mjs";
import { Hubbub } from "./support/processes.mjs";

/** A small model on a busy machine: some seconds to its first word, then a few words a second. */
const ANSWER_MS = 90_000;

let browser;
let hubbub;

before(async () => {
  requireWeights();
  hubbub = await Hubbub.start();
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await hubbub?.stop();
});

function requireWeights() {
  const folder = join(process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache"), "hubbub");
  let files = [];
  try {
    files = readdirSync(folder);
  } catch {
    // No folder: no weights.
  }
  const found = files.some((name) => name.endsWith(".gguf"));
  assert.ok(found, `the demo model's weights are missing in ${folder}: run \`make model\``);
}

// R001, R003, R004: from the script tag to the model's last word.
test("the demo page answers a question, streamed, by the embedded model", { timeout: 120_000 }, async (t) => {
  const { context, noted } = await visitor(browser);
  const page = await context.newPage();
  await page.goto(hubbub.url);
  const frame = await frameOf(page);
  await frame.waitForSelector(".state.on");
  await frame.evaluate(() => {
    globalThis.lengths = [];
    const note = () => {
      const text = document.querySelector(".bubble.them .text")?.textContent ?? "";
      if (text.length > (globalThis.lengths.at(-1) ?? 0)) globalThis.lengths.push(text.length);
    };
    const all = { childList: true, subtree: true, characterData: true };
    new MutationObserver(note).observe(document.querySelector(".log"), all);
  });
  const asked = Date.now();
  await say(frame, "What should I bring for a day hike?");
  await frame.waitForSelector(".thinking");
  await frame.waitForSelector(".bubble.them .text", { timeout: ANSWER_MS });
  t.diagnostic(`first words after ${Date.now() - asked} ms`);
  await frame.waitForSelector(".log[aria-busy=false]", { timeout: ANSWER_MS });
  await settled(frame);
  t.diagnostic(`whole answer after ${Date.now() - asked} ms`);
  const lengths = await frame.evaluate(() => globalThis.lengths);
  assert.ok(lengths.length >= 3, `the text did not grow in steps: ${lengths}`);
  const texts = await bubbles(frame);
  assert.equal(texts.length, 2);
  assert.ok(texts[1].length > 20, `hardly an answer: ${texts[1]}`);
  assert.equal(await frame.locator(".bubble.failed").count(), 0);
  assert.equal(await frame.locator(".bubble.them time").count(), 1);
  assert.deepEqual(noted, []);
  await context.close();
});
