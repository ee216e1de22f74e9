//! normact graphs in the languages of other programs and of people: [`listing`] for the terminal,
//! [`dot()`] for Graphviz. Text from a graph, and nothing else: no tensor library, no files.

mod dot;
mod label;
mod listing;

pub use dot::dot;
pub use listing::listing;
