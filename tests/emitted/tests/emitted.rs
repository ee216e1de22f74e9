//! Every emitted layer against the module that is made of it at run time, on the CPU: two training
//! steps and an evaluation, with outputs, gradients and running averages; and weights that one of them
//! saved and the other loads.
//!
//! Random graphs divide by small numbers and take logarithms of rounding errors. How far two correct
//! computations may differ is measured: the module runs again, in f64, on inputs changed in their last
//! digits, and an element may differ by a multiple of how much that moves it.

#[path = "../src/layers.rs"]
mod layers;

use burn::module::Module;
use burn::store::{ModuleSnapshot, SafetensorsStore};
use burn::tensor::{DType, Device, Tensor, TensorData};
use layers::{Case, cases};
use normact_burn::NormAct;
use normact_emitted::{Emitted, Stored, all, built_in};
use normact_ir::{Inputs, Mode, Shape, evaluate};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Inputs of rank 2 to 5; even numbers of channels, since the space has an exact `group(2)`.
const SHAPES: [[&[usize]; 2]; 4] = [
    [&[5, 6], &[3, 8]],
    [&[3, 6, 5], &[1, 4, 7]],
    [&[2, 6, 3, 5], &[3, 4, 1, 1]],
    [&[2, 4, 3, 1, 5], &[3, 2, 2, 3, 2]],
];

const STEPS: [Mode; 3] = [Mode::Training, Mode::Training, Mode::Evaluation];

/// A number format with what two correct computations in it may differ by.
struct Precision {
    dtype: DType,
    /// How much the inputs are changed, relatively, to see what is steady.
    jitter: f64,
    /// The allowed difference, relative to the largest element of a list, or 1.
    of_largest: f64,
    /// The largest number in the graph that is compared: others overflow in sums or products.
    largest: f64,
}

#[test]
fn emitted_layers_agree_in_f64() {
    agree(&Precision { dtype: DType::F64, jitter: 1e-13, of_largest: 1e-12, largest: 1e100 }, 300);
}

#[test]
fn emitted_layers_agree_in_f32() {
    agree(&Precision { dtype: DType::F32, jitter: 1e-7, of_largest: 1e-6, largest: 1e12 }, 290);
}

#[test]
fn half_precision_is_computed_in_f32() {
    let device = Device::flex().autodiff();
    for (case, (name, init)) in built_in_cases().zip(built_in()) {
        let module = NormAct::new(&case.layer, 4, &device).expect("the layer fits");
        let x: Vec<f64> = (0..120).map(|i| f64::from(i) * 0.11 - 5.0).collect();
        let x = Tensor::<4>::from_data(TensorData::new(x, [2, 4, 5, 3]), (&device, DType::F16));
        let y = init(4, &device).forward(x.clone().reshape([120]), &[2, 4, 5, 3]);
        assert_eq!(y.dtype(), DType::F16, "{name}");
        let expected = numbers(module.forward(x));
        for (found, expected) in numbers(y).iter().zip(expected) {
            // A unit in the last place of f16 where the two round apart.
            assert!(
                (found - expected).abs() <= 1e-3 * expected.abs().max(1e-3),
                "{name}: {found}, expected {expected}"
            );
        }
    }
}

