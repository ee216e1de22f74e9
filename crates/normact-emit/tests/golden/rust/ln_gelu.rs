// The layer `ln_gelu` as a module for Burn 0.22, written by normact.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};
use std::f64::consts;

/// Configuration of [`LnGelu`].
#[derive(Config, Debug)]
pub struct LnGeluConfig {
    /// The number of channels.
    pub channels: usize,
}

impl LnGeluConfig {
    /// The layer with its parameters at their initial values.
    ///
    /// # Panics
    /// There are no channels.
    pub fn init(&self, device: &Device) -> LnGelu {
        let channels = self.channels;
        assert!(channels > 0, "the layer has no channels");
        LnGelu {
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
            beta: Param::from_tensor(Tensor::zeros([channels], device)),
        }
    }
}

/// The layer `ln_gelu`.
///
/// ```text
/// // Layer normalization over channels and positions, then GELU.
/// // Ba et al., 2016; Hendrycks and Gimpel, "Gaussian Error Linear Units", 2016.
/// layer ln_gelu(x, eps = 1e-5) {
///     param gamma = 1
///     param beta  = 0
///
///     let z = (x - mean[layer](x)) / std[layer](x)
///     gelu(z * gamma + beta)
/// }
/// ```
///
/// Parameters are saved and loaded under their names in the formula.
#[derive(Module, Debug)]
pub struct LnGelu {
    /// Trainable, one value per channel.
    pub gamma: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub beta: Param<Tensor<1>>,
}

impl LnGelu {
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
        let mean_layer = layer_mean(x.clone());
        // Deviations sum to 0: no gradient flows through their mean.
        let deviation = x.clone() - mean_layer.clone().detach();
        let var_layer = layer_mean(square(deviation));
        let t1 = (x - mean_layer) / (var_layer + 1e-5).sqrt();
        let t2 = t1 * gamma + beta;
        t2.clone() * 0.5 * ((t2 * (1.0 / consts::SQRT_2)).erf() + 1.0)
    }
}

/// Values per channel, or one for all, as a tensor that broadcasts against `x`.
fn along_channels(values: Tensor<1>, x: &Tensor<3>) -> Tensor<3> {
    values.cast(x.dtype()).reshape([1, -1, 1])
}

/// The mean over channels and positions.
fn layer_mean(x: Tensor<3>) -> Tensor<3> {
    x.mean_dim(2).mean_dim(1)
}

/// `x * x`.
fn square(x: Tensor<3>) -> Tensor<3> {
    x.clone() * x
}
