//! The operation under Burn's fusion: opaque, and run when the stream is.
//!
//! Burn's macro writes such an implementation for operations with a fixed number of results. This one
//! has a result for each running average and each parameter.

use burn::backend::fusion::custom::{
    CustomOpIr, Float, FusionValueAdapter, OperationFn, OperationIr, StreamId, TensorSpec,
};
use burn::backend::fusion::{Fusion, FusionBackend, FusionTensor};
use burn::tensor::{DType, Shape};
use normact_plan::Sizes;

use super::{FusedLayer, Spec, cube};

impl<B: FusionBackend + FusedLayer> FusedLayer for Fusion<B> {
    fn layer_forward(
        x: FusionTensor<B::FusionRuntime>,
        s0: FusionTensor<B::FusionRuntime>,
        s1: FusionTensor<B::FusionRuntime>,
        s2: FusionTensor<B::FusionRuntime>,
        s3: FusionTensor<B::FusionRuntime>,
        s4: FusionTensor<B::FusionRuntime>,
        s5: FusionTensor<B::FusionRuntime>,
        s6: FusionTensor<B::FusionRuntime>,
        s7: FusionTensor<B::FusionRuntime>,
        s8: FusionTensor<B::FusionRuntime>,
        s9: FusionTensor<B::FusionRuntime>,
        spec: Spec,
    ) -> (FusionTensor<B::FusionRuntime>, FusionTensor<B::FusionRuntime>, Vec<FusionTensor<B::FusionRuntime>>) {
        let dims: Vec<usize> = x.shape.iter().copied().collect();
        let sizes = Sizes { samples: dims[0], channels: dims[1], positions: dims[2..].iter().product() };
        let (kept, updates) = cube::lengths(&spec.plan, spec.mode, sizes);
        let specs = [TensorSpec::new(x.shape.clone(), x.dtype), vector(kept)];
        let specs = specs.into_iter().chain(updates.into_iter().map(vector)).collect();
        let inputs = [x, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9];
        let mut results = register::<B, _>("layer_forward", inputs, specs, move |inputs| {
            let [x, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9] = inputs;
            let (y, kept, updates) = B::layer_forward(x, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, spec.clone());
            [y, kept].into_iter().chain(updates).collect()
        });
        let updates = results.split_off(2);
        let [y, kept] = results.try_into().unwrap_or_else(|_| unreachable!("two results are left"));
        (y, kept, updates)
    }

    fn layer_backward(
        x: FusionTensor<B::FusionRuntime>,
        s0: FusionTensor<B::FusionRuntime>,
        s1: FusionTensor<B::FusionRuntime>,
        s2: FusionTensor<B::FusionRuntime>,
        s3: FusionTensor<B::FusionRuntime>,
        s4: FusionTensor<B::FusionRuntime>,
        s5: FusionTensor<B::FusionRuntime>,
        s6: FusionTensor<B::FusionRuntime>,
        s7: FusionTensor<B::FusionRuntime>,
        s8: FusionTensor<B::FusionRuntime>,
        s9: FusionTensor<B::FusionRuntime>,
        kept: FusionTensor<B::FusionRuntime>,
        dy: FusionTensor<B::FusionRuntime>,
        spec: Spec,
    ) -> (FusionTensor<B::FusionRuntime>, Vec<FusionTensor<B::FusionRuntime>>) {
        let gradients = spec.plan.layer.dag.params().iter().map(|param| vector(param.extent.len(spec.plan.channels)));
        let specs = std::iter::once(TensorSpec::new(x.shape.clone(), x.dtype)).chain(gradients).collect();
        let inputs = [x, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, kept, dy];
        let mut results = register::<B, _>("layer_backward", inputs, specs, move |inputs| {
            let [x, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, kept, dy] = inputs;
            let (dx, gradients) = B::layer_backward(x, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, kept, dy, spec.clone());
            std::iter::once(dx).chain(gradients).collect()
        });
        let gradients = results.split_off(1);
        (results.remove(0), gradients)
    }
}

fn vector(len: usize) -> TensorSpec {
    TensorSpec::new(Shape::new([len]), DType::F32)
}

/// Adds an operation to the stream and gives its results, which do not exist yet.
fn register<B: FusionBackend, const N: usize>(
    name: &str,
    inputs: [FusionTensor<B::FusionRuntime>; N],
    specs: Vec<TensorSpec>,
    run: impl Fn([B::FloatTensorPrimitive; N]) -> Vec<B::FloatTensorPrimitive> + Send + Sync + 'static,
) -> Vec<FusionTensor<B::FusionRuntime>> {
    let client = inputs[0].client.clone();
    let mut read = vec![];
    let inputs = inputs.map(|input| <Float as FusionValueAdapter<B>>::append_input_ir(input, &mut read));
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
        let inputs = inputs.each_ref().map(|input| <Float as FusionValueAdapter<B>>::resolve_inputs(input, handles));
        for (result, output) in run(inputs).into_iter().zip(&outputs) {
            <Float as FusionValueAdapter<B>>::register_output_handles(result, output, handles);
        }
        Ok(())
    });
    client.register(StreamId::current(), OperationIr::Custom(description), operation)
}
