//! Emitted Python: golden files to read, names that cannot be, and, with PyTorch and JAX at hand, what the
//! files compute against the evaluator.

mod agreement;
mod cases;
mod golden;
mod layers;
mod names;
