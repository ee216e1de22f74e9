//! The layers under test.

use normact_ir::Layer;
use normact_ir::random::Space;
use normact_syntax::{Overrides, Source, compile};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// Numbers of channels that 32 groups divide, and that they do not; every rank.
const BUILT_IN_SHAPES: [&[usize]; 5] = [&[2, 64, 3, 5], &[3, 48, 7], &[5, 6], &[2, 40, 2, 1, 3], &[1, 4, 1, 1]];

const CORNER_SHAPES: [&[usize]; 2] = [&[2, 4, 3, 5], &[3, 8]];

/// Even numbers of channels, since the language's space has an exact `group(2)`.
const RANDOM_SHAPES: [&[usize]; 8] =
    [&[5, 6], &[1, 4], &[3, 6, 5], &[4, 2, 1], &[2, 6, 3, 5], &[3, 4, 1, 1], &[1, 8, 7, 3], &[2, 4, 3, 1, 5]];

/// What no built-in layer has, and random graphs have seldom.
const CORNERS: &str = "
layer kinks(x) { max(abs(x), sqrt(x - x)) * sign(x) + std[instance](x - x, eps = 0) }
layer settings(x) {
    let wide = mean[group](x, groups = 4) + mean[group(2)](x) + var[group](x, groups = 2)
    let running = std[batch](x, momentum = 0.3, running = unbiased) + std[batch](x, running = biased)
    wide / running + rms[all](x) - var[channel](x) + mean[all](x) * var[all](x)
}
layer chained(x) {
    param eps = 2
    param x_view = 1
    let t = x * x_view * eps - mean[batch](x * eps)
    t / std[batch](t) + mean[group(2)](mean[group(4)](x)) + mean[layer](mean[instance](x * x))
}
layer narrow(x) { param a: scalar = -1.5
    a * rms[layer](x) + var[batch](a) + mean[instance](log(abs(x) + 1)) }
layer identity(x) { x }
layer statistic(x) { std[group(2)](x) }
";

/// Each layer with the shape of an input and a seed for its numbers.
pub(crate) fn cases() -> Vec<(Layer, &'static [usize], u64)> {
    let built_in = built_in().into_iter().flat_map(|layer| BUILT_IN_SHAPES.map(|shape| (layer.clone(), shape)));
    let corners = compiled(CORNERS).into_iter().flat_map(|layer| CORNER_SHAPES.map(|shape| (layer.clone(), shape)));
    let random =
        [("language", Space::language()), ("evonorm", Space::evonorm())].into_iter().flat_map(|(name, space)| {
            (0..300).zip(RANDOM_SHAPES.into_iter().cycle()).map(move |(seed, shape)| {
                let mut layer = space.draw(&mut ChaCha8Rng::seed_from_u64(seed));
                layer.name = format!("{name}_{seed}");
                (layer, shape)
            })
        });
    (0..).zip(built_in.chain(corners).chain(random)).map(|(seed, (layer, shape))| (layer, shape, seed)).collect()
}

pub(crate) fn built_in() -> Vec<Layer> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../grammar/layers");
    let files = std::fs::read_dir(folder).expect("the built-in layers are in grammar/layers");
    let mut paths: Vec<_> = files.map(|file| file.expect("a folder can be listed").path()).collect();
    paths.sort();
    paths.iter().flat_map(|path| compiled(&std::fs::read_to_string(path).expect("a layer is a text file"))).collect()
}

/// The layers of a text.
pub(crate) fn compiled(text: &str) -> Vec<Layer> {
    let analysis = compile(&Source::new("layers.nact", text), &Overrides::default());
    assert!(!analysis.has_errors(), "{:?}", analysis.diagnostics);
    analysis.layers.into_iter().map(|compiled| compiled.layer).collect()
}
