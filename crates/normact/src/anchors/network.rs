//! A network as a Burn module: a first convolution, blocks, a last convolution, and a classifier.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{Linear, PaddingConfig2d};
use burn::tensor::{Device, Tensor};
use normact_ir::Layer;

use super::Anchor;
use super::blocks::Block;
use super::plan::{AfterStem, BlockPlan, Form, Plan, plan};
use crate::data::Dataset;
use crate::train::{Weights, parameter_count, pooled};
use crate::{Failure, NormAct, built_in_module, module_from_layer};

/// An anchor with a layer in it: images `[n, channels, height, width]` to class scores `[n, classes]`.
#[derive(Module, Debug)]
pub struct Network {
    stem: Conv2d,
    stem_norm_act: Option<NormAct>,
    stem_pool: Option<MaxPool2d>,
    blocks: Vec<Block>,
    head: Option<Conv2d>,
    head_norm_act: NormAct,
    classifier: Linear,
}

/// What a network takes in and gives out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// Channels of an image.
    pub image_channels: usize,
    /// Classes to tell apart.
    pub classes: usize,
}

impl Ends {
    /// Those of a network for `dataset`.
    pub fn of(dataset: &Dataset) -> Self {
        Self { image_channels: dataset.shape.channels, classes: dataset.classes }
    }
}

impl Network {
    /// Builds the network on a plain device ([`Module::train`] makes it trainable). The initial
    /// weights are drawn here from the seed and not by the device.
    ///
    /// # Errors
    /// The anchor has an impossible size, or the layer cannot be built for one of the widths.
    pub fn new(anchor: &Anchor, layer: &Layer, ends: Ends, seed: u64, device: &Device) -> Result<Self, Failure> {
        anchor.check()?;
        let Plan { stem, blocks, head } = plan(anchor);
        let mut parts = Parts { weights: Weights::new(seed, device), layer, device };

        let first = parts.weights.conv(ends.image_channels, stem.channels, stem.kernel, stem.stride);
        let stem_norm_act = match stem.then {
            AfterStem::NormAct => Some(parts.norm_act(stem.channels)?),
            AfterStem::Pool => None,
        };
        let pool = MaxPool2dConfig::new([3, 3]).with_strides([2, 2]);
        let pool = pool.with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init();
        let channels = blocks.last().map_or(stem.channels, |block| block.outputs);
        let last = head.unwrap_or(channels);
        Ok(Self {
            stem: first,
            stem_norm_act,
            stem_pool: (stem.then == AfterStem::Pool).then_some(pool),
            blocks: blocks.iter().map(|block| Block::new(block, &mut parts)).collect::<Result<_, _>>()?,
            head: head.map(|head| parts.weights.conv(channels, head, 1, 1)),
            head_norm_act: parts.norm_act(last)?,
            classifier: parts.weights.linear(last, ends.classes),
        })
    }

    /// The score of each class for each image.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let mut features = self.stem.forward(images);
        if let Some(norm_act) = &self.stem_norm_act {
            features = norm_act.forward(features);
        }
        if let Some(pool) = &self.stem_pool {
            features = pool.forward(features);
        }
        features = self.blocks.iter().fold(features, |x, block| block.forward(x));
        if let Some(head) = &self.head {
            features = head.forward(features);
        }
        features = self.head_norm_act.forward(features);
        self.classifier.forward(pooled(features).flatten(1, 3))
    }

    /// How many numbers training changes. Meaningful for a trainable network only.
    pub fn parameter_count(&self) -> usize {
        parameter_count(self)
    }
}

/// How many places of an anchor are for the layer, and how many for the affine alone.
pub fn slots(anchor: &Anchor) -> [usize; 2] {
    let Plan { stem, blocks, .. } = plan(anchor);
    let stem = usize::from(stem.then == AfterStem::NormAct);
    let of_block = |block: &BlockPlan| match block.form {
        Form::Bottleneck { .. } => [3, 0],
        Form::InvertedResidual { expanded, squeeze, .. } => {
            let in_squeeze = squeeze.is_some_and(|squeeze| squeeze.has_layer);
            [1 + usize::from(expanded != block.inputs) + usize::from(in_squeeze), 1]
        }
    };
    // The last place is the one before the classifier.
    blocks.iter().map(of_block).fold([stem + 1, 0], |[layers, affines], [l, a]| [layers + l, affines + a])
}

/// Makes the parts of a network.
pub(super) struct Parts<'a> {
    pub(super) weights: Weights<'a>,
    layer: &'a Layer,
    device: &'a Device,
}

impl Parts<'_> {
    /// The layer that is judged.
    pub(super) fn norm_act(&self, channels: usize) -> Result<NormAct, Failure> {
        module_from_layer(self.layer, channels, self.device)
    }

    /// What is left of a normalization that no activation follows.
    pub(super) fn affine(&self, channels: usize) -> Result<NormAct, Failure> {
        built_in_module("affine", channels, self.device)
    }
}
