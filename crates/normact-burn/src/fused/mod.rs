//! A layer as one operation of Burn, forward and backward.
//!
//! The operation is a backend extension: a trait that Burn's run-time dispatch calls on the back-end
//! of its tensors, with an implementation for each back-end that executes plans, and one for
//! autodiff that records a single step with a hand-written backward pass. The step keeps the input
//! (which its producer keeps anyway) and the statistics of the plan.
//!
//! The interface takes a fixed number of tensors beside `x`: parameters, then running averages.
//! [`path`] says beforehand whether a layer can run this way.

pub(crate) mod cube;
mod flex;
#[cfg(feature = "fusion")]
mod fusion;
mod pool;

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, DispatchDevice, backend_extension};
use burn::tensor::{DType, Device, Tensor};
use normact_ir::Mode;
use normact_plan::Sizes;

use crate::lower::Plan;
pub use pool::{reset_most_in_use, result_bytes};

/// How many parameters and running averages the operation takes.
const SLOTS: usize = 10;

/// A layer and the mode it runs in.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) plan: Arc<Plan>,
    pub(crate) mode: Mode,
}

/// A layer as one operation.
///
/// The forward pass gives the output, what the backward pass needs, and, in training, the
/// new running averages. The backward pass gives the gradient of `x` and then that of each parameter.
#[backend_extension(Cube, Flex, Autodiff)]
#[allow(clippy::too_many_arguments, missing_docs)]
pub(crate) trait FusedLayer: Backend {
    fn layer_forward(
        x: FloatTensor<Self>,
        s0: FloatTensor<Self>,
        s1: FloatTensor<Self>,
        s2: FloatTensor<Self>,
        s3: FloatTensor<Self>,
        s4: FloatTensor<Self>,
        s5: FloatTensor<Self>,
        s6: FloatTensor<Self>,
        s7: FloatTensor<Self>,
        s8: FloatTensor<Self>,
        s9: FloatTensor<Self>,
        spec: Spec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, Vec<FloatTensor<Self>>);

    fn layer_backward(
        x: FloatTensor<Self>,
        s0: FloatTensor<Self>,
        s1: FloatTensor<Self>,
        s2: FloatTensor<Self>,
        s3: FloatTensor<Self>,
        s4: FloatTensor<Self>,
        s5: FloatTensor<Self>,
        s6: FloatTensor<Self>,
        s7: FloatTensor<Self>,
        s8: FloatTensor<Self>,
        s9: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        spec: Spec,
    ) -> (FloatTensor<Self>, Vec<FloatTensor<Self>>);
}

/// How a layer is executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// By the plan, as one operation.
    Fused,
    /// Operation by operation, for the reason given.
    OpByOp(String),
}

/// The path of a layer for an input of that device and format.
pub(crate) fn path(plan: &Plan, mode: Mode, sizes: Sizes, device: &Device, dtype: DType) -> Path {
    let slots = plan.layer.dag.params().len() + plan.buffers.list().len();
    if slots > SLOTS {
        return Path::OpByOp(format!("the layer has {slots} parameters and running averages, more than {SLOTS}"));
    }
    if dtype == DType::F64 {
        return Path::OpByOp("the fused path computes in f32, and the input is f64".to_owned());
    }
    let device = device.clone().without_autodiff();
    match device.as_dispatch() {
        DispatchDevice::Flex(_) => Path::Fused,
        DispatchDevice::Cube(device) => cube::obstacle(plan, mode, sizes, device).map_or(Path::Fused, Path::OpByOp),
        _ => Path::OpByOp("the device has no fused path".to_owned()),
    }
}

/// How many kernels the forward and the backward pass of a fused layer are, where a device has kernels.
pub(crate) fn kernels(plan: &Plan, mode: Mode, sizes: Sizes, device: &Device) -> Option<[usize; 2]> {
    match device.clone().without_autodiff().as_dispatch() {
        DispatchDevice::Cube(_) => Some(cube::kernels(plan, mode, sizes)),
        _ => None,
    }
}

/// Runs the layer; `x` has its own rank. Gives the output and, in training, the new
/// running averages.
pub(crate) fn forward<const D: usize>(spec: Spec, x: Tensor<D>, slots: Vec<Tensor<1>>) -> (Tensor<D>, Vec<Tensor<1>>) {
    let x = x.into_dispatch();
    // Unused slots are filled with the input, which is at hand and costs nothing.
    let mut slots = slots.into_iter().map(Tensor::into_dispatch);
    let mut next = || slots.next().unwrap_or_else(|| x.clone());
    let slots: [_; SLOTS] = std::array::from_fn(|_| next());
    let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9] = slots;
    let (y, _, updates) = Dispatch::layer_forward(x, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, spec);
    (Tensor::from_dispatch(y), updates.into_iter().map(Tensor::from_dispatch).collect())
}

