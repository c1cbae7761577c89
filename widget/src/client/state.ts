// The states of the connection, as a pure machine: what happened goes in, the next state comes out.
// Nothing here waits, fetches or opens anything; connection.ts does what the new state asks for.

import type { Welcome } from "../protocol.ts";

export type ConnectionState =
  /** A ticket is being fetched or a socket opened; `attempt` counts failures in a row. */
  | { kind: "connecting"; attempt: number }
  /** `welcome` has arrived. */
  | { kind: "online"; attempt: number; welcome: Welcome; since: number }
  /** A new attempt starts at `until` (Unix milliseconds). */
  | { kind: "waiting"; attempt: number; until: number }
  /** The browser says there is no network; it will say when there is. */
  | { kind: "offline" }
  /** Trying again would fail again, until the person does something. */
  | { kind: "refused"; reason: Refusal };

export type Refusal = "signed_out" | "policy" | "forbidden" | "no_bot" | "ended";

export type ConnectionEvent =
  | { kind: "start" }
  | { kind: "welcomed"; welcome: Welcome }
  /** The socket closed, or never opened; `byeMs` is what `bye` asked for. */
  | { kind: "closed"; code: number; byeMs: number | null }
  /** No ticket: an HTTP status, or 0 when there was no answer. */
  | { kind: "ticket_refused"; status: number; retryAfterMs: number | null }
  | { kind: "wait_over" }
  | { kind: "network"; online: boolean }
  | { kind: "stopped" };

export interface Chance {
  now: number;
  /** 0 ≤ n < 1. */
  random: number;
}

/** Refusals of a ticket that will not change by themselves. */
const LASTING: Record<number, Refusal> = { 401: "signed_out", 403: "forbidden", 404: "no_bot" };
const BASE_MS = 500;
const CAP_MS = 30_000;
/** A connection that held this long counts as good: the next failure starts counting anew. */
const STABLE_MS = 5_000;
/** 1013: the server is full; coming back sooner would keep it so. */
const LATER_MS = 5_000;
/** 1001 and 4008: at once, but not everybody in the same millisecond. */
const AT_ONCE_MS = 1_000;

/** Full jitter: anywhere between nothing and the exponential bound. */
export function backoffMs(attempt: number, random: number): number {
  return Math.round(random * Math.min(CAP_MS, BASE_MS * 2 ** Math.min(attempt, 16)));
}

export function transition(
  state: ConnectionState,
  event: ConnectionEvent,
  chance: Chance,
): ConnectionState {
  if (event.kind === "stopped") return { kind: "refused", reason: "ended" };
  if (event.kind === "start") return { kind: "connecting", attempt: 0 };
  if (state.kind === "refused") return state;
  switch (event.kind) {
    case "welcomed":
      if (state.kind !== "connecting") return state;
      return {
        kind: "online",
        attempt: state.attempt,
        welcome: event.welcome,
        since: chance.now,
      };
    case "closed":
      return state.kind === "connecting" || state.kind === "online"
        ? afterClose(state, event, chance)
        : state;
    case "ticket_refused":
      return state.kind === "connecting" ? afterTicket(state.attempt, event, chance) : state;
    case "wait_over":
      return state.kind === "waiting" ? { kind: "connecting", attempt: state.attempt } : state;
    case "network":
      return afterNetwork(state, event.online);
  }
}

function waiting(attempt: number, ms: number, chance: Chance): ConnectionState {
  return { kind: "waiting", attempt, until: chance.now + Math.round(ms) };
}

function afterClose(
  state: Extract<ConnectionState, { kind: "connecting" | "online" }>,
  event: Extract<ConnectionEvent, { kind: "closed" }>,
  chance: Chance,
): ConnectionState {
  const stable = state.kind === "online" && chance.now - state.since >= STABLE_MS;
  const failures = stable ? 0 : state.attempt;
  if (event.code === 1008) return { kind: "refused", reason: "policy" };
  if (event.code === 4001) return { kind: "refused", reason: "signed_out" };
  if (event.byeMs !== null) {
    return waiting(failures + 1, Math.min(event.byeMs, CAP_MS) + chance.random * BASE_MS, chance);
  }
  if (event.code === 1013) {
    return waiting(failures + 1, LATER_MS + chance.random * (CAP_MS - LATER_MS), chance);
  }
  if ((event.code === 1001 || event.code === 4008) && failures === 0) {
    return waiting(1, chance.random * AT_ONCE_MS, chance);
  }
  return waiting(failures + 1, backoffMs(failures, chance.random), chance);
}

function afterTicket(
  attempt: number,
  event: Extract<ConnectionEvent, { kind: "ticket_refused" }>,
  chance: Chance,
): ConnectionState {
  const reason = LASTING[event.status];
  if (reason) return { kind: "refused", reason };
  const asked = Math.min(event.retryAfterMs ?? 0, CAP_MS);
  return waiting(attempt + 1, asked + backoffMs(attempt, chance.random), chance);
}

function afterNetwork(state: ConnectionState, online: boolean): ConnectionState {
  if (!online) return { kind: "offline" };
  // The network is back: whatever was waited for, now is the time.
  return state.kind === "offline" || state.kind === "waiting"
    ? { kind: "connecting", attempt: 0 }
    : state;
}
