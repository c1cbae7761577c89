//! Pages that ask for a ticket: which may, how often, and what their browser must hear for them to read the
//! answer (CORS).
//!
//! Decided here for each bot, before a body is read. No other route is open to pages of other origins.

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{HttpMessage, HttpResponse, web};
use hubbub_actors::Rejection;
use hubbub_protocol::BotId;

use super::AppState;
use super::origin;
use super::problem::ApiError;
use hubbub_storage::bots::WidgetBot;

/// Seconds for which a browser need not ask again whether it may ask. A bot's list may change meanwhile; what
/// counts is asked with each request.
const MAX_AGE: &str = "600";

/// Middleware of the widget's tickets: lets a page pass that the bot's list names, within its rate, and leaves
/// what is known of the bot with the request. Programs, which send no `Origin`, pass too.
///
/// # Errors
/// None of its own: a refusal is a response.
pub async fn admit(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let mut response = match find_bot(&request).await {
        Err(refused) => request.error_response(refused),
        Ok((bot, widget)) => {
            let page = request.headers().get(header::ORIGIN).cloned();
            let mut response = if is_preflight(&request) {
                request.into_response(preflight())
            } else if let Err(refused) = count(&request, bot) {
                request.error_response(refused)
            } else {
                request.extensions_mut().insert(widget);
                next.call(request).await?.map_into_boxed_body()
            };
            if let Some(page) = page {
                let headers = response.headers_mut();
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, page);
                headers.insert(
                    header::ACCESS_CONTROL_EXPOSE_HEADERS,
                    HeaderValue::from_static("retry-after, x-request-id"),
                );
            }
            response
        }
    };
    vary(response.headers_mut());
    Ok(response)
}

/// The bot that the path names, if the page may talk to it.
async fn find_bot(request: &ServiceRequest) -> Result<(BotId, WidgetBot), ApiError> {
    let bot = request.match_info().get("bot");
    let bot: BotId = bot
        .and_then(|bot| bot.parse().ok())
        .ok_or(ApiError::not_found())?;
    let state = state(request)?;
    let widget = state.storage.find_widget_bot(bot).await?;
    let widget = widget.ok_or(ApiError::not_found())?;
    if let Some(page) = origin::of(request.request())? {
        origin::check(page, state, &widget.allowed_origins)?;
    }
    Ok((bot, widget))
}

fn count(request: &ServiceRequest, bot: BotId) -> Result<(), ApiError> {
    let state = state(request)?;
    let address = state.proxies.client_of(request.request());
    Ok(state.rates.admit_ticket(address, bot)?)
}

fn state(request: &ServiceRequest) -> Result<&web::Data<AppState>, ApiError> {
    let state = request.app_data::<web::Data<AppState>>();
    state.ok_or(Rejection::internal().into())
}

/// Whether a browser only asks what its page may do.
fn is_preflight(request: &ServiceRequest) -> bool {
    let headers = request.headers();
    request.method() == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight() -> HttpResponse {
    HttpResponse::NoContent()
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "POST"))
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, "content-type"))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, MAX_AGE))
        .finish()
}

/// A cache must not hand one page what was said to another.
fn vary(headers: &mut HeaderMap) {
    headers.append(header::VARY, HeaderValue::from_static("origin"));
}
