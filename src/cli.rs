//! Commands that are not the server.

pub mod tenants;
pub mod usage;

use clap::Subcommand;

use crate::app::Database;
use crate::config::Config;
use hubbub_storage::migrations::{self, FileMatch, LiveNodes, Loss, MigrationStatus};
use hubbub_storage::{DatabaseUrl, Storage, StorageConfig};

/// `hubbub migrate`.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum Migrate {
    /// Apply what is not applied yet.
    Up,
    /// Undo the newest migrations, with everything that is stored in what they made.
    Down {
        /// How many.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        steps: u32,

        /// Destroy what is stored.
        #[arg(long)]
        yes: bool,
    },
    /// Show what is applied.
    Status,
}

/// Migrates the configured database, or the private one, be it a running server's. Returns what a person
/// wants to read.
///
/// # Errors
/// The database cannot be reached, or refuses; or it would be left without what somebody needs.
pub async fn migrate(config: &Config, command: Migrate) -> anyhow::Result<String> {
    let database = Database::start_or_join(config).await?;
    let done = migrate_in(&database, command).await;
    database.stop().await;
    done
}

/// Works with what the configured database, or the private one, stores, be it a running server's.
async fn with_storage(
    config: &Config,
    work: impl AsyncFnOnce(&Storage) -> anyhow::Result<String>,
) -> anyhow::Result<String> {
    let database = Database::start_or_join(config).await?;
    let done = async {
        let mut config = database.config.clone();
        if !database.is_ours {
            // Nothing is migrated under a server that works with it.
            config.migration_url = None;
        }
        let storage = Storage::connect(&config).await?;
        let ready = storage.ready().await?;
        anyhow::ensure!(
            ready.is_ready(),
            "the database has schema {}, and this version of hubbub needs {}: run hubbub migrate up",
            ready.schema_version,
            ready.expected_version
        );
        let done = work(&storage).await;
        storage.close();
        done
    };
    let done = done.await;
    database.stop().await;
    done
}

async fn migrate_in(database: &Database, command: Migrate) -> anyhow::Result<String> {
    let config = &database.config;
    // Where one role does everything, the server's own URL is the owner's too.
    let url = config.migration_url.as_ref().unwrap_or(&config.url);
    match command {
        Migrate::Up => {
            let applied = migrations::up(config, url).await?;
            if applied.is_empty() {
                return Ok("nothing to apply: the schema is up to date".to_owned());
            }
            Ok(format!("applied: {}", numbers(&applied)))
        }
        Migrate::Down { steps, yes } => {
            if !database.is_ours {
                refuse_beside(migrations::live_nodes(config, url).await?)?;
            }
            down(config, url, usize::try_from(steps)?, yes).await
        }
        Migrate::Status => {
            let status = migrations::status(config, url).await?;
            Ok(status.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Nothing is taken away from under a server that works with it.
fn refuse_beside(live: LiveNodes) -> anyhow::Result<()> {
    let LiveNodes { nodes, seconds } = live;
    let servers = match nodes {
        0 => return Ok(()),
        1 => "a server is running on this database: stop it".to_owned(),
        _ => format!("{nodes} servers are running on this database: stop them"),
    };
    anyhow::bail!(
        "{servers} first; one that was killed counts as running for {seconds} more seconds. Nothing was \
         changed"
    )
}

async fn down(
    config: &StorageConfig,
    url: &DatabaseUrl,
    steps: usize,
    is_meant: bool,
) -> anyhow::Result<String> {
    let loss = migrations::loss_of_down(config, url, steps).await?;
    if loss.versions.is_empty() {
        return Ok("nothing to undo: no migration is applied".to_owned());
    }
    let destroyed = listed(&loss);
    anyhow::ensure!(
        loss.lost.is_empty() || is_meant,
        "undoing {} destroys\n{destroyed}\nNothing was changed. Make a backup, then run it again with \
         --yes if this is meant",
        numbers(&loss.versions)
    );
    let undone = migrations::down(config, url, steps).await?;
    let undone = format!("undone: {}", numbers(&undone));
    Ok(if destroyed.is_empty() {
        undone
    } else {
        format!("{undone}\ndestroyed:\n{destroyed}")
    })
}

fn listed(loss: &Loss) -> String {
    let lines = loss.lost.iter().map(|lost| {
        // A column is named with its table.
        let (one, many) = if lost.name.contains('.') {
            ("value", "values")
        } else {
            ("row", "rows")
        };
        let unit = if lost.count == 1 { one } else { many };
        format!("  {} {unit} of {}", lost.count, lost.name)
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn numbers(versions: &[i64]) -> String {
    let versions = versions.iter().map(|version| format!("{version:04}"));
    versions.collect::<Vec<_>>().join(", ")
}

fn line(status: &MigrationStatus) -> String {
    let when = status
        .applied_at
        .map_or("not applied".to_owned(), |at| format!("applied {at}"));
    let note = match status.file {
        FileMatch::Same => "",
        FileMatch::Edited => ", edited since",
        FileMatch::Unknown => ", not known to this version of hubbub",
    };
    format!("{:04} {} {when}{note}", status.version, status.name)
}
