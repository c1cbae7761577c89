// A small server for the browser tests: serves dist/ as the real one must, and speaks the protocol
// with scripted answers. What a message asks for decides how it is answered.

import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { type WebSocket, WebSocketServer } from "ws";
import type {
  ClientFrame,
  EndedReply,
  Handler,
  MessageBody,
  RunningReply,
  ServerFrame,
} from "../../src/protocol.ts";

export const BOT = "019aa3c0-0001-7b11-8a22-334455667788";
const EPOCH = "019aa3bf-0000-7c00-8000-00000000e0c4";
const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
  "require-trusted-types-for 'script'; base-uri 'none'; form-action 'none'; report-uri /csp";

/** A file of dist/ and its type; the frame's own carry a hash in their name. */
function fileOf(path: string): [string, string] | null {
  if (path === "/demo/demo.css") return ["dist/demo/demo.css", "text/css"];
  const name = /^\/(?:widget\/)?(widget|frame|setup)(?:-[0-9a-f]{8})?\.(js|css)$/.exec(path);
  return (
    name && [
      `dist/${name[1]}.${name[2]}`,
      `text/${name[2] === "js" ? "javascript" : "css"}; charset=utf-8`,
    ]
  );
}

interface Session {
  messages: MessageBody[];
  ended: EndedReply[];
  replying: RunningReply | null;
  sockets: Set<WebSocket>;
  cancel: (() => void) | null;
  handler: Handler;
}

/** How a visitor's message is answered. */
export interface Answer {
  text: string;
  pieces?: number;
  everyMs?: number;
  /** Waits this long before the first piece. */
  firstMs?: number;
  queued?: { position: number; eta_ms: number; paused?: boolean };
  /** The model is at work until its first piece. */
  thinking?: boolean;
  /** The whole text is only as much as the model may say. */
  cut?: "length";
  /** It fails, after its text if it has any. */
  fails?: boolean;
}

export class TestServer {
  sessions = new Map<string, Session>();
  cspReports: string[] = [];
  /** Every `send` that arrived, repeats too. */
  sends: { id: string; text: string }[] = [];
  unexpected: string[] = [];
  /** The visitor's token of each ticket that was asked for. */
  tokens: string[] = [];
  answer: (text: string) => Answer = (text) => ({ text: `You said: ${text}` });
  /** What a ticket tells of the bot; nothing, as long as it has no name. */
  bot: { name: string; greeting: string; escalation?: { button: boolean } } = {
    name: "",
    greeting: "",
  };
  /** What is wrong with the set-up, if anything is. */
  refused = "";
  /** Sends are swallowed: no ack, nothing stored. */
  deaf = false;
  /** The frame and its ticket, as the network has it that never comes to an end. */
  hangs = false;
  #http = createServer((request, response) => void this.#serve(request, response));
  #sockets = new WebSocketServer({ noServer: true, handleProtocols: () => "hubbub.v1" });
  #open = new Set<WebSocket>();

