//! What a request says, read into types: bodies, queries and ids in paths. What cannot be read is refused
//! with the part that is wrong and what would be right.

mod wording;

use std::future::{Ready, ready};
use std::pin::Pin;

use actix_web::dev::Payload;
use actix_web::error::PathError;
use actix_web::http::header;
use actix_web::{FromRequest, HttpRequest, web};
use hubbub_protocol::ErrorCode;
use hubbub_protocol::http::FieldProblem;
use serde::de::DeserializeOwned;

use super::problem::ApiError;

/// A JSON body.
pub struct Body<T>(pub T);

/// The parameters behind the `?`.
pub struct Query<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = ApiError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, ApiError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        if !is_json(request) {
            return Box::pin(ready(Err(not_json())));
        }
        let bytes = web::Bytes::from_request(request, payload);
        Box::pin(async move {
            let bytes = bytes.await.map_err(|error| unreadable(&error))?;
            parse(&bytes).map(Self)
        })
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Query<T> {
    type Error = ApiError;
    type Future = Ready<Result<Self, ApiError>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(parse_query(request.query_string()).map(Self))
    }
}

/// Reads a JSON body.
///
/// # Errors
/// `invalid`, with the field that is wrong.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return Err(ApiError::field("", "is empty; it must be a JSON object")),
        // A struct may be written as an array, as far as serde is concerned.
        Some(b'[') => return Err(ApiError::field("", "must be a JSON object")),
        Some(_) => {}
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let parsed = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let syntax = error.inner();
        if !syntax.is_data() {
            return syntax_error(syntax);
        }
        let (pointer, detail) = wording::explain(error.path(), &error.inner().to_string());
        ApiError::field(pointer, detail)
    })?;
    json.end().map_err(|error| syntax_error(&error))?;
    Ok(parsed)
}

/// Where the text stops being JSON, and nothing of the text itself.
fn syntax_error(error: &serde_json::Error) -> ApiError {
    let what = if error.is_eof() {
        "ends too soon"
    } else {
        "is not valid JSON"
    };
    ApiError::field(
        "",
        format!("{what} (line {}, column {})", error.line(), error.column()),
    )
}

fn parse_query<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let pairs = form_urlencoded::parse(query.as_bytes());
    let pairs = serde_urlencoded::Deserializer::new(pairs);
    serde_path_to_error::deserialize(pairs).map_err(|error| {
        let (pointer, detail) = wording::explain(error.path(), &error.inner().to_string());
        let name = pointer.strip_prefix('/').unwrap_or("the query").to_owned();
        ApiError::parameter(name, detail)
    })
}

fn is_json(request: &HttpRequest) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    let kind = kind.to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

fn not_json() -> ApiError {
    let wrong = FieldProblem::header("Content-Type", "must be application/json");
    ApiError::with_parts(ErrorCode::UnsupportedMedia, vec![wrong])
}

/// A body that did not arrive whole, or is too large.
fn unreadable(error: &actix_web::Error) -> ApiError {
    let status = error.as_response_error().status_code();
    ApiError::from(super::problem::foreign(status))
}

