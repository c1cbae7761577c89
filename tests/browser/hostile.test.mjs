// Hostile text, as a visitor sends it and as a model says it, is only text.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { launch, openChat, say, settled, visitor } from "./support/browser.mjs";
import { Parrot } from "./support/parrot.mjs";
import { Hubbub, withUpstreams } from "./support/processes.mjs";

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
  const { transform } = createRequire(new URL("package.json", widget))("esbuild");
  const source = readFileSync(new URL("tests/browser/payloads.ts", widget), "utf8");
  const { code } = await transform(source, { loader: "ts", format: "esm" });
  const { PAYLOADS } = await import(`data:text/javascript,${encodeURIComponent(code)}`);
  return PAYLOADS;
}

// R052
test("hostile text is only text: no dialog, no request, no handler, no policy breached", { timeout: 180_000 }, async (t) => {
  const { context, noted } = await visitor(browser);
  await context.addInitScript(() => {
    globalThis.breaches = [];
    document.addEventListener("securitypolicyviolation", (event) => {
      globalThis.breaches.push(`${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}`);
    });
  });
  const foreign = [];
  context.on("request", (request) => {
    if (!request.url().startsWith(hubbub.url)) foreign.push(request.url());
  });
  // Cut into pieces, so that markup also arrives half.
  parrot.answer = (question) => ({ text: `${question}\n\nend ${parrot.said}`, pieces: 7, everyMs: 5 });
  const page = await openChat(context, hubbub);
  for (const [index, payload] of payloads.entries()) {
    parrot.said = index;
    await say(page, payload);
    await page.waitForSelector(`text="end ${index}"`);
    await settled(page);
    // What a person writes is shown letter for letter.
    const mine = await page.$$eval(".bubble.me .text", (all) => all.at(-1).textContent);
    assert.equal(mine, payload.trim());
  }
  t.diagnostic(`${payloads.length} payloads, each said by both sides`);
  const look = () =>
    page.evaluate(() => {
      const active = "script,iframe,object,embed,img,video,audio,style,link,form,base,meta,svg,math";
      const all = [...document.querySelectorAll(".log *")];
      const safe = (link) =>
        /^(https?:|mailto:)/.test(link.getAttribute("href")) &&
        link.target === "_blank" &&
        link.rel.includes("noopener");
      return {
        active: document.querySelectorAll(`.log :is(${active}):not(button *)`).length,
        attributes: all.flatMap((one) => one.getAttributeNames().filter((name) => /^on|^style|^src/.test(name))),
        unsafeLinks: [...document.querySelectorAll(".log a[href]")].filter((link) => !safe(link)).length,
        ran: "hacked" in globalThis,
        breaches: globalThis.breaches,
      };
    });
  const inert = { active: 0, attributes: [], unsafeLinks: 0, ran: false, breaches: [] };
  assert.deepEqual(await look(), inert);
  // Once more as history, rendered whole instead of in pieces.
  await page.reload();
  await page.waitForSelector(`text="end ${payloads.length - 1}"`);
  assert.deepEqual(await look(), inert);
  assert.deepEqual(foreign, []);
  assert.deepEqual(noted, []);
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
