//! How fast a layer is and what it keeps, against operation by operation, Burn's own modules and a
//! copy of the same tensor on the same device, all in one run.
//!
//! A measurement is a training step of the layer alone: forward, then backward from a given upstream
//! gradient to the gradients of the input and of every parameter. The things compared take turns of a
//! few steps, so that what disturbs the machine disturbs all of them, while each has its own data in
//! the caches, as in a loop.

mod chart;
mod memory;

use std::time::{Duration, Instant};

use burn::nn::{BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig};
use burn::tensor::{Device, Tensor, TensorData, activation};
use normact_burn::{NormAct, Path, upstream};
use normact_ir::{Layer, Mode, Shape};
use normact_plan::{Plan, Sizes};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

pub use chart::{bars, table};
pub use memory::{Allocator, Memory, TRACKED};

use crate::Failure;
use crate::device::OpenDevice;

/// What was measured of one way to run a layer.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// `fused`, or `op by op` with the reason.
    pub path: String,
    /// Median time of the forward pass.
    pub forward_ms: f64,
    /// Median time of forward and backward together.
    pub forward_backward_ms: f64,
    /// The time of the first step, with planning and, on a GPU, the generation of kernels.
    pub first_ms: f64,
    /// The shortest and the longest time of forward and backward.
    pub range_ms: [f64; 2],
    /// Full-size tensors read and written, forward and backward, if every pass goes to memory; only
    /// for planned execution.
    pub passes: Option<usize>,
    /// Kernels that the forward pass launches, on a GPU; only for planned execution.
    pub kernels_forward: Option<usize>,
    /// Kernels that the backward pass launches.
    pub kernels_backward: Option<usize>,
    /// Bytes alive after the forward pass beside the output: the input counts, whoever keeps it.
    pub saved_bytes: Option<usize>,
    /// The most bytes alive during a step, without the input, the upstream gradient and parameters.
    pub peak_bytes: Option<usize>,
}

/// Everything about one layer.
#[derive(Debug, Clone, Serialize)]
pub struct LayerFigures {
    /// Its name.
    pub layer: String,
    /// As the module runs it by default.
    pub fused: Figures,
    /// Operation by operation.
    pub op_by_op: Figures,
    /// Burn's own module for the same layer, where there is one.
    pub burn: Option<Figures>,
}

/// A benchmark of several layers at one shape.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// `cpu` or `wgpu`.
    pub device: String,
    /// The shape of the input.
    pub shape: Vec<usize>,
    /// The time of a copy: one full-size read and one write.
    pub copy_ms: f64,
    /// For each layer, the full-size reads and writes of a hand-fused step: 5 for statistics within a
    /// sample, 8 for batch statistics.
    pub ideal_passes: std::collections::BTreeMap<String, usize>,
    /// The layers.
    pub layers: Vec<LayerFigures>,
}

/// What a user may choose.
#[derive(Debug, Clone)]
pub struct Config {
    /// The shape of the input.
    pub shape: Shape,
    /// How many steps are timed.
    pub runs: usize,
}

/// Measures layers on a device.
///
/// # Errors
/// A layer does not fit the shape, or the rank is not that of the benchmark, 4.
pub fn bench(layers: &[Layer], config: &Config, device: &OpenDevice) -> Result<Report, Failure> {
    let dims: [usize; 4] = config.shape.dims().try_into().map_err(|_| {
        Failure::new(format!("the shape {} does not have four axes", config.shape)).help("give N,C,H,W")
    })?;
    if config.shape.elements() > MOST_ELEMENTS {
        return Err(Failure::new(format!("an input {} is too large to time", config.shape))
            .help(format!("give a shape of at most {MOST_ELEMENTS} elements: a step needs several such tensors")));
    }
    let mut report = Report {
        device: device.name.to_owned(),
        shape: dims.to_vec(),
        copy_ms: copy_time(dims, device, config.runs),
        ideal_passes: Default::default(),
        layers: vec![],
    };
    for layer in layers {
        let module = NormAct::new(layer, dims[1], &device.device.clone().autodiff())
            .map_err(|error| Failure::new(error.to_string()))?;
        module.check(&dims).map_err(|error| Failure::new(error.to_string()))?;
        report.ideal_passes.insert(layer.name.clone(), ideal_passes(layer));
        report.layers.push(layer_figures(layer, &module, dims, device, config.runs));
    }
    Ok(report)
}

