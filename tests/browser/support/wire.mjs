// The wire between a browser and a server: a TCP proxy that can be cut, and that can swallow what
// goes one way until it is.

import { once } from "node:events";
import { connect, createServer } from "node:net";

export class Wire {
  /** When connections were opened, in milliseconds of `performance.now()`. */
  opened = [];
  #target;
  #pairs = new Set();
  /** `up` (to the server) or `down` (to the browser): swallowed until the wire is cut. */
  #swallowed = null;
  #server = createServer({ noDelay: true }, (browser) => this.#join(browser));

  /** A wire to a port of this machine. */
  static async to(target) {
    const wire = new Wire();
    wire.#target = target;
    wire.#server.listen(0, "127.0.0.1");
    await once(wire.#server, "listening");
    wire.url = `http://127.0.0.1:${wire.#server.address().port}`;
    return wire;
  }

  /** From now until the wire is cut, nothing passes in this direction. */
  swallow(direction) {
    this.#swallowed = direction;
  }

  /** Cuts every connection, in both directions at once; answers when. */
  cut() {
    this.#swallowed = null;
    for (const pair of this.#pairs) {
      for (const socket of pair) socket.resetAndDestroy();
    }
    return performance.now();
  }

  async stop() {
    this.cut();
    this.#server.close();
    await once(this.#server, "close");
  }

  #join(browser) {
    this.opened.push(performance.now());
    const server = connect({ port: this.#target, host: "127.0.0.1", noDelay: true });
    const pair = [browser, server];
    this.#pairs.add(pair);
    this.#pass("up", browser, server, pair);
    this.#pass("down", server, browser, pair);
  }

  #pass(direction, from, to, pair) {
    from.on("data", (bytes) => {
      if (this.#swallowed !== direction) to.write(bytes);
    });
    from.on("end", () => to.end());
    // A connection that breaks on one side is broken on the other.
    from.on("error", () => to.destroy());
    from.on("close", () => {
      this.#pairs.delete(pair);
      to.destroy();
    });
  }
}
