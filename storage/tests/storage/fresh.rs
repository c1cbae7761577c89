//! Entries that are as expected, which are a statement each, beside those that are not.

use hubbub_actors::ports::{Append, AppendRefusal, Appended, MessageStore as _, ReplyEnd};
use hubbub_protocol::{NodeId, Seq};

use crate::fixture::{Fixture, append_one, end, message, page, question, stored};

#[tokio::test]
async fn what_is_not_as_expected_stays_alone_in_its_batch() {
    let f = Fixture::new().await;
    let (session, elsewhere) = (f.session().await, f.session().await);
    let said = message(f.tenant, session, "once");
    append_one(&f.store, Append::Message(said.clone()))
        .await
        .unwrap();
    let mut contradicted = said.clone();
    contradicted.text = String::from("twice");
    let batch = vec![
        Append::Message(message(f.tenant, session, "new")),
        Append::Message(said),
        Append::Message(contradicted),
        Append::Message(message(f.tenant, elsewhere, "there")),
        Append::Message(message(f.tenant, session, "newer")),
    ];
    let results = f.store.append(batch).await.unwrap();
    let told: Vec<_> = [0, 1, 3, 4]
        .into_iter()
        .map(|index| stored(&results[index]))
        .map(|(message, duplicate, _)| (message.text.as_str(), message.seq, duplicate))
        .collect();
    assert_eq!(
        told,
        [
            ("new", Seq(2), false),
            ("once", Seq(1), true),
            ("there", Seq(1), false),
            ("newer", Seq(3), false),
        ]
    );
    assert_eq!(*results[2].as_ref().unwrap_err(), AppendRefusal::Conflict);
}

#[tokio::test]
async fn an_entry_that_is_there_twice_in_a_batch_is_stored_once() {
    let f = Fixture::new().await;
    let session = f.session().await;
    let asked = question(f.tenant, session, NodeId::generate());
    let batch = vec![
        Append::Message(asked.clone()),
        Append::Message(asked.clone()),
    ];
    let results = f.store.append(batch).await.unwrap();
    let told: Vec<_> = results.iter().map(stored).collect();
    let reply = asked.reply.map(|owed| owed.reply);
    assert_eq!(
        (told[0].0.seq, told[0].1, told[0].2),
        (Seq(1), false, reply)
    );
    assert_eq!((told[1].0.seq, told[1].1, told[1].2), (Seq(1), true, reply));
}

#[tokio::test]
async fn a_question_and_the_end_of_another_are_one_batch() {
    let f = Fixture::new().await;
    let (one, other) = (f.session().await, f.session().await);
    let node = NodeId::generate();
    let asked = question(f.tenant, one, node);
    append_one(&f.store, Append::Message(asked.clone()))
        .await
        .unwrap();
    let ended = Append::Reply(end(&asked, ReplyEnd::Completed { cut: None }));
    let batch = vec![
        Append::Message(question(f.tenant, other, node)),
        ended.clone(),
    ];
    let results = f.store.append(batch).await.unwrap();
    assert_eq!(stored(&results[0]).0.seq, Seq(1));
    let (answer, duplicate, _) = stored(&results[1]);
    assert_eq!((answer.seq, duplicate), (Seq(2), false));
    // Its end again, alone: found to be there.
    let again = append_one(&f.store, ended).await.unwrap();
    assert!(matches!(
        again,
        Appended::Message {
            duplicate: true,
            ..
        }
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_write_to_the_same_sessions_at_once_leave_no_gap() {
    const NODES: usize = 4;
    const BATCHES: usize = 60;
    let f = Fixture::new().await;
    let sessions = [f.session().await, f.session().await, f.session().await];
    let mut nodes = Vec::new();
    for node in 0..NODES {
        let store = f.database.storage().await.message_store();
        let tenant = f.tenant;
        nodes.push(tokio::spawn(async move {
            for n in 0..BATCHES {
                // Batches of one, two and three, their sessions in any order.
                let batch: Vec<_> = (0..=n % 3)
                    .map(|m| sessions[(node + n + m * 2) % 3])
                    .map(|session| Append::Message(message(tenant, session, "Hello")))
                    .collect();
                let size = batch.len();
                // As the writer does while storage may come back at any moment.
                let results = loop {
                    if let Ok(results) = store.append(batch.clone()).await {
                        break results;
                    }
                };
                assert_eq!(results.iter().filter(|result| result.is_ok()).count(), size);
            }
        }));
    }
    for node in nodes {
        node.await.unwrap();
    }
    let mut count = 0;
    for session in sessions {
        let log = f.store.list_after(f.tenant, session, Seq(0), page(10_000));
        let log = log.await.unwrap().messages;
        let seqs: Vec<u64> = log.iter().map(|message| message.seq.0).collect();
        assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
        let times = log.is_sorted_by_key(|message| message.at);
        assert!(times, "times run with the numbers");
        count += seqs.len();
    }
    assert_eq!(count, NODES * BATCHES * 2);
}
