//! Every metric with its kind and meaning, and the series that exist before anything was recorded: a rate
//! cannot see the first event of a counter that appears with it.

/// What a metric counts.
pub(super) enum Kind {
    /// What only grows.
    Counter,
    /// What is so now.
    Gauge,
    /// How values are spread.
    Histogram,
}

/// Every metric there is. Labels come from closed sets: those in [`SERIES`] and [`BY_UPSTREAM`], and routes.
pub(super) const METRICS: &[(&str, Kind, &str)] = &[
    (
        "hubbub_panics_total",
        Kind::Counter,
        "Panics. Each is an ERROR in the log.",
    ),
    (
        "hubbub_actor_panics_total",
        Kind::Counter,
        "Panics that ended an actor or one of its tasks, by actor.",
    ),
    (
        "hubbub_build_info",
        Kind::Gauge,
        "What runs here, by version; always 1.",
    ),
    (
        "hubbub_log_lines_lost_total",
        Kind::Counter,
        "Lines of the log that standard error did not take.",
    ),
    (
        "hubbub_http_requests_total",
        Kind::Counter,
        "Answered HTTP requests, by class of status.",
    ),
    (
        "hubbub_http_request_seconds",
        Kind::Histogram,
        "From a request's head to the head of its answer, by route and class of status.",
    ),
    (
        "hubbub_connections_open",
        Kind::Gauge,
        "WebSocket connections.",
    ),
    (
        "hubbub_sockets_cut_total",
        Kind::Counter,
        "Sockets closed for want of room or because their client was silent, by reason.",
    ),
    (
        "hubbub_frames_received_total",
        Kind::Counter,
        "Text frames from clients.",
    ),
    (
        "hubbub_frames_refused_total",
        Kind::Counter,
        "Frames answered with an error, by code.",
    ),
    (
        "hubbub_inbound_held_back_total",
        Kind::Counter,
        "Times a connection sent more than it may and was not read for a while.",
    ),
    (
        "hubbub_devices_cut_total",
        Kind::Counter,
        "Devices cut because they did not read.",
    ),
    (
        "hubbub_signals_dropped_total",
        Kind::Counter,
        "Typing and read signals dropped because a session was busy.",
    ),
    ("hubbub_sessions_live", Kind::Gauge, "Sessions in memory."),
    (
        "hubbub_mailbox_full_total",
        Kind::Counter,
        "Commands refused because a mailbox was full, by actor.",
    ),
    (
        "hubbub_commit_seconds",
        Kind::Histogram,
        "From handing a batch to storage to its commit.",
    ),
    (
        "hubbub_committed_entries_total",
        Kind::Counter,
        "Messages and ends of replies committed.",
    ),
    (
        "hubbub_replies_total",
        Kind::Counter,
        "Replies that got their end, by end.",
    ),
    (
        "hubbub_reply_seconds",
        Kind::Histogram,
        "From a question to the end of its reply.",
    ),
    (
        "hubbub_reply_first_token_seconds",
        Kind::Histogram,
        "From a question to the first text of its reply.",
    ),
    (
        "hubbub_stale_reply_steps_total",
        Kind::Counter,
        "Steps of replies that came too late and were dropped.",
    ),
    (
        "hubbub_llm_queue_length",
        Kind::Gauge,
        "Replies waiting for a slot, by class.",
    ),
    (
        "hubbub_llm_wait_seconds",
        Kind::Histogram,
        "From asking for a slot to getting one, by class.",
    ),
    (
        "hubbub_llm_slots",
        Kind::Gauge,
        "Slots that an upstream has now, by upstream.",
    ),
    (
        "hubbub_llm_slots_busy",
        Kind::Gauge,
        "Slots in use, by upstream.",
    ),
    (
        "hubbub_llm_breaker_open",
        Kind::Gauge,
        "Whether an upstream pauses after failures (1) or takes requests (0), by upstream.",
    ),
    (
        "hubbub_llm_set_aside",
        Kind::Gauge,
        "Whether others are asked before an upstream (1), because its set-up is wrong, by upstream.",
    ),
    (
        "hubbub_llm_refused_total",
        Kind::Counter,
        "Replies that got no slot, by reason: full, shed, waited too long, no_upstream.",
    ),
    (
        "hubbub_llm_hedges_total",
        Kind::Counter,
        "Replies for which a second upstream was asked, by which of the two was taken.",
    ),
    (
        "hubbub_answers_shared_total",
        Kind::Counter,
        "Replies that were given an answer that there was already.",
    ),
    (
        "hubbub_llm_attempts_total",
        Kind::Counter,
        "Ended attempts to get an answer, by upstream and outcome.",
    ),
    (
        "hubbub_llm_attempts_failed_total",
        Kind::Counter,
        "Attempts that failed, as the reply saw them.",
    ),
    (
        "hubbub_llm_first_token_seconds",
        Kind::Histogram,
        "From sending an attempt to its first text, by upstream.",
    ),
    (
        "hubbub_llm_attempt_seconds",
        Kind::Histogram,
        "From sending an attempt to its end, by upstream.",
    ),
    (
        "hubbub_llm_tokens_total",
        Kind::Counter,
        "Tokens of ended replies, by type: read by the model, or written.",
    ),
    (
        "hubbub_model_starts_total",
        Kind::Counter,
        "Starts of the embedded model's program.",
    ),
    (
        "hubbub_db_up",
        Kind::Gauge,
        "1 while the database takes writes, else 0.",
    ),
    (
        "hubbub_db_outages_total",
        Kind::Counter,
        "Times the database took no writes any more, by reason.",
    ),
    (
        "hubbub_db_connections_in_use",
        Kind::Gauge,
        "Database connections in use, by pool.",
    ),
    (
        "hubbub_db_connections_idle",
        Kind::Gauge,
        "Open database connections that nobody uses, by pool.",
    ),
    (
        "hubbub_db_connections_waiting",
        Kind::Gauge,
        "Tasks that wait for a database connection, by pool.",
    ),
];

