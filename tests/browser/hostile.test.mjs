// Hostile text, as a visitor sends it and as a model says it, is only text.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { after, before, test } from "node:test";
import { launch, openChat, say, settled, visitor } from "./support/browser.mjs";
import { Parrot } from "./support/parrot.mjs";
import { Hubbub, withUpstreams } from "./support/processes.mjs";

/** Visitors at once; each says its share of the corpus, and no more than the window holds. */
const VISITORS = 6;
/** Into how many pieces the model cuts what it says, in turn. The last: letter by letter. */
const CUTS = [1, 2, 3, 7, 23, 100_000];

let browser;
let hubbub;
let parrot;
let payloads;

before(async () => {
  payloads = await corpus();
  parrot = await Parrot.start();
  const limits = "[limits]\nmessages_per_second = 1000\nmessages_burst = 1000\n\n";
  hubbub = await Hubbub.start(limits + withUpstreams({ parrot: parrot.url }));
  browser = await launch();
});
after(async () => {
  await browser?.close();
  await hubbub?.stop();
  await parrot?.stop();
});

/** The widget's own corpus, so that there is one. */
async function corpus() {
  const widget = new URL("../../widget/", import.meta.url);
  const { build } = createRequire(new URL("package.json", widget))("esbuild");
  const entry = fileURLToPath(new URL("tests/browser/payloads.ts", widget));
  const built = await build({ entryPoints: [entry], bundle: true, write: false, format: "esm" });
  const { PAYLOADS } = await import(`data:text/javascript,${encodeURIComponent(built.outputFiles[0].text)}`);
  return PAYLOADS;
}

