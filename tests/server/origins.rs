//! Which pages may come in: as the bot's list says, when the ticket is issued and again when it is used.

use hubbub_protocol::http::Bot;
use hubbub_protocol::{BotId, ErrorCode};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::client::{Caller, Credentials, Response, in_time};
use crate::plain::exchange;
use crate::server::{TestServer, shared};

const SHOP: &str = "https://shop.example";

/// Origins that are not [`SHOP`], however much they look like it.
const LOOKALIKES: [&str; 14] = [
    "null",
    "",
    "https://evil.example",
    "https://evil-shop.example",
    "https://shop.example.evil.example",
    "https://sub.shop.example",
    "https://shop.example.",
    "https://shop.example:443",
    "https://shop.example:8443",
    "https://shop.example/",
    "http://shop.example",
    "HTTPS://SHOP.EXAMPLE",
    "https://Shop.example",
    "https://shop.example https://evil.example",
];

/// A bot that pages of the shop may talk to.
async fn shop_bot(server: &TestServer) -> BotId {
    let body = json!({"name": "Shop", "route": ["sim"], "allowed_origins": [SHOP]});
    let created = Caller::new(server).post("/v1/bots", &body).await;
    assert_eq!(created.status, 201, "{created:?}");
    created.json::<Bot>().id
}

/// Asks for a ticket of a bot's widget, as a page of an origin, or as a program.
async fn mint(server: &TestServer, bot: BotId, origin: Option<&str>) -> Response {
    let path = format!("/v1/widget/{bot}/tickets");
    let mut request = Caller::with(server, None).request("POST", &path);
    if let Some(origin) = origin {
        request = request.header("origin", origin);
    }
    Caller::try_send(request.json(&json!({}))).await.unwrap()
}

async fn ticket(server: &TestServer, bot: BotId, origin: Option<&str>) -> Credentials {
    let minted = mint(server, bot, origin).await;
    assert_eq!(minted.status, 201, "{origin:?}: {minted:?}");
    let minted: Value = minted.json();
    Credentials::Ticket(minted["ticket"].as_str().unwrap().to_owned())
}

/// The status that a handshake with these is answered with.
async fn connect(server: &TestServer, credentials: &Credentials, origin: Option<&str>) -> u16 {
    let address = server.address;
    let mut request = format!("ws://{address}/v1/connect")
        .into_client_request()
        .unwrap();
    let headers = request.headers_mut();
    let protocols = match credentials {
        Credentials::Bearer(token) => {
            headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
            "hubbub.v1".to_owned()
        }
        Credentials::Ticket(ticket) => format!("hubbub.v1, ticket.{ticket}"),
    };
    headers.insert("sec-websocket-protocol", protocols.parse().unwrap());
    if let Some(origin) = origin {
        headers.insert("origin", origin.parse().unwrap());
    }
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    match in_time(tokio_tungstenite::client_async(request, stream)).await {
        Ok((_, response)) => response.status().as_u16(),
        Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other}"),
    }
}

// X1
#[tokio::test]
async fn a_ticket_issued_to_no_page_opens_no_connection_of_one() {
    let server = shared().await;
    let bot = shop_bot(server).await;
    let own = server.url("");
    let pages = [SHOP, &own, "https://trusted.example"];
    for page in pages.into_iter().chain(LOOKALIKES) {
        let credentials = ticket(server, bot, None).await;
        assert_eq!(
            connect(server, &credentials, Some(page)).await,
            403,
            "{page}"
        );
    }
    // A program's ticket is good for the program.
    let credentials = ticket(server, bot, None).await;
    assert_eq!(connect(server, &credentials, None).await, 101);
}

// X1
#[tokio::test]
async fn a_ticket_issued_to_a_page_is_good_for_that_page_and_no_other() {
    let server = shared().await;
    let bot = shop_bot(server).await;
    let own = server.url("");
    for page in LOOKALIKES {
        assert_eq!(mint(server, bot, Some(page)).await.status, 403, "{page}");
        let credentials = ticket(server, bot, Some(SHOP)).await;
        assert_eq!(
            connect(server, &credentials, Some(page)).await,
            403,
            "{page}"
        );
    }
    let other_pages = [None, Some(own.as_str()), Some("https://trusted.example")];
    for page in other_pages {
        let credentials = ticket(server, bot, Some(SHOP)).await;
        assert_eq!(connect(server, &credentials, page).await, 403, "{page:?}");
    }
    for page in [SHOP, &own, "https://trusted.example"] {
        let credentials = ticket(server, bot, Some(page)).await;
        assert_eq!(
            connect(server, &credentials, Some(page)).await,
            101,
            "{page}"
        );
    }
}

