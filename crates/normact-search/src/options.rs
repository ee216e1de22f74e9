//! What is compared and how: strategies, evolution, and what a worker needs to know.

use normact_ir::Layer;
use serde::{Deserialize, Serialize};

use crate::fitness::Protocol;
use crate::genotype::Space;
use crate::selection::Winner;

/// How a run finds its candidates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Tournament selection with mutation; layers are tested before they are trained.
    Evolution,
    /// Random layers, tested before they are trained.
    RandomTested,
    /// Random layers, trained without the tests in the networks.
    Random,
    /// Given layers.
    Fixed,
}

impl Strategy {
    /// Every strategy.
    pub const ALL: [Strategy; 4] = [Strategy::Evolution, Strategy::RandomTested, Strategy::Random, Strategy::Fixed];

    /// The name in configurations and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Evolution => "evolution",
            Strategy::RandomTested => "random-tested",
            Strategy::Random => "random",
            Strategy::Fixed => "fixed",
        }
    }

    /// The strategy of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.name() == name)
    }

    pub(crate) fn protocol(self) -> Protocol {
        match self {
            Strategy::Evolution | Strategy::RandomTested => Protocol::Tested,
            Strategy::Random | Strategy::Fixed => Protocol::Untested,
        }
    }
}

/// How evolution goes. The defaults are those of the paper as far as they are known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evolution {
    /// Layers that can have children: so many of the most recent ones.
    pub population: usize,
    /// The share of them that takes part in a tournament.
    pub tournament: f64,
    /// How the winner is found.
    pub winner: Winner,
    /// Mutations of a child.
    pub mutations: usize,
    /// The chance that a candidate is drawn at random instead.
    pub fresh: f64,
    /// Random candidates before the first child.
    pub initial: usize,
}

impl Default for Evolution {
    fn default() -> Self {
        Self { population: 2500, tournament: 0.05, winner: Winner::Pareto, mutations: 2, fresh: 0.5, initial: 0 }
    }
}

/// What a worker needs to know.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where layers are drawn from.
    pub space: Space,
    /// Whether results that are the same at every position are judged like others; otherwise they are
    /// rejected for their structure, in every run but that of the given layers.
    pub mere_statistics: bool,
    /// How evolution goes.
    pub evolution: Evolution,
    /// The layers of [`Strategy::Fixed`], by name.
    pub fixed: Vec<(String, Layer)>,
    /// The seed of every training.
    pub evaluation_seed: u64,
    /// Seconds after which another worker takes over what this one has left.
    pub lease_seconds: f64,
    /// Whether this worker has the search to itself. It then proposes nothing before it knows the verdicts of
    /// what is leased when it starts: an earlier worker died over that, perhaps on another machine, and the
    /// history is the same only if that verdict comes next.
    pub is_alone: bool,
    /// After so many workers have died over a layer it is taken to be the reason and is rejected; 0 for never.
    /// Processes that are killed from outside count too, since nobody can tell, so it is to be more than that ever
    /// happens to one layer.
    pub max_deaths: u64,
    /// After so many errors in judging a layer it is rejected, with the last error; 0 for never. Each error stops
    /// the worker, as it may have nothing to do with the layer; without a limit a layer that cannot be judged
    /// would stop the search each time it is started.
    pub max_failures: u64,
}

impl Options {
    /// [`Options::max_deaths`] where nothing else is said.
    pub const MAX_DEATHS: u64 = 50;
    /// [`Options::max_failures`] where nothing else is said.
    pub const MAX_FAILURES: u64 = 3;
}
