//! How domain values stand in columns, both ways. A value that no code of ours writes is
//! [`StorageError::Impossible`]. Must not know any table's columns.

use std::time::Duration;

use super::StorageError;
use crate::domain::clock::Timestamp;
use crate::domain::outage::Outage;
use crate::domain::policy::Rule;

/// Unsigned numbers as BIGINT; no counter of ours ever comes near the end.
pub(super) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Optional moments.
pub(super) fn millis(at: Option<Timestamp>) -> Option<i64> {
    at.map(Timestamp::as_millis)
}

/// PostgreSQL cannot hold U+0000 in text, so nothing stored has one: looking for it finds nothing on either database.
pub(super) fn is_storable(text: &str) -> bool {
    !text.contains('\0')
}

/// Names the table in errors.
#[derive(Clone, Copy)]
pub(super) struct Table(pub(super) &'static str);

impl Table {
    pub(super) fn impossible(self, column: &'static str) -> StorageError {
        StorageError::Impossible { table: self.0, column }
    }

    pub(super) fn count(self, column: &'static str, value: i64) -> Result<u64, StorageError> {
        u64::try_from(value).map_err(|_| self.impossible(column))
    }

    pub(super) fn small(self, column: &'static str, value: i64) -> Result<u32, StorageError> {
        u32::try_from(value).map_err(|_| self.impossible(column))
    }

    pub(super) fn duration(self, column: &'static str, millis: i64) -> Result<Duration, StorageError> {
        self.count(column, millis).map(Duration::from_millis)
    }

    pub(super) fn hash(self, column: &'static str, bytes: &[u8]) -> Result<[u8; 32], StorageError> {
        bytes.try_into().map_err(|_| self.impossible(column))
    }

    pub(super) fn rule(self, column: &'static str, role: String, version: i64) -> Result<Rule, StorageError> {
        Ok(Rule {
            role,
            version: self.small(column, version)?,
        })
    }

    /// All of it or nothing.
    pub(super) fn outage(
        self,
        tries: i64,
        since: Option<i64>,
        retry_at: Option<i64>,
        failure: Option<String>,
    ) -> Result<Option<Outage>, StorageError> {
        match (since, retry_at, failure) {
            (Some(since), Some(retry_at), Some(failure)) => Ok(Some(Outage {
                tries: self.small("tries", tries)?,
                since: Timestamp::from_millis(since),
                retry_at: Timestamp::from_millis(retry_at),
                failure,
            })),
            (None, None, None) => Ok(None),
            _ => Err(self.impossible("failure")),
        }
    }

    /// A word of a closed list.
    pub(super) fn word<T: Copy>(
        self,
        column: &'static str,
        word: &str,
        all: &[T],
        as_str: impl Fn(T) -> &'static str,
    ) -> Result<T, StorageError> {
        all.iter()
            .copied()
            .find(|value| as_str(*value) == word)
            .ok_or_else(|| self.impossible(column))
    }
}