/// Metrics with a label, and all its values.
pub(super) const SERIES: &[(&str, &str, &[&str])] = &[
    (
        "hubbub_actor_panics_total",
        "actor",
        &[
            "connection",
            "lease_keeper",
            "llm_pool",
            "message_writer",
            "reply",
            "session",
            "tenant",
        ],
    ),
    ("hubbub_http_requests_total", "status", &STATUS_CLASSES),
    (
        "hubbub_frames_refused_total",
        "code",
        &[
            "bad_frame",
            "invalid",
            "unauthorized",
            "forbidden",
            "not_found",
            "conflict",
            "too_large",
            "rate_limited",
            "overloaded",
            "quota_exceeded",
            "unavailable",
            "internal",
        ],
    ),
    (
        "hubbub_sockets_cut_total",
        "reason",
        &["network", "full", "silent", "crowded"],
    ),
    ("hubbub_mailbox_full_total", "actor", &["session"]),
    (
        "hubbub_replies_total",
        "end",
        &["completed", "failed", "cancelled"],
    ),
    ("hubbub_llm_queue_length", "class", &CLASSES),
    ("hubbub_llm_wait_seconds", "class", &CLASSES),
    (
        "hubbub_llm_refused_total",
        "reason",
        &["full", "no_upstream", "shed", "waited"],
    ),
    ("hubbub_llm_hedges_total", "taken", &["first", "second"]),
    ("hubbub_llm_tokens_total", "type", &["input", "output"]),
    (
        "hubbub_db_outages_total",
        "reason",
        &["unavailable", "read_only", "disk_full"],
    ),
    ("hubbub_db_connections_in_use", "pool", &POOLS),
    ("hubbub_db_connections_idle", "pool", &POOLS),
    ("hubbub_db_connections_waiting", "pool", &POOLS),
];

/// A label and all its values.
type Label = (&'static str, &'static [&'static str]);

/// Metrics by upstream; with a second label, all its values. An upstream's series exist from the moment it
/// is known.
pub(super) const BY_UPSTREAM: &[(&str, Option<Label>)] = &[
    (
        "hubbub_llm_attempts_total",
        Some(("outcome", &ATTEMPT_OUTCOMES)),
    ),
    ("hubbub_llm_slots", None),
    ("hubbub_llm_slots_busy", None),
    ("hubbub_llm_breaker_open", None),
    ("hubbub_llm_set_aside", None),
    ("hubbub_llm_first_token_seconds", None),
    ("hubbub_llm_attempt_seconds", None),
];

/// The metric by route. Its labels are `route` and `status`.
pub(super) const BY_ROUTE: &str = "hubbub_http_request_seconds";

/// Classes of HTTP status.
pub(super) const STATUS_CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

const POOLS: [&str; 2] = ["app", "writer"];

/// Classes of replies, the soonest first.
const CLASSES: [&str; 3] = ["live", "assist", "batch"];

const ATTEMPT_OUTCOMES: [&str; 11] = [
    "finished",
    "cancelled",
    "unreachable",
    "timed_out",
    "busy",
    "failed",
    "misconfigured",
    "refused",
    "filtered",
    "cut",
    "garbage",
];