#[test]
fn weights_that_one_saved_the_other_loads() {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let device = Device::flex();
    let x = normal(&mut ChaCha8Rng::seed_from_u64(7), 2 * 6 * 4 * 3);
    let dims = [2, 6, 4, 3];
    for (case, (name, init)) in built_in_cases().zip(built_in()) {
        let mut module = NormAct::new(&case.layer, 6, &device).expect("the layer fits");
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let names: Vec<String> = module.param_names().chain(module.buffer_names()).map(str::to_owned).collect();
        for name in names {
            let len = module.values(&name).expect("a name of the layer").len();
            let values: Vec<f64> = normal(&mut rng, len).iter().map(|value| value.abs() + 0.5).collect();
            module.set_values(&name, &values).expect("as many values");
        }
        let x4 = Tensor::<4>::from_data(TensorData::new(x.clone(), dims), (&device, DType::F32));
        let expected = numbers(module.forward(x4.clone()));
        let y = |layer: &dyn Stored| numbers(layer.forward(x4.clone().reshape([x.len()]), &dims));
        let close = |found: &[f64], how: &str| {
            let largest = expected.iter().fold(1.0, |largest: f64, value| largest.max(value.abs()));
            let agree = found.iter().zip(&expected).all(|(found, expected)| (found - expected).abs() <= 1e-6 * largest);
            assert!(agree, "{name}, {how}: {found:?}, expected {expected:?}");
        };

        let file = folder.path().join(format!("{name}.safetensors"));
        module.save_into(&mut SafetensorsStore::from_file(&file)).expect("the file can be written");
        let mut loaded = init(6, &device);
        loaded.load_safetensors(&file).expect("the file fits");
        close(&y(&*loaded), "safetensors");

        let file = folder.path().join(format!("{name}.bpk"));
        module.clone().save_file(&file).expect("the file can be written");
        let from_burnpack = init(6, &device).load_burnpack(&file).expect("the file fits");
        close(&y(&*from_burnpack), "burnpack");

        // And back.
        let file = folder.path().join(format!("{name}.back.safetensors"));
        loaded.save_safetensors(&file).expect("the file can be written");
        let mut module = NormAct::new(&case.layer, 6, &device).expect("the layer fits");
        module.load_from(&mut SafetensorsStore::from_file(&file)).expect("the file fits");
        assert_eq!(numbers(module.forward(x4.clone())), expected, "{name}");

        let mut wide = init(12, &device);
        assert!(wide.load_safetensors(&file).is_err(), "{name}: weights for 6 channels do not fit 12");
    }
}

#[test]
fn frozen_and_validated_layers_keep_their_running_averages() {
    let device = Device::flex().autodiff();
    let x = normal(&mut ChaCha8Rng::seed_from_u64(3), 2 * 4 * 6);
    let x = |device: &Device| Tensor::<1>::from_data(TensorData::new(x.clone(), [48]), (device, DType::F32));
    let dims = [2, 4, 3, 2];
    let state = |layer: &dyn Stored| -> Vec<Vec<f64>> {
        layer.running().into_iter().map(|running| numbers(running.value_sync())).collect()
    };
    let mut tracked = 0;
    for (name, init) in built_in() {
        let layer = init(4, &device);
        let initial = state(&*layer);
        layer.forward(x(&device), &dims);
        let moved = state(&*layer);
        tracked += usize::from(!moved.is_empty());
        assert!(initial.iter().zip(&moved).all(|(initial, moved)| initial != moved), "{name}");
        let frozen = layer.frozen();
        frozen.forward(x(&device), &dims);
        assert_eq!(state(&*frozen), moved, "{name}");
        let valid = layer.validated();
        valid.forward(x(&Device::flex()), &dims);
        assert_eq!(state(&*valid), moved, "{name}");
    }
    assert!(tracked >= 5, "{tracked} layers have running averages");
}

#[test]
fn an_input_of_another_width_and_groups_that_do_not_divide_are_panics() {
    let device = Device::flex();
    let (_, init) = built_in().into_iter().find(|(name, _)| *name == "evonorm_s0").expect("a built-in layer");
    let message = panic_of(&|| drop(init(4, &device).forward(Tensor::ones([30], &device), &[2, 5, 3, 1])));
    let message = message.expect("5 channels are not 4");
    assert!(message.contains("axis 1 of the input is its channels"), "{message}");
    let drawn = all().into_iter().filter(|(name, _)| name.starts_with("language"));
    let first = drawn.map(|(_, init)| panic_of(&|| drop(init(3, &device)))).find_map(|message| message);
    assert_eq!(first.as_deref(), Some("group(2) does not divide 3 channels"));
}

/// What a closure panics with, if it does.
fn panic_of(run: &dyn Fn()) -> Option<String> {
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).err()?;
    panic.downcast_ref::<String>().cloned()
}

/// The built-in layers, in the order of their list.
fn built_in_cases() -> impl Iterator<Item = Case> {
    cases().into_iter().filter(|case| case.source.is_some())
}

