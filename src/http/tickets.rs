//! Tickets: single-use, 30 s, so that browsers connect without a secret in a URL or a log.

use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use hubbub_actors::{OperatorRole, Who};
use hubbub_protocol::http::Bot;
use hubbub_protocol::{BotId, Timestamp, VisitorId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::auth::{Allowed, IssueTickets};
use super::bots::is_name;
use super::problem::ApiError;
use super::visitor_cookie::VisitorCookie;
use super::{AppState, input, origin};
use crate::identity::{VisitorToken, digest, generate_ticket};
use hubbub_storage::bots::WidgetBot;
use hubbub_storage::tickets::Ticket;
use hubbub_storage::visitors::{self, Visitor};
use hubbub_storage::{TenantScope, bots, tickets};

const LIFETIME: Duration = Duration::from_secs(30);

/// Longest id and name of a user.
const NAME_CHARS: usize = hubbub_protocol::limits::NAME_CHARS;

/// `POST /v1/tickets`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketRequest {
    /// Whom the ticket is for; the API key itself if absent.
    #[serde(default)]
    user: Option<UserRequest>,
    /// Or a person of the tenant's staff.
    #[serde(default)]
    operator: Option<OperatorRequest>,
}

/// A person of the tenant's staff, whom the tenant's own backend vouches for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorRequest {
    /// The tenant's own id of the person.
    id: String,
    /// For people to read.
    #[serde(default)]
    name: String,
    /// `viewer`, `agent`, `admin` or `owner`.
    role: String,
}

/// A person known to the tenant's own site.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserRequest {
    /// The site's own id of the person.
    id: String,
    /// For people to read.
    #[serde(default)]
    name: String,
}

/// `POST /v1/widget/{bot}/tickets`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WidgetTicketRequest {
    /// The token of an earlier visit: the visitor stays the same.
    #[serde(default)]
    visitor_token: Option<String>,
}

/// A ticket to connect with.
#[derive(Debug, Serialize)]
pub struct TicketResponse {
    ticket: String,
    expires_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    visitor: Option<VisitorResponse>,
    /// What a page shows before the first answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    bot: Option<BotResponse>,
}

/// The bot a page talks to, as anybody may see it.
#[derive(Debug, Serialize)]
pub struct BotResponse {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    escalation: Option<OfferedEscalation>,
}

/// How a visitor may ask for a person, if the bot offers it.
#[derive(Debug, Serialize)]
pub struct OfferedEscalation {
    button: bool,
}

impl From<Bot> for BotResponse {
    fn from(bot: Bot) -> Self {
        let button = bot.escalation.button;
        Self {
            name: bot.name,
            escalation: button.then_some(OfferedEscalation { button }),
        }
    }
}

