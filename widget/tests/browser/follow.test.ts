// The newest stays in sight, whatever changes its size, until the reader looks further up; then what
// they read stays where it is.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import type { Browser, BrowserContext, Frame, Page } from "playwright-core";
import { frameOf, launch, say } from "./browser.ts";
import { BOT, TestServer } from "./server.ts";

const SENDS = 50;
const SIZES = [
  { width: 1280, height: 800 },
  { width: 360, height: 740 },
  { width: 740, height: 360 },
];

let browser: Browser;
let context: BrowserContext;
let server: TestServer;
let origin: string;

before(async () => {
  browser = await launch();
});
after(() => browser.close());
beforeEach(async () => {
  server = new TestServer();
  origin = await server.start();
});
afterEach(async () => {
  await context.close();
  await server.stop();
});

/** A conversation that is taller than the window. */
async function open(viewport: { width: number; height: number }, more = {}): Promise<Page> {
  context = await browser.newContext({ viewport, ...more });
  const session = server.openSession(60);
  await context.addInitScript(
    ([bot, id]) => localStorage.setItem(`hubbub:${bot}:session`, id ?? ""),
    [BOT, session],
  );
  const page = await context.newPage();
  await page.goto(`${origin}/widget/${BOT}`);
  await page.waitForSelector("text='Message number 60'");
  return page;
}

/** How far the end of the conversation is below the view, and whether the way to it is offered. */
const end = (view: Page | Frame) =>
  view.evaluate(async () => {
    // What was changed is laid out, and told, within two frames.
    for (const _ of "123") await new Promise(requestAnimationFrame);
    const log = document.querySelector(".log") as HTMLElement;
    const last = [...document.querySelectorAll(".bubble")].at(-1) as HTMLElement;
    const below = last.getBoundingClientRect().bottom - log.getBoundingClientRect().bottom;
    const left = log.scrollHeight - log.scrollTop - log.clientHeight;
    return {
      inSight: below <= 1 && left <= 1,
      offered: document.querySelector(".latest") !== null,
      told: `${Math.round(below)} px below, ${Math.round(left)} px left`,
    };
  });

async function atEnd(view: Page | Frame, when: string): Promise<void> {
  const { inSight, offered, told } = await end(view);
  assert.ok(inSight && !offered, `${when}: ${told}${offered ? ", jump offered" : ""}`);
}

/** Where the first message in the view is. */
const place = (page: Page) =>
  page.evaluate(async () => {
    for (const _ of "123") await new Promise(requestAnimationFrame);
    const log = document.querySelector(".log")?.getBoundingClientRect() as DOMRect;
    const all = [...document.querySelectorAll(".bubble")];
    const first = all.find((one) => one.getBoundingClientRect().bottom > log.top);
    return { at: all.indexOf(first as Element), top: first?.getBoundingClientRect().top ?? 0 };
  });

const ANSWER = Array.from({ length: 60 }, (_, n) => `word${n} of it`).join(" and ");

// W1
for (const viewport of SIZES) {
  test(`${SENDS} sends while answers stream, at ${viewport.width}×${viewport.height}`, async () => {
    const page = await open(viewport);
    server.answer = (text) => ({ text: `${text} ${ANSWER}`, pieces: 30, everyMs: 4, firstMs: 30 });
    for (let n = 0; n < SENDS; n += 1) {
      // The composer grows to a different height each time, and is small again after the sending.
      await page.fill("textarea", Array.from({ length: 1 + (n % 6) }, () => `m${n}`).join("\n"));
      await atEnd(page, `written ${n}`);
      await page.press("textarea", "Enter");
      await atEnd(page, `sent ${n}`);
      await page.waitForFunction((id) => document.querySelectorAll(".bubble.me").length > id, n);
      await atEnd(page, `shown ${n}`);
      if (n % 5 === 0) await page.waitForSelector(".log[aria-busy=false]");
      await atEnd(page, `answered ${n}`);
    }
    assert.equal(server.sends.length, SENDS);
  });
}

