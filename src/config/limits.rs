//! `[limits]`: a bound on everything a client can make the server hold.

use super::reader::{Reader, key};

/// Bounds, per node. Plans of a tenant may set lower ones.
#[derive(Clone, Debug)]
pub struct LimitsConfig {
    /// Largest inbound frame, in bytes.
    pub frame_bytes: usize,
    /// Longest message, in Unicode scalar values.
    pub text_chars: usize,
    /// Most connections.
    pub connections: usize,
    /// Most connections of one tenant.
    pub connections_per_tenant: u32,
    /// Messages a second of one tenant.
    pub messages_per_second_per_tenant: u32,
    /// Most connections from one IP address. Loopback addresses are not counted.
    pub connections_per_ip: u32,
    /// What strangers may ask for.
    pub strangers: StrangersConfig,
    /// Most connections of one visitor.
    pub connections_per_visitor: u32,
    /// Most live sessions.
    pub sessions: usize,
    /// Most sessions one connection may have joined.
    pub sessions_per_connection: usize,
    /// How fast it may come in.
    pub rates: RatesConfig,
    /// Most unanswered messages of a session.
    pub pending_replies_per_session: usize,
    /// Most unanswered messages of a visitor.
    pub replies_per_visitor: u32,
    /// Most devices in one session.
    pub devices_per_session: usize,
}

/// What may be had without any proof of who one is.
#[derive(Clone, Copy, Debug)]
pub struct StrangersConfig {
    /// Most sockets that wait for a request, or for the rest of one.
    pub waiting_sockets: usize,
    /// Tickets of the widget a minute for one IP address.
    pub tickets_per_minute_per_ip: u32,
    /// Tickets of the widget a minute for one bot.
    pub tickets_per_minute_per_bot: u32,
    /// Sessions a minute that visitors open from one IP address.
    pub sessions_per_minute_per_ip: u32,
    /// Sessions a minute that one visitor opens.
    pub sessions_per_minute_per_visitor: u32,
}

/// How fast clients may send.
#[derive(Clone, Copy, Debug)]
pub struct RatesConfig {
    /// Bytes a second from one connection.
    pub bytes_per_second: u32,
    /// Frames of any kind a second from one connection.
    pub frames_per_second: u32,
    /// Messages a second from one connection, and of one visitor.
    pub messages_per_second: u32,
    /// Messages that may come at once after a pause.
    pub messages_burst: u32,
}

impl LimitsConfig {
    pub(super) fn read(from: &mut Reader) -> Self {
        from.section("limits", "Bounds on what clients can make this node hold.");
        Self {
            frame_bytes: frame_bytes(from),
            text_chars: from.size(
                key("text_chars", "Longest message, in Unicode characters; the contract allows no more."),
                16_000,
                1..=16_000,
            ),
            connections: from.size(
                key("connections", "Most connections; also bounded by the process's open files."),
                100_000,
                1..=10_000_000,
            ),
            connections_per_tenant: from.count(
                key("connections_per_tenant", "Most connections of one tenant."),
                50_000,
                1..=10_000_000,
            ),
            messages_per_second_per_tenant: from.count(
                key(
                    "messages_per_second_per_tenant",
                    "Messages a second of one tenant whose record names no other number.",
                ),
                20_000,
                1..=10_000_000,
            ),
            connections_per_ip: from.count(
                key(
                    "connections_per_ip",
                    "Most connections from one IP address, or IPv6 network of 64 bits. Loopback addresses are not counted: they are proxies and load tests.",
                ),
                1_000,
                1..=10_000_000,
            ),
            strangers: StrangersConfig::read(from),
            connections_per_visitor: from.count(
                key("connections_per_visitor", "Most connections of one visitor: its tabs and devices."),
                32,
                1..=10_000_000,
            ),
            sessions: from.size(
                key("sessions", "Most live sessions; idle ones leave memory and do not count."),
                200_000,
                1..=10_000_000,
            ),
            sessions_per_connection: from.size(
                key("sessions_per_connection", "Most sessions one connection may have joined."),
                32,
                1..=10_000,
            ),
            rates: RatesConfig::read(from),
            pending_replies_per_session: from.size(
                key("pending_replies_per_session", "Most messages of a session that wait for their reply."),
                4,
                1..=1_000,
            ),
            replies_per_visitor: from.count(
                key(
                    "replies_per_visitor",
                    "Most messages of one visitor that wait for their reply, in all its sessions: its share of the slots and the queue.",
                ),
                4,
                1..=1_000_000,
            ),
            devices_per_session: from.size(
                key("devices_per_session", "Most devices in one session."),
                1_000,
                1..=100_000,
            ),
        }
    }
}

fn frame_bytes(from: &mut Reader) -> usize {
    from.size(
        key(
            "frame_bytes",
            "Largest inbound frame, in bytes. The default holds the longest text however its JSON is spelled, and is the most.",
        ),
        200_192,
        1_024..=200_192,
    )
}

impl StrangersConfig {
    fn read(from: &mut Reader) -> Self {
        Self {
            waiting_sockets: from.size(
                key(
                    "waiting_sockets",
                    "Most sockets that wait for a request, or for the rest of one. When there are more, or files run short, the one that has waited longest is closed.",
                ),
                4_096,
                16..=10_000_000,
            ),
            tickets_per_minute_per_ip: from.count(
                key(
                    "tickets_per_minute_per_ip",
                    "Tickets of the widget a minute for one IP address, all at once if need be: a page that connects takes one. An office behind one address shares them.",
                ),
                300,
                1..=10_000_000,
            ),
            tickets_per_minute_per_bot: from.count(
                key("tickets_per_minute_per_bot", "Tickets of the widget a minute for one bot."),
                12_000,
                1..=10_000_000,
            ),
            sessions_per_minute_per_ip: from.count(
                key("sessions_per_minute_per_ip", "Sessions a minute that visitors open from one IP address."),
                300,
                1..=10_000_000,
            ),
            sessions_per_minute_per_visitor: from.count(
                key("sessions_per_minute_per_visitor", "Sessions a minute that one visitor opens."),
                60,
                1..=10_000_000,
            ),
        }
    }
}

impl RatesConfig {
    fn read(from: &mut Reader) -> Self {
        Self {
            bytes_per_second: from.count(
                key(
                    "bytes_per_second",
                    "Bytes a second from one connection; four seconds' worth may come at once. What is more is read later, and a connection that keeps sending more is closed (1008).",
                ),
                262_144,
                4_096..=1_000_000_000,
            ),
            frames_per_second: from.count(
                key(
                    "frames_per_second",
                    "Frames of any kind a second from one connection, also pings, pongs and pieces; at least twice messages_per_second. As bytes_per_second otherwise.",
                ),
                200,
                10..=1_000_000,
            ),
            messages_per_second: from.count(
                key(
                    "messages_per_second",
                    "Messages a second from one connection; also everything a visitor asks for a second, by all its connections and HTTP requests together.",
                ),
                20,
                1..=1_000_000,
            ),
            messages_burst: from.count(
                key("messages_burst", "Messages that may come at once after a pause."),
                40,
                1..=1_000_000,
            ),
        }
    }
}
