// What the others may see of this person: typing and read. Throttled; losing one of these frames
// costs nothing.

import type { Connection } from "./connection.ts";
import type { Environment } from "./environment.ts";

/** `typing` is repeated at most this often while the person types. */
const REPEAT_MS = 3_000;
/** After this long without a key the person is no longer typing. */
const IDLE_MS = 5_000;

export class Presence {
  #environment: Environment;
  #connection: Connection;
  #toldAt = 0;
  #cancelIdle: (() => void) | null = null;
  #readSeq = 0;

  constructor(environment: Environment, connection: Connection) {
    this.#environment = environment;
    this.#connection = connection;
  }

  type(session: string | null): void {
    if (!session) return;
    this.#cancelIdle?.();
    this.#cancelIdle = this.#environment.after(IDLE_MS, () => this.stopTyping(session));
    const now = this.#environment.now();
    if (now - this.#toldAt < REPEAT_MS) return;
    this.#toldAt = now;
    this.#connection.send({ type: "typing", session, on: true });
  }

  stopTyping(session: string | null): void {
    if (!this.#cancelIdle || !session) return;
    this.#cancelIdle();
    this.#cancelIdle = null;
    this.#toldAt = 0;
    this.#connection.send({ type: "typing", session, on: false });
  }

  read(session: string, seq: number): void {
    if (seq <= this.#readSeq) return;
    if (this.#connection.send({ type: "read", session, seq })) this.#readSeq = seq;
  }

  /** The connection or the session is another: what was told is forgotten. */
  reset(): void {
    this.#cancelIdle?.();
    this.#cancelIdle = null;
    this.#toldAt = 0;
    this.#readSeq = 0;
  }
}
