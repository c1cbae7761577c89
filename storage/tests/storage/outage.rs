//! The database away, dying, full.

use std::time::{Duration, Instant};

use hubbub_actors::ports::{Append, MessageStore as _, StoreError};
use hubbub_protocol::Seq;
use hubbub_storage::private::{PrivateCluster, PrivateError, PrivateOptions};
use hubbub_storage::{Storage, StorageError};
use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{Fixture, append_one, message, open, seed, stored};
use crate::postgres;

/// As long as a test waits for anything to come back.
const PATIENCE: Duration = Duration::from_secs(30);

#[expect(clippy::disallowed_methods, reason = "real sockets run on real time")]
fn now() -> Instant {
    Instant::now()
}

#[tokio::test]
async fn an_exhausted_pool_is_told_in_time() {
    let mut f = Fixture::new().await;
    f.database.config.app_connections = 1;
    let storage = Storage::connect(&f.database.config).await.unwrap();
    let held = storage.scope(f.tenant).await.unwrap();
    let start = now();
    let refused = storage
        .message_store()
        .find_tenant(f.tenant)
        .await
        .unwrap_err();
    assert_eq!(refused, StoreError::Unavailable);
    assert!(
        storage
            .ready()
            .await
            .is_err_and(|error| error.is_unavailable())
    );
    // Two waits for a connection, of 2 s each.
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    assert_eq!(storage.status().app.in_use, 1);
    held.commit().await.unwrap();
    assert!(
        storage
            .message_store()
            .find_tenant(f.tenant)
            .await
            .unwrap()
            .is_some()
    );
}

#[tokio::test]
async fn a_locked_row_is_unavailable_and_not_for_ever() {
    let mut f = Fixture::new().await;
    f.database.config.lock_timeout = Duration::from_millis(200);
    let store = Storage::connect(&f.database.config)
        .await
        .unwrap()
        .message_store();
    let session = f.session().await;
    let owner = f.database.owner().await;
    owner
        .batch_execute("BEGIN; SELECT FROM sessions FOR UPDATE")
        .await
        .unwrap();
    let entry = Append::Message(message(f.tenant, session, "x"));
    assert_eq!(
        store.append(vec![entry.clone()]).await.unwrap_err(),
        StoreError::Unavailable
    );
    owner.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(stored(&append_one(&store, entry).await).0.seq, Seq(1));
}

#[tokio::test]
async fn the_store_recovers_alone_when_the_database_comes_back() {
    let (cluster, folder) = postgres::own_cluster().await;
    let storage = Storage::connect(&cluster.database_config()).await.unwrap();
    let store = storage.message_store();
    let (tenant, bot) = seed(&storage).await;
    let session = open(&store, tenant, bot).await;
    let entry = Append::Message(message(tenant, session, "before"));
    append_one(&store, entry.clone()).await.unwrap();

    // A second server cannot take the folder while the first one lives.
    let taken = PrivateCluster::start(PrivateOptions::new(folder.path()))
        .await
        .unwrap_err();
    assert!(matches!(taken, PrivateError::InUse(_)), "{taken}");

    cluster.stop().await;
    assert_eq!(
        store.append(vec![entry.clone()]).await.unwrap_err(),
        StoreError::Unavailable
    );
    assert!(storage.ready().await.is_err());
    let cluster = postgres::start(folder.path()).await;
    let (_, duplicate, _) = stored(&append_one(&store, entry.clone()).await).to_owned();
    assert!(duplicate, "what was acknowledged is there");

    // Killed, it is started again by itself.
    let killed = cluster.pid().unwrap();
    kill_process(
        Pid::from_raw(i32::try_from(killed).unwrap()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    let start = now();
    // Connections of before are served to their end, so the new server is waited for.
    while cluster.pid().is_none_or(|pid| pid == killed) {
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let next = Append::Message(message(tenant, session, "after"));
    let answer = loop {
        match store.append(vec![next.clone()]).await {
            Ok(mut answers) => break answers.remove(0),
            Err(error) => assert_eq!(error, StoreError::Unavailable),
        }
        assert!(start.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(stored(&answer).0.seq, Seq(2));
    println!("recovered {:?} after kill -9", start.elapsed());
    cluster.stop().await;
}

#[tokio::test]
async fn a_cluster_left_behind_is_replaced() {
    let folder = postgres::OwnFolder::new();
    // A server that is killed: its runtime goes with everything on it, PostgreSQL stays.
    let path = folder.path();
    let left = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let cluster = runtime.block_on(postgres::start(path));
        let pid = cluster.pid().unwrap();
        drop(runtime);
        pid
    })
    .join()
    .unwrap();
    assert!(
        std::path::Path::new(&format!("/proc/{left}")).exists(),
        "left behind"
    );
    let cluster = postgres::start(folder.path()).await;
    assert_ne!(cluster.pid(), Some(left));
    let storage = Storage::connect(&cluster.database_config()).await.unwrap();
    assert!(storage.ready().await.unwrap().is_ready());
    cluster.stop().await;
}

#[tokio::test]
async fn a_database_that_is_not_there_is_typed_and_quick() {
    let config = hubbub_storage::StorageConfig::new(hubbub_storage::DatabaseUrl::new(
        "postgresql://hubbub_app@127.0.0.1:1/hubbub",
    ));
    let start = now();
    let error = Storage::connect(&config).await.err().unwrap();
    assert!(error.is_unavailable(), "{error}");
    assert!(!matches!(error, StorageError::Config(_)));
    assert!(start.elapsed() < Duration::from_secs(4));
}
