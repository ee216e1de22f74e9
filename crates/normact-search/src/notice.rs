//! What a worker tells while it works, for whoever watches it: the search goes on, but somebody may want to know.

/// Something that a worker noticed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Notice {
    /// The heart cannot reach the database.
    #[error("cannot tell the database that this worker is alive, which is tried again: {problem}")]
    NoBeat {
        /// What is in the way.
        problem: String,
    },
    /// It can again.
    #[error("the database knows again that this worker is alive")]
    BeatAgain,
    /// The lease of what is being judged was not prolonged in time.
    #[error("another worker has taken over what this one is judging, so its result is of no use")]
    LeaseLost,
    /// A layer is rejected because it cannot be judged.
    #[error("a layer is passed over, {detail}: {graph}")]
    PassedOver {
        /// The genotype, or the name of a fixed layer.
        graph: String,
        /// Why.
        detail: String,
    },
}
