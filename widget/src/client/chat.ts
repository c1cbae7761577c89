// The chat as one device sees it: ties the connection, the session's log and the outbox together.
// No DOM: the frame draws `snapshot()` and calls the methods; tests drive it with a fake world.

import type { ErrorBody, Joined, Limits, ServerFrame } from "../protocol.ts";
import { PAGE } from "../protocol.ts";
import { Connection } from "./connection.ts";
import type { Environment } from "./environment.ts";
import { fetchPage } from "./history.ts";
import {
  type Applied,
  appendPage,
  applyDelta,
  applyJoined,
  applyMessage,
  applyReply,
  atHead,
  EMPTY,
  firstSeq,
  hasOlder,
  type Log,
  lastSeq,
  prependPage,
} from "./log.ts";
import { Outbox, type Outgoing } from "./outbox.ts";
import { Presence } from "./presence.ts";
import type { ConnectionState } from "./state.ts";

export interface Snapshot {
  connection: ConnectionState;
  /** The session is joined on this connection, or there is none yet. */
  ready: boolean;
  session: string | null;
  log: Log;
  outbox: readonly Outgoing[];
  /** A person of the tenant is typing. */
  othersTyping: boolean;
  limits: Limits | null;
  bot: { name: string; greeting: string };
  /** Which history is being fetched. */
  paging: "older" | "newer" | null;
  /** The last page could not be fetched. */
  pagingFailed: boolean;
  /** Something was refused that belongs to no message. */
  notice: string | null;
}

/** A refused message is sent again by itself this often; then the person decides. */
const RESENDS = 3;
/** Pause before a message is sent again, when the server names none. */
const RESEND_MS = 2_000;
/** Refusals that go away by themselves. */
const PASSING: ReadonlySet<string> = new Set([
  "rate_limited",
  "overloaded",
  "unavailable",
  "internal",
]);
/** A `join` without an answer is repeated after this long. */
const JOIN_MS = 10_000;
/** An unanswered message after this long means the socket is worth a probe. */
const ANSWER_MS = 15_000;

export class Chat {
  readonly bot: string;
  #environment: Environment;
  #origin: string;
  #connection: Connection;
  #outbox: Outbox;
  #presence: Presence;
  #snapshot: Snapshot;
  #listeners = new Set<() => void>();
  #joinRef: string | null = null;
  #joins = 0;
  #resends = new Map<string, number>();
  #timers = new Map<string, () => void>();

