//! Rows read column by column.

use serde::de::value::{Error as ValueError, StrDeserializer};
use serde::de::{DeserializeOwned, IntoDeserializer as _};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use uuid::Uuid;

use crate::StorageError;

/// Reads columns of a row; a value that does not fit is an error that names table, column and row.
pub(crate) struct Fields<'a> {
    /// The table the row is of.
    pub table: &'static str,
    /// The row.
    pub row: &'a Row,
}

impl<'a> Fields<'a> {
    /// A value of the column's own type.
    pub fn get<T: FromSql<'a>>(&self, column: &'static str) -> Result<T, StorageError> {
        self.row
            .try_get(column)
            .map_err(|_| self.unreadable(column))
    }

    /// A number that is never negative.
    pub fn count(&self, column: &'static str) -> Result<u64, StorageError> {
        u64::try_from(self.get::<i64>(column)?).map_err(|_| self.unreadable(column))
    }

    /// A number that is never negative, or NULL.
    pub fn optional_count(&self, column: &'static str) -> Result<Option<u64>, StorageError> {
        self.get::<Option<i64>>(column)?
            .map(|value| u64::try_from(value).map_err(|_| self.unreadable(column)))
            .transpose()
    }

    /// A word of a closed set, spelled as on the wire; `None` for NULL and for a word that only another
    /// version of this program knows.
    pub fn optional_word<T: DeserializeOwned>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StorageError> {
        let Some(word) = self.get::<Option<&str>>(column)? else {
            return Ok(None);
        };
        let word: StrDeserializer<'_, ValueError> = word.into_deserializer();
        Ok(T::deserialize(word).ok())
    }

    /// The error for a value that was read but means nothing.
    pub fn unreadable(&self, column: &'static str) -> StorageError {
        let row = ["id", "session_id", "tenant_id"]
            .iter()
            .find_map(|name| self.row.try_get::<_, Uuid>(*name).ok())
            .map_or_else(|| String::from("(unknown)"), |id| id.to_string());
        StorageError::Row {
            table: self.table,
            column,
            row,
        }
    }
}

/// A count as PostgreSQL stores it. No count of ours comes near the limit.
pub(crate) fn bigint(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
