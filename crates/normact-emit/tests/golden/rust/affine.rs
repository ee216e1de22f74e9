// The layer `affine` as a module for Burn 0.22, written by normact.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};

/// Configuration of [`Affine`].
#[derive(Config, Debug)]
pub struct AffineConfig {
    /// The number of channels.
    pub channels: usize,
}

impl AffineConfig {
    /// The layer with its parameters at their initial values.
    ///
    /// # Panics
    /// There are no channels.
    pub fn init(&self, device: &Device) -> Affine {
        let channels = self.channels;
        assert!(channels > 0, "the layer has no channels");
        Affine {
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
            beta: Param::from_tensor(Tensor::zeros([channels], device)),
        }
    }
}

/// The layer `affine`.
///
/// ```text
/// // A trainable scale and shift per channel, the end of every layer of the EvoNorm search.
/// // Liu et al., "Evolving Normalization-Activation Layers", NeurIPS 2020, section 3.
/// layer affine(x) {
///     param gamma = 1
///     param beta  = 0
///
///     x * gamma + beta
/// }
/// ```
///
/// Parameters are saved and loaded under their names in the formula.
#[derive(Module, Debug)]
pub struct Affine {
    /// Trainable, one value per channel.
    pub gamma: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub beta: Param<Tensor<1>>,
}

impl Affine {
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
        x * gamma + beta
    }
}

/// Values per channel, or one for all, as a tensor that broadcasts against `x`.
fn along_channels(values: Tensor<1>, x: &Tensor<3>) -> Tensor<3> {
    values.cast(x.dtype()).reshape([1, -1, 1])
}
