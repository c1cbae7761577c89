// Every word the frame says, in one place, and the forms of times. Imported as `WORDS`, whole.

import type { Refusal } from "../client/state.ts";

export const chat = "Chat";
export const assistant = "Assistant";
export const you = "You";
export const greeting = "Hi there! How can I help you today?";
export const hint = "Answers come from an AI and can be wrong.";
export const placeholder = "Write a message…";
export const send = "Send";
export const stop = "Stop answering";
export const newChat = "New chat";
export const close = "Close chat";
export const latest = "Jump to latest";
export const older = "Earlier messages";
export const loadingOlder = "Loading…";
export const thinking = "is writing";
export const tryAgain = "Try again";
export const discard = "Discard";
export const cancelled = "Stopped";
export const failed = "The answer did not come.";
export const sending = "Sending…";
export const waitingToSend = "Waiting to send";
export const notSent = "Not sent";
export const tooLong = "too long";
export const online = "Online";
export const connecting = "Connecting…";
export const reconnecting = "Reconnecting…";
export const reconnectNow = "Reconnect now";
export const away = "Not connected";
export const copy = "Copy";
export const copied = "Copied";
export const offline = "You are offline. What you write is sent later.";

export const REFUSALS: Record<Refusal, string> = {
  signed_out: "You are signed out of this chat.",
  policy: "This chat was closed.",
  forbidden: "This chat may not be used on this site.",
  no_bot: "This chat does not exist any more.",
  ended: "This chat has ended.",
};

export function queued(position: number, etaMs: number): string {
  const seconds = Math.max(1, Math.round(etaMs / 1000));
  const wait = seconds < 60 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
  const place = position <= 1 ? "Next in line" : `Number ${position} in line`;
  return etaMs > 0 ? `${place} · about ${wait}` : place;
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
