//! The module: parameters, buffers, shapes and number formats around the lowered graph.

use std::fmt;
use std::sync::Arc;

use burn::module::{
    Content, Devices, Flag, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param,
};
use burn::tensor::{DType, Device, FloatDType, Gradients, Tensor};
use normact_ir::{Layer, Mode, Shape, ShapeError};

use crate::error::{BuildError, ValueError};
use crate::fused::{self, Path, Spec};
use crate::lower;
use crate::prepared::Prepared;
use crate::running::{RunningAverage, on};

/// A layer of the language as a Burn module, for a fixed number of channels.
///
/// Parameters are tensors of shape `[channels]` or `[1]` under their names in the formula; running
/// averages of batch statistics are buffers beside them ([`normact_ir::Buffers`] has the rules).
///
/// Batch statistics come from the batch, and update the buffers, when the input is on an autodiff
/// device and training is enabled; otherwise they come from the buffers. So [`Module::valid`] and
/// [`Module::freeze`] do what they do for [`burn::nn::BatchNorm`]. As with that module, clones
/// share their buffers, while `valid` and `train` make new ones.
///
/// Half-precision inputs are computed in f32, and the result is of their format; f64 inputs are computed
/// in f64.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use normact_burn::NormAct;
/// use normact_ir::{Builder, Layer, Prim};
///
/// // x * sigmoid(x)
/// let mut builder = Builder::new();
/// let x = builder.input();
/// let gate = builder.unary(Prim::Sigmoid, x);
/// let product = builder.binary(Prim::Mul, x, gate);
/// let layer = Layer { name: "silu".to_owned(), dag: builder.finish(product) };
///
/// let device = Device::flex();
/// let silu = NormAct::new(&layer, 8, &device)?;
/// let y = silu.forward(Tensor::<4>::ones([2, 8, 4, 4], &device));
/// assert_eq!(y.dims(), [2, 8, 4, 4]);
/// # Ok::<(), normact_burn::BuildError>(())
/// ```
#[derive(Debug, Clone)]
pub struct NormAct {
    prepared: Arc<Prepared>,
    params: Vec<Param<Tensor<1>>>,
    running: Vec<RunningAverage>,
    training: Param<Flag>,
    choice: Choice,
}

/// What a caller may choose about how a layer runs.
#[derive(Debug, Clone, Copy, Default)]
struct Choice {
    op_by_op: bool,
    lanes: Option<usize>,
}

impl NormAct {
    /// Builds the layer for so many channels, parameters and buffers at their initial values.
    ///
    /// # Errors
    /// The layer does not fit the number of channels: `group(5)` on 12 channels.
    pub fn new(layer: &Layer, channels: usize, device: &Device) -> Result<Self, BuildError> {
        let prepared = Prepared::new(layer.clone(), channels).map_err(|errors| BuildError {
            layer: layer.name.clone(),
            channels,
            errors,
        })?;
        let full = |len: usize, value: f64| Tensor::<1>::full([len], value, device);
        let params = layer.dag.params().iter();
        let running = prepared.buffers.list().iter();
        Ok(Self {
            params: params
                .map(|param| Param::from_tensor(full(param.extent.len(channels), param.init.get())))
                .collect(),
            running: running.map(|buffer| RunningAverage::new(full(buffer.len(channels), buffer.init()))).collect(),
            training: Param::from_bool(true),
            choice: Choice::default(),
            prepared: Arc::new(prepared),
        })
    }

