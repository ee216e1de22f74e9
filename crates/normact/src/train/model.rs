//! The network that is trained: a pre-activation ResNet (He et al. 2016, "Identity Mappings in Deep
//! Residual Networks") in its form for small images, with the user's layer in every place where
//! the original has batch normalization and ReLU.

use burn::module::Module;
use burn::nn::Linear;
use burn::nn::conv::Conv2d;
use burn::tensor::{Device, Tensor};
use clap::ValueEnum;
use normact_ir::Layer;
use serde::{Deserialize, Serialize};

use super::weights::{Weights, parameter_count};
use crate::data::Dataset;
use crate::{Failure, NormAct, module_from_layer};

/// Channels of the three stages; each stage after the first halves the image.
const WIDTHS: [usize; 3] = [16, 32, 64];

/// The networks on offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ModelName {
    /// One residual block in each of three stages: 7 places for the layer, 75 thousand weights
    ResnetTiny,
    /// Three residual blocks in each stage, the depth of ResNet-20: 19 places, 270 thousand weights
    #[value(name = "resnet-20")]
    #[serde(rename = "resnet-20")]
    Resnet20,
}

impl ModelName {
    /// The name as it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResnetTiny => "resnet-tiny",
            Self::Resnet20 => "resnet-20",
        }
    }

    fn blocks_per_stage(self) -> usize {
        match self {
            Self::ResnetTiny => 1,
            Self::Resnet20 => 3,
        }
    }
}

/// A pre-activation ResNet: images `[n, channels, height, width]` to class scores `[n, classes]`.
#[derive(Module, Debug)]
pub struct ResNet {
    stem: Conv2d,
    blocks: Vec<Block>,
    norm_act: NormAct,
    head: Linear,
}

/// `x + conv2(act2(conv1(act1(x))))`. Where the size changes, the sum's other side is a 1x1
/// convolution of `act1(x)` in place of `x`.
#[derive(Module, Debug)]
struct Block {
    norm_act1: NormAct,
    conv1: Conv2d,
    norm_act2: NormAct,
    conv2: Conv2d,
    shortcut: Option<Conv2d>,
}

impl ResNet {
    /// Builds the network on a plain device ([`Module::train`] makes it trainable). The initial
    /// weights are drawn here and not by the device, so that every device starts from the same.
    ///
    /// # Errors
    /// Where the layer cannot be built for one of the widths.
    pub fn new(name: ModelName, layer: &Layer, dataset: &Dataset, seed: u64, device: &Device) -> Result<Self, Failure> {
        let norm_act = |channels| module_from_layer(layer, channels, device);
        let mut weights = Weights::new(seed, device);

        let stem = weights.conv(dataset.shape.channels, WIDTHS[0], 3, 1);
        let mut blocks = Vec::new();
        let mut channels = WIDTHS[0];
        for (stage, width) in WIDTHS.into_iter().enumerate() {
            for index in 0..name.blocks_per_stage() {
                let stride = if stage > 0 && index == 0 { 2 } else { 1 };
                blocks.push(Block {
                    norm_act1: norm_act(channels)?,
                    conv1: weights.conv(channels, width, 3, stride),
                    norm_act2: norm_act(width)?,
                    conv2: weights.conv(width, width, 3, 1),
                    shortcut: weights.shortcut(channels, width, stride),
                });
                channels = width;
            }
        }
        Ok(Self { stem, blocks, norm_act: norm_act(channels)?, head: weights.linear(channels, dataset.classes) })
    }

    /// The score of each class for each image.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let features = self.blocks.iter().fold(self.stem.forward(images), |x, block| block.forward(x));
        let features = self.norm_act.forward(features);
        self.head.forward(pooled(features).flatten(1, 3))
    }

    /// How many numbers training changes. Meaningful for a trainable network only.
    pub fn parameter_count(&self) -> usize {
        parameter_count(self)
    }
}

impl Block {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [activated, kept] = enter(&self.norm_act1, self.shortcut.as_ref(), x);
        let hidden = self.norm_act2.forward(self.conv1.forward(activated));
        kept + self.conv2.forward(hidden)
    }
}

/// How a pre-activation block begins: the activated images, and what is added to the block's result in the end,
/// the images themselves or, where the size changes, a 1x1 convolution of the activated ones.
pub(crate) fn enter(norm_act: &NormAct, shortcut: Option<&Conv2d>, x: Tensor<4>) -> [Tensor<4>; 2] {
    let activated = norm_act.forward(x.clone());
    let kept = match shortcut {
        Some(shortcut) => shortcut.forward(activated.clone()),
        None => x,
    };
    [activated, kept]
}

/// The mean of each channel over positions, as images of one pixel.
pub(crate) fn pooled(features: Tensor<4>) -> Tensor<4> {
    let [samples, channels, height, width] = features.dims();
    features.reshape([samples, channels, height * width]).mean_dim(2).reshape([samples, channels, 1, 1])
}
