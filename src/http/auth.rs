//! Who is asking: `Authorization: Bearer` with an API key (`hbk_…`) or a visitor's token (`hbv_…`).

use std::ops::Deref;

use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, dev, web};
use futures_util::future::LocalBoxFuture;
use hubbub_actors::Caller;
use hubbub_protocol::{ErrorCode, Principal, PrincipalKind};

use super::AppState;
use super::problem::ApiError;
use crate::identity::{ApiKey, VisitorToken, digests_match};
use crate::storage::{Storage, visitors};

/// A caller with an API key or a visitor's token.
pub struct Authenticated(pub Caller);

/// A caller with an API key.
pub struct Keyed(pub Caller);

impl Deref for Authenticated {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl Deref for Keyed {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.0
    }
}

impl FromRequest for Authenticated {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut dev::Payload) -> Self::Future {
        let (token, state) = (bearer(request), state(request));
        Box::pin(async move {
            let token = token.ok_or(UNAUTHENTICATED)?;
            authenticate(&state?.storage, &token).await.map(Self)
        })
    }
}

impl FromRequest for Keyed {
    type Error = ApiError;
    type Future = LocalBoxFuture<'static, Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let caller = Authenticated::from_request(request, payload);
        Box::pin(async move {
            let Authenticated(caller) = caller.await?;
            match caller.principal.kind {
                PrincipalKind::ApiKey => Ok(Self(caller)),
                _ => Err(ApiError::new(ErrorCode::Forbidden, "this needs an API key")),
            }
        })
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
    Ok(Caller {
        tenant: token.tenant,
        visitor: Some(visitor.id),
        principal: Principal {
            kind: PrincipalKind::Visitor,
            id: visitor.id.to_string(),
            name: visitor.name,
        },
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
        visitor: None,
        principal: Principal {
            kind: PrincipalKind::ApiKey,
            id: key.id.clone(),
            name: stored.name,
        },
    })
}

fn state(request: &HttpRequest) -> Result<web::Data<AppState>, ApiError> {
    request
        .app_data::<web::Data<AppState>>()
        .cloned()
        .ok_or(ApiError::from(hubbub_actors::Rejection::internal()))
}