    /// Applies the layer to an input of shape `[samples, channels, ...]`, rank 2 to 5. The result
    /// has the same shape and number format. Where the layer cannot run fused it runs operation by operation,
    /// which a warning in the log tells once; [`Self::path`] tells it beforehand.
    ///
    /// # Panics
    /// The shape does not fit; [`Self::check`] tells beforehand.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let dims = x.dims();
        if let Err(error) = self.check(&dims) {
            panic!("layer `{}`: {error}", self.layer().name);
        }
        let mode = self.mode(&x);
        match self.path(&x) {
            Path::Fused => self.forward_fused(x, mode),
            Path::OpByOp(reason) => {
                if !self.choice.op_by_op {
                    self.prepared.tell_fallback(&reason);
                }
                self.forward_op_by_op(x, mode)
            }
        }
    }

    /// How [`Self::forward`] executes the layer for such an input.
    pub fn path<const D: usize>(&self, x: &Tensor<D>) -> Path {
        if self.choice.op_by_op {
            return Path::OpByOp("it was asked for".to_owned());
        }
        fused::path(&self.spec(self.mode(x)), x)
    }

    /// How many kernels the forward and the backward pass of such an input launch; `None` on a CPU,
    /// and where the layer runs operation by operation.
    pub fn kernels<const D: usize>(&self, x: &Tensor<D>) -> Option<[usize; 2]> {
        match self.path(x) {
            Path::Fused => fused::kernels(&self.spec(self.mode(x)), x),
            Path::OpByOp(_) => None,
        }
    }

    /// How an input of that shape is executed, for people: the path and why, the passes over memory,
    /// and what is kept between forward and backward.
    ///
    /// # Errors
    /// The shape does not fit.
    pub fn explain<const D: usize>(&self, x: &Tensor<D>) -> Result<String, ShapeError> {
        let dims = x.dims();
        self.check(&dims)?;
        let mode = self.mode(x);
        let name = &self.layer().name;
        let mode_name = match mode {
            Mode::Training => "training",
            Mode::Evaluation => "evaluation",
        };
        Ok(match self.path(x) {
            Path::OpByOp(reason) => format!("{name}, {mode_name}: operation by operation, since {reason}"),
            Path::Fused => {
                let sizes = fused::sizes(&x.shape());
                let plan = normact_plan::Plan::new(&self.layer().dag, mode, sizes);
                let ([forward, backward], [f, b]) = (plan.traffic(), plan.cached_traffic());
                let kernels = self.kernels(x).map_or_else(String::new, |[forward, backward]| {
                    format!("kernels: {forward} forward, {backward} backward\n")
                });
                let (statistics, bytes) = fused::kept(&self.spec(mode), x, &plan);
                let is_converted = !fused::reads(&x.device(), x.dtype());
                let input = sizes.elements() * if is_converted { 4 } else { x.dtype().size() };
                let copy = if is_converted { ", converted to f32," } else { "" };
                format!(
                    "{name}, {mode_name}: fused, one operation forward and one backward\n\
                     {kernels}\
                     full-size reads and writes: {forward} forward, {backward} backward; {f} and {b} where blocks \
                     stay in the cache\n\
                     kept for the backward pass: the input{copy} ({} bytes) and {statistics} statistics ({bytes} bytes)",
                    input
                )
            }
        })
    }

    /// The same layer, executed operation by operation: the plain reading of the formula, for
    /// comparison and for back-ends that record operations.
    pub fn op_by_op(self) -> Self {
        Self { choice: Choice { op_by_op: true, ..self.choice }, ..self }
    }

    /// The same layer with the kernels that a GPU would run, reading so many neighbouring elements at a time where
    /// they can, instead of those that the device runs best: for tests.
    #[doc(hidden)]
    pub fn as_on_a_gpu(self, lanes: usize) -> Self {
        Self { choice: Choice { lanes: Some(lanes), ..self.choice }, ..self }
    }

    fn spec(&self, mode: Mode) -> Spec {
        Spec { layer: self.prepared.clone(), mode, lanes: self.choice.lanes }
    }

    fn mode<const D: usize>(&self, x: &Tensor<D>) -> Mode {
        let training = x.device().is_autodiff() && self.training.is_enabled();
        if training { Mode::Training } else { Mode::Evaluation }
    }

    fn forward_fused<const D: usize>(&self, x: Tensor<D>, mode: Mode) -> Tensor<D> {
        let (format, device) = (x.dtype(), x.device());
        let x = if fused::reads(&device, format) { x } else { x.cast(DType::F32) };
        // As in any graph, what is not read gets no gradient.
        let x = if self.prepared.depends_on_input(mode) { x } else { x.set_require_grad(false) };
        // A parameter that is not read becomes a leaf of its own, which still wants a gradient: gradient checkpointing
        // takes a step with a parent that wants none for one whose output is not to be freed.
        let is_read = |number| self.prepared.depends_on_param(mode, number);
        let params = self.params.iter().map(|param| param.val()).enumerate();
        let params: Vec<Tensor<1>> =
            params.map(|(number, param)| if is_read(number) { param } else { param.detach() }).collect();
        let running: Vec<Tensor<1>> = self.running.iter().map(|running| on(running.value(), &device)).collect();
        let mut formats = params.iter().chain(&running).map(|tensor| tensor.dtype());
        let first = formats.next().unwrap_or(DType::F32);
        let small =
            if fused::reads(&device, first) && formats.all(|format| format == first) { first } else { DType::F32 };
        let in_format = |tensor: Tensor<1>, format| if tensor.dtype() == format { tensor } else { tensor.cast(format) };
        let converted = |tensors: Vec<Tensor<1>>| tensors.into_iter().map(|tensor| in_format(tensor, small)).collect();
        let (y, updates) = fused::forward(self.spec(mode), x, converted(params), converted(running));
        for (running, new) in self.running.iter().zip(updates) {
            running.update(in_format(new, running.format()));
        }
        if y.dtype() == format { y } else { y.cast(format) }
    }

    fn forward_op_by_op<const D: usize>(&self, x: Tensor<D>, mode: Mode) -> Tensor<D> {
        let dims = x.dims();
        let view = [dims[0], dims[1], dims[2..].iter().product()];
        let dtype = x.dtype();
        let x = x.reshape(view).cast(computed_in(dtype));
        let y = lower::run(&self.prepared, mode, x, &self.params, &self.running).cast(dtype);
        let y = if y.dims() == view { y } else { y.expand(view) };
        y.reshape(dims)
    }

    /// Whether an input of that shape fits.
    ///
    /// # Errors
    /// The rank, an empty axis or the number of channels, with the equation that does not hold.
    pub fn check(&self, shape: &[usize]) -> Result<(), ShapeError> {
        let (found, channels) = (Shape::new(shape)?.channels(), self.channels());
        if found == channels {
            return Ok(());
        }
        Err(ShapeError {
            node: None,
            message: format!("the layer is built for {channels} channels and the input has {found}"),
            equation: "size of axis 1 == channels".to_owned(),
            bindings: vec![("size of axis 1".to_owned(), found), ("channels".to_owned(), channels)],
            help: format!("give a tensor of shape [n, {channels}, ...], or build the layer for {found} channels"),
        })
    }

    /// The layer it computes.
    pub fn layer(&self) -> &Layer {
        &self.prepared.layer
    }

    /// The number of channels it is built for.
    pub fn channels(&self) -> usize {
        self.prepared.channels
    }

    /// The names of the parameters, in the order of declaration.
    pub fn param_names(&self) -> impl Iterator<Item = &str> {
        self.layer().dag.params().iter().map(|param| param.name.as_str())
    }

    /// The names of the buffers.
    pub fn buffer_names(&self) -> impl Iterator<Item = &str> {
        self.prepared.buffers.list().iter().map(|buffer| buffer.name.as_str())
    }

    /// The values of a parameter or buffer.
    ///
    /// # Errors
    /// There is none of that name, or the device fails.
    pub fn values(&self, name: &str) -> Result<Vec<f64>, ValueError> {
        let tensor = match self.slot(name)? {
            Slot::Param(index) => self.params[index].val(),
            Slot::Buffer(index) => self.running[index].value(),
        };
        tensor.try_to_vec_as().map_err(|source| ValueError::Device { name: name.to_owned(), source })
    }

    /// Replaces the values of a parameter or buffer.
    ///
    /// # Errors
    /// There is none of that name, or it has another number of values.
    pub fn set_values(&mut self, name: &str, values: &[f64]) -> Result<(), ValueError> {
        let slot = self.slot(name)?;
        let old = match slot {
            Slot::Param(index) => self.params[index].val(),
            Slot::Buffer(index) => self.running[index].value(),
        };
        let [expected] = old.dims();
        if values.len() != expected {
            return Err(ValueError::Length { name: name.to_owned(), expected, found: values.len() });
        }
        let new = Tensor::from_data(values, (&old.device(), old.dtype()));
        match slot {
            Slot::Param(index) => {
                let param = &mut self.params[index];
                *param = param.clone().map(|old| if old.is_require_grad() { new.require_grad() } else { new });
            }
            Slot::Buffer(index) => self.running[index].set(new),
        }
        Ok(())
    }

    /// The gradient of a parameter after a backward pass; zeros where the output does not depend on it.
    ///
    /// # Errors
    /// There is no parameter of that name, or the device fails.
    pub fn gradient(&self, name: &str, gradients: &Gradients) -> Result<Vec<f64>, ValueError> {
        let Slot::Param(index) = self.slot(name)? else {
            let known = self.param_names().map(str::to_owned).collect();
            return Err(ValueError::UnknownName { name: name.to_owned(), known });
        };
        let param = self.params[index].val();
        let Some(gradient) = param.grad(gradients) else { return Ok(vec![0.0; param.dims()[0]]) };
        gradient.try_to_vec_as().map_err(|source| ValueError::Device { name: name.to_owned(), source })
    }

    fn slot(&self, name: &str) -> Result<Slot, ValueError> {
        let param = self.param_names().position(|known| known == name).map(Slot::Param);
        let buffer = || self.buffer_names().position(|known| known == name).map(Slot::Buffer);
        param.or_else(buffer).ok_or_else(|| ValueError::UnknownName {
            name: name.to_owned(),
            known: self.param_names().chain(self.buffer_names()).map(str::to_owned).collect(),
        })
    }
}

