// The frames of Hubbub's wire protocol, version 1, as TypeScript types. The golden documents in
// protocol/examples are checked against them, here by tsc and in the server's own tests by serde.

/** UUID in text form. */
export type Id = string;
/** RFC 3339, UTC, milliseconds. */
export type Timestamp = string;

export const SUBPROTOCOL = "hubbub.v1";
export const TICKET_PREFIX = "ticket.";
/** Most messages the widget asks for at once; the server allows 200. */
export const PAGE = 50;

export type ErrorCode =
  | "bad_frame"
  | "invalid"
  | "unauthorized"
  | "forbidden"
  | "not_found"
  | "method_not_allowed"
  | "unsupported_media"
  | "conflict"
  | "too_large"
  | "rate_limited"
  | "overloaded"
  | "quota_exceeded"
  | "unavailable"
  | "internal";

/** Refusals that go away by themselves. */
export const PASSING: ReadonlySet<ErrorCode> = new Set([
  "rate_limited",
  "overloaded",
  "unavailable",
  "internal",
]);

export interface ErrorBody {
  code: ErrorCode;
  message: string;
  retry_after_ms?: number;
  /** What became of the answer; only a failed reply's error has it. */
  reason?: FailureReason;
}

export type FailureReason = "cut" | "filtered" | "empty" | "too_long";

// Client → server

export interface Join {
  type: "join";
  ref?: string;
  session?: Id;
  bot?: Id;
  after?: number;
  epoch?: Id;
  limit?: number;
}
export interface Send {
  type: "send";
  ref?: string;
  session: Id;
  id: Id;
  text: string;
  metadata?: Record<string, unknown>;
  mode?: "queue" | "interrupt";
}
export interface Stop {
  type: "stop";
  ref?: string;
  session: Id;
}
export interface Typing {
  type: "typing";
  session: Id;
  on: boolean;
}
export interface Read {
  type: "read";
  session: Id;
  seq: number;
}
export interface Takeover {
  type: "takeover";
  ref?: string;
  session: Id;
  from?: Handler;
}
export interface Release {
  type: "release";
  ref?: string;
  session: Id;
  summary?: string;
}
export interface Transfer {
  type: "transfer";
  ref?: string;
  session: Id;
  to: string;
}
export interface Escalate {
  type: "escalate";
  ref?: string;
  session: Id;
  reason?: string;
}
export interface Note {
  type: "note";
  ref?: string;
  session: Id;
  id: Id;
  text: string;
}
export interface Leave {
  type: "leave";
  ref?: string;
  session: Id;
}
export type ClientFrame =
  | Join
  | Send
  | Stop
  | Typing
  | Read
  | Takeover
  | Release
  | Transfer
  | Escalate
  | Note
  | Leave;

// Server → client

export interface Principal {
  kind: "visitor" | "user" | "operator" | "api_key";
  id: string;
  name: string;
}
export interface Limits {
  frame_bytes: number;
  /** Longest message text, in Unicode scalar values. */
  text_chars: number;
}
export interface Welcome {
  type: "welcome";
  connection: Id;
  tenant: Id;
  principal: Principal;
  heartbeat_ms: number;
  limits: Limits;
}
export interface Usage {
  input_tokens: number;
  cached_input_tokens?: number;
  output_tokens: number;
  /** Counted by the server, because the model did not tell. */
  estimated?: boolean;
}
/** A message as `joined` and history pages carry it. */
export interface MessageBody {
  session: Id;
  seq: number;
  id: Id;
  role: "visitor" | "assistant" | "operator" | "system";
  author: string;
  text: string;
  attachments: unknown[];
  metadata?: Record<string, unknown>;
  at: Timestamp;
  reply?: Id;
  model?: string;
  usage?: Usage;
  latency_ms?: number;
  /** The answer is not whole: it reached the most tokens that the model may write. */
  cut?: "length";
}
export interface Message extends MessageBody {
  type: "message";
}

