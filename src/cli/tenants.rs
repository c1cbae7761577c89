//! `hubbub tenant` and `hubbub key`: customers of a server and their programs, made and seen from the command
//! line. No server is needed, and none is in the way.

use anyhow::Context as _;
use clap::Subcommand;
use hubbub_protocol::{TenantId, limits};
use serde::Serialize;

use super::with_storage;
use crate::config::Config;
use crate::identity::ApiKey;
use hubbub_storage::{Storage, api_keys, tenants};

/// `hubbub tenant`.
#[derive(Clone, Debug, Subcommand)]
pub enum Tenant {
    /// Make a tenant.
    Create {
        /// Its name, for people to read.
        name: String,

        /// Its share of the models, beside those of other tenants.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
        weight: u32,

        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List all tenants, oldest first.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `hubbub key`.
#[derive(Clone, Debug, Subcommand)]
pub enum Key {
    /// Make an API key. It is printed once and cannot be shown again.
    Create {
        /// The tenant's id.
        #[arg(long, value_name = "ID")]
        tenant: TenantId,

        /// Its name, for people to read.
        #[arg(long)]
        name: String,

        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// List a tenant's keys, without their secrets, oldest first.
    List {
        /// The tenant's id.
        #[arg(long, value_name = "ID")]
        tenant: TenantId,

        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Revoke a key: it opens nothing any more, and its connections are closed.
    Revoke {
        /// The key's id: what follows `hbk_`.
        id: String,
    },
}

#[derive(Serialize)]
struct MadeTenant<'a> {
    id: TenantId,
    name: &'a str,
    weight: u32,
}

#[derive(Serialize)]
struct MadeKey<'a> {
    id: &'a str,
    key: String,
}

/// Does what is asked of tenants. Returns what a person, or with `--json` a program, wants to read.
///
/// # Errors
/// The database cannot be used, or the name cannot.
pub async fn tenant(config: &Config, command: Tenant) -> anyhow::Result<String> {
    with_storage(config, async |storage| match command {
        Tenant::Create { name, weight, json } => {
            check_name(&name)?;
            let id = TenantId::generate();
            let scope = storage.scope(id).await?;
            tenants::insert(&scope, &name, weight).await?;
            scope.commit().await?;
            if json {
                let name = &name;
                return Ok(serde_json::to_string(&MadeTenant { id, name, weight })?);
            }
            Ok(format!("{id}  {name}"))
        }
        Tenant::List { json } => {
            let all = storage.list_tenants().await?;
            if json {
                return Ok(serde_json::to_string(&all)?);
            }
            let lines = all.iter().map(|tenant| {
                let (id, name, weight) = (tenant.id, &tenant.name, tenant.weight);
                format!("{id}  weight {weight}  {name}")
            });
            Ok(or_none(
                &lines.collect::<Vec<_>>(),
                "there is no tenant yet",
            ))
        }
    })
    .await
}

/// Does what is asked of API keys. Returns what a person, or with `--json` a program, wants to read.
///
/// # Errors
/// The database cannot be used, or there is no such tenant or key.
pub async fn key(config: &Config, command: Key) -> anyhow::Result<String> {
    with_storage(config, async |storage| match command {
        Key::Create { tenant, name, json } => {
            check_name(&name)?;
            let key = ApiKey::generate();
            let scope = storage.scope(tenant).await?;
            let found = tenants::find_limits(&scope).await?;
            found.with_context(|| format!("there is no tenant {tenant}"))?;
            api_keys::insert(&scope, &key.id, &key.digest(), &name).await?;
            scope.commit().await?;
            let (id, key) = (key.id.as_str(), key.expose());
            if json {
                return Ok(serde_json::to_string(&MadeKey { id, key })?);
            }
            Ok(key)
        }
        Key::List { tenant, json } => {
            let scope = storage.scope(tenant).await?;
            let all = api_keys::list(&scope).await?;
            if json {
                return Ok(serde_json::to_string(&all)?);
            }
            let lines = all.iter().map(|key| {
                let revoked = if key.revoked_at.is_some() {
                    "  revoked"
                } else {
                    ""
                };
                format!("{}  {}{revoked}", key.id, key.name)
            });
            Ok(or_none(&lines.collect::<Vec<_>>(), "the tenant has no key"))
        }
        Key::Revoke { id } => revoke(storage, &id).await,
    })
    .await
}

async fn revoke(storage: &Storage, id: &str) -> anyhow::Result<String> {
    let found = storage.find_api_key(id).await?;
    let key = found.with_context(|| format!("there is no key {id}"))?;
    let scope = storage.scope(key.tenant).await?;
    let was_valid = api_keys::revoke(&scope, id).await?;
    scope.commit().await?;
    anyhow::ensure!(was_valid, "the key {id} was revoked before");
    Ok(format!("revoked: {id}"))
}

fn check_name(name: &str) -> anyhow::Result<()> {
    let is_name = (1..=limits::NAME_CHARS).contains(&name.chars().count())
        && !name.chars().any(char::is_control)
        && !name.trim().is_empty();
    anyhow::ensure!(
        is_name,
        "a name has 1 to 200 characters, none of them a control character"
    );
    Ok(())
}

pub(super) fn or_none(lines: &[String], none: &str) -> String {
    if lines.is_empty() {
        none.to_owned()
    } else {
        lines.join("\n")
    }
}
