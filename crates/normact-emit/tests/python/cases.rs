//! A layer with inputs for two training steps and an evaluation, and what the evaluator makes of them, each
//! number with the error it may have.
//!
//! Random graphs divide by small numbers, take logarithms of rounding errors and compare equal numbers. How far
//! two correct computations may differ is measured: the evaluator runs again on inputs changed in their last
//! digits, and an element may differ by a multiple of how much that moves it. Elements that it moves a lot say
//! little; a layer counts as compared when nearly all of its elements are steady.

use normact_ir::{Buffers, Inputs, Layer, Mode, Shape, evaluate};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

const STEPS: [Mode; 3] = [Mode::Training, Mode::Training, Mode::Evaluation];

/// How much inputs are changed, relatively, to see what is steady.
const JITTER: f64 = 1e-13;
/// The largest number in a graph that is compared: others overflow in sums or products.
const LARGEST: f64 = 1e100;
/// The error that a number may have, relative to itself.
const RELATIVE: f64 = 1e-11;
/// The same relative to the largest number of its list, or 1: what is left where terms cancel.
const OF_LARGEST: f64 = 1e-12;

pub(crate) struct Case {
    layer: Layer,
    shape: Shape,
    seed: u64,
    params: Vec<Vec<f64>>,
    state: Vec<Vec<f64>>,
    /// The input and the upstream gradient of each step.
    steps: Vec<(Vec<f64>, Vec<f64>)>,
}

/// The lists of numbers that one step gives, by name.
type Outcome = Vec<(String, Vec<f64>)>;

impl Case {
    /// The layer on random numbers.
    pub(crate) fn draw(layer: Layer, dims: &[usize], seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shape = Shape::new(dims).expect("tests have valid shapes");
        let initial = Inputs::initial(&layer.dag, shape.clone(), vec![]);
        let mut numbers = |len: usize| -> Vec<f64> { (0..len).map(|_| normal(&mut rng)).collect() };
        let params = initial.params.iter().map(|values| numbers(values.len())).collect();
        let state =
            initial.state.iter().map(|values| numbers(values.len()).iter().map(|x| x.abs()).collect()).collect();
        let steps = STEPS.iter().map(|_| (numbers(shape.elements()), numbers(shape.elements()))).collect();
        Self { layer, shape, seed, params, state, steps }
    }

    /// The case with a third of the inputs at 0, where functions have kinks.
    pub(crate) fn at_kinks(mut self) -> Self {
        self.steps.iter_mut().flat_map(|(x, _)| x.iter_mut().step_by(3)).for_each(|x| *x = 0.0);
        self
    }

