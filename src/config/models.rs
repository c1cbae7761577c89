//! `[llm]` and `[model]`: the queue for whoever answers, and the embedded model.

use std::path::PathBuf;
use std::time::Duration;

use super::check;
use super::reader::{Reader, key};
use super::upstreams::{EMBEDDED_UPSTREAM, UpstreamConfig};

/// `[llm]`: the queue for the upstreams.
#[derive(Clone, Debug)]
pub struct LlmConfig {
    /// Most replies that wait for a slot.
    pub queue_len: usize,
    /// Longest wait for a slot.
    pub queue_wait: Duration,
    /// Longest wait of a reply for the first sign of life, over all its attempts.
    pub first_sign_wait: Duration,
    /// An upstream that gave no sign of life for so long is not waited for alone; `None` for never.
    pub hedge_after: Option<Duration>,
    /// Names of upstreams in the order to try, for bots that name none. Never names an unknown one.
    pub default_route: Vec<String>,
}

impl LlmConfig {
    pub(super) fn read(from: &mut Reader) -> Self {
        from.section("llm", "The queue for the upstreams.");
        Self {
            queue_len: from.size(
                key("queue_len", "Most replies that wait for a slot; more are refused with overloaded."),
                2_000,
                1..=1_000_000,
            ),
            queue_wait: from.millis(
                key("queue_wait_ms", "Longest wait for a slot, in milliseconds."),
                60_000,
                100..=3_600_000,
            ),
            first_sign_wait: from.millis(
                key(
                    "first_sign_wait_ms",
                    "Longest wait of a reply for a model's first sign of life, over all its attempts, in milliseconds.",
                ),
                60_000,
                100..=3_600_000,
            ),
            hedge_after: Some(from.millis(
                key(
                    "hedge_after_ms",
                    "A model that gave no sign of life for so many milliseconds is not waited for alone: another upstream of the route that has a slot to spare is asked too, and the first to say something answers. Both cost. 0: never.",
                ),
                0,
                0..=600_000,
            ))
            .filter(|after| !after.is_zero()),
            default_route: from.list(
                key(
                    "default_route",
                    "Names of upstreams in the order to try. Empty: all of them, as listed; \"embedded\" is the embedded model.",
                ),
                "names of upstreams",
                check::name,
            ),
        }
    }

    /// Resolves the default route, and refuses names nobody has.
    pub(super) fn resolve(
        &mut self,
        from: &mut Reader,
        upstreams: &[UpstreamConfig],
        model: &ModelConfig,
    ) {
        let embedded = model.enabled.then_some(EMBEDDED_UPSTREAM);
        let names: Vec<&str> = upstreams
            .iter()
            .map(|upstream| upstream.name.as_str())
            .chain(embedded)
            .collect();
        for name in &self.default_route {
            if !names.contains(&name.as_str()) {
                let message = format!("names no upstream: {name}");
                from.refuse("llm", "default_route", &message, &names.join(", "));
            }
        }
        if self.default_route.is_empty() {
            self.default_route = names.into_iter().map(str::to_owned).collect();
        }
    }
}

/// `[model]`: the embedded model, a demo in a process of its own.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// Whether it is started.
    pub enabled: bool,
    /// The program; `None` is `hubbub-model` beside the server's own program.
    pub program: Option<PathBuf>,
    /// The weights; `None` is the first `.gguf` file in [`cache_dir`](Self::cache_dir).
    pub file: Option<PathBuf>,
    /// `${XDG_CACHE_HOME:-~/.cache}/hubbub`; `None` when neither variable is set.
    pub cache_dir: Option<PathBuf>,
    /// Answers it writes at once.
    pub workers: u32,
}

impl ModelConfig {
    pub(super) fn read(from: &mut Reader, enabled: bool, cache_dir: Option<PathBuf>) -> Self {
        from.section(
            "model",
            "The embedded model: a demo in a process of its own.",
        );
        Self {
            enabled: from.boolean(
                key("enabled", "Whether it is started. Default: when no upstream is configured.")
                    .example("true"),
                enabled,
            ),
            program: from.parsed(
                key("program", "The program. Default: hubbub-model beside the server's own.")
                    .example("\"/usr/local/bin/hubbub-model\""),
                "a path",
                None,
                check::path,
                |path| path.display().to_string(),
            ),
            file: from.parsed(
                key("file", "The weights. Default: the first .gguf file in ~/.cache/hubbub (or $XDG_CACHE_HOME/hubbub).")
                    .example("\"/var/lib/hubbub/model.gguf\""),
                "a path",
                None,
                check::path,
                |path| path.display().to_string(),
            ),
            cache_dir,
            workers: from.count(key("workers", "Answers it writes at once."), 2, 1..=64),
        }
    }
}
