// What this device holds of a session: a contiguous window of its messages, the replies being
// written, and those that ended without a message. Pure: frames go in, a new log comes out, and
// whether something is missing, which a new `join` heals.

import type {
  Delta,
  EndedReply,
  Joined,
  MessageBody,
  MessagePage,
  ReplyFrame,
  RunningReply,
} from "../protocol.ts";

export interface Log {
  readonly epoch: string | null;
  /** Contiguous, ascending; a window of the session, which may be far longer. */
  readonly messages: readonly MessageBody[];
  /** Newest seq of the session. Above the last message held when older ones are being read. */
  readonly head: number;
  readonly replies: readonly RunningReply[];
  readonly ended: readonly Ended[];
}

/** `lost`: the server knows nothing of it yet; what was read of it stays until its end is told. */
export type Ended = EndedReply & { lost?: true };

export interface Applied {
  log: Log;
  /** Something is missing: join again with `after`. */
  gap: boolean;
}

export const EMPTY: Log = { epoch: null, messages: [], head: 0, replies: [], ended: [] };

/** Most messages held, and so drawn, at once. */
export const WINDOW = 200;

export const firstSeq = (log: Log): number => log.messages[0]?.seq ?? 0;
export const lastSeq = (log: Log): number => log.messages.at(-1)?.seq ?? 0;
/** Whether the newest message is among those held. */
export const atHead = (log: Log): boolean => lastSeq(log) >= log.head;
export const hasOlder = (log: Log): boolean => firstSeq(log) > 1;

/** Drops from the front what exceeds the window, and the ended replies that went with it. */
function bounded(log: Log): Log {
  return log.messages.length > WINDOW ? windowed(log, log.messages.slice(-WINDOW)) : log;
}

function windowed(log: Log, messages: readonly MessageBody[]): Log {
  const first = messages[0]?.seq ?? 0;
  const last = messages.at(-1)?.seq ?? 0;
  const written = new Set(messages.map(({ reply }) => reply));
  const ended = log.ended.filter(
    ({ reply, to }) => to >= first && to <= last && !written.has(reply),
  );
  return { ...log, messages, ended };
}

export function applyJoined(held: Log, frame: Joined): Applied {
  const changed = frame.resync === true || (held.epoch !== null && held.epoch !== frame.epoch);
  const base = changed ? EMPTY : held;
  const replies = frame.replying ? [frame.replying] : [];
  const lost = base.replies.filter(({ reply, text }) => text && reply !== frame.replying?.reply);
  const kept = withEnded({ ...base, epoch: frame.epoch, replies }, lost.map(broken));
  const log = withEnded(kept, frame.ended ?? []);
  if (!atHead(base)) {
    // Older messages are being read: that there are newer ones is all that matters.
    return { log: windowed({ ...log, head: frame.head }, base.messages), gap: false };
  }
  const news = frame.messages.filter((message) => message.seq > lastSeq(base));
  const first = news[0];
  // More was said than one answer carries, and the newest came: what is held is now far above.
  const apart = first !== undefined && lastSeq(base) > 0 && first.seq !== lastSeq(base) + 1;
  const messages = apart ? news : [...base.messages, ...news];
  const head = messages.at(-1)?.seq ?? 0;
  return {
    log: bounded(windowed({ ...log, head }, messages)),
    gap: news.length > 0 && head < frame.head,
  };
}

/** An answer that was being written when its server died, as far as it was read. */
function broken({ reply, to, text }: RunningReply): Ended {
  const error = { code: "unavailable", message: "", reason: "cut" } as const;
  return { reply, to, text, state: "failed", error, lost: true };
}

function withEnded(log: Log, ended: readonly Ended[]): Log {
  if (ended.length === 0) return log;
  const fresh = new Set(ended.map((reply) => reply.reply));
  const rest = log.ended.filter((reply) => !fresh.has(reply.reply));
  return { ...log, ended: [...rest, ...ended].sort((a, b) => a.to - b.to) };
}

export function applyMessage(held: Log, message: MessageBody): Applied {
  const replies = message.reply
    ? held.replies.filter((reply) => reply.reply !== message.reply)
    : held.replies;
  if (message.seq <= held.head) return { log: { ...held, replies }, gap: false };
  if (message.seq > held.head + 1) return { log: held, gap: true };
  const ended = held.ended.filter(({ reply }) => reply !== message.reply);
  const log = { ...held, replies, ended, head: message.seq };
  if (!atHead(held)) return { log, gap: false };
  return { log: bounded({ ...log, messages: [...held.messages, message] }), gap: false };
}

export function applyReply(held: Log, { type: _, session: __, ...frame }: ReplyFrame): Log {
  const { reply, to, state } = frame;
  if (isOver(held, reply)) return held;
  const others = held.replies.filter((other) => other.reply !== reply);
  const known = [...held.replies, ...held.ended].find((other) => other.reply === reply);
  const text = known?.text ?? "";
  const rest = { ...held, replies: others };
  if (state === "failed") return withEnded(rest, [{ reply, to, text, state, error: frame.error }]);
  if (state === "cancelled") return withEnded(rest, [{ reply, to, text, state }]);
  const ended = held.ended.filter((other) => other.reply !== reply);
  // Whoever goes on with what was lost begins anew.
  const again = { ...frame, text: ended.length < held.ended.length ? "" : text };
  return { ...held, ended, replies: [...others, again] };
}

/** Applies the part of the piece that lies beyond what is held. */
export function applyDelta(held: Log, frame: Delta): Applied {
  if (isOver(held, frame.reply)) return { log: held, gap: false };
  const known = held.replies.find((reply) => reply.reply === frame.reply);
  if (!known || frame.offset > known.text.length) return { log: held, gap: true };
  const beyond = frame.text.slice(known.text.length - frame.offset);
  if (beyond === "" && known.state === "started") return { log: held, gap: false };
  const model = known.state === "started" ? known.model : "";
  const { reply, to } = known;
  const next: RunningReply = { reply, to, text: known.text + beyond, state: "started", model };
  const replies = held.replies.map((other) => (other === known ? next : other));
  return { log: { ...held, replies }, gap: false };
}

/** Frames of a reply may still be on their way when its end is known. */
function isOver(log: Log, reply: string): boolean {
  return (
    log.ended.some((ended) => ended.reply === reply && !ended.lost) ||
    log.messages.some((message) => message.reply === reply)
  );
}

/** A page of older messages joins at the front; what then exceeds the window leaves at the end. */
export function prependPage(held: Log, page: MessagePage): Log {
  const older = page.messages.filter((message) => message.seq < firstSeq(held));
  if (older.at(-1)?.seq !== firstSeq(held) - 1) return held;
  const messages = [...older, ...held.messages].slice(0, WINDOW);
  return windowed(withEnded(held, page.ended ?? []), messages);
}

/** A page of newer messages joins at the end; what then exceeds the window leaves at the front. */
export function appendPage(held: Log, page: MessagePage): Log {
  const newer = page.messages.filter((message) => message.seq > lastSeq(held));
  if (newer[0]?.seq !== lastSeq(held) + 1) return held;
  const messages = [...held.messages, ...newer];
  const head = Math.max(held.head, messages.at(-1)?.seq ?? 0);
  return bounded(windowed(withEnded({ ...held, head }, page.ended ?? []), messages));
}
