//! TLS to the database: rustls with aws-lc, the system's certificate authorities or one given file.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio_postgres::config::{Config, Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::StorageError;

/// The connector for connections to `config`'s hosts. Certificate and name are always verified:
/// `sslmode` decides whether TLS is used, never how strictly. Also settles `sslmode=prefer`, the
/// default, to plain text where nothing leaves the machine.
pub(crate) fn connector(
    config: &mut Config,
    ca_file: Option<&Path>,
) -> Result<MakeRustlsConnect, StorageError> {
    if config.get_ssl_mode() == SslMode::Prefer && is_local(config) {
        config.ssl_mode(SslMode::Disable);
    }
    let mut roots = RootCertStore::empty();
    if config.get_ssl_mode() != SslMode::Disable {
        match ca_file {
            Some(path) => add_file(&mut roots, path)?,
            None => add_system(&mut roots)?,
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| StorageError::Config(format!("TLS: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

fn is_local(config: &Config) -> bool {
    config.get_hosts().iter().all(|host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse()
                    .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
        }
    }) && config
        .get_hostaddrs()
        .iter()
        .all(std::net::IpAddr::is_loopback)
}

fn add_file(roots: &mut RootCertStore, path: &Path) -> Result<(), StorageError> {
    let fail =
        |reason: String| StorageError::Config(format!("CA file {}: {reason}", path.display()));
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| fail(e.to_string()))? {
        let certificate = certificate.map_err(|e| fail(e.to_string()))?;
        roots.add(certificate).map_err(|e| fail(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(fail(String::from("holds no certificate")));
    }
    Ok(())
}

fn add_system(roots: &mut RootCertStore) -> Result<(), StorageError> {
    let found = rustls_native_certs::load_native_certs();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        return Err(StorageError::Config(String::from(
            "TLS to the database: the system has no certificate authorities; install \
             ca-certificates or name a CA file",
        )));
    }
    Ok(())
}
