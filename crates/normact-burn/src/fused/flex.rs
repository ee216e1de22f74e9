//! The operation on the CPU: Burn's Flex tensors as the slices that `normact-cpu` works on.

use std::sync::Arc;

use burn::backend::Flex;
use burn::backend::flex::{FlexTensor, Layout};
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Shape, TensorData};
use normact_cpu::{Compiled, Lane, View, ViewMut};
use normact_plan::Sizes;

use super::pool::{Buffer, SMALLEST};
use super::slots::Slots;
use super::{FusedLayer, Spec, sizes};

impl FusedLayer for Flex {
    fn layer_forward(
        x: FlexTensor,
        params: Slots<Flex>,
        running: Slots<Flex>,
        spec: Spec,
    ) -> (FlexTensor, FlexTensor, Vec<FlexTensor>) {
        let input = Input::new(x);
        let (params, running) = (contiguous(params), contiguous(running));
        let compiled = compiled(&spec, &input);
        let broadcast = compiled.broadcast_output();
        let mut y = broadcast.is_none().then(|| input.result());
        let into = y.as_mut().map(Output::view);
        let forward = compiled.forward(input.view(), &values(&params), &values(&running), into);
        let y = match (y, broadcast.zip(forward.output)) {
            (Some(y), _) => y.tensor(),
            (None, Some((sizes, values))) => input.broadcast(sizes, &values),
            (None, None) => unreachable!("the output is written or given"),
        };
        let updates = forward.updates.into_iter().flatten();
        let updates = updates.map(|values| vector(values.iter().map(|&x| x as f32).collect::<Vec<f32>>()));
        (y, vector(forward.kept), updates.collect())
    }

    fn layer_backward(
        x: FlexTensor,
        params: Slots<Flex>,
        running: Slots<Flex>,
        kept: FlexTensor,
        dy: FlexTensor,
        spec: Spec,
        wants_input: bool,
    ) -> (FlexTensor, Vec<FlexTensor>) {
        let (input, upstream) = (Input::new(x), Input::new(dy));
        let (params, running) = (contiguous(params), contiguous(running));
        let compiled = compiled(&spec, &input);
        let broadcast = compiled.broadcast_input_gradient();
        let mut dx = (wants_input && broadcast.is_none()).then(|| input.result());
        let backward = compiled.backward(
            input.view(),
            &values(&params),
            &values(&running),
            kept.storage::<f64>(),
            upstream.view(),
            dx.as_mut().map(Output::view),
        );
        let dx = match (dx, broadcast.zip(backward.input)) {
            (Some(dx), _) => dx.tensor(),
            (None, Some((sizes, values))) => input.broadcast(sizes, &values),
            // Nobody wants it.
            (None, None) => input.tensor.clone(),
        };
        let declared = spec.layer.layer.dag.params().iter().zip(backward.params);
        let gradients = declared.map(|(param, gradient)| {
            let len = param.extent.len(spec.layer.channels);
            vector(gradient.map_or_else(|| vec![0.0f32; len], |values| values.iter().map(|&x| x as f32).collect()))
        });
        (dx, gradients.collect())
    }
}

/// Small tensors as they are most often: contiguous from their first element on.
fn contiguous(slots: Slots<Flex>) -> Vec<FlexTensor> {
    let is_plain = |tensor: &FlexTensor| tensor.is_contiguous() && tensor.layout().start_offset() == 0;
    slots.tensors.into_iter().map(|tensor| if is_plain(&tensor) { tensor } else { tensor.to_contiguous() }).collect()
}

fn values(tensors: &[FlexTensor]) -> Vec<&[f32]> {
    let len = |tensor: &FlexTensor| tensor.layout().shape().iter().product();
    tensors.iter().map(|tensor| &tensor.storage::<f32>()[..len(tensor)]).collect()
}

fn compiled(spec: &Spec, input: &Input) -> Arc<Compiled> {
    let key = (spec.mode, input.sizes, input.lane());
    spec.layer.on_cpu.get(key, || Compiled::new(&spec.layer.layer.dag, spec.mode, input.sizes, input.lane()))
}

fn vector<E: burn::tensor::Element>(values: Vec<E>) -> FloatTensor<Flex> {
    let len = values.len();
    FlexTensor::from_data(TensorData::new(values, Shape::new([len])))
}

/// A tensor in the view samples x channels x positions.
struct Input {
    tensor: FlexTensor,
    sizes: Sizes,
    start: usize,
    strides: [usize; 3],
}

