//! Operators: their tickets, what their role lets them do, and whose a session is.

use std::time::{Duration, Instant};

use hubbub_loadtest::simllm::Behaviour;
use hubbub_protocol::client::{Escalate, Release, Takeover};
use hubbub_protocol::http::{Page, Session};
use hubbub_protocol::{
    ClientFrame, ErrorCode, HandlerFrame, PrincipalKind, ReplyState, Role, ServerFrame,
    SessionHandler, SessionId,
};
use serde_json::{Value, json};

use crate::client::{Caller, Credentials, Device};
use crate::scripted::{Scripted, events, finish, text};
use crate::server::{Setup, TestServer, quick, shared};

pub async fn operator(server: &TestServer, id: &str, role: &str) -> Device {
    let body = json!({"operator": {"id": id, "name": "Olga", "role": role}});
    let minted = Caller::new(server).post("/v1/tickets", &body).await;
    assert_eq!(minted.status, 201, "{minted:?}");
    let minted: Value = minted.json();
    let ticket = Credentials::Ticket(minted["ticket"].as_str().unwrap().to_owned());
    Device::connect_as(server.address, &ticket).await.unwrap()
}

pub fn takeover(session: SessionId) -> ClientFrame {
    ClientFrame::Takeover(Takeover {
        reference: Some("take".into()),
        session,
        from: None,
    })
}

pub fn release(session: SessionId) -> ClientFrame {
    ClientFrame::Release(Release {
        reference: None,
        session,
        summary: None,
    })
}

async fn handled(device: &mut Device) -> HandlerFrame {
    let pick = |frame| match frame {
        ServerFrame::Handler(frame) => Some(frame),
        ServerFrame::Error(error) => panic!("{error:?}"),
        _ => None,
    };
    device.until(pick).await
}

async fn refused(device: &mut Device) -> ErrorCode {
    let pick = |frame| match frame {
        ServerFrame::Error(error) => Some(error.error.code),
        _ => None,
    };
    device.until(pick).await
}

// R031
#[tokio::test]
async fn after_a_takeover_no_device_is_shown_a_word_of_the_bots() {
    let server = shared().await;
    let bot = Caller::new(server).bot(&["steady"]).await;
    let mut devices = Vec::new();
    let mut first = Device::connect(server).await;
    let session = first.open(bot).await.session;
    devices.push(first);
    for _ in 0..2 {
        let mut device = Device::connect(server).await;
        device.join(session).await;
        devices.push(device);
    }
    let mut olga = operator(server, "olga", "agent").await;
    assert_eq!(olga.join(session).await.handler, SessionHandler::Bot);
    devices[0].say(session, "long").await.unwrap();
    let text = |frame| matches!(frame, ServerFrame::Delta(_)).then_some(());
    devices[0].until(text).await;

    let began = Instant::now();
    olga.send(&takeover(session)).await.unwrap();
    let told = handled(&mut olga).await;
    println!("taken over within {:?}", began.elapsed());
    let by_olga = SessionHandler::Operator {
        id: "olga".into(),
        name: "Olga".into(),
    };
    assert_eq!((told.handler, told.fence), (by_olga.clone(), 1));
    for device in &mut devices {
        assert_eq!(handled(device).await.handler, by_olga);
    }
    // The operator writes in its own role, and the bot is not asked.
    olga.say(session, "I am here.").await.unwrap();
    devices[0].say(session, "at last").await.unwrap();
    for device in &mut devices[1..] {
        let mut ends = 0;
        let mut written = Vec::new();
        device
            .until(|frame| match frame {
                ServerFrame::Delta(_) => panic!("the bot talks over a person"),
                ServerFrame::Reply(frame) => {
                    assert_eq!(frame.state, ReplyState::Cancelled);
                    ends += 1;
                    None
                }
                ServerFrame::Message(message) if message.text != "long" => {
                    written.push(message.role);
                    (message.text == "at last").then_some(())
                }
                _ => None,
            })
            .await;
        assert_eq!(ends, 1);
        assert_eq!(written, [Role::Operator, Role::Visitor]);
    }
    let page = Caller::new(server).transcript(session).await;
    assert!(!page.ended[0].text.is_empty(), "what was shown is kept");
    let shown = Caller::new(server)
        .get(&format!("/v1/sessions/{session}"))
        .await;
    assert_eq!(shown.json::<Session>().handler, by_olga);

    olga.send(&release(session)).await.unwrap();
    assert_eq!(handled(&mut devices[0]).await.handler, SessionHandler::Bot);
    devices[0].ask(session, "and now?").await.unwrap();
}

