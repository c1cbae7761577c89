// Every word the frame says, in one place, and the forms of times.

import type { Refusal } from "../client/state.ts";

export const WORDS = {
  chat: "Chat",
  assistant: "Assistant",
  you: "You",
  greeting: "Hi there! How can I help you today?",
  hint: "Answers come from an AI and can be wrong.",
  placeholder: "Write a message…",
  send: "Send",
  stop: "Stop answering",
  newChat: "New chat",
  close: "Close chat",
  latest: "Jump to latest",
  older: "Earlier messages",
  loadingOlder: "Loading…",
  thinking: "is writing",
  tryAgain: "Try again",
  discard: "Discard",
  cancelled: "Stopped",
  failed: "The answer did not come.",
  sending: "Sending…",
  waitingToSend: "Waiting to send",
  notSent: "Not sent",
  tooLong: "too long",
  online: "Online",
  connecting: "Connecting…",
  reconnecting: "Reconnecting…",
  reconnectNow: "Reconnect now",
  offline: "You are offline",
} as const;

export const REFUSALS: Record<Refusal, string> = {
  signed_out: "You are signed out of this chat.",
  policy: "This chat was closed.",
  forbidden: "This chat may not be used on this site.",
  no_bot: "This chat does not exist any more.",
  ended: "This chat has ended.",
};

export function queuedWords(position: number, etaMs: number): string {
  const seconds = Math.max(1, Math.round(etaMs / 1000));
  const wait = seconds < 60 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
  const place = position <= 1 ? "Next in line" : `Number ${position} in line`;
  return etaMs > 0 ? `${place} · about ${wait}` : place;
}

export function timeWords(at: string | number): string {
  const time = new Date(at);
  const sameDay = time.toDateString() === new Date().toDateString();
  return time.toLocaleString(undefined, {
    ...(!sameDay && { day: "numeric", month: "short" }),
    hour: "2-digit",
    minute: "2-digit",
  });
}
