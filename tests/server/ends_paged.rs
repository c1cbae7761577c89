//! Replies that came to nothing: told with their questions, each once, within the bounds of page and frame.

use hubbub_protocol::client::Join;
use hubbub_protocol::http::MessagePage;
use hubbub_protocol::{EndedReply, ReplyId, Seq, ServerFrame, SessionId};

use crate::client::{Caller, Device, of};
use crate::server::{Setup, TestServer, shared};

/// The longest text a reply may have.
const LONGEST: usize = 4 * 1024 * 1024;
/// What a page adds up to before its last message.
const PAGE_BYTES: usize = 512 * 1024;
/// What `joined` is, but for the longest message and its end.
const JOINED_BYTES: usize = 144 * 1024;

/// A session of questions whose replies failed with so long a text.
async fn failed(server: &TestServer, questions: usize, bytes: usize) -> SessionId {
    let mut device = Device::connect(server).await;
    let bot = Caller::new(server).bot(&[]).await;
    let session = device.open(bot).await.session;
    let database = server.database().await;
    let end = "INSERT INTO replies (tenant_id, id, session_id, to_seq, state, node_id, fence, body, \
        error_code, error_message, ended_at) VALUES ($1, $2, $3, $4, 'failed', $2, 0, \
        repeat('ä', $5), 'internal', 'the answer is too long', now())";
    for n in 0..questions {
        let ack = device.say(session, &format!("question {n}")).await.unwrap();
        let (tenant, reply) = (server.demo.tenant.0, ReplyId::generate().0);
        let (to, letters) = (
            i64::try_from(ack.seq.0).unwrap(),
            i32::try_from(bytes / 2).unwrap(),
        );
        database
            .execute(end, &[&tenant, &reply, &session.0, &to, &letters])
            .await
            .unwrap();
    }
    session
}

/// Every page of a session in one direction, and the bytes of the largest.
async fn read(caller: &Caller, session: SessionId, forward: bool) -> (Vec<EndedReply>, usize) {
    let (mut ends, mut largest) = (Vec::new(), 0);
    let mut cursor = if forward {
        "after=0".to_owned()
    } else {
        String::new()
    };
    loop {
        let path = format!("/v1/sessions/{session}/messages?limit=200&{cursor}");
        let response = caller.get(&path).await;
        assert_eq!(response.status, 200, "{}", response.status);
        largest = largest.max(response.text.len());
        let page: MessagePage = response.json();
        for ended in &page.ended {
            assert_eq!(ended.text_bytes, None, "a page carries the whole");
            assert!(page.messages.iter().any(|message| message.seq == ended.to));
        }
        let (first, last) = (
            page.messages[0].seq,
            page.messages[page.messages.len() - 1].seq,
        );
        if forward {
            ends.extend(page.ended);
            cursor = format!("after={last}");
        } else {
            ends.splice(0..0, page.ended);
            cursor = format!("before={first}");
        }
        if !page.more {
            return (ends, largest);
        }
    }
}

// S2
#[tokio::test]
async fn ends_are_paged_with_their_questions_and_each_is_told_once() {
    let server = shared().await;
    let caller = Caller::new(server);
    for (questions, bytes) in [(12, LONGEST), (30, 1_000_000), (100, 20_000), (40, 0)] {
        let session = failed(server, questions, bytes).await;
        for forward in [true, false] {
            let (ends, largest) = read(&caller, session, forward).await;
            let to: Vec<u64> = ends.iter().map(|ended| ended.to.0).collect();
            assert_eq!(to, (1..=questions as u64).collect::<Vec<_>>());
            assert!(ends.iter().all(|ended| ended.text.len() == bytes));
            let overhead = 200 * 700;
            assert!(largest < PAGE_BYTES + bytes + overhead, "{largest}");
        }
        let mut device = Device::connect(server).await;
        let newest = device.try_join(of(session)).await.unwrap();
        let length = ServerFrame::Joined(Box::new(newest)).encode().len();
        println!("{questions} ends of {bytes} bytes: joined {length}");
        assert!(length < JOINED_BYTES, "{length}");
        // Step by step, as a device does that comes back.
        let (mut after, mut ends) = (Seq::ZERO, Vec::new());
        loop {
            let join = Join {
                after: Some(after),
                limit: Some(200),
                ..of(session)
            };
            let joined = device.try_join(join).await.unwrap();
            let length = ServerFrame::Joined(Box::new(joined.clone())).encode().len();
            assert!(length < JOINED_BYTES, "{length}");
            for ended in &joined.ended {
                let whole = ended
                    .text_bytes
                    .map_or(ended.text.len(), |all| all as usize);
                assert_eq!(whole, bytes);
            }
            let new = joined.ended.iter().filter(|ended| ended.to > after);
            ends.extend(new.map(|ended| ended.to.0));
            let Some(last) = joined.messages.last() else {
                break;
            };
            after = last.seq;
        }
        assert_eq!(ends, (1..=questions as u64).collect::<Vec<_>>());
    }
}

// S2
#[tokio::test]
async fn a_device_that_comes_back_is_told_of_the_ends_it_missed() {
    let server = shared().await;
    let session = failed(server, 3, 50_000).await;
    let mut device = Device::connect(server).await;
    let join = Join {
        after: Some(Seq(3)),
        ..of(session)
    };
    let joined = device.try_join(join).await.unwrap();
    assert!(joined.messages.is_empty() && !joined.more);
    let to: Vec<u64> = joined.ended.iter().map(|ended| ended.to.0).collect();
    assert_eq!(to, [1, 2, 3]);
    for ended in &joined.ended {
        assert!((1..=16 * 1024).contains(&ended.text.len()));
        assert_eq!(ended.text_bytes, Some(50_000));
    }
}

// S2
#[tokio::test]
async fn ten_readers_of_the_longest_ends_take_little_memory() {
    let server = tokio::task::spawn_blocking(|| Setup::new().start())
        .await
        .unwrap();
    let session = failed(&server, 12, LONGEST).await;
    let caller = Caller::new(&server);
    caller.get("/livez").await;
    let before = server.rss_kib();
    let readers = (0..10).map(|_| async {
        let path = format!("/v1/sessions/{session}/messages?after=0");
        let response = caller.get(&path).await;
        assert_eq!(response.status, 200);
        let mut device = Device::connect(&server).await;
        device.join(session).await;
        server.rss_kib()
    });
    let peaks = futures_util::future::join_all(readers).await;
    let grown = peaks.into_iter().max().unwrap().saturating_sub(before);
    println!("ten readers: {} MiB more", grown / 1024);
    assert!(grown < 400 * 1024, "{grown} KiB");
}
