//! normact layers as Burn modules.
//!
//! [`NormAct`] is a [`burn::module::Module`] made at run time from a [`normact_ir::Layer`]. It takes
//! part in everything Burn does with modules: it nests in a `#[derive(Module)]` struct, trains with
//! Burn's optimizers, and its parameters and running statistics appear in records under the names
//! of the formula (`norm.gamma`, `norm.running_var`).
//!
//! A layer runs as one operation forward and one backward, from a plan ([`normact_plan`]); where that is not
//! possible it runs operation by operation, the plain reading of the graph, and says so. What the
//! operations mean is [`normact_ir::evaluate`]; the results agree with it to rounding.
//!
//! * `module` is the module: parameters, buffers, shapes and number formats;
//! * `prepared` is what is known of a layer before its first input, `running` a running average;
//! * `fused` is the one operation, on the CPU, on CubeCL runtimes and in autodiff;
//! * `lower` runs the graph operation by operation, in the one view that all ranks share, samples x
//!   channels x positions, `moments` are statistics over index sets there, and `tensor_math` the operations
//!   whose Burn namesake differs in a value or a gradient;
//! * `upstream` starts a backward pass from a given gradient.

mod error;
mod fused;
mod lower;
mod module;
mod moments;
mod prepared;
mod running;
mod tensor_math;
mod upstream;

pub use error::{BuildError, ValueError};
pub use fused::{Path, reset_most_in_use, result_bytes};
pub use module::NormAct;
pub use normact_cpu::copy;
pub use upstream::upstream;
