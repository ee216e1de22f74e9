//! normact layers as Burn modules.
//!
//! [`NormAct`] is a [`burn::module::Module`] made at run time from a [`normact_ir::Layer`]. It takes
//! part in everything Burn does with modules: it nests in a `#[derive(Module)]` struct, trains with
//! Burn's optimizers, and its parameters and running statistics appear in records under the names
//! of the formula (`norm.gamma`, `norm.running_var`).
//!
//! A forward pass lowers the graph operation by operation to Burn tensors, so that it runs on every
//! back-end and Burn's autodiff derives the gradient. It is the plain reading of the graph, and the
//! yardstick for a fused path behind the same module. What the operations mean is
//! [`normact_ir::evaluate`]; the results agree with it to rounding.
//!
//! * `module` is the module: parameters, buffers, shapes and number formats;
//! * `lower` runs the graph in the one view that all ranks share, samples x channels x positions;
//! * `moments` are statistics over index sets;
//! * `tensor_math` are the operations whose Burn namesake differs in a value or a gradient.

mod error;
mod fused;
mod lower;
mod module;
mod moments;
mod tensor_math;
mod upstream;

pub use error::{BuildError, ValueError};
pub use fused::{Path, reset_most_in_use, result_bytes};
pub use module::NormAct;
pub use normact_cpu::copy;
pub use upstream::upstream;
