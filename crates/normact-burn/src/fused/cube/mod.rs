//! The operation on every CubeCL runtime: a kernel for each pass of a layer over its blocks.

mod blocks;
mod kernel;
mod lowering;
mod program;

use std::sync::Arc;

use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use burn_cubecl::{CubeBackend, CubeDevice};
use cubecl::prelude::*;
use normact_ir::{Extent, Mode};
use normact_plan::Sizes;

use self::kernel::layer_kernel;
use self::program::{Kernel, Lowered, Source, Target};
use super::slots::Slots;
use super::{FusedLayer, Spec, sizes};
use crate::lower::Plan;

/// With fewer blocks than this, most of a GPU would be idle.
const FEW_BLOCKS: usize = 4;

/// An input with so many elements is not worth more than a few workgroups.
const SMALL: usize = 1 << 16;

/// Workgroups in a line; a GPU has a limit, and more of them make a rectangle.
const LINE: usize = 1 << 15;

/// Operations of a kernel; drivers take more than proportionally longer to compile more of them.
const MOST_OPERATIONS: usize = 2000;

/// A layer lowered for one mode and one shape.
#[derive(Debug)]
pub(crate) struct Compiled {
    forward: Lowered,
    backward: Lowered,
    /// Whether the output depends on the input.
    has_input_gradient: bool,
    elements: usize,
}

impl Compiled {
    fn new(layer: &Plan, mode: Mode, sizes: Sizes, wants_input: bool) -> Self {
        let plan = normact_plan::Plan::new(&layer.layer.dag, mode, sizes);
        let params: Vec<Extent> = layer.layer.dag.params().iter().map(|param| param.extent).collect();
        let running: Vec<Extent> = layer.buffers.list().iter().map(|buffer| buffer.extent).collect();
        let [forward, backward] = lowering::lower(&plan, &params, &running, sizes, wants_input);
        let has_input_gradient = plan.joint.input_gradient.is_some();
        Self { forward, backward, has_input_gradient, elements: sizes.elements() }
    }

    /// Why the device had better not run it.
    fn obstacle(&self, device: &CubeDevice) -> Option<String> {
        if self.elements > u32::MAX as usize {
            return Some("its input has more than 2^32 elements, and kernels count in 32 bits".to_owned());
        }
        let blocks = self.forward.blocks.blocks.min(self.backward.blocks.blocks);
        if blocks < FEW_BLOCKS && self.elements > SMALL {
            return Some(format!(
                "its statistics are of so many elements that {blocks} workgroup(s) would do all the work"
            ));
        }
        let kernels = || self.forward.kernels().chain(self.backward.kernels());
        let operations = kernels().map(Kernel::operations).max().unwrap_or(0);
        if operations > MOST_OPERATIONS {
            return Some(format!("a kernel of {operations} operations takes a driver too long to compile"));
        }
        let limit = device.client().properties().hardware.max_bindings as usize;
        // One buffer is for sizes.
        let buffers = kernels().map(|kernel| kernel.inputs.len() + kernel.outputs.len() + 1).max().unwrap_or(0);
        (buffers > limit).then(|| format!("a kernel needs {buffers} buffers, and the device allows {limit}"))
    }
}

/// Why a layer does not run fused on a device.
pub(super) fn obstacle(plan: &Plan, mode: Mode, sizes: Sizes, device: &CubeDevice) -> Option<String> {
    compiled(plan, mode, sizes).obstacle(device)
}

/// How many kernels the forward and the backward pass are.
pub(super) fn kernels(plan: &Plan, mode: Mode, sizes: Sizes) -> [usize; 2] {
    let compiled = compiled(plan, mode, sizes);
    [&compiled.forward, &compiled.backward].map(|lowered| lowered.kernels().filter(|kernel| !kernel.is_empty()).count())
}

/// How many numbers the forward pass keeps, and the length of each new running average.
#[cfg(feature = "fusion")]
pub(super) fn lengths(plan: &Plan, mode: Mode, sizes: Sizes) -> (usize, Vec<usize>) {
    let compiled = compiled(plan, mode, sizes);
    (compiled.forward.blocks.exports.max(1), compiled.forward.finals.iter().copied().flatten().collect())
}

fn compiled(plan: &Plan, mode: Mode, sizes: Sizes) -> Arc<Compiled> {
    compiled_for(plan, mode, sizes, true)
}

/// The layer for a backward pass that may not need the gradient of the input.
fn compiled_for(plan: &Plan, mode: Mode, sizes: Sizes, wants_input: bool) -> Arc<Compiled> {
    plan.on_gpu.get((mode, sizes, wants_input), || Compiled::new(plan, mode, sizes, wants_input))
}

