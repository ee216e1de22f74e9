//! The functions of `grammar/prelude.nact`, parsed once.

use std::sync::LazyLock;

use crate::ast::{Function, Item};
use crate::parse::parse;
use crate::source::Source;

const TEXT: &str = include_str!("../../../grammar/prelude.nact");

/// The functions every formula may use, in order.
pub fn functions() -> &'static [Function] {
    static FUNCTIONS: LazyLock<Vec<Function>> = LazyLock::new(|| {
        let (parsed, _) = parse(&source());
        parsed
            .file
            .items
            .into_iter()
            .filter_map(|item| match item {
                Item::Function(function) => Some(function),
                Item::Layer(_) | Item::Gradient(_) => None,
            })
            .collect()
    });
    &FUNCTIONS
}

/// The prelude's text.
pub fn source() -> Source {
    Source::new("prelude.nact", TEXT)
}
