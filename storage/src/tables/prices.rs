//! Table `prices`: what tokens cost. A new price never changes what was reckoned before it.

use deadpool_postgres::Pool;
use hubbub_protocol::Timestamp;
use serde::Serialize;

use crate::StorageError;
use crate::fields::{Fields, bigint};

const SET: &str = "INSERT INTO prices (upstream, model, input, cached_input, output, valid_from) \
    VALUES ($1, $2, $3, $4, $5, coalesce($6, now()))";
const LIST: &str = "SELECT upstream, model, input, cached_input, output, valid_from FROM prices \
    ORDER BY upstream, model, valid_from";

/// What a million tokens cost, in micro-cents: 100,000,000 are one dollar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Price {
    /// The upstream's configured name.
    pub upstream: String,
    /// The model; empty for all that have no price of their own.
    pub model: String,
    /// Of the prompt.
    pub input: u64,
    /// Of the part of the prompt that the upstream read from its cache.
    pub cached_input: u64,
    /// Of the answer.
    pub output: u64,
    /// Until the next price of the model begins. `None` when it is set: from now on.
    pub valid_from: Option<Timestamp>,
}

/// See [`Storage::set_price`](crate::Storage::set_price).
pub(crate) async fn set(pool: &Pool, price: &Price) -> Result<(), StorageError> {
    let valid_from = price
        .valid_from
        .and_then(|at| jiff::Timestamp::from_millisecond(at.unix_ms()).ok());
    let client = pool.get().await?;
    let statement = client.prepare_cached(SET).await?;
    let rates = [price.input, price.cached_input, price.output].map(bigint);
    client
        .execute(
            &statement,
            &[
                &price.upstream,
                &price.model,
                &rates[0],
                &rates[1],
                &rates[2],
                &valid_from,
            ],
        )
        .await?;
    Ok(())
}

/// All of them, by upstream, model and time.
pub(crate) async fn list(pool: &Pool) -> Result<Vec<Price>, StorageError> {
    let client = pool.get().await?;
    let statement = client.prepare_cached(LIST).await?;
    let rows = client.query(&statement, &[]).await?;
    let read = |row| {
        let fields = Fields {
            table: "prices",
            row,
        };
        Ok(Price {
            upstream: fields.get("upstream")?,
            model: fields.get("model")?,
            input: fields.count("input")?,
            cached_input: fields.count("cached_input")?,
            output: fields.count("output")?,
            valid_from: Some(fields.get::<jiff::Timestamp>("valid_from")?.into()),
        })
    };
    rows.iter().map(read).collect()
}
