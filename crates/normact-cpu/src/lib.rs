//! Runs normact plans on slices of `f32`: a hand-fused layer for any formula, on the CPU.
//!
//! [`Compiled`] is a layer planned for one mode, one shape and one direction of memory. Its forward
//! pass reads the input once or a few times and writes the output once; its backward pass needs the
//! input, the upstream gradient and the few numbers the forward pass kept.
//!
//! * `program` turns a schedule into steps on chunks of some hundred elements and arithmetic on
//!   scalars;
//! * `run` walks over blocks that fit the cache, on all cores;
//! * `native` makes machine code of the steps of a pass, where the processor has the instructions;
//! * `vector` are the loops that interpret them elsewhere, `math` the elementary functions in them;
//! * `slots` are parameters and statistics, `output` the result that several threads write.
//!
//! Statistics are accumulated in f64, over chunks that are reduced in f32: means and variances from
//! differences from a number near the mean. Per-channel arithmetic is f64.

mod compiled;
mod math;
mod native;
mod output;
mod program;
mod run;
mod slots;
mod vector;

pub use compiled::{Backward, Compiled, Forward};
#[doc(hidden)]
pub use native::Instructions;
pub use output::{View, ViewMut};
pub use program::Lane;
pub use run::copy;
