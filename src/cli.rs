//! Commands that are not the server.

use clap::Subcommand;

use crate::app::Database;
use crate::config::Config;
use crate::storage::migrations::{self, MigrationStatus};

/// `hubbub migrate`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Migrate {
    /// Apply what is not applied yet.
    Up,
    /// Undo the newest migrations.
    Down {
        /// How many.
        #[arg(long, default_value_t = 1)]
        steps: u32,
    },
    /// Show what is applied.
    Status,
}

/// Migrates the configured database, or the private one. Answers what a person wants to read.
///
/// # Errors
/// The database cannot be reached, or refuses.
pub async fn migrate(config: &Config, command: Migrate) -> anyhow::Result<String> {
    let database = Database::start(config).await?;
    let done = migrate_in(&database, command).await;
    database.stop().await;
    done
}

async fn migrate_in(database: &Database, command: Migrate) -> anyhow::Result<String> {
    let config = &database.config;
    // Where one role does everything, the server's own URL is the owner's too.
    let url = config.migration_url.as_ref().unwrap_or(&config.url);
    Ok(match command {
        Migrate::Up => listed("applied", &migrations::up(config, url).await?),
        Migrate::Down { steps } => listed(
            "undone",
            &migrations::down(config, url, usize::try_from(steps)?).await?,
        ),
        Migrate::Status => {
            let status = migrations::status(config, url).await?;
            status.iter().map(line).collect::<Vec<_>>().join("\n")
        }
    })
}

fn listed(what: &str, versions: &[i64]) -> String {
    if versions.is_empty() {
        return format!("nothing to be {what}");
    }
    let versions: Vec<String> = versions
        .iter()
        .map(|version| format!("{version:04}"))
        .collect();
    format!("{what}: {}", versions.join(", "))
}

fn line(status: &MigrationStatus) -> String {
    let when = status
        .applied_at
        .map_or("not applied".to_owned(), |at| format!("applied {at}"));
    format!("{:04} {} {when}", status.version, status.name)
}
