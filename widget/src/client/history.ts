// Pages of messages over HTTP, for the part of a session that `joined` does not carry.

import { type MessagePage, PAGE } from "../protocol.ts";
import type { Chat } from "./chat.ts";
import { appendPage, atHead, firstSeq, hasOlder, type Log, lastSeq, prependPage } from "./log.ts";

const DEADLINE_MS = 15_000;

export async function loadOlder(chat: Chat): Promise<void> {
  const { log } = chat.snapshot;
  if (hasOlder(log)) await load(chat, "older", firstSeq(log), prependPage);
}

export async function loadNewer(chat: Chat): Promise<void> {
  const { log } = chat.snapshot;
  if (atHead(log)) return;
  // Numbers have no gaps, so the page that ends here is the one that follows what is held.
  await load(chat, "newer", Math.min(lastSeq(log) + PAGE, log.head) + 1, appendPage);
}

async function load(
  chat: Chat,
  paging: "older" | "newer",
  before: number,
  merge: (log: Log, page: MessagePage) => Log,
): Promise<void> {
  const { session } = chat.snapshot;
  if (!session || chat.snapshot.paging) return;
  chat.update({ paging, pagingFailed: false });
  try {
    const page = await fetchPage(chat, session, before);
    // Meanwhile another session may have been opened, or the log be another.
    const { log, session: now } = chat.snapshot;
    chat.update({ paging: null, ...(session === now && { log: merge(log, page) }) });
  } catch {
    chat.update({ paging: null, pagingFailed: true });
  }
}

/** The page of messages just before `before`, oldest first. Rejects when it cannot be had. */
async function fetchPage(chat: Chat, session: string, before: number): Promise<MessagePage> {
  const { environment, origin } = chat;
  const abort = new AbortController();
  const cancel = environment.after(DEADLINE_MS, () => abort.abort());
  const token = environment.shared.get(chat.key("visitor"));
  try {
    const url = `${origin}/v1/sessions/${session}/messages?before=${before}&limit=${PAGE}`;
    const response = await environment.fetch(url, {
      headers: { authorization: `Bearer ${token}` },
      credentials: "omit",
      signal: abort.signal,
    });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return (await response.json()) as MessagePage;
  } finally {
    cancel();
  }
}
