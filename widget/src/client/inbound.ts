// What the server says, and what becomes of the connection.

import type { ErrorFrame, ServerFrame } from "../protocol.ts";
import type { Chat } from "./chat.ts";
import { ESCALATE } from "./escalating.ts";
import { onPage, pageFailed } from "./history.ts";
import { keepTexts, withTexts } from "./kept.ts";
import { applyDelta, applyMessage, applyReply } from "./log.ts";
import { flush, onAck, onSendError } from "./sending.ts";
import { applied, joinAnew, onJoinError, onJoined, probe } from "./session.ts";
import type { ConnectionState } from "./state.ts";

/** Somebody who is typing and is not heard of again has stopped. */
const TYPING_MS = 10_000;

export function onState(chat: Chat, state: ConnectionState): void {
  chat.joinRef = null;
  chat.cancelAll();
  chat.outbox.rewind();
  chat.update({ paging: null });
  if (state.kind !== "online") {
    keepTexts(chat);
    chat.presence.reset();
    chat.update({ connection: state, ready: false, typist: null });
    return;
  }
  chat.update({ connection: state, limits: state.welcome.limits, notice: null });
  watch(chat, 2 * state.welcome.heartbeat_ms);
  joinAnew(chat);
}

/** A socket that has been silent for long is asked something cheap. */
function watch(chat: Chat, ms: number): void {
  chat.arm("watch", ms, () => {
    checkSocket(chat);
    watch(chat, ms);
  });
}

/** Is the socket still alive? Asked when there is reason to doubt it. */
export function checkSocket(chat: Chat): void {
  const { connection, snapshot } = chat;
  const { state } = connection;
  if (state.kind === "waiting") connection.retryNow();
  if (state.kind !== "online" || !snapshot.ready) return;
  if (connection.silentMs() >= 2 * state.welcome.heartbeat_ms) probe(chat);
}

export function onFrame(chat: Chat, frame: ServerFrame): void {
  if (frame.type === "joined") {
    const whole = withTexts(chat, frame);
    if (frame.ref === "page" && !frame.resync) onPage(chat, whole);
    else if (onJoined(chat, whole)) flush(chat);
  } else if (frame.type === "error") onError(chat, frame);
  else if ("session" in frame && frame.session === chat.snapshot.session) {
    onSessionFrame(chat, frame);
  }
}

function onSessionFrame(chat: Chat, frame: ServerFrame): void {
  const { log, ready } = chat.snapshot;
  if (frame.type === "ack") onAck(chat, frame);
  else if (frame.type === "typing") {
    const { kind, name } = frame.who;
    if (kind === "operator") typing(chat, frame.on ? name : null);
  } else if (!ready) return;
  else if (frame.type === "handler") chat.update({ handler: frame.handler });
  else if (frame.type === "message") applied(chat, applyMessage(log, frame));
  else if (frame.type === "reply") applied(chat, { log: applyReply(log, frame), gap: false });
  else if (frame.type === "delta") applied(chat, applyDelta(log, frame));
}

function typing(chat: Chat, typist: string | null): void {
  chat.update({ typist });
  if (typist === null) chat.cancel("typing");
  else chat.arm("typing", TYPING_MS, () => chat.update({ typist: null }));
}

function onError(chat: Chat, error: ErrorFrame): void {
  const { ref } = error;
  if (ref === undefined || ref === ESCALATE) chat.update({ notice: error.message });
  else if (ref === chat.joinRef) onJoinError(chat, error);
  // Whose `join` was refused, asked for whatever reason, is not joined any more.
  else if (ref === "page") pageFailed(chat);
  else if (ref === "probe") joinAnew(chat);
  else if (chat.outbox.find(ref)) onSendError(chat, ref, error);
}
