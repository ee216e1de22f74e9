//! Random graphs against the evaluator: two training steps and an evaluation, with outputs,
//! gradients and running statistics.
//!
//! Random graphs divide by small numbers, take logarithms of rounding errors and compare equal
//! numbers. How far two correct computations may differ is measured: the evaluator runs again on
//! inputs changed in their last digits, and an element may differ by a multiple of how much that
//! moves it. Elements that it moves a lot say little; a graph counts as compared when nearly all of
//! its elements are steady.

use burn::tensor::{Device, FloatDType, Tensor};
use normact_burn::{NormAct, Path};
use normact_ir::random::Space;
use normact_ir::{Inputs, Layer, Mode, Op, Prim, Shape, evaluate};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::devices::{devices, wgpu};
use crate::reference::{self, Outcome, Subject};
use crate::ways::{Way, gpu};

/// Even numbers of channels, since the space has an exact `group(2)`.
const SHAPES: [&[usize]; 11] = [
    &[5, 6],
    &[1, 4],
    &[3, 6, 5],
    &[4, 2, 1],
    &[2, 6, 3, 5],
    &[3, 4, 1, 1],
    &[1, 8, 7, 3],
    &[2, 4, 3, 1, 5],
    &[3, 2, 2, 3, 2],
    // Several blocks along every axis, with and without an odd number of elements left.
    &[9, 6, 16, 8],
    &[3, 34, 7, 11],
];

const STEPS: [Mode; 3] = [Mode::Training, Mode::Training, Mode::Evaluation];

/// A number format with what two correct computations in it may differ by.
struct Precision {
    dtype: FloatDType,
    /// How much the inputs are changed, relatively, to see what is steady.
    jitter: f64,
    /// The allowed difference, relative to an element.
    relative: f64,
    /// The same relative to the largest element of its list, or 1: what is left where terms cancel.
    of_largest: f64,
    /// The largest number in the graph that is compared: others overflow in sums or products.
    largest: f64,
}

const F64: Precision =
    Precision { dtype: FloatDType::F64, jitter: 1e-13, relative: 1e-12, of_largest: 1e-13, largest: 1e100 };
const F32: Precision =
    Precision { dtype: FloatDType::F32, jitter: 1e-6, relative: 1e-5, of_largest: 2e-6, largest: 1e12 };
/// Where parameters and statistics are f32 too, as on a GPU, terms that cancel leave more.
const F32_THROUGHOUT: Precision = Precision { of_largest: 1e-5, ..F32 };

#[test]
fn random_graphs_of_the_language_agree_in_f64() {
    agree(&Space::language(), &F64, &Way::by_default(Device::flex()), 0..500, 480);
}

#[test]
fn random_graphs_of_the_search_space_agree_in_f64() {
    agree(&Space::evonorm(), &F64, &Way::by_default(Device::flex()), 1000..1300, 280);
}

#[test]
fn random_graphs_agree_in_f32_on_the_cpu() {
    agree(&Space::language(), &F32, &Way::by_default(Device::flex()), 2000..2300, 275);
    agree(&Space::evonorm(), &F32, &Way::by_default(Device::flex()), 3000..4000, 920);
}

#[test]
fn random_graphs_agree_in_f32_operation_by_operation() {
    agree(&close_everywhere(Space::language()), &F32_THROUGHOUT, &Way::op_by_op(Device::flex()), 2000..2150, 135);
    agree(&close_everywhere(Space::evonorm()), &F32_THROUGHOUT, &Way::op_by_op(Device::flex()), 3000..3150, 135);
    agree(&close_everywhere(Space::evonorm()), &F32_THROUGHOUT, &Way::op_by_op(wgpu()), 3000..3030, 26);
}

#[test]
fn random_graphs_of_the_search_space_are_fused() {
    for device in devices() {
        let device = device.autodiff();
        for dims in [[4, 8, 4, 4], [32, 64, 32, 32]] {
            let x = Tensor::<4>::ones(dims, &device);
            let is_fused = |seed: u64| {
                let layer = Space::evonorm().draw(&mut ChaCha8Rng::seed_from_u64(seed));
                NormAct::new(&layer, dims[1], &device).expect("the layer fits").path(&x) == Path::Fused
            };
            let fused = (3000..4000).filter(|&seed| is_fused(seed)).count();
            assert!(fused >= 990, "{fused} of 1000 at {dims:?} on {device:?}");
        }
    }
}

