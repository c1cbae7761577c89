// What models do beside answering, as the visitor sees it.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { bubbles, launch, say } from "./browser.ts";
import { BOT, TestServer } from "./server.ts";

let browser: Browser;
let page: Page;
let server: TestServer;

before(async () => {
  browser = await launch();
});
after(() => browser.close());
beforeEach(async () => {
  server = new TestServer();
  page = await browser.newPage();
  await page.goto(`${await server.start()}/widget/${BOT}`);
});
afterEach(async () => {
  await page.close();
  await server.stop();
});

// M10
test("a model that thinks is said to, until its first word", async () => {
  server.answer = () => ({ text: "Forty-two.", thinking: true, firstMs: 600 });
  await say(page, "What is the answer?");
  await page.waitForSelector(".thinking");
  await page.waitForSelector("text=Thinking…");
  await page.waitForSelector("text=Forty-two.");
  assert.equal(await page.isVisible("text=Thinking…"), false);
  assert.equal(await page.isVisible(".thinking"), false);
});

// H13
test("while no model can be asked nobody is next in line", async () => {
  const queued = { position: 1, eta_ms: 20_000, paused: true };
  server.answer = () => ({ text: "At last.", queued, firstMs: 600 });
  await say(page, "Hello?");
  await page.waitForSelector("text=No answers at the moment · next try in 20 s");
  assert.equal(await page.isVisible("text=Next in line"), false);
  await page.waitForSelector("text=At last.");
});

// M3
test("an answer that was cut short says so, and can be gone on with", async () => {
  server.answer = () => ({ text: "Half of", cut: "length" });
  await say(page, "Tell me all");
  await page.waitForSelector("text=The answer was cut short.");
  await page.waitForSelector(".bubble.cut time");
  server.answer = () => ({ text: "the other half" });
  await page.click(".line >> text=Continue");
  await page.waitForSelector("text=the other half");
  assert.deepEqual(await bubbles(page), ["Tell me all", "Half of", "Continue", "the other half"]);
  assert.equal(await page.locator(".bubble button").count(), 0);
  await page.reload();
  await page.waitForSelector("text=The answer was cut short.");
});

// M3, W9
test("a failed answer keeps its text, and can be asked for again after other messages too", async () => {
  server.answer = () => ({ text: "The dose is not more than", fails: true });
  await say(page, "What is the dose?");
  await page.waitForSelector("text=No model could answer.");
  server.answer = (text) => ({ text: `You said: ${text}` });
  await say(page, "Never mind");
  await page.waitForSelector("text=You said: Never mind");
  assert.equal((await bubbles(page))[1], "The dose is not more than");
  await page.click(".bubble.failed >> text=Try again");
  await page.waitForSelector("text=You said: What is the dose?");
  assert.equal((await bubbles(page)).length, 6);
  // It was asked again: once more would be too much.
  assert.equal(await page.locator(".bubble button").count(), 0);
});
