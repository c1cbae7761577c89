//! Messages of a session: page through them, post one, and read its answer as it is written.

use actix_web::{HttpRequest, HttpResponse, web};
use hubbub_actors::Post;
use hubbub_actors::ports::{PageSize, Transcript};
use hubbub_protocol::content::message_violation;
use hubbub_protocol::http::{MessagePage, PostMessage, PostedMessage};
use hubbub_protocol::{ClientMessageId, Seq, SessionId};
use serde::Deserialize;

use super::auth::Authenticated;
use super::follow::follow_reply;
use super::input::{Body, Query};
use super::problem::ApiError;
use super::{AppState, events, sessions};
use crate::realtime::cut::Cut;
use hubbub_storage::messages::{self, EndedText};

const PAGE_DEFAULT: u32 = 50;
const PAGE_MAX: u32 = 200;
/// Bytes of text in a page: a page of the longest messages, and of the longest texts of replies that came to
/// nothing, stays small enough to hold.
const PAGE_BYTES: u32 = 512 * 1024;

/// Query of a page.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    before: Option<Seq>,
    after: Option<Seq>,
    limit: Option<u32>,
}

/// A page of messages, oldest first: those after a seq, or the newest before one.
///
/// # Errors
/// `unauthorized`, `not_found`, `invalid`.
pub async fn page(
    caller: Authenticated,
    path: web::Path<SessionId>,
    Query(query): Query<PageQuery>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let session = path.into_inner();
    let limit = query.limit.unwrap_or(PAGE_DEFAULT);
    if limit == 0 || limit > PAGE_MAX {
        return Err(ApiError::parameter("limit", "must be 1 to 200"));
    }
    let size = PageSize {
        messages: limit,
        bytes: PAGE_BYTES,
    };
    let scope = state.storage.scope(caller.tenant).await?;
    sessions::find_visible(&scope, &caller, session).await?;
    let whole = EndedText::Whole;
    let Transcript {
        messages,
        ended,
        more,
    } = match (query.after, query.before) {
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid("after and before exclude each other"));
        }
        (Some(after), None) => messages::list_after(&scope, session, after, size, whole).await?,
        (None, before) => messages::list_before(&scope, session, before, size, whole).await?,
    };
    Ok(HttpResponse::Ok().json(MessagePage {
        messages,
        ended,
        more,
    }))
}

/// Posts a message; answers after its commit. With `stream`, the answer goes on as server-sent events
/// until the reply has ended.
///
/// # Errors
/// As `send`: `invalid`, `too_large`, `conflict`, `not_found`, `rate_limited`, `overloaded`,
/// `unavailable`.
pub async fn post(
    request: HttpRequest,
    caller: Authenticated,
    path: web::Path<SessionId>,
    Body(body): Body<PostMessage>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let session = path.into_inner();
    let text_chars = state.connection.limits.text_chars;
    if let Some((code, message)) = message_violation(&body.text, body.metadata.as_ref(), text_chars)
    {
        return Err(ApiError::new(code, message));
    }
    let id = body.id.unwrap_or_else(ClientMessageId::generate);
    let post = Post {
        id,
        text: body.text,
        metadata: body.metadata,
        mode: body.mode,
        class: body.class,
    };
    if body.stream {
        let wire = request.conn_data::<Cut>().cloned().unwrap_or_default();
        let followed = follow_reply(&state, caller.0, session, post, wire).await?;
        return Ok(events::respond(followed));
    }
    let handle = state.hub.session(caller.tenant, session)?;
    let posted = handle.post_message(caller.0, post).await?;
    let answer = PostedMessage {
        session,
        id,
        seq: posted.seq,
        at: posted.at,
        duplicate: posted.duplicate,
        reply: posted.reply,
    };
    let mut response = if posted.duplicate {
        HttpResponse::Ok()
    } else {
        HttpResponse::Created()
    };
    Ok(response.json(answer))
}