    /// The case for a Python program, and whether nearly all of it is steady; `None` where numbers become
    /// too large. Lists of numbers are the hexadecimal digits of their bytes, so that none is rounded.
    pub(crate) fn json(&self, class: &str) -> Option<(Value, bool)> {
        let expected = self.outcomes(None)?;
        let jittered: Vec<_> = (0..6).filter_map(|number| self.outcomes(Some(number))).collect();
        let (mut total, mut steady) = (0, 0);
        let mut steps = vec![];
        for (index, outcome) in expected.iter().enumerate() {
            let mut lists = serde_json::Map::new();
            for (number, (name, values)) in outcome.iter().enumerate() {
                let near: Vec<&[f64]> = jittered.iter().map(|steps| &*steps[index][number].1).collect();
                let allowed = allowed(name, values, &near);
                total += allowed.len();
                let largest = values.iter().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(b.abs()));
                steady += allowed.iter().filter(|&&allowed| allowed <= 1e-9 * largest).count();
                lists.insert(name.clone(), json!([hex(values), hex(&allowed)]));
            }
            let (x, dy) = &self.steps[index];
            let training = STEPS[index] == Mode::Training;
            steps.push(json!({"training": training, "x": hex(x), "dy": hex(dy), "expected": lists}));
        }
        let params = self.layer.dag.params().iter().zip(&self.params).map(|(param, values)| (&param.name, values));
        let buffers = Buffers::of(&self.layer.dag);
        let state = buffers.list().iter().zip(&self.state).map(|(buffer, values)| (&buffer.name, values));
        let value = json!({
            "layer": self.layer.name,
            "class": class,
            "shape": self.shape.dims(),
            "params": params.map(|(name, values)| (name.clone(), json!(hex(values)))).collect::<serde_json::Map<_, _>>(),
            "state": state.map(|(name, values)| (name.clone(), json!(hex(values)))).collect::<serde_json::Map<_, _>>(),
            "steps": steps,
        });
        Some((value, steady * 20 >= total * 19))
    }

    /// What the evaluator gives, on inputs changed a little if `jitter` numbers a change; `None` where numbers
    /// become too large.
    fn outcomes(&self, jitter: Option<u64>) -> Option<Vec<Outcome>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ (jitter.unwrap_or(0) << 32));
        let factor = if jitter.is_some() { JITTER } else { 0.0 };
        let mut changed = |values: &[f64]| -> Vec<f64> {
            values.iter().map(|x| x * (1.0 + factor * rng.random_range(-1.0..1.0))).collect()
        };
        let dag = &self.layer.dag;
        let params: Vec<Vec<f64>> = self.params.iter().map(|values| changed(values)).collect();
        let buffers = Buffers::of(dag);
        let mut state = self.state.clone();
        let mut outcomes = vec![];
        for (mode, (x, dy)) in STEPS.into_iter().zip(&self.steps) {
            let inputs = Inputs { shape: self.shape.clone(), x: changed(x), params: params.clone(), state };
            let evaluation = evaluate(dag, &inputs, mode).expect("the inputs fit the graph");
            let values = dag.ids().filter_map(|id| evaluation.value(id));
            if values.flat_map(|value| value.data()).any(|x| x.is_finite() && x.abs() > LARGEST) {
                return None;
            }
            let gradients = evaluation.gradients(dy);
            state = evaluation.state().to_vec();
            let mut outcome = vec![("y".to_owned(), evaluation.output()), ("dx".to_owned(), gradients.x)];
            let names = dag.params().iter().map(|param| format!("grad.{}", param.name));
            outcome.extend(names.zip(gradients.params));
            let names = buffers.list().iter().map(|buffer| format!("state.{}", buffer.name));
            outcome.extend(names.zip(state.iter().cloned()));
            outcomes.push(outcome);
        }
        Some(outcomes)
    }
}

/// The error that each number may have: infinite where nothing can be said, 0 for a number that is infinite or
/// none and has to be.
fn allowed(name: &str, expected: &[f64], near: &[&[f64]]) -> Vec<f64> {
    let largest = expected.iter().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(b.abs()));
    let allowed = |(index, &expected): (usize, &f64)| {
        let near = || near.iter().map(|values| values[index]);
        if !expected.is_finite() {
            // In a gradient, 0 * inf is NaN when multiplied and 0 when masked.
            let is_value = name == "y" || name.starts_with("state.");
            return if is_value && near().all(|near| !near.is_finite()) { 0.0 } else { f64::INFINITY };
        }
        if near().any(|near| !near.is_finite()) {
            return f64::INFINITY;
        }
        let spread = near().map(|near| (near - expected).abs()).fold(0.0, f64::max);
        RELATIVE * expected.abs() + OF_LARGEST * largest + 30.0 * spread
    };
    expected.iter().enumerate().map(allowed).collect()
}

fn hex(values: &[f64]) -> String {
    values.iter().flat_map(|value| value.to_le_bytes()).map(|byte| format!("{byte:02x}")).collect()
}

/// A number of roughly the standard normal distribution.
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let sum: f64 = (0..12).map(|_| rng.random_range(0.0..1.0)).sum();
    sum - 6.0
}
