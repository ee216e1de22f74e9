//! A layer run by the evaluator and by the module.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{FloatDType, Tensor, TensorData};
use normact_burn::NormAct;
use normact_ir::{Dag, Inputs, Layer, Mode, Shape, evaluate};

use crate::ways::Way;

/// What one pass gives.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) y: Vec<f64>,
    pub(crate) dx: Vec<f64>,
    /// The gradient of each parameter.
    pub(crate) params: Vec<Vec<f64>>,
    /// The buffers after the pass.
    pub(crate) state: Vec<Vec<f64>>,
}

impl Outcome {
    /// Every list of numbers, with a name for messages.
    pub(crate) fn lists(&self) -> impl Iterator<Item = (String, &[f64])> {
        let params = self.params.iter().enumerate();
        let state = self.state.iter().enumerate();
        [("y".to_owned(), &self.y[..]), ("gradient of x".to_owned(), &self.dx[..])]
            .into_iter()
            .chain(params.map(|(number, values)| (format!("gradient of parameter {number}"), &values[..])))
            .chain(state.map(|(number, values)| (format!("buffer {number}"), &values[..])))
    }
}

/// One pass of the evaluator.
pub(crate) fn expected(dag: &Dag, inputs: &Inputs, mode: Mode, dy: &[f64]) -> Outcome {
    let evaluation = evaluate(dag, inputs, mode).expect("the inputs fit the graph");
    let gradients = evaluation.gradients(dy);
    Outcome { y: evaluation.output(), dx: gradients.x, params: gradients.params, state: evaluation.state().to_vec() }
}

/// A module to compare with the evaluator.
pub(crate) struct Subject {
    module: NormAct,
    shape: Shape,
    way: Way,
    dtype: FloatDType,
}

impl Subject {
    /// Takes shape, parameters and buffers from `inputs`. Inputs have the number format `dtype`;
    /// parameters and buffers too if it is f64, so that they do not round.
    pub(crate) fn new(layer: &Layer, inputs: &Inputs, way: &Way, dtype: FloatDType) -> Self {
        let shape = inputs.shape.clone();
        let mut module = way.module(layer, shape.channels());
        if dtype == FloatDType::F64 {
            module = Module::map(module, &mut ToF64);
        }
        let params = module.param_names().map(str::to_owned).collect::<Vec<_>>().into_iter().zip(&inputs.params);
        let buffers = module.buffer_names().map(str::to_owned).collect::<Vec<_>>().into_iter().zip(&inputs.state);
        for (name, values) in params.chain(buffers) {
            module.set_values(&name, values).expect("the inputs have as many values");
        }
        Self { module: module.train(), shape, way: way.clone(), dtype }
    }

    /// One pass. In training it updates the buffers.
    pub(crate) fn pass(&self, x: &[f64], mode: Mode, dy: &[f64]) -> Outcome {
        match *self.shape.dims() {
            [n, c] => self.pass_at_rank([n, c], x, mode, dy),
            [n, c, l] => self.pass_at_rank([n, c, l], x, mode, dy),
            [n, c, h, w] => self.pass_at_rank([n, c, h, w], x, mode, dy),
            [n, c, d, h, w] => self.pass_at_rank([n, c, d, h, w], x, mode, dy),
            _ => unreachable!("a shape has rank 2 to 5"),
        }
    }

    fn pass_at_rank<const D: usize>(&self, dims: [usize; D], x: &[f64], mode: Mode, dy: &[f64]) -> Outcome {
        let module = match mode {
            Mode::Training => self.module.clone(),
            // A frozen module reads its buffers; gradients are switched on again to compare them.
            Mode::Evaluation => self.module.clone().freeze().set_require_grad(true),
        };
        let device = self.way.device.clone().autodiff();
        let tensor = |values: &[f64]| {
            Tensor::<D>::from_data(TensorData::new(values.to_vec(), dims), (&device, self.dtype.into()))
        };
        let x = tensor(x).require_grad();
        let y = module.forward(x.clone());
        let gradients = (y.clone() * tensor(dy)).sum().backward();
        let params = module.param_names().map(|name| module.gradient(name, &gradients));
        let state = module.buffer_names().map(|name| module.values(name));
        Outcome {
            y: numbers(y),
            dx: x.grad(&gradients).map_or_else(|| vec![0.0; dy.len()], numbers),
            params: params.collect::<Result<_, _>>().expect("names of the module"),
            state: state.collect::<Result<_, _>>().expect("names of the module"),
        }
    }
}

/// The elements of a tensor.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().try_to_vec_as().expect("floats convert to f64")
}

struct ToF64;

impl ModuleMapper for ToF64 {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(FloatDType::F64))
    }
}
