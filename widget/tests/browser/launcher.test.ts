// The launcher on somebody's page: what it does when the chat cannot load, when the set-up is wrong,
// and what it remembers from page to page.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { after, afterEach, before, beforeEach, test } from "node:test";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { frameOf, launch, say } from "./browser.ts";
import { BOT, TestServer } from "./server.ts";

const SHOTS = "tests/browser/shots";
const PHONE = { width: 360, height: 740 };
const DESKTOP = { width: 1280, height: 800 };
const LAUNCHER = ".launch";

let browser: Browser;
let context: BrowserContext;
let server: TestServer;
let origin: string;
let site: Server;
/** What pages said in the console, whatever kind it is. */
let told: string[];
/** Of the script tag on the site's pages. */
let attributes: string;
let head: string;

before(async () => {
  await mkdir(SHOTS, { recursive: true });
  browser = await launch();
});
after(() => browser.close());
beforeEach(async () => {
  server = new TestServer();
  origin = await server.start();
  attributes = `data-bot="${BOT}"`;
  head = "";
  told = [];
  site = createServer((_, response) => {
    response.setHeader("content-type", "text/html; charset=utf-8");
    response.end(`<!doctype html><html lang="en"><title>Shop</title>${head}
      <body><h1>Shop</h1><p><a href="/next">Next page</a></p><button id="buy">Buy</button>
      <script src="${origin}/widget.js" ${attributes} async></script></body></html>`);
  });
  await new Promise<void>((resolve) => site.listen(0, "127.0.0.1", resolve));
});
afterEach(async () => {
  await context.close();
  site.closeAllConnections();
  site.close();
  await server.stop();
});

async function shop(viewport = DESKTOP, more = {}): Promise<Page> {
  context = await browser.newContext({ viewport, ...more });
  const page = await context.newPage();
  page.on("console", (message) => told.push(message.text()));
  await page.goto(`http://127.0.0.1:${(site.address() as AddressInfo).port}/`);
  return page;
}

/** Waits until a page says something in its console. */
async function says(page: Page, words: string): Promise<void> {
  while (!told.some((text) => text.includes(words))) await page.waitForTimeout(50);
}

/** Whether the page's own button can be pressed: nothing covers it. */
const usable = (page: Page) => page.click("#buy", { timeout: 2_000, trial: true });

// W2
for (const viewport of [PHONE, DESKTOP]) {
  test(`a chat that cannot load is a small notice that goes and comes back, at ${viewport.width} px`, async () => {
    const page = await shop(viewport);
    await page.waitForSelector(LAUNCHER);
    const port = Number(new URL(origin).port);
    await server.stop();
    await page.click(LAUNCHER);
    await page.waitForSelector("text=The chat is out of reach. Trying again…");
    assert.equal(await page.locator("iframe:visible").count(), 0);
    await usable(page);
    await page.screenshot({ path: `${SHOTS}/away-${viewport.width}.png` });
    const card = await (await page.$(".card"))?.boundingBox();
    assert.ok(card && card.height < 120 && card.width <= 320, JSON.stringify(card));
    await page.click(".card >> text=Close");
    await page.waitForSelector(".card", { state: "hidden" });
    await page.click(LAUNCHER);
    await page.waitForSelector("text=The chat is out of reach");
    // It tries again by itself, and shows the chat as soon as there is one.
    await server.start(port);
    await page.waitForSelector("iframe", { state: "visible", timeout: 40_000 });
    await page.waitForSelector(".card", { state: "hidden" });
    const frame = await frameOf(page);
    await say(frame, "Hello");
    await frame.waitForSelector("text=You said: Hello");
  });
}

// W2
test("trying again at once is possible too, and closing and opening recovers", async () => {
  const page = await shop();
  await page.waitForSelector(LAUNCHER);
  const port = Number(new URL(origin).port);
  await server.stop();
  await page.click(LAUNCHER);
  await page.waitForSelector("text=The chat is out of reach");
  // The pauses grow: by now the next attempt is seconds away.
  await page.waitForTimeout(9_000);
  await server.start(port);
  await page.click(".card >> text=Try again");
  await page.waitForSelector("iframe", { state: "visible", timeout: 10_000 });
  await page.click(LAUNCHER);
  await page.waitForSelector("iframe", { state: "hidden" });
  await page.click(LAUNCHER);
  await page.waitForSelector("iframe", { state: "visible" });
});

