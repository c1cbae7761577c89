//! How long an upstream is waited for, and what counts as a sign of life. The times here are short for
//! the one that must pass, and long for all others.

use super::*;

const LONG: Duration = Duration::from_mins(1);
const SHORT: Duration = Duration::from_millis(150);
const TOKEN: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";

fn long() -> UpstreamTimeouts {
    UpstreamTimeouts {
        connect: LONG,
        first_token: LONG,
        token: LONG,
        answer: LONG,
    }
}

/// What becomes of an upstream that says `first`, and then `ping` until the client hangs up.
async fn said(first: &str, ping: Option<&'static str>, timeouts: UpstreamTimeouts) -> Answered {
    let (listener, mut config) = listen().await;
    config.timeouts = timeouts;
    let first = first.to_owned();
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_request(&mut socket).await;
        socket.write_all(first.as_bytes()).await.unwrap();
        let mut pings = tokio::time::interval(Duration::from_millis(20));
        while let Some(ping) = ping
            && socket.write_all(ping.as_bytes()).await.is_ok()
        {
            pings.tick().await;
        }
        drop(socket.read_u8().await);
    });
    let upstream = RemoteUpstream::new(config).unwrap();
    let answer = upstream.stream(request()).collect();
    let answer = tokio::time::timeout(Duration::from_secs(20), answer)
        .await
        .unwrap();
    tokio::time::timeout(Duration::from_secs(20), server)
        .await
        .unwrap()
        .unwrap();
    answer
}

fn without_alive(answer: Answered) -> Answered {
    answer
        .into_iter()
        .filter(|event| *event != Ok(UpstreamEvent::Alive))
        .collect()
}

// M10
#[tokio::test]
async fn silence_is_timed_out_and_the_connection_closed() {
    let timed_out = || Err(UpstreamError::TimedOut);
    let first_token = UpstreamTimeouts {
        first_token: SHORT,
        ..long()
    };
    assert_eq!(said("", None, first_token).await, [timed_out()], "no head");
    assert_eq!(
        said(HEAD, None, first_token).await,
        [timed_out()],
        "no body"
    );
    let comment = format!("{HEAD}: hello\n\n");
    assert_eq!(
        said(&comment, None, first_token).await,
        [Ok(UpstreamEvent::Alive), timed_out()],
        "nothing after the first sign of life"
    );
    let token = UpstreamTimeouts {
        token: SHORT,
        ..long()
    };
    assert_eq!(
        said(&format!("{HEAD}{TOKEN}"), None, token).await,
        [Ok(UpstreamEvent::Text("a".into())), timed_out()],
        "no second token"
    );
}

// M10
#[tokio::test]
async fn signs_of_life_keep_an_answer_alive_up_to_the_bound_of_the_whole() {
    let timeouts = UpstreamTimeouts {
        first_token: Duration::from_millis(400),
        token: Duration::from_millis(400),
        answer: Duration::from_millis(1_500),
        ..long()
    };
    let reasoning =
        "data: {\"choices\":[{\"delta\":{\"content\":null,\"reasoning_content\":\"hm\"}}]}\n\n";
    let role = "data: {\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
    for ping in [
        ": OPENROUTER PROCESSING\n\n",
        "\n",
        "data:\n\n",
        reasoning,
        role,
        "event: ping\ndata: {}\n\n",
    ] {
        let started = tokio::time::Instant::now();
        let answer = said(HEAD, Some(ping), timeouts).await;
        assert!(
            started.elapsed() >= timeouts.answer,
            "{ping:?}: given up too early"
        );
        let alive = answer
            .iter()
            .filter(|event| **event == Ok(UpstreamEvent::Alive))
            .count();
        assert!((1..=3).contains(&alive), "{ping:?}: told {alive} times");
        assert_eq!(
            without_alive(answer),
            [Err(UpstreamError::TimedOut)],
            "{ping:?}"
        );
    }
    let answer = said(&format!("{HEAD}{TOKEN}"), Some(": ping\n\n"), timeouts).await;
    assert_eq!(
        answer,
        [
            Ok(UpstreamEvent::Text("a".into())),
            Err(UpstreamError::TimedOut)
        ]
    );
}

// M10
#[tokio::test]
async fn after_thinking_aloud_the_answer_comes() {
    let thinking = "data: {\"choices\":[{\"delta\":{\"reasoning\":\"hm\"}}]}\n\n";
    let answer = said(&format!("{HEAD}{thinking}{ANSWER}"), None, long()).await;
    assert_eq!(text(&answer), "Dobrý \"den\" 🐎\n");
    assert_eq!(answer.last(), Some(&finished()));
}

// M5
#[tokio::test]
async fn a_good_end_is_enough_whatever_the_connection_does() {
    let whole = ANSWER.split("data: {\"choices\":[],").next().unwrap();
    for ping in [
        None,
        Some(": ping\n\n"),
        Some("data: {\"error\":\"late\"}\n\n"),
    ] {
        let answer = said(&format!("{HEAD}{whole}"), ping, long()).await;
        assert_eq!(text(&answer), "Dobrý \"den\" 🐎\n");
        let end = UpstreamEvent::Finished {
            finish: Finish::Complete,
            model: Some("m-1".into()),
            usage: None,
        };
        assert_eq!(answer.last(), Some(&Ok(end)), "{ping:?}");
    }
}

// M1
#[tokio::test]
async fn a_good_end_without_a_word_is_not_waited_for() {
    let thinking = "data: {\"choices\":[{\"delta\":{\"reasoning_content\":\"a\"}}]}\n\n";
    let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"length\"}]}\n\n";
    let answer = said(
        &format!("{HEAD}{thinking}{end}"),
        Some(": ping\n\n"),
        long(),
    )
    .await;
    let finished = UpstreamEvent::Finished {
        finish: Finish::Length,
        model: None,
        usage: None,
    };
    assert_eq!(without_alive(answer), [Ok(finished)]);
}
