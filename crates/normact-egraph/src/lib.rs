//! What a layer is equal to: its canonical key, proofs of equality, and simpler equal layers.
//!
//! A layer's identity is decided by rewriting it to a normal form (module `normal`) with the rules of
//! [`Rule`], one algebraic line each, on terms whose chains are flat and sorted (module `term`).
//! [`key`] is a hash of that form; [`Fingerprint`] tests the same function numerically and
//! independently; [`equiv`] proves two layers equal, a proof that [`check`] replays, or lets [`separate`]
//! search an input on which they differ; [`simplify`] finds the cheapest equal form by equality saturation.
//!
//! The crate reads and writes graphs of `normact-ir`; it knows no text and no tensor library.

mod affine;
mod canonical;
mod check;
mod equiv;
mod fingerprint;
mod key;
mod labels;
mod normal;
mod proof;
mod read;
mod readable;
mod rules;
mod simplify;
#[cfg(test)]
mod soundness;
mod store;
mod term;
mod witness;
mod write;

pub use canonical::{Canonical, canonical, canonical_rules};
pub use check::{Refuted, check};
pub use equiv::{Options, Unknown, Verdict, core, equiv};
pub use fingerprint::{Fingerprint, Fingerprinter, MAX_ASSIGNMENTS, fingerprint};
pub use key::{Canonicalizer, Key, Status, key, version};
pub use normal::{Budget, Relation};
pub use proof::{Proof, Step};
pub use rules::{Class, Rule, Theme};
pub use simplify::{Simplified, SimplifyBudget, SimplifyRule, simplify, simplify_rules};
pub use store::{Scores, Seen};
pub use witness::{Kind, MAX_MATCHINGS, Witness, separate};
