// Pages of messages over HTTP, for the part of a session that `joined` does not carry.

import { type MessagePage, PAGE } from "../protocol.ts";
import type { Environment } from "./environment.ts";

const DEADLINE_MS = 15_000;

/** The page of messages just before `before`, oldest first. Rejects when it cannot be had. */
export async function fetchPage(
  environment: Environment,
  origin: string,
  session: string,
  visitorToken: string,
  before: number,
): Promise<MessagePage> {
  const abort = new AbortController();
  const cancel = environment.after(DEADLINE_MS, () => abort.abort());
  try {
    const url = `${origin}/v1/sessions/${session}/messages?before=${before}&limit=${PAGE}`;
    const response = await environment.fetch(url, {
      headers: { authorization: `Bearer ${visitorToken}` },
      credentials: "omit",
      signal: abort.signal,
    });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    return (await response.json()) as MessagePage;
  } finally {
    cancel();
  }
}
