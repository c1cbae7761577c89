// What is drawn, in order: messages, each with the replies to it that failed or were stopped, then
// the replies being written, then what is not yet stored. An item keeps its key from its first
// letter to its last, so a streamed answer or a sent message stays the same element throughout.

import type { Snapshot } from "../client/chat.ts";
import { atHead } from "../client/log.ts";
import type { EndedReply, MessageBody, RunningReply } from "../protocol.ts";
import type { Outgoing } from "../stored.ts";
import * as WORDS from "./words.ts";

export interface Item {
  key: string;
  side: "me" | "them" | "note";
  author: string;
  /** A person of the tenant wrote it. */
  person?: boolean;
  text: string;
  /** Nothing will be added to the text. */
  final: boolean;
  at: string | number | null;
  status:
    | { kind: "none" }
    | { kind: "queued"; words: string }
    | { kind: "writing" | "thinking" }
    /** Whole as far as it goes: the model came to its bound. */
    | { kind: "cut" }
    | { kind: "cancelled" }
    | { kind: "failed"; to: number; words: string }
    | { kind: "waiting" | "sending" | "sent" }
    | { kind: "unsent"; id: string; words: string; tooLong: boolean };
}

const NONE = { kind: "none" } as const;
/** Items of things that do not change are made once, so what draws them can compare by identity. */
const made = new WeakMap<object, Item>();

function once<T extends object>(source: T, make: (source: T) => Item): Item {
  const known = made.get(source);
  if (known) return known;
  const item = make(source);
  made.set(source, item);
  return item;
}

function ofMessage(message: MessageBody): Item {
  const side = { visitor: "me", assistant: "them", operator: "them", system: "note" } as const;
  return {
    key: message.reply ?? message.id,
    side: side[message.role] ?? "note",
    author: message.author,
    person: message.role === "operator",
    text: message.text,
    final: true,
    at: message.at,
    status: message.cut ? { kind: "cut" } : NONE,
  };
}

function ofEnded(reply: EndedReply): Item {
  const status =
    reply.state === "cancelled"
      ? ({ kind: "cancelled" } as const)
      : ({
          kind: "failed",
          to: reply.to,
          words: reply.error.message || WORDS.interrupted,
        } as const);
  const { text } = reply;
  return { key: reply.reply, side: "them", author: "", text, final: true, at: null, status };
}

function ofRunning(reply: RunningReply): Item {
  const status =
    reply.state === "queued"
      ? ({ kind: "queued", words: WORDS.queued(reply) } as const)
      : ({ kind: reply.thinking ? "thinking" : "writing" } as const);
  const { text } = reply;
  return { key: reply.reply, side: "them", author: "", text, final: false, at: null, status };
}

function ofOutgoing({ id, text, at, state, error }: Outgoing): Item {
  const tooLong = error?.code === "too_large";
  const status =
    state === "failed"
      ? ({ kind: "unsent", id, words: WORDS.notSent(tooLong, error), tooLong } as const)
      : ({
          kind: ({ acked: "sent", sent: "sending", waiting: "waiting" } as const)[state],
        } as const);
  return { key: id, side: "me", author: "", text, final: true, at, status };
}

export function itemsOf(snapshot: Snapshot): Item[] {
  const { log, outbox } = snapshot;
  const items: Item[] = [];
  let next = 0;
  for (const message of log.messages) {
    items.push(once(message, ofMessage));
    for (; next < log.ended.length; next += 1) {
      const reply = log.ended[next];
      if (!reply || reply.to > message.seq) break;
      items.push(once(reply, ofEnded));
    }
  }
  if (atHead(log)) {
    for (const reply of log.replies) items.push(once(reply, ofRunning));
    for (const entry of outbox) items.push(once(entry, ofOutgoing));
  }
  return items;
}

/** Whether an item is by the same one as the item before it: no need to name them again. */
export function follows(item: Item, before: Item | undefined): boolean {
  return (
    before?.side === item.side && (!(before.person || item.person) || before.author === item.author)
  );
}

/**
 * Whether the person is offered to have an answer again: the newest, or one that failed and whose
 * question was not asked again since.
 */
export function isOpen({ log, outbox }: Snapshot, { status }: Item, isLast: boolean): boolean {
  if (status.kind !== "failed") return isLast;
  const question = log.messages.find(({ seq }) => seq === status.to);
  const later = [...log.messages.filter(({ seq }) => seq > status.to), ...outbox];
  return question !== undefined && !later.some(({ text }) => text === question.text);
}
