//! What a client is told when a request is refused, in `OpenAI`'s shape.

use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{HttpResponse, ResponseError};
use serde_json::json;

/// Seconds after which a client that met a full queue may try again: about one short answer.
const RETRY_AFTER_SECS: u64 = 2;

/// A refused or failed request. Its text is for the client and never carries an inner error's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiError {
    /// The body is not the JSON of a request.
    #[error("The body is not a valid chat completion request, near line {line} column {column}.")]
    Malformed {
        /// Line of the first offence, from 1.
        line: usize,
        /// Its column, from 1; 0 when the body is empty.
        column: usize,
    },
    /// A field's value cannot be used.
    #[error("{message}")]
    Invalid {
        /// The field.
        param: &'static str,
        /// What is wrong with it.
        message: &'static str,
    },
    /// The prompt leaves no room for an answer.
    #[error("The conversation has {tokens} tokens; this model reads fewer than {limit}.")]
    ContextLength {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens of prompt and answer together.
        limit: usize,
    },
    /// The body is longer than any conversation this model can read.
    #[error("The body is larger than {limit} bytes.")]
    TooLarge {
        /// Most bytes of a body.
        limit: usize,
    },
    /// Nothing lives at this address.
    #[error("There is nothing at this address.")]
    NotFound,
    /// The address is right and the method is not.
    #[error("This address does not take this method.")]
    MethodNotAllowed,
    /// The queue is full, or the wait in it was too long.
    #[error("The model is busy; try again shortly.")]
    Busy,
    /// Ours, and in the log.
    #[error("The model failed to answer.")]
    Failed,
}

impl ApiError {
    /// `OpenAI`'s error object.
    pub fn body(&self) -> serde_json::Value {
        let (kind, param, code) = match self {
            Self::Malformed { .. } | Self::TooLarge { .. } => ("invalid_request_error", None, None),
            Self::Invalid { param, .. } => ("invalid_request_error", Some(*param), None),
            Self::ContextLength { .. } => (
                "invalid_request_error",
                Some("messages"),
                Some("context_length_exceeded"),
            ),
            Self::NotFound => ("invalid_request_error", None, Some("not_found")),
            Self::MethodNotAllowed => ("invalid_request_error", None, Some("method_not_allowed")),
            Self::Busy => ("server_error", None, Some("overloaded")),
            Self::Failed => ("server_error", None, None),
        };
        let message = self.to_string();
        json!({"error": {"message": message, "type": kind, "param": param, "code": code}})
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Malformed { .. } | Self::Invalid { .. } | Self::ContextLength { .. } => {
                StatusCode::BAD_REQUEST
            }
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if *self == Self::Busy {
            response.insert_header((RETRY_AFTER, RETRY_AFTER_SECS));
        }
        response.json(self.body())
    }
}
