//! `GET /v1/connect`: authenticates, admits, upgrades.

use std::net::{IpAddr, Ipv4Addr};

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use hubbub_actors::{Caller, Rejection};
use hubbub_protocol::{ErrorCode, SUBPROTOCOL, TICKET_SUBPROTOCOL_PREFIX};

use super::problem::ApiError;
use super::{AppState, auth, origin, requests};
use crate::identity::digest;
use crate::realtime::{self, Admission, Refused};

/// Longest offered list of subprotocols: `hubbub.v1, ticket.` and 43 characters, with room.
const PROTOCOLS_CHARS: usize = 256;

/// Upgrades to a WebSocket.
///
/// # Errors
/// `unauthorized`, `forbidden`, `rate_limited`, `overloaded`, `unavailable`, before the upgrade.
pub async fn connect(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<AppState>,
) -> Result<HttpResponse, actix_web::Error> {
    let admission = admit(&request, &state)?;
    let caller = authenticate(&request, &state).await?;
    let tenant = state
        .hub
        .tenant(caller.tenant)
        .await
        .map_err(ApiError::from)?;
    let permit = tenant.admit_connection().map_err(ApiError::from)?;
    let hub = state.hub.clone();
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
    let address = request
        .peer_addr()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
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
        Some(token) => Some(auth::authenticate(&state.storage, &token).await?),
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
            // A browser cannot send this header; a page that could would be using a stolen key.
            origin::check(request, state, &[])?;
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
    let redeemed = state.storage.redeem_ticket(&digest(ticket)).await?;
    let (tenant, ticket) = redeemed.ok_or(ApiError::new(
        ErrorCode::Unauthorized,
        "the ticket is unknown, used or expired",
    ))?;
    if ticket.origin.as_deref() != origin::of(request) && ticket.origin.is_some() {
        return Err(ApiError::new(
            ErrorCode::Forbidden,
            "the ticket is another page's",
        ));
    }
    Ok(Caller {
        tenant,
        visitor: ticket.visitor,
        bot: ticket.bot,
        principal: ticket.principal,
    })
}

fn offered_protocols(request: &HttpRequest) -> Result<Vec<&str>, ApiError> {
    let Some(value) = request.headers().get(header::SEC_WEBSOCKET_PROTOCOL) else {
        return Ok(Vec::new());
    };
    let offered = value
        .to_str()
        .ok()
        .filter(|offered| offered.len() <= PROTOCOLS_CHARS);
    let offered: Vec<&str> = offered
        .ok_or(ApiError::invalid("the offered subprotocols cannot be read"))?
        .split(',')
        .map(str::trim)
        .collect();
    if offered.contains(&SUBPROTOCOL) {
        Ok(offered)
    } else {
        Err(ApiError::invalid(
            "this server speaks the subprotocol hubbub.v1",
        ))
    }
}