  /** On a port of its own, or on the one it had before. */
  async start(port = 0): Promise<string> {
    this.#http.removeAllListeners("upgrade");
    this.#http.on("upgrade", (request, socket, head) => {
      this.#sockets.handleUpgrade(request, socket, head, (ws) => this.#connect(ws));
    });
    await new Promise<void>((resolve) => this.#http.listen(port, "127.0.0.1", resolve));
    return `http://127.0.0.1:${(this.#http.address() as AddressInfo).port}`;
  }

  async stop(): Promise<void> {
    for (const ws of this.#open) ws.terminate();
    for (const session of this.sessions.values()) session.cancel?.();
    this.#http.closeAllConnections();
    await new Promise((resolve) => this.#http.close(resolve));
  }

  /** Cuts every connection, as a lost network does, or with a code. */
  cut(code?: number): void {
    for (const ws of this.#open) {
      if (code) ws.close(code);
      else ws.terminate();
    }
  }

  openSession(count: number): string {
    const id = randomUUID();
    const messages = Array.from({ length: count }, (_, index) =>
      message(id, index + 1, index % 2 ? "assistant" : "visitor", `Message number ${index + 1}`),
    );
    this.sessions.set(id, {
      messages,
      ended: [],
      replying: null,
      sockets: new Set(),
      cancel: null,
      handler: "bot",
    });
    return id;
  }

  /** Writes a message into a session, as anybody. */
  put(id: string, role: MessageBody["role"], author: string, text: string): void {
    const held = this.sessions.get(id)?.messages;
    if (!held) return;
    const written = { ...message(id, held.length + 1, role, text), author };
    held.push(written);
    this.tell(id, { type: "message", ...written });
  }

  /** Somebody else handles the session from now on. */
  hand(id: string, handler: Handler): void {
    const session = this.sessions.get(id);
    if (!session) return;
    session.handler = handler;
    this.tell(id, { type: "handler", session: id, handler, fence: 1 });
  }

  /** Tells every device of a session. */
  tell(id: string, frame: ServerFrame): void {
    for (const ws of this.sessions.get(id)?.sockets ?? []) say(ws, frame);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? "/", "http://test");
    const file = fileOf(url.pathname);
    const body = await read(request);
    if (file) {
      response.setHeader("content-type", file[1]);
      response.end(await readFile(file[0]));
    } else if (url.pathname === "/") {
      const html = await readFile("dist/demo/index.html", "utf8");
      response.setHeader("content-type", "text/html; charset=utf-8");
      response.setHeader(
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; frame-src 'self'; report-uri /csp",
      );
      response.end(html.replaceAll("__BOT__", BOT));
    } else if (url.pathname.startsWith(`/widget/${BOT}`) && this.hangs) {
      // Nothing ever comes.
    } else if (url.pathname === `/widget/${BOT}` && this.refused) {
      this.#setup(response);
    } else if (url.pathname === `/widget/${BOT}`) {
      response.setHeader("content-type", "text/html; charset=utf-8");
      response.setHeader("content-security-policy", CSP);
      response.end(await readFile("dist/frame.html"));
    } else if (url.pathname === `/widget/${BOT}/setup`) {
      this.#setup(response);
    } else if (url.pathname === "/csp") {
      this.cspReports.push(body);
      response.end();
    } else if (url.pathname === `/v1/widget/${BOT}/tickets`) {
      this.#ticket(body, request, response);
    } else {
      this.unexpected.push(url.pathname);
      response.statusCode = 404;
      response.end();
    }
  }

  #setup(response: ServerResponse): void {
    const csp = "default-src 'none'; script-src 'self'; frame-ancestors *; report-uri /csp";
    response.setHeader("content-security-policy", csp);
    response.setHeader("content-type", "text/html; charset=utf-8");
    response.end(
      `<!doctype html><html lang="en" data-refused="${this.refused && "yes"}"><title>Set-up</title>` +
        `<body><p>${this.refused}</p><script src="/widget/setup.js"></script></body></html>`,
    );
  }

  /** As the real one: the token travels in a cookie that no script sees. */
  #ticket(body: string, request: IncomingMessage, response: ServerResponse): void {
    const { visitor_token } = JSON.parse(body) as { visitor_token?: string };
    const cookie = /hubbub_visitor=([^;]+)/.exec(request.headers.cookie ?? "")?.[1];
    const token = visitor_token ?? cookie ?? `hbv_${randomUUID()}`;
    this.tokens.push(token);
    const path = `/v1/widget/${BOT}/tickets`;
    response.setHeader(
      "set-cookie",
      `hubbub_visitor=${token}; Path=${path}; HttpOnly; Secure; SameSite=None; Partitioned`,
    );
    json(response, {
      ticket: randomUUID(),
      expires_at: new Date(Date.now() + 30_000).toISOString(),
      visitor: { id: `visitor of ${token}` },
      ...(this.bot.name && { bot: this.bot }),
    });
  }

  #connect(ws: WebSocket): void {
    this.#open.add(ws);
    ws.on("close", () => {
      this.#open.delete(ws);
      for (const session of this.sessions.values()) session.sockets.delete(ws);
    });
    ws.on("message", (data) => this.#hear(ws, JSON.parse(String(data)) as ClientFrame));
    say(ws, {
      type: "welcome",
      connection: randomUUID(),
      tenant: randomUUID(),
      principal: { kind: "visitor", id: randomUUID(), name: "" },
      heartbeat_ms: 25_000,
      limits: { frame_bytes: 65_536, text_chars: 2_000 },
    });
  }

  #hear(ws: WebSocket, frame: ClientFrame): void {
    if (frame.type === "join") {
      const id = frame.session ?? this.openSession(0);
      const session = this.sessions.get(id);
      if (!session) {
        const ref = frame.ref ?? "";
        say(ws, { type: "error", ref, session: id, code: "not_found", message: "No such session" });
        return;
      }
      session.sockets.add(ws);
      const after = frame.after ?? 0;
      const news = session.messages.filter(({ seq }) => seq > after);
      const limit = frame.limit ?? 50;
      const messages = frame.after === undefined ? news.slice(-limit) : news.slice(0, limit);
      say(ws, {
        type: "joined",
        ...(frame.ref && { ref: frame.ref }),
        session: id,
        bot: BOT,
        head: session.messages.length,
        epoch: EPOCH,
        messages,
        more: messages.length < news.length,
        replying: session.replying && { ...session.replying },
        ended: session.ended,
        handler: session.handler,
      });
      return;
    }
    const session = this.sessions.get(frame.session);
    if (!session) return;
    if (frame.type === "send") this.#post(ws, frame.session, session, frame);
    if (frame.type === "stop") session.cancel?.();
    if (frame.type === "escalate") this.hand(frame.session, { kind: "waiting", since: now() });
  }

  #post(
    ws: WebSocket,
    id: string,
    session: Session,
    frame: Extract<ClientFrame, { type: "send" }>,
  ): void {
    this.sends.push({ id: frame.id, text: frame.text });
    if (this.deaf) return;
    const held = session.messages.find((one) => one.id === frame.id);
    const stored =
      held ?? message(id, session.messages.length + 1, "visitor", frame.text, frame.id);
    if (!held) session.messages.push(stored);
    say(ws, {
      type: "ack",
      ...(frame.ref && { ref: frame.ref }),
      session: id,
      id: frame.id,
      seq: stored.seq,
      at: stored.at,
      ...(held && { duplicate: true }),
    });
    if (held) return;
    for (const other of session.sockets) say(other, { type: "message", ...stored });
    this.#reply(id, session, stored.seq, this.answer(frame.text));
  }

  #reply(id: string, session: Session, to: number, answer: Answer): void {
    const reply = randomUUID();
    const all = (frame: ServerFrame) => {
      for (const ws of session.sockets) say(ws, frame);
    };
    const { queued } = answer;
    if (queued) {
      session.replying = { reply, to, state: "queued", ...queued, text: "" };
      all({ type: "reply", session: id, reply, to, state: "queued", ...queued });
    } else {
      const started = { state: "started", model: "test" } as const;
      const state = { ...started, ...(answer.thinking && { thinking: true }) };
      session.replying = { reply, to, ...state, text: "" };
      all({ type: "reply", session: id, reply, to, ...state });
    }
    const pieces = answer.pieces ?? 4;
    const size = Math.max(1, Math.ceil(answer.text.length / pieces));
    let at = 0;
    const end = () => {
      clearTimeout(timer);
      session.cancel = null;
      session.replying = null;
    };
    const step = () => {
      if (answer.fails && at >= answer.text.length) {
        const error = { code: "unavailable", message: "No model could answer." } as const;
        end();
        session.ended.push({ reply, to, state: "failed", error, text: answer.text });
        all({ type: "reply", session: id, reply, to, state: "failed", error });
        return;
      }
      const text = answer.text.slice(at, at + size);
      if (text === "") {
        end();
        const last = message(id, session.messages.length + 1, "assistant", answer.text, reply);
        const final = { ...last, reply, ...(answer.cut && { cut: answer.cut }) };
        session.messages.push(final);
        all({ type: "message", ...final });
        return;
      }
      all({ type: "delta", session: id, reply, offset: at, text });
      at += text.length;
      session.replying = {
        reply,
        to,
        state: "started",
        model: "test",
        text: answer.text.slice(0, at),
      };
      timer = setTimeout(step, answer.everyMs ?? 10);
    };
    let timer = setTimeout(step, answer.firstMs ?? 20);
    session.cancel = () => {
      end();
      const ended = { reply, to, state: "cancelled", text: answer.text.slice(0, at) } as const;
      session.ended.push(ended);
      all({ type: "reply", session: id, reply, to, state: "cancelled" });
    };
  }
}

function now(): string {
  return new Date().toISOString();
}

function message(
  session: string,
  seq: number,
  role: MessageBody["role"],
  text: string,
  id: string = randomUUID(),
): MessageBody {
  const author = role === "assistant" ? "Fern" : "";
  return { session, seq, id, role, author, text, attachments: [], at: now() };
}

function say(ws: WebSocket, frame: ServerFrame): void {
  ws.send(JSON.stringify(frame));
}

function json(response: ServerResponse, body: unknown): void {
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify(body));
}

async function read(request: IncomingMessage): Promise<string> {
  let body = "";
  for await (const piece of request) body += piece;
  return body;
}
