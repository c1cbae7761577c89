//! A second customer on a server.

use hubbub::identity::ApiKey;
use hubbub_protocol::{BotId, TenantId};

use super::server::TestServer;

/// A second tenant, made by hand: its API key and a bot.
pub async fn another_tenant(server: &TestServer) -> (String, BotId) {
    let (tenant, bot, key) = (TenantId::generate(), BotId::generate(), ApiKey::generate());
    let database = server.database().await;
    let rows = format!(
        "INSERT INTO tenants (id, name) VALUES ('{tenant}', 'Other');
         INSERT INTO bots (tenant_id, id, name, max_output_tokens) VALUES ('{tenant}', '{bot}', 'B', 100);"
    );
    database.batch_execute(&rows).await.unwrap();
    let insert =
        "INSERT INTO api_keys (tenant_id, key_id, secret_sha256, name) VALUES ($1, $2, $3, 'k')";
    database
        .execute(insert, &[&tenant.0, &key.id, &key.digest().as_slice()])
        .await
        .unwrap();
    (key.expose(), bot)
}
