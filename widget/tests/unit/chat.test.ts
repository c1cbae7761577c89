import assert from "node:assert/strict";
import { test } from "node:test";
import {
  canStartNew,
  discard,
  retry,
  sendText,
  sharedChanged,
  startNew,
  tellRead,
  tellTyping,
  unread,
} from "../../src/client/actions.ts";
import { canEscalate, escalate } from "../../src/client/escalating.ts";
import { loadOlder } from "../../src/client/history.ts";
import { openChat } from "../../src/client/open.ts";
import { BOT, joined, message, SESSION, World, welcome } from "./world.ts";

const ORIGIN = "https://chat.example";

async function started(world = new World()) {
  const chat = openChat(world, ORIGIN, BOT);
  chat.connection.start();
  await world.settle();
  world.socket.say(welcome);
  return { world, chat };
}

/** A chat that has opened its session with a first message, which is acknowledged. */
async function inSession() {
  const { world, chat } = await started();
  sendText(chat, "hello");
  const ref = world.socket.last("join")?.ref ?? "";
  world.socket.say(joined({ ref }));
  const id = world.socket.last("send")?.id ?? "";
  const at = "2026-11-21T05:40:00.000Z";
  world.socket.say({ type: "ack", session: SESSION, id, seq: 1, at });
  world.socket.say({ type: "message", ...message(1, { id, text: "hello" }) });
  return { world, chat, id };
}

async function reconnect(world: World) {
  const count = world.sockets.length;
  world.socket.cut(1006);
  await world.advance(1000);
  assert.equal(world.sockets.length, count + 1);
  world.socket.say(welcome);
}

test("a ticket is fetched and travels as a subprotocol, never in the address", async () => {
  const { world } = await started();
  assert.equal(world.requests[0]?.url, `${ORIGIN}/v1/widget/${BOT}/tickets`);
  assert.deepEqual(world.requests[0]?.body, {});
  assert.equal(world.socket.url, "wss://chat.example/v1/connect");
  assert.deepEqual(world.socket.protocols, ["hubbub.v1", "ticket.t1"]);
});

// X4
test("a token that an older version kept is sent once, and is then in no script's reach", async () => {
  const world = new World();
  world.shared.set(`hubbub:${BOT}:visitor`, "hbv_old");
  await started(world);
  assert.deepEqual(world.requests[0]?.body, { visitor_token: "hbv_old" });
  assert.equal(world.shared.get(`hubbub:${BOT}:visitor`), null);
  await reconnect(world);
  assert.deepEqual(world.requests[1]?.body, {});
});

// X4
test("a server that cannot keep the token in a cookie yet does not make us lose it", async () => {
  const world = new World();
  const [key, token] = [`hubbub:${BOT}:visitor`, "hbv_old"];
  world.shared.set(key, token);
  const { body } = world.answers("");
  world.answers = () => ({
    status: 200,
    body: { ...(body as object), visitor: { id: "v", token } },
  });
  await started(world);
  assert.equal(world.shared.get(key), token);
});

// X4
test("without a cookie each page is another visitor, and takes no other's session away", async () => {
  const { world, chat } = await inSession();
  const body = world.answers("").body as object;
  world.answers = () => ({ status: 200, body: { ...body, visitor: { id: "another" } } });
  const other = await started(world);
  assert.equal(other.chat.snapshot.session, null);
  assert.equal(world.shared.get(`hubbub:${BOT}:session`), SESSION);
  sendText(other.chat, "mine");
  const session = "019aa3c2-7c10-7a3e-9f52-777777777777";
  world.socket.say(joined({ ref: world.socket.last("join")?.ref ?? "", session }));
  assert.equal(other.chat.snapshot.session, session);
  sharedChanged(chat);
  assert.equal(chat.snapshot.session, SESSION);
});

test("no session is opened before there is something to say", async () => {
  const { world, chat } = await started();
  assert.deepEqual(world.socket.sent, []);
  sendText(chat, "  hello  ");
  assert.equal(world.socket.last("join")?.bot, BOT);
  assert.equal(world.socket.last("send"), undefined);
  world.socket.say(joined({ ref: world.socket.last("join")?.ref ?? "" }));
  assert.equal(world.socket.last("send")?.text, "hello");
});

test("messages are sent one after the other, and shown once", async () => {
  const { world, chat } = await inSession();
  sendText(chat, "two");
  sendText(chat, "three");
  const two = world.socket.last("send");
  assert.equal(two?.text, "two");
  const at = "2026-11-21T05:40:00.000Z";
  world.socket.say({ type: "ack", session: SESSION, id: two?.id ?? "", seq: 2, at });
  assert.equal(world.socket.last("send")?.text, "three");
  world.socket.say({ type: "message", ...message(2, { id: two?.id ?? "", text: "two" }) });
  assert.deepEqual(
    chat.snapshot.outbox.map(({ text }) => text),
    ["three"],
  );
});