impl Input {
    fn new(tensor: FlexTensor) -> Self {
        match Self::in_place(&tensor) {
            Some((start, strides)) => Self { sizes: sizes(tensor.layout().shape()), tensor, start, strides },
            None => {
                let tensor = tensor.to_contiguous();
                let (start, strides) =
                    Self::in_place(&tensor).expect("a contiguous tensor has one stride for each axis");
                Self { sizes: sizes(tensor.layout().shape()), tensor, start, strides }
            }
        }
    }

    /// Where the tensor's elements are, if its spatial axes are one axis in memory.
    fn in_place(tensor: &FlexTensor) -> Option<(usize, [usize; 3])> {
        let layout = tensor.layout();
        let dims: Vec<usize> = layout.shape().iter().copied().collect();
        let strides: Vec<usize> =
            layout.strides().iter().map(|&stride| usize::try_from(stride).ok()).collect::<Option<_>>()?;
        let mut positions = 1;
        let mut stride = 0;
        for axis in (2..dims.len()).rev().filter(|&axis| dims[axis] > 1) {
            if positions == 1 {
                stride = strides[axis];
            } else if strides[axis] != stride * positions {
                return None;
            }
            positions *= dims[axis];
        }
        // An axis of one element may have any stride; broadcast axes have stride 0, which is fine to read.
        let stride = if positions == 1 { 1 } else { stride };
        Some((layout.start_offset(), [strides[0], strides[1], stride]))
    }

    /// Chunks run along positions unless channels are contiguous or there are few positions.
    fn lane(&self) -> Lane {
        let Sizes { positions, channels, .. } = self.sizes;
        let are_channels_contiguous = self.strides[1] == 1 && self.strides[2] != 1 && channels > 1;
        if are_channels_contiguous || positions < 16 && channels > positions { Lane::Channels } else { Lane::Positions }
    }

    fn view(&self) -> View<'_> {
        View { data: &self.tensor.storage::<f32>()[self.start..], strides: self.strides }
    }

    /// A tensor of the shape whose elements are shared along positions, and along other axes of size 1.
    fn broadcast(&self, [samples, channels]: [usize; 2], values: &[f64]) -> FlexTensor {
        let shape = self.tensor.layout().shape().clone();
        let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
        let tensor = vector(values);
        let mut strides = vec![0; shape.len()];
        strides[0] = if samples > 1 { channels as isize } else { 0 };
        strides[1] = isize::from(channels > 1);
        tensor.with_layout(Layout::new(shape, strides, 0))
    }

    /// A new tensor of the shape, with channels last in memory if they are here.
    fn result(&self) -> Output {
        let Sizes { samples, channels, positions } = self.sizes;
        let channels_last = self.strides[1] == 1 && self.strides[2] == channels && positions > 1 && channels > 1;
        let strides =
            if channels_last { [channels * positions, 1, channels] } else { [channels * positions, positions, 1] };
        Output {
            storage: Storage::new(samples * channels * positions),
            shape: self.tensor.layout().shape().clone(),
            strides,
            channels_last,
        }
    }
}

enum Storage {
    Numbers(Vec<f32>),
    Pooled(Buffer),
}

impl Storage {
    fn new(len: usize) -> Self {
        let pooled = if 4 * len >= SMALLEST { Buffer::take(4 * len) } else { None };
        pooled.map_or_else(|| Storage::Numbers(vec![0.0; len]), Storage::Pooled)
    }

    fn data(self, shape: Shape) -> TensorData {
        match self {
            Storage::Numbers(numbers) => TensorData::new(numbers, shape),
            Storage::Pooled(buffer) => {
                let len = 4 * shape.iter().product::<usize>();
                TensorData::from_bytes(buffer.into_bytes(len), shape, DType::F32)
            }
        }
    }
}

/// A result on its way.
struct Output {
    storage: Storage,
    shape: Shape,
    strides: [usize; 3],
    channels_last: bool,
}

impl Output {
    fn view(&mut self) -> ViewMut<'_> {
        let len = self.shape.iter().product();
        let data = match &mut self.storage {
            Storage::Numbers(numbers) => numbers.as_mut_slice(),
            Storage::Pooled(buffer) => buffer.numbers(len),
        };
        ViewMut { data, strides: self.strides }
    }

    fn tensor(self) -> FlexTensor {
        let dims: Vec<usize> = self.shape.iter().copied().collect();
        if !self.channels_last {
            return FlexTensor::from_data(self.storage.data(self.shape));
        }
        // Made as [n, spatial..., c], seen as [n, c, spatial...].
        let rank = dims.len();
        let in_memory: Vec<usize> =
            std::iter::once(dims[0]).chain(dims[2..].iter().copied()).chain([dims[1]]).collect();
        let axes: Vec<usize> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        FlexTensor::from_data(self.storage.data(Shape::from(in_memory))).permute(&axes)
    }
}