// X1
#[tokio::test]
async fn the_bots_list_counts_as_it_is_when_the_ticket_is_used() {
    let server = shared().await;
    let bot = shop_bot(server).await;
    let credentials = ticket(server, bot, Some(SHOP)).await;
    let path = format!("/v1/bots/{bot}");
    let none = json!({"allowed_origins": ["https://other.example"]});
    assert_eq!(
        Caller::new(server).send("PATCH", &path, &none).await.status,
        200
    );
    assert_eq!(connect(server, &credentials, Some(SHOP)).await, 403);
}

// X1
#[tokio::test]
async fn whoever_comes_from_a_page_with_other_credentials_is_asked_the_same() {
    let server = shared().await;
    let caller = Caller::new(server);
    let (bot, other) = (shop_bot(server).await, caller.bot(&["sim"]).await);
    let token = |bot: BotId| async move {
        let (_, token) = Caller::with(server, None).visitor(bot).await;
        Credentials::Bearer(token)
    };
    // A visitor's token: the list of its bot.
    assert_eq!(connect(server, &token(bot).await, Some(SHOP)).await, 101);
    assert_eq!(connect(server, &token(other).await, Some(SHOP)).await, 403);
    assert_eq!(connect(server, &token(bot).await, None).await, 101);
    let key = Credentials::Bearer(server.demo.api_key.clone());
    for page in LOOKALIKES {
        assert_eq!(
            connect(server, &token(bot).await, Some(page)).await,
            403,
            "{page}"
        );
        assert_eq!(connect(server, &key, Some(page)).await, 403, "{page}");
    }
    // A ticket that the site's own program asked for: for a person, on pages that the site's bots name.
    let user = json!({"user": {"id": "u-origins"}});
    for (body, page, expected) in [
        (&user, Some(SHOP), 101),
        (&user, None, 101),
        (&user, Some("https://evil.example"), 403),
        (&user, Some("null"), 403),
        // The key's own powers are for no page at all.
        (&json!({}), Some(SHOP), 403),
        (&json!({}), None, 101),
    ] {
        let minted: Value = caller.post("/v1/tickets", body).await.json();
        let credentials = Credentials::Ticket(minted["ticket"].as_str().unwrap().to_owned());
        let status = connect(server, &credentials, page).await;
        assert_eq!(status, expected, "{body} {page:?}");
    }
}

// X1
#[tokio::test]
async fn an_origin_that_cannot_be_read_is_not_taken_for_none() {
    let server = shared().await;
    let bot = shop_bot(server).await;
    let head =
        format!("POST /v1/widget/{bot}/tickets HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n");
    for origin in [
        format!("Origin: {SHOP}\r\nOrigin: {SHOP}\r\n"),
        format!("Origin: {SHOP}\r\norigin: https://evil.example\r\n"),
        "Origin: https://sh\u{f6}p.example\r\n".to_owned(),
    ] {
        let answer = exchange(server.address, format!("{head}{origin}\r\n")).await;
        assert_eq!(answer.status, 403, "{origin}: {answer:?}");
    }
    let one = format!("{head}Origin: {SHOP}\r\n\r\n");
    assert_eq!(exchange(server.address, one).await.status, 201);
}