test("after a cut it resumes after the last seq, and sends again what has no ack", async () => {
  const { world, chat } = await inSession();
  sendText(chat, "lost?");
  const id = world.socket.last("send")?.id;
  await reconnect(world);
  const join = world.socket.last("join");
  assert.equal(join?.session, SESSION);
  assert.equal(join?.after, 1);
  assert.ok(join?.epoch);
  assert.equal(world.socket.last("send"), undefined);
  world.socket.say(joined({ ref: join?.ref ?? "", head: 1 }));
  assert.equal(world.socket.last("send")?.id, id);
});

test("what arrived with the join is not sent again", async () => {
  const { world, chat } = await inSession();
  sendText(chat, "stored, but the ack was lost");
  const id = world.socket.last("send")?.id ?? "";
  await reconnect(world);
  const ref = world.socket.last("join")?.ref ?? "";
  world.socket.say(joined({ ref, messages: [message(2, { id })] }));
  assert.equal(world.socket.last("send"), undefined);
  assert.deepEqual(chat.snapshot.outbox, []);
});

test("a reload finds unsent messages in the tab and the session in the browser", async () => {
  const { world, chat } = await inSession();
  sendText(chat, "before the reload");
  const id = world.socket.last("send")?.id;
  chat.close();
  const again = await started(world);
  const join = world.socket.last("join");
  assert.equal(join?.session, SESSION);
  assert.equal(join?.after, undefined);
  world.socket.say(joined({ ref: join?.ref ?? "", messages: [message(1)] }));
  assert.equal(world.socket.last("send")?.id, id);
  assert.equal(again.chat.snapshot.outbox.length, 1);
});

test("a gap in the deltas or the messages joins again, once", async () => {
  const { world } = await inSession();
  const delta = { type: "delta", session: SESSION, reply: "r", text: "x" } as const;
  const joins = () => world.socket.sent.filter(({ type }) => type === "join").length;
  const before = joins();
  world.socket.say({ ...delta, offset: 10 });
  world.socket.say({ ...delta, offset: 11 });
  assert.equal(joins(), before + 1);
  assert.equal(world.socket.last("join")?.after, 1);
});

test("a passing refusal is tried again by itself after what the server asks", async () => {
  const { world, chat } = await inSession();
  sendText(chat, "too fast");
  const id = world.socket.last("send")?.id ?? "";
  const refusal = { type: "error", ref: id, session: SESSION, message: "Wait" } as const;
  const sends = () => world.socket.sent.filter((one) => one.type === "send" && one.id === id);
  world.socket.say({ ...refusal, code: "rate_limited", retry_after_ms: 3000 });
  await world.advance(2900);
  assert.equal(sends().length, 1);
  await world.advance(700);
  assert.equal(sends().length, 2);
});

test("a lasting refusal is shown, and the person may retry or discard", async () => {
  const { world, chat } = await inSession();
  sendText(chat, "no");
  const id = world.socket.last("send")?.id ?? "";
  world.socket.say({ type: "error", ref: id, code: "quota_exceeded", message: "Used up" });
  assert.equal(chat.snapshot.outbox[0]?.state, "failed");
  assert.equal(chat.snapshot.outbox[0]?.error?.message, "Used up");
  retry(chat, id);
  assert.equal(chat.snapshot.outbox[0]?.state, "sent");
  discard(chat, id);
  assert.deepEqual(chat.snapshot.outbox, []);
});

test("too long a message never reaches the socket", async () => {
  const { world, chat } = await inSession();
  const before = world.socket.sent.length;
  sendText(chat, "x".repeat(101));
  assert.equal(chat.snapshot.outbox[0]?.error?.code, "too_large");
  assert.equal(world.socket.sent.length, before);
});

test("a session that is gone is replaced, and unsent messages go into the new one", async () => {
  const { world, chat } = await inSession();
  sendText(chat, "carry me over");
  await reconnect(world);
  const ref = world.socket.last("join")?.ref ?? "";
  world.socket.say({ type: "error", ref, code: "not_found", message: "No such session" });
  assert.equal(world.socket.last("join")?.bot, BOT);
  const session = "019aa3c2-7c10-7a3e-9f52-999999999999";
  world.socket.say(joined({ ref: world.socket.last("join")?.ref ?? "", session }));
  assert.equal(world.socket.last("send")?.session, session);
  assert.equal(world.socket.last("send")?.text, "carry me over");
});

