//! How fast batches are stored, with the disk waited for. Run by hand:
//! `cargo test --test storage throughput -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use hubbub_actors::ports::{Append, MessageStore as _};
use hubbub_storage::Storage;
use hubbub_storage::private::{PrivateCluster, PrivateOptions};

use crate::fixture::{message, open, seed};
use crate::postgres::OwnFolder;

#[expect(clippy::disallowed_methods, reason = "real sockets run on real time")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn throughput_of_two_writers() {
    let folder = OwnFolder::new();
    let cluster = PrivateCluster::start(PrivateOptions::new(folder.path()))
        .await
        .unwrap();
    let storage = Storage::connect(&cluster.database_config()).await.unwrap();
    let store = storage.message_store();
    let (tenant, bot) = seed(&storage).await;
    let text = "x".repeat(300);
    let start = now();
    let writers = [0, 1].map(|_| {
        let (store, text) = (store.clone(), text.clone());
        tokio::spawn(async move {
            let mut sessions = Vec::new();
            for _ in 0..200 {
                sessions.push(open(&store, tenant, bot).await);
            }
            let (mut count, mut slowest, began) = (0, Duration::ZERO, now());
            while began.elapsed() < Duration::from_secs(5) {
                let batch: Vec<_> = (0..100)
                    .map(|n| Append::Message(message(tenant, sessions[(count + n) % 200], &text)))
                    .collect();
                let sent = now();
                count += store.append(batch).await.unwrap().len();
                slowest = slowest.max(sent.elapsed());
            }
            (count, slowest, began.elapsed())
        })
    });
    for writer in writers {
        let (count, slowest, took) = writer.await.unwrap();
        println!(
            "{count} in {took:?}: {:.0}/s, slowest batch {slowest:?}",
            count as f64 / took.as_secs_f64()
        );
    }
    println!("in all {:?}", start.elapsed());
    cluster.stop().await;
}
