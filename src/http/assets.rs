//! The widget and the demo page, embedded in the binary.

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use hubbub_protocol::{BotId, ErrorCode};
use rust_embed::RustEmbed;

use super::AppState;
use super::problem::ApiError;

/// `npm run build` in `widget/` makes these; without it the server runs, and says so when asked.
#[derive(RustEmbed)]
#[folder = "widget/dist"]
#[allow_missing = true]
struct Dist;

const NOT_BUILT: ApiError = ApiError::new(
    ErrorCode::NotFound,
    "the widget is not part of this build (make widget)",
);

/// Nothing but what the frame needs, and no scripts from text.
const FRAME_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'; frame-ancestors ";

const DEMO_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    frame-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The demo page.
///
/// # Errors
/// `not_found` when the server does not run the demo.
pub async fn demo(state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let bot = state.demo_bot.ok_or(ApiError::not_found())?;
    let page = text("demo/index.html")?.replace("__BOT__", &bot.to_string());
    Ok(HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, DEMO_POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(page))
}

/// The frame that the loader opens. Only the bot's own origins may embed it.
///
/// # Errors
/// `not_found`.
pub async fn frame(
    path: web::Path<BotId>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let widget = state.storage.find_widget_bot(path.into_inner()).await?;
    let widget = widget.ok_or(ApiError::not_found())?;
    let mut ancestors = vec!["'self'"];
    ancestors.extend(widget.allowed_origins.iter().map(String::as_str));
    let policy = format!("{FRAME_POLICY}{}", ancestors.join(" "));
    Ok(HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(text("frame.html")?))
}

/// The script that pages include.
///
/// # Errors
/// `not_found` when the widget was not built.
pub async fn loader(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    file(&request, "widget.js", "text/javascript; charset=utf-8")
}

/// The frame's script.
///
/// # Errors
/// `not_found` when the widget was not built.
pub async fn frame_js(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    file(&request, "frame.js", "text/javascript; charset=utf-8")
}

/// The frame's style.
///
/// # Errors
/// `not_found` when the widget was not built.
pub async fn frame_css(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    file(&request, "frame.css", "text/css; charset=utf-8")
}

/// The demo page's style.
///
/// # Errors
/// `not_found` when the widget was not built.
pub async fn demo_css(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    file(&request, "demo/demo.css", "text/css; charset=utf-8")
}

fn text(name: &str) -> Result<String, ApiError> {
    let file = Dist::get(name).ok_or(NOT_BUILT)?;
    String::from_utf8(file.data.into_owned()).map_err(|_| NOT_BUILT)
}

/// A file that may be kept as long as it is asked after again: 304 while it is the same.
fn file(request: &HttpRequest, name: &str, kind: &'static str) -> Result<HttpResponse, ApiError> {
    let file = Dist::get(name).ok_or(NOT_BUILT)?;
    let hash = file.metadata.sha256_hash();
    let tag = format!(
        "\"{:x}\"",
        u64::from_be_bytes(hash.first_chunk().copied().unwrap_or_default())
    );
    let known = request
        .headers()
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok());
    let mut response = if known == Some(tag.as_str()) {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    };
    response
        .insert_header((header::ETAG, tag.clone()))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header(("cross-origin-resource-policy", "cross-origin"));
    if known == Some(tag.as_str()) {
        return Ok(response.finish());
    }
    Ok(response.content_type(kind).body(file.data.into_owned()))
}
