// What was read of answers that did not come to a good end. A server that dies has less of their text
// than was shown, and a `joined` carries only the beginning of long ones; this tab has it, also after a
// reload if the connection broke.

import type { Joined } from "../protocol.ts";
import type { Chat } from "./chat.ts";

/** Answers whose text is kept; more than one are rarely cut in one conversation. */
const MOST = 5;

const keyOf = ({ bot }: Chat): string => `hubbub:${bot}:kept`;
const keptBy = (chat: Chat): Record<string, string> =>
  JSON.parse(chat.environment.tab.get(keyOf(chat)) ?? "{}");

export function keepTexts(chat: Chat): void {
  const broken = chat.snapshot.log.replies.filter(({ text }) => text);
  if (broken.length === 0) return;
  const entries = broken.map(({ reply, text }) => [reply, text]);
  const kept = [...Object.entries(keptBy(chat)), ...entries].slice(-MOST);
  chat.environment.tab.set(keyOf(chat), JSON.stringify(Object.fromEntries(kept)));
}

/** The frame, with each ended answer as far as it was read here. */
export function withTexts(chat: Chat, frame: Joined): Joined {
  const kept = keptBy(chat);
  const ended = frame.ended?.map((reply) => {
    const held = chat.snapshot.log.ended.find((other) => other.reply === reply.reply);
    const text = held?.text ?? kept[reply.reply] ?? "";
    return text.length > reply.text.length ? { ...reply, text } : reply;
  });
  return ended ? { ...frame, ended } : frame;
}
