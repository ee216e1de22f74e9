//! A layer as one operation of Burn, forward and backward.
//!
//! The operation is a backend extension: a trait that Burn's run-time dispatch calls on the back-end
//! of its tensors, with an implementation for each back-end that executes plans, and one for
//! autodiff (`autodiff`) that records a single step with a hand-written backward pass.
//! [`path`] says beforehand whether a layer can run this way.

mod autodiff;
pub(crate) mod cube;
mod flex;
#[cfg(feature = "fusion")]
mod fusion;
mod pool;
mod slots;

use std::sync::{Arc, Mutex, PoisonError};

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, DispatchDevice, backend_extension};
use burn::tensor::{DType, Device, Shape, Tensor};
use normact_ir::Mode;
use normact_plan::{Plan, Sizes};

use crate::prepared::Prepared;
pub use pool::{reset_most_in_use, result_bytes};
use slots::Slots;

/// A layer, and how an input of it runs.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    pub(crate) layer: Arc<Prepared>,
    pub(crate) mode: Mode,
    /// How many neighbouring elements a kernel reads at a time as on a GPU; `None` for what the device runs best.
    pub(crate) lanes: Option<usize>,
}

/// A layer as one operation.
#[backend_extension(Cube, Flex, Autodiff)]
pub(crate) trait FusedLayer: Backend {
    /// The output, what the backward pass needs beside the input, and, in training, the new running averages.
    fn layer_forward(
        x: FloatTensor<Self>,
        #[extension_type] params: Slots<Self>,
        #[extension_type] running: Slots<Self>,
        spec: Spec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, Vec<FloatTensor<Self>>);

    /// The gradient of `x`, of which the values mean nothing where `wants_input` is false, and then that of
    /// each parameter, of which the values mean nothing where the layer does not read it.
    fn layer_backward(
        x: FloatTensor<Self>,
        #[extension_type] params: Slots<Self>,
        #[extension_type] running: Slots<Self>,
        kept: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        spec: Spec,
        wants_input: bool,
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

/// The path of an input.
pub(crate) fn path<const D: usize>(spec: &Spec, x: &Tensor<D>) -> Path {
    let params = spec.layer.layer.dag.params().len();
    if params > autodiff::MOST_PARAMS {
        let most = autodiff::MOST_PARAMS;
        return Path::OpByOp(format!("the layer has {params} parameters, more than {most}"));
    }
    if x.dtype() == DType::F64 {
        return Path::OpByOp("the fused path computes in f32, and the input is f64".to_owned());
    }
    match x.device().without_autodiff().as_dispatch() {
        DispatchDevice::Flex(_) => Path::Fused,
        DispatchDevice::Cube(device) => {
            cube::obstacle(spec, sizes(&x.shape()), device, x.dtype()).map_or(Path::Fused, Path::OpByOp)
        }
        _ => Path::OpByOp("the device has no fused path".to_owned()),
    }
}

/// How many kernels the forward and the backward pass of a fused layer are, where a device has kernels.
pub(crate) fn kernels<const D: usize>(spec: &Spec, x: &Tensor<D>) -> Option<[usize; 2]> {
    match x.device().without_autodiff().as_dispatch() {
        DispatchDevice::Cube(device) => Some(cube::kernels(spec, sizes(&x.shape()), device, x.dtype())),
        _ => None,
    }
}

/// How many statistics a fused layer with that plan keeps for the backward pass, and how many bytes they take.
pub(crate) fn kept<const D: usize>(spec: &Spec, x: &Tensor<D>, plan: &Plan) -> (usize, usize) {
    let sizes = sizes(&x.shape());
    match x.device().without_autodiff().as_dispatch() {
        DispatchDevice::Cube(device) => {
            let statistics = cube::kept(spec, sizes, device, x.dtype());
            (statistics, 4 * statistics)
        }
        _ => {
            let statistics = plan.kept_slots(sizes);
            (statistics, 8 * statistics)
        }
    }
}

/// Whether the operation reads and writes tensors of a format as they are; others are converted to f32.
pub(crate) fn reads(device: &Device, format: DType) -> bool {
    match device.clone().without_autodiff().as_dispatch() {
        DispatchDevice::Cube(_) => matches!(format, DType::F32 | DType::F16 | DType::BF16),
        _ => format == DType::F32,
    }
}

/// Runs the layer; `x` has its own rank. Gives the output and, in training, the new
/// running averages.
pub(crate) fn forward<const D: usize>(
    spec: Spec,
    x: Tensor<D>,
    params: Vec<Tensor<1>>,
    running: Vec<Tensor<1>>,
) -> (Tensor<D>, Vec<Tensor<1>>) {
    let slots = |tensors: Vec<Tensor<1>>| Slots::new(tensors.into_iter().map(Tensor::into_dispatch).collect());
    let (y, _, updates) = Dispatch::layer_forward(x.into_dispatch(), slots(params), slots(running), spec);
    (Tensor::from_dispatch(y), updates.into_iter().map(Tensor::from_dispatch).collect())
}

/// The sizes of a tensor in the view samples x channels x positions.
pub(crate) fn sizes(shape: &Shape) -> Sizes {
    let mut rest = shape.iter().copied();
    let mut next = || rest.next().unwrap_or(1);
    Sizes { samples: next(), channels: next(), positions: rest.product() }
}

/// Compiled forms of a layer, by what they depend on.
#[derive(Debug)]
pub(crate) struct Cache<K, V> {
    /// The ones used last come first. A layer sees few shapes, and comparing those is quicker than hashing one.
    entries: Mutex<Vec<(K, Arc<V>)>>,
}

/// A program that varies shapes without end does not fill the memory.
const CACHED: usize = 64;

impl<K: Eq, V> Cache<K, V> {
    pub(crate) fn new() -> Self {
        Self { entries: Mutex::new(vec![]) }
    }

    /// The entry for a key, made if there is none.
    pub(crate) fn get(&self, key: K, make: impl FnOnce() -> V) -> Arc<V> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.iter().position(|(known, _)| *known == key) {
            Some(0) => {}
            Some(place) => entries[..=place].rotate_right(1),
            None => {
                entries.truncate(CACHED - 1);
                entries.insert(0, (key, Arc::new(make())));
            }
        }
        entries[0].1.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_gives_up_what_was_used_longest_ago() {
        let cache = Cache::new();
        let is_made = |key: usize| {
            let mut made = false;
            let found = cache.get(key, || {
                made = true;
                key
            });
            assert_eq!(*found, key);
            made
        };
        assert!((0..CACHED).all(is_made));
        assert!(!is_made(0), "the oldest is there, and is now the youngest");
        assert!(is_made(CACHED), "one more");
        assert!(!is_made(0) && is_made(1), "the one used longest ago has gone");
    }
}