// W2
test("a chat that only never comes is told of, and can be given up", async () => {
  const page = await shop(PHONE);
  await page.waitForSelector(LAUNCHER);
  server.hangs = true;
  // A click of the test's own would wait for the frame.
  await page.$eval(LAUNCHER, (button) => (button as HTMLElement).click());
  await page.waitForSelector("text=Opening the chat…");
  await usable(page);
  await page.click(".card >> text=Close");
  await page.waitForSelector(".card", { state: "hidden" });
});

// W2: error pages load, too.
test("an answer that is not the chat is taken for what it is", async () => {
  const page = await shop(PHONE);
  await page.waitForSelector(LAUNCHER);
  await page.route(`**/widget/${BOT}`, (route) =>
    route.fulfill({ status: 502, body: "Bad gateway" }),
  );
  await page.click(LAUNCHER);
  await page.waitForSelector("text=The chat is out of reach", { timeout: 8_000 });
  await usable(page);
});

// W3
test("a wrong set-up is a sentence in the console, and nothing on the page", async () => {
  server.refused = "https://shop.example is not among the allowed_origins of this bot.";
  const page = await shop();
  await says(page, "allowed_origins");
  assert.equal(await page.locator(`${LAUNCHER}, iframe, .card`).count(), 0);
  const ours = told.filter((text) => text.startsWith("Hubbub"));
  assert.deepEqual(ours, [`Hubbub: the chat is not shown. ${server.refused}`]);
});

// W3
test("a set-up that went wrong since takes the launcher away", async () => {
  const page = await shop();
  await page.waitForSelector(LAUNCHER);
  server.refused = "This server has no such bot.";
  await page.click(LAUNCHER);
  await page.waitForSelector(LAUNCHER, { state: "detached" });
  assert.equal(await page.locator("iframe").count(), 0);
  assert.equal(told.filter((text) => text.startsWith("Hubbub")).length, 1);
  await page.reload();
  while (told.filter((text) => text.startsWith("Hubbub")).length < 2) await page.waitForTimeout(50);
  assert.equal(await page.locator(`${LAUNCHER}:visible`).count(), 0);
});

// W3
test("a page whose own policy keeps the frame out is told which directive it is", async () => {
  head = `<meta http-equiv="content-security-policy" content="frame-src 'none'">`;
  const page = await shop();
  await says(page, "Its frame-src forbids");
  assert.equal(await page.locator(`${LAUNCHER}:visible, iframe:visible`).count(), 0);
});

// W3
test("an ordinary first opening says nothing in the console, and asks about the set-up once", async () => {
  const asked: string[] = [];
  const page = await shop();
  page.on("request", (request) => asked.push(new URL(request.url()).pathname));
  await page.click(LAUNCHER);
  const frame = await frameOf(page);
  await frame.waitForSelector(".state.on");
  await page.click("a");
  await page.waitForURL("**/next");
  await page.waitForSelector(LAUNCHER);
  assert.deepEqual(told, []);
  assert.equal(asked.filter((path) => path.endsWith("/setup")).length, 0);
});

// W4
for (const viewport of [DESKTOP, PHONE]) {
  test(`a chat that is open stays open from page to page, at ${viewport.width} px`, async () => {
    const page = await shop(viewport);
    await page.click(LAUNCHER);
    await say(await frameOf(page), "Hello");
    await page.reload();
    await page.waitForSelector("iframe", { state: "visible" });
    const frame = await frameOf(page);
    await frame.waitForSelector("text=You said: Hello");
    // Nobody asked to write: the page keeps its focus, and a phone its keyboard down.
    assert.equal(await page.evaluate(() => document.activeElement?.localName), "body");
    await frame.click("[aria-label='Close chat']");
    // The page learns of it by a message.
    await page.waitForSelector("iframe", { state: "hidden" });
    await page.reload();
    await page.waitForSelector(LAUNCHER);
    await page.waitForTimeout(300);
    assert.equal(await page.locator("iframe:visible").count(), 0);
  });
}

