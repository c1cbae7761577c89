// The chat in a real browser: streaming, reload, lost connections, two tabs, history, keyboard.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import type { Browser, BrowserContext } from "playwright-core";
import { bubbles, frameOf, launch, say } from "./browser.ts";
import { BOT, TestServer } from "./server.ts";

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
  context = await browser.newContext();
});
afterEach(async () => {
  await context.close();
  await server.stop();
});

const open = async (path = `/widget/${BOT}`) => {
  const page = await context.newPage();
  await page.goto(origin + path);
  return page;
};
const LONG = Array.from({ length: 60 }, (_, n) => `word${n}`).join(" ");

test("an answer streams, with dots before its first word and none after it", async () => {
  const page = await open();
  server.answer = () => ({ text: LONG, pieces: 40, everyMs: 15, firstMs: 200 });
  await say(page, "Go on");
  await page.waitForSelector(".thinking");
  assert.equal(await page.getAttribute(".log", "aria-busy"), "true");
  await page.waitForSelector("text=word3");
  assert.equal(await page.isVisible("text=word59"), false);
  assert.equal(await page.isVisible(".thinking"), false);
  await page.waitForSelector("text=word59");
  await page.waitForSelector(".log[aria-busy=false]");
  assert.deepEqual(await bubbles(page), ["Go on", LONG]);
});

test("a reload in mid-answer keeps everything and doubles nothing", async () => {
  const page = await open();
  server.answer = () => ({ text: LONG, pieces: 40, everyMs: 25 });
  await say(page, "Go on");
  await page.waitForSelector("text=word5");
  await page.reload();
  await page.waitForSelector("text=word59");
  await page.waitForSelector(".log[aria-busy=false]");
  assert.deepEqual(await bubbles(page), ["Go on", LONG]);
});

test("a message without an answer is sent again after a reload, under its id", async () => {
  const page = await open();
  await say(page, "First");
  await page.waitForSelector("text=You said: First");
  server.deaf = true;
  await say(page, "Second");
  await page.waitForSelector("text=Sending…");
  server.deaf = false;
  await page.reload();
  await page.waitForSelector("text=You said: Second");
  const ids = server.sends.filter(({ text }) => text === "Second").map(({ id }) => id);
  assert.equal(ids.length, 2);
  assert.equal(new Set(ids).size, 1);
  assert.deepEqual(await bubbles(page), ["First", "You said: First", "Second", "You said: Second"]);
});

test("twenty cuts in a conversation: every message is stored once, in order", async () => {
  const page = await open();
  // Jitter is for crowds; a test of one has no need to wait.
  await page.evaluate(() => {
    Math.random = () => 0.02;
  });
  await page.waitForSelector(".state.on");
  for (let n = 0; n < 20; n += 1) {
    server.answer = (text) => ({ text: `Answer to ${text}`, pieces: 6, everyMs: 5 });
    await say(page, `m${n}`);
    server.cut();
    await page.waitForSelector(`text="Answer to m${n}"`);
  }
  const session = [...server.sessions.values()].find(({ messages }) => messages.length > 0);
  const asked = session?.messages.filter(({ role }) => role === "visitor").map(({ text }) => text);
  assert.deepEqual(
    asked,
    Array.from({ length: 20 }, (_, n) => `m${n}`),
  );
  const drawn = (await bubbles(page)).filter((text) => /^m\d+$/.test(text ?? ""));
  assert.deepEqual(drawn, asked);
});

test("a lost connection is shown, and messages wait for the next one", async () => {
  const page = await open();
  await page.waitForSelector(".state.on");
  await context.setOffline(true);
  await page.waitForSelector("text=Offline. Messages are sent later.");
  await say(page, "Later");
  await page.waitForSelector("text=Waiting to send");
  await context.setOffline(false);
  await page.waitForSelector("text=You said: Later");
  assert.deepEqual(await bubbles(page), ["Later", "You said: Later"]);
});

test("close code 1008 ends it with a message; 4001 offers a new chat", async () => {
  const page = await open();
  await page.waitForSelector(".state.on");
  server.cut(1008);
  await page.waitForSelector("text=This chat was closed.");
  assert.equal(await page.isDisabled("textarea"), true);
  const other = await open();
  await other.waitForSelector(".state.on");
  server.cut(4001);
  await other.waitForSelector("text=You are signed out");
  await other.click(".banner button");
  await say(other, "Again");
  await other.waitForSelector("text=You said: Again");
});

