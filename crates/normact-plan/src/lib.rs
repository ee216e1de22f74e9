//! The gradient of normact layers, and how a layer with its gradient runs in passes over memory.
//!
//! * [`graph`] is the joint graph of values and adjoints, simplified as it is built;
//! * [`joint`] makes it from a layer, by reverse accumulation over the table's derivatives;
//! * [`Plan`] cuts the input into blocks and the work into passes, for every back-end to execute;
//! * [`gradient_text`] prints a gradient as text of the language, [`plan_text`] a plan.
//!
//! The crate reads no text and knows no tensor library.

mod adjoint;
pub mod graph;
mod nested;
mod print;
mod schedule;

pub use adjoint::{Joint, joint};
pub use print::{gradient_text, plan_text};
pub use schedule::{HELD_BLOCK, KEPT_SHARE, Kind, Pass, Plan, Reduction, Schedule, Sizes};
