//! normact graphs in the languages of other programs and of people: [`emit()`] for Burn, PyTorch, JAX and
//! ONNX, [`listing`] for the terminal, [`dot()`] for Graphviz. Text from a graph, and nothing else: no
//! tensor library, no files.

mod dot;
mod emit;
mod jax;
mod label;
mod listing;
mod onnx;
mod outline;
mod pytorch;
mod rust;
mod text;

pub use dot::dot;
pub use emit::{EmitError, EmittedFile, Options, Target, emit, type_name};
pub use listing::listing;
pub use rust::burn_module;
