// The layer `ln_gelu_tanh` as a module for Burn 0.22, written by normact.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};

/// Configuration of [`LnGeluTanh`].
#[derive(Config, Debug)]
pub struct LnGeluTanhConfig {
    /// The number of channels.
    pub channels: usize,
}

impl LnGeluTanhConfig {
    /// The layer with its parameters at their initial values.
    ///
    /// # Panics
    /// There are no channels.
    pub fn init(&self, device: &Device) -> LnGeluTanh {
        let channels = self.channels;
        assert!(channels > 0, "the layer has no channels");
        LnGeluTanh {
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
            beta: Param::from_tensor(Tensor::zeros([channels], device)),
        }
    }
}

/// The layer `ln_gelu_tanh`.
///
/// ```text
/// // Layer normalization over channels and positions, then GELU in its tanh approximation.
/// // Ba et al., 2016; Hendrycks and Gimpel, 2016, section 2.
/// layer ln_gelu_tanh(x, eps = 1e-5) {
///     param gamma = 1
///     param beta  = 0
///
///     let z = (x - mean[layer](x)) / std[layer](x)
///     gelu_tanh(z * gamma + beta)
/// }
/// ```
///
/// Parameters are saved and loaded under their names in the formula.
#[derive(Module, Debug)]
pub struct LnGeluTanh {
    /// Trainable, one value per channel.
    pub gamma: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub beta: Param<Tensor<1>>,
}

impl LnGeluTanh {
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
        let t3 = (t2.clone() + t2.clone() * 0.044715 * square(t2.clone())) * 0.7978845608028654;
        let t4 = tanh(t3) + 1.0;
        t2 * 0.5 * t4
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

/// The hyperbolic tangent. On a GPU it may be computed from `exp(x)`, which overflows, so operands are
/// clamped to where the result is 1.
fn tanh(x: Tensor<3>) -> Tensor<3> {
    x.clamp_max(20.0).clamp_min(-20.0).tanh()
}
