import assert from "node:assert/strict";
import { test } from "node:test";
import {
  appendPage,
  applyDelta,
  applyJoined,
  applyMessage,
  applyReply,
  atHead,
  EMPTY,
  firstSeq,
  hasOlder,
  type Log,
  lastSeq,
  prependPage,
  WINDOW,
} from "../../src/client/log.ts";
import type { Delta, ReplyFrame } from "../../src/protocol.ts";
import { joined, message, SESSION } from "./world.ts";

const range = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => message(from + index));
const held = (from: number, to: number): Log =>
  applyJoined(EMPTY, joined({ messages: range(from, to) })).log;
const started: ReplyFrame = {
  type: "reply",
  session: SESSION,
  reply: "r",
  to: 1,
  state: "started",
  model: "m",
};
const delta = (offset: number, text: string): Delta => ({
  type: "delta",
  session: SESSION,
  reply: "r",
  offset,
  text,
});
const seqs = (log: Log) => log.messages.map(({ seq }) => seq);

test("messages follow each other; repeats change nothing, a hole asks for a join", () => {
  const log = held(1, 3);
  assert.deepEqual(seqs(applyMessage(log, message(4)).log), [1, 2, 3, 4]);
  assert.deepEqual(seqs(applyMessage(log, message(3)).log), [1, 2, 3]);
  assert.deepEqual(applyMessage(log, message(5)), { log, gap: true });
});

test("a delta adds only what lies beyond what is held, counted in UTF-16 units", () => {
  let log = applyReply(held(1, 1), started);
  log = applyDelta(log, delta(0, "a📦")).log;
  assert.equal(log.replies[0]?.text.length, 3);
  log = applyDelta(log, delta(1, "📦bc")).log;
  assert.equal(log.replies[0]?.text, "a📦bc");
  assert.equal(applyDelta(log, delta(0, "a")).log, log);
  assert.deepEqual(applyDelta(log, delta(9, "x")), { log, gap: true });
});

test("a delta of an unknown reply is a gap, of an ended one is nothing", () => {
  assert.equal(applyDelta(held(1, 1), delta(0, "x")).gap, true);
  const cancelled = applyReply(applyReply(held(1, 1), started), { ...started, state: "cancelled" });
  assert.deepEqual(applyDelta(cancelled, delta(0, "x")), { log: cancelled, gap: false });
  assert.equal(applyReply(cancelled, started), cancelled);
});

test("each end takes the reply away: message, failure, stop", () => {
  const log = applyDelta(applyReply(held(1, 1), started), delta(0, "half")).log;
  const done = applyMessage(log, message(2, { reply: "r", role: "assistant" })).log;
  assert.deepEqual(done.replies, []);
  const stopped = applyReply(log, { ...started, state: "cancelled" });
  assert.deepEqual(stopped.replies, []);
  assert.deepEqual(stopped.ended, [{ reply: "r", to: 1, text: "half", state: "cancelled" }]);
  const error = { code: "unavailable", message: "x" } as const;
  const failed = applyReply(log, { ...started, state: "failed", error });
  assert.equal(failed.ended[0]?.state, "failed");
});

test("a join after a cut continues without gap or double, at any point", () => {
  for (let at = 0; at <= 6; at += 1) {
    const before = at === 0 ? EMPTY : held(1, at);
    const { log, gap } = applyJoined(before, joined({ messages: range(at + 1, 6), head: 6 }));
    assert.deepEqual(seqs(log), [1, 2, 3, 4, 5, 6]);
    assert.equal(gap, false);
  }
});

test("a join that brings the first part asks for the rest; one that brings the end drops the old", () => {
  const part = applyJoined(held(1, 3), joined({ messages: range(4, 8), head: 20, more: true }));
  assert.equal(part.gap, true);
  assert.equal(part.log.head, 8);
  const end = applyJoined(held(1, 3), joined({ messages: range(16, 20), head: 20, more: true }));
  assert.deepEqual(seqs(end.log), [16, 17, 18, 19, 20]);
  assert.equal(end.gap, false);
  assert.equal(hasOlder(end.log), true);
});

test("resync, or another epoch, drops what is held", () => {
  for (const more of [{ resync: true }, { epoch: "other" }]) {
    const { log } = applyJoined(held(1, 9), joined({ messages: range(1, 2), ...more }));
    assert.deepEqual(seqs(log), [1, 2]);
  }
});

test("a join tells which reply is being written, and forgets those that are not", () => {
  const replying = { reply: "r2", to: 1, state: "started", model: "m", text: "so far" } as const;
  const log = applyReply(held(1, 1), started);
  assert.deepEqual(applyJoined(log, joined({ replying })).log.replies, [replying]);
  assert.deepEqual(applyJoined(log, joined()).log.replies, []);
});

test("the window is bounded, both ways, and pages join only where they fit", () => {
  let log = held(1, 1);
  for (let seq = 2; seq <= 1000; seq += 1) log = applyMessage(log, message(seq)).log;
  assert.equal(log.messages.length, WINDOW);
  assert.equal(lastSeq(log), 1000);
  const page = (from: number, to: number) => ({ messages: range(from, to), more: true });
  const older = prependPage(log, page(751, 800));
  assert.deepEqual([firstSeq(older), lastSeq(older), older.messages.length], [751, 950, WINDOW]);
  assert.equal(atHead(older), false);
  assert.equal(prependPage(log, page(700, 749)), log);
  const live = applyMessage(older, message(1001)).log;
  assert.deepEqual([live.head, lastSeq(live)], [1001, 950]);
  const newer = appendPage(live, page(951, 1000));
  assert.deepEqual([firstSeq(newer), lastSeq(newer)], [801, 1000]);
  assert.equal(appendPage(live, page(960, 1000)), live);
});

// W9
test("what was read of an answer whose server died stays, and takes its end when that is told", () => {
  const half = applyDelta(applyReply(held(1, 1), started), delta(0, "half")).log;
  const back = applyJoined(half, joined()).log;
  assert.deepEqual(back.replies, []);
  assert.equal(back.ended[0]?.text, "half");
  assert.equal(back.ended[0]?.state, "failed");
  const error = { code: "unavailable", message: "The server stopped." } as const;
  const live = applyReply(back, { ...started, state: "failed", error });
  assert.deepEqual(live.ended, [{ reply: "r", to: 1, state: "failed", error, text: "half" }]);
});

// W9
test("an answer that another server goes on with, or has finished, is not shown twice", () => {
  const half = applyDelta(applyReply(held(1, 1), started), delta(0, "half")).log;
  const back = applyJoined(half, joined()).log;
  const again = applyReply(back, started);
  assert.deepEqual(again.ended, []);
  assert.equal(again.replies[0]?.text, "");
  const whole = message(2, { reply: "r", role: "assistant", text: "half and half" });
  assert.deepEqual(applyMessage(back, whole).log.ended, []);
  assert.deepEqual(applyJoined(half, joined({ messages: [whole] })).log.ended, []);
});
