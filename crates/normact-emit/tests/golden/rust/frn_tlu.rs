// The layer `frn_tlu` as a module for Burn 0.22, written by normact.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Tensor};

/// Configuration of [`FrnTlu`].
#[derive(Config, Debug)]
pub struct FrnTluConfig {
    /// The number of channels.
    pub channels: usize,
}

impl FrnTluConfig {
    /// The layer with its parameters at their initial values.
    ///
    /// # Panics
    /// There are no channels.
    pub fn init(&self, device: &Device) -> FrnTlu {
        let channels = self.channels;
        assert!(channels > 0, "the layer has no channels");
        FrnTlu {
            gamma: Param::from_tensor(Tensor::ones([channels], device)),
            beta: Param::from_tensor(Tensor::zeros([channels], device)),
            tau: Param::from_tensor(Tensor::zeros([channels], device)),
        }
    }
}

/// The layer `frn_tlu`.
///
/// ```text
/// // Filter response normalization with a thresholded linear unit.
/// // Singh and Krishnan, "Filter Response Normalization Layer", CVPR 2020.
/// layer frn_tlu(x, eps = 1e-6) {
///     param gamma = 1
///     param beta  = 0
///     param tau   = 0
///
///     max(x / rms[instance](x) * gamma + beta, tau)
/// }
/// ```
///
/// Parameters are saved and loaded under their names in the formula.
#[derive(Module, Debug)]
pub struct FrnTlu {
    /// Trainable, one value per channel.
    pub gamma: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub beta: Param<Tensor<1>>,
    /// Trainable, one value per channel.
    pub tau: Param<Tensor<1>>,
}

impl FrnTlu {
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
        let tau = along_channels(self.tau.val(), &x);
        let mean_square_instance = instance_mean(square(x.clone()));
        let t1 = x / (mean_square_instance + 1e-6).sqrt() * gamma + beta;
        max(t1, tau)
    }
}

/// Values per channel, or one for all, as a tensor that broadcasts against `x`.
fn along_channels(values: Tensor<1>, x: &Tensor<3>) -> Tensor<3> {
    values.cast(x.dtype()).reshape([1, -1, 1])
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
