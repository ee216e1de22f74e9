//! The suite of normact: `cases/` holds formulas with what the program says about them, `vectors/`
//! reference tensors by other implementations, `tests/suite/` what users rely on.
