//! Starting a backward pass from a given upstream gradient.
//!
//! Burn's backward pass starts from ones. A loss `sum(y * dy)` has the upstream gradient `dy`, at
//! the price of several full-size operations; this operation has it for nothing.

use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Dispatch, TensorMetadata, backend_extension};
use burn::tensor::{Shape, Tensor};

/// A tensor whose backward pass gives `y` the gradient `dy`. Its value means nothing.
///
/// ```
/// use burn::tensor::{Device, Tensor};
///
/// let device = Device::flex().autodiff();
/// let x = Tensor::<2>::from_data([[1.0, 2.0]], &device).require_grad();
/// let dy = Tensor::<2>::from_data([[10.0, 20.0]], &device);
/// let gradients = normact_burn::upstream(x.clone() * 3.0, dy).backward();
/// assert_eq!(x.grad(&gradients).unwrap().to_data().to_vec::<f32>().unwrap(), [30.0, 60.0]);
/// ```
pub fn upstream<const D: usize>(y: Tensor<D>, dy: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::upstream_of(y.into_dispatch(), dy.into_dispatch()))
}

#[backend_extension(Cube, Flex, Autodiff)]
pub(crate) trait Upstream: Backend {
    /// `y`; where autodiff is on, with the gradient `dy`.
    fn upstream_of(y: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl Upstream for burn::backend::Cube {
    fn upstream_of(y: FloatTensor<Self>, _dy: FloatTensor<Self>) -> FloatTensor<Self> {
        y
    }
}

impl Upstream for burn::backend::Flex {
    fn upstream_of(y: FloatTensor<Self>, _dy: FloatTensor<Self>) -> FloatTensor<Self> {
        y
    }
}

#[derive(Debug)]
struct GivenGradient;

impl<B: Backend + Upstream> Backward<B, 1> for GivenGradient {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        drop(grads.consume::<B>(&ops.node));
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            grads.register::<B>(parent.id, ops.state);
        }
    }
}

impl<B: Backend + Upstream, C: CheckpointStrategy> Upstream for Autodiff<B, C> {
    fn upstream_of(y: FloatTensor<Self>, dy: FloatTensor<Self>) -> FloatTensor<Self> {
        let nodes = [y.node()];
        // One element stands for all: the backward pass would start from as many ones. A zero, not one of `y`, which
        // a GPU would need a kernel of its own for.
        let zero = |y: FloatTensor<B>| {
            let shape = Shape::from(vec![1; y.shape().num_dims()]);
            B::float_zeros(shape, &y.device(), y.dtype().into())
        };
        match GivenGradient.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => prep.finish(dy.into_primitive(), zero(y.into_primitive())),
            OpsKind::UnTracked(prep) => prep.finish(zero(y.into_primitive())),
        }
    }
}