impl FusedLayer for CubeBackend {
    fn layer_forward(
        x: CubeTensor,
        params: Slots<CubeBackend>,
        running: Slots<CubeBackend>,
        spec: Spec,
    ) -> (CubeTensor, CubeTensor, Vec<CubeTensor>) {
        let x = into_contiguous(x);
        let compiled = compiled(&spec.plan, spec.mode, sizes(x.meta.shape()));
        let y = empty(&x, x.meta.shape().clone());
        let tensors =
            Tensors { params: contiguous(params), running: contiguous(running), x, dy: None, kept: None, full: y };
        let (kept, updates) = tensors.run(&compiled.forward);
        (tensors.full, kept, updates.into_iter().flatten().collect())
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
        let compiled = compiled_for(&spec.plan, spec.mode, sizes(x.meta.shape()), wants_input);
        let dx = match (wants_input, compiled.has_input_gradient) {
            (true, true) => empty(&x, x.meta.shape().clone()),
            (true, false) => zeros(&x, x.meta.shape().clone()),
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
        let declared = spec.plan.layer.dag.params().iter();
        let gradients = declared.zip(gradients).map(|(param, gradient)| {
            gradient.unwrap_or_else(|| zeros(&tensors.x, Shape::new([param.extent.len(spec.plan.channels)])))
        });
        let gradients = gradients.collect();
        (tensors.full, gradients)
    }
}

fn contiguous(slots: Slots<CubeBackend>) -> Vec<CubeTensor> {
    slots.tensors.into_iter().map(into_contiguous).collect()
}

fn empty(like: &CubeTensor, shape: Shape) -> CubeTensor {
    let buffer = like.client.empty(shape.num_elements() * like.dtype.size());
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, buffer, DType::F32)
}

fn zeros(like: &CubeTensor, shape: Shape) -> CubeTensor {
    burn_cubecl::ops::numeric::zeros_client(like.client.clone(), like.device.clone(), shape, DType::F32)
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
    /// Gives what the blocks export and the final values.
    fn run(&self, lowered: &Lowered) -> (CubeTensor, Vec<Option<CubeTensor>>) {
        let finals = lowered.finals.iter().map(|len| len.map(|len| empty(&self.x, Shape::new([len]))));
        let finals: Vec<Option<CubeTensor>> = finals.collect();
        let memory = |kernel: &Kernel| Memory {
            exports: empty(&self.x, Shape::new([kernel.exports.max(1)])),
            scratch: empty(&self.x, Shape::new([kernel.scratch.max(1)])),
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
        let input = |&source: &Source| match source {
            Source::Input => self.x.clone(),
            Source::Upstream => self.dy.clone().expect("only backward passes read it"),
            Source::Param(number) => self.params[number].clone(),
            Source::Running(number) => self.running[number].clone(),
            Source::Kept => self.kept.clone().expect("only backward passes read it"),
            Source::Exports => before.expect("only the second kernel reads them").exports.clone(),
            Source::Scratch => before.expect("only the second kernel reads it").scratch.clone(),
        };
        let output = |&target: &Target| match target {
            Target::Full => self.full.clone(),
            Target::Exports => own.exports.clone(),
            Target::Scratch => own.scratch.clone(),
            Target::Final(number) => finals[number].clone().expect("it is written"),
        };
        let mut inputs = SequenceArg::new();
        kernel.inputs.iter().for_each(|source| inputs.push(input(source).into_buffer_arg()));
        let mut outputs = SequenceArg::new();
        kernel.outputs.iter().for_each(|target| outputs.push(output(target).into_buffer_arg()));
        let mut numbers = SequenceArg::new();
        kernel.numbers.iter().for_each(|&number| numbers.push(number));
        let mut counts = SequenceArg::new();
        kernel.counts.iter().for_each(|&count| counts.push(count));
        let lines = kernel.blocks.div_ceil(LINE);
        let grid = CubeCount::Static(kernel.blocks.div_ceil(lines) as u32, lines as u32, 1);
        // SAFETY: indices follow from the sizes that the buffers were made or checked for.
        #[allow(unsafe_code)]
        unsafe {
            layer_kernel::launch_unchecked(
                &self.x.client,
                grid,
                CubeDim::new_1d(kernel.program.workgroup as u32),
                inputs,
                outputs,
                numbers,
                counts,
                kernel.program.clone(),
            );
        }
    }
}