export interface QueuedState {
  state: "queued";
  /** Place in the queue; 1 is next. */
  position: number;
  eta_ms: number;
  /** No model takes requests now; `eta_ms` tells when one is tried again. */
  paused?: boolean;
}
export interface StartedState {
  state: "started";
  model: string;
  /** It is at work, and has nothing to show yet. The first delta ends this. */
  thinking?: boolean;
}
export interface FailedState {
  state: "failed";
  error: ErrorBody;
}
export interface CancelledState {
  state: "cancelled";
}
interface ReplyText {
  reply: Id;
  to: number;
  text: string;
}
export type RunningReply = ReplyText & (QueuedState | StartedState);
export type EndedReply = ReplyText & { text_bytes?: number } & (FailedState | CancelledState);

export interface Joined {
  type: "joined";
  ref?: string;
  session: Id;
  bot: Id;
  head: number;
  epoch: Id;
  resync?: boolean;
  messages: MessageBody[];
  more: boolean;
  replying: RunningReply | null;
  ended?: EndedReply[];
  handler: Handler;
}
export interface Ack {
  type: "ack";
  ref?: string;
  session: Id;
  id: Id;
  /** A note has none. */
  seq?: number;
  at: Timestamp;
  duplicate?: boolean;
}
export type ReplyFrame = { type: "reply"; session: Id; reply: Id; to: number } & (
  | QueuedState
  | StartedState
  | FailedState
  | CancelledState
);
export interface Delta {
  type: "delta";
  session: Id;
  reply: Id;
  /** UTF-16 code units of the reply before this piece. */
  offset: number;
  text: string;
}
export interface TypingFrame {
  type: "typing";
  session: Id;
  who: Principal;
  on: boolean;
}
export interface ReadFrame {
  type: "read";
  session: Id;
  who: Principal;
  seq: number;
}
export interface Presence {
  type: "presence";
  session: Id;
  who: Principal;
  online: boolean;
  devices: number;
}
/** Who answers: the bot, a person, or nobody until one comes. */
export type Handler =
  | "bot"
  | { kind: "operator"; id: string; name: string }
  | { kind: "waiting"; since: Timestamp; reason?: string };
export interface HandlerFrame {
  type: "handler";
  session: Id;
  handler: Handler;
  fence: number;
}
/** Between operators; a visitor gets none. */
export interface NoteFrame {
  type: "note";
  session: Id;
  follows: number;
  id: Id;
  author: string;
  text: string;
  at: Timestamp;
}
export interface Left {
  type: "left";
  ref?: string;
  session: Id;
}
export type ErrorFrame = { type: "error"; ref?: string; session?: Id } & ErrorBody;
export interface Bye {
  type: "bye";
  reason: string;
  reconnect_after_ms: number;
}
export type ServerFrame =
  | Welcome
  | Joined
  | Ack
  | Message
  | ReplyFrame
  | Delta
  | TypingFrame
  | ReadFrame
  | Presence
  | HandlerFrame
  | NoteFrame
  | Left
  | ErrorFrame
  | Bye;

// HTTP

/** Answer to `POST /v1/widget/{bot}/tickets`. `bot` is optional: older servers do not send it. */
export interface TicketAnswer {
  ticket: string;
  expires_at: Timestamp;
  /** The token is told to programs only; browsers keep it in a cookie. */
  visitor: { id: Id; token?: string };
  bot?: { name?: string; greeting?: string; escalation?: { button?: boolean } };
}
/** A page of a session's messages, oldest first. */
export interface MessagePage {
  messages: MessageBody[];
  ended?: EndedReply[];
  more: boolean;
}

/** One frame; `null` for what is not one. Types this client does not know are ignored by contract. */
export function decode(text: string): ServerFrame | null {
  try {
    const frame = JSON.parse(text);
    return typeof frame?.type === "string" ? frame : null;
  } catch {
    return null;
  }
}