/// The largest input: 2 GiB.
const MOST_ELEMENTS: usize = 1 << 29;

fn ideal_passes(layer: &Layer) -> usize {
    if normact_ir::Buffers::of(&layer.dag).list().is_empty() { 5 } else { 8 }
}

/// One of the things that are compared.
enum Subject {
    Module(Box<NormAct>),
    BatchNormRelu(BatchNorm),
    GroupNormSilu(GroupNorm),
}

impl Subject {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Subject::Module(module) => module.forward(x),
            Subject::BatchNormRelu(norm) => activation::relu(norm.forward(x)),
            Subject::GroupNormSilu(norm) => activation::silu(norm.forward(x)),
        }
    }
}

/// A subject with its times so far.
struct Timed {
    subject: Subject,
    first: Option<f64>,
    forward: Vec<f64>,
    both: Vec<f64>,
    saved: Option<usize>,
    peak: Option<usize>,
}

fn layer_figures(layer: &Layer, module: &NormAct, dims: [usize; 4], device: &OpenDevice, runs: usize) -> LayerFigures {
    let autodiff = device.device.clone().autodiff();
    let mut subjects =
        vec![Subject::Module(Box::new(module.clone())), Subject::Module(Box::new(module.clone().op_by_op()))];
    subjects.extend(burns_own(&layer.name, dims[1], &autodiff));
    let mut timed: Vec<Timed> = subjects
        .into_iter()
        .map(|subject| Timed { subject, first: None, forward: vec![], both: vec![], saved: None, peak: None })
        .collect();
    let x = random(dims, 1, &autodiff);
    let dy = random(dims, 2, &autodiff);
    let input_bytes = 4 * dims.iter().product::<usize>();
    let output_bytes = tensor_bytes(dims, &device.device);
    let mut left = runs;
    while left > 0 {
        let turn = left.min(TURN);
        left -= turn;
        for timed in &mut timed {
            // The first steps allocate, plan and compile, or bring data back into the caches.
            for _ in 0..WARM_UP {
                let step = step(&timed.subject, &x, &dy, &device.device, true);
                timed.first = timed.first.or(Some(step.both.as_secs_f64() * 1e3));
                // The output is alive but not kept; the input is kept, though it was there before.
                timed.saved =
                    step.alive.zip(output_bytes).map(|(alive, output)| alive.saturating_sub(output) + input_bytes);
                timed.peak = step.peak;
            }
            for _ in 0..turn {
                let step = step(&timed.subject, &x, &dy, &device.device, false);
                timed.forward.push(step.forward.as_secs_f64() * 1e3);
                timed.both.push(step.both.as_secs_f64() * 1e3);
            }
        }
    }
    let mut figures = timed.into_iter().map(|timed| {
        let path = match &timed.subject {
            Subject::Module(module) => match module.path(&x) {
                Path::Fused => "fused".to_owned(),
                Path::OpByOp(reason) => format!("op by op: {reason}"),
            },
            Subject::BatchNormRelu(_) => "Burn's BatchNorm and relu".to_owned(),
            Subject::GroupNormSilu(_) => "Burn's GroupNorm and silu".to_owned(),
        };
        let passes = (path == "fused").then(|| {
            let sizes = Sizes { samples: dims[0], channels: dims[1], positions: dims[2] * dims[3] };
            Plan::new(&layer.dag, Mode::Training, sizes).traffic().iter().sum()
        });
        let kernels = match &timed.subject {
            Subject::Module(module) => module.kernels(&x),
            Subject::BatchNormRelu(_) | Subject::GroupNormSilu(_) => None,
        };
        let (low, high) = range(&timed.both);
        Figures {
            path,
            forward_ms: median(timed.forward),
            forward_backward_ms: median(timed.both),
            first_ms: timed.first.unwrap_or(f64::NAN),
            range_ms: [low, high],
            passes,
            kernels_forward: kernels.map(|[forward, _]| forward),
            kernels_backward: kernels.map(|[_, backward]| backward),
            saved_bytes: timed.saved,
            peak_bytes: timed.peak,
        }
    });
    let mut next = || figures.next();
    LayerFigures {
        layer: layer.name.clone(),
        fused: next().expect("the module"),
        op_by_op: next().expect("the module, operation by operation"),
        burn: next(),
    }
}

