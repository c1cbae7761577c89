// How it looks and reads: axe finds nothing in any state, and each state leaves a picture in shots/
// for a person to look at.

import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import { answerHas, axe, frameOf, launch, say, settled, still, visitor } from "./support/browser.mjs";
import { Parrot } from "./support/parrot.mjs";
import { Hubbub, withUpstreams } from "./support/processes.mjs";

const SHOTS = fileURLToPath(new URL("shots/", import.meta.url));
const RICH = `Of course! Here is what to pack for **two days** in the hills:

- a *waterproof* jacket
- two litres of water, and a filter
- the [trail map](https://example.org/map)

\`\`\`sh
pack --days 2 --season autumn --weather rain --and-a-very-long-option
\`\`\`

It costs $5 a day, or $10 with \`--insurance\`. Have a good walk!`;

let browser;
let hubbub;
let parrot;

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  parrot = await Parrot.start();
  hubbub = await Hubbub.start(withUpstreams({ parrot: parrot.url }));
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await hubbub?.stop();
  await parrot?.stop();
});

for (const colorScheme of ["light", "dark"]) {
  for (const [width, height] of [[1280, 860], [360, 720]]) {
    test(`${colorScheme}, ${width} px: open, answering, answered, offline, closed`, { timeout: 90_000 }, async () => {
      const { context, noted } = await visitor(browser, { colorScheme, viewport: { width, height } });
      const page = await context.newPage();
      await page.goto(hubbub.url);
      // On a small screen the frame would cover the page, and so waits to be asked for.
      await page.waitForSelector("[aria-label='Chat with us']");
      assert.equal(await page.locator("iframe").count(), width === 360 ? 0 : 1);
      if (width === 360) await page.click("[aria-label='Chat with us']");
      const frame = await frameOf(page);
      const look = async (state) => {
        await still(frame);
        await page.screenshot({ path: `${SHOTS}/${colorScheme}-${width}-${state}.png` });
        assert.deepEqual(await axe(page), [], `the page, ${state}`);
        assert.deepEqual(await axe(frame), [], `the frame, ${state}`);
        // Nothing sticks out to the side.
        for (const view of [page, frame]) {
          const sideways = await view.evaluate(() => {
            const { scrollWidth, clientWidth } = document.documentElement;
            return scrollWidth - clientWidth;
          });
          assert.equal(sideways, 0, `${state} scrolls sideways`);
        }
      };
      await frame.waitForSelector(".state.on");
      await look("1-open");

      // The last words come when the pictures of the middle are taken.
      parrot.answer = () => ({ text: RICH, pieces: 4, firstMs: 100, everyMs: 60_000 });
      await say(frame, "What should I take along for a weekend in the hills?");
      await answerHas(frame, "Of course!");
      await look("2-answering");
      await frame.click("[aria-label='Stop answering']");
      await frame.waitForSelector(".bubble.cancelled");

      parrot.answer = () => ({ text: RICH, pieces: 20 });
      await say(frame, "Sorry, all of it, please");
      await answerHas(frame, "Have a good walk!");
      await settled(frame);
      await look("3-answered");

      await context.setOffline(true);
      await frame.waitForSelector(".banner:visible");
      await say(frame, "Do you have a tent for three?");
      await frame.waitForSelector("text=Waiting to send");
      await look("4-offline");
      parrot.answer = () => ({ text: "Yes, we do." });
      await context.setOffline(false);
      await answerHas(frame, "Yes, we do.");
      await settled(frame);

      await frame.click("[aria-label='Close chat']");
      await page.waitForSelector("iframe", { state: "hidden" });
      await page.screenshot({ path: `${SHOTS}/${colorScheme}-${width}-5-closed.png` });
      assert.deepEqual(await axe(page), [], "the page, closed");
      assert.deepEqual(noted, []);
      await context.close();
    });
  }
}
