use normact_macros::layer;

layer! {}

layer! { pub EvoNorm }

layer! { EvoNorm = 3 }

layer! { #[inline] EvoNorm { x * x } }

layer! { EvoNorm { x * x } more }

layer! { fn twice(x) = 2 * x }

fn main() {}
