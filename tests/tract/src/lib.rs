//! See `tests/agreement.rs`.
