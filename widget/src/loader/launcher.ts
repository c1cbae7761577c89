// The launcher on the host's page, from the moment its set-up is known to be right: what it shows,
// and the life of its frame, which may fail to load and is then made anew.

import type { FromHost, ToHost } from "../embedding.ts";
import { icon, SMALL, STYLE } from "./look.ts";
import { Memory } from "./memory.ts";

/** A frame that has not spoken by then will not; sooner once the browser says that it has loaded. */
const SPEAK_MS = 12_000;
const LOADED_MS = 2_500;
/** Pause before another attempt while somebody waits. It doubles each time, up to the second. */
const RETRY_MS = 2_000;
const MOST_RETRY_MS = 30_000;
/** The launcher waits no longer than this for the word that the set-up is right. */
const VERDICT_MS = 3_000;
/** The page comes first: so long after it, the frame of a recent conversation is made. */
const PAGE_FIRST_MS = 1_000;

const OPENING = "Opening the chat…";
const AWAY = "The chat is out of reach. Trying again…";

type Phase = "none" | "checking" | "loading" | "ready" | "failed";

export interface Settings {
  /** Origin of the server. */
  server: string;
  /** What the script's own name followed, with a slash at its end. */
  base: string;
  bot: string;
  theme: string;
  label: string;
}

function make<K extends keyof HTMLElementTagNameMap>(
  name: K,
  more: Partial<HTMLElementTagNameMap[K]> = {},
): HTMLElementTagNameMap[K] {
  return Object.assign(document.createElement(name), more);
}

export class Launcher {
  #settings: Settings;
  #memory: Memory;
  #host = make("div", { hidden: true });
  #button = make("button", { type: "button", className: "launch" });
  #card = make("div", { className: "card" });
  #words = make("p");
  #again = make("button", { type: "button", textContent: "Try again" });
  #shadow = this.#host.attachShadow({ mode: "open" });
  /** The frame, or the page that only looks at the set-up. */
  #frame: HTMLIFrameElement | null = null;
  #phase: Phase = "none";
  #isOpen = false;
  /** Somebody asked to write, and did not merely load the page. */
  #focus = false;
  #unread = 0;
  #attempts = 0;
  #timers: ReturnType<typeof setTimeout>[] = [];

