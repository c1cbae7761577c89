// Which session this chat shows: joining it, opening one, following the browser's other tabs, and
// coming to terms with one that is gone.

import { type ErrorBody, type Joined, PAGE, PASSING, type TicketAnswer } from "../protocol.ts";
import type { Chat, Snapshot } from "./chat.ts";
import { type Applied, applyJoined, EMPTY } from "./log.ts";

/** A `join` without an answer is repeated after this long. */
const JOIN_MS = 10_000;
/** Pause before a refused `join` is repeated, when the server names none. */
const REJOIN_MS = 2_000;

/** Nothing is known of another session yet. */
const EMPTIED = { log: EMPTY, handler: "bot", typist: null } as const;

/** Whether what this browser's tabs share is this visitor's: where no cookie is kept, each has its own. */
export function isOurs({ environment, key, visitor }: Chat): boolean {
  const owner = environment.shared.get(key("owner"));
  return !owner || !visitor || owner === visitor;
}

/** The session that the tabs share. */
export function heldSession(chat: Chat): string | null {
  return isOurs(chat) ? chat.environment.shared.get(chat.key("session")) : null;
}

/** What asks for the session, and for whatever came after what is held. */
function resume({ log }: Snapshot, session: string) {
  const known = log.epoch !== null && log.head > 0;
  const position = known ? { after: log.head, epoch: log.epoch as string } : {};
  return { type: "join" as const, session, limit: PAGE, ...position };
}

/** Joins the held session, opens one if there is something to say, or is content without. */
export function join(chat: Chat): void {
  const { connection, snapshot } = chat;
  const { session } = snapshot;
  if (connection.state.kind !== "online" || chat.joinRef) return;
  if (session === null && !chat.outbox.hasUnsent()) {
    chat.update({ ready: true });
    return;
  }
  chat.joins += 1;
  const ref = `join-${chat.joins}`;
  chat.joinRef = ref;
  connection.probe(
    session
      ? { ...resume(snapshot, session), ref }
      : { type: "join", bot: chat.bot, limit: PAGE, ref },
  );
  chat.arm("join", JOIN_MS, () => joinAnew(chat));
}

/** Joins whether or not an answer is still awaited. */
export function joinAnew(chat: Chat): void {
  chat.joinRef = null;
  join(chat);
}

/** Asks something cheap that has an answer: is the socket still alive? */
export function probe({ connection, snapshot }: Chat): void {
  const { session } = snapshot;
  if (session) connection.probe({ ...resume(snapshot, session), ref: "probe" });
}

/** Takes the answer to a `join`; `false` when it is none of this chat's. */
export function onJoined(chat: Chat, frame: Joined): boolean {
  const { session } = chat.snapshot;
  const { shared } = chat.environment;
  if (session === null) {
    if (frame.ref !== chat.joinRef) return false;
    const rival = heldSession(chat);
    if (rival && rival !== frame.session) {
      // Another tab was faster; both must show one session, and this one is still empty.
      chat.connection.send({ type: "leave", session: frame.session });
      adopt(chat, rival);
      joinAnew(chat);
      return false;
    }
    adopt(chat, frame.session);
    shared.set(chat.key("owner"), chat.visitor ?? "");
    shared.set(chat.key("session"), frame.session);
  } else if (frame.session !== session || !expects(chat, frame.ref)) return false;
  chat.joinRef = null;
  chat.cancel("join");
  chat.cancel("page");
  chat.update({ ready: true, paging: null, handler: frame.handler });
  applied(chat, applyJoined(chat.snapshot.log, frame));
  // What has no answer by now is sent again, under the same id: harmless if it was stored.
  chat.outbox.rewind();
  return true;
}

/** A `joined` without `ref` comes when the server had to rebuild the session. */
function expects({ snapshot, joinRef }: Chat, ref: string | undefined): boolean {
  return ref === joinRef || (snapshot.ready && !ref?.startsWith("join"));
}

export function onJoinError(chat: Chat, error: ErrorBody): void {
  const { environment, outbox, snapshot } = chat;
  chat.joinRef = null;
  if (snapshot.session && (error.code === "not_found" || error.code === "forbidden")) {
    // The session is gone. What was not sent yet goes into a new one.
    environment.shared.delete(chat.key("session"));
    adopt(chat, null);
    join(chat);
  } else if (!snapshot.session && !PASSING.has(error.code)) {
    for (const { id } of outbox.entries) outbox.mark(id, "failed", error);
    chat.update({ ready: true });
  } else {
    const wait = error.retry_after_ms ?? REJOIN_MS;
    chat.update({ notice: error.message });
    chat.arm("join", wait + environment.random() * wait, () => join(chat));
  }
}

/** Takes in what a frame changed; asks for what it shows to be missing. */
export function applied(chat: Chat, { log, gap }: Applied): void {
  chat.outbox.remove(new Set(log.messages.map((message) => message.id)));
  chat.update({ log });
  if (gap) join(chat);
}

/** The held session is this one from now on; unsent messages come along. */
function adopt(chat: Chat, session: string | null): void {
  chat.outbox.moveTo(session);
  chat.update({ session, ready: false, ...(session === null && EMPTIED) });
}

/** Shows another session, or none. */
export function turnTo(chat: Chat, session: string | null): void {
  chat.presence.reset();
  chat.outbox.turnTo(session);
  chat.update({ session, ...EMPTIED, ready: false });
  joinAnew(chat);
}

/** A ticket tells who the visitor is and whom they talk to. */
export function onTicket(chat: Chat, { visitor, bot }: TicketAnswer): void {
  const { shared } = chat.environment;
  // A server that kept the token in a cookie does not tell it again.
  if (!visitor.token) shared.delete(chat.key("visitor"));
  chat.visitor = visitor.id;
  if (!isOurs(chat)) adopt(chat, null);
  else if (chat.snapshot.session) shared.set(chat.key("owner"), visitor.id);
  chat.update({ bot: { ...chat.snapshot.bot, ...bot } });
}

/** The visitor is another from now on. */
export function forget(chat: Chat): void {
  chat.environment.shared.delete(chat.key("visitor"));
  chat.environment.shared.delete(chat.key("session"));
  adopt(chat, null);
}
