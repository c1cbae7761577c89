//! What the fields of a bot may be.

use hubbub_protocol::http::FieldProblem;
use hubbub_protocol::{ErrorCode, Escalation};
use reqwest::Url;

use super::{ChangeBot, OUTPUT_TOKENS_MAX};
use crate::http::AppState;
use crate::http::problem::ApiError;

const NAME_CHARS: usize = 100;
const PROMPT_CHARS: usize = 32_000;
const ROUTE_LEN: usize = 16;
const ORIGINS_LEN: usize = 50;
const KEYWORDS_LEN: usize = 50;
const FAILURES_MAX: u32 = 100;
const SCORE_MAX: u8 = 100;
/// Longest that an answer is given to others.
const ANSWER_CACHE_MAX_S: u32 = 86_400;

const NAME: &str = "must be 1 to 100 characters, none of them a control character";

/// Refuses a bot, or a change of one, that names everything wrong with it.
///
/// # Errors
/// `invalid`, with each field that is wrong.
pub(super) fn check(bot: &ChangeBot, state: &AppState) -> Result<(), ApiError> {
    let mut wrong = Wrong::default();
    let is_name = |text: &str| !text.trim().is_empty() && is_name(text, NAME_CHARS);
    let name = bot.name.as_deref();
    wrong.check(name.is_none_or(is_name), "/name", NAME);
    let is_prompt = |text: &str| text.chars().count() <= PROMPT_CHARS && !text.contains('\0');
    let prompt = bot.prompt.as_deref();
    wrong.check(
        prompt.is_none_or(is_prompt),
        "/prompt",
        "must be at most 32000 characters, none of them NUL",
    );
    let model = bot.model.iter().flatten();
    wrong.check(
        model.into_iter().all(|model| is_name(model)),
        "/model",
        NAME,
    );
    let tokens = bot.max_output_tokens;
    wrong.check(
        tokens.is_none_or(|tokens| (1..=OUTPUT_TOKENS_MAX).contains(&tokens)),
        "/max_output_tokens",
        "must be 1 to 32768",
    );
    wrong.check_each(
        bot.route.as_deref().unwrap_or_default(),
        |name| state.upstreams.contains(name),
        "/route",
        (ROUTE_LEN, "must name at most 16 upstreams"),
        "is not a configured upstream",
    );
    wrong.check_each(
        bot.allowed_origins.as_deref().unwrap_or_default(),
        |origin| is_origin(origin),
        "/allowed_origins",
        (ORIGINS_LEN, "must be at most 50 origins"),
        "must be an origin as browsers write it, such as https://example.com",
    );
    if let Some(escalation) = &bot.escalation {
        wrong.check_escalation(escalation, is_name);
    }
    let seconds = bot.answer_cache_s;
    wrong.check(
        seconds.is_none_or(|seconds| seconds <= ANSWER_CACHE_MAX_S),
        "/answer_cache_s",
        "must be at most 86400: a day",
    );
    if wrong.0.is_empty() {
        return Ok(());
    }
    Err(ApiError::with_parts(ErrorCode::Invalid, wrong.0))
}

/// What is wrong, field by field.
#[derive(Default)]
struct Wrong(Vec<FieldProblem>);

impl Wrong {
    fn check(&mut self, is_right: bool, pointer: &str, detail: &str) {
        if !is_right {
            self.0.push(FieldProblem::field(pointer, detail));
        }
    }

    /// A list: how many there may be, and what each must be.
    fn check_each(
        &mut self,
        list: &[String],
        is_right: impl Fn(&String) -> bool,
        pointer: &str,
        (most, too_many): (usize, &str),
        detail: &str,
    ) {
        self.check(list.len() <= most, pointer, too_many);
        for (index, one) in list.iter().take(most).enumerate() {
            self.check(is_right(one), &format!("{pointer}/{index}"), detail);
        }
    }

    fn check_escalation(&mut self, escalation: &Escalation, is_name: impl Fn(&str) -> bool) {
        self.check_each(
            &escalation.keywords,
            |keyword| is_name(keyword),
            "/escalation/keywords",
            (KEYWORDS_LEN, "must be at most 50 words or phrases"),
            NAME,
        );
        let failures = escalation.after_failures;
        self.check(
            failures.is_none_or(|failures| (1..=FAILURES_MAX).contains(&failures)),
            "/escalation/after_failures",
            "must be 1 to 100",
        );
        let score = escalation.below_score;
        self.check(
            score.is_none_or(|score| (1..=SCORE_MAX).contains(&score)),
            "/escalation/below_score",
            "must be 1 to 100",
        );
    }
}

/// Whether a text is a name of at most so many characters. Control characters are no part of one: nobody
/// sees them, and where the name is shown or logged they do what the name's owner wants.
pub(in crate::http) fn is_name(text: &str, most: usize) -> bool {
    text.chars().count() <= most && !text.chars().any(char::is_control)
}

/// Scheme, host and port as a browser writes them, and nothing more: what is spelt otherwise would never
/// match.
fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let fits = host.is_some_and(|host| {
        host.len() <= 255
            && host.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_:[]".contains(&byte)
            })
    });
    fits && Url::parse(text).is_ok_and(|url| url.origin().ascii_serialization() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    // H14: what a browser would never write would never match.
    #[test]
    fn an_origin_is_what_a_browser_writes() {
        for right in [
            "https://example.com",
            "http://localhost:3000",
            "https://a_b.example:8443",
            "http://[::1]:81",
            "http://127.0.0.1",
        ] {
            assert!(is_origin(right), "{right}");
        }
        for wrong in [
            "",
            "https://",
            "https://example.com/",
            "https://example.com:443",
            "http://example.com:80",
            "https://Example.com",
            "https://*.example.com",
            "https://a:b",
            "https://a:99999",
            "https://:1",
            "https://a b",
            "https://a;script-src *",
            "ftp://example.com",
            "null",
        ] {
            assert!(!is_origin(wrong), "{wrong}");
        }
    }
}
