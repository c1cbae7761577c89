// What this tab keeps in its storage, so that a reload loses nothing. Another build of the widget may
// read what this one wrote.

import type { ErrorBody } from "./protocol.ts";

/** A message written here and not yet known to be stored by the server. */
export interface Outgoing {
  id: string;
  text: string;
  /** Unix milliseconds when it was written. */
  at: number;
  /** `waiting`: not sent on this connection; `sent`: no answer yet; `acked`: stored, not yet shown. */
  state: "waiting" | "sent" | "acked" | "failed";
  error?: ErrorBody;
}
