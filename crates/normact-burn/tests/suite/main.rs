//! The tests of the module, on the CPU and on WGPU.
//!
//! The yardstick is [`normact_ir::evaluate`]: `graphs` compares whole random layers with it,
//! `primitives` every operation on hard values, `stress` inputs that break careless statistics, and
//! `modules` what Burn does with the module around the forward pass.

mod devices;
mod graphs;
mod layers;
mod modules;
mod primitives;
mod reference;
mod stress;
mod ways;
