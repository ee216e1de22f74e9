//! ONNX models: what emitted ones compute, and what is read back from them.

mod agreement;
mod case;
mod hostile;
mod import;
mod layers;