/// Where a named tensor is.
#[derive(Clone, Copy)]
enum Slot {
    Param(usize),
    Buffer(usize),
}

/// The number format a layer is computed in for an input of another.
fn computed_in(input: DType) -> FloatDType {
    match input {
        DType::F64 => FloatDType::F64,
        _ => FloatDType::F32,
    }
}

/// What Burn's visitors are told a parameter is contained in.
const CONTAINER: &str = "Struct:NormAct";

/// As `#[derive(Module)]` would do it for a struct with one field per parameter and buffer.
impl Module for NormAct {
    fn collect_devices(&self, devices: Devices) -> Devices {
        let devices = self.params.collect_devices(devices);
        self.running.iter().fold(devices, |devices, running| running.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        Self { params: self.params.fork(device), running: moved(self.running, device), ..self }
    }

    fn to_device(self, device: &Device) -> Self {
        Self { params: self.params.to_device(device), running: moved(self.running, device), ..self }
    }

    fn train(self) -> Self {
        let running = self.running.into_iter().map(RunningAverage::train).collect();
        Self { params: self.params.train(), running, training: self.training.train(), ..self }
    }

    fn valid(&self) -> Self {
        Self {
            params: self.params.valid(),
            running: self.running.iter().map(RunningAverage::valid).collect(),
            training: self.training.valid(),
            prepared: self.prepared.clone(),
            choice: self.choice,
        }
    }

    fn materialize(self) -> Self {
        Self { params: self.params.materialize(), ..self }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for (name, param) in self.param_names().zip(&self.params) {
            visitor.enter_module(name, CONTAINER);
            param.visit(visitor);
            visitor.exit_module(name, CONTAINER);
        }
        for (name, running) in self.buffer_names().zip(&self.running) {
            visitor.enter_module(name, CONTAINER);
            running.visit(visitor);
            visitor.exit_module(name, CONTAINER);
        }
        visitor.enter_module(TRAINING, CONTAINER);
        self.training.visit(visitor);
        visitor.exit_module(TRAINING, CONTAINER);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let Self { prepared, params, running, training, choice } = self;
        let names = prepared.layer.dag.params().iter().map(|param| &param.name);
        let params = names.zip(params).map(|(name, param)| map_named(name, param, mapper)).collect();
        let names = prepared.buffers.list().iter().map(|buffer| &buffer.name);
        let running = names.zip(running).map(|(name, running)| {
            mapper.enter_module(name, CONTAINER);
            let mapped = running.map(mapper);
            mapper.exit_module(name, CONTAINER);
            mapped
        });
        let running = running.collect();
        let training = map_named(TRAINING, training, mapper);
        Self { prepared, params, running, training, choice }
    }
}

/// The name of the flag in paths, as in Burn's batch normalization.
const TRAINING: &str = "training";

fn moved(running: Vec<RunningAverage>, device: &Device) -> Vec<RunningAverage> {
    running.into_iter().map(|running| running.moved_to(device)).collect()
}

fn map_named<T: Module, M: ModuleMapper>(name: &str, module: T, mapper: &mut M) -> T {
    mapper.enter_module(name, CONTAINER);
    let mapped = module.map(mapper);
    mapper.exit_module(name, CONTAINER);
    mapped
}

impl fmt::Display for NormAct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.format(Default::default()))
    }
}

impl ModuleDisplay for NormAct {}

impl ModuleDisplayDefault for NormAct {
    fn content(&self, content: Content) -> Option<Content> {
        let with_len = |name: &str, len: usize| format!("{name} [{len}]");
        let params = self.layer().dag.params().iter();
        let params = params.map(|param| with_len(&param.name, param.extent.len(self.channels())));
        let buffers = self.prepared.buffers.list().iter();
        let buffers = buffers.map(|buffer| with_len(&buffer.name, buffer.len(self.channels())));
        let mut content = content.add("layer", &self.layer().name).add("channels", &self.channels());
        for (kind, names) in [("parameters", params.collect::<Vec<_>>()), ("buffers", buffers.collect())] {
            if !names.is_empty() {
                content = content.add(kind, &names.join(", "));
            }
        }
        if !self.training.is_enabled() {
            content = content.add(TRAINING, &self.training);
        }
        content.optional()
    }

    fn num_params(&self) -> usize {
        Module::num_params(self)
    }
}
