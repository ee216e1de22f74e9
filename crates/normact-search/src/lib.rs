//! The search for layers, as in "Evolving Normalization-Activation Layers" (Liu et al. 2020): random graphs,
//! mutation, tournaments, rejection, and random search to compare with.
//!
//! [`work`] is the whole of it: propose, judge, store, again. What a layer is worth is passed in as a
//! [`Fitness`]; the crate knows no tensors. Everything is in a [`Store`], so that any number of processes
//! can take part and any of them can be killed. A [`Space`] draws and mutates [`Genotype`]s, [`tournament`]
//! chooses parents.

mod fitness;
mod genotype;
mod heart;
mod history;
mod measuring;
mod notice;
mod options;
mod process;
mod proposer;
mod ranking;
mod selection;
mod store;
mod structure;
mod worker;

pub use fitness::{Fitness, Protocol, Reason, Verdict};
pub use genotype::{Drawing, Genotype, INITIAL_NODES, MAX_GENES, NoGenotype, Space, Uniform};
pub use measuring::{Trainings, measure};
pub use notice::Notice;
pub use options::{Evolution, Options, Strategy};
pub use ranking::{mean, ranked};
pub use selection::{Winner, front, tournament};
pub use store::{Candidate, Evaluation, Measurement, Origin, Run, Store, StoreError, Training, place_of};
pub use structure::structure;
pub use worker::{End, SearchError, work};
