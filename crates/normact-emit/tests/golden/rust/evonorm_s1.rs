// The layer `evonorm_s1` as a module for Burn 0.22, written by normact.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::activation::sigmoid;
use burn::tensor::{DType, Device, Tensor};

/// Configuration of [`EvonormS1`].
#[derive(Config, Debug)]
pub struct EvonormS1Config {
    /// The number of channels.
    pub channels: usize,
}

impl EvonormS1Config {
    /// The layer with its parameters at their initial values.
    ///
    /// # Panics
    /// There are no channels.
    pub fn init(&self, device: &Device) -> EvonormS1 {
        let channels = self.channels;
        assert!(channels > 0, "the layer has no channels");
        EvonormS1 {
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
            beta: Param::from_tensor(Tensor::zeros([channels], device)),
            groups: group_count(channels, 32),
        }
    }
}

/// The layer `evonorm_s1`.
///
/// ```text
/// // EvoNorm-S1.
/// // Liu et al., "Evolving Normalization-Activation Layers", NeurIPS 2020, appendix.
/// layer evonorm_s1(x, groups = 32, eps = 1e-5) {
///     param gamma = 1
///     param beta  = 0
///
///     silu(x) / std[group](x) * gamma + beta
/// }
/// ```
///
/// Parameters are saved and loaded under their names in the formula.
#[derive(Module, Debug)]
pub struct EvonormS1 {
    /// Trainable, one value per channel.
    pub gamma: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub beta: Param<Tensor<1>>,
    /// The number of groups: at most 32, and a divisor of the channels.
    pub groups: usize,
}

impl EvonormS1 {
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
        let gamma = along_channels(self.gamma.val(), &x);
        let beta = along_channels(self.beta.val(), &x);
        // Deviations sum to 0: no gradient flows through their mean.
        let deviation = x.clone() - group_mean(x.clone(), self.groups).detach();
        let var_group = group_mean(square(deviation), self.groups);
        let t1 = x.clone() * sigmoid(x) / (var_group + 1e-5).sqrt() * gamma;
        t1 + beta
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

/// The mean over positions and the channels of a group, in the place of each of these channels.
fn group_mean(x: Tensor<3>, groups: usize) -> Tensor<3> {
    let [samples, channels, _] = x.dims();
    let (rows, size) = (samples * groups, channels / groups);
    let means = x.mean_dim(2).reshape([rows, size]).mean_dim(1);
    means.expand([rows, size]).reshape([samples, channels, 1])
}

/// `x * x`.
fn square(x: Tensor<3>) -> Tensor<3> {
    x.clone() * x
}
