// How the widget looks and reads: screenshots to be seen by a person, axe in every state.

import assert from "node:assert/strict";
import { mkdir, readFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import type { Browser, Frame, Page } from "playwright-core";
import { frameOf, launch, say } from "./browser.ts";
import { BOT, TestServer } from "./server.ts";

const SHOTS = "tests/browser/shots";
const RICH = [
  "Of course! Here is what to pack for **two days** in the hills:",
  "",
  "- a *waterproof* jacket",
  "- two litres of water, and a filter",
  "- the [trail map](https://example.org/map)",
  "",
  "```sh",
  "pack --days 2 --season autumn --weather rain --and-a-very-long-option",
  "```",
  "",
  "It costs $5 a day, or $10 with `--insurance`. Have a good walk!",
].join("\n");

let server: TestServer;
let browser: Browser;
let origin: string;

before(async () => {
  await mkdir(SHOTS, { recursive: true });
  server = new TestServer();
  origin = await server.start();
  browser = await launch();
});
after(async () => {
  await browser.close();
  await server.stop();
});

async function axe(view: Page | Frame): Promise<string[]> {
  const source = await readFile("node_modules/axe-core/axe.min.js", "utf8");
  await view.evaluate(source);
  const result = await view.evaluate(() =>
    (globalThis as unknown as { axe: { run(): Promise<{ violations: unknown[] }> } }).axe.run(),
  );
  return (
    result.violations as { id: string; nodes: { html: string; failureSummary: string }[] }[]
  ).map(
    ({ id, nodes }) => `${id}: ${nodes.map((n) => `${n.html} ${n.failureSummary}`).join(" | ")}`,
  );
}

for (const scheme of ["light", "dark"] as const) {
  for (const width of [360, 1280]) {
    test(`${scheme} at ${width} px: empty, answering, answered, failed, closed`, async () => {
      const context = await browser.newContext({
        colorScheme: scheme,
        viewport: { width, height: width === 360 ? 720 : 860 },
      });
      const page = await context.newPage();
      const shot = (name: string) =>
        page.screenshot({ path: `${SHOTS}/${scheme}-${width}-${name}.png` });
      await page.goto(`${origin}/`);
      // On a small screen the frame would cover the page, and so waits to be asked for.
      await page.waitForSelector("button");
      assert.equal(await page.locator("iframe").count(), width === 360 ? 0 : 1);
      if (width === 360) await page.click("button");
      const frame = await frameOf(page);
      await frame.waitForSelector(".state.on");
      await shot("1-empty");
      assert.deepEqual(await axe(frame), []);

      server.answer = () => ({
        text: RICH,
        queued: { position: 3, eta_ms: 7000 },
        firstMs: 60_000,
      });
      await say(frame, "What should I take along for a weekend in the hills?");
      await frame.waitForSelector(".thinking");
      await page.waitForTimeout(250);
      await shot("2-queued");
      assert.deepEqual(await axe(frame), []);
      await frame.click("button.stop");
      await frame.waitForSelector(".bubble.cancelled");

      server.answer = () => ({ text: RICH, pieces: 20 });
      await say(frame, "Sorry, once more please");
      await frame.waitForSelector("text=Have a good walk!");
      await frame.waitForSelector(".log[aria-busy=false]");
      await page.waitForTimeout(250);
      await shot("3-answered");
      assert.deepEqual(await axe(frame), []);

      server.answer = () => ({ text: "", fails: true });
      await say(frame, "مرحبا، هل لديكم خيام؟");
      await frame.waitForSelector(".bubble.failed");
      await page.waitForTimeout(250);
      await shot("4-failed");
      assert.deepEqual(await axe(frame), []);

      await frame.click("header button:last-child");
      await page.waitForTimeout(100);
      await shot("5-closed");
      assert.deepEqual(await axe(page), []);
      await context.close();
    });
  }
}

for (const scheme of ["light", "dark"] as const) {
  test(`${scheme}: a person is offered, waited for, and answers`, async () => {
    const page = await browser.newPage({
      colorScheme: scheme,
      viewport: { width: 360, height: 640 },
    });
    const shot = (name: string) => page.screenshot({ path: `${SHOTS}/${scheme}-${name}.png` });
    server.bot = { name: "Fern", greeting: "", escalation: { button: true } };
    server.answer = () => ({ text: "I can help with that. What is your order's number?" });
    const known = new Set(server.sessions.keys());
    await page.goto(`${origin}/widget/${BOT}`);
    await say(page, "My tent came without poles");
    await page.waitForSelector("text=order's number");
    await page.waitForTimeout(250);
    await shot("person-1-offered");
    assert.deepEqual(await axe(page), []);
    await page.getByRole("button", { name: "Talk to a person" }).click();
    await page.waitForSelector("text=Waiting for a person");
    await page.waitForTimeout(250);
    await shot("person-2-awaited");
    assert.deepEqual(await axe(page), []);
    const session = [...server.sessions.keys()].find((id) => !known.has(id)) ?? "";
    const olga = { kind: "operator", id: "7", name: "Olga Smirnova" } as const;
    server.hand(session, olga);
    server.put(
      session,
      "operator",
      olga.name,
      "Hello, I am Olga.\nLet me have a look at your order.",
    );
    server.put(session, "operator", olga.name, "The poles are on their way to you.");
    server.tell(session, { type: "typing", session, who: olga, on: true });
    await page.waitForSelector(".thinking");
    await page.waitForTimeout(250);
    await shot("person-3-answers");
    assert.deepEqual(await axe(page), []);
    server.bot = { name: "", greeting: "" };
    await page.close();
  });
}

test("as a page of its own, wide and dark by request", async () => {
  const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
  server.answer = () => ({ text: RICH });
  await page.goto(`${origin}/widget/${BOT}#theme=dark`);
  await say(page, "Hello");
  await page.waitForSelector("text=Have a good walk!");
  await page.waitForTimeout(250);
  await page.screenshot({ path: `${SHOTS}/page-dark.png` });
  assert.deepEqual(await axe(page), []);
  await page.close();
});

const MIXED = [
  "مرحبا! هذه قائمة (list) لرحلتك:",
  "",
  "- [x] خيمة",
  "- [ ] two litres of water",
  "- مصباح",
  "",
  "1. أولاً: الطريق 12",
  "2. then the camp",
  "",
  "| السعر | Item | n |",
  "|---|:-:|--:|",
  "| ٣ | tent | 1 |",
  "| 40 | lamp, small | 120 |",
  "",
  "> اقتباس قصير.",
  "",
  "```",
  "npm install // تثبيت",
  "```",
].join("\n");

// W6, W7
for (const scheme of ["light", "dark"] as const) {
  test(`${scheme}: both directions in one answer, tasks and columns`, async () => {
    const viewport = { width: 400, height: 860 };
    const page = await browser.newPage({ colorScheme: scheme, viewport });
    server.answer = () => ({ text: MIXED, cut: "length" });
    await page.goto(`${origin}/widget/${BOT}`);
    await say(page, "ماذا أحتاج؟\nAnd what (else)?");
    await page.waitForSelector("text=The answer was cut short.");
    await page.waitForTimeout(250);
    await page.screenshot({ path: `${SHOTS}/${scheme}-mixed.png` });
    assert.deepEqual(await axe(page), []);
    await page.close();
  });
}

test("no page reported a breach of its content security policy", () => {
  assert.deepEqual(server.cspReports, []);
  assert.deepEqual(server.unexpected, []);
});
