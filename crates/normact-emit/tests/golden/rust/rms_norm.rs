// The layer `rms_norm` as a module for Burn 0.22, written by normact.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};

/// Configuration of [`RmsNorm`].
#[derive(Config, Debug)]
pub struct RmsNormConfig {
    /// The number of channels.
    pub channels: usize,
}

impl RmsNormConfig {
    /// The layer with its parameters at their initial values.
    ///
    /// # Panics
    /// There are no channels.
    pub fn init(&self, device: &Device) -> RmsNorm {
        let channels = self.channels;
        assert!(channels > 0, "the layer has no channels");
        RmsNorm {
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
        }
    }
}

/// The layer `rms_norm`.
///
/// ```text
/// // Root mean square normalization over the channels of each position.
/// // Zhang and Sennrich, "Root Mean Square Layer Normalization", NeurIPS 2019.
/// layer rms_norm(x, eps = 1e-5) {
///     param gamma = 1
///
///     x / rms[channel](x) * gamma
/// }
/// ```
///
/// Parameters are saved and loaded under their names in the formula.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// Trainable, one value per channel.
    pub gamma: Param<Tensor<1>>,
}

impl RmsNorm {
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
        let mean_square_channel = channel_mean(square(x.clone()));
        x / (mean_square_channel + 1e-5).sqrt() * gamma
    }
}

/// Values per channel, or one for all, as a tensor that broadcasts against `x`.
fn along_channels(values: Tensor<1>, x: &Tensor<3>) -> Tensor<3> {
    values.cast(x.dtype()).reshape([1, -1, 1])
}

/// The mean over channels.
fn channel_mean(x: Tensor<3>) -> Tensor<3> {
    x.mean_dim(1)
}

/// `x * x`.
fn square(x: Tensor<3>) -> Tensor<3> {
    x.clone() * x
}
