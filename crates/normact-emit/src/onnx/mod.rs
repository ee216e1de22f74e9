//! Layers as ONNX models, and ONNX models as layers.
//!
//! [`emit`] writes a layer with operators of [`OPSET`], [`import_onnx`] reads a model back that is made of
//! operations the language has.

mod export;
mod import;
mod proto;

#[cfg(test)]
mod damage;
#[cfg(test)]
mod listing;

pub(crate) use export::emit;
pub use import::{ImportError, ImportErrors, Imported, import_onnx};

/// The version of the operator set that models are written in: the first that has every operator used. `Erf`
/// and `Sign` came with it; `Max` broadcasts from 8 on, and `ReduceMean` has its axes as an attribute up to 17.
const OPSET: i64 = 9;

/// The version of the format that a model is written in: the first in which an initializer need not be an
/// input.
const IR: i64 = 4;

/// The same for a model with functions.
const IR_WITH_FUNCTIONS: i64 = 8;

/// The domain of the functions that layers become.
const DOMAIN: &str = "normact";
