//! What earlier versions stored of a client's metadata, and the way back to them.

use hubbub_actors::ports::{Append, MessageStore as _};
use hubbub_protocol::{Metadata, Seq};
use hubbub_storage::migrations::{self, MIGRATIONS};

use crate::fixture::{Fixture, message, page};

// S1
#[tokio::test]
async fn metadata_of_earlier_versions_stays_readable_and_there_is_a_way_back() {
    let f = Fixture::new().await;
    let session = f.session().await;
    let batch = (0..3).map(|n| Append::Message(message(f.tenant, session, &n.to_string())));
    f.store.append(batch.collect()).await.unwrap();
    let (config, url) = (&f.database.config, &f.database.owner_url);
    let since = MIGRATIONS.iter().filter(|migration| migration.version >= 6);
    migrations::down(config, url, since.count()).await.unwrap();
    let owner = f.database.owner().await;
    let set = |seq: i64, metadata: &str| {
        let set = format!("UPDATE messages SET metadata = '{metadata}' WHERE seq = {seq}");
        let owner = &owner;
        async move { owner.batch_execute(&set).await.unwrap() }
    };
    set(1, r#"{"b": 1.7976931348623157e308, "a": [1.10, "\u00e9"]}"#).await;
    migrations::up(config, url).await.unwrap();
    set(3, r#"{"tiny": 1e-20000}"#).await;

    let storage = f.database.storage().await;
    let store = storage.message_store();
    let log = store
        .list_after(f.tenant, session, Seq::ZERO, page(10))
        .await
        .unwrap();
    let metadata: Vec<Option<&str>> = log
        .messages
        .iter()
        .map(|message| message.metadata.as_ref().map(Metadata::as_str))
        .collect();
    // As jsonb had it.
    let digits = format!("17976931348623157{}", "0".repeat(292));
    let first = format!(r#"{{"a": [1.10, "é"], "b": {digits}}}"#);
    assert_eq!(
        metadata,
        [Some(&*first), None, Some(r#"{"tiny": 1e-20000}"#)]
    );

    let since = MIGRATIONS.iter().filter(|migration| migration.version >= 6);
    migrations::down(config, url, since.count()).await.unwrap();
    let read = "SELECT metadata::text FROM messages ORDER BY seq";
    let rows = owner.query(read, &[]).await.unwrap();
    let kept: Vec<Option<String>> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(
        kept,
        [Some(first), None, None],
        "what jsonb cannot hold is given up"
    );
}