/// The visitor behind a ticket.
#[derive(Debug, Serialize)]
pub struct VisitorResponse {
    id: VisitorId,
    /// For programs only: a browser is given it in a cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// A ticket for a program, or for a user of the tenant's site.
///
/// # Errors
/// `unauthorized`, `forbidden`, `invalid`.
pub async fn issue(
    caller: Allowed<IssueTickets>,
    body: web::Bytes,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let scope = state.storage.scope(caller.tenant).await?;
    let request = read::<TicketRequest>(&body)?;
    let (who, name) = match (request.user, request.operator) {
        (None, None) => (caller.who.clone(), caller.name.clone()),
        (Some(_), Some(_)) => {
            return Err(ApiError::invalid("user and operator exclude each other"));
        }
        (None, Some(operator)) => {
            check_person("operator", &operator.id, &operator.name)?;
            let role = OperatorRole::of(&operator.role).ok_or_else(|| {
                ApiError::field("/operator/role", "must be viewer, agent, admin or owner")
            })?;
            let id = operator.id;
            (Who::Operator { id, role }, operator.name)
        }
        (Some(user), None) => {
            check_person("user", &user.id, &user.name)?;
            let visitor = VisitorId::generate();
            let visitor = visitors::upsert_external(&scope, visitor, &user.id, &user.name).await?;
            let who = Who::User {
                id: visitor.id,
                external: user.id,
            };
            (who, visitor.name)
        }
    };
    let ticket = Ticket {
        who,
        name,
        origin: None,
        key: caller.key().map(str::to_owned),
    };
    let response = mint(scope, ticket).await?;
    Ok(HttpResponse::Created().json(response))
}

/// Refuses ids and names that could not be shown.
fn check_person(kind: &str, id: &str, name: &str) -> Result<(), ApiError> {
    let fits = |text: &str| is_name(text, NAME_CHARS);
    if id.is_empty() || !fits(id) {
        let wrong = "must be 1 to 200 characters, none of them a control character";
        return Err(ApiError::field(format!("/{kind}/id"), wrong));
    }
    if !fits(name) {
        let wrong = "must be at most 200 characters, none of them a control character";
        return Err(ApiError::field(format!("/{kind}/name"), wrong));
    }
    Ok(())
}

/// A ticket for a page's visitor. Public: what it opens is only the visitor's own sessions. Which page may
/// have one, and how many there are, is decided in [`pages`](super::pages).
///
/// # Errors
/// `invalid`.
pub async fn issue_to_widget(
    request: HttpRequest,
    path: web::Path<BotId>,
    widget: web::ReqData<WidgetBot>,
    body: web::Bytes,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let (bot, page) = (path.into_inner(), origin::of(&request)?);
    let scope = state.storage.scope(widget.tenant).await?;
    let cookie = page.map(|page| VisitorCookie::of(page, &request, &state, bot));
    let told = read::<WidgetTicketRequest>(&body)?.visitor_token;
    let kept = cookie.as_ref().and_then(|cookie| cookie.token(&request));
    let tokens = [told.as_deref(), kept.as_deref()];
    let (visitor, token) = known_or_new(&scope, bot, tokens).await?;
    let ticket = Ticket {
        who: Who::Visitor {
            id: visitor.id,
            bot,
        },
        name: visitor.name,
        origin: page.map(str::to_owned),
        key: None,
    };
    let known = VisitorResponse {
        id: visitor.id,
        token: cookie.is_none().then(|| token.expose()),
    };
    let bot = bots::find(&scope, bot).await?;
    let response = TicketResponse {
        visitor: Some(known),
        bot: bot.map(BotResponse::from),
        ..mint(scope, ticket).await?
    };
    let mut answer = HttpResponse::Created();
    answer.insert_header((header::CACHE_CONTROL, "no-store"));
    if let Some(cookie) = cookie {
        answer.insert_header((header::SET_COOKIE, cookie.keep(&token.expose())));
    }
    Ok(answer.json(response))
}

/// The visitor of the first token that is known; a new one for no token, or for one that is not known any
/// more: a page that kept an old token must still be able to chat.
async fn known_or_new(
    scope: &TenantScope,
    bot: BotId,
    tokens: [Option<&str>; 2],
) -> Result<(Visitor, VisitorToken), ApiError> {
    let tenant = scope.tenant();
    for token in tokens.into_iter().flatten() {
        if let Some(token) = VisitorToken::parse(token).filter(|token| token.tenant == tenant)
            && let Some(visitor) = visitors::find_by_token(scope, &token.digest()).await?
        {
            visitors::update_returned(scope, visitor.id, bot).await?;
            return Ok((visitor, token));
        }
    }
    let token = VisitorToken::generate(tenant);
    let visitor = Visitor::anonymous(VisitorId::generate(), bot);
    visitors::insert(scope, &visitor, Some(&token.digest())).await?;
    Ok((visitor, token))
}

/// The body may be left out, but one that is there must say something we understand: taken for none, a
/// misspelt `user` would hand a visitor the API key's own powers.
fn read<T: Default + DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    if body.is_empty() {
        return Ok(T::default());
    }
    input::parse(body)
}

async fn mint(scope: TenantScope, ticket: Ticket) -> Result<TicketResponse, ApiError> {
    let secret = generate_ticket();
    tickets::insert(&scope, &digest(&secret), &ticket, LIFETIME).await?;
    scope.commit().await?;
    let lifetime_ms = i64::try_from(LIFETIME.as_millis()).unwrap_or(0);
    let expires_at = Timestamp::from_unix_ms(Timestamp::now().unix_ms() + lifetime_ms);
    Ok(TicketResponse {
        ticket: secret,
        expires_at,
        visitor: None,
        bot: None,
    })
}
