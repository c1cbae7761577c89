//! Migrations: there and back, once, and only the files that are meant.

use hubbub::storage::migrations::{self, EXPECTED_VERSION, MIGRATIONS, Migration, MigrationError};
use hubbub::storage::{Storage, StorageError};

use crate::postgres;

#[tokio::test]
async fn up_down_up_leaves_the_same_schema() {
    let database = postgres::empty_database().await;
    let (config, url) = (&database.config, &database.owner_url);
    assert_eq!(migrations::up(config, url).await.unwrap(), [1, 2, 3, 4]);
    let first = database.dump_schema();
    assert!(first.contains("CREATE TABLE public.messages"));
    assert_eq!(migrations::up(config, url).await.unwrap(), [0; 0]);
    assert_eq!(migrations::down(config, url, 1).await.unwrap(), [4]);
    assert_eq!(migrations::down(config, url, 100).await.unwrap(), [3, 2, 1]);
    let bare = database.dump_schema();
    assert!(
        !bare.contains("public.messages") && !bare.contains("CREATE FUNCTION"),
        "{bare}"
    );
    assert!(
        migrations::status(config, url)
            .await
            .unwrap()
            .iter()
            .all(|m| m.applied_at.is_none())
    );
    assert_eq!(
        migrations::up(config, url).await.unwrap().len(),
        MIGRATIONS.len()
    );
    assert_eq!(database.dump_schema(), first);
}

#[tokio::test]
async fn an_edited_or_unknown_migration_is_refused() {
    let database = postgres::database().await;
    let (config, url) = (&database.config, &database.owner_url);
    let mut edited = MIGRATIONS.to_vec();
    edited[1] = Migration {
        up: "SELECT 1",
        ..edited[1]
    };
    let refused = migrations::up_with(config, url, &edited).await.unwrap_err();
    assert!(
        matches!(
            refused,
            StorageError::Migration(MigrationError::Edited { version: 2, .. })
        ),
        "{refused}"
    );
    let refused = migrations::up_with(config, url, &MIGRATIONS[..3])
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            StorageError::Migration(MigrationError::Unknown { version: 4, .. })
        ),
        "{refused}"
    );
}

#[tokio::test]
async fn a_failing_migration_leaves_nothing() {
    let database = postgres::database().await;
    let (config, url) = (&database.config, &database.owner_url);
    let mut more = MIGRATIONS.to_vec();
    more.push(Migration {
        version: 5,
        name: "broken",
        up: "CREATE TABLE half (id int); SELECT 1 / 0",
        down: "",
    });
    let failed = migrations::up_with(config, url, &more).await.unwrap_err();
    assert!(
        failed.to_string().contains("migration 5 (broken) failed"),
        "{failed}"
    );
    assert!(!database.dump_schema().contains("half"));
    assert_eq!(migrations::up(config, url).await.unwrap(), [0; 0]);
}

#[tokio::test]
async fn two_servers_starting_together_migrate_once() {
    let database = postgres::empty_database().await;
    let (config, url) = (&database.config, &database.owner_url);
    let (one, two) = tokio::join!(migrations::up(config, url), migrations::up(config, url));
    let mut applied = [one.unwrap().len(), two.unwrap().len()];
    applied.sort_unstable();
    assert_eq!(applied, [0, MIGRATIONS.len()]);
}

#[tokio::test]
async fn readiness_tells_the_schema_version() {
    let database = postgres::database().await;
    let storage = database.storage().await;
    assert!(storage.ready().await.unwrap().is_ready());
    migrations::down(&database.config, &database.owner_url, 1)
        .await
        .unwrap();
    let readiness = storage.ready().await.unwrap();
    assert_eq!(readiness.schema_version, EXPECTED_VERSION - 1);
    assert!(!readiness.is_ready());
}

#[tokio::test]
async fn the_server_refuses_to_run_as_a_superuser() {
    let database = postgres::database().await;
    let mut config = database.config.clone();
    config.url = database.owner_url.clone();
    let error = Storage::connect(&config).await.err().unwrap();
    assert!(matches!(error, StorageError::Config(_)), "{error}");
}

#[tokio::test]
async fn the_server_makes_the_coming_months_partitions_itself() {
    let database = postgres::database().await;
    let storage = database.storage().await;
    let owner = database.owner().await;
    let newest = "SELECT max(relname) FROM pg_class WHERE relname ~ '^messages_[0-9]{6}$'";
    let find = async || {
        owner
            .query_one(newest, &[])
            .await
            .unwrap()
            .get::<_, String>(0)
    };
    let made = find().await;
    owner
        .batch_execute(&format!("DROP TABLE {made}"))
        .await
        .unwrap();
    assert_ne!(find().await, made);
    storage.make_partitions().await.unwrap();
    storage.make_partitions().await.unwrap();
    assert_eq!(find().await, made);
}
