// One connection to the server at a time: fetches a ticket, opens the socket, hands frames on, and
// comes back after it is cut. Started by the chat client; ended by `stop` or a refusal.

import {
  type ClientFrame,
  decode,
  type ServerFrame,
  SUBPROTOCOL,
  TICKET_PREFIX,
  type TicketAnswer,
} from "../protocol.ts";
import type { Environment, SocketLike } from "./environment.ts";
import { type ConnectionEvent, type ConnectionState, transition } from "./state.ts";

/** Ticket and `welcome` must each arrive within this. */
const CONNECT_DEADLINE_MS = 10_000;
/** A probe that is not answered in this time means the socket is dead. */
const PROBE_DEADLINE_MS = 8_000;

export interface ConnectionOptions {
  environment: Environment;
  /** Origin of the server, without a slash at the end. */
  origin: string;
  bot: string;
  /** What the request for a ticket says of the visitor; the browser's cookie says the rest. */
  claim(): object;
  /** The server does not know the visitor (any more). */
  onRefused(): void;
  onTicket(answer: TicketAnswer): void;
  onState(state: ConnectionState): void;
  onFrame(frame: ServerFrame): void;
}

export class Connection {
  state: ConnectionState = { kind: "connecting", attempt: 0 };
  #options: ConnectionOptions;
  #socket: SocketLike | null = null;
  #cancelTimer: (() => void) | null = null;
  #cancelProbe: (() => void) | null = null;
  #byeMs: number | null = null;
  #heardAt = 0;
  /** Rises with every attempt, so that the answers of an abandoned one are told apart. */
  #generation = 0;

  constructor(options: ConnectionOptions) {
    this.#options = options;
  }

  start(): void {
    if (this.#options.environment.isOnline()) this.#on({ kind: "start" });
    else this.#on({ kind: "network", online: false });
  }

  stop(): void {
    this.#on({ kind: "stopped" });
  }

  networkChanged(online: boolean): void {
    this.#on({ kind: "network", online });
  }

  /** The person asks to try now rather than at the end of the wait. */
  retryNow(): void {
    if (this.state.kind === "waiting") this.#on({ kind: "wait_over" });
  }

  /** Sends a frame; `false` when there is no socket to send it on. */
  send(frame: ClientFrame): boolean {
    if (this.state.kind !== "online" || !this.#socket) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /** How long nothing has been heard, in milliseconds. Pings are invisible to scripts. */
  silentMs(): number {
    return this.#options.environment.now() - this.#heardAt;
  }

  /** Sends a frame that has an answer; if nothing at all arrives, the socket is given up. */
  probe(frame: ClientFrame): void {
    if (!this.send(frame) || this.#cancelProbe) return;
    this.#cancelProbe = this.#options.environment.after(PROBE_DEADLINE_MS, () => {
      this.#cancelProbe = null;
      this.#abandon();
      this.#on({ kind: "closed", code: 1006, byeMs: null });
    });
  }

  #on(event: ConnectionEvent): void {
    const { environment, onState } = this.#options;
    const before = this.state;
    const chance = { now: environment.now(), random: environment.random() };
    this.state = transition(before, event, chance);
    if (this.state === before) return;
    this.#cancelTimer?.();
    this.#cancelTimer = null;
    switch (this.state.kind) {
      case "connecting":
        this.#abandon();
        void this.#connect();
        break;
      case "waiting":
        this.#abandon();
        this.#arm(Math.max(0, this.state.until - chance.now), { kind: "wait_over" });
        break;
      case "offline":
      case "refused":
        this.#abandon();
        break;
      case "online":
        break;
    }
    onState(this.state);
  }

  #arm(ms: number, event: ConnectionEvent): void {
    this.#cancelTimer = this.#options.environment.after(ms, () => this.#on(event));
  }

  /** Lets go of the socket without waiting for its close event. */
  #abandon(): void {
    this.#generation += 1;
    this.#cancelProbe?.();
    this.#cancelProbe = null;
    const socket = this.#socket;
    this.#socket = null;
    this.#byeMs = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close(1000);
  }

  async #connect(): Promise<void> {
    this.#generation += 1;
    const generation = this.#generation;
    this.#arm(CONNECT_DEADLINE_MS * 2, { kind: "closed", code: 1006, byeMs: null });
    let answer = await this.#ticket();
    if (generation !== this.#generation) return;
    if (answer.kind === "ticket_refused" && answer.status === 401) {
      // The visitor is forgotten by the server: begin as a new one rather than stay locked out.
      this.#options.onRefused();
      answer = await this.#ticket();
      if (generation !== this.#generation) return;
    }
    if (answer.kind === "ticket_refused") {
      this.#on(answer);
      return;
    }
    this.#options.onTicket(answer.answer);
    this.#open(answer.answer.ticket);
  }

  async #ticket(): Promise<
    { kind: "ticket"; answer: TicketAnswer } | Extract<ConnectionEvent, { kind: "ticket_refused" }>
  > {
    const { environment, origin, bot, claim } = this.#options;
    const abort = new AbortController();
    const cancel = environment.after(CONNECT_DEADLINE_MS, () => abort.abort());
    try {
      const response = await environment.fetch(`${origin}/v1/widget/${bot}/tickets`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(claim()),
        credentials: "same-origin",
        signal: abort.signal,
      });
      if (response.ok) return { kind: "ticket", answer: (await response.json()) as TicketAnswer };
      const problem = (await response.json().catch(() => ({}))) as { retry_after_ms?: number };
      const retryAfterMs = problem.retry_after_ms ?? null;
      return { kind: "ticket_refused", status: response.status, retryAfterMs };
    } catch {
      return { kind: "ticket_refused", status: 0, retryAfterMs: null };
    } finally {
      cancel();
    }
  }

  #open(ticket: string): void {
    const { environment, origin } = this.#options;
    const url = `${origin.replace(/^http/, "ws")}/v1/connect`;
    const socket = environment.openSocket(url, [SUBPROTOCOL, TICKET_PREFIX + ticket]);
    this.#socket = socket;
    socket.onmessage = (event) => this.#hear(event.data);
    socket.onclose = (event) => {
      const byeMs = this.#byeMs;
      this.#socket = null;
      this.#on({ kind: "closed", code: event.code, byeMs });
    };
  }

  #hear(data: unknown): void {
    this.#heardAt = this.#options.environment.now();
    this.#cancelProbe?.();
    this.#cancelProbe = null;
    const frame = typeof data === "string" ? decode(data) : null;
    if (!frame) return;
    if (frame.type === "welcome") this.#on({ kind: "welcomed", welcome: frame });
    if (frame.type === "bye") this.#byeMs = Math.max(0, frame.reconnect_after_ms);
    this.#options.onFrame(frame);
  }
}
