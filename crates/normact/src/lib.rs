//! normact: a text language and compiler for normalization-activation layers.
//!
//! A formula goes through these stages, each a function on values:
//!
//! ```text
//! text --parse--> syntax tree --names--> checked --build--> graph --check--> module
//! ```
//!
//! [`module()`] takes a formula to a Burn module; [`built_in`] are the layers that ship with the
//! program; [`load`] finds what a user names; [`train`] trains an image classifier around a layer;
//! [`egraph`] tells what layers are equal to. The command line is [`cli`]. Only this crate reads and
//! writes files.

pub mod anchors;
pub mod bench;
pub mod built_in;
mod canon;
pub mod cli;
mod compile;
pub mod data;
pub mod device;
mod failure;
pub mod files;
pub mod fitness;
pub mod load;
mod pytorch;
pub mod search;
pub mod train;

pub use compile::{built_in_module, from_text, module, module_from_layer};
pub use failure::{Failure, Impossible};
pub use normact_burn::{NormAct, Path, upstream};
pub use {normact_egraph as egraph, normact_ir as ir, normact_syntax as syntax};