#[tokio::test]
async fn a_visitor_who_asks_for_a_person_waits_in_line_where_staff_sees_it() {
    let server = shared().await;
    let bot = server.demo.bot;
    let mut sessions = Vec::new();
    let mut devices = Vec::new();
    for n in 0..2 {
        let (ticket, _) = Caller::with(server, None).visitor(bot).await;
        let ticket = Credentials::Ticket(ticket);
        let mut visitor = Device::connect_as(server.address, &ticket).await.unwrap();
        let session = visitor.open(bot).await.session;
        let escalate = ClientFrame::Escalate(Escalate {
            reference: None,
            session,
            reason: Some(format!("reason {n}")),
        });
        visitor.send(&escalate).await.unwrap();
        let told = handled(&mut visitor).await;
        assert!(
            matches!(told.handler, SessionHandler::Waiting { .. }),
            "{told:?}"
        );
        visitor.say(session, "hello?").await.unwrap();
        sessions.push(session);
        devices.push(visitor);
    }
    let keyed = Caller::new(server);
    let waiting = async |query: &str| -> Page<Session> {
        let path = format!("/v1/sessions?handler=waiting{query}");
        keyed.get(&path).await.json()
    };
    let ours = |page: &Page<Session>| -> Vec<SessionId> {
        let ids = page.items.iter().map(|session| session.id);
        ids.filter(|id| sessions.contains(id)).collect()
    };
    assert_eq!(ours(&waiting("&limit=200").await), sessions, "oldest first");
    // Page by page they are the same.
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = waiting(&format!("&limit=1{cursor}")).await;
        paged.extend(ours(&page));
        let Some(next) = page.next else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(paged, sessions);

    let mut olga = operator(server, "olga", "agent").await;
    olga.join(sessions[0]).await;
    olga.send(&takeover(sessions[0])).await.unwrap();
    assert_eq!(handled(&mut devices[0]).await.fence, 2);
    assert_eq!(ours(&waiting("&limit=200").await), sessions[1..]);
    // The bot was asked nothing meanwhile.
    let page = keyed.transcript(sessions[0]).await;
    assert_eq!((page.messages.len(), page.ended.len()), (1, 0));
    // What cannot be stored is told as such.
    let unstorable = ClientFrame::Escalate(Escalate {
        reference: None,
        session: sessions[1],
        reason: Some("a\0b".into()),
    });
    devices[1].send(&unstorable).await.unwrap();
    assert_eq!(self::refused(&mut devices[1]).await, ErrorCode::Invalid);
    // Whoever is a visitor sees no line.
    let (_, token) = Caller::with(server, None).visitor(bot).await;
    let visitor = Caller::with(server, Some(&token));
    let refused = visitor.get("/v1/sessions?handler=waiting").await;
    assert_eq!(refused.status, 403);
    assert_eq!(keyed.get("/v1/sessions?handler=nobody").await.status, 400);
}

#[tokio::test]
async fn a_role_gives_what_it_says_and_no_more() {
    let server = shared().await;
    let bot = server.demo.bot;
    let mut device = Device::connect(server).await;
    let session = device.open(bot).await.session;
    let mut viewer = operator(server, "vera", "viewer").await;
    viewer.join(session).await;
    viewer.send(&takeover(session)).await.unwrap();
    assert_eq!(refused(&mut viewer).await, ErrorCode::Forbidden);
    let said = viewer.say(session, "let me").await.unwrap_err();
    assert_eq!(said.error.code, ErrorCode::Forbidden);
    // Neither do programs and visitors take over, whoever vouches for them.
    device.send(&takeover(session)).await.unwrap();
    assert_eq!(refused(&mut device).await, ErrorCode::Forbidden);

    let mut olga = operator(server, "olga", "agent").await;
    let mut ivan = operator(server, "ivan", "agent").await;
    let mut ada = operator(server, "ada", "admin").await;
    for one in [&mut olga, &mut ivan, &mut ada] {
        one.join(session).await;
    }
    olga.send(&takeover(session)).await.unwrap();
    handled(&mut olga).await;
    ivan.send(&takeover(session)).await.unwrap();
    assert_eq!(refused(&mut ivan).await, ErrorCode::Conflict);
    ivan.send(&release(session)).await.unwrap();
    assert_eq!(refused(&mut ivan).await, ErrorCode::Conflict);
    ada.send(&release(session)).await.unwrap();
    assert_eq!(handled(&mut device).await.fence, 1);
    assert_eq!(handled(&mut device).await.handler, SessionHandler::Bot);
}

