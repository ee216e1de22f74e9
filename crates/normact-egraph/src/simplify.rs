//! The cheapest form of a layer to execute.

use normact_ir::Dag;

use crate::key::Status;
use crate::rules::Rule;

/// A simplified layer.
#[derive(Debug, Clone)]
pub struct Simplified {
    /// The form, equal to the layer by exact and guarded rules.
    pub dag: Dag,
    /// Each rule that was used, with how often.
    pub fired: Vec<(Rule, usize)>,
    /// The cost before and after: shared values count once.
    pub cost: (f64, f64),
    /// Whether saturation came to an end.
    pub status: Status,
}
