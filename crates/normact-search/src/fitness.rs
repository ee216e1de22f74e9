//! What a search asks of the outside: how good a layer is.

use std::fmt;
use std::sync::atomic::AtomicBool;

use normact_ir::Layer;
use serde::{Deserialize, Serialize};

/// Judges layers. A search calls it from one worker; several workers have one each.
pub trait Fitness {
    /// What else than [`crate::structure`] tells is wrong with the graph of a layer, if anything. It is asked before
    /// a drawn layer is proposed; what it rejects costs nothing and is not counted.
    fn structure(&self, layer: &Layer) -> Option<String> {
        let _ = layer;
        None
    }

    /// Judges a layer; the same layer, seed and protocol give the same verdict.
    ///
    /// Where `is_void` is set meanwhile, another worker has taken the layer over, since this one could not be seen
    /// for too long. Whatever comes back is then of no use, so judging may end at once in any way.
    ///
    /// # Errors
    /// The layer cannot be judged, most often for a reason that has nothing to do with it; the worker stops.
    fn evaluate(
        &mut self,
        layer: &Layer,
        protocol: Protocol,
        seed: u64,
        is_void: &AtomicBool,
    ) -> Result<Verdict, String>;
}

/// How a layer is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Rejection tests first, then training.
    Tested,
    /// Training alone.
    Untested,
}

impl Protocol {
    /// The name in the store.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tested => "tested",
            Protocol::Untested => "untested",
        }
    }
}

/// What came out.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// One score per anchor, higher is better.
    Scored(Vec<f64>),
    /// It was not worth training to the end.
    Rejected {
        /// Which test it failed.
        reason: Reason,
        /// What was found, in words.
        detail: String,
    },
}

impl Verdict {
    /// Why the layer was rejected, if it was.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Verdict::Scored(_) => None,
            Verdict::Rejected { reason, .. } => Some(*reason),
        }
    }
}

/// Why a layer was rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its output does not depend on its input, or a statistic is degenerate.
    Structure,
    /// It learns too little in the first steps.
    Quality,
    /// Its gradients explode.
    Stability,
    /// The processes that judged it died or could not judge it, one after the other.
    Crash,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 4] = [Reason::Structure, Reason::Quality, Reason::Stability, Reason::Crash];

    /// The name in the store and in reports.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Structure => "structure",
            Reason::Quality => "quality",
            Reason::Stability => "stability",
            Reason::Crash => "crash",
        }
    }

    /// The reason of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