  constructor(settings: Settings) {
    this.#settings = settings;
    this.#memory = new Memory(settings.bot);
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    this.#shadow.adoptedStyleSheets = [sheet];
    this.#host.dataset.theme = settings.theme;
    this.#button.title = settings.label;
    this.#button.append(icon());
    this.#card.setAttribute("role", "status");
    const close = make("button", { type: "button", textContent: "Close" });
    this.#card.append(this.#words, this.#again, close);
    this.#shadow.append(this.#button, this.#card);
    this.#button.addEventListener("click", () => this.#toggle(!this.#isOpen));
    close.addEventListener("click", () => this.#toggle(false));
    this.#again.addEventListener("click", () => this.#load());
    this.#shadow.addEventListener("keydown", (event) => {
      if ((event as KeyboardEvent).key === "Escape" && this.#isOpen) this.#toggle(false);
    });
    addEventListener("message", (event) => this.#hear(event));
    document.addEventListener("securitypolicyviolation", ({ blockedURI, effectiveDirective }) => {
      const isOurs = blockedURI.startsWith(settings.server);
      if (isOurs && /^(frame|child|default)/.test(effectiveDirective)) {
        this.#refuse("Its frame-src forbids it.");
      }
    });
  }

  /** Puts the launcher on the page; `open`: the page asks for an open chat. */
  mount(open: boolean): void {
    document.body.append(this.#host);
    const memory = this.#memory;
    const isFine = memory.get("fine") !== null;
    const kept = memory.get("open");
    this.#host.hidden = !isFine;
    if (kept ? kept === "1" : open && !matchMedia(SMALL).matches) {
      this.#isOpen = true;
      this.#load();
    } else if (memory.talkedLately()) {
      this.#after(PAGE_FIRST_MS, () => this.#load());
    } else if (!isFine) {
      this.#add("/setup", "checking");
      this.#after(VERDICT_MS, () => this.#judge());
    }
    this.#draw();
  }

  #toggle(open: boolean): void {
    this.#isOpen = this.#focus = open;
    this.#memory.set("open", open ? "1" : "0");
    if (open) this.#unread = 0;
    if (open && this.#phase !== "ready") this.#load();
    if (!open && this.#phase === "failed") this.#clear();
    this.#draw();
    this.#tell();
    if (!open) this.#button.focus();
    else if (this.#phase === "ready") this.#frame?.focus();
  }

  /** Makes the frame, whatever became of an earlier one. */
  #load(): void {
    if (this.#phase === "loading") return;
    const hash = new URLSearchParams({ host: location.origin, theme: this.#settings.theme });
    const frame = this.#add(`#${hash}`, "loading");
    this.#after(SPEAK_MS, () => this.#fail());
    // An error page has loaded too; the chat has spoken by then, or does so soon.
    frame.addEventListener("load", () => this.#after(LOADED_MS, () => this.#fail()));
    this.#draw();
  }

  #add(path: string, phase: Phase): HTMLIFrameElement {
    this.#drop(phase);
    const { base, bot, label } = this.#settings;
    const frame = make("iframe", { title: label, allow: "clipboard-write", hidden: true });
    frame.setAttribute("sandbox", "allow-scripts allow-forms allow-popups allow-same-origin");
    // The server says what is wrong with the set-up, and for that has to know who asks.
    frame.referrerPolicy = "origin";
    frame.src = `${base}widget/${bot}${path}`;
    this.#shadow.append(frame);
    this.#frame = frame;
    return frame;
  }

  #hear({ source, origin, data }: MessageEvent): void {
    if (source !== this.#frame?.contentWindow || origin !== this.#settings.server) return;
    const said = data as ToHost | null;
    if (said?.hubbub === "fine" || said?.hubbub === "ready") this.#memory.set("fine", "1");
    if (said?.hubbub === "fine") this.#judge();
    else if (said?.hubbub === "refused") this.#refuse(said.reason);
    else if (said?.hubbub === "ready") this.#ready();
    else if (said?.hubbub === "close") this.#toggle(false);
    else if (said?.hubbub === "talked") this.#memory.set("talked", said.at ? String(said.at) : "");
    else if (said?.hubbub === "unread" || said?.hubbub === "read") {
      this.#unread = said.hubbub === "unread" && !this.#isOpen ? said.count : 0;
      this.#draw();
    }
  }

  /** The set-up was looked at, or cannot be: the launcher may show. */
  #judge(): void {
    if (this.#phase !== "checking") return;
    this.#drop("none");
    this.#show();
  }

  #ready(): void {
    this.#clear();
    this.#phase = "ready";
    this.#attempts = 0;
    this.#show();
    this.#tell();
    if (this.#isOpen && this.#focus) this.#frame?.focus();
  }

  #fail(): void {
    if (this.#phase !== "loading") return;
    if (this.#attempts === 0) console.warn(`Hubbub: ${this.#settings.server} is out of reach.`);
    this.#drop("failed");
    const wait = Math.min(RETRY_MS * 2 ** this.#attempts, MOST_RETRY_MS);
    this.#attempts += 1;
    if (this.#isOpen) this.#after(wait, () => this.#load());
    this.#show();
  }

  #show(): void {
    this.#host.hidden = false;
    this.#draw();
  }

  /** A visitor can do nothing about a wrong set-up, and so sees nothing of it. */
  #refuse(reason: string): void {
    console.error(`Hubbub: the chat is not shown. ${reason}`);
    this.#memory.set("fine", "");
    this.#drop("none");
    this.#host.remove();
  }

  #tell(): void {
    if (this.#phase !== "ready") return;
    const message: FromHost = {
      hubbub: this.#isOpen ? "opened" : "closed",
      focus: this.#focus,
    };
    this.#frame?.contentWindow?.postMessage(message, this.#settings.server);
  }

  #draw(): void {
    const { label } = this.#settings;
    const shows = this.#isOpen && this.#phase === "ready";
    const failed = this.#phase === "failed" || this.#attempts > 0;
    const count = this.#unread > 9 ? "9+" : String(this.#unread);
    this.#button.setAttribute("aria-expanded", String(this.#isOpen));
    this.#button.setAttribute("aria-label", this.#unread ? `${label} (${count} new)` : label);
    if (this.#unread) this.#button.dataset.unread = count;
    else delete this.#button.dataset.unread;
    this.#host.toggleAttribute("data-full", shows);
    if (this.#frame) this.#frame.hidden = !shows;
    this.#words.textContent = failed ? AWAY : OPENING;
    this.#again.hidden = !failed;
    this.#card.hidden = !this.#isOpen || shows;
  }

  /** Lets go of the frame and of all that was to happen. */
  #drop(phase: Phase): void {
    this.#clear();
    this.#frame?.remove();
    this.#frame = null;
    this.#phase = phase;
  }

  #after(ms: number, task: () => void): void {
    this.#timers.push(setTimeout(task, ms));
  }

  #clear(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers = [];
  }
}
