//! What commits messages and ends of replies: [`append`].
//!
//! Nearly every entry is as expected: its session exists, it is no repeat, its reply is still owed. A few of
//! those are written by one statement each ([`fresh`]), which writes nothing if anything is not so. What
//! is left, and what is many, goes the careful way ([`careful`]): lock, read, decide, write.

mod careful;
mod fresh;
mod plan;
mod rows;
mod text;
mod write;

use deadpool_postgres::Pool;
use hubbub_actors::ports::{Append, AppendRefusal, Appended};

use crate::StorageError;

/// What became of each entry.
type Results = Vec<Result<Appended, AppendRefusal>>;

/// Commits a batch; see [`hubbub_actors::ports::MessageStore::append`].
pub(crate) async fn append(pool: &Pool, batch: Vec<Append>) -> Result<Results, StorageError> {
    if !fresh::suits(&batch) {
        return careful::append(pool, batch).await;
    }
    let written = fresh::append(pool, &batch).await?;
    let left = batch.into_iter().zip(&written);
    let left: Vec<Append> = left
        .filter(|(_, written)| written.is_none())
        .map(|(entry, _)| entry)
        .collect();
    let mut decided = careful::append(pool, left).await?.into_iter();
    let results = written.into_iter().map(|written| match written {
        Some(appended) => Some(Ok(appended)),
        None => decided.next(),
    });
    // As many as were left: it answers each.
    Ok(results.flatten().collect())
}
