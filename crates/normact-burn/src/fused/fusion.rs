//! The operation under Burn's fusion: opaque, and run when the stream is.
//!
//! Burn's macro writes such an implementation for operations with a fixed number of results. This one
//! has a result for each running average and each parameter.

use burn::backend::fusion::custom::{
    CustomOpIr, Float, FusionValueAdapter, OperationFn, OperationIr, StreamId, TensorSpec,
};
use burn::backend::fusion::{Fusion, FusionBackend, FusionTensor};
use burn::tensor::{DType, Shape};

use super::slots::Slots;
use super::{FusedLayer, Spec, cube, sizes};

impl<B: FusionBackend + FusedLayer> FusedLayer for Fusion<B> {
    fn layer_forward(
        x: FusionTensor<B::FusionRuntime>,
        params: Slots<Self>,
        running: Slots<Self>,
        spec: Spec,
    ) -> (FusionTensor<B::FusionRuntime>, FusionTensor<B::FusionRuntime>, Vec<FusionTensor<B::FusionRuntime>>) {
        let (kept, updates) = cube::lengths(&spec, sizes(&x.shape));
        let format = small_format(&params, &running);
        let specs = [TensorSpec::new(x.shape.clone(), x.dtype), vector(kept, DType::F32)];
        let specs = specs.into_iter().chain(updates.into_iter().map(|len| vector(len, format))).collect();
        let first_running = 1 + params.tensors.len();
        let inputs = std::iter::once(x).chain(params.tensors).chain(running.tensors).collect();
        let mut results = register::<B>("layer_forward", inputs, specs, move |mut inputs| {
            let running = Slots::new(inputs.split_off(first_running));
            let params = Slots::new(inputs.split_off(1));
            let (y, kept, updates) = B::layer_forward(inputs.remove(0), params, running, spec.clone());
            [y, kept].into_iter().chain(updates).collect()
        });
        let updates = results.split_off(2);
        let [y, kept] = results.try_into().unwrap_or_else(|_| unreachable!("two results are left"));
        (y, kept, updates)
    }

    fn layer_backward(
        x: FusionTensor<B::FusionRuntime>,
        params: Slots<Self>,
        running: Slots<Self>,
        kept: FusionTensor<B::FusionRuntime>,
        dy: FusionTensor<B::FusionRuntime>,
        spec: Spec,
        wants_input: bool,
    ) -> (FusionTensor<B::FusionRuntime>, Vec<FusionTensor<B::FusionRuntime>>) {
        let (format, channels) = (small_format(&params, &running), spec.layer.channels);
        let gradients = spec.layer.layer.dag.params().iter().map(|param| vector(param.extent.len(channels), format));
        let specs = std::iter::once(TensorSpec::new(x.shape.clone(), x.dtype)).chain(gradients).collect();
        let first_running = 3 + params.tensors.len();
        let inputs = [x, kept, dy].into_iter().chain(params.tensors).chain(running.tensors).collect();
        let mut results = register::<B>("layer_backward", inputs, specs, move |mut inputs| {
            let running = Slots::new(inputs.split_off(first_running));
            let params = Slots::new(inputs.split_off(3));
            let [x, kept, dy] = inputs.try_into().unwrap_or_else(|_| unreachable!("three operands are left"));
            let (dx, gradients) = B::layer_backward(x, params, running, kept, dy, spec.clone(), wants_input);
            std::iter::once(dx).chain(gradients).collect()
        });
        let gradients = results.split_off(1);
        (results.remove(0), gradients)
    }
}

fn vector(len: usize, format: DType) -> TensorSpec {
    TensorSpec::new(Shape::new([len]), format)
}

/// The format of parameters, running averages and their results, the same for all.
fn small_format<B: FusionBackend + FusedLayer>(params: &Slots<Fusion<B>>, running: &Slots<Fusion<B>>) -> DType {
    params.tensors.first().or(running.tensors.first()).map_or(DType::F32, |tensor| tensor.dtype)
}

/// Adds an operation to the stream and gives its results, which do not exist yet.
fn register<B: FusionBackend>(
    name: &str,
    inputs: Vec<FusionTensor<B::FusionRuntime>>,
    specs: Vec<TensorSpec>,
    run: impl Fn(Vec<B::FloatTensorPrimitive>) -> Vec<B::FloatTensorPrimitive> + Send + Sync + 'static,
) -> Vec<FusionTensor<B::FusionRuntime>> {
    let client = inputs[0].client.clone();
    let mut read = vec![];
    let inputs = inputs.into_iter().map(|input| <Float as FusionValueAdapter<B>>::append_input_ir(input, &mut read));
    let inputs: Vec<_> = inputs.collect();
    let mut written = vec![];
    let outputs: Vec<_> = specs
        .iter()
        .map(|spec| {
            let mut create = || client.create_empty_handle();
            <Float as FusionValueAdapter<B>>::append_output_ir(spec, &mut written, &mut create)
        })
        .collect();
    let description = CustomOpIr { id: name.into(), inputs: read, outputs: written, scalars: vec![] };
    let operation = OperationFn(move |handles: &mut _| {
        let inputs = inputs.iter().map(|input| <Float as FusionValueAdapter<B>>::resolve_inputs(input, handles));
        let inputs = inputs.collect();
        for (result, output) in run(inputs).into_iter().zip(&outputs) {
            <Float as FusionValueAdapter<B>>::register_output_handles(result, output, handles);
        }
        Ok(())
    });
    client.register(StreamId::current(), OperationIr::Custom(description), operation)
}
