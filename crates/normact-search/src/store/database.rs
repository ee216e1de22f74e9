//! What the store needs of a database, so that its SQL is written once: statements with numbered
//! parameters, rows, transactions. Words that differ are in braces: `{now}` is the database's clock in
//! seconds, `{lock}` keeps a row for this transaction, `{take}` does and passes over rows that others keep.

use super::StoreError;

/// A value of a column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Integer(i64),
    Real(f64),
    Text(String),
}

impl Value {
    pub(super) fn as_integer(&self) -> Option<i64> {
        if let Value::Integer(value) = self { Some(*value) } else { None }
    }

    pub(super) fn as_real(&self) -> Option<f64> {
        if let Value::Real(value) = self { Some(*value) } else { None }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        if let Value::Text(value) = self { Some(value) } else { None }
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Value::Integer(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Real(value)
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.to_owned())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

/// A row of a result.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row(pub(super) Vec<Value>);

impl Row {
    pub(super) fn integer(&self, column: usize) -> Result<i64, StoreError> {
        match self.0.get(column) {
            Some(Value::Integer(value)) => Ok(*value),
            other => Err(StoreError::damaged(format!("column {column} holds {other:?}, not an integer"))),
        }
    }

    pub(super) fn real(&self, column: usize) -> Result<f64, StoreError> {
        match self.0.get(column) {
            Some(Value::Real(value)) => Ok(*value),
            // SQLite gives whole numbers as integers.
            Some(Value::Integer(value)) => Ok(*value as f64),
            other => Err(StoreError::damaged(format!("column {column} holds {other:?}, not a number"))),
        }
    }

    pub(super) fn text(&self, column: usize) -> Result<&str, StoreError> {
        self.optional_text(column)?
            .ok_or_else(|| StoreError::damaged(format!("column {column} holds nothing where a text belongs")))
    }

    pub(super) fn optional_text(&self, column: usize) -> Result<Option<&str>, StoreError> {
        match self.0.get(column) {
            Some(Value::Text(value)) => Ok(Some(value)),
            Some(Value::Null) => Ok(None),
            other => Err(StoreError::damaged(format!("column {column} holds {other:?}, not a text"))),
        }
    }

    pub(super) fn optional_integer(&self, column: usize) -> Result<Option<i64>, StoreError> {
        match self.0.get(column) {
            Some(Value::Null) => Ok(None),
            _ => self.integer(column).map(Some),
        }
    }
}

/// Columns of a table, for rows that are inserted together.
pub(super) struct Columns {
    pub(super) table: &'static str,
    pub(super) names: &'static [(&'static str, Kind)],
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Integer,
    Real,
    Text,
}

/// A connection.
pub(super) trait Database: Send {
    /// Runs a statement and tells how many rows it changed.
    fn execute(&mut self, sql: &str, values: &[Value]) -> Result<u64, StoreError>;
    /// Runs a statement that gives rows.
    fn query(&mut self, sql: &str, values: &[Value]) -> Result<Vec<Row>, StoreError>;
    /// Inserts rows with a value for each of the columns, at the cost of one statement.
    fn insert(&mut self, columns: &Columns, rows: &[Vec<Value>]) -> Result<(), StoreError>;
    /// Runs several statements without parameters.
    fn batch(&mut self, sql: &str) -> Result<(), StoreError>;
    /// Begins a transaction.
    fn begin(&mut self) -> Result<(), StoreError>;
    /// Begins a transaction whose commit need not wait for the disk: should the server break down within a moment,
    /// it may not have happened.
    fn begin_loosely(&mut self) -> Result<(), StoreError> {
        self.begin()
    }
    /// Ends a transaction; what it did stays.
    fn commit(&mut self) -> Result<(), StoreError> {
        self.batch("COMMIT")
    }
    /// Ends a transaction; what it did is undone.
    fn roll_back(&mut self) -> Result<(), StoreError> {
        self.batch("ROLLBACK")
    }
    /// Keeps every other process from changing the tables while this transaction makes them.
    fn lock_schema(&mut self) -> Result<(), StoreError>;
    /// Whether there is a table of that name.
    fn has_table(&mut self, name: &str) -> Result<bool, StoreError>;
}