#[test]
fn random_graphs_agree_in_f32_on_wgpu() {
    // Drivers compile for some tenths of a second each: the rest of them on request.
    let (language, evonorm) = if std::env::var_os("NORMACT_LONG").is_some() { (200, 1000) } else { (40, 60) };
    agree(
        &Space::language(),
        &F32_THROUGHOUT,
        &Way::by_default(wgpu()),
        2000..2000 + language,
        language as usize * 9 / 10,
    );
    agree(
        &Space::evonorm(),
        &F32_THROUGHOUT,
        &Way::by_default(wgpu()),
        3000..3000 + evonorm,
        evonorm as usize * 9 / 10,
    );
    for lanes in [4, 1] {
        let count = evonorm / 4;
        agree(&Space::evonorm(), &F32_THROUGHOUT, &gpu(lanes), 3000..3000 + count, count as usize * 8 / 10);
        let count = language / 2;
        agree(&Space::language(), &F32_THROUGHOUT, &gpu(lanes), 2000..2000 + count, count as usize * 8 / 10);
    }
}

/// Without what Burn computes closely in absolute terms only, which a graph can magnify without limit.
fn close_everywhere(mut space: Space) -> Space {
    space.ops.retain(|op| !matches!(op, Op::Prim(Prim::Erf | Prim::Tanh)));
    space
}

/// Compares a layer per seed and asserts that at least `floor` of them were steady enough to tell.
fn agree(space: &Space, precision: &Precision, way: &Way, seeds: std::ops::Range<u64>, floor: usize) {
    let (mut compared, mut worst) = (0, 0.0f64);
    for seed in seeds.clone() {
        let case = Case::draw(space, seed, precision);
        let Some(expected) = case.expected(None, precision) else { continue };
        let jittered: Vec<_> = (0..6).filter_map(|number| case.expected(Some(number), precision)).collect();
        let found = case.found(precision, way);
        let mut tally = Tally::default();
        for (step, (expected, found)) in expected.iter().zip(&found).enumerate() {
            let jittered: Vec<_> = jittered.iter().map(|outcomes| &outcomes[step]).collect();
            if let Err(difference) = tally.compare(expected, &jittered, found, precision) {
                panic!("seed {seed}, step {step}, shape {}, {way:?}: {difference}\n{:?}", case.shape, case.layer.dag);
            }
        }
        if tally.steady * 20 >= tally.total * 19 {
            compared += 1;
            worst = worst.max(tally.worst);
        }
    }
    println!(
        "{way:?} {:?}: {compared} of {} graphs compared, largest difference {worst:.1e}",
        precision.dtype,
        seeds.count()
    );
    assert!(compared >= floor, "only {compared} graphs were compared, expected {floor}");
}

struct Case {
    seed: u64,
    layer: Layer,
    shape: Shape,
    params: Vec<Vec<f64>>,
    state: Vec<Vec<f64>>,
    /// The input and the upstream gradient of each step.
    steps: Vec<(Vec<f64>, Vec<f64>)>,
}

