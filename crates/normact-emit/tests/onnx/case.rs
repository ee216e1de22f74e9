//! A layer with an input and values for its parameters and running averages, and what the evaluator makes of
//! them in evaluation mode, each number with the error it may have in f32.
//!
//! Random graphs divide by small numbers and take logarithms of rounding errors. How far two correct
//! computations may differ is measured: the evaluator runs again on inputs changed in their last digits.
//! Elements that this moves a lot say little and are not compared.

use normact_emit::Options;
use normact_ir::{Buffers, Inputs, Layer, Mode, Shape, evaluate};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Beyond this, sums and products overflow in f32.
const LARGEST: f64 = 1e12;

pub(crate) struct Case {
    pub(crate) layer: Layer,
    pub(crate) inputs: Inputs,
    pub(crate) expected: Vec<f64>,
    /// The error that each element may have; infinite where nothing can be said.
    pub(crate) allowed: Vec<f64>,
}

impl Case {
    pub(crate) fn draw(layer: Layer, dims: &[usize], seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut numbers =
            |len: usize| -> Vec<f64> { (0..len).map(|_| f64::from(rng.random_range(-2.0f32..2.0))).collect() };
        let shape = Shape::new(dims).expect("tests have valid shapes");
        let x = numbers(shape.elements());
        let mut inputs = Inputs::initial(&layer.dag, shape, x);
        inputs.params.iter_mut().for_each(|values| *values = numbers(values.len()));
        inputs.state.iter_mut().for_each(|values| *values = numbers(values.len()).iter().map(|x| x.abs()).collect());
        let expected = output(&layer, &inputs);
        let near: Vec<Vec<f64>> = (1..6).map(|number| output(&layer, &jittered(&inputs, seed, number))).collect();
        let largest = expected.iter().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(b.abs()));
        let allowed = |(index, &expected): (usize, &f64)| {
            let spread = near.iter().map(|values| (values[index] - expected).abs()).fold(0.0, f64::max);
            // A NaN in `near` makes no difference to a maximum.
            let is_finite = expected.is_finite() && near.iter().all(|values| values[index].is_finite());
            let is_calm = is_finite && expected.abs() < LARGEST && spread < 1e-3 * largest;
            if is_calm { 1e-5 * expected.abs() + 2e-6 * largest + 30.0 * spread } else { f64::INFINITY }
        };
        let allowed = expected.iter().enumerate().map(allowed).collect();
        Self { layer, inputs, expected, allowed }
    }

    /// The part of the elements that can be compared.
    pub(crate) fn steady(&self) -> f64 {
        self.allowed.iter().filter(|allowed| allowed.is_finite()).count() as f64 / self.allowed.len() as f64
    }

    /// Everything with a name: parameters and running averages.
    pub(crate) fn stored(&self) -> Vec<(String, Vec<f32>)> {
        let buffers = Buffers::of(&self.layer.dag);
        let params = self.layer.dag.params().iter().map(|param| param.name.clone()).zip(&self.inputs.params);
        let state = buffers.list().iter().map(|buffer| buffer.name.clone()).zip(&self.inputs.state);
        let single = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
        params.chain(state).map(|(name, values)| (name, single(values))).collect()
    }

    pub(crate) fn options(&self) -> Options {
        Options {
            channels: Some(self.inputs.shape.channels()),
            rank: Some(self.inputs.shape.dims().len()),
            weights: self.stored(),
            ..Options::default()
        }
    }
}

pub(crate) fn output(layer: &Layer, inputs: &Inputs) -> Vec<f64> {
    evaluate(&layer.dag, inputs, Mode::Evaluation).expect("the inputs fit the graph").output()
}

fn jittered(inputs: &Inputs, seed: u64, number: u64) -> Inputs {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (number << 32));
    let mut inputs = inputs.clone();
    let all = inputs.x.iter_mut().chain(inputs.params.iter_mut().flatten()).chain(inputs.state.iter_mut().flatten());
    all.for_each(|x| *x *= 1.0 + 1e-6 * rng.random_range(-1.0..1.0));
    inputs
}
