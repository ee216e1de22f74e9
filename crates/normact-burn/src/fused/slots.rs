//! Any number of small tensors as one operand of a backend extension: parameters, or running averages.

use burn::backend::tensor::FloatTensor;
use burn::backend::{
    Backend, BackendTensor, Dispatch, DispatchAutodiffContext, DispatchTensor, DispatchTensorKind, ExtensionType,
};

/// Tensors with a value for each channel, or one.
#[derive(Debug, Clone)]
pub(crate) struct Slots<B: Backend> {
    pub(super) tensors: Vec<FloatTensor<B>>,
}

impl<B: Backend> Slots<B> {
    pub(super) fn new(tensors: Vec<FloatTensor<B>>) -> Self {
        Self { tensors }
    }

    /// The tensors in another form. They are collected anew: in place, the vector would keep the memory of a
    /// larger form as long as a backward pass may come.
    pub(super) fn map<C: Backend>(self, form: impl FnMut(FloatTensor<B>) -> FloatTensor<C>) -> Slots<C> {
        let mut tensors = Vec::with_capacity(self.tensors.len());
        tensors.extend(self.tensors.into_iter().map(form));
        Slots { tensors }
    }
}

/// As Burn's derive does it for structs with a field for each tensor.
impl<B: Backend> ExtensionType<B> for Slots<B> {
    type Target = Slots<Dispatch>;

    fn map_to_dispatch<F>(self, map_kind: F, autodiff: DispatchAutodiffContext) -> Self::Target
    where
        F: Fn(BackendTensor<B>) -> DispatchTensorKind,
    {
        let wrap = |tensor| DispatchTensor { kind: map_kind(BackendTensor::Float(tensor)), autodiff };
        self.map(wrap)
    }

    fn map_from_dispatch<F>(target: Self::Target, unwrap_kind: F) -> Self
    where
        F: Fn(DispatchTensor) -> BackendTensor<B>,
    {
        target.map(|tensor| unwrap_kind(tensor).float())
    }

    fn routing_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.tensors.first()
    }

    fn routing_float_tensor(target: &Self::Target) -> Option<&DispatchTensor> {
        target.tensors.first()
    }

    fn autodiff_context(target: &Self::Target) -> DispatchAutodiffContext {
        let contexts = target.tensors.iter().map(|tensor| tensor.autodiff);
        contexts.fold(DispatchAutodiffContext::Disabled, DispatchAutodiffContext::merge)
    }
}
