use normact_macros::layer;

layer!("layers/missing.nact");

layer!(pub Wrong = "layers/wrong.nact");

layer!(pub Two = "layers/two.nact");

layer!(pub Two = "layers/two.nact:frist");

fn main() {}
