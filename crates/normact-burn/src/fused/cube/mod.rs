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
use super::{FusedLayer, SLOTS, Spec};
use crate::lower::Plan;

/// With fewer blocks than this, most of a GPU would be idle.
const FEW_BLOCKS: usize = 4;

/// An input with so many elements is not worth more than a few workgroups.
const SMALL: usize = 1 << 16;

/// Workgroups in a line; a GPU has a limit, and more of them make a rectangle.
const LINE: usize = 1 << 15;

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
    pub(crate) fn new(layer: &Plan, mode: Mode, sizes: Sizes) -> Self {
        let plan = normact_plan::Plan::new(&layer.layer.dag, mode, sizes);
        let params: Vec<Extent> = layer.layer.dag.params().iter().map(|param| param.extent).collect();
        let running: Vec<Extent> = layer.buffers.list().iter().map(|buffer| buffer.extent).collect();
        let [forward, backward] = lowering::lower(&plan, &params, &running, sizes);
        let has_input_gradient = plan.joint.input_gradient.is_some();
        Self { forward, backward, has_input_gradient, elements: sizes.elements() }
    }

    /// Why the device had better not run it.
    fn obstacle(&self, device: &CubeDevice) -> Option<String> {
        let blocks = self.forward.blocks.blocks.min(self.backward.blocks.blocks);
        if blocks < FEW_BLOCKS && self.elements > SMALL {
            return Some(format!(
                "its statistics are of so many elements that {blocks} workgroup(s) would do all the work"
            ));
        }
        let limit = device.client().properties().hardware.max_bindings as usize;
        let kernels = self.forward.kernels().chain(self.backward.kernels());
        // One buffer is for sizes.
        let buffers = kernels.map(|kernel| kernel.inputs.len() + kernel.outputs.len() + 1).max().unwrap_or(0);
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
    (compiled.forward.blocks.results.max(1), compiled.forward.finals.iter().copied().flatten().collect())
}

fn compiled(plan: &Plan, mode: Mode, sizes: Sizes) -> Arc<Compiled> {
    plan.on_gpu.get((mode, sizes), || Compiled::new(plan, mode, sizes))
}

impl FusedLayer for CubeBackend {
    fn layer_forward(
        x: CubeTensor,
        s0: CubeTensor,
        s1: CubeTensor,
        s2: CubeTensor,
        s3: CubeTensor,
        s4: CubeTensor,
        s5: CubeTensor,
        s6: CubeTensor,
        s7: CubeTensor,
        s8: CubeTensor,
        s9: CubeTensor,
        spec: Spec,
    ) -> (CubeTensor, CubeTensor, Vec<CubeTensor>) {
        let x = into_contiguous(x);
        let compiled = compiled(&spec.plan, spec.mode, sizes(&x));
        let y = empty(&x, x.meta.shape().clone());
        let tensors = Tensors {
            params: params([s0, s1, s2, s3, s4, s5, s6, s7, s8, s9], &spec),
            x,
            dy: None,
            kept: None,
            full: y,
            spec: &spec,
        };
        let (kept, updates) = tensors.run(&compiled.forward);
        (tensors.full, kept, updates.into_iter().flatten().collect())
    }

    fn layer_backward(
        x: CubeTensor,
        s0: CubeTensor,
        s1: CubeTensor,
        s2: CubeTensor,
        s3: CubeTensor,
        s4: CubeTensor,
        s5: CubeTensor,
        s6: CubeTensor,
        s7: CubeTensor,
        s8: CubeTensor,
        s9: CubeTensor,
        kept: CubeTensor,
        dy: CubeTensor,
        spec: Spec,
    ) -> (CubeTensor, Vec<CubeTensor>) {
        let x = into_contiguous(x);
        let compiled = compiled(&spec.plan, spec.mode, sizes(&x));
        let shape = x.meta.shape().clone();
        let dx = if compiled.has_input_gradient { empty(&x, shape) } else { zeros(&x, shape) };
        let tensors = Tensors {
            params: params([s0, s1, s2, s3, s4, s5, s6, s7, s8, s9], &spec),
            x,
            dy: Some(into_contiguous(dy)),
            kept: Some(kept),
            full: dx,
            spec: &spec,
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

fn sizes(x: &CubeTensor) -> Sizes {
    let dims: Vec<usize> = x.meta.shape().iter().copied().collect();
    Sizes { samples: dims[0], channels: dims[1], positions: dims[2..].iter().product() }
}

/// Parameters, then running averages.
fn params(tensors: [CubeTensor; SLOTS], spec: &Spec) -> Vec<CubeTensor> {
    let params = spec.plan.layer.dag.params().len();
    let running = spec.plan.buffers.list().len();
    tensors.into_iter().take(params + running).map(into_contiguous).collect()
}

fn empty(like: &CubeTensor, shape: Shape) -> CubeTensor {
    let buffer = like.client.empty(shape.num_elements() * like.dtype.size());
    CubeTensor::new_contiguous(like.client.clone(), like.device.clone(), shape, buffer, DType::F32)
}

fn zeros(like: &CubeTensor, shape: Shape) -> CubeTensor {
    burn_cubecl::ops::numeric::zeros_client(like.client.clone(), like.device.clone(), shape, DType::F32)
}

/// The tensors of one pass.
struct Tensors<'a> {
    x: CubeTensor,
    dy: Option<CubeTensor>,
    params: Vec<CubeTensor>,
    kept: Option<CubeTensor>,
    /// The full-size result.
    full: CubeTensor,
    spec: &'a Spec,
}

impl Tensors<'_> {
    /// Gives the results of the blocks and the final values.
    fn run(&self, lowered: &Lowered) -> (CubeTensor, Vec<Option<CubeTensor>>) {
        let finals = lowered.finals.iter().map(|len| len.map(|len| empty(&self.x, Shape::new([len]))));
        let finals: Vec<Option<CubeTensor>> = finals.collect();
        let results = empty(&self.x, Shape::new([lowered.blocks.results.max(1)]));
        self.launch(&lowered.blocks, None, &results, &finals);
        if let Some(finish) = &lowered.finish {
            let own = empty(&self.x, Shape::new([finish.results.max(1)]));
            self.launch(finish, Some(&results), &own, &finals);
        }
        (results, finals)
    }

    fn launch(
        &self,
        kernel: &Kernel,
        before: Option<&CubeTensor>,
        results: &CubeTensor,
        finals: &[Option<CubeTensor>],
    ) {
        if kernel.is_empty() {
            return;
        }
        let params = self.spec.plan.layer.dag.params().len();
        let input = |&source: &Source| match source {
            Source::Input => self.x.clone(),
            Source::Upstream => self.dy.clone().expect("only backward passes read it"),
            Source::Param(number) => self.params[number].clone(),
            Source::Running(number) => self.params[params + number].clone(),
            Source::Kept => self.kept.clone().expect("only backward passes read it"),
            Source::Results => before.expect("only the second kernel reads them").clone(),
        };
        let output = |&target: &Target| match target {
            Target::Full => self.full.clone(),
            Target::Results => results.clone(),
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
        let line = kernel.blocks.min(LINE);
        let grid = CubeCount::Static(line as u32, kernel.blocks.div_ceil(line) as u32, 1);
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
