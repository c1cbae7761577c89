//! What the widget is made of, as browsers ask for it: its files, the word about its set-up, and the
//! visitor's token in a cookie.

use std::fmt::Write;

use hubbub::identity::digest;
use hubbub_protocol::BotId;
use serde_json::{Value, json};

use crate::caller::{Caller, Response};
use crate::server::{TestServer, shared};

async fn get(server: &TestServer, path: &str, headers: &[(&str, &str)]) -> Response {
    let mut request = Caller::with(server, None).request("GET", path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Caller::try_send(request).await.unwrap()
}

/// The names that the frame's page gives its script and its style.
fn named(page: &str) -> Vec<String> {
    page.split('"')
        .filter(|part| part.starts_with("/widget/frame-"))
        .map(str::to_owned)
        .collect()
}

// W8
#[tokio::test]
async fn files_are_sent_packed_to_who_unpacks_and_plain_to_who_does_not() {
    let server = shared().await;
    let page = get(server, &format!("/widget/{}", server.demo.bot), &[]).await;
    let mut paths = named(&page.text);
    assert_eq!(paths.len(), 2, "{}", page.text);
    paths.extend(["/widget.js".to_owned(), "/demo/demo.css".to_owned()]);
    for path in &paths {
        let plain = get(server, path, &[]).await;
        assert!(!plain.headers.contains_key("content-encoding"), "{path}");
        for (accepted, packing) in [
            ("gzip, deflate, br, zstd", Some("br")),
            ("gzip", Some("gzip")),
            ("br;q=0, gzip;q=0.5", Some("gzip")),
            ("gzip;q=0", None),
            ("identity", None),
            ("zstd", None),
        ] {
            let url = server.url(path);
            let request = reqwest::Client::new()
                .get(url)
                .header("accept-encoding", accepted);
            let answer = request.send().await.unwrap();
            let headers = answer.headers().clone();
            let body = answer.bytes().await.unwrap();
            let told = headers
                .get("content-encoding")
                .map(|value| value.to_str().unwrap());
            assert_eq!(told, packing, "{path} for {accepted}");
            assert_eq!(headers["vary"], "accept-encoding");
            assert_eq!(headers["content-type"], plain.headers["content-type"]);
            if packing.is_some() {
                assert!(body.len() * 2 < plain.text.len(), "{path}: {}", body.len());
                assert_ne!(headers["etag"], plain.headers["etag"]);
            } else {
                assert_eq!(body.len(), plain.text.len());
            }
        }
    }
}

// W8
#[tokio::test]
async fn what_is_named_by_its_content_is_kept_for_ever_the_loader_for_minutes() {
    let server = shared().await;
    let page = get(server, &format!("/widget/{}", server.demo.bot), &[]).await;
    assert_eq!(page.headers["cache-control"], "no-cache");
    for path in named(&page.text) {
        let file = get(server, &path, &[]).await;
        let cache = file.headers["cache-control"].to_str().unwrap();
        assert_eq!(cache, "public, max-age=31536000, immutable", "{path}");
        let mut hash = String::new();
        for byte in &digest(&file.text)[..4] {
            write!(hash, "{byte:02x}").unwrap();
        }
        assert!(path.contains(&hash), "{path} is not named {hash}");
        // A page of another version, from another node: the file there is, but not to be kept.
        let other = get(server, &path.replace(&hash, "00000000"), &[]).await;
        assert_eq!((other.status, &other.text), (200, &file.text));
        assert_eq!(other.headers["cache-control"], "no-cache");
    }
    let loader = get(server, "/widget.js", &[]).await;
    assert_eq!(loader.headers["cache-control"], "public, max-age=300");
    let tag = loader.headers["etag"].to_str().unwrap();
    for known in [tag, &format!("W/{tag}"), &format!("\"x\", {tag}"), "*"] {
        let again = get(server, "/widget.js", &[("if-none-match", known)]).await;
        assert_eq!((again.status, again.text.len()), (304, 0), "{known}");
        assert_eq!(again.headers["etag"], tag);
    }
    let changed = get(server, "/widget.js", &[("if-none-match", "\"x\"")]).await;
    assert_eq!(changed.status, 200);
}

/// What the page of a wrong set-up says, and its status.
fn said(page: &Response) -> (u16, bool, String) {
    let sentence = page.text.split("<p>").nth(1).unwrap_or_default();
    let sentence = sentence.split("</p>").next().unwrap_or_default();
    let refused = page.text.contains("data-refused=\"yes\"");
    (page.status, refused, sentence.to_owned())
}

// W3
#[tokio::test]
async fn a_wrong_set_up_is_told_in_a_sentence_to_whoever_made_it() {
    let server = shared().await;
    let caller = Caller::new(server);
    let allowed = json!({"name": "Shop", "allowed_origins": ["https://shop.example"]});
    let bot: Value = caller.post("/v1/bots", &allowed).await.json();
    let bot = bot["id"].as_str().unwrap();
    let none = BotId::generate();
    let framed = ("sec-fetch-dest", "iframe");
    let shop = ("referer", "https://shop.example/");
    let evil = ("referer", "https://evil.example/");
    for path in [format!("/widget/{bot}"), format!("/widget/{bot}/setup")] {
        let refused = get(server, &path, &[framed, evil]).await;
        let (status, is_refused, sentence) = said(&refused);
        assert_eq!((status, is_refused), (403, true), "{path}");
        assert_eq!(
            sentence,
            "https://evil.example is not among the allowed_origins of this bot."
        );
        let policy = refused.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.ends_with("frame-ancestors *"), "{policy}");
        for other in [
            "https://shop.example.evil/",
            "http://shop.example/",
            "https://shop.example:8443/",
        ] {
            let refused = get(server, &path, &[framed, ("referer", other)]).await;
            assert_eq!(refused.status, 403, "{path} in {other}");
        }
        // What could not be an origin is not repeated; the policy of the frame keeps it out.
        let odd = get(server, &path, &[framed, ("referer", "https://<script>/")]).await;
        assert_eq!(odd.status, 200);
        assert!(!odd.text.contains("<script>/"), "{}", odd.text);
        assert_eq!(get(server, &path, &[framed, shop]).await.status, 200);
        assert_eq!(get(server, &path, &[framed]).await.status, 200);
    }
    for path in [
        format!("/widget/{none}"),
        format!("/widget/{none}/setup"),
        "/widget/x".to_owned(),
    ] {
        let (status, is_refused, sentence) = said(&get(server, &path, &[shop]).await);
        assert_eq!((status, is_refused), (404, true), "{path}");
        assert!(sentence.contains("data-bot"), "{sentence}");
    }
    let fine = get(server, &format!("/widget/{bot}/setup"), &[framed, shop]).await;
    assert_eq!(said(&fine), (200, false, String::new()));
    // As a page of its own it may be linked from anywhere.
    let linked = get(
        server,
        &format!("/widget/{bot}"),
        &[("sec-fetch-dest", "document"), evil],
    )
    .await;
    assert!(linked.text.contains("/widget/frame-"), "{}", linked.text);
}

