// One Chromium for a test file, and the ways the tests look at a page.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const require = createRequire(new URL("../../../widget/package.json", import.meta.url));
const { chromium } = require("playwright-core");
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

/** Longest wait for anything on a page. */
export const PATIENCE_MS = 20_000;

/** `more`: further arguments of Chromium's. */
export function launch(more = []) {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: [
      ...more,
      "--no-sandbox",
      "--disable-background-networking",
      "--disable-gpu",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}

/** A browser profile of its own: another visitor. Notes whatever a page should not do. */
export async function visitor(browser, options = {}) {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE_MS);
  const noted = [];
  context.on("page", (page) => {
    page.on("pageerror", (error) => noted.push(`error: ${error.message}`));
    page.on("dialog", (dialog) => {
      noted.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on("console", (message) => {
      if (/content security policy|trusted/i.test(message.text())) {
        noted.push(`console: ${message.text()}`);
      }
    });
  });
  return { context, noted };
}

/**
 * The widget's frame inside a page that embeds it. The launcher may look at its set-up first, in a frame of
 * that page's own, and makes another where one could not load.
 */
export async function frameOf(page) {
  for (;;) {
    const element = await page.waitForSelector("iframe", { state: "attached" });
    const frame = await element.contentFrame();
    try {
      await frame.waitForSelector("main.frame");
      return frame;
    } catch (error) {
      if (!frame?.isDetached()) throw error;
    }
  }
}

/** A chat that is connected: the widget as a page of its own. */
export async function openChat(context, hubbub, bot = hubbub.demo.bot) {
  const page = await context.newPage();
  await page.goto(`${hubbub.url}/widget/${bot}`);
  await page.waitForSelector(".state.on");
  return page;
}

export async function say(view, text) {
  await view.fill("textarea", text);
  await view.press("textarea", "Enter");
}

/** Every text in the conversation, in order. */
export const bubbles = (view) =>
  view.$$eval(".bubble .text", (all) => all.map((one) => one.textContent));

/** The newest text is an answer that contains `words`. */
export const answerHas = (view, words) =>
  view.waitForFunction(
    (wanted) => [...document.querySelectorAll(".bubble.them .text")].at(-1)?.textContent.includes(wanted),
    words,
  );

/** Nothing is being written, and no dots are left. */
export async function settled(view) {
  await view.waitForSelector(".log[aria-busy=false]");
  await view.waitForSelector(".thinking", { state: "detached" });
}

/** Whatever fades in has done so. */
export const still = (view) =>
  view.waitForFunction(() =>
    document
      .getAnimations()
      .every((one) => one.playState === "finished" || one.effect.getTiming().iterations === Infinity),
  );

/** What axe finds wrong, told so that it can be found. Frames are looked at one by one. */
export async function axe(view) {
  await view.evaluate(AXE);
  const violations = await view.evaluate(async () => {
    const result = await globalThis.axe.run(document, { iframes: false });
    return result.violations;
  });
  return violations.map(
    ({ id, nodes }) => `${id}: ${nodes.map((one) => `${one.html} ${one.failureSummary}`).join(" | ")}`,
  );
}

/** Asks until `check` answers something; for what no page event tells. */
export async function eventually(what, check, deadlineMs = PATIENCE_MS) {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > end) throw new Error(`${what}: not within ${deadlineMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
