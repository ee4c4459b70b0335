//! Reads typed values out of rows.

use std::str::FromStr;

use jiff::Timestamp;
use pool_model::Port;
use sqlx::{Row, sqlite::SqliteRow};

use crate::StoreError;

/// A row with typed getters. What is no value of the type is an error, never a panic.
pub(crate) struct Typed<'r>(pub(crate) &'r SqliteRow);

impl Typed<'_> {
    pub(crate) fn text(&self, column: &'static str) -> Result<String, StoreError> {
        self.0.try_get(column).map_err(StoreError::query("read a text"))
    }

    pub(crate) fn optional_text(&self, column: &'static str) -> Result<Option<String>, StoreError> {
        self.0.try_get(column).map_err(StoreError::query("read a text"))
    }

    /// Anything that is stored as its text: ids above all.
    pub(crate) fn parse<T: FromStr>(&self, column: &'static str) -> Result<T, StoreError> {
        let text = self.text(column)?;
        text.parse().map_err(|_| corrupt(column, &text))
    }

    pub(crate) fn parse_optional<T: FromStr>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let text = self.optional_text(column)?;
        text.map(|text| text.parse().map_err(|_| corrupt(column, &text))).transpose()
    }

    /// Any integer that is stored as BIGINT.
    pub(crate) fn number<T: TryFrom<i64>>(&self, column: &'static str) -> Result<T, StoreError> {
        let number: i64 = self.0.try_get(column).map_err(StoreError::query("read a number"))?;
        T::try_from(number).map_err(|_| corrupt(column, &number.to_string()))
    }

    /// An integer that may be NULL.
    pub(crate) fn optional_number<T: TryFrom<i64>>(
        &self,
        column: &'static str,
    ) -> Result<Option<T>, StoreError> {
        let number: Option<i64> =
            self.0.try_get(column).map_err(StoreError::query("read a number"))?;
        let typed = |number| T::try_from(number).map_err(|_| corrupt(column, &number.to_string()));
        number.map(typed).transpose()
    }

    pub(crate) fn port(&self, column: &'static str) -> Result<Port, StoreError> {
        let port: u16 = self.number(column)?;
        Port::try_from(port).map_err(|_| corrupt(column, &port.to_string()))
    }

    pub(crate) fn flag(&self, column: &'static str) -> Result<bool, StoreError> {
        Ok(self.number::<i64>(column)? != 0)
    }

    pub(crate) fn time(&self, column: &'static str) -> Result<Timestamp, StoreError> {
        time(column, self.number(column)?)
    }

    pub(crate) fn optional_time(
        &self,
        column: &'static str,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.optional_number(column)?.map(|ms| time(column, ms)).transpose()
    }
}

fn time(column: &'static str, ms: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(ms).map_err(|_| corrupt(column, &ms.to_string()))
}

fn corrupt(column: &'static str, found: &str) -> StoreError {
    StoreError::Corrupt { column, found: found.chars().take(64).collect() }
}

/// A number as BIGINT; what is over `i64::MAX` is stored as that (byte counts and the like).
pub(crate) fn bigint(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
