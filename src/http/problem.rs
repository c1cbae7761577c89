//! Refused requests: RFC 9457 problems. What is told is a code and a fixed sentence; causes are logged
//! where they are noticed, under the same request id.

use std::fmt;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{HttpResponse, ResponseError};
use hubbub_actors::Rejection;
use hubbub_protocol::ErrorCode;
use hubbub_protocol::http::{FieldProblem, Problem};
use tracing::Instrument;
use uuid::Uuid;

use super::head::without_body;
use hubbub_storage::StorageError;

/// The header that carries the id of a request.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The only version of WebSockets there is: RFC 6455 itself. Others were drafts.
pub(super) const WEBSOCKET_VERSION: &str = "13";

/// A refused request.
#[derive(Clone, Debug)]
pub struct ApiError {
    rejection: Rejection,
    /// What is wrong with the request, part by part; then this is told instead of the fixed sentence.
    parts: Vec<FieldProblem>,
    /// The methods of the path, where it has not the one asked for.
    allow: Option<String>,
}

impl ApiError {
    /// A refusal with a fixed sentence.
    pub const fn new(code: ErrorCode, message: &'static str) -> Self {
        Self::of(Rejection::new(code, message))
    }

    const fn of(rejection: Rejection) -> Self {
        Self {
            rejection,
            parts: Vec::new(),
            allow: None,
        }
    }

    /// A refusal that says of each part what is wrong with it.
    pub fn with_parts(code: ErrorCode, parts: Vec<FieldProblem>) -> Self {
        let rejection = Rejection::new(code, "the request cannot be understood");
        Self {
            parts,
            ..Self::of(rejection)
        }
    }

    /// A field of the body is wrong; by its JSON pointer.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let wrong = FieldProblem::field(pointer, detail);
        Self::with_parts(ErrorCode::Invalid, vec![wrong])
    }

    /// A parameter of the query is wrong.
    pub fn parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        let wrong = FieldProblem::parameter(name, detail);
        Self::with_parts(ErrorCode::Invalid, vec![wrong])
    }

    /// The path has no such method, but those of `allow`.
    pub fn method_not_allowed(allow: &str) -> Self {
        Self {
            allow: Some(allow.to_owned()),
            ..Self::new(
                ErrorCode::MethodNotAllowed,
                "this path has no such method; the header Allow lists those it has",
            )
        }
    }

    /// No such thing, or none the caller may know of.
    pub const fn not_found() -> Self {
        Self::new(ErrorCode::NotFound, "no such thing")
    }

    /// A field is missing or out of range.
    pub const fn invalid(message: &'static str) -> Self {
        Self::new(ErrorCode::Invalid, message)
    }

    fn detail(&self) -> String {
        if self.parts.is_empty() {
            return self.rejection.message.to_owned();
        }
        let sentences = self.parts.iter().map(FieldProblem::sentence);
        sentences.collect::<Vec<_>>().join("; ")
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rejection.code, self.detail())
    }
}

impl From<Rejection> for ApiError {
    fn from(rejection: Rejection) -> Self {
        Self::of(rejection)
    }
}

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        Self::of(error.into_store_error("http").into())
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        status(self.rejection.code)
    }

    /// Only a status: the body is written by [`problems`], which knows the request's id.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}

/// The answer where no route is.
pub async fn no_such_route() -> Result<HttpResponse, ApiError> {
    Err(ApiError::new(ErrorCode::NotFound, "no such route"))
}

/// The answer to everything while the database has no schema to work with.
pub async fn no_schema() -> Result<HttpResponse, ApiError> {
    let refusal = Rejection::new(ErrorCode::Unavailable, "the database is not set up yet");
    Err(refusal.into())
}