/// Compares every layer and asserts that at least `floor` of them were steady enough to tell.
fn agree(precision: &Precision, floor: usize) {
    let (mut compared, mut total, mut worst) = (0, 0, 0.0f64);
    for ((number, case), (name, init)) in cases().iter().enumerate().zip(all()) {
        assert_eq!(case.name, name);
        total += 1;
        let run = Run::draw(case, number as u64);
        if !run.stays_below(precision.largest) {
            continue;
        }
        let expected = run.of_module(precision.dtype, 0.0, 0);
        let changed: Vec<_> = (1..6).map(|seed| run.of_module(DType::F64, precision.jitter, seed)).collect();
        let unchanged = run.of_module(DType::F64, 0.0, 0);
        let found = run.of_emitted(init, precision.dtype);
        let (mut steady, mut elements) = (0, 0);
        for (list, (expected, found)) in expected.iter().zip(&found).enumerate() {
            assert_eq!(expected.len(), found.len(), "{name}, list {list}");
            let finite = expected.iter().filter(|x| x.is_finite());
            let largest = finite.fold(1.0, |largest: f64, x| largest.max(x.abs()));
            for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
                elements += 1;
                let near = || changed.iter().map(|lists| (lists[list][index] - unchanged[list][index]).abs());
                let spread = near().fold(0.0, f64::max);
                if !expected.is_finite() || near().any(|near| !near.is_finite()) {
                    continue;
                }
                let (allowed, difference) = (precision.of_largest * largest, (found - expected).abs());
                assert!(
                    difference <= allowed + 100.0 * spread,
                    "{name}, list {list}, element {index}: {found}, expected {expected}, spread {spread:e}"
                );
                if 100.0 * spread <= 100.0 * allowed {
                    steady += 1;
                    worst = worst.max(difference / largest);
                }
            }
        }
        compared += usize::from(steady * 20 >= elements * 19);
    }
    println!("{:?}: {compared} of {total} layers compared, largest difference {worst:.1e}", precision.dtype);
    assert!(compared >= floor, "only {compared} of {total} layers were compared, expected {floor}");
}

/// The numbers that a layer is tried on.
struct Run<'a> {
    case: &'a Case,
    shape: Shape,
    params: Vec<Vec<f64>>,
    state: Vec<Vec<f64>>,
    /// The input and the upstream gradient of each step.
    steps: Vec<(Vec<f64>, Vec<f64>)>,
}

impl<'a> Run<'a> {
    fn draw(case: &'a Case, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let shape = Shape::new(SHAPES[case.rank - 2][rng.random_range(0..2)]).expect("the shapes above are valid");
        let initial = Inputs::initial(&case.layer.dag, shape.clone(), vec![]);
        let mut numbers = |len: usize| normal(&mut rng, len);
        let params = initial.params.iter().map(|values| numbers(values.len())).collect();
        let magnitudes = |values: Vec<f64>| values.iter().map(|x| x.abs()).collect();
        let state = initial.state.iter().map(|values| magnitudes(numbers(values.len()))).collect();
        let steps = STEPS.iter().map(|_| (numbers(shape.elements()), numbers(shape.elements()))).collect();
        Self { case, shape, params, state, steps }
    }

    /// Whether every finite number of the computation does.
    fn stays_below(&self, largest: f64) -> bool {
        let mut state = self.state.clone();
        STEPS.into_iter().zip(&self.steps).all(|(mode, (x, _))| {
            let inputs =
                Inputs { shape: self.shape.clone(), x: x.clone(), params: self.params.clone(), state: state.clone() };
            let evaluation = evaluate(&self.case.layer.dag, &inputs, mode).expect("the inputs fit the graph");
            state = evaluation.state().to_vec();
            let values = self.case.layer.dag.ids().filter_map(|id| evaluation.value(id));
            values.flat_map(|value| value.data()).all(|x| !x.is_finite() || x.abs() <= largest)
        })
    }

