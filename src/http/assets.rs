//! The widget and the demo page. What is wrong with how a page embeds the widget is told to whoever set
//! it up, in a page that [`setup`] makes; visitors see nothing of it.

mod files;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use hubbub_protocol::BotId;

use super::problem::ApiError;
use super::{AppState, origin};
use files::{Keeping, file, text};
use hubbub_storage::bots::WidgetBot;

const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

/// Nothing but what the frame needs, and no scripts from text.
const FRAME_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    require-trusted-types-for 'script'; trusted-types 'none'; frame-ancestors ";

/// Any page may hear what is wrong with its own set-up.
const SETUP_POLICY: &str = "default-src 'none'; script-src 'self'; base-uri 'none'; \
    form-action 'none'; frame-ancestors *";

const DEMO_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    frame-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// The demo page.
///
/// # Errors
/// `not_found` when the server does not run the demo.
pub async fn demo(state: web::Data<AppState>) -> Result<HttpResponse, ApiError> {
    let bot = state.demo_bot.ok_or(ApiError::not_found())?;
    let html = text("demo/index.html")?.replace("__BOT__", &bot.to_string());
    Ok(page(&state, StatusCode::OK, DEMO_POLICY, &html))
}

/// The frame that the loader opens. Only the bot's own origins may embed it.
///
/// # Errors
/// The database could not; a wrong set-up is no error but a page that says so.
pub async fn frame(
    request: HttpRequest,
    path: Option<web::Path<BotId>>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let widget = find(&state, path).await?;
    // As a page of its own it may be linked from anywhere.
    let is_framed = header_of(&request, "sec-fetch-dest") == Some("iframe");
    let embedder = is_framed.then(|| embedder(&request)).flatten();
    let widget = match judge(&state, widget, embedder) {
        Ok(widget) => widget,
        Err(fault) => return Ok(fault.page(&state)),
    };
    let mut ancestors = vec!["'self'"];
    ancestors.extend(widget.allowed_origins.iter().map(String::as_str));
    let policy = format!("{FRAME_POLICY}{}", ancestors.join(" "));
    Ok(page(&state, StatusCode::OK, &policy, &text("frame.html")?))
}

/// Tells the page that asks whether it may embed the bot. The launcher shows only then.
///
/// # Errors
/// The database could not.
pub async fn setup(
    request: HttpRequest,
    path: Option<web::Path<BotId>>,
    state: web::Data<AppState>,
) -> Result<HttpResponse, ApiError> {
    let widget = find(&state, path).await?;
    Ok(match judge(&state, widget, embedder(&request)) {
        Ok(_) => setup_page(&state, StatusCode::OK, ""),
        Err(fault) => fault.page(&state),
    })
}

/// The script that pages include.
///
/// # Errors
/// `not_found` when the widget was not built.
pub async fn loader(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    file(&request, "widget.js", JS, Keeping::Shortly)
}

/// The script of the page that [`setup`] sends.
///
/// # Errors
/// `not_found` when the widget was not built.
pub async fn setup_js(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    file(&request, "setup.js", JS, Keeping::Shortly)
}

/// The frame's script, by the name that has its hash.
///
/// # Errors
/// `not_found` when the widget was not built.
pub async fn frame_js(
    request: HttpRequest,
    hash: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    file(&request, "frame.js", JS, Keeping::Hashed(&hash))
}

/// The frame's style, by the name that has its hash.
///
/// # Errors
/// `not_found` when the widget was not built.
pub async fn frame_css(
    request: HttpRequest,
    hash: web::Path<String>,
) -> Result<HttpResponse, ApiError> {
    file(&request, "frame.css", CSS, Keeping::Hashed(&hash))
}

/// The demo page's style.
///
/// # Errors
/// `not_found` when the widget was not built.
pub async fn demo_css(request: HttpRequest) -> Result<HttpResponse, ApiError> {
    file(&request, "demo/demo.css", CSS, Keeping::Asking)
}

/// What is wrong with how a page embeds the widget.
enum Fault<'a> {
    /// The page is none of the bot's.
    Origin(&'a str),
    /// There is no such bot.
    Bot,
}

impl Fault<'_> {
    fn page(&self, state: &AppState) -> HttpResponse {
        match self {
            Self::Origin(origin) => setup_page(
                state,
                StatusCode::FORBIDDEN,
                &format!("{origin} is not among the allowed_origins of this bot."),
            ),
            Self::Bot => setup_page(
                state,
                StatusCode::NOT_FOUND,
                "This server has no such bot: check the data-bot of the page's script tag.",
            ),
        }
    }
}

async fn find(
    state: &AppState,
    bot: Option<web::Path<BotId>>,
) -> Result<Option<WidgetBot>, ApiError> {
    match bot {
        Some(bot) => Ok(state.storage.find_widget_bot(bot.into_inner()).await?),
        None => Ok(None),
    }
}

fn judge<'a>(
    state: &AppState,
    widget: Option<WidgetBot>,
    embedder: Option<&'a str>,
) -> Result<WidgetBot, Fault<'a>> {
    let widget = widget.ok_or(Fault::Bot)?;
    match embedder {
        Some(page) if !origin::allows(page, state, &widget.allowed_origins) => {
            Err(Fault::Origin(page))
        }
        _ => Ok(widget),
    }
}

/// The origin of the page around the frame, if the browser tells it and it is nothing but one: it is
/// shown in a page.
fn embedder(request: &HttpRequest) -> Option<&str> {
    let referrer = header_of(request, "referer")?;
    let host = referrer.find("://")? + 3;
    let end = referrer
        .get(host..)?
        .find('/')
        .map_or(referrer.len(), |at| host + at);
    let page = referrer.get(..end)?;
    page.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b":/.-_[]".contains(&byte))
        .then_some(page)
}

fn header_of<'a>(request: &'a HttpRequest, name: &str) -> Option<&'a str> {
    request.headers().get(name)?.to_str().ok()
}

/// A page that tells the page around it what is wrong; nothing, if nothing is said.
fn setup_page(state: &AppState, status: StatusCode, sentence: &str) -> HttpResponse {
    let refused = if sentence.is_empty() { "" } else { "yes" };
    let html = format!(
        "<!doctype html>\n<html lang=\"en\" data-refused=\"{refused}\">\n\
         <meta charset=\"utf-8\">\n<meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>Set-up of the chat</title>\n<body><p>{sentence}</p>\
         <script src=\"/widget/setup.js\"></script></body></html>\n"
    );
    page(state, status, SETUP_POLICY, &html)
}

/// A page whose own files are named as the browser reaches them, below the path that a proxy puts in front.
fn page(state: &AppState, status: StatusCode, policy: &str, html: &str) -> HttpResponse {
    let base = &state.base_path;
    let html = html
        .replace("\"/widget", &format!("\"{base}/widget"))
        .replace("\"/demo/", &format!("\"{base}/demo/"));
    HttpResponse::build(status)
        .content_type(HTML)
        .insert_header((header::CONTENT_SECURITY_POLICY, policy))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(("x-robots-tag", "noindex"))
        .body(html)
}