test("a visitor the server forgot begins anew instead of being locked out", async () => {
  const world = new World();
  world.shared.set(`hubbub:${BOT}:visitor`, "hbv_old");
  world.shared.set(`hubbub:${BOT}:session`, SESSION);
  const answers = world.answers;
  world.answers = (url) => (world.requests.length === 1 ? { status: 401, body: {} } : answers(url));
  const { chat } = await started(world);
  assert.equal(chat.snapshot.connection.kind, "online");
  assert.equal(chat.snapshot.session, null);
  assert.equal(world.shared.get(`hubbub:${BOT}:visitor`), null);
});

test("a server that never answers is given up and tried again", async () => {
  const world = new World();
  const chat = openChat(world, ORIGIN, BOT);
  chat.connection.start();
  await world.advance(25_000);
  assert.ok(world.sockets.length >= 2);
  assert.equal(world.sockets[0]?.closed, true);
  assert.notEqual(chat.snapshot.connection.kind, "online");
});

test("a socket silent for two heartbeats is probed, and dropped when it stays silent", async () => {
  const { world } = await inSession();
  const socket = world.socket;
  await world.advance(51_000);
  assert.equal(socket.last("join")?.ref, "probe");
  await world.advance(9_000);
  assert.equal(socket.closed, true);
});

test("typing is throttled and taken back; read is told once", async () => {
  const { world, chat } = await inSession();
  for (let n = 0; n < 20; n += 1) {
    tellTyping(chat);
    await world.advance(100);
  }
  const typing = () => world.socket.sent.filter(({ type }) => type === "typing").length;
  assert.equal(typing(), 1);
  await world.advance(5_000);
  assert.equal(world.socket.last("typing")?.on, false);
  tellRead(chat);
  tellRead(chat);
  assert.equal(world.socket.sent.filter(({ type }) => type === "read").length, 1);
});

test("who answers is known from the join on, and who types until it is too long ago", async () => {
  const { world, chat } = await inSession();
  const olga = { kind: "operator", id: "7", name: "Olga" } as const;
  assert.equal(canEscalate(chat.snapshot), false, "this bot does not offer it");
  chat.update({ bot: { ...chat.snapshot.bot, escalation: { button: true } } });
  assert.equal(canEscalate(chat.snapshot), true);
  escalate(chat);
  assert.equal(world.socket.last("escalate")?.session, SESSION);
  const refused = { code: "rate_limited", message: "too fast" } as const;
  world.socket.say({ type: "error", ref: "escalate", session: SESSION, ...refused });
  assert.equal(chat.snapshot.notice, "too fast");
  world.socket.say({ type: "handler", session: SESSION, handler: olga, fence: 1 });
  assert.deepEqual(chat.snapshot.handler, olga);
  assert.equal(canEscalate(chat.snapshot), false);
  world.socket.say({ type: "typing", session: SESSION, who: olga, on: true });
  assert.equal(chat.snapshot.typist, "Olga");
  await world.advance(10_000);
  assert.equal(chat.snapshot.typist, null);
  await reconnect(world);
  world.socket.say({ ...joined({ ref: world.socket.last("join")?.ref ?? "" }), handler: "bot" });
  assert.equal(chat.snapshot.handler, "bot");
  startNew(chat);
  assert.equal(canEscalate(chat.snapshot), false, "nothing was said yet");
});

test("two tabs that open at once end in one session", async () => {
  const { world, chat } = await started();
  sendText(chat, "mine");
  const rival = "019aa3c2-7c10-7a3e-9f52-888888888888";
  world.shared.set(`hubbub:${BOT}:session`, rival);
  world.socket.say(joined({ ref: world.socket.last("join")?.ref ?? "" }));
  assert.equal(world.socket.last("leave")?.session, SESSION);
  assert.equal(world.socket.last("join")?.session, rival);
  world.socket.say(joined({ ref: world.socket.last("join")?.ref ?? "", session: rival }));
  assert.equal(world.socket.last("send")?.session, rival);
});

test("a new chat waits for what is unsent, then begins empty", async () => {
  const { world, chat } = await inSession();
  sendText(chat, "pending");
  assert.equal(canStartNew(chat), false);
  discard(chat, chat.snapshot.outbox[0]?.id ?? "");
  startNew(chat);
  assert.equal(chat.snapshot.session, null);
  assert.equal(world.shared.get(`hubbub:${BOT}:session`), null);
  assert.deepEqual(chat.snapshot.log.messages, []);
});

test("a closed chat leaves no timer and no socket behind", async () => {
  const { world, chat } = await inSession();
  tellTyping(chat);
  sendText(chat, "x");
  chat.close();
  assert.equal(world.pendingTimers, 0);
  assert.equal(world.socket.closed, true);
});

const range = (from: number, to: number) =>
  Array.from({ length: to - from + 1 }, (_, index) => message(from + index));

