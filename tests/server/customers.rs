//! Tenants and keys from the command line: beside a running server, and without one.

use std::process::{Command, Output};

use serde_json::Value;

use crate::client::{Caller, Credentials, Device, Gone};
use crate::server::{PROGRAM, shared};
use crate::tenant::{json_beside, run_beside};

fn error(output: &Output) -> String {
    assert!(!output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn a_tenant_and_its_keys_are_made_and_taken_away_beside_a_running_server() {
    let server = shared().await;
    let create = ["tenant", "create", "Acme & Sons", "--weight", "3", "--json"];
    let made = json_beside(server, &create);
    assert_eq!(
        (&made["name"], &made["weight"]),
        (&"Acme & Sons".into(), &3.into())
    );
    let id = made["id"].as_str().unwrap();
    let listed = json_beside(server, &["tenant", "list", "--json"]);
    let listed = listed.as_array().unwrap();
    let ours = listed.iter().find(|tenant| tenant["id"] == id).unwrap();
    assert_eq!(ours["weight"], 3);

    let create = [
        "key", "create", "--tenant", id, "--name", "Backend", "--json",
    ];
    let key = json_beside(server, &create);
    let (key_id, secret) = (key["id"].as_str().unwrap(), key["key"].as_str().unwrap());
    let bot = Caller::with(server, Some(secret)).bot(&[]).await;
    let credentials = Credentials::Bearer(secret.to_owned());
    let mut device = Device::connect_as(server.address, &credentials)
        .await
        .unwrap();
    device.open(bot).await;

    let revoked = run_beside(server, &["key", "revoke", key_id]);
    assert!(revoked.status.success(), "{revoked:?}");
    assert_eq!(device.end().await, Gone::Closed(4001));
    let again = error(&run_beside(server, &["key", "revoke", key_id]));
    assert!(again.contains("was revoked before"), "{again}");
    let listed = json_beside(server, &["key", "list", "--tenant", id, "--json"]);
    assert_eq!(listed[0]["id"], key_id);
    assert!(listed[0]["revoked_at"].is_string());
    assert!(
        !listed.to_string().contains(secret),
        "no secret is shown twice"
    );
}

#[tokio::test]
async fn what_cannot_be_made_is_told_in_a_sentence() {
    let server = shared().await;
    let nobody = "019aa3c2-7c10-7a3e-9f52-1b2c3d4e5f60";
    let create = ["key", "create", "--tenant", nobody, "--name", "k"];
    assert!(error(&run_beside(server, &create)).contains("there is no tenant"));
    assert!(error(&run_beside(server, &["key", "revoke", "nothing1"])).contains("there is no key"));
    for (name, weight) in [("", "1"), ("a\nb", "1"), ("a", "0"), ("a", "1001")] {
        let create = ["tenant", "create", name, "--weight", weight];
        error(&run_beside(server, &create));
    }
    let none = run_beside(server, &["key", "list", "--tenant", nobody]);
    assert_eq!(none.stdout, b"the tenant has no key\n");
}

#[test]
fn no_server_is_needed() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| -> Value {
        let mut command = Command::new(PROGRAM);
        let output = command
            .arg("--data-dir")
            .arg(folder.path())
            .args(arguments)
            .output();
        let output = output.unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let made = run(&["tenant", "create", "First", "--json"]);
    let id = made["id"].as_str().unwrap();
    let create = ["key", "create", "--tenant", id, "--name", "k", "--json"];
    assert!(run(&create)["key"].as_str().unwrap().starts_with("hbk_"));
    let all = run(&["tenant", "list", "--json"]);
    assert_eq!(all.as_array().unwrap().len(), 1);
}