/// What the backward step keeps.
type State<B> = (NodeId, [FloatTensor<B>; SLOTS], FloatTensor<B>, Spec);

#[derive(Debug)]
struct LayerBackward;

impl<B: Backend + FusedLayer> Backward<B, { SLOTS + 1 }> for LayerBackward {
    type State = State<B>;

    fn backward(self, ops: Ops<Self::State, { SLOTS + 1 }>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9], kept, spec) = ops.state;
        let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
        let params = spec.plan.layer.dag.params().len();
        let (dx, gradients) = B::layer_backward(x, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, kept, dy, spec);
        let mut parents = ops.parents.into_iter();
        for (parent, gradient) in parents.by_ref().take(1 + params).zip(std::iter::once(dx).chain(gradients)) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

impl<B: Backend + FusedLayer, C: CheckpointStrategy> FusedLayer for Autodiff<B, C> {
    fn layer_forward(
        x: FloatTensor<Self>,
        s0: FloatTensor<Self>,
        s1: FloatTensor<Self>,
        s2: FloatTensor<Self>,
        s3: FloatTensor<Self>,
        s4: FloatTensor<Self>,
        s5: FloatTensor<Self>,
        s6: FloatTensor<Self>,
        s7: FloatTensor<Self>,
        s8: FloatTensor<Self>,
        s9: FloatTensor<Self>,
        spec: Spec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, Vec<FloatTensor<Self>>) {
        let slots = [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9];
        let mut nodes = std::iter::once(x.node()).chain(slots.iter().map(|slot| slot.node()));
        let nodes: [_; SLOTS + 1] = std::array::from_fn(|_| nodes.next().expect("one for each operand"));
        let constant = |tensor| <Self as AutodiffBackend>::from_inner(tensor);
        let run = |x: FloatTensor<B>, slots: [FloatTensor<B>; SLOTS], spec: Spec| {
            let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9] = slots;
            B::layer_forward(x, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, spec)
        };
        let (y, kept, updates) = match LayerBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let node = prep.checkpoint(&x);
                let slots = slots.map(|slot| slot.into_primitive());
                let (y, kept, updates) = run(x.into_primitive(), slots.clone(), spec.clone());
                (prep.finish((node, slots, kept.clone(), spec), y), kept, updates)
            }
            OpsKind::UnTracked(prep) => {
                let slots = slots.map(|slot| slot.into_primitive());
                let (y, kept, updates) = run(x.into_primitive(), slots, spec);
                (prep.finish(y), kept, updates)
            }
        };
        (y, constant(kept), updates.into_iter().map(constant).collect())
    }

    fn layer_backward(
        x: FloatTensor<Self>,
        s0: FloatTensor<Self>,
        s1: FloatTensor<Self>,
        s2: FloatTensor<Self>,
        s3: FloatTensor<Self>,
        s4: FloatTensor<Self>,
        s5: FloatTensor<Self>,
        s6: FloatTensor<Self>,
        s7: FloatTensor<Self>,
        s8: FloatTensor<Self>,
        s9: FloatTensor<Self>,
        kept: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        spec: Spec,
    ) -> (FloatTensor<Self>, Vec<FloatTensor<Self>>) {
        // Burn's autodiff is of first order: gradients are constants.
        let inner = |tensor: FloatTensor<Self>| tensor.into_primitive();
        let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9] = [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9].map(inner);
        let (dx, gradients) =
            B::layer_backward(inner(x), s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, inner(kept), inner(dy), spec);
        let constant = |tensor| <Self as AutodiffBackend>::from_inner(tensor);
        (constant(dx), gradients.into_iter().map(constant).collect())
    }
}

/// Compiled forms of a layer, by what they depend on.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    entries: Mutex<HashMap<K, Arc<V>>>,
}

/// A layer sees few shapes; a program that varies them without end does not fill the memory.
const CACHED: usize = 64;

impl<K: Hash + Eq, V> Cache<K, V> {
    pub(crate) fn new() -> Self {
        Self { entries: Mutex::new(HashMap::new()) }
    }

    /// The entry for a key, made if there is none.
    pub(crate) fn get(&self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CACHED && !entries.contains_key(&key) {
            entries.clear();
        }
        entries.entry(key).or_insert_with(|| Arc::new(make())).clone()
    }
}
