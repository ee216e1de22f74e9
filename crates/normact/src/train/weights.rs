//! Initial weights, drawn on the host from a seed, so that every device starts from the same.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig, PaddingConfig2d};
use burn::tensor::{Device, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Makes layers with weights drawn from a seeded generator.
pub(crate) struct Weights<'a> {
    generator: ChaCha8Rng,
    device: &'a Device,
}

impl<'a> Weights<'a> {
    pub(crate) fn new(seed: u64, device: &'a Device) -> Self {
        Self { generator: ChaCha8Rng::seed_from_u64(seed), device }
    }

    /// A convolution without a bias that keeps the image's size up to its stride.
    pub(crate) fn conv(&mut self, inputs: usize, outputs: usize, kernel: usize, stride: usize) -> Conv2d {
        self.conv_from(Conv2dConfig::new([inputs, outputs], [kernel, kernel]).with_stride([stride, stride]))
    }

    /// The 1x1 convolution past a residual block that changes the size.
    pub(crate) fn shortcut(&mut self, inputs: usize, outputs: usize, stride: usize) -> Option<Conv2d> {
        (inputs != outputs || stride > 1).then(|| self.conv(inputs, outputs, 1, stride))
    }

    /// A convolution of each channel with a kernel of its own.
    pub(crate) fn depthwise(&mut self, channels: usize, kernel: usize, stride: usize) -> Conv2d {
        let config = Conv2dConfig::new([channels, channels], [kernel, kernel]).with_stride([stride, stride]);
        self.conv_from(config.with_groups(channels))
    }

    /// A 1x1 convolution with a bias, which starts at 0.
    pub(crate) fn pointwise_with_bias(&mut self, inputs: usize, outputs: usize) -> Conv2d {
        let bias = Param::from_tensor(Tensor::zeros([outputs], self.device));
        Conv2d { bias: Some(bias), ..self.conv(inputs, outputs, 1, 1) }
    }

    pub(crate) fn linear(&mut self, inputs: usize, outputs: usize) -> Linear {
        let mut linear = LinearConfig::new(inputs, outputs).init(self.device);
        linear.weight = Param::from_tensor(self.uniform([inputs, outputs], 1.0 / (inputs as f32).sqrt()));
        linear.bias = Some(Param::from_tensor(Tensor::zeros([outputs], self.device)));
        linear
    }

    /// The weights are uniform with the variance 2 / fan-in of He et al. 2015.
    fn conv_from(&mut self, config: Conv2dConfig) -> Conv2d {
        let ([inputs, outputs], [kernel, _]) = (config.channels, config.kernel_size);
        let inputs = inputs / config.groups;
        let fan_in = inputs * kernel * kernel;
        let mut conv = config
            .with_padding(PaddingConfig2d::Explicit(kernel / 2, kernel / 2, kernel / 2, kernel / 2))
            .with_bias(false)
            .init(self.device);
        conv.weight = Param::from_tensor(self.uniform([outputs, inputs, kernel, kernel], (6.0 / fan_in as f32).sqrt()));
        conv
    }

    fn uniform<const D: usize>(&mut self, shape: [usize; D], bound: f32) -> Tensor<D> {
        let values: Vec<f32> =
            (0..shape.iter().product()).map(|_| self.generator.random_range(-bound..bound)).collect();
        Tensor::from_data(TensorData::new(values, shape), self.device)
    }
}

/// How many numbers training changes. Meaningful for a trainable network only.
pub(crate) fn parameter_count(network: &impl Module) -> usize {
    /// Running statistics are visited too, but take no gradient.
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            if param.is_require_grad() {
                self.0 += param.shape().num_elements();
            }
        }
    }
    let mut count = Count(0);
    network.visit(&mut count);
    count.0
}
