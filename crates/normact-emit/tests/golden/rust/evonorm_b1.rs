// The layer `evonorm_b1` as a module for Burn 0.22, written by normact.

use burn::config::Config;
use burn::module::{Flag, Module, Param, RunningState};
use burn::tensor::{DType, Device, Tensor};

/// Configuration of [`EvonormB1`].
#[derive(Config, Debug)]
pub struct EvonormB1Config {
    /// The number of channels.
    pub channels: usize,
}

impl EvonormB1Config {
    /// The layer with its parameters and running averages at their initial values.
    ///
    /// # Panics
    /// There are no channels.
    pub fn init(&self, device: &Device) -> EvonormB1 {
        let channels = self.channels;
        assert!(channels > 0, "the layer has no channels");
        EvonormB1 {
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
            beta: Param::from_tensor(Tensor::zeros([channels], device)),
            running_var: RunningState::new(Tensor::ones([channels], device)),
            training: Param::from_bool(true),
        }
    }
}

/// The layer `evonorm_b1`.
///
/// ```text
/// // EvoNorm-B1.
/// // Liu et al., "Evolving Normalization-Activation Layers", NeurIPS 2020, appendix.
/// layer evonorm_b1(x, eps = 1e-5, momentum = 0.1, running = biased) {
///     param gamma = 1
///     param beta  = 0
///
///     x / max(std[batch](x), (x + 1) * rms[instance](x)) * gamma + beta
/// }
/// ```
///
/// Statistics of the batch are computed, and their running averages moved, where the input is on
/// an autodiff device and the layer is not frozen; otherwise the running averages are read.
///
/// Parameters and running averages are saved and loaded under their names in the formula.
#[derive(Module, Debug)]
pub struct EvonormB1 {
    /// Trainable, one value per channel.
    pub gamma: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub beta: Param<Tensor<1>>,
    /// The running variance over `batch`.
    pub running_var: RunningState<Tensor<1>>,
    /// Whether the layer is trained; [`Module::freeze`] turns it off.
    pub training: Param<Flag>,
}

impl EvonormB1 {
    /// Applies the layer to an input of shape `[samples, channels, ...]` and rank 2 to 5.
    ///
    /// # Panics
    /// The input has another number of channels.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        const { assert!(2 <= D && D <= 5, "the input has rank 2 to 5") };
        let (dims, dtype) = (x.dims(), x.dtype());
        let [channels] = self.gamma.dims();
        assert_eq!(dims[1], channels, "axis 1 of the input is its channels");
        let view = [dims[0], channels, dims[2..].iter().product()];
        // Half precision is computed in f32.
        let x = match dtype {
            DType::F64 => x.reshape(view),
            _ => x.reshape(view).cast(DType::F32),
        };
        self.formula(x).cast(dtype).reshape(dims)
    }

    /// The formula, on a view of `[samples, channels, positions]`.
    fn formula(&self, x: Tensor<3>) -> Tensor<3> {
        let training = x.device().is_autodiff() && self.training.is_enabled();
        let gamma = along_channels(self.gamma.val(), &x);
        let beta = along_channels(self.beta.val(), &x);
        // Deviations sum to 0: no gradient flows through their mean.
        let var_batch = if training {
            let deviation = x.clone() - batch_mean(x.clone()).detach();
            let var_batch = batch_mean(square(deviation));
            update(&self.running_var, var_batch.clone(), 0.1);
            var_batch
        } else {
            running_value(&self.running_var, &x)
        };
        let mean_square_instance = instance_mean(square(x.clone()));
        let t1 = (x.clone() + 1.0) * (mean_square_instance + 1e-5).sqrt();
        let t2 = max((var_batch + 1e-5).sqrt(), t1);
        x / t2 * gamma + beta
    }
}

/// Values per channel, or one for all, as a tensor that broadcasts against `x`.
fn along_channels(values: Tensor<1>, x: &Tensor<3>) -> Tensor<3> {
    values.cast(x.dtype()).reshape([1, -1, 1])
}

/// A running average as a tensor that broadcasts against `x`.
fn running_value(running: &RunningState<Tensor<1>>, x: &Tensor<3>) -> Tensor<3> {
    along_channels(running.value_sync().to_device(&x.device()), x)
}

/// Moves a running average towards that of a batch; `momentum` is the weight of the new value.
fn update(running: &RunningState<Tensor<1>>, average: Tensor<3>, momentum: f64) {
    let old = running.value_sync().to_device(&average.device());
    let new = average.detach().reshape(old.dims()).cast(old.dtype());
    running.update((old * (1.0 - momentum) + new * momentum).detach());
}

/// The mean over samples and positions.
fn batch_mean(x: Tensor<3>) -> Tensor<3> {
    x.mean_dim(2).mean_dim(0)
}

/// The mean over positions.
fn instance_mean(x: Tensor<3>) -> Tensor<3> {
    x.mean_dim(2)
}

/// `x * x`.
fn square(x: Tensor<3>) -> Tensor<3> {
    x.clone() * x
}

/// The larger of two values, NaN if either is; on a tie each gets half of the gradient.
fn max(a: Tensor<3>, b: Tensor<3>) -> Tensor<3> {
    let b_is_larger = a.clone().lower(b.clone());
    let a_is_larger = b.clone().lower(a.clone());
    // On a tie the first half comes from `a` and the second from `b`.
    let first = a.clone().mask_where(b_is_larger, b.clone());
    let second = b.mask_where(a_is_larger, a);
    first * 0.5 + second * 0.5
}
