//! Bots: create, list, show, change. For API keys.

mod check;

use actix_web::{HttpResponse, web};
use hubbub_protocol::http::Page;
use hubbub_protocol::{BotId, Escalation};
use serde::{Deserialize, Deserializer};

pub(super) use check::is_name;

use super::AppState;
use super::auth::{Allowed, ManageBots};
use super::input::{Body, Query};
use super::problem::ApiError;
use check::check;
use hubbub_storage::bots::{self, BotChanges, NewBot};

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