/** A chat that a reload left with the newest 50 of 120 messages. */
async function withHistory() {
  const world = new World();
  world.shared.set(`hubbub:${BOT}:session`, SESSION);
  const { chat } = await started(world);
  const ref = world.socket.last("join")?.ref ?? "";
  world.socket.say(joined({ ref, messages: range(71, 120), head: 120, more: true }));
  return { world, chat };
}

test("older messages are asked for on the socket, in as many answers as long texts need", async () => {
  const { world, chat } = await withHistory();
  loadOlder(chat);
  loadOlder(chat);
  const pages = () => world.socket.sent.filter((one) => "ref" in one && one.ref === "page");
  assert.equal(pages().length, 1);
  assert.equal(world.socket.last("join")?.after, 20);
  world.socket.say(joined({ ref: "page", messages: range(21, 40), head: 120, more: true }));
  assert.equal(world.socket.last("join")?.after, 40);
  world.socket.say(joined({ ref: "page", messages: range(41, 90), head: 120, more: true }));
  assert.equal(pages().length, 2);
  assert.equal(chat.snapshot.paging, null);
  assert.equal(chat.snapshot.log.messages[0]?.seq, 21);
  assert.equal(chat.snapshot.log.messages.length, 100);
});

test("a page that is refused or does not come can be asked for again, and nothing live is missed", async () => {
  const { world, chat } = await withHistory();
  loadOlder(chat);
  world.socket.say({ type: "error", ref: "page", code: "unavailable", message: "Later" });
  assert.equal(chat.snapshot.pagingFailed, true);
  // The refused join may have taken this device out of the session.
  assert.match(world.socket.last("join")?.ref ?? "", /^join/);
  assert.equal(world.socket.last("join")?.after, 120);
  world.socket.say(joined({ ref: world.socket.last("join")?.ref ?? "", head: 120 }));
  loadOlder(chat);
  assert.equal(chat.snapshot.paging, "older");
  await world.advance(16_000);
  assert.equal(chat.snapshot.pagingFailed, true);
});

test("what was said while a page was on its way is asked for", async () => {
  const { world, chat } = await withHistory();
  loadOlder(chat);
  world.socket.say(joined({ ref: "page", messages: range(21, 70), head: 122, more: true }));
  assert.equal(chat.snapshot.log.messages[0]?.seq, 21);
  assert.equal(world.socket.last("join")?.after, 120);
});

// W4
test("what came in unseen is counted, over pages and tabs, until it was read", async () => {
  const { world, chat } = await inSession();
  tellRead(chat);
  world.socket.say({ type: "message", ...message(2, { role: "assistant" }) });
  world.socket.say({ type: "message", ...message(3, { role: "assistant" }) });
  assert.equal(unread(chat), 2);
  chat.close();
  const later = await started(world);
  const ref = world.socket.last("join")?.ref ?? "";
  const messages = [message(1), ...[2, 3].map((seq) => message(seq, { role: "assistant" }))];
  world.socket.say(joined({ ref, messages }));
  assert.equal(unread(later.chat), 2);
  tellRead(later.chat);
  assert.equal(unread(later.chat), 0);
});

// W4
test("a conversation from before anything was remembered counts as read", async () => {
  const { world, chat } = await withHistory();
  assert.equal(unread(chat), 0);
  world.socket.say({ type: "message", ...message(121, { role: "assistant" }) });
  assert.equal(unread(chat), 1);
});

// W9
test("what was read when the server died is there again, also after a reload", async () => {
  const { world, chat } = await inSession();
  const reply = { session: SESSION, reply: "r", to: 1 };
  world.socket.say({ type: "reply", ...reply, state: "started", model: "m" });
  world.socket.say({
    type: "delta",
    session: SESSION,
    reply: "r",
    offset: 0,
    text: "as far as this",
  });
  await reconnect(world);
  const error = { code: "unavailable", message: "The server stopped." } as const;
  const ended = [{ reply: "r", to: 1, state: "failed", error, text: "as far" } as const];
  world.socket.say(joined({ ref: world.socket.last("join")?.ref ?? "", head: 1, ended }));
  assert.equal(chat.snapshot.log.ended[0]?.text, "as far as this");
  // A later `joined` that carries only the beginning takes nothing away.
  const brief = ended.map((reply) => ({ ...reply, text: "as", text_bytes: 7 }));
  world.socket.say(joined({ head: 1, ended: brief }));
  assert.equal(chat.snapshot.log.ended[0]?.text, "as far as this");
  chat.close();
  const later = await started(world);
  const ref = world.socket.last("join")?.ref ?? "";
  world.socket.say(joined({ ref, messages: [message(1)], ended }));
  assert.equal(later.chat.snapshot.log.ended[0]?.text, "as far as this");
  assert.deepEqual(later.chat.snapshot.log.replies, []);
});
