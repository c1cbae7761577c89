//! A key that is revoked: whoever is connected with it is signed out.

use std::time::{Duration, Instant};

use hubbub::identity::ApiKey;
use hubbub_protocol::ServerFrame;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite;

use crate::client::{Caller, Credentials, Device, Gone};
use crate::server::shared;

// SECURITY: API keys
#[tokio::test]
async fn connections_of_a_revoked_key_are_signed_out_within_five_seconds() {
    let server = shared().await;
    let key = ApiKey::generate();
    let database = server.database().await;
    let (tenant, digest) = (server.demo.tenant.0, key.digest());
    let insert =
        "INSERT INTO api_keys (tenant_id, key_id, secret_sha256, name) VALUES ($1, $2, $3, 'k')";
    database
        .execute(insert, &[&tenant, &key.id, &digest.as_slice()])
        .await
        .unwrap();

    let bearer = Credentials::Bearer(key.expose());
    let mut direct = Device::connect_as(server.address, &bearer).await.unwrap();
    // By a ticket of the key's own, too.
    let caller = Caller::with(server, Some(&key.expose()));
    let minted: Value = caller.post("/v1/tickets", &json!({})).await.json();
    let ticket = Credentials::Ticket(minted["ticket"].as_str().unwrap().to_owned());
    let mut by_ticket = Device::connect_as(server.address, &ticket).await.unwrap();
    let mut other = Device::connect(server).await;
    direct.open(server.demo.bot).await;

    let revoke = "UPDATE api_keys SET revoked_at = now() WHERE key_id = $1";
    assert_eq!(database.execute(revoke, &[&key.id]).await.unwrap(), 1);
    let revoked = Instant::now();
    for device in [&mut direct, &mut by_ticket] {
        let gone = loop {
            match device.next().await {
                // It would say that coming back helps.
                Ok(ServerFrame::Bye(bye)) => panic!("{bye:?}"),
                Ok(_) => {}
                Err(gone) => break gone,
            }
        };
        assert_eq!(gone, Gone::Closed(4001));
    }
    println!("signed out after {:?}", revoked.elapsed());
    assert!(revoked.elapsed() < Duration::from_secs(5));
    match Device::connect_as(server.address, &bearer).await {
        Err(tungstenite::Error::Http(refused)) => assert_eq!(refused.status(), 401),
        other => panic!("not refused: {:?}", other.err()),
    }
    other.assert_works().await;
}
