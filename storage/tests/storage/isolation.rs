//! Row-level security, asked of the database itself.

use hubbub_actors::ports::Append;
use hubbub_protocol::{NodeId, TenantId};

use crate::fixture::{Fixture, append_one, question, seed};

const TENANT_TABLES: &[&str] = &[
    "tenants", "bots", "api_keys", "visitors", "tickets", "sessions", "messages", "replies",
    "attempts", "budgets", "spending", "notes",
];

/// A row in every tenant table.
async fn filled() -> Fixture {
    let f = Fixture::new().await;
    let session = f.session().await;
    let asked = question(f.tenant, session, NodeId::generate());
    append_one(&f.store, Append::Message(asked)).await.unwrap();
    let owner = f.database.owner().await;
    let tenant = f.tenant;
    owner
        .batch_execute(&format!(
            "INSERT INTO api_keys (tenant_id, key_id, secret_sha256, name)
               VALUES ('{tenant}', 'k', sha256('s'), 'n');
             INSERT INTO visitors (tenant_id, id) VALUES ('{tenant}', gen_random_uuid());
             INSERT INTO tickets (tenant_id, ticket_sha256, principal_kind, principal_id,
               principal_name, expires_at)
               VALUES ('{tenant}', sha256('t'), 'visitor', 'v', '', now());
             INSERT INTO attempts (tenant_id, reply_id, claim, number, session_id, bot_id, upstream, model,
               outcome, source, input_tokens, cached_input_tokens, output_tokens, cost, started_at, ended_at)
               VALUES ('{tenant}', gen_random_uuid(), 0, 1, gen_random_uuid(), gen_random_uuid(), 'u', 'm',
               'answered', 'reported', 1, 0, 1, 1, now(), now());
             INSERT INTO budgets (tenant_id, id, scope, period, amount)
               VALUES ('{tenant}', '{tenant}', 'tenant', 'day', 1);
             INSERT INTO spending (tenant_id, budget_id, subject_id, period_start, spent)
               VALUES ('{tenant}', '{tenant}', '{tenant}', now(), 1);
             INSERT INTO notes (tenant_id, session_id, id, id_spelling, follows, author_id, author, body)
               VALUES ('{tenant}', '{session}', gen_random_uuid(), 0, 1, 'o', 'Olga', 'n');"
        ))
        .await
        .unwrap();
    f
}

#[tokio::test]
async fn a_tenant_sees_its_own_rows_and_nobody_sees_others() {
    let f = filled().await;
    let app = f.database.app().await;
    let other = TenantId::generate().to_string();
    let own = f.tenant.to_string();
    for table in TENANT_TABLES {
        let count = format!("SELECT count(*) FROM {table}");
        // Unset; then, on a connection that has had a tenant, '' instead of NULL.
        for (setting, visible) in [
            (None, false),
            (Some(&own), true),
            (None, false),
            (Some(&other), false),
        ] {
            app.batch_execute("BEGIN").await.unwrap();
            if let Some(tenant) = setting {
                let set = "SELECT set_config('app.tenant_id', $1, true)";
                app.execute(set, &[tenant]).await.unwrap();
            }
            let rows: i64 = app.query_one(&count, &[]).await.unwrap().get(0);
            app.batch_execute("COMMIT").await.unwrap();
            assert_eq!(rows > 0, visible, "{table} with {setting:?}");
        }
    }
}

