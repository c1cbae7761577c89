// An upstream that says exactly what a test wants said, in the pieces and at the pace it wants.

import { once } from "node:events";
import { createServer } from "node:http";

export class Parrot {
  /** From the question to `{ text, pieces, everyMs, firstMs }`. By default it repeats the question. */
  answer = (question) => ({ text: question });
  #server = createServer((request, response) => void this.#serve(request, response));

  static async start() {
    const parrot = new Parrot();
    parrot.#server.listen(0, "127.0.0.1");
    await once(parrot.#server, "listening");
    parrot.url = `http://127.0.0.1:${parrot.#server.address().port}`;
    return parrot;
  }

  async stop() {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  async #serve(request, response) {
    let body = "";
    for await (const piece of request) body += piece;
    const { messages } = JSON.parse(body);
    const question = messages.at(-1).content;
    const { text, pieces = 1, everyMs = 0, firstMs = 0 } = this.answer(question);
    response.writeHead(200, { "content-type": "text/event-stream" });
    const letters = [...text];
    const size = Math.max(1, Math.ceil(letters.length / pieces));
    await passed(firstMs, response);
    for (let at = 0; at < letters.length && !response.destroyed; at += size) {
      event(response, { delta: { content: letters.slice(at, at + size).join("") } });
      await passed(everyMs, response);
    }
    event(response, { delta: {}, finish_reason: "stop" });
    response.end("data: [DONE]\n\n");
  }
}

function event(response, choice) {
  const chunk = { id: "parrot", object: "chat.completion.chunk", choices: [{ index: 0, ...choice }] };
  response.write(`data: ${JSON.stringify(chunk)}\n\n`);
}

/** The pace of an answer; over at once when nobody reads it any more. */
function passed(ms, response) {
  if (ms === 0) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    response.once("close", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}
