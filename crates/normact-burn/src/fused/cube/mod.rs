//! The operation on every CubeCL runtime: a kernel for each pass of a layer over its blocks.

mod blocks;
mod code;
mod kernel;
mod lowering;
mod math;
mod program;

use std::sync::{Arc, LazyLock};

use burn::backend::Backend;
use burn::backend::cubecl::dtype_to_elem_type;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use cubecl::client::Client;
use cubecl::ir::features::Plane;
use cubecl::prelude::*;
use normact_ir::{Extent, Mode};
use normact_plan::Sizes;

use self::blocks::{Threads, power_of_two};
use self::kernel::layer_kernel;
pub(crate) use self::lowering::Wanted;
use self::program::{Given, Kernel, Lowered, Own, Program, Small, Tensor};
use super::slots::Slots;
use super::{FusedLayer, Spec, sizes};
use crate::prepared::Prepared;

/// With fewer blocks than this, most of a GPU would be idle.
const FEW_BLOCKS: usize = 4;

/// An input with so many elements is not worth more than a few workgroups.
const SMALL: usize = 1 << 16;

/// Workgroups in a line; a GPU has a limit, and more of them make a rectangle.
const LINE: usize = 1 << 15;

/// Operations of a kernel; drivers take more than proportionally longer to compile more of them.
const MOST_OPERATIONS: usize = 2000;

/// The cores of this machine. To ask for them reads files, and takes longer than a launch.
static CORES: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));

/// A layer lowered for one mode and one shape.
#[derive(Debug)]
pub(crate) struct Compiled {
    forward: Lowered,
    backward: Lowered,
    /// Whether the output depends on the input.
    has_input_gradient: bool,
    elements: usize,
    threads: Threads,
}

impl Compiled {
    fn new(layer: &Prepared, mode: Mode, sizes: Sizes, wanted: Wanted) -> Self {
        let plan = normact_plan::Plan::new(&layer.layer.dag, mode, sizes);
        let params: Vec<Extent> = layer.layer.dag.params().iter().map(|param| param.extent).collect();
        let running: Vec<Extent> = layer.buffers.list().iter().map(|buffer| buffer.extent).collect();
        let [forward, backward] = lowering::lower(&plan, &params, &running, sizes, wanted);
        let has_input_gradient = plan.joint.input_gradient.is_some();
        Self { forward, backward, has_input_gradient, elements: sizes.elements(), threads: wanted.threads }
    }

    /// Why the device had better not run it.
    fn obstacle(&self, device: &CubeDevice) -> Option<String> {
        if self.elements > u32::MAX as usize {
            return Some("its input has 2^32 elements or more, and kernels count in 32 bits".to_owned());
        }
        let full_size =
            [&self.forward, &self.backward].into_iter().filter(|pass| pass.sizes.elements() == self.elements);
        let blocks = full_size.map(|pass| pass.blocks.blocks).min().unwrap_or(FEW_BLOCKS);
        if blocks < FEW_BLOCKS && self.elements > SMALL {
            return Some(format!(
                "its statistics are of so many elements that {blocks} workgroup(s) would do all the work"
            ));
        }
        let kernels = || self.forward.kernels().chain(self.backward.kernels());
        let rounds = kernels().map(|kernel| kernel.rounds).max().unwrap_or(0);
        if rounds > code::MOST_ROUNDS && self.threads != Threads::Gpu {
            return Some(format!(
                "a thread would go through {rounds} rounds of loops, and drivers for CPUs end them after 65,535"
            ));
        }
        let operations = kernels().map(Kernel::operations).max().unwrap_or(0);
        if operations > MOST_OPERATIONS {
            return Some(format!("a kernel of {operations} operations takes a driver too long to compile"));
        }
        let limit = device.client().properties().hardware.max_bindings as usize;
        let buffers = kernels().map(Kernel::buffers).max().unwrap_or(0);
        (buffers > limit).then(|| format!("a kernel needs {buffers} buffers, and the device allows {limit}"))
    }
}

/// Why a layer does not run fused on a device.
pub(super) fn obstacle(spec: &Spec, sizes: Sizes, device: &CubeDevice, format: DType) -> Option<String> {
    compiled(spec, sizes, Wanted::all(spec, sizes, &device.client(), format)).obstacle(device)
}

/// How many kernels the forward and the backward pass are.
pub(super) fn kernels(spec: &Spec, sizes: Sizes, device: &CubeDevice, format: DType) -> [usize; 2] {
    let compiled = compiled(spec, sizes, Wanted::all(spec, sizes, &device.client(), format));
    [&compiled.forward, &compiled.backward].map(|lowered| lowered.kernels().filter(|kernel| !kernel.is_empty()).count())
}

/// How many numbers the forward pass keeps.
pub(super) fn kept(spec: &Spec, sizes: Sizes, device: &CubeDevice, format: DType) -> usize {
    compiled(spec, sizes, Wanted::all(spec, sizes, &device.client(), format)).forward.blocks.exports
}