    /// What the module made at run time gives in each step, on numbers that are changed a little.
    fn of_module(&self, dtype: DType, jitter: f64, seed: u64) -> Vec<Vec<f64>> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut changed = |values: &[f64]| -> Vec<f64> {
            values.iter().map(|x| x * (1.0 + jitter * rng.random_range(-1.0..1.0))).collect()
        };
        let device = Device::flex().autodiff();
        let module = NormAct::new(&self.case.layer, self.shape.channels(), &device).expect("the layer fits");
        let mut module = Module::map(module, &mut In(dtype));
        let names: Vec<String> = module.param_names().chain(module.buffer_names()).map(str::to_owned).collect();
        for (name, values) in names.iter().zip(self.params.iter().chain(&self.state)) {
            module.set_values(name, &changed(values)).expect("as many values");
        }
        let module = module.train();
        let mut lists = vec![];
        for (mode, (x, dy)) in STEPS.into_iter().zip(&self.steps) {
            let module = match mode {
                Mode::Training => module.clone(),
                // A frozen module reads its buffers; gradients are switched on again to compare them.
                Mode::Evaluation => module.clone().freeze().set_require_grad(true),
            };
            let x = tensor(&changed(x), dtype).require_grad();
            let y = match *self.shape.dims() {
                [n, c] => flat(module.forward(x.clone().reshape([n, c]))),
                [n, c, l] => flat(module.forward(x.clone().reshape([n, c, l]))),
                [n, c, h, w] => flat(module.forward(x.clone().reshape([n, c, h, w]))),
                [n, c, d, h, w] => flat(module.forward(x.clone().reshape([n, c, d, h, w]))),
                _ => unreachable!("a shape has rank 2 to 5"),
            };
            let gradients = (y.clone() * tensor(dy, dtype)).sum().backward();
            lists.push(numbers(y));
            lists.push(x.grad(&gradients).map_or_else(|| vec![0.0; dy.len()], numbers));
            lists.extend(module.param_names().map(|name| module.gradient(name, &gradients).expect("a parameter")));
            lists.extend(module.buffer_names().map(|name| module.values(name).expect("a buffer")));
        }
        lists
    }

    /// The same of the emitted layer.
    fn of_emitted(&self, init: normact_emitted::Init<dyn Emitted>, dtype: DType) -> Vec<Vec<f64>> {
        let mut layer = init(self.shape.channels(), &Device::flex().autodiff());
        for (param, values) in layer.params().into_iter().zip(&self.params) {
            *param = burn::module::Param::from_tensor(tensor(values, dtype));
        }
        for (running, values) in layer.running().into_iter().zip(&self.state) {
            running.update(tensor(values, dtype));
        }
        let mut lists = vec![];
        for (mode, (x, dy)) in STEPS.into_iter().zip(&self.steps) {
            layer.set_training(mode == Mode::Training);
            let x = tensor(x, dtype).require_grad();
            let y = layer.forward(x.clone(), self.shape.dims());
            let gradients = (y.clone() * tensor(dy, dtype)).sum().backward();
            lists.push(numbers(y));
            lists.push(x.grad(&gradients).map_or_else(|| vec![0.0; dy.len()], numbers));
            for param in layer.params() {
                let zeros = vec![0.0; param.dims()[0]];
                lists.push(param.val().grad(&gradients).map_or(zeros, numbers));
            }
            lists.extend(layer.running().into_iter().map(|running| numbers(running.value_sync())));
        }
        lists
    }
}

fn tensor(values: &[f64], dtype: DType) -> Tensor<1> {
    Tensor::from_data(TensorData::new(values.to_vec(), [values.len()]), (&Device::flex().autodiff(), dtype))
}

fn flat<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    let elements = tensor.shape().num_elements();
    tensor.reshape([elements])
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().try_to_vec_as().expect("floats convert to f64")
}

/// Numbers of roughly the standard normal distribution that f32 represents exactly.
fn normal(rng: &mut ChaCha8Rng, len: usize) -> Vec<f64> {
    let mut sum = || -> f64 { (0..12).map(|_| rng.random_range(0.0..1.0)).sum() };
    (0..len).map(|_| f64::from((sum() - 6.0) as f32)).collect()
}

/// Parameters and running averages in a number format.
struct In(DType);

impl burn::module::ModuleMapper for In {
    fn map_float<const D: usize>(&mut self, param: burn::module::Param<Tensor<D>>) -> burn::module::Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0))
    }
}