/// Middleware: gives every request an id and a span, and every refusal a problem body.
///
/// # Errors
/// None of its own: handlers' errors have become responses by now.
pub async fn problems(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let id = Uuid::now_v7().to_string();
    let started = tokio::time::Instant::now();
    let is_head = request.method() == Method::HEAD;
    let span = tracing::info_span!(
        "http.request", request_id = %id, method = %request.method(), path = request.path()
    );
    let response = next
        .call(request)
        .instrument(span.clone())
        .await?
        .map_into_boxed_body();
    let mut response = with_problem_body(response, &id);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status();
    let class = class(status);
    metrics::counter!("hubbub_http_requests_total", "status" => class).increment(1);
    // By the pattern, never by the path, which is the client's to choose.
    let route = response.request().match_pattern();
    let route = route.unwrap_or_else(|| super::NO_ROUTE.to_owned());
    metrics::histogram!("hubbub_http_request_seconds", "route" => route, "status" => class)
        .record(started.elapsed());
    // That something is away is told where it is noticed, once: here it would be told for each request.
    if status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE {
        span.in_scope(|| {
            tracing::warn!(status = status.as_u16(), took = ?started.elapsed(), "failed");
        });
    } else {
        span.in_scope(|| {
            tracing::debug!(status = status.as_u16(), took = ?started.elapsed(), "served");
        });
    }
    Ok(if is_head {
        without_body(response)
    } else {
        response
    })
}

fn with_problem_body(response: ServiceResponse, id: &str) -> ServiceResponse {
    let Some(error) = response.response().error() else {
        return response;
    };
    let refused = error.as_error::<ApiError>().cloned().unwrap_or_else(|| {
        let status = error.as_response_error().status_code();
        ApiError::of(foreign(status))
    });
    let detail = refused.detail();
    let ApiError {
        rejection,
        parts,
        allow,
    } = refused;
    let status = status(rejection.code);
    let body = Problem {
        kind: format!("urn:hubbub:problem:{}", rejection.code),
        title: rejection.code.as_str().replace('_', " "),
        status: status.as_u16(),
        detail,
        code: rejection.code,
        request_id: id.to_owned(),
        retry_after_ms: rejection.retry_after_ms,
        errors: parts,
    };
    let mut answer = HttpResponse::build(status);
    // What was said beside the refusal stays, such as which page may read it; its body is another.
    for (name, value) in response.headers() {
        if ![header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name) {
            answer.append_header((name, value));
        }
    }
    if response.response().head().connection_type() == ConnectionType::Close {
        answer.force_close();
    }
    if let Some(wait_ms) = rejection.retry_after_ms {
        answer.insert_header((
            header::RETRY_AFTER,
            wait_ms.div_ceil(1_000).max(1).to_string(),
        ));
    }
    if let Some(allow) = allow {
        answer.insert_header((header::ALLOW, allow));
    }
    match rejection.code {
        ErrorCode::Unauthorized => {
            answer.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        ErrorCode::UpgradeRequired => {
            answer.insert_header((header::UPGRADE, "websocket"));
            answer.insert_header((header::SEC_WEBSOCKET_VERSION, WEBSOCKET_VERSION));
        }
        _ => {}
    }
    let answer = answer.content_type("application/problem+json").json(body);
    response.into_response(answer)
}

/// What the framework refused: its own words stay inside.
pub(super) fn foreign(status: StatusCode) -> Rejection {
    match status {
        StatusCode::METHOD_NOT_ALLOWED => {
            Rejection::new(ErrorCode::MethodNotAllowed, "this path has no such method")
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Rejection::new(
            ErrorCode::UnsupportedMedia,
            "a body of this kind is not understood",
        ),
        StatusCode::PAYLOAD_TOO_LARGE => {
            Rejection::new(ErrorCode::TooLarge, "the body is too large")
        }
        StatusCode::NOT_FOUND => Rejection::new(ErrorCode::NotFound, "no such thing"),
        status if status.is_client_error() => {
            Rejection::new(ErrorCode::Invalid, "the request cannot be understood")
        }
        _ => Rejection::internal(),
    }
}

fn status(code: ErrorCode) -> StatusCode {
    StatusCode::from_u16(code.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() {
        100..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    }
}
