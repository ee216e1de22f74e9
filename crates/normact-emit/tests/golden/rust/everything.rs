// The layer `everything` as a module for Burn 0.22, written by normact.

use burn::config::Config;
use burn::module::{Flag, Module, Param, RunningState};
use burn::tensor::{DType, Device, Tensor};
use std::f64::consts;

/// Configuration of [`Everything`].
#[derive(Config, Debug)]
pub struct EverythingConfig {
    /// The number of channels.
    pub channels: usize,
}

impl EverythingConfig {
    /// The layer with its parameters and running averages at their initial values.
    ///
    /// # Panics
    /// There are no channels, or 2 does not divide their number.
    pub fn init(&self, device: &Device) -> Everything {
        let channels = self.channels;
        assert!(channels > 0, "the layer has no channels");
        assert!(
            channels.is_multiple_of(2),
            "group(2) does not divide {channels} channels"
        );
        Everything {
            x: Param::from_tensor(Tensor::full([1], 0.5, device)),
            update: Param::from_tensor(Tensor::ones([channels], device)),
            training: Param::from_tensor(Tensor::zeros([channels], device)),
            running_var: RunningState::new(Tensor::ones([channels], device)),
            running_mean_square: RunningState::new(Tensor::ones([1], device)),
            running_mean: RunningState::new(Tensor::zeros([channels], device)),
            training_2: Param::from_bool(true),
            groups: group_count(channels, 8),
            groups_2: group_count(channels, 3),
        }
    }
}

/// The layer `everything`.
///
/// ```text
/// // Groupings, trainable numbers, unbiased and numbered running averages, names that Rust code uses.
/// layer everything(input, groups = 8, running = unbiased, momentum = 0.01) {
///     param x: scalar = 0.5
///     param update = 1
///     param training = 0
///
///     let z = max(input, x) * update + training
///     let a = std[group](z) + var[group(2)](z) / std[group](z, groups = 3, eps = 0)
///     let b = log(std[batch](z)) - rms[all](abs(z)) * tanh(mean[batch](sign(input)))
///     sqrt(a) * erf(b / sqrt(2)) + 3.14159 * exp(-square(z / 3)) - mean[batch](x)
/// }
/// ```
///
/// Statistics of the batch are computed, and their running averages moved, where the input is on
/// an autodiff device and the layer is not frozen; otherwise the running averages are read.
///
/// Parameters and running averages are saved and loaded under their names in the formula.
#[derive(Module, Debug)]
pub struct Everything {
    /// Trainable, one value.
    pub x: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub update: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub training: Param<Tensor<1>>,
    /// The running variance over `batch`.
    pub running_var: RunningState<Tensor<1>>,
    /// The running mean square over `all`.
    pub running_mean_square: RunningState<Tensor<1>>,
    /// The running mean over `batch`.
    pub running_mean: RunningState<Tensor<1>>,
    /// Whether the layer is trained; [`Module::freeze`] turns it off.
    pub training_2: Param<Flag>,
    /// The number of groups: at most 8, and a divisor of the channels.
    pub groups: usize,
    /// The number of groups: at most 3, and a divisor of the channels.
    pub groups_2: usize,
}

