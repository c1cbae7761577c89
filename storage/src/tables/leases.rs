//! Leases of nodes: a node without one counts as dead.

use std::time::Duration;

use deadpool_postgres::Pool;
use hubbub_protocol::NodeId;

use crate::StorageError;
use crate::scope::Transaction;

/// How long a node's lease lasts. Renew it at least three times as often, and once before the first
/// reply is stored: a node without a lease counts as dead.
pub const NODE_LEASE: Duration = Duration::from_secs(15);

const RENEW: &str = "INSERT INTO nodes (id, alive_until) \
    VALUES ($1, clock_timestamp() + $2::float8 * interval '1 second') \
    ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until";
// A node that is not listed is dead, so forgetting dead ones changes nothing.
const FORGET_DEAD: &str =
    "DELETE FROM nodes WHERE alive_until < clock_timestamp() - interval '1 hour'";

/// Extends a node's lease, and forgets nodes that are long dead.
pub(crate) async fn renew_lease(writer: &Pool, node: NodeId) -> Result<(), StorageError> {
    let transaction = Transaction::on(writer).await?;
    transaction.begin().await?;
    transaction
        .execute(RENEW, &[&node.0, &NODE_LEASE.as_secs_f64()])
        .await?;
    transaction.execute(FORGET_DEAD, &[]).await?;
    transaction.commit().await
}
