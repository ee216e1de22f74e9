//! A layer: a graph with a name.

use crate::dag::Dag;

/// A named computation graph.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Its name.
    pub name: String,
    /// What it computes.
    pub dag: Dag,
}
