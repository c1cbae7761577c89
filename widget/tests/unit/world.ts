// A world with a clock of its own: timers fire when the test says so, sockets are heard and spoken
// for by the test.

import type { Environment, SocketLike, Store } from "../../src/client/environment.ts";
import type { ClientFrame, Joined, MessageBody, ServerFrame } from "../../src/protocol.ts";

export const BOT = "019aa3c0-0001-7b11-8a22-334455667788";
export const SESSION = "019aa3c2-7c10-7a3e-9f52-1b2c3d4e5f60";
export const EPOCH = "019aa3bf-0000-7c00-8000-00000000e0c4";

export class FakeSocket implements SocketLike {
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: unknown }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;
  sent: ClientFrame[] = [];
  closed = false;
  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {}
  send(text: string): void {
    this.sent.push(JSON.parse(text));
  }
  close(): void {
    this.closed = true;
  }
  say(frame: ServerFrame): void {
    this.onmessage?.({ data: JSON.stringify(frame) });
  }
  cut(code: number): void {
    this.onclose?.({ code, reason: "" });
  }
  /** The last frame of a kind that the client sent. */
  last<K extends ClientFrame["type"]>(kind: K): Extract<ClientFrame, { type: K }> | undefined {
    return this.sent.findLast((frame) => frame.type === kind) as never;
  }
}

export class World implements Environment {
  time = 1_795_000_000_000;
  chance = 0.5;
  online = true;
  sockets: FakeSocket[] = [];
  requests: { url: string; body: unknown }[] = [];
  /** What a request is answered with; a status of 0 is no answer. */
  answers: (url: string) => { status: number; body: unknown } = () => ({
    status: 200,
    body: {
      ticket: `t${this.requests.length}`,
      expires_at: "2026-11-21T05:40:00.000Z",
      visitor: { id: "v" },
    },
  });
  shared: Store = memory();
  tab: Store = memory();
  #timers: { at: number; task: () => void }[] = [];
  #ids = 0;

  openSocket = (url: string, protocols: string[]) => {
    const socket = new FakeSocket(url, protocols);
    this.sockets.push(socket);
    return socket;
  };
  fetch = async (url: string, init: RequestInit) => {
    this.requests.push({ url, body: init.body ? JSON.parse(String(init.body)) : undefined });
    const { status, body } = this.answers(url);
    if (status === 0) throw new TypeError("no network");
    return new Response(JSON.stringify(body), { status });
  };
  after = (ms: number, task: () => void) => {
    const timer = { at: this.time + ms, task };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((other) => other !== timer);
    };
  };
  now = () => this.time;
  random = () => this.chance;
  uuid = () => `00000000-0000-4000-8000-${String(++this.#ids).padStart(12, "0")}`;
  isOnline = () => this.online;

  get socket(): FakeSocket {
    const socket = this.sockets.at(-1);
    if (!socket) throw new Error("no socket was opened");
    return socket;
  }

  get pendingTimers(): number {
    return this.#timers.length;
  }

  /** Lets promises settle; no time passes. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 20; turn += 1) await new Promise((done) => setImmediate(done));
  }

  /** Lets time pass, firing what falls due in its order. */
  async advance(ms: number): Promise<void> {
    const end = this.time + ms;
    await this.settle();
    for (;;) {
      const due = this.#timers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (!due) break;
      this.#timers = this.#timers.filter((other) => other !== due);
      this.time = Math.max(this.time, due.at);
      due.task();
      await this.settle();
    }
    this.time = end;
  }
}

export function memory(): Store {
  const held = new Map<string, string>();
  return {
    get: (key) => held.get(key) ?? null,
    set: (key, value) => void held.set(key, value),
    delete: (key) => void held.delete(key),
  };
}

export const welcome: ServerFrame = {
  type: "welcome",
  connection: "c",
  tenant: "t",
  principal: { kind: "visitor", id: "v", name: "" },
  heartbeat_ms: 25_000,
  limits: { frame_bytes: 65_536, text_chars: 100 },
};

export function message(seq: number, more: Partial<MessageBody> = {}): MessageBody {
  return {
    session: SESSION,
    seq,
    id: `m${seq}`,
    role: "visitor",
    author: "",
    text: `text ${seq}`,
    attachments: [],
    at: "2026-11-21T05:40:00.000Z",
    ...more,
  };
}

export function joined(more: Partial<Joined> = {}): Joined {
  const messages = more.messages ?? [];
  return {
    type: "joined",
    session: SESSION,
    bot: BOT,
    head: messages.at(-1)?.seq ?? 0,
    epoch: EPOCH,
    messages,
    more: false,
    replying: null,
    handler: "bot",
    ...more,
  };
}
