//! TLS to the database: the certificate and the name are verified, whatever the URL asks for.

use std::fs::{Permissions, metadata, set_permissions, write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use hubbub_storage::private::{PrivateCluster, PrivateOptions};
use hubbub_storage::{DatabaseUrl, Storage, StorageConfig};

use crate::postgres::{self, OwnFolder};

const ENCRYPTED: &str = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) \
    WHERE ssl AND application_name LIKE 'hubbub%'";

/// Where the test's PostgreSQL listens, at its usual port: the certificate is for the first alone.
/// Addresses of this process, as tests of other checkouts may run.
fn addresses() -> [String; 2] {
    let [.., high, low] = std::process::id().to_be_bytes();
    [1, 2].map(|host| format!("127.{host}.{high}.{}", low.clamp(1, 254)))
}

#[tokio::test]
async fn a_connection_is_encrypted_and_verified() {
    let folder = OwnFolder::new();
    let [named, unnamed] = addresses();
    let certificates = Certificates::make(&folder.path(), &named);
    let cluster = start(&folder.path(), &certificates, &format!("{named},{unnamed}")).await;
    let connect = async |host: &str, ca: Option<&PathBuf>| {
        let url = format!("postgresql://hubbub_app@{host}/hubbub?sslmode=require");
        let config = StorageConfig {
            ca_file: ca.cloned(),
            migration_url: Some(cluster.superuser_url("hubbub")),
            wait_timeout: Duration::from_secs(3),
            ..StorageConfig::new(DatabaseUrl::new(url))
        };
        Storage::connect(&config).await
    };

    let storage = connect(&named, Some(&certificates.authority))
        .await
        .unwrap();
    assert!(storage.ready().await.unwrap().is_ready());
    let owner = postgres::connect(&cluster.superuser_url("hubbub")).await;
    let encrypted: i64 = owner.query_one(ENCRYPTED, &[]).await.unwrap().get(0);
    assert!(encrypted > 0);

    // Another authority's certificate, another host's, and the system's authorities.
    for (host, ca) in [
        (&named, Some(&certificates.stranger)),
        (&unnamed, Some(&certificates.authority)),
        (&named, None),
    ] {
        let refused = connect(host, ca).await.map(|_| ()).unwrap_err();
        println!("{host} {ca:?}: {refused}");
    }
    cluster.stop().await;
}

/// Files in PEM, in the test's folder.
struct Certificates {
    /// The authority that signed the server's certificate.
    authority: PathBuf,
    /// One that did not.
    stranger: PathBuf,
    server: PathBuf,
    key: PathBuf,
}

impl Certificates {
    fn make(folder: &Path, address: &str) -> Self {
        let file = |name: &str| folder.join(name);
        for name in ["authority", "stranger"] {
            openssl(&format!(
                "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {} -out {}",
                file(&format!("{name}.key")).display(),
                file(&format!("{name}.pem")).display(),
            ));
        }
        let (request, names) = (file("server.csr"), file("names"));
        openssl(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN=database -keyout {} -out {}",
            file("server.key").display(),
            request.display(),
        ));
        write(&names, format!("subjectAltName=IP:{address}")).unwrap();
        openssl(&format!(
            "x509 -req -days 2 -in {} -CA {} -CAkey {} -CAcreateserial -extfile {} -out {}",
            request.display(),
            file("authority.pem").display(),
            file("authority.key").display(),
            names.display(),
            file("server.pem").display(),
        ));
        Self {
            authority: file("authority.pem"),
            stranger: file("stranger.pem"),
            server: file("server.pem"),
            key: file("server.key"),
        }
    }
}

fn openssl(arguments: &str) {
    let mut command = Command::new("openssl");
    let output = command.args(arguments.split(' ')).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments}: {said}");
}

/// A cluster that speaks TLS, and nothing else, on the network.
async fn start(folder: &Path, certificates: &Certificates, listen: &str) -> PrivateCluster {
    // Once without, so that there is a user whose key it is.
    let cluster = postgres::start(folder.to_owned()).await;
    let owner = metadata(cluster.data()).unwrap();
    cluster.stop().await;
    for path in [&certificates.key, &certificates.server] {
        chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
        set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }
    let access = folder.join("access");
    write(
        &access,
        "local all all trust\nhostssl all all 127.0.0.0/8 trust\n",
    )
    .unwrap();
    set_permissions(&access, Permissions::from_mode(0o644)).unwrap();
    let options = PrivateOptions::new(folder)
        .setting("fsync", "off")
        .setting("listen_addresses", listen)
        .setting("hba_file", &access.display().to_string())
        .setting("ssl", "on")
        .setting("ssl_cert_file", &certificates.server.display().to_string())
        .setting("ssl_key_file", &certificates.key.display().to_string());
    PrivateCluster::start(options).await.unwrap()
}
