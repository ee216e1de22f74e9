//! ONNX models: what emitted ones compute, and what is read back from them.

mod agreement;
mod case;
mod exported;
mod hostile;
mod import;
mod layers;