#[tokio::test]
async fn a_ticket_for_an_operator_says_who_and_in_which_role() {
    let server = shared().await;
    let caller = Caller::new(server);
    for (wrong, pointer) in [
        (json!({"id": "o", "role": "boss"}), "/operator/role"),
        (json!({"id": "", "role": "agent"}), "/operator/id"),
        (
            json!({"id": "o", "name": "x".repeat(201), "role": "agent"}),
            "/operator/name",
        ),
    ] {
        let body = json!({"operator": wrong});
        let answer = caller.post("/v1/tickets", &body).await;
        assert_eq!(answer.status, 400);
        let problem = answer.problem();
        assert_eq!(problem.errors[0].pointer.as_deref(), Some(pointer));
    }
    let both = json!({"operator": {"id": "o", "role": "agent"}, "user": {"id": "u"}});
    assert_eq!(caller.post("/v1/tickets", &both).await.status, 400);
    let (_, token) = Caller::with(server, None).visitor(server.demo.bot).await;
    let visitor = Caller::with(server, Some(&token));
    let body = json!({"operator": {"id": "o", "role": "owner"}});
    assert_eq!(visitor.post("/v1/tickets", &body).await.status, 403);

    // As everybody sees them.
    let mut device = Device::connect(server).await;
    let session = device.open(server.demo.bot).await.session;
    let mut olga = operator(server, "olga", "agent").await;
    olga.join(session).await;
    let who = device
        .until(|frame| match frame {
            ServerFrame::Presence(presence) => {
                (presence.who.kind == PrincipalKind::Operator).then_some(presence.who)
            }
            _ => None,
        })
        .await;
    assert_eq!((who.id.as_str(), who.name.as_str()), ("olga", "Olga"));
}

