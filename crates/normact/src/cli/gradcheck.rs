//! `normact gradcheck`: is the gradient the derivative?

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use normact_ir::{Inputs, Layer, Mode, Shape, evaluate, gradcheck, stated};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{LayerArgs, Outcome, note, print, print_json};
use crate::device::{self, DeviceChoice};
use crate::{Failure, module_from_layer};

const EXAMPLES: &str = "\
Examples:
  normact gradcheck evonorm_b0
  normact gradcheck my.nact --shape 4,12,5,3 --seed 7 --device wgpu

The gradient of the reference evaluator is compared with finite differences in f64 (tolerance
1e-6), and the module's gradient on the device with that of the evaluator in f32 (tolerance 1e-3 of
the largest element). A gradient that the file states, as in `gradient name(x, dy) { ... }`, is
compared with that of the evaluator in f64 (tolerance 1e-9 of the largest element). Exit code 1 if
one does not hold.";

/// The largest relative error of the chain rule against finite differences.
const DIFFERENCE_TOLERANCE: f64 = 1e-6;
/// The largest error of the module in f32, relative to the largest element of the gradient.
const DEVICE_TOLERANCE: f64 = 1e-3;
/// The largest error of a stated gradient, relative to the largest element of the layer's.
const STATED_TOLERANCE: f64 = 1e-9;

/// Compare a layer's gradients with finite differences, and with those its file states
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    layer: LayerArgs,

    /// The shape of the random input
    #[arg(long, value_name = "N,C,H,W", default_value = "3,8,4,3", value_parser = super::tensors::shape)]
    shape: Shape,

    /// The seed of the random input
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Check evaluation mode
    #[arg(long)]
    eval: bool,

    /// Where to run the module
    #[arg(long, value_enum, value_name = "DEVICE", default_value_t)]
    device: DeviceChoice,

    /// Print a JSON object for each gradient
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Row {
    gradient: String,
    difference_error: f64,
    device: &'static str,
    device_error: f64,
    /// Absent where the file does not state the gradient.
    #[serde(skip_serializing_if = "Option::is_none")]
    stated_error: Option<f64>,
    passed: bool,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    if args.shape.elements() > 4096 {
        return Err(Failure::new(format!("finite differences on an input {} take too long", args.shape))
            .help("give a shape of at most 4096 elements; small ones check the same formulas"));
    }
    let loaded = args.layer.load()?;
    let layer = loaded.layer;
    let stated = loaded.text.and_then(|text| text.compiled.gradient).map(|stated| stated.gradient);
    let mode = if args.eval { Mode::Evaluation } else { Mode::Training };
    let (inputs, dy) = random_inputs(&layer, &args.shape, args.seed);
    let checks = gradcheck(&layer.dag, &inputs, &dy, mode).map_err(|error| Failure::new(error.to_string()))?;
    let expected = evaluate(&layer.dag, &inputs, mode).map_err(|error| Failure::new(error.to_string()))?.gradients(&dy);
    let stated = match &stated {
        Some(_) if args.eval => {
            note("the stated gradient is that of training; leave out `--eval` to compare it");
            vec![]
        }
        Some(stated) => {
            stated::check(&layer.dag, stated, &inputs, &dy).map_err(|error| Failure::new(error.to_string()))?
        }
        None => vec![],
    };
    let opened = device::open(args.device)?;
    let found = on_device(&layer, &inputs, &dy, mode, &opened.device)?;
    let expected = std::iter::once(&expected.x).chain(&expected.params);
    let rows: Vec<Row> = checks
        .iter()
        .zip(expected.zip(&found))
        .enumerate()
        .map(|(number, (check, (expected, found)))| {
            let device_error = relative_error(expected, found);
            let stated_error = stated.get(number).and_then(Option::as_ref).map(|check| check.worst);
            let is_as_stated = stated_error.is_none_or(|error| error <= STATED_TOLERANCE);
            Row {
                gradient: check.name.clone(),
                difference_error: check.worst,
                device: opened.name,
                device_error,
                stated_error,
                passed: check.worst <= DIFFERENCE_TOLERANCE && device_error <= DEVICE_TOLERANCE && is_as_stated,
            }
        })
        .collect();
    report(args, &layer, opened.name, &rows)?;
    for (number, check) in stated.iter().enumerate() {
        if let Some(check) = check.as_ref().filter(|check| check.worst > STATED_TOLERANCE) {
            // The gradients are those of the input, then of the parameters.
            let place = if number == 0 { index_in(args.shape.dims(), check.index) } else { vec![check.index] };
            note(&difference(check, &place));
        }
    }
    Ok(if rows.iter().all(|row| row.passed) { Outcome::Success } else { Outcome::Negative })
}

