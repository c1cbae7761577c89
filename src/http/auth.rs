//! Who is asking: `Authorization: Bearer` with an API key (`hbk_…`) or a visitor's token (`hbv_…`).
//!
//! A handler's extractors run side by side, so who is asking is found out before any of them does: by
//! [`authenticate_first`], which leaves the caller with the request for them to pick up.

use std::future::{Ready, ready};
use std::marker::PhantomData;
use std::ops::Deref;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header;
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage, HttpRequest, web};
use hubbub_actors::{Caller, Permission, Rejection, Who};
use hubbub_protocol::ErrorCode;

use super::AppState;
use super::problem::ApiError;
use crate::identity::{ApiKey, VisitorToken, digests_match};
use hubbub_storage::{Storage, visitors};

/// A caller with an API key or a visitor's token.
pub struct Authenticated(pub Caller);

/// A caller who may do something, as in `Allowed<ManageBots>`.
pub struct Allowed<P>(Caller, PhantomData<P>);

/// What a route needs of its caller.
pub trait Needed {
    /// The permission.
    const PERMISSION: Permission;
}

/// [`Permission::ManageBots`].
pub struct ManageBots;

/// [`Permission::IssueTickets`].
pub struct IssueTickets;

impl Needed for ManageBots {
    const PERMISSION: Permission = Permission::ManageBots;
}

impl Needed for IssueTickets {
    const PERMISSION: Permission = Permission::IssueTickets;
}

impl Deref for Authenticated {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl<P> Deref for Allowed<P> {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

/// Middleware: who is asking, before anything else of the request is read.
///
/// # Errors
/// None of its own: a refusal is a response.
pub async fn authenticate_first(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    match caller(&request).await {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            Ok(next.call(request).await?.map_into_boxed_body())
        }
        Err(refused) => Ok(request.error_response(refused)),
    }
}

async fn caller(request: &ServiceRequest) -> Result<Caller, ApiError> {
    let token = bearer(request.request()).ok_or(UNAUTHENTICATED)?;
    let state = request
        .app_data::<web::Data<AppState>>()
        .ok_or(Rejection::internal())?;
    admit(state, &token).await
}

/// Who holds this token, unless that is a visitor who asks too fast.
///
/// # Errors
/// As [`authenticate`], and `rate_limited`.
pub async fn admit(state: &AppState, token: &str) -> Result<Caller, ApiError> {
    state.too_fast.check(token)?;
    let caller = authenticate(&state.storage, token).await?;
    match state.hub.admit(&caller) {
        Ok(()) => Ok(caller),
        Err(rejection) => {
            state.too_fast.note(token, &rejection);
            Err(rejection.into())
        }
    }
}

impl FromRequest for Authenticated {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        // None: the route is not in the scope that authenticates, and so nobody may use it.
        let caller = request.extensions().get::<Caller>().cloned();
        ready(caller.map(Self).ok_or(Rejection::internal().into()))
    }
}

impl<P: Needed> FromRequest for Allowed<P> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let caller = Authenticated::from_request(request, payload).into_inner();
        ready(caller.and_then(|Authenticated(caller)| {
            caller.check(P::PERMISSION)?;
            Ok(Self(caller, PhantomData))
        }))
    }
}

const UNAUTHENTICATED: ApiError = ApiError::new(
    ErrorCode::Unauthorized,
    "credentials are missing or not valid; send Authorization: Bearer <API key>",
);

/// The bearer token of a request, if it has one.
pub fn bearer(request: &HttpRequest) -> Option<String> {
    let value = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| token.trim().to_owned())
}

/// Who holds this token.
///
/// # Errors
/// Nobody, or storage could not tell.
pub async fn authenticate(storage: &Storage, token: &str) -> Result<Caller, ApiError> {
    if let Some(key) = ApiKey::parse(token) {
        return by_key(storage, &key).await;
    }
    let token = VisitorToken::parse(token).ok_or(UNAUTHENTICATED)?;
    let scope = storage.scope(token.tenant).await?;
    let visitor = visitors::find_by_token(&scope, &token.digest()).await?;
    let visitor = visitor.ok_or(UNAUTHENTICATED)?;
    // Without a bot it is older than tokens are bound to one, and never opened a session: a new ticket
    // binds it.
    let bot = visitor.bot.ok_or(UNAUTHENTICATED)?;
    Ok(Caller {
        tenant: token.tenant,
        who: Who::Visitor {
            id: visitor.id,
            bot,
        },
        name: visitor.name,
    })
}

async fn by_key(storage: &Storage, key: &ApiKey) -> Result<Caller, ApiError> {
    let stored = storage
        .find_api_key(&key.id)
        .await?
        .ok_or(UNAUTHENTICATED)?;
    if stored.revoked_at.is_some() || !digests_match(&stored.secret_sha256, &key.digest()) {
        return Err(UNAUTHENTICATED);
    }
    Ok(Caller {
        tenant: stored.tenant,
        who: Who::Key { id: key.id.clone() },
        name: stored.name,
    })
}