#[tokio::test]
async fn the_upstreams_request_is_closed_when_a_person_takes_over() {
    let slow = Behaviour {
        token_interval_ms: 20,
        tokens: 2_000,
        ..quick()
    };
    let setup = Setup::new().upstream("slow", slow);
    let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let bot = Caller::new(&server).bot(&["slow"]).await;
    let mut device = Device::connect(&server).await;
    let session = device.open(bot).await.session;
    let mut olga = operator(&server, "olga", "agent").await;
    olga.join(session).await;
    device.say(session, "long").await.unwrap();
    let text = |frame| matches!(frame, ServerFrame::Delta(_)).then_some(());
    device.until(text).await;
    olga.send(&takeover(session)).await.unwrap();
    handled(&mut olga).await;
    let told = Instant::now();
    while server.upstream("slow").counters().running > 0 {
        assert!(
            told.elapsed() < Duration::from_secs(2),
            "its request goes on"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("its request was closed {:?} after", told.elapsed());
    assert_eq!(server.upstream("slow").counters().cancelled, 1);
}

// R031
#[tokio::test]
async fn what_an_operator_leaves_the_bot_is_told_to_it_alone_also_after_a_restart() {
    let scripted = Scripted::start(|_, _| {
        let pieces = [text("So."), finish("stop")];
        events(&pieces.each_ref().map(String::as_str))
    })
    .await;
    let setup = Setup::default().set("upstreams", format!("[{}]", scripted.config("one")));
    let mut server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let bot = Caller::new(&server).bot(&["one"]).await;
    let mut device = Device::connect(&server).await;
    let session = device.open(bot).await.session;
    device.ask(session, "Is it repaired?").await.unwrap();
    let mut olga = operator(&server, "olga", "agent").await;
    olga.join(session).await;
    olga.send(&takeover(session)).await.unwrap();
    handled(&mut olga).await;
    let summed_up = |summary: String| {
        ClientFrame::Release(Release {
            reference: None,
            session,
            summary: Some(summary),
        })
    };
    olga.send(&summed_up("é".repeat(2_001))).await.unwrap();
    assert_eq!(refused(&mut olga).await, ErrorCode::TooLarge);
    olga.send(&summed_up("a\0b".to_owned())).await.unwrap();
    assert_eq!(refused(&mut olga).await, ErrorCode::Invalid);
    let summary = format!("It is free.{}", "é".repeat(1_900));
    olga.send(&summed_up(summary.clone())).await.unwrap();
    handled(&mut olga).await;
    device.ask(session, "What does it cost?").await.unwrap();

    let server = tokio::task::spawn_blocking(move || {
        server.kill();
        server.restart();
        server
    });
    let server = server.await.unwrap();
    let mut device = Device::connect(&server).await;
    let joined = device.join(session).await;
    assert!(!format!("{joined:?}").contains(&summary));
    device.ask(session, "Really?").await.unwrap();
    let prompts = scripted.requests();
    let prompts: Vec<_> = prompts
        .iter()
        .map(|asked| asked["messages"][0].to_string().contains(&summary))
        .collect();
    assert_eq!(prompts, [false, true, true]);
}

// R030
#[tokio::test]
async fn an_answer_scored_below_the_threshold_creates_one_handoff_in_the_queue() {
    let scored = Scripted::start(|_, asked| {
        let unsure = asked["messages"].to_string().contains("Hard?");
        let score = if unsure { "e: 39]]" } else { "e: 40]]" };
        let pieces = [text("So."), text("\n[[scor"), text(score), finish("stop")];
        events(&pieces.each_ref().map(String::as_str))
    })
    .await;
    let setup = Setup::default().set("upstreams", format!("[{}]", scored.config("scored")));
    let server = tokio::task::spawn_blocking(|| setup.start()).await.unwrap();
    let caller = Caller::new(&server);
    let body = json!({"name": "Fern", "prompt": "Be brief.", "escalation": {"below_score": 40}});
    let bot: Value = caller.post("/v1/bots", &body).await.json();
    let bot = serde_json::from_value(bot["id"].clone()).unwrap();
    let mut device = Device::connect(&server).await;
    let mut sessions = Vec::new();
    for question in ["Easy?", "Hard?"] {
        let session = device.open(bot).await.session;
        let answer = device.ask(session, question).await.unwrap();
        assert_eq!(answer.text, "So.", "nobody sees the score");
        sessions.push(session);
    }
    handled(&mut device).await;
    let waiting: Page<Session> = caller.get("/v1/sessions?handler=waiting").await.json();
    let waiting: Vec<_> = waiting.items.iter().map(|session| session.id).collect();
    assert_eq!(waiting, [sessions[1]]);
    let prompt = &scored.requests()[0]["messages"][0]["content"];
    assert!(
        prompt.as_str().unwrap().starts_with("Be brief."),
        "{prompt}"
    );
}

// R030
#[tokio::test]
async fn whoever_wants_a_human_is_in_the_queue_once_and_so_is_whom_the_bot_failed() {
    let server = shared().await;
    let caller = Caller::new(server);
    let bot = json!({"name": "Fern", "route": ["error"],
        "escalation": {"keywords": ["a human", "real person"], "after_failures": 1, "below_score": 40, "button": true}});
    let made = caller.post("/v1/bots", &bot).await;
    assert_eq!(made.status, 201, "{made:?}");
    let made: Value = made.json();
    assert_eq!(made["escalation"], bot["escalation"]);
    let bot: hubbub_protocol::BotId = serde_json::from_value(made["id"].clone()).unwrap();
    let path = format!("/v1/widget/{bot}/tickets");
    let minted: Value = caller.post(&path, &json!({})).await.json();
    let offered = json!({"name": "Fern", "escalation": {"button": true}});
    assert_eq!(minted["bot"], offered);
    let ticket = minted["ticket"].as_str().unwrap().to_owned();
    let mut visitor = Device::connect_as(server.address, &Credentials::Ticket(ticket))
        .await
        .unwrap();
    let asks = visitor.open(bot).await.session;
    visitor.say(asks, "I want a human").await.unwrap();
    assert!(matches!(
        handled(&mut visitor).await.handler,
        SessionHandler::Waiting { .. }
    ));
    visitor.say(asks, "I want a human, I said").await.unwrap();
    let failed = visitor.open(bot).await.session;
    visitor.ask(failed, "hello").await.unwrap_err();
    assert!(matches!(
        handled(&mut visitor).await.handler,
        SessionHandler::Waiting { .. }
    ));

    let waiting = caller.get("/v1/sessions?handler=waiting&limit=200").await;
    let waiting: Page<Session> = waiting.json();
    for session in [asks, failed] {
        let entries = waiting.items.iter().filter(|item| item.id == session);
        assert_eq!(entries.count(), 1, "{session}");
    }
    for (query, count) in [
        (format!("bot={bot}"), 2),
        (format!("bot={}", server.demo.bot), 0),
    ] {
        let path = format!("/v1/sessions?handler=waiting&limit=200&{query}");
        let page: Page<Session> = caller.get(&path).await.json();
        let ours = page
            .items
            .iter()
            .filter(|item| [asks, failed].contains(&item.id));
        assert_eq!(ours.count(), count, "{query}");
    }
    let bad =
        json!({"escalation": {"keywords": ["", "ok"], "after_failures": 0, "below_score": 101}});
    let problem = caller
        .send("PATCH", &format!("/v1/bots/{bot}"), &bad)
        .await
        .problem();
    let wrong: Vec<_> = problem
        .errors
        .iter()
        .filter_map(|e| e.pointer.as_deref())
        .collect();
    assert_eq!(
        wrong,
        [
            "/escalation/keywords/0",
            "/escalation/after_failures",
            "/escalation/below_score"
        ]
    );
}
