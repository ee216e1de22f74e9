//! The layers that ship with normact, from `grammar/layers`.

use normact_syntax::Source;

macro_rules! layers {
    ($($name:literal),* $(,)?) => {
        /// Name and text of every built-in layer.
        const LAYERS: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../grammar/layers/", $name, ".nact"))),)*];
    };
}

layers!(
    "affine",
    "bn_relu",
    "bn_silu",
    "gn_relu",
    "gn_silu",
    "ln_relu",
    "ln_gelu",
    "ln_gelu_tanh",
    "in_relu",
    "rms_norm",
    "frn_tlu",
    "evonorm_b0",
    "evonorm_b1",
    "evonorm_b2",
    "evonorm_s0",
    "evonorm_s1",
    "evonorm_s2",
    "dyt",
    "derf",
);

/// The names of the built-in layers.
pub fn names() -> impl Iterator<Item = &'static str> {
    LAYERS.iter().map(|(name, _)| *name)
}

/// The text of a built-in layer.
pub fn source(name: &str) -> Option<Source> {
    LAYERS.iter().find(|(known, _)| *known == name).map(|(name, text)| Source::new(format!("{name}.nact"), *text))
}
