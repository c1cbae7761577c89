// What the person does, and what the browser tells.

import type { Chat } from "./chat.ts";
import { checkSocket } from "./inbound.ts";
import { atHead, EMPTY, lastSeq } from "./log.ts";
import { flush } from "./sending.ts";
import { forget, joinAnew, turnTo } from "./session.ts";

/** Takes a message; `false` when it is empty or too many are unsent already. */
export function sendText(chat: Chat, text: string): boolean {
  const trimmed = text.trim();
  if (trimmed === "" || !chat.outbox.add(trimmed)) return false;
  chat.presence.stopTyping(chat.snapshot.session);
  jumpToLatest(chat);
  flush(chat);
  return true;
}

/** Sends a message that was refused once more, under the same id. */
export function retry(chat: Chat, id: string): void {
  if (chat.outbox.find(id)?.state !== "failed") return;
  chat.resends.delete(id);
  chat.outbox.mark(id, "waiting");
  flush(chat);
}

export function discard(chat: Chat, id: string): void {
  chat.outbox.remove(new Set([id]));
  flush(chat);
}

export function stopReply({ connection, snapshot: { session } }: Chat): void {
  if (session) connection.send({ type: "stop", ref: "stop", session });
}

export function tellTyping({ presence, snapshot: { ready, session } }: Chat): void {
  if (ready) presence.type(session);
}

/** The person has seen everything that is held. */
export function tellRead({ presence, snapshot: { ready, session, log } }: Chat): void {
  if (ready && session && atHead(log)) presence.read(session, lastSeq(log));
}

/** Whether a new chat may begin: not while something unsent would be left behind. */
export function canStartNew({ outbox, snapshot }: Chat): boolean {
  return snapshot.session !== null && !outbox.hasUnsent();
}

export function startNew(chat: Chat): void {
  const { session } = chat.snapshot;
  if (!session || !canStartNew(chat)) return;
  chat.connection.send({ type: "leave", session });
  chat.environment.shared.delete(chat.key("session"));
  turnTo(chat, null);
}

/** After a refusal: forget the visitor and begin as a new one. */
export function startOver(chat: Chat): void {
  forget(chat);
  chat.connection.start();
}

/** Lets go of the older messages that are being read, and shows the newest. */
export function jumpToLatest(chat: Chat): void {
  const { log, session } = chat.snapshot;
  if (atHead(log) || !session) return;
  chat.update({ log: { ...EMPTY, epoch: log.epoch }, ready: false });
  joinAnew(chat);
}

export function networkChanged(chat: Chat, online: boolean): void {
  chat.connection.networkChanged(online);
  if (online) checkSocket(chat);
}

/** Another tab of this browser opened or left a session: follow it. */
export function sharedChanged(chat: Chat): void {
  const session = chat.environment.shared.get(chat.key("session"));
  if (session !== chat.snapshot.session && !chat.outbox.hasUnsent()) turnTo(chat, session);
}