// X7
#[tokio::test]
async fn a_page_does_not_vouch_for_itself_by_the_name_it_came_under() {
    let server = shared().await;
    let (bot, port) = (server.demo.bot, server.address.port());
    let ask = |host: String, origin: String| async move {
        let request = format!(
            "POST /v1/widget/{bot}/tickets HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        exchange(server.address, request).await.status
    };
    for host in ["evil.example", "evil.example:80", "localhost.evil.example"] {
        let host = format!("{host}:{port}");
        assert_eq!(
            ask(host.clone(), format!("http://{host}")).await,
            403,
            "{host}"
        );
        assert_eq!(
            ask(host.clone(), format!("https://{host}")).await,
            403,
            "{host}"
        );
    }
    for name in ["localhost", "127.0.0.1", "[::1]"] {
        let origin = format!("http://{name}:{port}");
        // The server's own, whatever it is asked under.
        assert_eq!(
            ask("evil.example".to_owned(), origin.clone()).await,
            201,
            "{origin}"
        );
        let other = format!("http://{name}:{}", port.wrapping_add(1));
        assert_eq!(
            ask(format!("{name}:{port}"), other.clone()).await,
            403,
            "{other}"
        );
        let tls = format!("https://{name}:{port}");
        assert_eq!(
            ask(format!("{name}:{port}"), tls.clone()).await,
            403,
            "{tls}"
        );
    }
}

// H9
#[tokio::test]
async fn a_page_that_the_bot_names_may_ask_for_a_ticket_with_fetch() {
    let server = shared().await;
    let bot = shop_bot(server).await;
    let path = format!("/v1/widget/{bot}/tickets");
    let preflight = |path: String, origin: &'static str| {
        Caller::with(server, None)
            .request("OPTIONS", &path)
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "content-type")
    };
    let allowed = Caller::try_send(preflight(path.clone(), SHOP))
        .await
        .unwrap();
    assert_eq!((allowed.status, allowed.text.as_str()), (204, ""));
    for (name, value) in [
        ("access-control-allow-origin", SHOP),
        ("access-control-allow-methods", "POST"),
        ("access-control-allow-headers", "content-type"),
        ("access-control-max-age", "600"),
        ("vary", "origin"),
    ] {
        assert_eq!(allowed.headers[name], value, "{name}");
    }
    assert!(
        !allowed
            .headers
            .contains_key("access-control-allow-credentials")
    );

    let minted = mint(server, bot, Some(SHOP)).await;
    assert_eq!(minted.status, 201);
    assert_eq!(minted.headers["access-control-allow-origin"], SHOP);
    assert_eq!(minted.headers["vary"], "origin");
    // The page can read what is wrong with its request.
    let wrong = Caller::with(server, None).request("POST", &path);
    let wrong = wrong.header("origin", SHOP).json(&json!({"x": 1}));
    let wrong = Caller::try_send(wrong).await.unwrap();
    assert_eq!(wrong.problem().code, ErrorCode::Invalid);
    assert_eq!(wrong.headers["access-control-allow-origin"], SHOP);
    assert_eq!(wrong.headers["vary"], "origin");
    // A program is told nothing of pages.
    let program = mint(server, bot, None).await;
    assert!(!program.headers.contains_key("access-control-allow-origin"));
}

// H9
#[tokio::test]
async fn no_other_page_and_no_other_route_is_open_to_fetch() {
    let server = shared().await;
    let (bot, silent) = (
        shop_bot(server).await,
        Caller::new(server).bot(&["sim"]).await,
    );
    let of = |bot: BotId| format!("/v1/widget/{bot}/tickets");
    let unknown = of(BotId::generate());
    let listed = Some(SHOP);
    let mut rows: Vec<(String, Option<&str>)> = vec![
        (of(silent), listed),
        (unknown, listed),
        ("/v1/tickets".to_owned(), listed),
        ("/v1/sessions".to_owned(), listed),
        ("/v1/bots".to_owned(), listed),
        ("/v1/connect".to_owned(), listed),
        ("/livez".to_owned(), listed),
        (format!("/widget/{bot}"), listed),
    ];
    rows.extend(LOOKALIKES.map(|page| (of(bot), Some(page))));
    for (path, page) in rows {
        for method in ["OPTIONS", "POST"] {
            let request = Caller::new(server).request(method, &path);
            let request = request
                .header("origin", page.unwrap())
                .header("access-control-request-method", "POST");
            let answer = Caller::try_send(request).await.unwrap();
            // A key is served whatever page it comes from, but no page is told.
            // OPTIONS tells the methods; without CORS headers a browser goes no further.
            let is_refused = answer.status >= 400 || path == "/v1/tickets" || method == "OPTIONS";
            assert!(is_refused, "{method} {path} {page:?}: {answer:?}");
            let allows = |(name, _): (&reqwest::header::HeaderName, _)| {
                name.as_str().starts_with("access-control-allow")
            };
            assert!(
                !answer.headers.iter().any(allows),
                "{method} {path} {page:?}: {answer:?}"
            );
        }
    }
}
