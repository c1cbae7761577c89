//! What taking migrations back would destroy, and whose work it would disturb: asked before it is done.

use std::collections::BTreeSet;

use tokio_postgres::Transaction;

use super::{DatabaseUrl, MIGRATIONS, Migration, Session, StorageConfig, StorageError, connect};
use crate::fields::Fields;

/// Tables that hold nothing of anybody: leases of servers, and a number that a new schema draws anew.
const HOUSEKEEPING: &[&str] = &["nodes", "deployment"];

const HAS_NODES: &str = "SELECT to_regclass('nodes') IS NOT NULL AS present";
const LIVE_NODES: &str = "SELECT count(*) AS nodes, \
    coalesce(ceil(extract(epoch FROM max(alive_until) - clock_timestamp())), 0)::int8 AS seconds \
    FROM nodes WHERE alive_until > clock_timestamp()";

// The owner, too, sees only the rows of a scope that it is not in, unless the tables let it. All of it is
// rolled back.
const UNCOVER: &str = "DO $$ DECLARE name regclass; BEGIN \
    FOR name IN SELECT oid FROM pg_class WHERE relforcerowsecurity \
        AND relnamespace = current_schema()::regnamespace AND pg_has_role(relowner, 'USAGE') LOOP \
      EXECUTE format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', name); \
    END LOOP; END $$";
const MAKE_COUNTERS: &str = "\
    CREATE FUNCTION hubbub_count_rows(name text) RETURNS int8 LANGUAGE plpgsql AS $$ \
    DECLARE found int8; BEGIN \
      EXECUTE format('SELECT count(*) FROM %I', name) INTO found; RETURN found; \
    END $$; \
    CREATE FUNCTION hubbub_count_values(name text, field text, usual text) RETURNS int8 \
    LANGUAGE plpgsql AS $$ DECLARE found int8; BEGIN \
      EXECUTE format('SELECT count(*) FROM %I WHERE %I::text IS DISTINCT FROM (%s)::text', \
        name, field, coalesce(usual, 'NULL')) INTO found; RETURN found; \
    END $$";
const COLUMNS: &str = "SELECT relname::text AS name, attname::text AS field, \
    pg_get_expr(adbin, adrelid) AS usual \
    FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid \
    LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum \
    WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') \
    AND NOT relispartition AND attnum > 0 AND NOT attisdropped ORDER BY relname, attnum";
const COUNT_ROWS: &str = "SELECT hubbub_count_rows($1) AS found";
const COUNT_VALUES: &str = "SELECT hubbub_count_values($1, $2, $3) AS found";

/// Servers that work with the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveNodes {
    /// How many have a lease.
    pub nodes: u64,
    /// Until the last of their leases would run out, in seconds.
    pub seconds: u64,
}

/// What taking migrations back does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The versions that would be undone, newest first.
    pub versions: Vec<i64>,
    /// What people would miss.
    pub lost: Vec<Lost>,
}

/// Something that would be gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// A table, or a column as `table.column`.
    pub name: String,
    /// How many rows, or values other than the default.
    pub count: u64,
}

/// Which servers have a lease on the database now.
///
/// # Errors
/// The database could not.
pub async fn live_nodes(
    config: &StorageConfig,
    url: &DatabaseUrl,
) -> Result<LiveNodes, StorageError> {
    let (client, connection) = connect(config, url).await?;
    let asked = async {
        let has_nodes: bool = client.query_one(HAS_NODES, &[]).await?.try_get("present")?;
        if !has_nodes {
            let (nodes, seconds) = (0, 0);
            return Ok(LiveNodes { nodes, seconds });
        }
        let row = client.query_one(LIVE_NODES, &[]).await?;
        let fields = Fields {
            table: "nodes",
            row: &row,
        };
        Ok(LiveNodes {
            nodes: fields.count("nodes")?,
            seconds: fields.count("seconds")?,
        })
    };
    let answer = asked.await;
    connection.abort();
    answer
}

/// What [`down`](super::down) by as many steps would destroy: it is tried, looked at, and rolled back.
///
/// # Errors
/// [`StorageError::Migration`], or the database could not.
pub async fn loss_of_down(
    config: &StorageConfig,
    url: &DatabaseUrl,
    steps: usize,
) -> Result<Loss, StorageError> {
    let mut session = Session::open(config, url).await?;
    let applied = session.applied(MIGRATIONS).await?.len();
    let undone: Vec<&Migration> = MIGRATIONS.iter().take(applied).rev().take(steps).collect();
    let transaction = session.work.transaction().await?;
    transaction.batch_execute(UNCOVER).await?;
    transaction.batch_execute(MAKE_COUNTERS).await?;
    let before = columns(&transaction).await?;
    transaction.batch_execute("SAVEPOINT before").await?;
    for migration in &undone {
        transaction.batch_execute(migration.down).await?;
    }
    let after = columns(&transaction).await?;
    transaction
        .batch_execute("ROLLBACK TO SAVEPOINT before")
        .await?;
    let lost = count_lost(&transaction, &before, &after).await?;
    transaction.rollback().await?;
    Ok(Loss {
        versions: undone.iter().map(|migration| migration.version).collect(),
        lost,
    })
}

/// A column, in the order of the tables and of their columns.
struct Column {
    table: String,
    name: String,
    /// Its default, as an expression.
    usual: Option<String>,
}

async fn columns(transaction: &Transaction<'_>) -> Result<Vec<Column>, StorageError> {
    let rows = transaction.query(COLUMNS, &[]).await?;
    let read = |row| {
        let fields = Fields {
            table: "pg_attribute",
            row,
        };
        Ok(Column {
            table: fields.get("name")?,
            name: fields.get("field")?,
            usual: fields.get("usual")?,
        })
    };
    rows.iter().map(read).collect()
}

async fn count_lost(
    transaction: &Transaction<'_>,
    before: &[Column],
    after: &[Column],
) -> Result<Vec<Lost>, StorageError> {
    let tables: BTreeSet<&str> = after.iter().map(|column| column.table.as_str()).collect();
    let fields: BTreeSet<(&str, &str)> = after
        .iter()
        .map(|column| (column.table.as_str(), column.name.as_str()))
        .collect();
    let mut counted = BTreeSet::new();
    let mut lost = Vec::new();
    for Column { table, name, usual } in before {
        if HOUSEKEEPING.contains(&table.as_str()) {
            continue;
        }
        let (name, row) = if !tables.contains(table.as_str()) {
            if !counted.insert(table) {
                continue;
            }
            let row = transaction.query_one(COUNT_ROWS, &[table]).await?;
            (table.clone(), row)
        } else if !fields.contains(&(table, name)) {
            let row = transaction
                .query_one(COUNT_VALUES, &[table, name, usual])
                .await?;
            (format!("{table}.{name}"), row)
        } else {
            continue;
        };
        let fields = Fields {
            table: "pg_class",
            row: &row,
        };
        let count = fields.count("found")?;
        if count > 0 {
            lost.push(Lost { name, count });
        }
    }
    Ok(lost)
}
