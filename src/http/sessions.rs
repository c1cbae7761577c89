//! Sessions: open, list, show.

use actix_web::{HttpRequest, HttpResponse, web};
use hubbub_actors::{Caller, Permission};
use hubbub_protocol::http::{Page, Session};
use hubbub_protocol::{BotId, SessionId, VisitorId};
use serde::Deserialize;

use super::AppState;
use super::auth::Authenticated;
use super::input::{Body, Query};
use super::problem::ApiError;
use hubbub_storage::sessions::{self, SessionCursor, SessionFilter};
use hubbub_storage::{TenantScope, notes};

const PAGE_DEFAULT: u32 = 50;
const PAGE_MAX: u32 = 200;

/// `POST /v1/sessions`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenSession {
    bot: BotId,
}

/// Query of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListQuery {
    bot: Option<BotId>,
    visitor: Option<VisitorId>,
    /// `waiting`: those that wait for a person, oldest first.
    handler: Option<ByHandler>,
    cursor: Option<String>,
    limit: Option<u32>,
}

/// Sessions by who handles them.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ByHandler {
    Waiting,
}

/// Opens a session.
///
/// # Errors
/// `unauthorized`, `forbidden`, `not_found` (the bot), `invalid`, `rate_limited`.
pub async fn open(
    request: HttpRequest,
    caller: Authenticated,
    Body(body): Body<OpenSession>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let address = state.proxies.client_of(&request);
    state.rates.admit_session(address, &caller)?;
    let session = state.hub.open_session(&caller, body.bot).await?;
    let scope = state.storage.scope(caller.tenant).await?;
    let opened = sessions::find(&scope, session)
        .await?
        .ok_or(ApiError::not_found())?;
    Ok(HttpResponse::Created().json(opened))
}

/// Lists sessions, last active first: those the caller may know of.
///
/// # Errors
/// `unauthorized`, `invalid`.
pub async fn list(
    caller: Authenticated,
    Query(query): Query<ListQuery>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT);
    if limit == 0 || limit > PAGE_MAX {
        return Err(ApiError::parameter("limit", "must be 1 to 200"));
    }
    let after = query.cursor.as_deref().map(parse_cursor).transpose()?;
    // Sessions with another bot are none that this caller may know of.
    if let (Some(only), Some(asked)) = (caller.bot(), query.bot)
        && only != asked
    {
        let (items, next) = (Vec::<Session>::new(), None);
        return Ok(HttpResponse::Ok().json(Page { items, next }));
    }
    let scope = state.storage.scope(caller.tenant).await?;
    let filter = SessionFilter {
        bot: caller.bot().or(query.bot),
        visitor: caller.visitor().or(query.visitor),
    };
    let page = match query.handler {
        Some(ByHandler::Waiting) => {
            caller.check(Permission::ReadAll)?;
            sessions::list_waiting(&scope, filter, after, limit).await?
        }
        None => sessions::list(&scope, filter, after, limit).await?,
    };
    let next = page
        .next
        .map(|cursor| format!("{}.{}", cursor.at_us, cursor.session));
    Ok(HttpResponse::Ok().json(Page {
        items: page.items,
        next,
    }))
}

/// Shows a session.
///
/// # Errors
/// `unauthorized`, `not_found`.
pub async fn show(
    caller: Authenticated,
    path: web::Path<SessionId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let scope = state.storage.scope(caller.tenant).await?;
    let session = find_visible(&scope, &caller, path.into_inner()).await?;
    Ok(HttpResponse::Ok().json(session))
}

/// Lists what operators noted of a session, the newest 200, oldest first.
///
/// # Errors
/// `unauthorized`, `forbidden`, `not_found`.
pub async fn notes(
    caller: Authenticated,
    path: web::Path<SessionId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    caller.check(Permission::ReadAll)?;
    let session = path.into_inner();
    let scope = state.storage.scope(caller.tenant).await?;
    find_visible(&scope, &caller, session).await?;
    let items = notes::list(&scope, session).await?;
    Ok(HttpResponse::Ok().json(Page { items, next: None }))
}

/// The session, if the caller may know of it.
///
/// # Errors
/// `not_found`, or storage could not tell.
pub(super) async fn find_visible(
    scope: &TenantScope,
    caller: &Caller,
    session: SessionId,
) -> Result<Session, ApiError> {
    let found = sessions::find(scope, session).await?;
    found
        .filter(|session| caller.may_see(session.visitor, session.bot))
        .ok_or(ApiError::not_found())
}

fn parse_cursor(text: &str) -> Result<SessionCursor, ApiError> {
    let parts = text
        .split_once('.')
        .and_then(|(at, session)| Some((at.parse().ok()?, session.parse().ok()?)));
    parts
        .map(|(at_us, session)| SessionCursor { at_us, session })
        .ok_or_else(|| ApiError::parameter("cursor", "is not one this server gave"))
}