// W4
test("who closed a chat that opens by itself has it closed on the next page", async () => {
  attributes += " data-open";
  const page = await shop();
  await page.waitForSelector("iframe", { state: "visible" });
  await page.click(LAUNCHER);
  await page.reload();
  await page.waitForSelector(LAUNCHER);
  await page.waitForTimeout(300);
  assert.equal(await page.locator("iframe:visible").count(), 0);
});

// W4
test("what came in is counted on the launcher, also on a page that never opened the chat", async () => {
  const page = await shop();
  await page.click(LAUNCHER);
  const frame = await frameOf(page);
  server.answer = (text) => ({ text: `Answer to ${text}`, firstMs: 700 });
  await say(frame, "one");
  await frame.waitForSelector(".thinking");
  await frame.click("[aria-label='Close chat']");
  await page.waitForSelector("[aria-label='Chat with us (1 new)']");
  await page.goto(`${page.url()}next`);
  await page.waitForSelector("[aria-label='Chat with us (1 new)']");
  assert.equal(await page.locator("iframe:visible").count(), 0);
  await page.screenshot({ path: `${SHOTS}/unread.png` });
  await page.click(LAUNCHER);
  await page.waitForSelector("[aria-label='Chat with us']");
  await page.reload();
  await page.waitForSelector("iframe", { state: "visible" });
  assert.equal(await page.locator("[data-unread]").count(), 0);
});

// W4
test("a page of who never talked costs no frame", async () => {
  const page = await shop();
  await page.waitForSelector(LAUNCHER);
  await page.waitForTimeout(1_500);
  assert.equal(await page.locator("iframe").count(), 0);
  assert.equal(server.tokens.length, 0);
});

// W5
for (const [name, viewport] of Object.entries({
  landscape: { width: 740, height: 360 },
  zoomed: { width: 640, height: 400 },
  "zoomed-more": { width: 320, height: 256 },
})) {
  test(`${name}: the conversation has room`, async () => {
    const page = await shop(viewport);
    await page.click(LAUNCHER);
    const frame = await frameOf(page);
    server.answer = () => ({ text: "Of course. ".repeat(40) });
    await say(frame, "What can I take along?");
    await frame.waitForSelector(".them time");
    const box = await (await page.$("iframe"))?.boundingBox();
    assert.deepEqual(box, { x: 0, y: 0, ...viewport });
    const log = await (await frame.$(".log"))?.boundingBox();
    assert.ok(
      (log?.height ?? 0) >= viewport.height * 0.55,
      `${log?.height} px of ${viewport.height}`,
    );
    await page.screenshot({ path: `${SHOTS}/${name}.png` });
    await frame.click("[aria-label='Close chat']");
    await page.waitForSelector("iframe", { state: "hidden" });
  });
}

// W5
for (const [name, options] of Object.entries({
  "forced-colours": { forcedColors: "active" },
  "dark-on-dark": { colorScheme: "dark" },
  "no-motion": { reducedMotion: "reduce" },
} as const)) {
  test(`${name}: the panel has an edge, and nothing moves that need not`, async () => {
    head = "<style>body{background:#141817;color:#fff}</style>";
    const page = await shop(DESKTOP, options);
    await page.click(LAUNCHER);
    const frame = await frameOf(page);
    server.answer = () => ({ text: "Of course.", firstMs: 60_000 });
    await say(frame, "What can I take along?");
    await frame.waitForSelector(".thinking");
    const edge = await page.$eval("iframe", (one) => {
      const { borderTopWidth, boxShadow } = getComputedStyle(one);
      return { border: Number.parseFloat(borderTopWidth), boxShadow };
    });
    if (name === "forced-colours") assert.ok(edge.border >= 1, JSON.stringify(edge));
    else assert.match(edge.boxShadow, /0px 0px 0px 1px/);
    const moving = await frame.evaluate(() => document.getAnimations().length);
    assert.equal(moving > 0, name !== "no-motion");
    await page.screenshot({ path: `${SHOTS}/${name}.png` });
  });
}
