// What the host page remembers of the chat: nothing of what was said, and nothing that identifies
// anybody. Where storage is blocked nothing is remembered, and nothing else changes.
//
// `open` (this tab): the chat was left open, `1`, or closed, `0`. `fine` (this tab): the set-up is
// right. `talked` (every tab): when the last message was written, in Unix milliseconds.

/** So long after its last message a conversation is worth a frame before anybody asks for it. */
const RECENT_MS = 24 * 60 * 60 * 1000;

type Name = "open" | "fine" | "talked";

export class Memory {
  #bot: string;

  constructor(bot: string) {
    this.#bot = bot;
  }

  get(name: Name): string | null {
    return this.#use(name, (storage, key) => storage.getItem(key));
  }

  /** Remembers a value; an empty one is forgotten. */
  set(name: Name, value: string): void {
    this.#use(name, (storage, key) =>
      value ? storage.setItem(key, value) : storage.removeItem(key),
    );
  }

  /** Something was said lately: an answer may have come in since. */
  talkedLately(): boolean {
    return Date.now() - Number(this.get("talked")) < RECENT_MS;
  }

  #use<T>(name: Name, use: (storage: Storage, key: string) => T): T | null {
    try {
      const storage = name === "talked" ? localStorage : sessionStorage;
      return use(storage, `hubbub:${this.#bot}:${name}`);
    } catch {
      return null;
    }
  }
}
