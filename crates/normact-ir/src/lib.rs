//! The middle of normact: primitives, computation graphs, axes and shapes, and what a graph means.
//!
//! A layer is a [`Dag`] of elementwise primitives ([`Prim`]), moments ([`Moment`]) over index sets
//! ([`IndexSet`]), trainable parameters and constants. [`infer`] tells which axes each value varies
//! along, [`check`] whether a concrete input fits, [`findings`] what is suspicious; [`evaluate`] is
//! the f64 meaning with its gradient, the yardstick for every back-end; [`json`] is the form other
//! programs exchange; [`random`] draws graphs; [`stated`] compares a gradient that a text states.
//!
//! The crate knows no text, no e-graph and no tensor library.

mod array;
mod axes;
mod buffers;
mod dag;
mod eval;
mod findings;
mod gradcheck;
mod interval;
pub mod json;
mod layer;
mod math;
mod prim;
pub mod random;
mod reduction;
mod scalar;
mod shape;
pub mod stated;
pub mod table;

pub use array::Array;
pub use axes::{Axes, Channels, Groups, INDEX_SETS, IndexSet};
pub use buffers::{Buffer, Buffers};
pub use dag::{
    Builder, Dag, DagError, Extent, MAX_NODES, MomentOp, NodeId, Op, Operands, Param, ParamId, Running, Tracking,
};
pub use eval::{EvalError, Evaluation, Gradients, Inputs, Mode, bessel, evaluate};
pub use findings::{Finding, findings, ranges};
pub use gradcheck::{GradientCheck, gradcheck};
pub use interval::Interval;
pub use layer::Layer;
pub use prim::{Arity, Law, Moment, Prim, Quantity, Slope};
pub use reduction::Reduction;
pub use scalar::Scalar;
pub use shape::{Shape, ShapeError, ShapeNote, averaged_elements, check, groups_for, infer};
