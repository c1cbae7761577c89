//! Bots: create, list, show, change. For API keys.

use actix_web::{HttpResponse, web};
use hubbub_protocol::BotId;
use hubbub_protocol::http::Page;
use serde::{Deserialize, Deserializer};

use super::AppState;
use super::auth::Keyed;
use super::problem::ApiError;
use crate::storage::bots::{self, BotChanges, NewBot};

const NAME_CHARS: usize = 100;
const PROMPT_CHARS: usize = 32_000;
const ROUTE_LEN: usize = 16;
const ORIGINS_LEN: usize = 50;
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
}

/// Query of a list.
#[derive(Debug, Deserialize)]
pub struct ListQuery {
    cursor: Option<BotId>,
    limit: Option<u32>,
}

/// Creates a bot.
///
/// # Errors
/// `unauthorized`, `forbidden`, `invalid`.
pub async fn create(
    caller: Keyed,
    body: web::Json<CreateBot>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let body = body.into_inner();
    check(
        &ChangeBot {
            name: Some(body.name.clone()),
            prompt: Some(body.prompt.clone()),
            route: Some(body.route.clone()),
            model: Some(body.model.clone()),
            replies: Some(body.replies),
            max_output_tokens: Some(body.max_output_tokens),
            allowed_origins: Some(body.allowed_origins.clone()),
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
    caller: Keyed,
    query: web::Query<ListQuery>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT);
    if limit == 0 || limit > bots::PAGE_LIMIT {
        return Err(ApiError::invalid("limit must be 1 to 200"));
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
    caller: Keyed,
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
    caller: Keyed,
    path: web::Path<BotId>,
    body: web::Json<ChangeBot>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let (bot, body) = (path.into_inner(), body.into_inner());
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
    };
    let changed = bots::update(&scope, bot, &changes)
        .await?
        .ok_or(ApiError::not_found())?;
    scope.commit().await?;
    state.hub.bot_changed(caller.tenant, bot).await;
    Ok(HttpResponse::Ok().json(changed))
}

fn check(bot: &ChangeBot, state: &AppState) -> Result<(), ApiError> {
    if bot
        .name
        .as_deref()
        .is_some_and(|name| name.trim().is_empty() || !is_name(name, NAME_CHARS))
    {
        return Err(ApiError::invalid(
            "name must be 1 to 100 characters, none of them a control character",
        ));
    }
    if bot
        .prompt
        .as_deref()
        .is_some_and(|prompt| prompt.chars().count() > PROMPT_CHARS || prompt.contains('\0'))
    {
        return Err(ApiError::invalid(
            "prompt must be at most 32000 characters, none of them NUL",
        ));
    }
    if bot
        .model
        .iter()
        .flatten()
        .any(|model| model.is_empty() || !is_name(model, NAME_CHARS))
    {
        return Err(ApiError::invalid(
            "model must be 1 to 100 characters, none of them a control character",
        ));
    }
    if bot
        .max_output_tokens
        .is_some_and(|n| n == 0 || n > OUTPUT_TOKENS_MAX)
    {
        return Err(ApiError::invalid("max_output_tokens must be 1 to 32768"));
    }
    let route = bot.route.as_deref().unwrap_or_default();
    if route.len() > ROUTE_LEN || route.iter().any(|name| !state.upstreams.contains(name)) {
        return Err(ApiError::invalid(
            "route must name configured upstreams, at most 16",
        ));
    }
    let origins = bot.allowed_origins.as_deref().unwrap_or_default();
    if origins.len() > ORIGINS_LEN || !origins.iter().all(|origin| is_origin(origin)) {
        return Err(ApiError::invalid(
            "allowed_origins must be exact origins such as https://example.com, at most 50",
        ));
    }
    Ok(())
}

/// Whether a text is a name of at most so many characters. Control characters are no part of one: nobody
/// sees them, and where the name is shown or logged they do what the name's owner wants.
pub(super) fn is_name(text: &str, most: usize) -> bool {
    text.chars().count() <= most && !text.chars().any(char::is_control)
}

/// Scheme, host and port as a browser writes them, and nothing more.
fn is_origin(text: &str) -> bool {
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    host.is_some_and(|host| {
        !host.is_empty()
            && host.len() <= 255
            && host.bytes().all(|byte| {
                byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-:[]".contains(&byte)
            })
    })
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
