//! Bots: create, list, show, change. For API keys.

use actix_web::{HttpResponse, web};
use hubbub_protocol::http::{FieldProblem, Page};
use hubbub_protocol::{BotId, ErrorCode, Escalation};
use reqwest::Url;
use serde::{Deserialize, Deserializer};

use super::AppState;
use super::auth::{Allowed, ManageBots};
use super::input::{Body, Query};
use super::problem::ApiError;
use crate::storage::bots::{self, BotChanges, NewBot};

const NAME_CHARS: usize = 100;
const PROMPT_CHARS: usize = 32_000;
const ROUTE_LEN: usize = 16;
const ORIGINS_LEN: usize = 50;
const KEYWORDS_LEN: usize = 50;
const FAILURES_MAX: u32 = 100;
const SCORE_MAX: u8 = 100;
/// Longest that an answer is given to others.
const ANSWER_CACHE_MAX_S: u32 = 86_400;
const OUTPUT_TOKENS_DEFAULT: u32 = 1_024;
const OUTPUT_TOKENS_MAX: u32 = 32_768;
const PAGE_DEFAULT: u32 = 50;

/// `POST /v1/bots`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CreateBot {
    name: String,
    #[serde(default)]
    prompt: String,
    #[serde(default)]
    route: Vec<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default = "yes")]
    replies: bool,
    #[serde(default = "output_tokens_default")]
    max_output_tokens: u32,
    #[serde(default)]
    allowed_origins: Vec<String>,
    #[serde(default)]
    escalation: Escalation,
    #[serde(default)]
    answer_cache_s: u32,
}

/// `PATCH /v1/bots/{bot}`: absent fields stay as they are; `"model": null` returns to the default.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things in a PATCH"
)]
pub struct ChangeBot {
    name: Option<String>,
    prompt: Option<String>,
    route: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    model: Option<Option<String>>,
    replies: Option<bool>,
    max_output_tokens: Option<u32>,
    allowed_origins: Option<Vec<String>>,
    escalation: Option<Escalation>,
    answer_cache_s: Option<u32>,
}

/// Query of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    cursor: Option<BotId>,
    limit: Option<u32>,
}

/// Creates a bot.
///
/// # Errors
/// `unauthorized`, `forbidden`, `invalid`.
pub async fn create(
    caller: Allowed<ManageBots>,
    Body(body): Body<CreateBot>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    check(
        &ChangeBot {
            name: Some(body.name.clone()),
            prompt: Some(body.prompt.clone()),
            route: Some(body.route.clone()),
            model: Some(body.model.clone()),
            replies: Some(body.replies),
            max_output_tokens: Some(body.max_output_tokens),
            allowed_origins: Some(body.allowed_origins.clone()),
            escalation: Some(body.escalation.clone()),
            answer_cache_s: Some(body.answer_cache_s),
        },
        &state,
    )?;
    let scope = state.storage.scope(caller.tenant).await?;
    let bot = bots::insert(
        &scope,
        &NewBot {
            id: BotId::generate(),
            name: body.name,
            prompt: body.prompt,
            route: body.route,
            model: body.model,
            replies: body.replies,
            max_output_tokens: body.max_output_tokens,
            allowed_origins: body.allowed_origins,
            escalation: body.escalation,
            answer_cache_s: body.answer_cache_s,
        },
    )
    .await?;
    scope.commit().await?;
    Ok(HttpResponse::Created().json(bot))
}

/// Lists bots, oldest first.
///
/// # Errors
/// `unauthorized`, `forbidden`, `invalid`.
pub async fn list(
    caller: Allowed<ManageBots>,
    Query(query): Query<ListQuery>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT);
    if limit == 0 || limit > bots::PAGE_LIMIT {
        return Err(ApiError::parameter("limit", "must be 1 to 200"));
    }
    let scope = state.storage.scope(caller.tenant).await?;
    let items = bots::list(&scope, query.cursor, limit).await?;
    let is_full = bots::is_full(&items, limit);
    let next = items
        .last()
        .filter(|_| is_full)
        .map(|bot| bot.id.to_string());
    Ok(HttpResponse::Ok().json(Page { items, next }))
}

/// Shows a bot.
///
/// # Errors
/// `unauthorized`, `forbidden`, `not_found`.
pub async fn show(
    caller: Allowed<ManageBots>,
    path: web::Path<BotId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let scope = state.storage.scope(caller.tenant).await?;
    let bot = bots::find(&scope, path.into_inner())
        .await?
        .ok_or(ApiError::not_found())?;
    Ok(HttpResponse::Ok().json(bot))
}

