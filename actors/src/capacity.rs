//! Every bound of this crate, with its arithmetic. A queue that is not named here does not exist.
//!
//! A clone of an address brings one slot of its own, so a mailbox really holds its capacity plus the
//! number of its handles; handles are few and bounded (devices, the reply, the registry's weak one).

use std::time::Duration;

/// Commands waiting in one session: a burst of a few devices. At ~10 µs each a full mailbox is less
/// than a millisecond of work; 64 × ~500 bytes = 32 KiB at worst.
pub const SESSION_MAILBOX: usize = 64;

/// Deliveries waiting in one connection. Each shares its bytes with the other devices; at one flush
/// every 40 ms this is 0.6 s of a streaming answer before the session's cursor stands still.
pub const CONNECTION_MAILBOX: usize = 16;

/// Bytes held by the frames waiting in one connection (one delivery goes, whatever its size). The JSON,
/// half of it, is copied once more into the socket's buffer.
pub const CONNECTION_BYTES: usize = 32 * 1024;

/// Bytes of JSON in one delivery (at least one frame goes, whatever its size).
pub const DELIVERY_BYTES: usize = 8 * 1024;

/// Bytes of text a session reads at once: for a `joined`, whose rest is paged, or to close a gap. A
/// device that asks for it and does not read holds it in the socket's buffer. A page is full once it has
/// them, so the last message (up to [`REPLY_BYTES`]) and its end ([`ENDED_TEXT_BYTES`]) come on top; so do,
/// in a `joined`, as many bytes again of replies that ended before its first message, and
/// [`REPLYING_BYTES`]: 144 KiB and one message.
pub const PAGE_BYTES: u32 = 48 * 1024;

/// Bytes a frame carries of the text of one reply that failed or was cancelled. HTTP carries all of it.
pub const ENDED_TEXT_BYTES: u32 = 16 * 1024;

/// Bytes a `joined` carries of the answer being written; what is longer goes on in deltas, which a
/// device that does not read keeps waiting.
pub const REPLYING_BYTES: usize = 32 * 1024;

/// Entries a session keeps for devices that are behind: the order of what they lack. Whoever falls
/// further behind is cut (4008). 48 bytes each, 96 KiB.
pub const FEED_ENTRIES: usize = 2_048;

/// Bytes held by the frames among them. What is older is read from storage when a device gets to it. With
/// [`CONNECTION_BYTES`] and half as much again, [`FEED_ENTRIES`] and [`FETCH_BYTES`], what waits for a slow device is less
/// than 256 KiB.
pub const FEED_BYTES: usize = 32 * 1024;

/// Bytes of text read at once for a device that is further behind than that.
pub const FETCH_BYTES: u32 = 16 * 1024;

/// Entries waiting from which on what matters only now (typing, presence) is dropped.
pub const FEED_MENTIONS: usize = 128;

/// Messages whose commit was learned before their predecessors', kept until those are known.
pub const FEED_AHEAD: usize = 512;

/// What a session remembers of its conversation, in bytes of text. Beyond that, prompts are read from storage.
pub const RECALLED_BYTES: usize = 16 * 1024;

/// The same in messages: 64 × ~100 bytes beside their text.
pub const RECALLED: usize = 64;

/// Entries the writer holds while a batch is being committed: 0.2 s at 20,000 messages a second.
pub const WRITER_QUEUE: usize = 4_096;

/// Mailbox of the writer; its handler only moves entries to the queue, so it is rarely deeper than one.
pub const WRITER_MAILBOX: usize = 1_024;

/// Entries in one transaction: beyond a few hundred a larger batch is no cheaper per message.
pub const WRITER_BATCH: usize = 256;

/// Mailbox of the LLM pool: acquisitions and releases of every running reply.
pub const POOL_MAILBOX: usize = 4_096;

/// Mailbox of a tenant: rare configuration changes only.
pub const TENANT_MAILBOX: usize = 64;

/// Mailbox of the lease keeper: nothing is sent to it, it works by its clock.
pub const LEASE_MAILBOX: usize = 4;

/// Mailbox of a reply: nothing is sent to it but its cancellation.
pub const REPLY_MAILBOX: usize = 4;

/// Sessions whose activity is noted until the next write; that of more is not noted.
pub const TOUCHED_SESSIONS: usize = 16_384;

/// Messages that killed their actor, remembered for quarantine.
pub const QUARANTINE_ENTRIES: usize = 1_024;

/// Text of one answer, in bytes. Far above any model's output limit.
pub const REPLY_BYTES: usize = 4 * 1024 * 1024;

/// Orphaned replies claimed in one turn of the lease keeper.
pub const ORPHANS: u32 = 100;

/// How long a caller waits for a session's answer.
pub const SESSION_DEADLINE: Duration = Duration::from_secs(15);

/// How long an entry may wait for its commit, retries included. Less than [`SESSION_DEADLINE`], so
/// the session's answer is the writer's and not a time-out.
pub const APPEND_DEADLINE: Duration = Duration::from_secs(10);
