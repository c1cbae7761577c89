// The widget on another site: a blank page on an origin of its own, with the snippet.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { answerHas, bubbles, frameOf, launch, say, settled, visitor } from "./support/browser.mjs";
import { answerTo } from "./support/processes.mjs";
import { Stage } from "./support/stage.mjs";

const TOKENS = 40;
const NO_BOT = "019aa3c0-0001-7b11-8a22-334455667788";

let stage;
let hubbub;
let site;
let origin;

before(async () => {
  stage = await Stage.start({ tokens: TOKENS });
  ({ hubbub } = stage);
  site = createServer((request, response) => {
    const bot = request.url === "/none" ? NO_BOT : hubbub.demo.bot;
    response.setHeader("content-type", "text/html; charset=utf-8");
    response.end(`<!doctype html><html lang="en"><title>Shop</title><h1>Shop</h1>
      <script src="${hubbub.url}/widget.js" data-bot="${bot}" async></script></html>`);
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
  // What was open stays open.
  await page.reload();
  const again = await frameOf(page);
  await answerHas(again, ` t${TOKENS - 1}`);
  assert.equal((await bubbles(again)).length, 2);
  assert.deepEqual(noted, []);
  await context.close();
});

// R052, R099, W3: there is no launcher, one sentence for the developer, and no tickets; and who frames the
// chat without asking is refused by the browser itself.
test("on an origin that is not allowed, the page shows nothing of the chat", { timeout: 60_000 }, async () => {
  await allow(["https://shop.example.com"]);
  const { context } = await visitor(stage.browser);
  const page = await context.newPage();
  const sentence = page.waitForEvent("console", (message) => message.text().startsWith("Hubbub"));
  await page.goto(origin);
  assert.match((await sentence).text(), new RegExp(`${origin} is not among the allowed_origins`));
  assert.equal(await page.locator(".launch, iframe, .card").count(), 0);
  const blocked = page.waitForEvent("console", (message) => /frame-ancestors/.test(message.text()));
  await page.evaluate((src) => {
    const frame = document.createElement("iframe");
    // So the server does not know who asks.
    frame.referrerPolicy = "no-referrer";
    frame.src = src;
    document.body.append(frame);
  }, `${hubbub.url}/widget/${hubbub.demo.bot}`);
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

// W3
test("an unknown bot is a sentence in the console, and in the page of its own", { timeout: 60_000 }, async () => {
  const { context } = await visitor(stage.browser);
  const page = await context.newPage();
  const sentence = page.waitForEvent("console", (message) => message.text().startsWith("Hubbub"));
  await page.goto(`${origin}/none`);
  assert.match((await sentence).text(), /no such bot/);
  assert.equal(await page.locator(".launch, iframe, .card").count(), 0);
  await page.goto(`${hubbub.url}/widget/${NO_BOT}`);
  assert.match(await page.textContent("body"), /no such bot: check the data-bot/);
  await context.close();
});

// X4
test("the visitor is the same after a reload, and no script can tell by what", { timeout: 60_000 }, async (t) => {
  await allow([origin.replace("127.0.0.1", "localhost")]);
  // Where browsers keep third parties' storage away, an older version of the widget left nothing.
  const browser = await launch(["--disable-features=TrackingProtection3pcd"]);
  t.after(() => browser.close());
  const { context, noted } = await visitor(browser);
  const page = await context.newPage();
  // Another site, so that the cookie is a third party's.
  await page.goto(origin.replace("127.0.0.1", "localhost"));
  await page.click("[aria-label='Chat with us']");
  const frame = await frameOf(page);
  // As an older version of the widget left it.
  const old = await hubbub.api("POST", `/v1/widget/${hubbub.demo.bot}/tickets`, {});
  const key = `hubbub:${hubbub.demo.bot}:visitor`;
  await frame.evaluate(([name, token]) => localStorage.setItem(name, token), [key, old.visitor.token]);
  await page.reload();
  const again = await frameOf(page);
  await again.waitForSelector(".state.on");
  await say(again, "Remember me");
  await answerHas(again, ` t${TOKENS - 1}`);
  const readable = await again.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  assert.doesNotMatch(readable, /hbv_/);
  const [cookie] = (await context.cookies()).filter(({ name }) => name === "hubbub_visitor");
  assert.equal(cookie.value, old.visitor.token, "the old token moved");
  assert.deepEqual([cookie.httpOnly, cookie.secure, cookie.sameSite], [true, true, "None"]);
  assert.equal(cookie.path, `/v1/widget/${hubbub.demo.bot}/tickets`);
  await page.reload();
  await answerHas(await frameOf(page), ` t${TOKENS - 1}`);
  assert.deepEqual(noted, []);
  await context.close();
});

// X4
test("where third parties may store nothing, the chat works all the same", { timeout: 60_000 }, async () => {
  const elsewhere = origin.replace("127.0.0.1", "localhost");
  await allow([elsewhere]);
  const { context, noted } = await visitor(stage.browser);
  const page = await context.newPage();
  await page.goto(elsewhere);
  await page.click("[aria-label='Chat with us']");
  const frame = await frameOf(page);
  const denied = await frame.evaluate(() => {
    try {
      return localStorage.length < 0;
    } catch {
      return true;
    }
  });
  assert.ok(denied, "this browser lets third parties store: the test says nothing");
  await frame.waitForSelector(".state.on");
  await say(frame, "No traces");
  await answerHas(frame, ` t${TOKENS - 1}`);
  await settled(frame);
  assert.deepEqual(await bubbles(frame), ["No traces", answerTo("No traces", TOKENS)]);
  assert.deepEqual(noted, []);
  await context.close();
});

// W2
test("a server that goes and comes back leaves the page usable meanwhile", { timeout: 120_000 }, async () => {
  await allow([origin]);
  const { context } = await visitor(stage.browser, { viewport: { width: 360, height: 740 } });
  const page = await context.newPage();
  await page.goto(origin);
  await page.waitForSelector("[aria-label='Chat with us']");
  await hubbub.kill();
  await page.click("[aria-label='Chat with us']");
  await page.waitForSelector("text=The chat is out of reach");
  assert.equal(await page.locator("iframe:visible").count(), 0);
  await page.click(".card >> text=Close");
  await page.click("[aria-label='Chat with us']");
  await hubbub.launch();
  const frame = await frameOf(page);
  await frame.waitForSelector(".state.on");
  await context.close();
});
