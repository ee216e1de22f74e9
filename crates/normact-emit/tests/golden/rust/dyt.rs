// The layer `dyt` as a module for Burn 0.22, written by normact.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};

/// Configuration of [`Dyt`].
#[derive(Config, Debug)]
pub struct DytConfig {
    /// The number of channels.
    pub channels: usize,
}

impl DytConfig {
    /// The layer with its parameters at their initial values.
    ///
    /// # Panics
    /// There are no channels.
    pub fn init(&self, device: &Device) -> Dyt {
        let channels = self.channels;
        assert!(channels > 0, "the layer has no channels");
        Dyt {
            alpha: Param::from_tensor(Tensor::full([1], 0.5, device)),
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
            beta: Param::from_tensor(Tensor::zeros([channels], device)),
        }
    }
}

/// The layer `dyt`.
///
/// ```text
/// // Dynamic tanh: a transformer's normalization without statistics.
/// // Zhu et al., "Transformers without Normalization", CVPR 2025.
/// layer dyt(x) {
///     param alpha: scalar = 0.5
///     param gamma = 1
///     param beta  = 0
///
///     gamma * tanh(alpha * x) + beta
/// }
/// ```
///
/// Parameters are saved and loaded under their names in the formula.
#[derive(Module, Debug)]
pub struct Dyt {
    /// Trainable, one value.
    pub alpha: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub gamma: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub beta: Param<Tensor<1>>,
}

impl Dyt {
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
        let gamma = along_channels(self.gamma.val(), &x);
        let beta = along_channels(self.beta.val(), &x);
        gamma * tanh(alpha * x) + beta
    }
}

/// Values per channel, or one for all, as a tensor that broadcasts against `x`.
fn along_channels(values: Tensor<1>, x: &Tensor<3>) -> Tensor<3> {
    values.cast(x.dtype()).reshape([1, -1, 1])
}

/// The hyperbolic tangent. On a GPU it may be computed from `exp(x)`, which overflows, so operands are
/// clamped to where the result is 1.
fn tanh(x: Tensor<3>) -> Tensor<3> {
    x.clamp_max(20.0).clamp_min(-20.0).tanh()
}
