// Messages written here and not yet known to be stored. Kept in the tab's storage, so that a reload
// loses none of them; the client's own id makes sending one again harmless.

import type { ErrorBody } from "../protocol.ts";
import type { Outgoing } from "../stored.ts";
import type { Environment } from "./environment.ts";

/** More unsent messages than anybody writes; a guard against a script gone wild. */
const MOST = 50;

export class Outbox {
  #entries: Outgoing[] = [];
  #environment: Environment;
  #bot: string;
  #session: string | null;

  constructor(environment: Environment, bot: string, session: string | null) {
    this.#environment = environment;
    this.#bot = bot;
    this.#session = session;
    this.#load();
  }

  get entries(): readonly Outgoing[] {
    return this.#entries;
  }

  /** Adds a message; `null` when too many are waiting already. */
  add(text: string): Outgoing | null {
    if (this.#entries.length >= MOST) return null;
    const { uuid, now } = this.#environment;
    const entry: Outgoing = { id: uuid(), text, at: now(), state: "waiting" };
    this.#change([...this.#entries, entry]);
    return entry;
  }

  /** The next one to send: one at a time, so that order is kept whatever fails. */
  next(): Outgoing | null {
    if (this.#entries.some((entry) => entry.state === "sent")) return null;
    return this.#entries.find((entry) => entry.state === "waiting") ?? null;
  }

  find(id: string): Outgoing | undefined {
    return this.#entries.find((entry) => entry.id === id);
  }

  mark(id: string, state: Outgoing["state"], error?: ErrorBody): void {
    this.#change(
      this.#entries.map((entry) => {
        if (entry.id !== id) return entry;
        const { text, at } = entry;
        return { id, text, at, state, ...(error && { error }) };
      }),
    );
  }

  remove(ids: ReadonlySet<string>): void {
    if (this.#entries.some((entry) => ids.has(entry.id))) {
      this.#change(this.#entries.filter((entry) => !ids.has(entry.id)));
    }
  }

  /** The connection is new: whatever has no answer must be sent again. */
  rewind(): void {
    if (!this.#entries.some((entry) => entry.state === "sent")) return;
    this.#change(
      this.#entries.map((entry) =>
        entry.state === "sent" ? { ...entry, state: "waiting" as const } : entry,
      ),
    );
  }

  /** Whether anything here has not reached the server. */
  hasUnsent(): boolean {
    return this.#entries.some((entry) => entry.state === "waiting" || entry.state === "sent");
  }

  /** The session these messages were written for is open now, or is another. */
  moveTo(session: string | null): void {
    if (session === this.#session) return;
    this.#environment.tab.delete(this.#key());
    this.#session = session;
    this.#save();
  }

  /** Turns to another session, whose own unsent messages may be waiting in this tab. */
  turnTo(session: string | null): void {
    if (session === this.#session) return;
    this.#session = session;
    this.#load();
  }

  #key(): string {
    return `hubbub:${this.#bot}:outbox:${this.#session ?? "new"}`;
  }

  #change(entries: Outgoing[]): void {
    this.#entries = entries;
    this.#save();
  }

  #save(): void {
    const kept = this.#entries.filter((entry) => entry.state !== "acked");
    if (kept.length === 0) this.#environment.tab.delete(this.#key());
    else this.#environment.tab.set(this.#key(), JSON.stringify(kept));
  }

  #load(): void {
    this.#entries = [];
    try {
      const held = JSON.parse(this.#environment.tab.get(this.#key()) ?? "[]");
      this.#entries = held.filter(isOutgoing).slice(0, MOST);
      this.rewind();
    } catch {
      // Not ours, or damaged: there is nothing to save in it.
    }
  }
}

function isOutgoing(value: Partial<Outgoing> | null): value is Outgoing {
  return typeof value?.id === "string" && typeof value.text === "string" && "state" in value;
}
