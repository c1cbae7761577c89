// Pages of messages, for the part of a session that the first `joined` does not carry: the session is
// joined once more from further back, which any connection may do at any time. So a page needs no
// credential of its own.

import { type Joined, PAGE } from "../protocol.ts";
import type { Chat } from "./chat.ts";
import {
  appendPage,
  applyJoined,
  atHead,
  firstSeq,
  hasOlder,
  lastSeq,
  prependPage,
} from "./log.ts";
import { applied, joinAnew } from "./session.ts";

const DEADLINE_MS = 15_000;

export function loadOlder(chat: Chat): void {
  const { log } = chat.snapshot;
  if (hasOlder(log)) load(chat, "older", Math.max(firstSeq(log) - 1 - PAGE, 0));
}

export function loadNewer(chat: Chat): void {
  const { log } = chat.snapshot;
  if (!atHead(log)) load(chat, "newer", lastSeq(log));
}

function load(chat: Chat, paging: "older" | "newer", after: number): void {
  if (!chat.snapshot.ready || chat.snapshot.paging) return;
  chat.update({ paging, pagingFailed: false });
  chat.page = { messages: [], ended: [] };
  ask(chat, after);
}

function ask(chat: Chat, after: number): void {
  const { session, log } = chat.snapshot;
  if (!session || !log.epoch) return;
  const { epoch } = log;
  chat.connection.send({ type: "join", ref: "page", session, after, epoch, limit: PAGE });
  chat.arm("page", DEADLINE_MS, () => pageFailed(chat));
}

/** Takes the answer to a `join` that asked for a page. */
export function onPage(chat: Chat, frame: Joined): void {
  const { log, paging, session } = chat.snapshot;
  if (!paging || frame.session !== session) return;
  chat.cancel("page");
  const gap = atHead(log) && frame.head > log.head;
  // Everything but the messages is as in any other answer to a `join`.
  const now = applyJoined(log, { ...frame, messages: [] }).log;
  const { page } = chat;
  page.messages.push(...frame.messages);
  page.ended.push(...(frame.ended ?? []));
  const last = page.messages.at(-1)?.seq ?? 0;
  if (paging === "older" && frame.messages.length > 0 && last < firstSeq(now) - 1) {
    // Long texts ended the answer before it came to what is held.
    chat.update({ log: now });
    ask(chat, last);
    return;
  }
  const merge = paging === "older" ? prependPage : appendPage;
  chat.update({ paging: null });
  applied(chat, { log: merge(now, { ...page, more: frame.more }), gap });
}

/** A page did not come; whether this device is still joined is not known either. */
export function pageFailed(chat: Chat): void {
  chat.update({ paging: null, pagingFailed: true });
  joinAnew(chat);
}
