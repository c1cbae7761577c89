// Asking for a person in place of the bot.

import type { Chat, Snapshot } from "./chat.ts";

/** What the request is called; its answer is `handler`. */
export const ESCALATE = "escalate";

/** Whether the bot lets visitors ask for a person, and one can be asked for now. */
export function canEscalate({ bot, handler, ready, session }: Snapshot): boolean {
  return handler === "bot" && ready && session !== null && bot.escalation.button === true;
}

export function escalate({ connection, snapshot: { session } }: Chat): void {
  if (session) connection.send({ type: "escalate", ref: ESCALATE, session });
}