/// Changes a bot. Live sessions use the change from their next message on.
///
/// # Errors
/// `unauthorized`, `forbidden`, `not_found`, `invalid`.
pub async fn change(
    caller: Allowed<ManageBots>,
    path: web::Path<BotId>,
    Body(body): Body<ChangeBot>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let bot = path.into_inner();
    check(&body, &state)?;
    let scope = state.storage.scope(caller.tenant).await?;
    let changes = BotChanges {
        name: body.name,
        prompt: body.prompt,
        route: body.route,
        model: body.model,
        replies: body.replies,
        max_output_tokens: body.max_output_tokens,
        allowed_origins: body.allowed_origins,
        escalation: body.escalation,
        answer_cache_s: body.answer_cache_s,
    };
    let changed = bots::update(&scope, bot, &changes)
        .await?
        .ok_or(ApiError::not_found())?;
    scope.commit().await?;
    state.hub.bot_changed(caller.tenant, bot).await;
    Ok(HttpResponse::Ok().json(changed))
}

/// Everything that is wrong with a bot's fields, at once.
fn check(bot: &ChangeBot, state: &AppState) -> Result<(), ApiError> {
    let mut wrong = Vec::new();
    let mut refuse = |is_wrong: bool, pointer: &str, detail: &str| {
        if is_wrong {
            wrong.push(FieldProblem::field(pointer, detail));
        }
    };
    let is_name = |text: &str| !text.trim().is_empty() && is_name(text, NAME_CHARS);
    refuse(
        bot.name.as_deref().is_some_and(|name| !is_name(name)),
        "/name",
        "must be 1 to 100 characters, none of them a control character",
    );
    let prompt = bot.prompt.as_deref();
    refuse(
        prompt.is_some_and(|prompt| prompt.chars().count() > PROMPT_CHARS || prompt.contains('\0')),
        "/prompt",
        "must be at most 32000 characters, none of them NUL",
    );
    let model = bot.model.iter().flatten();
    refuse(
        model.into_iter().any(|model| !is_name(model)),
        "/model",
        "must be 1 to 100 characters, none of them a control character",
    );
    let tokens = bot.max_output_tokens;
    refuse(
        tokens.is_some_and(|n| n == 0 || n > OUTPUT_TOKENS_MAX),
        "/max_output_tokens",
        "must be 1 to 32768",
    );
    let route = bot.route.as_deref().unwrap_or_default();
    refuse(
        route.len() > ROUTE_LEN,
        "/route",
        "must name at most 16 upstreams",
    );
    for (index, name) in route.iter().take(ROUTE_LEN).enumerate() {
        refuse(
            !state.upstreams.contains(name),
            &format!("/route/{index}"),
            "is not a configured upstream",
        );
    }
    let origins = bot.allowed_origins.as_deref().unwrap_or_default();
    refuse(
        origins.len() > ORIGINS_LEN,
        "/allowed_origins",
        "must be at most 50 origins",
    );
    for (index, origin) in origins.iter().take(ORIGINS_LEN).enumerate() {
        refuse(
            !is_origin(origin),
            &format!("/allowed_origins/{index}"),
            "must be an origin as browsers write it, such as https://example.com",
        );
    }
    let escalation = bot.escalation.clone().unwrap_or_default();
    let keywords = &escalation.keywords;
    refuse(
        keywords.len() > KEYWORDS_LEN,
        "/escalation/keywords",
        "must be at most 50 words or phrases",
    );
    for (index, keyword) in keywords.iter().take(KEYWORDS_LEN).enumerate() {
        refuse(
            !is_name(keyword),
            &format!("/escalation/keywords/{index}"),
            "must be 1 to 100 characters, none of them a control character",
        );
    }
    refuse(
        escalation
            .after_failures
            .is_some_and(|n| n == 0 || n > FAILURES_MAX),
        "/escalation/after_failures",
        "must be 1 to 100",
    );
    refuse(
        escalation
            .below_score
            .is_some_and(|score| score == 0 || score > SCORE_MAX),
        "/escalation/below_score",
        "must be 1 to 100",
    );
    refuse(
        bot.answer_cache_s
            .is_some_and(|seconds| seconds > ANSWER_CACHE_MAX_S),
        "/answer_cache_s",
        "must be at most 86400: a day",
    );
    if wrong.is_empty() {
        return Ok(());
    }
    Err(ApiError::with_parts(ErrorCode::Invalid, wrong))
}

/// Whether a text is a name of at most so many characters. Control characters are no part of one: nobody
/// sees them, and where the name is shown or logged they do what the name's owner wants.
pub(super) fn is_name(text: &str, most: usize) -> bool {
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

fn yes() -> bool {
    true
}

fn output_tokens_default() -> u32 {
    OUTPUT_TOKENS_DEFAULT
}

/// Tells `null` from absent.
#[expect(
    clippy::option_option,
    reason = "absent, null and a value are three things in a PATCH"
)]
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(value).map(Some)
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