  constructor(environment: Environment, origin: string, bot: string) {
    this.#environment = environment;
    this.#origin = origin;
    this.bot = bot;
    const session = environment.shared.get(this.#key("session"));
    this.#outbox = new Outbox(environment, bot, session);
    this.#connection = new Connection({
      environment,
      origin,
      bot,
      visitorToken: () => environment.shared.get(this.#key("visitor")),
      onTokenRefused: () => this.#forget(),
      onTicket: (answer) => {
        environment.shared.set(this.#key("visitor"), answer.visitor.token);
        const { name, greeting } = { ...this.#snapshot.bot, ...answer.bot };
        this.#update({ bot: { name, greeting } });
      },
      onState: (state) => this.#onState(state),
      onFrame: (frame) => this.#onFrame(frame),
    });
    this.#presence = new Presence(environment, (frame) => this.#connection.send(frame));
    this.#snapshot = {
      connection: this.#connection.state,
      ready: false,
      session,
      log: EMPTY,
      outbox: this.#outbox.entries,
      othersTyping: false,
      limits: null,
      bot: { name: "", greeting: "" },
      paging: null,
      pagingFailed: false,
      notice: null,
    };
  }

  start(): void {
    this.#connection.start();
  }

  /** Ends everything: no timer, no socket is left. */
  close(): void {
    this.#connection.stop();
    this.#cancelAll();
  }

  snapshot(): Snapshot {
    return this.#snapshot;
  }

  subscribe(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  // What the person does

  /** Takes a message; `false` when it is empty or too many are unsent already. */
  send(text: string): boolean {
    const trimmed = text.trim();
    if (trimmed === "" || !this.#outbox.add(trimmed)) return false;
    this.#presence.stopTyping(this.#snapshot.session);
    if (!atHead(this.#snapshot.log)) this.jumpToLatest();
    this.#outboxChanged();
    return true;
  }

  /** Sends a message that was refused once more, under the same id. */
  retry(id: string): void {
    if (this.#outbox.find(id)?.state !== "failed") return;
    this.#resends.delete(id);
    this.#outbox.mark(id, "waiting");
    this.#outboxChanged();
  }

  discard(id: string): void {
    this.#outbox.remove(new Set([id]));
    this.#outboxChanged();
  }

  stop(): void {
    const { session } = this.#snapshot;
    if (session) this.#connection.send({ type: "stop", ref: "stop", session });
  }

  typing(): void {
    if (this.#snapshot.ready) this.#presence.type(this.#snapshot.session);
  }

  /** The person has seen everything that is held. */
  read(): void {
    const { session, log, ready } = this.#snapshot;
    if (ready && session && atHead(log)) this.#presence.read(session, lastSeq(log));
  }

  retryConnection(): void {
    this.#connection.retryNow();
  }

  /** Whether a new chat may begin: not while something unsent would be left behind. */
  canStartNew(): boolean {
    return this.#snapshot.session !== null && !this.#outbox.hasUnsent();
  }

  newChat(): void {
    if (!this.canStartNew()) return;
    const { session } = this.#snapshot;
    if (session) this.#connection.send({ type: "leave", session });
    this.#environment.shared.delete(this.#key("session"));
    this.#turnTo(null);
  }

  /** After a refusal: forget the visitor and begin as a new one. */
  startOver(): void {
    this.#forget();
    this.#connection.start();
  }

  // What the browser tells

  networkChanged(online: boolean): void {
    this.#connection.networkChanged(online);
    if (online) this.checkSocket();
  }

  /** Another tab of this browser opened or left a session: follow it. */
  sharedChanged(): void {
    const session = this.#environment.shared.get(this.#key("session"));
    if (session === this.#snapshot.session || this.#outbox.hasUnsent()) return;
    this.#turnTo(session);
  }

  /** The page is looked at again, or a network came back: is the socket still alive? */
  checkSocket(): void {
    const { session, log, ready } = this.#snapshot;
    const state = this.#connection.state;
    if (state.kind === "waiting") this.#connection.retryNow();
    if (state.kind !== "online" || !ready || !session) return;
    if (this.#connection.silentMs() < 2 * state.welcome.heartbeat_ms) return;
    this.#connection.probe({ ...this.#resume(session, log), ref: "probe" });
  }

  // History

  async loadOlder(): Promise<void> {
    const { log, paging } = this.#snapshot;
    if (paging || !hasOlder(log)) return;
    await this.#page("older", firstSeq(log), prependPage);
  }

  async loadNewer(): Promise<void> {
    const { log, paging } = this.#snapshot;
    if (paging || atHead(log)) return;
    // Numbers have no gaps, so the page that ends here is the one that follows what is held.
    await this.#page("newer", Math.min(lastSeq(log) + PAGE, log.head) + 1, appendPage);
  }

  /** Lets go of the older messages that are being read, and shows the newest. */
  jumpToLatest(): void {
    const { log, session } = this.#snapshot;
    if (atHead(log) || !session) return;
    this.#joinRef = null;
    this.#update({ log: { ...EMPTY, epoch: log.epoch }, ready: false });
    this.#join();
  }

  async #page(
    paging: "older" | "newer",
    before: number,
    merge: (log: Log, page: Awaited<ReturnType<typeof fetchPage>>) => Log,
  ): Promise<void> {
    const { session } = this.#snapshot;
    if (!session) return;
    this.#update({ paging, pagingFailed: false });
    const token = this.#environment.shared.get(this.#key("visitor")) ?? "";
    try {
      const page = await fetchPage(this.#environment, this.#origin, session, token, before);
      // Meanwhile another session may have been opened, or the log be another.
      if (session === this.#snapshot.session) {
        this.#update({ log: merge(this.#snapshot.log, page) });
      }
      this.#update({ paging: null });
    } catch {
      this.#update({ paging: null, pagingFailed: true });
    }
  }

  // What the server says

  #onState(state: ConnectionState): void {
    this.#joinRef = null;
    this.#cancelAll();
    this.#outbox.rewind();
    if (state.kind !== "online") {
      this.#presence.reset();
      this.#update({ connection: state, ready: false, othersTyping: false });
      return;
    }
    this.#update({ connection: state, limits: state.welcome.limits, notice: null });
    this.#arm("watch", 2 * state.welcome.heartbeat_ms, () => this.#watch());
    this.#join();
  }

  /** A socket that has been silent for long is asked something cheap. */
  #watch(): void {
    const state = this.#connection.state;
    if (state.kind !== "online") return;
    this.checkSocket();
    this.#arm("watch", 2 * state.welcome.heartbeat_ms, () => this.#watch());
  }

  #onFrame(frame: ServerFrame): void {
    if (frame.type === "joined") this.#onJoined(frame);
    else if (frame.type === "error") this.#onError(frame.ref, frame);
    else if ("session" in frame && frame.session === this.#snapshot.session) {
      this.#onSessionFrame(frame);
    }
  }

  #onSessionFrame(frame: ServerFrame): void {
    const { log, ready } = this.#snapshot;
    switch (frame.type) {
      case "ack":
        this.#resends.delete(frame.id);
        this.#cancel("answer");
        this.#outbox.mark(frame.id, "acked");
        this.#outboxChanged();
        break;
      case "message":
        if (ready) this.#applied(applyMessage(log, frame));
        break;
      case "reply":
        if (ready) this.#applied({ log: applyReply(log, frame), gap: false });
        break;
      case "delta":
        if (ready) this.#applied(applyDelta(log, frame));
        break;
      case "typing":
        if (frame.who.kind === "operator") this.#othersTyping(frame.on);
        break;
    }
  }

  #othersTyping(on: boolean): void {
    this.#update({ othersTyping: on });
    if (on) this.#arm("typing", 10_000, () => this.#update({ othersTyping: false }));
    else this.#cancel("typing");
  }

  #onJoined(frame: Joined): void {
    const { session } = this.#snapshot;
    if (session === null) {
      if (frame.ref !== this.#joinRef) return;
      const rival = this.#environment.shared.get(this.#key("session"));
      if (rival && rival !== frame.session) {
        // Another tab was faster; both must show one session, and this one is still empty.
        this.#connection.send({ type: "leave", session: frame.session });
        this.#joinRef = null;
        this.#adopt(rival);
        this.#join();
        return;
      }
      this.#adopt(frame.session);
      this.#environment.shared.set(this.#key("session"), frame.session);
    } else if (frame.session !== session || !this.#expects(frame.ref)) return;
    this.#joinRef = null;
    this.#cancel("join");
    this.#update({ ready: true });
    const base = this.#snapshot.log;
    this.#applied(applyJoined(base, frame));
    // What has no answer by now is sent again, under the same id: harmless if it was stored.
    this.#outbox.rewind();
    this.#outboxChanged();
  }

  /** A `joined` without `ref` comes when the server had to rebuild the session. */
  #expects(ref: string | undefined): boolean {
    if (ref === undefined || ref === "probe") return this.#snapshot.ready;
    return ref === this.#joinRef;
  }

  #onError(ref: string | undefined, error: ErrorBody): void {
    if (ref !== undefined && ref === this.#joinRef) this.#onJoinError(error);
    else if (ref !== undefined && this.#outbox.find(ref)) this.#onSendError(ref, error);
    else if (ref === undefined) this.#update({ notice: error.message });
  }

  #onJoinError(error: ErrorBody): void {
    this.#joinRef = null;
    if (this.#snapshot.session && (error.code === "not_found" || error.code === "forbidden")) {
      // The session is gone. What was not sent yet goes into a new one.
      this.#environment.shared.delete(this.#key("session"));
      this.#adopt(null);
      this.#update({ log: EMPTY });
      this.#join();
      return;
    }
    if (!this.#snapshot.session && !PASSING.has(error.code)) {
      for (const { id } of this.#outbox.entries) this.#outbox.mark(id, "failed", error);
      this.#update({ ready: true, outbox: this.#outbox.entries });
      return;
    }
    const wait = error.retry_after_ms ?? RESEND_MS;
    this.#update({ notice: error.message });
    this.#arm("join", wait + this.#environment.random() * wait, () => this.#join());
  }

  #onSendError(id: string, error: ErrorBody): void {
    this.#cancel("answer");
    const resends = this.#resends.get(id) ?? 0;
    if (!PASSING.has(error.code) || resends >= RESENDS) {
      this.#outbox.mark(id, "failed", error);
      this.#outboxChanged();
      return;
    }
    this.#resends.set(id, resends + 1);
    const wait = Math.min(error.retry_after_ms ?? RESEND_MS * 2 ** resends, 30_000);
    this.#arm("resend", wait + this.#environment.random() * 500, () => {
      this.#outbox.rewind();
      this.#outboxChanged();
    });
  }

  // Sessions

  #resume(session: string, log: Log) {
    const known = log.epoch !== null && log.head > 0;
    const position = known ? { after: log.head, epoch: log.epoch as string } : {};
    return { type: "join" as const, session, limit: PAGE, ...position };
  }

  /** Joins the held session, opens one if there is something to say, or is content without. */
  #join(): void {
    const { session, log } = this.#snapshot;
    if (this.#connection.state.kind !== "online" || this.#joinRef) return;
    if (session === null && !this.#outbox.hasUnsent()) {
      this.#update({ ready: true });
      return;
    }
    this.#joins += 1;
    this.#joinRef = `join-${this.#joins}`;
    const frame = session
      ? this.#resume(session, log)
      : { type: "join" as const, bot: this.bot, limit: PAGE };
    this.#connection.probe({ ...frame, ref: this.#joinRef });
    this.#arm("join", JOIN_MS, () => {
      this.#joinRef = null;
      this.#join();
    });
  }

  /** The held session is this one from now on; unsent messages come along. */
  #adopt(session: string | null): void {
    this.#outbox.moveTo(session);
    this.#update({ session, ready: false });
  }

  /** Shows another session, or none. */
  #turnTo(session: string | null): void {
    this.#joinRef = null;
    this.#presence.reset();
    this.#outbox.turnTo(session);
    this.#update({
      session,
      log: EMPTY,
      ready: false,
      outbox: this.#outbox.entries,
      othersTyping: false,
    });
    this.#join();
  }

  #forget(): void {
    this.#environment.shared.delete(this.#key("visitor"));
    this.#environment.shared.delete(this.#key("session"));
    this.#adopt(null);
    this.#update({ log: EMPTY });
  }

  // Within

  #applied({ log, gap }: Applied): void {
    this.#update({ log });
    const arrived = new Set(log.messages.map((message) => message.id));
    this.#outbox.remove(arrived);
    this.#update({ outbox: this.#outbox.entries });
    if (gap) this.#join();
  }

  #outboxChanged(): void {
    this.#update({ outbox: this.#outbox.entries });
    this.#flush();
  }

  #flush(): void {
    const { session, ready } = this.#snapshot;
    const next = this.#outbox.next();
    if (!ready || !next) return;
    if (session === null) {
      this.#update({ ready: false });
      this.#join();
      return;
    }
    const frame = { type: "send" as const, ref: next.id, session, id: next.id, text: next.text };
    const bytes = new TextEncoder().encode(JSON.stringify(frame)).length;
    const limits = this.#snapshot.limits;
    if (limits && (bytes > limits.frame_bytes || [...next.text].length > limits.text_chars)) {
      // Sending it would close the connection, again and again.
      this.#outbox.mark(next.id, "failed", { code: "too_large", message: "" });
      this.#outboxChanged();
      return;
    }
    if (!this.#connection.send(frame)) return;
    this.#outbox.mark(next.id, "sent");
    this.#update({ outbox: this.#outbox.entries });
    this.#arm("answer", ANSWER_MS, () => {
      this.#connection.probe({ ...this.#resume(session, this.#snapshot.log), ref: "probe" });
    });
  }

  #key(name: string): string {
    return `hubbub:${this.bot}:${name}`;
  }

  #arm(name: string, ms: number, task: () => void): void {
    this.#cancel(name);
    this.#timers.set(
      name,
      this.#environment.after(ms, () => {
        this.#timers.delete(name);
        task();
      }),
    );
  }

  #cancelAll(): void {
    for (const cancel of this.#timers.values()) cancel();
    this.#timers.clear();
  }

  #cancel(name: string): void {
    this.#timers.get(name)?.();
    this.#timers.delete(name);
  }

  #update(change: Partial<Snapshot>): void {
    this.#snapshot = { ...this.#snapshot, ...change };
    for (const listener of this.#listeners) listener();
  }
}
