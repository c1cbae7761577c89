// What most test files stand on: a simulated model that takes its time, a server that asks it, and a
// browser.

import { launch } from "./browser.mjs";
import { Hubbub, SimLlm, withUpstreams } from "./processes.mjs";

export class Stage {
  /** Tokens of every answer. */
  tokens;
  /** How the model answers, for `sim.control`. */
  pace;
  sim;
  hubbub;
  browser;

  static async start({ tokens, ttftMs = 300, tokenMs = 40 }) {
    const stage = new Stage();
    stage.tokens = tokens;
    stage.pace = { mode: "ok", ttft_ms: ttftMs, token_interval_ms: tokenMs, tokens };
    try {
      const options = { "ttft-ms": ttftMs, "token-interval-ms": tokenMs, tokens, seed: 1 };
      stage.sim = await SimLlm.start(options);
      stage.hubbub = await Hubbub.start(withUpstreams({ sim: stage.sim.url }));
      stage.browser = await launch();
    } catch (error) {
      await stage.stop();
      throw error;
    }
    return stage;
  }

  async stop() {
    await this.browser?.close();
    await this.hubbub?.stop();
    await this.sim?.stop();
  }

  /** The messages of a page's session, as the server has them. */
  async stored(page) {
    const key = `hubbub:${this.hubbub.demo.bot}:session`;
    const session = await page.evaluate((name) => localStorage.getItem(name), key);
    const path = `/v1/sessions/${session}/messages?limit=200`;
    const { messages } = await this.hubbub.api("GET", path);
    return messages;
  }
}
