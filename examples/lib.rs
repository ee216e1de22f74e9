//! Programs and formulas to start from: `cargo run --release --example own_model`, and the `.nact`
//! files beside this one.