fn report(args: &Args, layer: &Layer, device: &str, rows: &[Row]) -> Result<(), Failure> {
    if args.json {
        return rows.iter().try_for_each(print_json);
    }
    note(&format!("{} on a random input {}, seed {}", layer.name, args.shape, args.seed));
    let width = rows.iter().map(|row| row.gradient.len()).max().unwrap_or(0).max("gradient".len());
    let has_stated = rows.iter().any(|row| row.stated_error.is_some());
    let stated_column = |text: &str| if has_stated { format!("  {text:>11}") } else { String::new() };
    let title = stated_column("stated");
    let mut text = format!("{:width$}  differences  {device:>11}{title}\n", "gradient");
    for row in rows {
        let verdict = if row.passed { "ok" } else { "WRONG" };
        let (difference, on_device) = (row.difference_error, row.device_error);
        let stated = stated_column(&row.stated_error.map_or_else(|| "-".to_owned(), |error| format!("{error:.1e}")));
        text.push_str(&format!(
            "{:width$}  {difference:>11.1e}  {on_device:>11.1e}{stated}  {verdict}\n",
            row.gradient
        ));
    }
    print(&text)
}

/// Where a stated gradient is wrong, and how much.
fn difference(check: &stated::Check, place: &[usize]) -> String {
    let stated::Check { name, worst, stated, gradient, .. } = check;
    format!(
        "the stated gradient of `{name}` is wrong: at {place:?} it is {stated}, that of the layer {gradient} \
         ({worst:.1e} of the largest element)"
    )
}

/// The index of an element of a tensor in row-major order.
fn index_in(dims: &[usize], element: usize) -> Vec<usize> {
    let mut index = vec![0; dims.len()];
    let mut rest = element;
    for (place, size) in index.iter_mut().zip(dims).rev() {
        *place = rest % size;
        rest /= size;
    }
    index
}

/// An input, parameters near their initial values, and an upstream gradient, all away from zero.
fn random_inputs(layer: &Layer, shape: &Shape, seed: u64) -> (Inputs, Vec<f64>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut numbers = |count: usize| -> Vec<f64> { (0..count).map(|_| rng.random_range(-2.0..2.0)).collect() };
    let mut inputs = Inputs::initial(&layer.dag, shape.clone(), numbers(shape.elements()));
    for values in inputs.params.iter_mut() {
        let noise = numbers(values.len());
        values.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.2 * noise);
    }
    let dy = numbers(shape.elements());
    (inputs, dy)
}

/// The gradients of `x` and of every parameter by the module on a device.
fn on_device(
    layer: &Layer,
    inputs: &Inputs,
    dy: &[f64],
    mode: Mode,
    device: &Device,
) -> Result<Vec<Vec<f64>>, Failure> {
    // Every index set treats spatial axes as one, so the rank-3 view is the layer itself.
    let device = device.clone().autodiff();
    let shape = &inputs.shape;
    let mut module = module_from_layer(layer, shape.channels(), &device)?;
    let names: Vec<String> = module.param_names().map(str::to_owned).collect();
    for (name, values) in names.iter().zip(&inputs.params) {
        module.set_values(name, values).map_err(|error| Failure::new(error.to_string()))?;
    }
    if mode == Mode::Evaluation {
        // Freezing selects the running statistics; the gradients are wanted all the same.
        module = module.freeze().set_require_grad(true);
    }
    let dims = [shape.samples(), shape.channels(), shape.positions()];
    let tensor = |values: &[f64]| Tensor::<3>::from_data(TensorData::new(values.to_vec(), dims), &device);
    let x = tensor(&inputs.x).require_grad();
    let gradients = (module.forward(x.clone()) * tensor(dy)).sum().backward();
    let dx = match x.grad(&gradients) {
        Some(dx) => dx.try_to_vec_as().map_err(|error| Failure::new(error.to_string()))?,
        None => vec![0.0; inputs.x.len()],
    };
    let mut found = vec![dx];
    for name in &names {
        found.push(module.gradient(name, &gradients).map_err(|error| Failure::new(error.to_string()))?);
    }
    Ok(found)
}

/// The largest difference over the largest magnitude; NaN counts as infinite.
fn relative_error(expected: &[f64], found: &[f64]) -> f64 {
    let scale = expected.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
    expected
        .iter()
        .zip(found)
        .map(|(expected, found)| (expected - found).abs() / scale)
        .fold(0.0, |worst, error| if error.is_nan() { f64::INFINITY } else { f64::max(worst, error) })
}
