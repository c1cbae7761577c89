import assert from "node:assert/strict";
import { test } from "node:test";
import { backoffMs, type ConnectionState, transition } from "../../src/client/state.ts";
import type { Welcome } from "../../src/protocol.ts";
import { welcome } from "./world.ts";

const chance = { now: 100_000, random: 0.5 };
const connecting = (attempt: number): ConnectionState => ({ kind: "connecting", attempt });
const online = (since: number, attempt = 0): ConnectionState => ({
  kind: "online",
  attempt,
  welcome: welcome as Welcome,
  since,
});
const closed = (code: number, byeMs: number | null = null) =>
  ({ kind: "closed", code, byeMs }) as const;
const waitOf = (state: ConnectionState) => {
  assert.equal(state.kind, "waiting");
  return state.kind === "waiting" ? state.until - chance.now : 0;
};

test("back-off is full jitter between nothing and 0.5 s doubling to 30 s", () => {
  const bounds = [0, 1, 2, 3, 4, 5, 6, 7, 50].map((attempt) => backoffMs(attempt, 1));
  assert.deepEqual(bounds, [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
  assert.equal(backoffMs(9, 0), 0);
  assert.equal(backoffMs(9, 0.5), 15000);
});

test("failures in a row wait longer; a connection that held starts the count anew", () => {
  assert.equal(waitOf(transition(connecting(3), closed(1006), chance)), 2000);
  assert.equal(waitOf(transition(online(chance.now - 10, 3), closed(1006), chance)), 2000);
  assert.equal(waitOf(transition(online(chance.now - 5000, 3), closed(1006), chance)), 250);
});

test("every close code has its rule", () => {
  const held = online(0);
  assert.equal(waitOf(transition(held, closed(1001), chance)), 500);
  assert.equal(waitOf(transition(held, closed(4008), chance)), 500);
  assert.equal(waitOf(transition(held, closed(1013), chance)), 17_500);
  assert.equal(waitOf(transition(held, closed(1011), chance)), 250);
  assert.equal(waitOf(transition(held, closed(1001, 800), chance)), 1050);
  assert.deepEqual(transition(held, closed(1008), chance), { kind: "refused", reason: "policy" });
  const signedOut = { kind: "refused", reason: "signed_out" };
  assert.deepEqual(transition(held, closed(4001), chance), signedOut);
});

test("a bye cannot keep a client away for ever", () => {
  assert.equal(waitOf(transition(online(0), closed(1001, 1e12), chance)), 30_250);
});

test("a refused ticket stops, or waits as long as the server asks and some more", () => {
  const refuse = (status: number, retryAfterMs: number | null = null) =>
    transition(connecting(0), { kind: "ticket_refused", status, retryAfterMs }, chance);
  assert.deepEqual(refuse(401), { kind: "refused", reason: "signed_out" });
  assert.deepEqual(refuse(403), { kind: "refused", reason: "forbidden" });
  assert.deepEqual(refuse(404), { kind: "refused", reason: "no_bot" });
  assert.equal(waitOf(refuse(0)), 250);
  assert.equal(waitOf(refuse(503)), 250);
  assert.equal(waitOf(refuse(429, 5000)), 5250);
});

test("without a network it rests, and starts at once when there is one", () => {
  const offline = transition(online(0), { kind: "network", online: false }, chance);
  assert.deepEqual(offline, { kind: "offline" });
  assert.deepEqual(transition(offline, { kind: "wait_over" }, chance), offline);
  assert.deepEqual(transition(offline, { kind: "network", online: true }, chance), connecting(0));
});

test("a refused connection moves only when it is started again", () => {
  const refused: ConnectionState = { kind: "refused", reason: "policy" };
  for (const event of [
    closed(1006),
    { kind: "wait_over" } as const,
    { kind: "network", online: true } as const,
    { kind: "network", online: false } as const,
  ]) {
    assert.equal(transition(refused, event, chance), refused);
  }
  assert.deepEqual(transition(refused, { kind: "start" }, chance), connecting(0));
});
