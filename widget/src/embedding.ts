// What the host page's loader and the frame tell each other, window to window.

// Either may be older than the other for a while: what one does not know it ignores.

export interface FromHost {
  hubbub: "opened" | "closed";
  theme?: string;
  /** `false`: the page opened the chat by itself; nobody asked to write yet. */
  focus?: boolean;
}

export type ToHost =
  | { hubbub: "ready" | "close" }
  /** So many messages came in that the person has not seen. */
  | { hubbub: "unread"; count: number }
  /** There are none any more. */
  | { hubbub: "read" }
  /** When the last message of the conversation was written, in Unix milliseconds; 0: there is none. */
  | { hubbub: "talked"; at: number }
  /** The set-up is wrong: there is no such bot, or the page's origin may not embed it. A sentence. */
  | { hubbub: "refused"; reason: string }
  /** The set-up was looked at, and is right. */
  | { hubbub: "fine" };