#[tokio::test]
async fn a_tenant_cannot_write_or_point_at_another_tenants_rows() {
    let f = filled().await;
    let (other, _) = seed(&f.storage).await;
    let scope = f.storage.scope(other).await.unwrap();
    drop(scope);
    let app = f.database.app().await;
    let (own, bot) = (f.tenant, f.bot);
    for (statement, code) in [
        // Another tenant's row, by its policy.
        (
            format!(
                "INSERT INTO bots (tenant_id, id, name, max_output_tokens)
                  VALUES ('{own}', gen_random_uuid(), 'x', 1)"
            ),
            "42501",
        ),
        // One's own row that points at another's bot, by the composite key.
        (
            format!(
                "INSERT INTO sessions (tenant_id, id, bot_id)
                  VALUES ('{other}', gen_random_uuid(), '{bot}')"
            ),
            "23503",
        ),
        // The log is written by the writer alone.
        (String::from("DELETE FROM messages"), "42501"),
    ] {
        app.batch_execute("BEGIN").await.unwrap();
        let set = "SELECT set_config('app.tenant_id', $1, true)";
        app.execute(set, &[&other.to_string()]).await.unwrap();
        let refused = app.batch_execute(&statement).await.unwrap_err();
        app.batch_execute("ROLLBACK").await.unwrap();
        assert_eq!(refused.code().unwrap().code(), code, "{statement}");
    }
}

#[tokio::test]
async fn every_table_with_a_tenant_forces_row_level_security() {
    let f = Fixture::new().await;
    let owner = f.database.owner().await;
    let open = owner
        .query(
            "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm')
             AND (c.relname = 'tenants' OR EXISTS (SELECT FROM pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attname = 'tenant_id'))
             AND NOT (c.relrowsecurity AND c.relforcerowsecurity
                      AND (EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid)
                           -- A partition is reached through its parent; nobody may name it.
                           OR c.relispartition AND NOT has_table_privilege('hubbub_app', c.oid,
                              'SELECT, INSERT, UPDATE, DELETE')))",
            &[],
        )
        .await
        .unwrap();
    let open: Vec<String> = open.iter().map(|row| row.get(0)).collect();
    assert_eq!(open, [""; 0]);
    let covered: i64 = owner
        .query_one(
            "SELECT count(DISTINCT tablename) FROM pg_policies WHERE schemaname = 'public'",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(usize::try_from(covered).unwrap(), TENANT_TABLES.len());
    // Month partitions exist, so the query above has looked at some.
    let months: i64 = owner
        .query_one(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'messages'::regclass",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert!(months > 12, "{months}");
}

#[tokio::test]
async fn the_servers_roles_own_nothing_and_bypass_nothing() {
    let f = Fixture::new().await;
    let owner = f.database.owner().await;
    let bad: i64 = owner
        .query_one(
            "SELECT (SELECT count(*) FROM pg_roles WHERE rolname LIKE 'hubbub%'
                       AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb))
                  + (SELECT count(*) FROM pg_class WHERE relowner IN
                       (SELECT oid FROM pg_roles WHERE rolname LIKE 'hubbub%'))
                  + (SELECT count(*) FROM pg_proc p WHERE p.prosecdef
                       AND p.pronamespace = 'public'::regnamespace
                       AND (p.proconfig IS NULL OR has_function_privilege('public', p.oid, 'EXECUTE')))",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    assert_eq!(bad, 0);
}

#[tokio::test]
async fn the_writer_cannot_read_what_was_said() {
    let f = filled().await;
    let app = f.database.app().await;
    // Without SET ROLE the server's own role has none of the writer's rights.
    let inherited = app.query("SELECT id FROM nodes", &[]).await.unwrap_err();
    assert_eq!(inherited.code().unwrap().code(), "42501");
    app.batch_execute("SET ROLE hubbub_writer").await.unwrap();
    for refused in [
        "SELECT body FROM messages",
        "SELECT body FROM replies",
        "SELECT prompt FROM bots",
        "SELECT secret_sha256 FROM api_keys",
        "SELECT token_sha256 FROM visitors",
        "UPDATE messages SET body = ''",
        "DELETE FROM messages",
    ] {
        let error = app.batch_execute(refused).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "42501", "{refused}");
    }
    let seqs = app.query("SELECT seq FROM messages", &[]).await.unwrap();
    assert_eq!(seqs.len(), 1);
}
