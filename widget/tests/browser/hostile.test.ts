// Hostile text is only text: wherever a text or a name is drawn, and wherever a stream was cut.

import assert from "node:assert/strict";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { build } from "esbuild";
import type { Browser, Page } from "playwright-core";
import { launch } from "./browser.ts";
import { PAYLOADS } from "./payloads.ts";
import { BOT, TestServer } from "./server.ts";

/** What the conversation may consist of: elements, and the attributes each may have. */
const ALLOWED: Record<string, string> = {
  ...{
    article: "class",
    div: "class dir",
    span: "class dir",
    p: "class dir",
    i: "",
    time: "class datetime dir",
  },
  ...{
    button: "type class disabled",
    blockquote: "dir",
    br: "",
    hr: "",
    em: "",
    strong: "",
    s: "",
  },
  ...{
    h2: "dir",
    h3: "dir",
    h4: "dir",
    h5: "dir",
    h6: "dir",
    code: "",
    pre: "tabindex",
    ul: "",
    li: "class dir",
    label: "",
    input: "type disabled checked",
    ol: "start",
  },
  ...{
    a: "href target rel aria-label",
    table: "tabindex dir",
    tr: "",
    th: "dir scope style",
    td: "dir style",
  },
};

let browser: Browser;
let page: Page;
let server: TestServer;
let origin: string;
let breaches: string[];

before(async () => {
  browser = await launch();
});
after(() => browser.close());
beforeEach(async () => {
  server = new TestServer();
  origin = await server.start();
  breaches = [];
  page = await browser.newPage();
  page.on("pageerror", (error) => breaches.push(`error ${error.message}`));
  page.on("dialog", (dialog) => {
    breaches.push(`dialog ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on("request", (request) => {
    if (!request.url().startsWith(origin)) breaches.push(`request ${request.url()}`);
  });
});
afterEach(async () => {
  assert.equal(await page.evaluate(() => "hacked" in globalThis), false);
  await page.close();
  await server.stop();
  assert.deepEqual(breaches, []);
  assert.deepEqual(server.cspReports, []);
  assert.deepEqual(server.unexpected, []);
});

/** Puts `strange(root)` into the page: every element and attribute in there that has no business there. */
async function guard(): Promise<void> {
  await page.evaluate((allowed) => {
    const strange = (root: Element) =>
      [...root.querySelectorAll("*")].flatMap((one) => {
        const attributes = allowed[one.localName];
        if (attributes === undefined || one.namespaceURI !== "http://www.w3.org/1999/xhtml") {
          return [one.localName];
        }
        const known = attributes.split(" ");
        const odd = one.getAttributeNames().filter((name) => !known.includes(name));
        const href = one.getAttribute("href");
        if (href !== null && !/^(https?:|mailto:)/.test(href)) odd.push(href);
        const safe = "noopener nofollow noreferrer";
        if (href !== null && one.getAttribute("rel") !== safe) odd.push("rel");
        if (href !== null && one.getAttribute("target") !== "_blank") odd.push("target");
        return odd.map((name) => `${one.localName} ${name}`);
      });
    Object.assign(globalThis, { strange });
  }, ALLOWED);
}

test("the corpus has at least 300 different payloads", () => {
  assert.ok(PAYLOADS.length >= 300, `${PAYLOADS.length}`);
  assert.equal(new Set(PAYLOADS).size, PAYLOADS.length);
});

test("as messages of every role, as authors, as the bot's name and greeting", async () => {
  const roles = ["visitor", "assistant", "operator", "system"] as const;
  // A session holds what the window does: each payload is said by one role there, by all of them in four.
  for (const [shift] of roles.entries()) {
    for (let from = 0; from < PAYLOADS.length; from += 50) {
      const session = server.openSession(0);
      const messages = PAYLOADS.slice(from, from + 50);
      for (const [index, text] of messages.entries()) {
        const role = roles[(index + shift) % roles.length] ?? "visitor";
        server.put(session, role, text, text);
      }
      server.bot = { name: messages[shift] ?? "", greeting: messages[shift + 4] ?? "" };
      await page.goto(`${origin}/widget/${BOT}`);
      await guard();
      await page.waitForSelector(".empty");
      assert.equal(await page.textContent(".greeting"), server.bot.greeting);
      await page.evaluate(
        ([bot, id]) => localStorage.setItem(`hubbub:${bot}:session`, id ?? ""),
        [BOT, session],
      );
      await page.reload();
      await guard();
      await page.waitForFunction(
        (count) => document.querySelectorAll(".bubble").length === count,
        messages.length,
      );
      const found = await page.evaluate(() => ({
        strange: (globalThis as never as { strange(root: Element): string[] }).strange(
          document.querySelector(".log") as Element,
        ),
        mine: [...document.querySelectorAll(".me .text")].map((one) => one.textContent),
        name: document.querySelector("h1")?.textContent,
      }));
      assert.deepEqual(found.strange, []);
      // What a person writes is shown letter for letter.
      assert.deepEqual(
        found.mine,
        messages.filter((_, index) => roles[(index + shift) % roles.length] === "visitor"),
      );
      assert.equal(found.name, server.bot.name);
      await page.evaluate((bot) => localStorage.removeItem(`hubbub:${bot}:session`), BOT);
    }
  }
});

test("a stream cut anywhere is drawn as the whole, and holds nothing strange on its way", async (t) => {
  const { outputFiles } = await build({
    entryPoints: ["src/frame/markdown.ts"],
    bundle: true,
    write: false,
    format: "iife",
    globalName: "markdown",
  });
  await page.goto(`${origin}/widget/${BOT}`);
  await guard();
  const { cuts, wrong } = await page.evaluate(
    ([code, payloads]) => {
      const { MarkdownWriter } = new Function(`${code}; return markdown`)();
      const { strange } = globalThis as never as { strange(root: Element): string[] };
      const wrong: string[] = [];
      let cuts = 0;
      const draw = (pieces: string[]) => {
        const root = document.createElement("div");
        // In the page, so that whatever would load does.
        document.body.append(root);
        const writer = new MarkdownWriter(root);
        let text = "";
        for (const piece of pieces) {
          text += piece;
          writer.write(text, false);
          wrong.push(...strange(root));
        }
        writer.write(text, true);
        wrong.push(...strange(root));
        root.remove();
        return root.innerHTML;
      };
      for (const payload of payloads) {
        const whole = draw([payload]);
        // Long ones are mostly the same letter: not every cut of them is another case.
        const step = Math.max(1, Math.floor(payload.length / 150));
        for (let at = 1; at < payload.length; at += step) {
          cuts += 1;
          if (draw([payload.slice(0, at), payload.slice(at)]) !== whole) {
            wrong.push(`another drawing, cut at ${at}: ${payload.slice(0, 80)}`);
          }
        }
        if (payload.length < 300 && draw(payload.split("")) !== whole) {
          wrong.push(`another drawing, letter by letter: ${payload.slice(0, 80)}`);
        }
      }
      return { cuts, wrong };
    },
    [outputFiles[0]?.text ?? "", PAYLOADS] as const,
  );
  t.diagnostic(`${PAYLOADS.length} payloads, ${cuts} cuts`);
  assert.deepEqual(wrong.slice(0, 10), []);
});
