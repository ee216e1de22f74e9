// The layer `bn_silu` as a module for Burn 0.22, written by normact.

use burn::config::Config;
use burn::module::{Flag, Module, Param, RunningState};
use burn::tensor::activation::sigmoid;
use burn::tensor::{DType, Device, Tensor};

/// Configuration of [`BnSilu`].
#[derive(Config, Debug)]
pub struct BnSiluConfig {
    /// The number of channels.
    pub channels: usize,
}

impl BnSiluConfig {
    /// The layer with its parameters and running averages at their initial values.
    ///
    /// # Panics
    /// There are no channels.
    pub fn init(&self, device: &Device) -> BnSilu {
        let channels = self.channels;
        assert!(channels > 0, "the layer has no channels");
        BnSilu {
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
            beta: Param::from_tensor(Tensor::zeros([channels], device)),
            running_mean: RunningState::new(Tensor::zeros([channels], device)),
            running_var: RunningState::new(Tensor::ones([channels], device)),
            training: Param::from_bool(true),
        }
    }
}

/// The layer `bn_silu`.
///
/// ```text
/// // Batch normalization, then SiLU, as in EfficientNet. Running statistics follow PyTorch's BatchNorm2d.
/// // Ioffe and Szegedy, ICML 2015; Ramachandran et al., "Searching for Activation Functions", 2017.
/// layer bn_silu(x, eps = 1e-5, momentum = 0.1, running = unbiased) {
///     param gamma = 1
///     param beta  = 0
///
///     let z = (x - mean[batch](x)) / std[batch](x)
///     silu(z * gamma + beta)
/// }
/// ```
///
/// Statistics of the batch are computed, and their running averages moved, where the input is on
/// an autodiff device and the layer is not frozen; otherwise the running averages are read.
///
/// Parameters and running averages are saved and loaded under their names in the formula.
#[derive(Module, Debug)]
pub struct BnSilu {
    /// Trainable, one value per channel.
    pub gamma: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub beta: Param<Tensor<1>>,
    /// The running mean over `batch`.
    pub running_mean: RunningState<Tensor<1>>,
    /// The running variance over `batch`.
    pub running_var: RunningState<Tensor<1>>,
    /// Whether the layer is trained; [`Module::freeze`] turns it off.
    pub training: Param<Flag>,
}

impl BnSilu {
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
        let mean_batch = if training {
            let mean_batch = batch_mean(x.clone());
            update(&self.running_mean, mean_batch.clone(), 0.1);
            mean_batch
        } else {
            running_value(&self.running_mean, &x)
        };
        // Deviations sum to 0: no gradient flows through their mean.
        let var_batch = if training {
            let deviation = x.clone() - mean_batch.clone().detach();
            let [samples, _, positions] = deviation.dims();
            let var_batch = batch_mean(square(deviation));
            let estimate = unbiased(var_batch.clone(), samples * positions);
            update(&self.running_var, estimate, 0.1);
            var_batch
        } else {
            running_value(&self.running_var, &x)
        };
        let t1 = (x - mean_batch) / (var_batch + 1e-5).sqrt();
        let t2 = t1 * gamma + beta;
        t2.clone() * sigmoid(t2)
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

/// The unbiased estimate from the variance of `count` elements; from one there is none.
fn unbiased(variance: Tensor<3>, count: usize) -> Tensor<3> {
    match count {
        1 => variance,
        _ => variance * (count as f64 / (count - 1) as f64),
    }
}

/// The mean over samples and positions.
fn batch_mean(x: Tensor<3>) -> Tensor<3> {
    x.mean_dim(2).mean_dim(0)
}

/// `x * x`.
fn square(x: Tensor<3>) -> Tensor<3> {
    x.clone() * x
}
