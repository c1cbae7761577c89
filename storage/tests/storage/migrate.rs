//! Migrations: there and back, once, and only the files that are meant.

use hubbub_actors::ports::MessageStore as _;
use hubbub_protocol::NodeId;
use hubbub_storage::migrations::{
    self, EXPECTED_VERSION, FileMatch, MIGRATIONS, Migration, MigrationError,
};
use hubbub_storage::{DatabaseUrl, Storage, StorageError};

use crate::fixture::Fixture;
use crate::postgres;

#[tokio::test]
async fn up_down_up_leaves_the_same_schema() {
    let database = postgres::empty_database().await;
    let (config, url) = (&database.config, &database.owner_url);
    let mut versions: Vec<i64> = MIGRATIONS.iter().map(|m| m.version).collect();
    assert_eq!(versions.last(), Some(&EXPECTED_VERSION));
    assert_eq!(migrations::up(config, url).await.unwrap(), versions);
    let first = database.dump_schema();
    assert!(first.contains("CREATE TABLE public.messages"));
    assert_eq!(migrations::up(config, url).await.unwrap(), [0; 0]);
    let newest = versions.pop();
    versions.reverse();
    assert_eq!(
        migrations::down(config, url, 1).await.unwrap(),
        newest.into_iter().collect::<Vec<_>>()
    );
    assert_eq!(migrations::down(config, url, 100).await.unwrap(), versions);
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
    let refused = migrations::up_with(config, url, &MIGRATIONS[..MIGRATIONS.len() - 1])
        .await
        .unwrap_err();
    assert!(
        matches!(
            refused,
            StorageError::Migration(MigrationError::Unknown {
                version: EXPECTED_VERSION,
                ..
            })
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
        version: 99,
        name: "broken",
        up: "CREATE TABLE half (id int); SELECT 1 / 0",
        down: "",
    });
    let failed = migrations::up_with(config, url, &more).await.unwrap_err();
    assert!(
        failed.to_string().contains("migration 99 (broken) failed"),
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
    let before = MIGRATIONS.iter().rev().nth(1).unwrap().version;
    assert_eq!(readiness.schema_version, before);
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

// H23
#[tokio::test]
async fn what_a_down_would_destroy_is_counted_by_an_owner_who_may_not_see_it() {
    let f = Fixture::new().await;
    f.session().await;
    f.session().await;
    // As where the schema's owner is no superuser: row-level security is forced on it as well.
    let owner = f.database.owner().await;
    let name = format!("owner_of_{}", f.database.name);
    owner
        .batch_execute(&format!(
            "CREATE ROLE {name} LOGIN CREATEROLE; GRANT hubbub_lookup, hubbub_writer, hubbub_app TO {name}; \
             ALTER SCHEMA public OWNER TO {name}; \
             DO $$ DECLARE thing record; BEGIN \
               FOR thing IN SELECT oid::regclass AS name FROM pg_class \
                   WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') LOOP \
                 EXECUTE format('ALTER TABLE %s OWNER TO {name}', thing.name); \
               END LOOP; END $$"
        ))
        .await
        .unwrap();
    let run = DatabaseUrl::on_socket(postgres::socket_dir(), &name, &f.database.name);
    let (config, url) = (&f.database.config, &run);
    let before = f.database.dump_schema();
    let loss = migrations::loss_of_down(config, url, 99).await;
    // Functions of hubbub_lookup cannot be dropped by this owner; what counts is that it sees all rows.
    let loss = loss.unwrap();
    let count = |name: &str| {
        loss.lost
            .iter()
            .find(|lost| lost.name == name)
            .map(|lost| lost.count)
    };
    assert_eq!(count("sessions"), Some(2), "{loss:?}");
    assert_eq!(count("tenants"), Some(1));
    assert_eq!(count("messages"), None);
    assert_eq!(loss.versions.len(), MIGRATIONS.len());
    assert_eq!(f.database.dump_schema(), before);

    let none = postgres::database().await;
    let loss = migrations::loss_of_down(&none.config, &none.owner_url, 99)
        .await
        .unwrap();
    assert_eq!(loss.lost, []);
    let empty = postgres::empty_database().await;
    let loss = migrations::loss_of_down(&empty.config, &empty.owner_url, 1)
        .await
        .unwrap();
    assert_eq!((loss.versions.len(), loss.lost.len()), (0, 0));
}

// H23
#[tokio::test]
async fn a_server_counts_as_live_as_long_as_its_lease() {
    let f = Fixture::new().await;
    let (config, url) = (&f.database.config, &f.database.owner_url);
    assert_eq!(migrations::live_nodes(config, url).await.unwrap().nodes, 0);
    let node = NodeId::generate();
    f.store.renew_lease(node).await.unwrap();
    let live = migrations::live_nodes(config, url).await.unwrap();
    assert_eq!(live.nodes, 1);
    assert!((1..=15).contains(&live.seconds), "{live:?}");
    f.store.release_lease(node).await.unwrap();
    assert_eq!(migrations::live_nodes(config, url).await.unwrap().nodes, 0);
    let empty = postgres::empty_database().await;
    let live = migrations::live_nodes(&empty.config, &empty.owner_url).await;
    assert_eq!(live.unwrap().nodes, 0);
}

// H20
#[tokio::test]
async fn the_status_of_any_database_is_shown_and_nothing_is_changed() {
    let empty = postgres::empty_database().await;
    let status = migrations::status(&empty.config, &empty.owner_url)
        .await
        .unwrap();
    assert!(
        status
            .iter()
            .all(|migration| migration.applied_at.is_none())
    );
    assert!(!empty.dump_schema().contains("hubbub_migrations"));

    let database = postgres::database().await;
    let owner = database.owner().await;
    owner
        .batch_execute(
            "UPDATE hubbub_migrations SET sha256 = '\\x00' WHERE version = 2; \
             INSERT INTO hubbub_migrations (version, name, sha256) VALUES (9999, 'future', '\\x00')",
        )
        .await
        .unwrap();
    let status = migrations::status(&database.config, &database.owner_url)
        .await
        .unwrap();
    let files: Vec<FileMatch> = status.iter().map(|migration| migration.file).collect();
    assert_eq!(
        files[..3],
        [FileMatch::Same, FileMatch::Edited, FileMatch::Same]
    );
    assert_eq!(*files.last().unwrap(), FileMatch::Unknown);
    assert_eq!(status.len(), MIGRATIONS.len() + 1);
}

// X14
#[tokio::test]
async fn visitors_there_are_belong_to_the_bot_they_talked_to_last() {
    let database = postgres::empty_database().await;
    let (config, owner) = (&database.config, database.owner().await);
    // Whoever migrates need not be a superuser: forced row-level security holds for the owner too.
    let name = format!("owner_of_{}", database.name);
    let make = format!(
        "CREATE ROLE {name} LOGIN CREATEROLE; GRANT hubbub_lookup TO {name};
         ALTER DATABASE {} OWNER TO {name}; ALTER SCHEMA public OWNER TO {name};",
        database.name
    );
    owner.batch_execute(&make).await.unwrap();
    let plain = DatabaseUrl::on_socket(postgres::socket_dir(), &name, &database.name);
    let before = MIGRATIONS.iter().position(|m| m.version == 7).unwrap();
    migrations::up_with(config, &plain, &MIGRATIONS[..before])
        .await
        .unwrap();
    let rows = "
        INSERT INTO tenants (id, name) VALUES ('00000000-0000-0000-0000-00000000000a', 'T');
        INSERT INTO bots (tenant_id, id, name, max_output_tokens)
          SELECT t.id, b::uuid, 'B', 1 FROM tenants t, unnest(ARRAY[
            '00000000-0000-0000-0000-0000000000b1', '00000000-0000-0000-0000-0000000000b2']) b;
        INSERT INTO visitors (tenant_id, id, external_id, token_sha256)
          SELECT t.id, v.id::uuid, v.external, sha256(v.token::bytea) FROM tenants t, (VALUES
            ('00000000-0000-0000-0000-0000000000c1', NULL, 'talked'),
            ('00000000-0000-0000-0000-0000000000c2', NULL, 'came'),
            ('00000000-0000-0000-0000-0000000000c3', 'u', NULL)) v (id, external, token);
        INSERT INTO sessions (tenant_id, id, bot_id, visitor_id, last_activity_at)
          SELECT t.id, gen_random_uuid(), b.id, v.id, CASE WHEN b.id::text LIKE '%b1'
            THEN now() ELSE now() - interval '1 day' END
          FROM tenants t, bots b, visitors v WHERE v.id::text NOT LIKE '%c2'";
    owner.batch_execute(rows).await.unwrap();
    migrations::up(config, &plain).await.unwrap();
    let read = "SELECT right(id::text, 2), right(bot_id::text, 2), expires_at > now() FROM visitors \
                ORDER BY id";
    let read: Vec<(String, Option<String>, Option<bool>)> = owner
        .query(read, &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    let expected = [
        ("c1", Some("b1"), None),
        ("c2", None, Some(true)),
        ("c3", None, None),
    ];
    let expected =
        expected.map(|(id, bot, expires)| (id.to_owned(), bot.map(str::to_owned), expires));
    assert_eq!(read, expected);
    let forced: i64 = owner
        .query_one(
            "SELECT count(*) FROM pg_class WHERE relname IN ('visitors', 'sessions') \
             AND relrowsecurity AND relforcerowsecurity",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(forced, 2);
}