test("two tabs show the same text, and a new chat in one is a new chat in both", async () => {
  const [one, two] = [await open(), await open()];
  await two.waitForSelector(".state.on");
  server.answer = () => ({ text: LONG, pieces: 20, everyMs: 10 });
  await say(one, "Hello from one");
  for (const page of [one, two]) await page.waitForSelector("text=word59");
  await two.waitForSelector(".log[aria-busy=false]");
  assert.deepEqual(await bubbles(two), ["Hello from one", LONG]);
  await say(two, "Hello from two");
  await one.waitForSelector("text=Hello from two");
  await one.waitForFunction(() => document.querySelectorAll(".bubble .text").length === 4);
  await one.waitForSelector(".log[aria-busy=false]");
  await one.click("[aria-label='New chat']");
  for (const page of [one, two]) await page.waitForSelector(".empty");
  await say(one, "Fresh");
  await two.waitForSelector("text=Fresh");
  assert.equal(server.sessions.size, 2);
});

test("stop ends the answer where it is; a failed one can be asked again in place", async () => {
  const page = await open();
  server.answer = () => ({ text: LONG, pieces: 60, everyMs: 30 });
  await say(page, "Go on");
  await page.waitForSelector("text=word2");
  await page.click("[aria-label='Stop answering']");
  await page.waitForSelector("text=Stopped");
  assert.equal(await page.isVisible("text=word59"), false);
  assert.equal(await page.isVisible(".thinking"), false);
  server.answer = () => ({ text: "", fails: true });
  await say(page, "And now?");
  await page.waitForSelector("text=No model could answer.");
  server.answer = () => ({ text: "Now it works" });
  await page.click("text=Try again");
  await page.waitForSelector("text=Now it works");
  const texts = server.sends.map(({ text }) => text);
  assert.deepEqual(texts, ["Go on", "And now?", "And now?"]);
  assert.equal(new Set(server.sends.map(({ id }) => id)).size, 3);
});

test("a person is asked for, named, seen typing, and gives the chat back", async () => {
  server.bot = { name: "Fern", greeting: "", escalation: { button: true } };
  const page = await open();
  const offer = page.getByRole("button", { name: "Talk to a person" });
  await page.waitForSelector(".state.on");
  assert.equal(await offer.count(), 0, "nothing was said yet");
  await say(page, "hello");
  await offer.click();
  await page.waitForSelector("text=Waiting for a person");
  assert.equal(await offer.count(), 0);
  await page.reload();
  await page.waitForSelector("text=Waiting for a person");

  const [session = ""] = server.sessions.keys();
  const olga = { kind: "operator", id: "7", name: "Olga" } as const;
  server.hand(session, olga);
  await page.waitForSelector(".state:has-text('Olga answers')");
  assert.equal(await page.isVisible("text=Waiting for a person"), false);
  server.tell(session, { type: "typing", session, who: olga, on: true });
  await page.waitForSelector(".thinking");
  server.tell(session, { type: "typing", session, who: olga, on: false });
  await page.waitForSelector(".thinking", { state: "detached" });
  server.put(session, "operator", "Olga", "Hi,\n*I* am here.");
  server.put(session, "operator", "Olga", "How can I help?");
  await page.waitForSelector("text=How can I help?");
  assert.deepEqual(await page.locator(".by").allTextContents(), ["Olga"]);
  assert.equal((await bubbles(page)).at(-2), "Hi,\n*I* am here.", "as it was written");

  server.hand(session, "bot");
  await page.waitForSelector(".state:has-text('Online')");
  await offer.waitFor();
});

test("a long history comes page by page, keeps its place, and the DOM stays bounded", async () => {
  const session = server.openSession(1000);
  await context.addInitScript(
    ([bot, id]) => {
      localStorage.setItem(`hubbub:${bot}:session`, id ?? "");
      localStorage.setItem(`hubbub:${bot}:visitor`, "hbv_test");
    },
    [BOT, session],
  );
  const page = await open();
  await page.waitForSelector("text='Message number 1000'");
  assert.equal(await page.locator(".bubble").count(), 50);
  const topOf = (text: string | null) =>
    page.evaluate((wanted) => {
      const all = [...document.querySelectorAll(".bubble .text")];
      return all.find((one) => one.textContent === wanted)?.getBoundingClientRect().top ?? 0;
    }, text);
  for (let round = 0; round < 6; round += 1) {
    const first = await page.textContent(".bubble .text");
    // Just below what fetches, so that the place can be measured before.
    await page.evaluate(async () => {
      document.querySelector(".log")?.scrollTo(0, 130);
      // The scroll is told in the next frame.
      for (const _ of "12") await new Promise(requestAnimationFrame);
    });
    const before = await topOf(first);
    await page.evaluate(() => document.querySelector<HTMLElement>(".older")?.click());
    await page.waitForFunction(
      (text) => document.querySelector(".bubble .text")?.textContent !== text,
      first,
    );
    const moved = (await topOf(first)) - before;
    assert.ok(Math.abs(moved) <= 1, `round ${round}: moved by ${moved} px`);
  }
  assert.ok((await page.locator(".bubble").count()) <= 200);
  assert.equal(await page.isVisible("text='Message number 1000'"), false);
  await page.click("text=Jump to latest");
  await page.waitForSelector("text='Message number 1000'");
  await say(page, "Still there?");
  await page.waitForSelector("text=You said: Still there?");
});

