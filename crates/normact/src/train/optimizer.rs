//! Stochastic gradient descent with Nesterov momentum, and its learning-rate schedule.
//!
//! Burn has this optimizer too, but restores its saved state on the process's default device, which
//! is a WGPU adapter wherever one is compiled in: a run on the CPU could then not be resumed on a
//! machine without one. Here a velocity lives where its parameter lives, and all velocities
//! together have the form of the network itself, so that a checkpoint is two networks.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::optim::GradientsParams;
use burn::tensor::Tensor;

/// The velocity of each parameter.
pub(crate) struct Sgd {
    velocities: GradientsParams,
    momentum: f64,
    weight_decay: f64,
}

impl Sgd {
    /// With all velocities 0.
    pub(crate) fn new(momentum: f64, weight_decay: f64) -> Self {
        Self { velocities: GradientsParams::new(), momentum, weight_decay }
    }

    /// With the velocities that [`Sgd::velocities`] gave for `model`.
    pub(crate) fn with_velocities(mut self, velocities: &impl Module) -> Self {
        velocities.visit(&mut Register(&mut self.velocities));
        self
    }

    /// The velocities in the places of their parameters, on the plain device; 0 where a parameter
    /// has none.
    pub(crate) fn velocities<M: Module>(&self, model: &M) -> M {
        model.valid().map(&mut Substitute(&self.velocities))
    }

    /// Moves every parameter that has a gradient: `v = m v + g`, `w = w - rate (g + m v)`, where `m`
    /// is the momentum and `g` holds the decay of weights. Values per channel (scales, offsets, the layer's own
    /// parameters) do not decay.
    pub(crate) fn step<M: Module>(&mut self, model: M, gradients: GradientsParams, rate: f64) -> M {
        model.map(&mut Step { sgd: self, gradients, rate })
    }
}

struct Step<'a> {
    sgd: &'a mut Sgd,
    gradients: GradientsParams,
    rate: f64,
}

impl ModuleMapper for Step<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, weight, mapper) = param.consume();
        let Some(gradient) = self.gradients.remove::<D>(id) else {
            return Param::from_mapped_value(id, weight, mapper);
        };
        let weight = weight.inner();
        let gradient = if D > 1 && self.sgd.weight_decay > 0.0 {
            gradient + weight.clone().mul_scalar(self.sgd.weight_decay)
        } else {
            gradient
        };
        let velocity = match self.sgd.velocities.remove::<D>(id) {
            Some(velocity) => velocity.mul_scalar(self.sgd.momentum) + gradient.clone(),
            None => gradient.clone(),
        };
        let direction = gradient + velocity.clone().mul_scalar(self.sgd.momentum);
        self.sgd.velocities.register(id, velocity);
        let moved = weight - direction.mul_scalar(self.rate);
        Param::from_mapped_value(id, Tensor::from_inner(moved).require_grad(), mapper)
    }
}

struct Substitute<'a>(&'a GradientsParams);

impl ModuleMapper for Substitute<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let velocity = self.0.get::<D>(param.id);
        param.map(|weight| velocity.unwrap_or_else(|| weight.zeros_like()))
    }
}

struct Register<'a>(&'a mut GradientsParams);

impl ModuleVisitor for Register<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.register(param.id, param.val());
    }
}

/// The learning rate of each step: a straight rise from 0 over the first steps, then half a cosine
/// down to 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Schedule {
    /// The highest rate.
    pub(crate) peak: f64,
    /// Steps of the whole run.
    pub(crate) steps: usize,
}

impl Schedule {
    pub(crate) fn rate(self, step: usize) -> f64 {
        // One step in twenty warms up; layers with statistics over the batch start more safely so.
        let warm_up = self.steps.div_ceil(20);
        if step < warm_up {
            return self.peak * (step + 1) as f64 / (warm_up + 1) as f64;
        }
        let done = (step - warm_up) as f64 / (self.steps - warm_up).max(1) as f64;
        self.peak * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}
