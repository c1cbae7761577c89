// What the person does, and what the browser tells.

import type { Chat } from "./chat.ts";
import { checkSocket } from "./inbound.ts";
import { atHead, EMPTY, lastSeq } from "./log.ts";
import { flush } from "./sending.ts";
import { forget, heldSession, isOurs, joinAnew, turnTo } from "./session.ts";

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

/** The person has seen everything that is held. Remembered, so that a later page knows what is new. */
export function tellRead(chat: Chat): void {
  const { ready, session, log } = chat.snapshot;
  if (!ready || !session || !atHead(log)) return;
  chat.presence.read(session, lastSeq(log));
  if (readSeq(chat) < lastSeq(log)) remember(chat);
}

/** How many messages of others the person has not seen yet. */
export function unread(chat: Chat): number {
  const { ready, session, log } = chat.snapshot;
  if (!ready || !session) return 0;
  // Before anything was remembered, everything counts as read.
  if (readSeq(chat) < 0) remember(chat);
  const read = readSeq(chat);
  return log.messages.filter(({ role, seq }) => role !== "visitor" && seq > read).length;
}

/** The last message of this session that was read in this browser; -1 if that is not known. */
function readSeq({ environment: { shared }, key, snapshot: { session } }: Chat): number {
  const [of, seq] = shared.get(key("read"))?.split(":") ?? [];
  return of === session ? Number(seq) : -1;
}

function remember({ environment: { shared }, key, snapshot: { session, log } }: Chat): void {
  shared.set(key("read"), `${session}:${lastSeq(log)}`);
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

/** Another tab of this browser opened or left a session, or read it: follow it. */
export function sharedChanged(chat: Chat): void {
  if (!isOurs(chat)) return;
  const session = heldSession(chat);
  if (session !== chat.snapshot.session && !chat.outbox.hasUnsent()) turnTo(chat, session);
  else chat.update({});
}
