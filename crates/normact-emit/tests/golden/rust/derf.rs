// The layer `derf` as a module for Burn 0.22, written by normact.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};

/// Configuration of [`Derf`].
#[derive(Config, Debug)]
pub struct DerfConfig {
    /// The number of channels.
    pub channels: usize,
}

impl DerfConfig {
    /// The layer with its parameters at their initial values.
    ///
    /// # Panics
    /// There are no channels.
    pub fn init(&self, device: &Device) -> Derf {
        let channels = self.channels;
        assert!(channels > 0, "the layer has no channels");
        Derf {
            alpha: Param::from_tensor(Tensor::full([1], 0.5, device)),
            s: Param::from_tensor(Tensor::zeros([1], device)),
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
            beta: Param::from_tensor(Tensor::zeros([channels], device)),
        }
    }
}

/// The layer `derf`.
///
/// ```text
/// // Dynamic error function: dynamic tanh with a shifted error function in its place.
/// // Chen et al., "Stronger Normalization-Free Transformers", 2025.
/// layer derf(x) {
///     param alpha: scalar = 0.5
///     param s:     scalar = 0
///     param gamma = 1
///     param beta  = 0
///
///     let z = alpha * x + s
///     gamma * erf(z) + beta
/// }
/// ```
///
/// Parameters are saved and loaded under their names in the formula.
#[derive(Module, Debug)]
pub struct Derf {
    /// Trainable, one value.
    pub alpha: Param<Tensor<1>>,
    /// Trainable, one value.
    pub s: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub gamma: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub beta: Param<Tensor<1>>,
}

impl Derf {
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
        let alpha = along_channels(self.alpha.val(), &x);
        let s = along_channels(self.s.val(), &x);
        let gamma = along_channels(self.gamma.val(), &x);
        let beta = along_channels(self.beta.val(), &x);
        gamma * (alpha * x + s).erf() + beta
    }
}

/// Values per channel, or one for all, as a tensor that broadcasts against `x`.
fn along_channels(values: Tensor<1>, x: &Tensor<3>) -> Tensor<3> {
    values.cast(x.dtype()).reshape([1, -1, 1])
}
