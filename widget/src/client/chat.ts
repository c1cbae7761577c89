// The chat as one device holds it: the connection, the outbox, what is shown, and the timers that end
// with the connection. No DOM: the frame draws the snapshot, and tests give it a fake world. The
// verbs are functions of their own: actions.ts is what the person does, session.ts joins, sending.ts
// sends, inbound.ts hears, history.ts pages; open.ts puts them together.

import type {
  EndedReply,
  Handler,
  Limits,
  MessageBody,
  ServerFrame,
  TicketAnswer,
} from "../protocol.ts";
import type { Outgoing } from "../stored.ts";
import { Connection } from "./connection.ts";
import type { Environment } from "./environment.ts";
import { EMPTY, type Log } from "./log.ts";
import { Outbox } from "./outbox.ts";
import { Presence } from "./presence.ts";
import type { ConnectionState } from "./state.ts";

export interface Snapshot {
  connection: ConnectionState;
  /** The session is joined on this connection, or there is none yet. */
  ready: boolean;
  session: string | null;
  log: Log;
  outbox: readonly Outgoing[];
  /** Who answers. */
  handler: Handler;
  /** The person of the tenant who is typing. */
  typist: string | null;
  limits: Limits | null;
  bot: { name: string; greeting: string; escalation: { button?: boolean } };
  /** Which history is being fetched. */
  paging: "older" | "newer" | null;
  /** The last page could not be fetched. */
  pagingFailed: boolean;
  /** Something was refused that belongs to no message. */
  notice: string | null;
}

/** What becomes of what the connection tells. */
export interface Hears {
  onRefused(chat: Chat): void;
  onTicket(chat: Chat, answer: TicketAnswer): void;
  onState(chat: Chat, state: ConnectionState): void;
  onFrame(chat: Chat, frame: ServerFrame): void;
}

/** One timer of each kind at most. */
type Timer = "answer" | "join" | "page" | "resend" | "typing" | "watch";

export class Chat {
  readonly connection: Connection;
  readonly outbox: Outbox;
  readonly presence: Presence;
  snapshot: Snapshot;
  /** The `join` that has no answer yet. */
  joinRef: string | null = null;
  joins = 0;
  /** What has come of the page of history that is being fetched. */
  page: { messages: MessageBody[]; ended: EndedReply[] } = { messages: [], ended: [] };
  /** Who the server says this browser is; known from the first ticket on. */
  visitor: string | null = null;
  /** How often each refused message was sent again by itself. */
  readonly resends = new Map<string, number>();
  #listeners = new Set<() => void>();
  #timers = new Map<Timer, () => void>();

  constructor(
    readonly environment: Environment,
    /** Of the server, without a slash at the end. */
    readonly origin: string,
    readonly bot: string,
    hears: Hears,
  ) {
    const { shared } = environment;
    const session = shared.get(this.key("session"));
    this.connection = new Connection({
      environment,
      origin,
      bot,
      claim: () => {
        const token = shared.get(this.key("visitor"));
        return token ? { visitor_token: token } : {};
      },
      onRefused: () => hears.onRefused(this),
      onTicket: (answer) => hears.onTicket(this, answer),
      onState: (state) => hears.onState(this, state),
      onFrame: (frame) => hears.onFrame(this, frame),
    });
    this.outbox = new Outbox(environment, bot, session);
    this.presence = new Presence(environment, this.connection);
    this.snapshot = {
      connection: this.connection.state,
      ready: false,
      session,
      log: EMPTY,
      outbox: this.outbox.entries,
      handler: "bot",
      typist: null,
      limits: null,
      bot: { name: "", greeting: "", escalation: {} },
      paging: null,
      pagingFailed: false,
      notice: null,
    };
  }

  /** Ends everything: no timer, no socket is left. */
  close(): void {
    this.connection.stop();
    this.cancelAll();
  }

  update(change: Partial<Snapshot>): void {
    this.snapshot = { ...this.snapshot, ...change, outbox: this.outbox.entries };
    for (const listener of this.#listeners) listener();
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /**
   * Where the browser's tabs share the session, whose it is, and how far it was read. `visitor` is
   * where a token was kept once, before the browser kept it in a cookie that no script can read.
   */
  key = (name: "session" | "owner" | "read" | "visitor"): string => `hubbub:${this.bot}:${name}`;

  arm(timer: Timer, ms: number, task: () => void): void {
    this.cancel(timer);
    this.#timers.set(
      timer,
      this.environment.after(ms, () => {
        this.#timers.delete(timer);
        task();
      }),
    );
  }

  cancel(timer: Timer): void {
    this.#timers.get(timer)?.();
    this.#timers.delete(timer);
  }

  cancelAll(): void {
    for (const cancel of this.#timers.values()) cancel();
    this.#timers.clear();
  }
}
