//! `GET /v1/connect`: authenticates, admits, upgrades.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use hubbub_actors::{Caller, Rejection, Who};
use hubbub_protocol::{ErrorCode, SUBPROTOCOL, TICKET_SUBPROTOCOL_PREFIX};

use super::problem::ApiError;
use super::{AppState, auth, handshake, origin, requests};
use crate::identity::digest;
use crate::realtime::{self, Admission, Refused};

/// Longest offered list of subprotocols: `hubbub.v1, ticket.` and 43 characters, with room.
const PROTOCOLS_CHARS: usize = 256;

/// Upgrades to a WebSocket.
///
/// # Errors
/// `unauthorized`, `forbidden`, `invalid`, `upgrade_required`, `rate_limited`, `overloaded`, `unavailable`,
/// before the upgrade.
pub async fn connect(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> Result<HttpResponse, actix_web::Error> {
    let admission = admit(&request, &state)?;
    let caller = authenticate(&request, &state).await?;
    let hub = state.hub.clone();
    let permit = hub.admit_connection(&caller).await;
    let permit = permit.map_err(ApiError::from)?;
    realtime::upgrade(
        &request,
        payload,
        hub,
        caller,
        state.connection,
        permit,
        admission,
    )
    .map_err(|_| ApiError::invalid("this is not a WebSocket handshake").into())
}

fn admit(request: &HttpRequest, state: &AppState) -> Result<Admission, ApiError> {
    let address = state.proxies.client_of(request);
    let rejection = match state.connections.admit(address) {
        Ok(admission) => return Ok(admission),
        Err(Refused::Full) => Rejection::later(
            ErrorCode::Overloaded,
            "this server has too many connections",
            5_000,
        ),
        Err(Refused::TooManyFromAddress) => Rejection::later(
            ErrorCode::RateLimited,
            "too many connections from this address",
            5_000,
        ),
        Err(Refused::Draining) => requests::stopping(),
    };
    Err(rejection.into())
}

/// By exactly one of: a bearer token, or a ticket as the second offered subprotocol. A token is looked at
/// first, as on every route; a ticket cannot be, because it is offered with what may be wrong.
async fn authenticate(request: &HttpRequest, state: &AppState) -> Result<Caller, ApiError> {
    let caller = match auth::bearer(request) {
        Some(token) => Some(auth::admit(state, &token).await?),
        None => None,
    };
    let offered = offered_protocols(request)?;
    let ticket = offered
        .iter()
        .find_map(|name| name.strip_prefix(TICKET_SUBPROTOCOL_PREFIX));
    match (caller, ticket) {
        (Some(_), Some(_)) => Err(ApiError::invalid(
            "send a bearer token or a ticket, not both",
        )),
        (Some(caller), None) => {
            handshake::check(request)?;
            origin::check_caller(origin::of(request)?, state, &caller).await?;
            Ok(caller)
        }
        (None, Some(ticket)) => by_ticket(request, state, ticket).await,
        (None, None) => Err(ApiError::new(
            ErrorCode::Unauthorized,
            "a bearer token or a ticket is needed to connect",
        )),
    }
}

async fn by_ticket(
    request: &HttpRequest,
    state: &AppState,
    ticket: &str,
) -> Result<Caller, ApiError> {
    // First: a ticket is not used up by what is no handshake.
    handshake::check(request)?;
    let page = origin::of(request)?;
    let redeemed = state.storage.redeem_ticket(&digest(ticket)).await?;
    let (tenant, ticket) = redeemed.ok_or(ApiError::new(
        ErrorCode::Unauthorized,
        "the ticket is unknown, used or expired",
    ))?;
    let is_persons = matches!(ticket.who, Who::User { .. } | Who::Operator { .. });
    let is_its_page = match (ticket.origin.as_deref(), page) {
        // The tenant's own program asked for it, for a page of the tenant's: one that its bots name.
        (None, Some(_)) => is_persons,
        (issued_to, page) => issued_to == page,
    };
    if !is_its_page {
        return Err(ApiError::new(
            ErrorCode::Forbidden,
            "the ticket was not issued to this page",
        ));
    }
    let caller = Caller {
        tenant,
        who: ticket.who,
        name: ticket.name,
    };
    // Again: the bot's list may have changed since the ticket was issued.
    origin::check_caller(page, state, &caller).await?;
    state.hub.admit(&caller)?;
    Ok(caller)
}

fn offered_protocols(request: &HttpRequest) -> Result<Vec<&str>, ApiError> {
    let mut offered = Vec::new();
    for field in request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        let field = field.to_str().ok();
        let field = field.filter(|offered| offered.len() <= PROTOCOLS_CHARS);
        let unreadable = ApiError::invalid("the offered subprotocols cannot be read");
        offered.extend(field.ok_or(unreadable)?.split(',').map(str::trim));
    }
    if offered.is_empty() || offered.contains(&SUBPROTOCOL) {
        Ok(offered)
    } else {
        Err(ApiError::invalid(
            "this server speaks the subprotocol hubbub.v1",
        ))
    }
}
