// Talks with the page that embeds the frame. Both ways: only this window, only that origin.

import type { FromHost, ToHost } from "../embedding.ts";

export class Host {
  #view: Window;
  #origin: string | null = null;
  /** Whether the person sees the frame: always, when it is a page of its own. */
  open = true;

  constructor(view: Window, on: (message: FromHost) => void) {
    this.#view = view;
    const { host, theme } = readHash(view.location.hash);
    if (theme) applyTheme(view.document, theme);
    if (view.parent === view || !host) return;
    this.#origin = host;
    this.open = false;
    view.addEventListener("message", (event) => {
      if (event.source !== view.parent || event.origin !== host) return;
      const message: FromHost | null = event.data;
      if (message?.hubbub !== "opened" && message?.hubbub !== "closed") return;
      this.open = message.hubbub === "opened";
      if (message.theme) applyTheme(view.document, message.theme);
      on(message);
    });
  }

  get embedded(): boolean {
    return this.#origin !== null;
  }

  tell(message: ToHost): void {
    if (this.#origin) this.#view.parent.postMessage(message, this.#origin);
  }
}

function readHash(hash: string): { host: string | null; theme: string | null } {
  const fields = new URLSearchParams(hash.slice(1));
  const host = fields.get("host");
  return {
    // A page from a file or a data URL has no origin to check against, and gets no answers.
    host: host && /^https?:\/\/[^/]+$/.test(host) ? host : null,
    theme: fields.get("theme"),
  };
}

function applyTheme(document: Document, theme: string): void {
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
}
