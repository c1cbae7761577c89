// One Chromium for a test file, and the ways the tests look at a page.

import { type Browser, chromium, type Frame, type Page } from "playwright-core";

export function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-background-networking"],
    // Scroll bars are part of what is tested.
    ignoreDefaultArgs: ["--hide-scrollbars"],
  });
}

/** The widget's frame inside a host page. */
export async function frameOf(page: Page): Promise<Frame> {
  for (;;) {
    const frame = page.frames().find((one) => one.url().includes("/widget/"));
    if (frame) {
      await frame.waitForSelector("main.frame");
      return frame;
    }
    await page.waitForEvent("framenavigated");
  }
}

export const bubbles = (view: Page | Frame) =>
  view.$$eval(".bubble .text", (all) => all.map((one) => one.textContent));

export async function say(view: Page | Frame, text: string): Promise<void> {
  await view.fill("textarea", text);
  await view.press("textarea", "Enter");
}
