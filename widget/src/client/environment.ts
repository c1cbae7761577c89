// Everything the client needs from the world. Tests give a fake one with a clock of their own.

export interface SocketLike {
  onopen: (() => void) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  send(text: string): void;
  close(code?: number): void;
}

/** A string store that may be refused by the browser; losing it costs continuity, never function. */
export interface Store {
  get(key: string): string | null;
  set(key: string, value: string): void;
  delete(key: string): void;
}

export interface Environment {
  openSocket(url: string, protocols: string[]): SocketLike;
  fetch(url: string, init: RequestInit): Promise<Response>;
  /** Runs `task` once after `ms` milliseconds; the result cancels it. */
  after(ms: number, task: () => void): () => void;
  /** Milliseconds since the Unix epoch. */
  now(): number;
  /** 0 ≤ n < 1. */
  random(): number;
  uuid(): string;
  isOnline(): boolean;
  /** Shared by the browser's tabs: the visitor and the session. */
  shared: Store;
  /** This tab's own, and survives its reload: what is not yet sent. */
  tab: Store;
}

/** Falls back to memory where storage is blocked or full (private mode, third-party frames). */
export function webStore(open: () => Storage): Store {
  const memory = new Map<string, string>();
  const attempt = <T>(use: (storage: Storage) => T): T | null => {
    try {
      return use(open());
    } catch {
      return null;
    }
  };
  return {
    get: (key) => memory.get(key) ?? attempt((storage) => storage.getItem(key)),
    set(key, value) {
      memory.set(key, value);
      attempt((storage) => {
        storage.setItem(key, value);
        memory.delete(key);
      });
    },
    delete(key) {
      memory.delete(key);
      attempt((storage) => storage.removeItem(key));
    },
  };
}

/** The real world of a browser window. */
export function browserEnvironment(view: Window & typeof globalThis): Environment {
  return {
    openSocket: (url, protocols) => new view.WebSocket(url, protocols) as SocketLike,
    fetch: (url, init) => view.fetch(url, init),
    after(ms, task) {
      const timer = view.setTimeout(task, ms);
      return () => view.clearTimeout(timer);
    },
    now: () => Date.now(),
    random: () => Math.random(),
    uuid: () => uuid(view.crypto),
    isOnline: () => view.navigator.onLine,
    shared: webStore(() => view.localStorage),
    tab: webStore(() => view.sessionStorage),
  };
}

/** A random UUID, version 4. `crypto.randomUUID` is missing on plain-http pages; this is not. */
function uuid(crypto: Crypto): string {
  return "10000000-1000-4000-8000-100000000000".replace(/[018]/g, (digit) => {
    const random = crypto.getRandomValues(new Uint8Array(1))[0] ?? 0;
    return (Number(digit) ^ (random & (15 >> (Number(digit) / 4)))).toString(16);
  });
}