test("by keyboard alone: open, write, break a line, send, close, and be back at the button", async () => {
  const page = await open("/");
  await page.waitForSelector("button");
  const frame = await frameOf(page);
  await frame.waitForSelector(".state.on");
  await frame.press("textarea", "Escape");
  await page.waitForSelector("iframe", { state: "hidden" });
  await page.keyboard.press("Enter");
  await page.waitForSelector("iframe", { state: "visible" });
  await frame.waitForFunction(() => document.activeElement?.localName === "textarea");
  await page.keyboard.type("one");
  await page.keyboard.press("Shift+Enter");
  await page.keyboard.type("two");
  await page.keyboard.press("Enter");
  await frame.waitForSelector("text=You said: one");
  assert.equal(server.sends[0]?.text, "one\ntwo");
  await page.keyboard.press("Escape");
  await page.waitForSelector("iframe", { state: "hidden" });
  assert.equal(await page.evaluate(() => document.activeElement?.localName), "div");
});

test("too long a text is counted and not sent", async () => {
  const page = await open();
  await page.waitForSelector(".state.on");
  await say(page, "é".repeat(2001));
  await page.waitForSelector("text=2001 / 2000");
  assert.equal(await page.isDisabled("[aria-label=Send]"), true);
  assert.equal(server.sends.length, 0);
  await say(page, "😀".repeat(2000));
  await page.waitForSelector("text=You said");
});

test("a host page that lies about itself moves nothing", async () => {
  const page = await open("/");
  const frame = await frameOf(page);
  await frame.waitForSelector(".state.on");
  await page.evaluate(() => {
    for (const data of [null, 7, "x", { hubbub: "close" }, { hubbub: ["close"] }, { hubbub: {} }]) {
      window.postMessage(data, "*");
    }
  });
  await frame.evaluate(() => {
    for (const data of [null, { hubbub: "closed" }, { hubbub: "opened", theme: "x" }]) {
      window.postMessage(data, "*");
    }
  });
  await say(frame, "Still here");
  await frame.waitForSelector("text=You said: Still here");
  assert.equal(await page.isVisible("iframe"), true);
});

test("the newest stays in sight while an answer grows, until the person looks further up", async () => {
  const page = await open();
  server.answer = () => ({ text: LONG.repeat(8) });
  await say(page, "Go on");
  await page.waitForSelector(".them time");
  /** The answer grows before the page is told that it was scrolled, as happens in a stream. */
  const grow = () =>
    page.evaluate(async () => {
      const log = document.querySelector(".log") as HTMLElement;
      const text = document.querySelector(".them .text") as HTMLElement;
      text.style.paddingBottom = `${Number.parseInt(text.style.paddingBottom || "0", 10) + 200}px`;
      log.dispatchEvent(new Event("scroll"));
      for (const _ of "123") await new Promise(requestAnimationFrame);
      return Math.round(log.scrollHeight - log.scrollTop - log.clientHeight);
    });
  assert.ok((await grow()) < 2);
  assert.ok((await grow()) < 2);
  assert.equal(await page.isVisible(".latest"), false);
  await page.hover(".log");
  await page.mouse.wheel(0, -150);
  await page.waitForSelector(".latest");
  assert.ok((await grow()) >= 300);
  await page.click(".latest");
  await page.waitForSelector(".latest", { state: "detached" });
  assert.ok((await grow()) < 2);
});

test("code is copied as it was written, inside a page that embeds the frame", async () => {
  await context.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await open("/");
  const frame = await frameOf(page);
  const code = 'if (a[0] < "b") {\n\n  return *c*;\n}';
  server.answer = () => ({ text: `So:\n\n\`\`\`c\n${code}\n\`\`\`\n\nDone.` });
  await say(frame, "Write code");
  await frame.waitForSelector("text=Done.");
  await frame.click("text=Copy");
  await frame.waitForSelector("text=Copied");
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), code);
});
