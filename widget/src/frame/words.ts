// Every word the frame says, in one place, and the forms of times. Imported as `WORDS`, whole.

import type { Refusal } from "../client/state.ts";
import type { ErrorBody, QueuedState } from "../protocol.ts";

export const chat = "Chat";
export const assistant = "Assistant";
export const you = "You";
export const person = "A person";
export const askPerson = "Talk to a person";
export const awaiting = "Waiting for a person. You can go on writing.";
export const answers = (name: string): string => `${name} answers`;
export const greeting = "Hello! How can I help you?";
export const hint = "Answers come from an AI and can be wrong.";
export const placeholder = "Write a message…";
export const send = "Send";
export const stop = "Stop answering";
export const newChat = "New chat";
export const close = "Close chat";
export const latest = "Jump to latest";
export const older = "Earlier messages";
export const loadingOlder = "Loading…";
export const writing = "is writing";
export const thinking = "Thinking…";
export const tryAgain = "Try again";
export const discard = "Discard";
export const cancelled = "Stopped";
export const interrupted = "The answer was interrupted.";
export const cut = "The answer was cut short.";
/** Also what is asked in the person's name. */
export const goOn = "Continue";
export const sending = "Sending…";
export const waitingToSend = "Waiting to send";
export const online = "Online";
export const connecting = "Connecting…";
export const reconnecting = "Reconnecting…";
export const away = "Not connected";
export const copy = "Copy";
export const copied = "Copied";
export const offline = "Offline. Messages are sent later.";

export const REFUSALS: Record<Refusal, string> = {
  signed_out: "You are signed out.",
  policy: "This chat was closed.",
  forbidden: "This chat is not for this site.",
  no_bot: "This chat is gone.",
  ended: "This chat has ended.",
};

export const notSent = (tooLong: boolean, error?: ErrorBody): string =>
  `Not sent: ${tooLong ? "too long" : (error?.message ?? "")}`;

export function queued({ position, eta_ms, paused }: QueuedState): string {
  const seconds = Math.max(1, Math.round(eta_ms / 1000));
  const wait = seconds < 60 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
  const place = paused
    ? "No answers at the moment"
    : position <= 1
      ? "Next in line"
      : `Number ${position} in line`;
  return eta_ms > 0 ? `${place} · ${paused ? "next try in" : "about"} ${wait}` : place;
}

export function time(at: string | number): string {
  const date = new Date(at);
  const sameDay = date.toDateString() === new Date().toDateString();
  return date.toLocaleString(undefined, {
    ...(!sameDay && { day: "numeric", month: "short" }),
    hour: "2-digit",
    minute: "2-digit",
  });
}