// W1
test("in a page that embeds it too, also while it is hidden and shown again", async () => {
  context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  await page.goto(origin);
  const frame = await frameOf(page);
  server.answer = (text) => ({ text: `${text} ${ANSWER}`, pieces: 30, everyMs: 10 });
  for (let n = 0; n < 8; n += 1) {
    await say(frame, `m${n}`);
    await frame.waitForSelector(`.them >> text=m${n} word0`);
    await atEnd(frame, `sent ${n}`);
    await frame.click("[aria-label='Close chat']");
    await page.click("[aria-label^='Chat with us']");
    await page.waitForSelector("iframe", { state: "visible" });
    await atEnd(frame, `opened again ${n}`);
  }
});

/** The ways a reader looks further up. */
const GESTURES: Record<string, (page: Page) => Promise<void>> = {
  wheel: async (page) => {
    await page.hover(".log");
    await page.mouse.wheel(0, -400);
  },
  "a slow touch pad": async (page) => {
    await page.hover(".log");
    for (let n = 0; n < 60; n += 1) await page.mouse.wheel(0, -3);
  },
  keys: async (page) => {
    await page.focus(".log");
    await page.keyboard.press("PageUp");
  },
  touch: async (page) => {
    const touch = await page.context().newCDPSession(page);
    const send = (type: string, y?: number) =>
      touch.send(
        "Input.dispatchTouchEvent" as never,
        {
          type,
          touchPoints: y === undefined ? [] : [{ x: 150, y }],
        } as never,
      );
    await send("touchStart", 200);
    for (let y = 220; y <= 500; y += 20) await send("touchMove", y);
    await send("touchEnd");
  },
  "the scroll bar": async (page) => {
    const box = await (await page.$(".log"))?.boundingBox();
    const [x, bottom] = [(box?.x ?? 0) + (box?.width ?? 0) - 4, (box?.y ?? 0) + (box?.height ?? 0)];
    await page.mouse.move(x, bottom - 20);
    await page.mouse.down();
    await page.mouse.move(x, bottom - 120, { steps: 8 });
    await page.mouse.up();
  },
};

// W1
for (const [name, look] of Object.entries(GESTURES)) {
  test(`who looks further up by ${name} is left alone, and a sending comes back`, async () => {
    const page = await open({ width: 800, height: 600 }, { hasTouch: name === "touch" });
    server.answer = (text) => ({ text: `${text} ${ANSWER}`, pieces: 300, everyMs: 8 });
    await say(page, "Go on");
    await page.waitForSelector("text=word3 of it");
    await look(page);
    await page.waitForSelector(".latest");
    // Momentum and smooth scrolling come to rest.
    let rest = await place(page);
    for (;;) {
      await page.waitForTimeout(300);
      const now = await place(page);
      if (now.at === rest.at && Math.abs(now.top - rest.top) <= 1) break;
      rest = now;
    }
    // The answer goes on, ends, and the composer grows and shrinks: nothing of it moves the view.
    await page.fill("textarea", "one\ntwo\nthree\nfour");
    await page.waitForSelector(".log[aria-busy=false]");
    await page.fill("textarea", "");
    const now = await place(page);
    assert.equal(now.at, rest.at);
    assert.ok(Math.abs(now.top - rest.top) <= 1, `moved by ${now.top - rest.top} px`);
    assert.equal(await page.isVisible(".latest"), true);
    await say(page, "Back again");
    await page.waitForSelector(".them >> text=Back again word0");
    await atEnd(page, "after sending");
  });
}

// W1
test("coming back to the end by hand follows again", async () => {
  const page = await open({ width: 800, height: 600 });
  await page.hover(".log");
  await page.mouse.wheel(0, -600);
  await page.waitForSelector(".latest");
  await page.mouse.wheel(0, 2000);
  await page.waitForSelector(".latest", { state: "detached" });
  await say(page, "Go on");
  await page.waitForSelector(".them >> text=You said: Go on");
  await atEnd(page, "back");
});

// W1
test("turning the phone and its keyboard keep the newest in sight", async () => {
  const page = await open({ width: 360, height: 740 });
  for (const size of [
    { width: 360, height: 400 },
    { width: 360, height: 740 },
    { width: 740, height: 360 },
    { width: 740, height: 180 },
    { width: 360, height: 740 },
  ]) {
    await page.setViewportSize(size);
    await atEnd(page, `${size.width}×${size.height}`);
  }
});