/// How many numbers the forward pass keeps, and the length of each new running average.
#[cfg(feature = "fusion")]
pub(super) fn lengths(spec: &Spec, sizes: Sizes) -> (usize, Vec<usize>) {
    // It does not depend on how tensors are read.
    let compiled = compiled(spec, sizes, Wanted { input_gradient: true, lanes: 1, threads: Threads::Gpu });
    (compiled.forward.blocks.exports.max(1), compiled.forward.finals.iter().copied().flatten().collect())
}

fn compiled(spec: &Spec, sizes: Sizes, wanted: Wanted) -> Arc<Compiled> {
    let Spec { layer, mode, .. } = spec;
    layer.on_gpu.get((*mode, sizes, wanted), || Compiled::new(layer, *mode, sizes, wanted))
}

impl Wanted {
    /// Every gradient, and as many elements at a time as the device reads best. A device without planes is a CPU, or
    /// hides what it is.
    fn all(spec: &Spec, sizes: Sizes, client: &Client, format: DType) -> Self {
        let properties = client.properties();
        let is_gpu = properties.features.plane.contains(Plane::Ops) && properties.hardware.num_cpu_cores.is_none();
        let vector = properties.hardware.plane_size_max as usize;
        let threads = if is_gpu || spec.lanes.is_some() || vector > 16 {
            Threads::Gpu
        } else {
            Threads::Cpu { cores: *CORES, vector: power_of_two(vector) }
        };
        let widths = client.io_optimized_vector_sizes(format.size());
        let lanes = spec.lanes.into_iter().chain(widths).find(|&lanes| sizes.positions.is_multiple_of(lanes));
        Self { input_gradient: true, lanes: lanes.unwrap_or(1), threads }
    }
}

impl FusedLayer for CubeBackend {
    fn layer_forward(
        x: CubeTensor,
        params: Slots<CubeBackend>,
        running: Slots<CubeBackend>,
        spec: Spec,
    ) -> (CubeTensor, CubeTensor, Vec<CubeTensor>) {
        let x = into_contiguous(x);
        let sizes = sizes(x.meta.shape());
        let compiled = compiled(&spec, sizes, Wanted::all(&spec, sizes, &x.client, x.dtype));
        let shape = x.meta.shape().clone();
        let is_repeated = compiled.forward.sizes != sizes;
        let ones = |shape: &Shape| {
            Shape::from_iter(shape.iter().enumerate().map(|(axis, &size)| if axis == 1 { size } else { 1 }))
        };
        let y = empty(&x, if is_repeated { ones(&shape) } else { shape.clone() }, x.dtype);
        let tensors =
            Tensors { params: contiguous(params), running: contiguous(running), x, dy: None, kept: None, full: y };
        let (kept, updates) = tensors.run(&compiled.forward);
        let y = if is_repeated { expanded::<Self>(tensors.full, shape) } else { tensors.full };
        (y, kept, updates.into_iter().flatten().collect())
    }

    fn layer_backward(
        x: CubeTensor,
        params: Slots<CubeBackend>,
        running: Slots<CubeBackend>,
        kept: CubeTensor,
        dy: CubeTensor,
        spec: Spec,
        wants_input: bool,
    ) -> (CubeTensor, Vec<CubeTensor>) {
        let x = into_contiguous(x);
        let sizes = sizes(x.meta.shape());
        let all = Wanted::all(&spec, sizes, &x.client, x.dtype);
        let compiled = compiled(&spec, sizes, Wanted { input_gradient: wants_input, ..all });
        let dx = match (wants_input, compiled.has_input_gradient) {
            (true, true) => empty(&x, x.meta.shape().clone(), x.dtype),
            (true, false) => zeros(&x, x.meta.shape().clone(), x.dtype),
            (false, _) => x.clone(),
        };
        let tensors = Tensors {
            params: contiguous(params),
            running: contiguous(running),
            x,
            dy: Some(into_contiguous(dy)),
            kept: Some(kept),
            full: dx,
        };
        let (_, gradients) = tensors.run(&compiled.backward);
        let gradients = gradients.into_iter().zip(&tensors.params).enumerate();
        let gradients = gradients.map(|(number, (gradient, param))| match gradient {
            Some(gradient) => gradient,
            None if spec.layer.depends_on_param(spec.mode, number) => {
                zeros(&tensors.x, param.meta.shape().clone(), param.dtype)
            }
            None => param.clone(),
        });
        let gradients = gradients.collect();
        (tensors.full, gradients)
    }
}

/// The same elements for every index of axes of which there is one.
fn expanded<B: Backend>(tensor: FloatTensor<B>, shape: Shape) -> FloatTensor<B> {
    B::float_expand(tensor, shape)
}

fn contiguous(slots: Slots<CubeBackend>) -> Vec<CubeTensor> {
    slots.tensors.into_iter().map(into_contiguous).collect()
}

