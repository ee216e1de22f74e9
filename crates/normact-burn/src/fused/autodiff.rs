//! The operation in Burn's autodiff: one step with a hand-written backward pass.
//!
//! The step keeps the statistics of the plan, the small operands that the backward pass reads, and the number of
//! the node of `x`, whose values autodiff has anyway, or computes again under gradient checkpointing. There the
//! output counts as cheap: an operation behind the layer that needs it has it computed again from `x`, so that a
//! layer keeps one full-size tensor, not two.

use std::marker::PhantomData;

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::retro_forward::RetroForward;
use burn::backend::autodiff::checkpoint::state::BackwardStates;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend};
use normact_ir::Mode;

use super::{FusedLayer, Slots, Spec};

/// The most parameters of a layer: the number of a step's parents is part of its type.
pub(super) const MOST_PARAMS: usize = 16;

impl<B: Backend + FusedLayer, C: CheckpointStrategy> FusedLayer for Autodiff<B, C> {
    fn layer_forward(
        x: FloatTensor<Self>,
        params: Slots<Self>,
        running: Slots<Self>,
        spec: Spec,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, Vec<FloatTensor<Self>>) {
        macro_rules! with_parents {
            ($($params:literal)*) => {
                match params.tensors.len() {
                    $($params => record::<B, C, { $params + 1 }>(x, params, inner(running), spec),)*
                    _ => unreachable!("a layer with more parameters runs operation by operation"),
                }
            };
        }
        with_parents!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16)
    }

    fn layer_backward(
        x: FloatTensor<Self>,
        params: Slots<Self>,
        running: Slots<Self>,
        kept: FloatTensor<Self>,
        dy: FloatTensor<Self>,
        spec: Spec,
        wants_input: bool,
    ) -> (FloatTensor<Self>, Vec<FloatTensor<Self>>) {
        // Burn's autodiff is of first order: gradients are constants.
        let [x, kept, dy] = [x, kept, dy].map(|tensor| tensor.into_primitive());
        let (dx, gradients) = B::layer_backward(x, inner(params), inner(running), kept, dy, spec, wants_input);
        (constant::<B, C>(dx), gradients.into_iter().map(constant::<B, C>).collect())
    }
}

fn inner<B: Backend, C: CheckpointStrategy>(slots: Slots<Autodiff<B, C>>) -> Slots<B> {
    slots.map(|tensor| tensor.into_primitive())
}

fn constant<B: Backend, C: CheckpointStrategy>(tensor: FloatTensor<B>) -> FloatTensor<Autodiff<B, C>> {
    <Autodiff<B, C> as AutodiffBackend>::from_inner(tensor)
}

/// The output, what is kept for the backward pass, and the new running averages.
type Forward<B> = (FloatTensor<B>, FloatTensor<B>, Vec<FloatTensor<B>>);

/// Runs the layer and records the step; its parents are `x` and the parameters, `N` in all.
fn record<B: Backend + FusedLayer, C: CheckpointStrategy, const N: usize>(
    x: FloatTensor<Autodiff<B, C>>,
    params: Slots<Autodiff<B, C>>,
    running: Slots<B>,
    spec: Spec,
) -> Forward<Autodiff<B, C>> {
    let operand = |number: usize| if number == 0 { &x } else { &params.tensors[number - 1] };
    let again = LayerAgain::<B> {
        x: x.id(),
        params: params.tensors.iter().map(|param| param.id()).collect(),
        running: running.clone(),
        spec: spec.clone(),
        backend: PhantomData,
    };
    let prep = LayerBackward.prepare::<C>(std::array::from_fn::<_, N, _>(|number| operand(number).node()));
    let prep = prep.memory_bound().retro_forward(again).parents((0..N).map(operand));
    let (y, kept, updates) = match prep.stateful() {
        OpsKind::Tracked(mut prep) => {
            let node = prep.checkpoint(&x);
            let params = inner(params);
            let (y, kept, updates) =
                B::layer_forward(x.into_primitive(), params.clone(), running.clone(), spec.clone());
            // In training, statistics are those of the batch.
            let running = if spec.mode == Mode::Training { Slots::new(vec![]) } else { running };
            (prep.finish((node, params, running, kept.clone(), spec), y), kept, updates)
        }
        OpsKind::UnTracked(prep) => {
            let (y, kept, updates) = B::layer_forward(x.into_primitive(), inner(params), running, spec);
            (prep.finish(y), kept, updates)
        }
    };
    (y, constant::<B, C>(kept), updates.into_iter().map(constant::<B, C>).collect())
}

#[derive(Debug)]
struct LayerBackward;

impl<B: Backend + FusedLayer, const N: usize> Backward<B, N> for LayerBackward {
    /// The node of `x`, the parameters, the running averages, what the forward pass kept, and the layer.
    type State = (NodeId, Slots<B>, Slots<B>, FloatTensor<B>, Spec);

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        let (x, params, running, kept, spec) = ops.state;
        let x: FloatTensor<B> = checkpointer.retrieve_node_output(x);
        let wants_input = ops.parents[0].is_some();
        let (dx, gradients) = B::layer_backward(x, params, running, kept, dy, spec, wants_input);
        for (parent, gradient) in ops.parents.into_iter().zip(std::iter::once(dx).chain(gradients)) {
            if let Some(parent) = parent {
                grads.register::<B>(parent.id, gradient);
            }
        }
    }
}

/// Computes the output once more, in a backward pass under gradient checkpointing.
#[derive(Debug)]
struct LayerAgain<B: Backend> {
    x: NodeId,
    params: Vec<NodeId>,
    running: Slots<B>,
    spec: Spec,
    backend: PhantomData<B>,
}

impl<B: Backend + FusedLayer> RetroForward for LayerAgain<B> {
    fn forward(&self, states: &mut BackwardStates, out_node: NodeId) {
        let x = states.get_state::<FloatTensor<B>>(&self.x);
        let params = self.params.iter().map(|param| states.get_state::<FloatTensor<B>>(param));
        let params = Slots::new(params.collect());
        // The running averages have moved in the forward pass, and do not move again.
        let (y, _, _) = B::layer_forward(x, params, self.running.clone(), self.spec.clone());
        states.save(out_node, y);
    }
}
