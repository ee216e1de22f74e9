//! normact graphs in the languages of other programs and of people: [`emit()`] for Burn, PyTorch, JAX and
//! ONNX, [`listing`] for the terminal, [`dot()`] for Graphviz, [`mermaid()`] for Markdown, [`svg()`] as a
//! picture, [`latex()`] for a paper. Text from a graph, and nothing else: no tensor library, no files.

mod dot;
mod drawing;
mod emit;
mod jax;
mod label;
mod latex;
mod layers;
mod listing;
mod mermaid;
mod onnx;
mod outline;
mod python;
mod pytorch;
mod rust;
mod svg;
mod text;

pub use dot::dot;
pub use emit::{EmitError, EmittedFile, Options, Target, emit, type_name};
pub use latex::latex;
pub use listing::listing;
pub use mermaid::mermaid;
pub use onnx::{ImportError, ImportErrors, Imported, import_onnx};
pub use rust::burn_module;
pub use svg::svg;