fn empty(like: &CubeTensor, shape: Shape, format: DType) -> CubeTensor {
    let buffer = like.client.empty(shape.num_elements() * format.size());
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, buffer, format)
}

fn zeros(like: &CubeTensor, shape: Shape, format: DType) -> CubeTensor {
    burn_cubecl::ops::numeric::zeros_client(like.client.clone(), like.device.clone(), shape, format)
}

/// What a kernel writes beside tensors that are asked for.
struct Memory {
    exports: CubeTensor,
    scratch: CubeTensor,
}

/// The tensors of one pass.
struct Tensors {
    x: CubeTensor,
    dy: Option<CubeTensor>,
    params: Vec<CubeTensor>,
    running: Vec<CubeTensor>,
    kept: Option<CubeTensor>,
    /// The full-size result.
    full: CubeTensor,
}

impl Tensors {
    /// The format of parameters, running averages and their results, the same for all.
    fn small_format(&self) -> DType {
        self.params.first().or(self.running.first()).map_or(DType::F32, |tensor| tensor.dtype)
    }

    /// Gives what the blocks export and the final values.
    fn run(&self, lowered: &Lowered) -> (CubeTensor, Vec<Option<CubeTensor>>) {
        let numbers = |len: usize, format| empty(&self.x, Shape::new([len]), format);
        let finals = lowered.finals.iter().map(|len| len.map(|len| numbers(len, self.small_format())));
        let finals: Vec<Option<CubeTensor>> = finals.collect();
        let memory = |kernel: &Kernel| Memory {
            exports: numbers(kernel.exports.max(1), DType::F32),
            scratch: numbers(kernel.scratch.max(1), DType::F32),
        };
        let of_blocks = memory(&lowered.blocks);
        self.launch(&lowered.blocks, None, &of_blocks, &finals);
        if let Some(finish) = &lowered.finish {
            self.launch(finish, Some(&of_blocks), &memory(finish), &finals);
        }
        (of_blocks.exports, finals)
    }

    fn launch(&self, kernel: &Kernel, before: Option<&Memory>, own: &Memory, finals: &[Option<CubeTensor>]) {
        if kernel.is_empty() {
            return;
        }
        let mut tensors = SequenceArg::new();
        for tensor in &kernel.tensors {
            let tensor = match tensor {
                Tensor::Input => &self.x,
                Tensor::Upstream => self.dy.as_ref().expect("only backward passes read it"),
            };
            tensors.push(tensor.clone().into_buffer_arg());
        }
        let mut small = SequenceArg::new();
        for operand in &kernel.small {
            let operand = match *operand {
                Small::Param(number) => &self.params[number],
                Small::Running(number) => &self.running[number],
            };
            small.push(operand.clone().into_buffer_arg());
        }
        let mut given = SequenceArg::new();
        for numbers in &kernel.given {
            let numbers = match numbers {
                Given::Kept => self.kept.as_ref().expect("only backward passes read it"),
                Given::Exports => &before.expect("only the second kernel reads them").exports,
                Given::Scratch => &before.expect("only the second kernel reads it").scratch,
            };
            given.push(numbers.clone().into_buffer_arg());
        }
        let mut full = SequenceArg::new();
        if kernel.writes {
            full.push(self.full.clone().into_buffer_arg());
        }
        let mut results = SequenceArg::new();
        for &number in &kernel.finals {
            results.push(finals[number].clone().expect("it is written").into_buffer_arg());
        }
        let mut own_numbers = SequenceArg::new();
        for numbers in &kernel.own {
            let numbers = match numbers {
                Own::Exports => &own.exports,
                Own::Scratch => &own.scratch,
            };
            own_numbers.push(numbers.clone().into_buffer_arg());
        }
        let mut numbers = SequenceArg::new();
        kernel.numbers.iter().for_each(|&number| numbers.push(number));
        let mut counts = SequenceArg::new();
        kernel.counts.iter().for_each(|&count| counts.push(count));
        let Program { workgroup, alone, .. } = kernel.program;
        let workgroups = if alone { kernel.blocks.div_ceil(workgroup) } else { kernel.blocks };
        let lines = workgroups.div_ceil(LINE);
        let grid = CubeCount::Static(workgroups.div_ceil(lines) as u32, lines as u32, 1);
        let formats = [self.x.dtype, self.small_format()].map(dtype_to_elem_type);
        // SAFETY: indices follow from the sizes that the buffers were made or checked for.
        #[allow(unsafe_code)]
        unsafe {
            layer_kernel::launch_unchecked(
                &self.x.client,
                grid,
                CubeDim::new_1d(workgroup as u32),
                kernel.lanes,
                tensors,
                small,
                given,
                full,
                results,
                own_numbers,
                numbers,
                counts,
                kernel.program.clone(),
                formats,
            );
        }
    }
}