impl Case {
    fn draw(space: &Space, seed: u64, precision: &Precision) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let layer = space.draw(&mut rng);
        let shape = Shape::new(SHAPES[rng.random_range(0..SHAPES.len())]).expect("the shapes above are valid");
        let initial = Inputs::initial(&layer.dag, shape.clone(), vec![]);
        let mut numbers = |len: usize| -> Vec<f64> { (0..len).map(|_| normal(&mut rng, precision.dtype)).collect() };
        let params = initial.params.iter().map(|values| numbers(values.len())).collect();
        let state =
            initial.state.iter().map(|values| numbers(values.len()).iter().map(|x| x.abs()).collect()).collect();
        let steps = STEPS.iter().map(|_| (numbers(shape.elements()), numbers(shape.elements()))).collect();
        Self { seed, layer, shape, params, state, steps }
    }

    /// The evaluator's outcomes, on inputs changed a little if `jitter` numbers a change; `None`
    /// where numbers become too large for the precision.
    fn expected(&self, jitter: Option<u64>, precision: &Precision) -> Option<Vec<Outcome>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ (jitter.unwrap_or(0) << 32));
        let mut changed = |values: &[f64]| -> Vec<f64> {
            let factor = if jitter.is_some() { precision.jitter } else { 0.0 };
            values.iter().map(|x| x * (1.0 + factor * rng.random_range(-1.0..1.0))).collect()
        };
        let params: Vec<Vec<f64>> = self.params.iter().map(|values| changed(values)).collect();
        let mut state = self.state.clone();
        let mut outcomes = vec![];
        for (mode, (x, dy)) in STEPS.into_iter().zip(&self.steps) {
            let inputs = Inputs { shape: self.shape.clone(), x: changed(x), params: params.clone(), state };
            let evaluation = evaluate(&self.layer.dag, &inputs, mode).expect("the inputs fit the graph");
            let values = self.layer.dag.ids().filter_map(|id| evaluation.value(id));
            if values.flat_map(|value| value.data()).any(|x| x.is_finite() && x.abs() > precision.largest) {
                return None;
            }
            let outcome = reference::expected(&self.layer.dag, &inputs, mode, dy);
            state = outcome.state.clone();
            outcomes.push(outcome);
        }
        Some(outcomes)
    }

    fn found(&self, precision: &Precision, way: &Way) -> Vec<Outcome> {
        let (params, state) = (self.params.clone(), self.state.clone());
        let inputs = Inputs { shape: self.shape.clone(), x: vec![], params, state };
        let subject = Subject::new(&self.layer, &inputs, way, precision.dtype);
        STEPS.into_iter().zip(&self.steps).map(|(mode, (x, dy))| subject.pass(x, mode, dy)).collect()
    }
}

/// How many elements were compared, and how well.
#[derive(Default)]
struct Tally {
    total: usize,
    /// Elements that small changes of the input leave nearly as they are.
    steady: usize,
    /// The largest difference of steady elements, relative to the largest of their list.
    worst: f64,
}

impl Tally {
    fn compare(
        &mut self,
        expected: &Outcome,
        jittered: &[&Outcome],
        found: &Outcome,
        precision: &Precision,
    ) -> Result<(), String> {
        let jittered: Vec<Vec<_>> = jittered.iter().map(|outcome| outcome.lists().collect()).collect();
        for (number, ((name, expected), (_, found))) in expected.lists().zip(found.lists()).enumerate() {
            assert_eq!(expected.len(), found.len(), "{name}");
            let largest = expected.iter().copied().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(b.abs()));
            for (index, (&expected, &found)) in expected.iter().zip(found).enumerate() {
                self.total += 1;
                let near = || jittered.iter().map(|lists| lists[number].1[index]);
                if !expected.is_finite() {
                    // In a gradient, 0 * inf is NaN when multiplied and 0 when masked.
                    let is_value = !name.starts_with("gradient");
                    if is_value && found.is_finite() && near().all(|near| !near.is_finite()) {
                        return Err(format!("{name}[{index}] is {found}, expected {expected}"));
                    }
                    continue;
                }
                if near().any(|near| !near.is_finite()) {
                    continue;
                }
                let spread = near().map(|near| (near - expected).abs()).fold(0.0, f64::max);
                let allowed = precision.relative * expected.abs() + precision.of_largest * largest;
                let difference = (found - expected).abs();
                if difference.is_nan() || difference > allowed + 30.0 * spread {
                    return Err(format!("{name}[{index}] is {found}, expected {expected}, spread {spread:e}"));
                }
                if 30.0 * spread <= 100.0 * allowed {
                    self.steady += 1;
                    self.worst = self.worst.max(difference / largest.max(f64::MIN_POSITIVE));
                }
            }
        }
        Ok(())
    }
}

/// A number of roughly the standard normal distribution that `dtype` represents exactly.
fn normal(rng: &mut ChaCha8Rng, dtype: FloatDType) -> f64 {
    let sum: f64 = (0..12).map(|_| rng.random_range(0.0..1.0)).sum();
    match dtype {
        FloatDType::F64 => sum - 6.0,
        _ => f64::from((sum - 6.0) as f32),
    }
}
