// How messages leave the outbox: one at a time, again after a passing refusal, never twice.

import { type Ack, type ErrorBody, PASSING } from "../protocol.ts";
import type { Chat } from "./chat.ts";
import { join, probe } from "./session.ts";

/** A refused message is sent again by itself this often; then the person decides. */
const RESENDS = 3;
/** Pause before a message is sent again, when the server names none. It doubles each time. */
const RESEND_MS = 2_000;
/** The longest such pause, whatever the server asks. */
const MOST_RESEND_MS = 30_000;
/** An unanswered message after this long means the socket is worth a probe. */
const ANSWER_MS = 15_000;

/** Shows the outbox as it is now, and sends what may be sent. */
export function flush(chat: Chat): void {
  const { connection, outbox } = chat;
  chat.update({});
  const { ready, session, limits } = chat.snapshot;
  const next = outbox.next();
  if (!ready || !next) return;
  if (session === null) {
    chat.update({ ready: false });
    join(chat);
    return;
  }
  const { id, text } = next;
  const frame = { type: "send" as const, ref: id, session, id, text };
  const bytes = new TextEncoder().encode(JSON.stringify(frame)).length;
  if (limits && (bytes > limits.frame_bytes || [...text].length > limits.text_chars)) {
    // Sending it would close the connection, again and again.
    outbox.mark(id, "failed", { code: "too_large", message: "" });
    flush(chat);
    return;
  }
  if (!connection.send(frame)) return;
  outbox.mark(id, "sent");
  chat.update({});
  chat.arm("answer", ANSWER_MS, () => probe(chat));
}

export function onAck(chat: Chat, { id }: Ack): void {
  chat.resends.delete(id);
  chat.cancel("answer");
  chat.outbox.mark(id, "acked");
  flush(chat);
}

export function onSendError(chat: Chat, id: string, error: ErrorBody): void {
  chat.cancel("answer");
  const resends = chat.resends.get(id) ?? 0;
  if (!PASSING.has(error.code) || resends >= RESENDS) {
    chat.outbox.mark(id, "failed", error);
    flush(chat);
    return;
  }
  chat.resends.set(id, resends + 1);
  const wait = Math.min(error.retry_after_ms ?? RESEND_MS * 2 ** resends, MOST_RESEND_MS);
  chat.arm("resend", wait + chat.environment.random() * 500, () => {
    chat.outbox.rewind();
    flush(chat);
  });
}