/// A path that names something by what is no id: there is no such thing, and the parameter is named.
pub(super) fn unreadable_path(_: PathError, request: &HttpRequest) -> actix_web::Error {
    let is_id = |value: &str| value.parse::<hubbub_protocol::SessionId>().is_ok();
    let wrong = request
        .match_info()
        .iter()
        .filter(|(_, value)| !is_id(value))
        .map(|(name, _)| FieldProblem::parameter(name, "must be a UUID"));
    ApiError::with_parts(ErrorCode::NotFound, wrong.collect()).into()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "what is read does not matter here")]
    struct Form {
        name: String,
        #[serde(default)]
        count: Option<u32>,
        #[serde(default)]
        bot: Option<hubbub_protocol::BotId>,
        #[serde(default)]
        on: bool,
        #[serde(default)]
        inner: Option<Inner>,
        #[serde(default)]
        list: Vec<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "what is read does not matter here")]
    struct Inner {
        id: String,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "what is read does not matter here")]
    struct Parameters {
        limit: Option<u32>,
        bot: Option<hubbub_protocol::BotId>,
    }

    fn told(body: &str) -> String {
        parse::<Form>(body.as_bytes()).unwrap_err().to_string()
    }

    fn told_of_query(query: &str) -> String {
        parse_query::<Parameters>(query).unwrap_err().to_string()
    }

    // H17
    #[test]
    fn what_is_wrong_in_a_body_is_named_and_what_would_be_right() {
        for (body, expected) in [
            ("", "the body is empty; it must be a JSON object"),
            (" \n", "the body is empty; it must be a JSON object"),
            ("[]", "the body must be a JSON object"),
            ("[\"a\"]", "the body must be a JSON object"),
            ("7", "the body must be an object"),
            ("{", "the body ends too soon (line 1, column 1)"),
            (
                "{\"name\": hush}",
                "the body is not valid JSON (line 1, column 10)",
            ),
            (
                "{\"name\": \"a\"} x",
                "the body is not valid JSON (line 1, column 15)",
            ),
            ("{}", "name is missing"),
            (r#"{"name": null}"#, "name must be a string"),
            (r#"{"name": {"hush": 1}}"#, "name must be a string"),
            (
                r#"{"name": "a", "nmae": "hush"}"#,
                "nmae is unknown; allowed are name, count, bot, on, inner, list",
            ),
            (r#"{"name": "a", "name": "b"}"#, "name is given twice"),
            (
                r#"{"name": "a", "count": "hush"}"#,
                "count must be a whole number from 0 to 4294967295",
            ),
            (
                r#"{"name": "a", "count": -1}"#,
                "count must be a whole number from 0 to 4294967295",
            ),
            (
                r#"{"name": "a", "count": 1.5}"#,
                "count must be a whole number from 0 to 4294967295",
            ),
            (r#"{"name": "a", "bot": "hush"}"#, "bot must be a UUID"),
            (r#"{"name": "a", "bot": 7}"#, "bot must be a UUID"),
            (r#"{"name": "a", "on": "hush"}"#, "on must be true or false"),
            (r#"{"name": "a", "inner": {}}"#, "inner/id is missing"),
            (
                r#"{"name": "a", "inner": "hush"}"#,
                "inner must be an object",
            ),
            (
                r#"{"name": "a", "inner": {"id": "a", "hush": 1}}"#,
                "inner/hush is unknown; allowed are id",
            ),
            (
                r#"{"name": "a", "list": ["a", 1]}"#,
                "list/1 must be a string",
            ),
            (r#"{"name": "a", "list": {}}"#, "list must be an array"),
            (
                r#"{"name": "a", "a/b~`, expected `x": 1}"#,
                "a~1b~0`, expected `x is unknown; allowed are name, count, bot, on, inner, list",
            ),
        ] {
            assert_eq!(told(body), format!("invalid: {expected}"), "{body}");
        }
    }

    // H17
    #[test]
    fn a_long_name_is_not_repeated_whole() {
        let body = format!(r#"{{"name": "a", "{}": 1}}"#, "x".repeat(5_000));
        assert!(told(&body).len() < 250, "{}", told(&body).len());
    }

    // H17
    #[test]
    fn what_is_wrong_in_a_query_is_named_and_what_would_be_right() {
        for (query, expected) in [
            ("limit=hush", "limit must be a whole number"),
            ("limit=", "limit must be a whole number"),
            ("limit=-1", "limit must be a whole number"),
            ("limit=99999999999", "limit must be a smaller number"),
            ("limit=1&limit=2", "limit is given twice"),
            ("bot=hush", "bot must be a UUID"),
            ("limt=3", "limt is unknown; allowed are limit, bot"),
        ] {
            assert_eq!(
                told_of_query(query),
                format!("invalid: {expected}"),
                "{query}"
            );
        }
    }
}