impl Everything {
    /// Applies the layer to an input of shape `[samples, channels, ...]` and rank 2 to 5.
    ///
    /// # Panics
    /// The input has another number of channels.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        const { assert!(2 <= D && D <= 5, "the input has rank 2 to 5") };
        let (dims, dtype) = (x.dims(), x.dtype());
        let [channels] = self.update.dims();
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
    fn formula(&self, x_2: Tensor<3>) -> Tensor<3> {
        let training = x_2.device().is_autodiff() && self.training_2.is_enabled();
        let x = along_channels(self.x.val(), &x_2);
        let update_value = along_channels(self.update.val(), &x_2);
        let training_value = along_channels(self.training.val(), &x_2);
        let t1 = max(x_2.clone(), x.clone()) * update_value + training_value;
        // Deviations sum to 0: no gradient flows through their mean.
        let deviation = t1.clone() - group_mean(t1.clone(), self.groups).detach();
        let var_group = group_mean(square(deviation), self.groups);
        let deviation = t1.clone() - group_mean(t1.clone(), 2).detach();
        let var_group_2 = group_mean(square(deviation), 2);
        let deviation = t1.clone() - group_mean(t1.clone(), self.groups_2).detach();
        let var_group_3 = group_mean(square(deviation), self.groups_2);
        let var_batch = if training {
            let deviation = t1.clone() - batch_mean(t1.clone()).detach();
            let [samples, _, positions] = deviation.dims();
            let var_batch = batch_mean(square(deviation));
            let estimate = unbiased(var_batch.clone(), samples * positions);
            update(&self.running_var, estimate, 0.01);
            var_batch
        } else {
            running_value(&self.running_var, &x_2)
        };
        let t2 = t1.clone().abs();
        let mean_square_all = if training {
            let mean_square_all = all_mean(square(t2));
            update(&self.running_mean_square, mean_square_all.clone(), 0.01);
            mean_square_all
        } else {
            running_value(&self.running_mean_square, &x_2)
        };
        let t3 = sign(x_2.clone());
        let mean_batch = if training {
            let mean_batch = batch_mean(t3);
            update(&self.running_mean, mean_batch.clone(), 0.01);
            mean_batch
        } else {
            running_value(&self.running_mean, &x_2)
        };
        let t4 = -((mean_square_all + 1e-5).sqrt() * tanh(mean_batch));
        let t5 = signed_log((var_batch + 1e-5).sqrt()) + t4;
        let t6 = var_group_2 / sqrt(var_group_3);
        let t7 = signed_sqrt((var_group + 1e-5).sqrt() + t6);
        let t8 = (-square(t1 * (1.0 / 3.0))).exp() * (314159.0 / 1e5);
        let t9 = t7 * (t5 * (1.0 / consts::SQRT_2)).erf() + t8;
        t9 - x
    }
}

/// The largest number of groups, at most `most`, that divides the channels.
fn group_count(channels: usize, most: usize) -> usize {
    let mut counts = (1..=channels.min(most)).rev();
    let count = counts.find(|count| channels.is_multiple_of(*count));
    count.unwrap_or(1)
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

/// The mean over positions and the channels of a group, in the place of each of these channels.
fn group_mean(x: Tensor<3>, groups: usize) -> Tensor<3> {
    let [samples, channels, _] = x.dims();
    let (rows, size) = (samples * groups, channels / groups);
    let means = x.mean_dim(2).reshape([rows, size]).mean_dim(1);
    means.expand([rows, size]).reshape([samples, channels, 1])
}

/// The mean over samples, channels and positions.
fn all_mean(x: Tensor<3>) -> Tensor<3> {
    x.mean_dim(2).mean_dim(1).mean_dim(0)
}

/// `x * x`.
fn square(x: Tensor<3>) -> Tensor<3> {
    x.clone() * x
}

/// The hyperbolic tangent. On a GPU it may be computed from `exp(x)`, which overflows, so operands are
/// clamped to where the result is 1.
fn tanh(x: Tensor<3>) -> Tensor<3> {
    x.clamp_max(20.0).clamp_min(-20.0).tanh()
}

/// `-1`, `0` or `1`, and NaN for NaN.
fn sign(x: Tensor<3>) -> Tensor<3> {
    let nan = x.clone().is_nan();
    x.sign().mask_fill(nan, f64::NAN)
}

/// `sign(x) * ln|x|`: the logarithm, extended to negative numbers as an odd function.
fn signed_log(x: Tensor<3>) -> Tensor<3> {
    x.clone().detach().sign() * x.abs().log()
}

/// `sign(x) * sqrt(|x|)`: the square root, extended to negative numbers as an odd function.
fn signed_sqrt(x: Tensor<3>) -> Tensor<3> {
    x.clone().detach().sign() * sqrt(x.abs())
}

/// The square root of numbers that are not negative, with derivative 0 at 0.
fn sqrt(x: Tensor<3>) -> Tensor<3> {
    let zero = x.clone().equal_elem(0.0);
    let positive = x.mask_fill(zero.clone(), 1.0);
    positive.sqrt().mask_fill(zero, 0.0)
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