/// A ticket as a browser asks for it.
async fn ticket(
    server: &TestServer,
    bot: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Response {
    let path = format!("/v1/widget/{bot}/tickets");
    let mut request = Caller::with(server, None).request("POST", &path).json(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = Caller::try_send(request).await.unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    answer
}

/// The cookie of an answer: name and token, and the rest.
fn cookie(answer: &Response) -> (String, String) {
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    let (pair, rest) = cookie.split_once("; ").unwrap();
    (pair.to_owned(), rest.to_owned())
}

fn visitor(answer: &Response) -> Value {
    answer.json::<Value>()["visitor"].clone()
}

// X4
#[tokio::test]
async fn a_browser_keeps_the_visitors_token_where_no_script_can_read_it() {
    let server = shared().await;
    let bot = server.demo.bot.to_string();
    let own = server.url("");
    let origin = [("origin", own.as_str())];
    let first = ticket(server, &bot, &origin, &json!({})).await;
    assert_eq!(first.headers["cache-control"], "no-store");
    assert!(!first.text.contains("hbv_"), "{}", first.text);
    let (kept, attributes) = cookie(&first);
    assert!(kept.starts_with("hubbub_visitor=hbv_"), "{kept}");
    assert_eq!(
        attributes,
        format!(
            "Path=/v1/widget/{bot}/tickets; Max-Age=34560000; HttpOnly; Secure; SameSite=None; Partitioned"
        )
    );
    // It is enough to be the same visitor again, and is kept on.
    let with = [("origin", own.as_str()), ("cookie", kept.as_str())];
    let again = ticket(server, &bot, &with, &json!({})).await;
    assert_eq!(visitor(&again), visitor(&first));
    assert_eq!(cookie(&again).0, kept);
    let (others, damaged) = (format!("a=b; {kept}; c=d"), "hubbub_visitor=hbv_x_y");
    let among = [("origin", own.as_str()), ("cookie", others.as_str())];
    assert_eq!(
        visitor(&ticket(server, &bot, &among, &json!({})).await),
        visitor(&first)
    );
    let wrong = [("origin", own.as_str()), ("cookie", damaged)];
    assert_ne!(
        visitor(&ticket(server, &bot, &wrong, &json!({})).await),
        visitor(&first)
    );
    // One kept by an older widget moves.
    let token = kept.split_once('=').unwrap().1;
    let old = json!({"visitor_token": token});
    let moved = ticket(server, &bot, &origin, &old).await;
    assert_eq!(
        (visitor(&moved), cookie(&moved).0),
        (visitor(&first), kept.clone())
    );
}

// X4
#[tokio::test]
async fn a_program_keeps_its_token_itself_and_is_no_ones_cookie() {
    let server = shared().await;
    let bot = server.demo.bot.to_string();
    let program = ticket(server, &bot, &[], &json!({})).await;
    assert!(!program.headers.contains_key("set-cookie"), "{program:?}");
    let known = visitor(&program);
    let token = known["token"].as_str().unwrap();
    // Without an origin nobody knows whose page made the browser send its cookie along.
    let kept = format!("hubbub_visitor={token}");
    let forged = ticket(server, &bot, &[("cookie", &kept)], &json!({})).await;
    assert_ne!(visitor(&forged)["id"], known["id"]);
}

// X4
#[tokio::test]
async fn a_page_that_may_fetch_tickets_is_not_the_visitor_of_the_widgets_frame() {
    let server = shared().await;
    let caller = Caller::new(server);
    let allowed = json!({"name": "Shop", "allowed_origins": ["https://shop.example"]});
    let bot: Value = caller.post("/v1/bots", &allowed).await.json();
    let bot = bot["id"].as_str().unwrap();
    let own = server.url("");
    let framed = ticket(server, bot, &[("origin", &own)], &json!({})).await;
    let (kept, _) = cookie(&framed);
    let shop = ("origin", "https://shop.example");
    let site = ("sec-fetch-site", "cross-site");
    let page = ticket(server, bot, &[shop, site, ("cookie", &kept)], &json!({})).await;
    assert_ne!(visitor(&page)["id"], visitor(&framed)["id"]);
    assert!(!page.text.contains("hbv_"), "{}", page.text);
    let (its, _) = cookie(&page);
    assert_ne!(its.split('=').next(), kept.split('=').next());
    let again = ticket(server, bot, &[shop, site, ("cookie", &its)], &json!({})).await;
    assert_eq!(visitor(&again), visitor(&page));
    // Whose origin is not allowed gets neither.
    let path = format!("/v1/widget/{bot}/tickets");
    let request = Caller::with(server, None)
        .request("POST", &path)
        .json(&json!({}));
    let request = request
        .header("origin", "https://evil.example")
        .header("cookie", &kept);
    let evil = Caller::try_send(request).await.unwrap();
    assert_eq!(evil.status, 403);
    assert!(!evil.headers.contains_key("set-cookie"));
}