/** Notes every element, attribute and link that was ever in the page, also in the middle of a stream. */
function watch() {
  const seen = new Set();
  const note = (one) => {
    if (one.namespaceURI !== "http://www.w3.org/1999/xhtml" && !one.closest("button")) seen.add(`<${one.nodeName}>`);
    seen.add(one.localName);
    for (const { name } of one.attributes) if (!/^(class|aria-.*|dir|role|title)$/.test(name)) seen.add(`${one.localName} ${name}`);
    if (one.localName !== "a" || !one.hasAttribute("href")) return;
    seen.add(`href ${new URL(one.getAttribute("href"), "relative:").protocol}`);
    seen.add(`${one.target} ${one.rel}`);
  };
  const changed = ({ target, addedNodes }) => {
    if (target.closest?.(".log")) note(target);
    for (const node of addedNodes) {
      if (node.nodeType !== 1) continue;
      for (const one of [node, ...node.querySelectorAll("*")]) if (one.closest(".log")) note(one);
    }
  };
  const all = { subtree: true, childList: true, attributes: true };
  new MutationObserver((changes) => changes.forEach(changed)).observe(document, all);
  const breaches = [];
  document.addEventListener("securitypolicyviolation", (event) => {
    breaches.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`);
  });
  Object.assign(globalThis, { seen, breaches });
}

const ELEMENTS =
  "a article blockquote br button code del div em h2 h3 h4 h5 h6 hr i input label li ol p path pre s section span strong svg table td th time tr ul";
const HARMLESS = new Set([
  ...ELEMENTS.split(" "),
  ...["a href", "a target", "a rel", "pre tabindex", "table tabindex", "ol start", "time datetime", "button type", "section tabindex"],
  ...["button disabled", "th scope", "th style", "td style", "input type", "input disabled", "input checked", "href http:", "href https:", "href mailto:", "_blank noopener nofollow noreferrer"],
]);

const strange = async (page) => {
  const { seen, breaches, ran } = await page.evaluate(() => ({
    seen: [...globalThis.seen],
    breaches: globalThis.breaches,
    ran: "hacked" in globalThis,
  }));
  assert.ok(seen.includes("a href") && seen.includes("article"), "the watch saw nothing");
  return { odd: seen.filter((one) => !HARMLESS.has(one)), breaches, ran };
};
const INERT = { odd: [], breaches: [], ran: false };

/** A visitor whose pages are watched; `foreign` collects requests to anywhere else. */
async function watched() {
  const { context, noted } = await visitor(browser);
  await context.addInitScript(watch);
  const foreign = [];
  context.on("request", (request) => {
    if (!request.url().startsWith(hubbub.url)) foreign.push(request.url());
  });
  return { context, noted, foreign };
}

/** A text as a form field holds it, and as the widget sends it. */
const asWritten = (text) => text.replace(/\r\n?/g, "\n").trim();

// R052
test("hostile text is only text: no dialog, no request, no handler, no policy breached", { timeout: 120_000 }, async (t) => {
  const numbers = new Map(payloads.map((payload, index) => [asWritten(payload), index]));
  parrot.answer = (question) => {
    const index = numbers.get(question);
    return { text: `${question}\n\nend ${index}`, pieces: CUTS[index % CUTS.length] };
  };
  // Three of five, which is what a minute allows; the widget's own test draws all of them.
  const all = [...numbers.keys()].filter((_, index) => index % 5 < 3);
  assert.ok(all.length >= 300 && all.length / VISITORS <= 100, "too few, or more than the window holds");
  await Promise.all(
    Array.from({ length: VISITORS }, async (_, number) => {
      const { context, noted, foreign } = await watched();
      const page = await openChat(context, hubbub);
      const said = all.filter((_, index) => index % VISITORS === number);
      for (const [index, text] of said.entries()) {
        await say(page, text);
        await page.waitForFunction(
          (count) => document.querySelectorAll(".them time").length === count,
          index + 1,
        );
      }
      await settled(page);
      const shown = () => page.$$eval(".bubble.me .text", (all) => all.map((one) => one.textContent));
      // What a person writes is shown letter for letter.
      assert.deepEqual(await shown(), said);
      assert.deepEqual(await strange(page), INERT);
      // Once more as history, rendered whole instead of in pieces.
      await page.reload();
      await page.waitForSelector(".bubble.them");
      await settled(page);
      assert.deepEqual(await shown(), said.slice(-25));
      assert.deepEqual(await strange(page), INERT);
      assert.deepEqual({ noted, foreign }, { noted: [], foreign: [] });
      await context.close();
    }),
  );
  t.diagnostic(`${all.length} payloads, each said by both sides`);
});

// R052
test("a bot's hostile name is only a name", { timeout: 60_000 }, async () => {
  const isName = (one) => /^\P{Cc}{1,100}$/u.test(one) && one.trim() === one;
  const names = payloads.filter(isName);
  const { context, noted, foreign } = await watched();
  parrot.answer = () => ({ text: "[Hello](https://ok.example)" });
  for (let index = 0; index < names.length; index += 50) {
    const name = names[index];
    await hubbub.api("PATCH", `/v1/bots/${hubbub.demo.bot}`, { name });
    const page = await openChat(context, hubbub);
    assert.equal(await page.textContent("h1"), name);
    await say(page, "Who are you?");
    await page.waitForSelector(".them:last-child a");
    await settled(page);
    assert.equal(await page.$$eval(".them .sr", (all) => all.at(-1).textContent), `${name}: `);
    assert.deepEqual(await strange(page), INERT);
    await page.close();
  }
  assert.deepEqual({ noted, foreign }, { noted: [], foreign: [] });
  await context.close();
});

// R052
test("the frame's policy lets no script, style or connection in from elsewhere", async () => {
  const frame = await fetch(`${hubbub.url}/widget/${hubbub.demo.bot}`);
  const demo = await fetch(hubbub.url);
  for (const response of [frame, demo]) {
    const policy = response.headers.get("content-security-policy");
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe|\*/);
    assert.equal(response.headers.get("x-content-type-options"), "nosniff");
  }
  assert.match(frame.headers.get("content-security-policy"), /require-trusted-types-for 'script'/);
});