/// Steps of a turn that are not timed.
const WARM_UP: usize = 2;

/// Steps of a turn that are timed.
const TURN: usize = 5;

struct StepTimes {
    forward: Duration,
    both: Duration,
    /// Bytes allocated by the forward pass and alive after it, the output among them.
    alive: Option<usize>,
    peak: Option<usize>,
}

fn step(subject: &Subject, x: &Tensor<4>, dy: &Tensor<4>, device: &Device, of_peak: bool) -> StepTimes {
    // A leaf of its own for each step, so that its gradient is not added to an older one.
    let x = x.clone().detach().require_grad();
    let wait = || device.sync().expect("the device works");
    wait();
    let memory = Memory::start(device, of_peak);
    let start = Instant::now();
    let y = subject.forward(x.clone());
    wait();
    let forward = start.elapsed();
    let alive = memory.alive();
    let between = Instant::now();
    let gradients = upstream(y, dy.clone()).backward();
    wait();
    let both = forward + between.elapsed();
    let peak = memory.peak();
    drop((gradients, x));
    StepTimes { forward, both, alive, peak }
}

/// What a tensor with a gradient takes, Burn's bookkeeping for it included.
fn tensor_bytes(dims: [usize; 4], device: &Device) -> Option<usize> {
    let wait = || device.sync().expect("the device works");
    wait();
    let memory = Memory::start(device, false);
    let tensor = random(dims, 4, &device.clone().autodiff());
    wait();
    let bytes = memory.alive();
    drop(tensor);
    bytes
}

/// Burn's own module for a built-in layer.
fn burns_own(layer: &str, channels: usize, device: &Device) -> Option<Subject> {
    match layer {
        "bn_relu" => Some(Subject::BatchNormRelu(BatchNormConfig::new(channels).init(device))),
        "gn_silu" => {
            let groups = (1..=channels.min(32)).rev().find(|groups| channels.is_multiple_of(*groups)).unwrap_or(1);
            Some(Subject::GroupNormSilu(GroupNormConfig::new(groups, channels).init(device)))
        }
        _ => None,
    }
}

/// One full-size read and one write, by all cores or by the device, between buffers that exist.
fn copy_time(dims: [usize; 4], device: &OpenDevice, runs: usize) -> f64 {
    let mut times = vec![];
    if device.name == "cpu" {
        let from = numbers(dims, 3);
        let mut to = vec![1.0; from.len()];
        for _ in 0..runs + WARM_UP {
            let start = Instant::now();
            normact_burn::copy(&from, &mut to);
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    } else {
        let x = random(dims, 3, &device.device);
        for _ in 0..runs + WARM_UP {
            device.device.sync().expect("the device works");
            let start = Instant::now();
            let y = x.clone() * 1.0;
            device.device.sync().expect("the device works");
            times.push(start.elapsed().as_secs_f64() * 1e3);
            drop(y);
        }
    }
    median(times.split_off(WARM_UP))
}

fn numbers(dims: [usize; 4], seed: u64) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..dims.iter().product()).map(|_| rng.random_range(-2.0f32..2.0)).collect()
}

fn random(dims: [usize; 4], seed: u64, device: &Device) -> Tensor<4> {
    Tensor::from_data(TensorData::new(numbers(dims, seed), dims), device)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn range(times: &[f64]) -> (f64, f64) {
    let low = times.iter().copied().fold(f64::INFINITY, f64::min);
    (low, times.iter().copied().fold(0.0, f64::max))
}
