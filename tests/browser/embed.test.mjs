// The widget on another site: a blank page on an origin of its own, with the snippet.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { answerHas, bubbles, frameOf, say, settled, visitor } from "./support/browser.mjs";
import { answerTo } from "./support/processes.mjs";
import { Stage } from "./support/stage.mjs";

const TOKENS = 40;

let stage;
let hubbub;
let site;
let origin;

before(async () => {
  stage = await Stage.start({ tokens: TOKENS });
  ({ hubbub } = stage);
  site = createServer((_, response) => {
    response.setHeader("content-type", "text/html; charset=utf-8");
    response.end(`<!doctype html><html lang="en"><title>Shop</title><h1>Shop</h1>
      <script src="${hubbub.url}/widget.js" data-bot="${hubbub.demo.bot}" async></script></html>`);
  }).listen(0, "127.0.0.1");
  await once(site, "listening");
  origin = `http://127.0.0.1:${site.address().port}`;
});
after(async () => {
  site?.closeAllConnections();
  site?.close();
  await stage?.stop();
});

const allow = (origins) =>
  hubbub.api("PATCH", `/v1/bots/${hubbub.demo.bot}`, { allowed_origins: origins });

// R099: the limit is 2 s.
test("the snippet in a blank page opens a working chat, on an allowed origin", { timeout: 60_000 }, async (t) => {
  await allow([origin]);
  const { context, noted } = await visitor(stage.browser);
  const page = await context.newPage();
  const start = Date.now();
  await page.goto(origin);
  await page.click("[aria-label='Chat with us']");
  const frame = await frameOf(page);
  await frame.waitForSelector(".state.on");
  const took = Date.now() - start;
  // Who answers is known before the first answer.
  assert.equal(await frame.textContent("h1"), "Fern");
  t.diagnostic(`online ${took} ms after the page was asked for`);
  assert.ok(took < 2_000, `online only after ${took} ms`);
  await say(frame, "Hello from the shop");
  await answerHas(frame, ` t${TOKENS - 1}`);
  await settled(frame);
  assert.deepEqual(await bubbles(frame), ["Hello from the shop", answerTo("Hello from the shop", TOKENS)]);
  await page.reload();
  await page.click("[aria-label='Chat with us']");
  const again = await frameOf(page);
  await answerHas(again, ` t${TOKENS - 1}`);
  assert.equal((await bubbles(again)).length, 2);
  assert.deepEqual(noted, []);
  await context.close();
});

// R052, R099: the browser itself refuses the frame, and the server refuses the page's tickets.
test("on an origin that is not allowed, the browser blocks the frame", { timeout: 60_000 }, async () => {
  await allow(["https://shop.example.com"]);
  const { context } = await visitor(stage.browser);
  const page = await context.newPage();
  await page.goto(origin);
  const blocked = page.waitForEvent("console", (message) => /frame-ancestors/.test(message.text()));
  await page.click("[aria-label='Chat with us']");
  await blocked;
  const frame = await (await page.waitForSelector("iframe", { state: "attached" })).contentFrame();
  assert.equal(await frame.locator("main.frame").count(), 0);
  const ticket = () =>
    fetch(`${hubbub.url}/v1/widget/${hubbub.demo.bot}/tickets`, {
      method: "POST",
      headers: { "content-type": "application/json", origin },
      body: "{}",
    });
  assert.equal((await ticket()).status, 403);
  await allow([origin]);
  assert.equal((await ticket()).status, 201);
  await context.close();
});

test("by keyboard alone: open, write, send, stop, close, and be back at the launcher", { timeout: 60_000 }, async () => {
  await allow([origin]);
  const { context, noted } = await visitor(stage.browser);
  const page = await context.newPage();
  await page.goto(origin);
  await page.waitForSelector("[aria-label='Chat with us']");
  const launcher = () =>
    page.evaluate(() => document.activeElement?.shadowRoot?.activeElement?.getAttribute("aria-label"));
  await page.keyboard.press("Tab");
  assert.equal(await launcher(), "Chat with us");
  await page.keyboard.press("Enter");
  const frame = await frameOf(page);
  await frame.waitForFunction(() => document.activeElement?.localName === "textarea");
  await frame.waitForSelector(".state.on");
  await page.keyboard.type("One");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two");
  await page.keyboard.press("Enter");
  await answerHas(frame, " t3");
  assert.equal((await bubbles(frame))[0], "One\ntwo");
  await page.keyboard.press("Tab");
  const at = await frame.evaluate(() => document.activeElement?.getAttribute("aria-label"));
  assert.equal(at, "Stop answering");
  await page.keyboard.press("Enter");
  await frame.waitForSelector(".bubble.cancelled");
  await settled(frame);
  // The button that was pressed is gone; whoever pressed it goes on in the field.
  await frame.waitForFunction(() => document.activeElement?.localName === "textarea");
  await page.keyboard.press("Escape");
  await page.waitForSelector("iframe", { state: "hidden" });
  assert.equal(await launcher(), "Chat with us");
  await page.keyboard.press("Enter");
  await frame.waitForFunction(() => document.activeElement?.localName === "textarea");
  assert.equal((await bubbles(frame)).length, 2);
  assert.deepEqual(noted, []);
  await context.close();
});
