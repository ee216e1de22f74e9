//! Of which blocks a network is made: the published tables, scaled, and what follows from them.

use super::{Anchor, Architecture, SqueezeExcite, Stem};

/// Everything that decides a network's form.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub(super) stem: StemPlan,
    pub(super) blocks: Vec<BlockPlan>,
    /// Channels of the 1x1 convolution after the blocks, where there is one.
    pub(super) head: Option<usize>,
}

/// The first convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StemPlan {
    pub(super) channels: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    /// What follows it.
    pub(super) then: AfterStem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterStem {
    /// A 3x3 maximum pooling of stride 2.
    Pool,
    /// The layer.
    NormAct,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockPlan {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) stride: usize,
    pub(super) form: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// 1x1, 3x3, 1x1; the inner two widths are `middle`.
    Bottleneck { middle: usize },
    /// 1x1 to `expanded` channels (absent where that is no more), depthwise, 1x1.
    InvertedResidual { expanded: usize, kernel: usize, squeeze: Option<SqueezePlan> },
}

/// Squeeze-excite within a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SqueezePlan {
    /// Channels that it goes through.
    pub(super) channels: usize,
    /// Whether the layer takes the place of its activation.
    pub(super) has_layer: bool,
}

/// One row of a published table: `repeats` blocks, the first of which has the stride.
struct Stage {
    expansion: usize,
    kernel: usize,
    stride: usize,
    channels: usize,
    repeats: usize,
}

const fn stage(expansion: usize, kernel: usize, stride: usize, channels: usize, repeats: usize) -> Stage {
    Stage { expansion, kernel, stride, channels, repeats }
}

/// He et al. 2016, "Deep Residual Learning for Image Recognition", table 1. The channels are those of the
/// inner convolutions, a quarter of the outer ones.
const RESNET_50: [Stage; 4] =
    [stage(4, 3, 1, 64, 3), stage(4, 3, 2, 128, 4), stage(4, 3, 2, 256, 6), stage(4, 3, 2, 512, 3)];

/// Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", table 2.
const MOBILENET_V2: [Stage; 7] = [
    stage(1, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(6, 3, 2, 32, 3),
    stage(6, 3, 2, 64, 4),
    stage(6, 3, 1, 96, 3),
    stage(6, 3, 2, 160, 3),
    stage(6, 3, 1, 320, 1),
];

/// Tan and Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", table 1.
const EFFICIENTNET_B0: [Stage; 7] = [
    stage(1, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(6, 5, 2, 40, 2),
    stage(6, 3, 2, 80, 3),
    stage(6, 5, 1, 112, 3),
    stage(6, 5, 2, 192, 4),
    stage(6, 3, 1, 320, 1),
];

/// Channels of the last convolution of MobileNetV2 and EfficientNet-B0.
const HEAD: usize = 1280;

pub(super) fn plan(anchor: &Anchor) -> Plan {
    let wide = |channels: usize| make_divisible(channels as f64 * anchor.width);
    // The first convolution that reduces the image is the stem, the second opens the first stage of stride 2.
    let mut kept_at_full_size = match anchor.stem {
        Stem::Cifar => 2,
        Stem::ImageNet => 0,
    };
    let mut stride = |published: usize| {
        let keeps = published > 1 && kept_at_full_size > 0;
        kept_at_full_size -= usize::from(keeps);
        if keeps { 1 } else { published }
    };

    let (stages, stem, head): (&[Stage], _, _) = match anchor.architecture {
        Architecture::ResNet50 => {
            let stem = StemPlan { channels: wide(64), kernel: 7, stride: stride(2), then: AfterStem::Pool };
            (&RESNET_50, stem, None)
        }
        Architecture::MobileNetV2 => {
            let stem = StemPlan { channels: wide(32), kernel: 3, stride: stride(2), then: AfterStem::NormAct };
            // Published networks with less than all channels keep all of these.
            (&MOBILENET_V2, stem, Some(make_divisible(HEAD as f64 * anchor.width.max(1.0))))
        }
        Architecture::EfficientNetB0 => {
            let stem = StemPlan { channels: wide(32), kernel: 3, stride: stride(2), then: AfterStem::NormAct };
            (&EFFICIENTNET_B0, stem, Some(wide(HEAD)))
        }
    };

    let mut blocks = Vec::new();
    let mut inputs = stem.channels;
    for stage in stages {
        let width = wide(stage.channels);
        let first_stride = stride(stage.stride);
        for index in 0..repeats(stage.repeats, anchor.depth) {
            let (outputs, form) = match anchor.architecture {
                Architecture::ResNet50 => (width * stage.expansion, Form::Bottleneck { middle: width }),
                Architecture::MobileNetV2 | Architecture::EfficientNetB0 => {
                    let has_squeeze = anchor.architecture == Architecture::EfficientNetB0
                        && anchor.squeeze_excite != SqueezeExcite::Absent;
                    let has_layer = anchor.squeeze_excite == SqueezeExcite::Layer;
                    let form = Form::InvertedResidual {
                        expanded: inputs * stage.expansion,
                        kernel: stage.kernel,
                        squeeze: has_squeeze.then_some(SqueezePlan { channels: (inputs / 4).max(1), has_layer }),
                    };
                    (width, form)
                }
            };
            blocks.push(BlockPlan { inputs, outputs, stride: if index == 0 { first_stride } else { 1 }, form });
            inputs = outputs;
        }
    }
    Plan { stem, blocks, head }
}

/// The nearest multiple of 8, at least 8, and never less than nine tenths of the number: the rounding
/// of MobileNetV2 and EfficientNet.
fn make_divisible(channels: f64) -> usize {
    const DIVISOR: usize = 8;
    let nearest = (channels / DIVISOR as f64 + 0.5).floor() as usize * DIVISOR;
    let rounded = nearest.max(DIVISOR);
    if (rounded as f64) < 0.9 * channels { rounded + DIVISOR } else { rounded }
}

/// Blocks of a stage, rounded up as in EfficientNet.
fn repeats(published: usize, depth: f64) -> usize {
    (published as f64 * depth).ceil().max(1.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_round_as_published() {
        let check = |channels: f64, expected| assert_eq!(make_divisible(channels), expected, "of {channels}");
        // MobileNetV2 0.35x and 0.5x, EfficientNet-B1 to B4 (widths 1.0 to 1.4).
        check(32.0 * 0.35, 16);
        check(24.0 * 0.35, 8);
        check(96.0 * 0.35, 32);
        check(320.0 * 0.35, 112);
        check(24.0 * 0.5, 16);
        check(40.0 * 1.4, 56);
        check(1280.0 * 1.4, 1792);
        check(1.0, 8);
    }

    #[test]
    fn networks_reduce_an_image_by_32_and_on_cifar_by_8() {
        for architecture in Architecture::ALL {
            for (anchor, expected) in [(Anchor::image_net(architecture), 32), (Anchor::search(architecture), 8)] {
                let plan = plan(&anchor);
                let pool = if plan.stem.then == AfterStem::Pool { 2 } else { 1 };
                let blocks: usize = plan.blocks.iter().map(|block| block.stride).product();
                assert_eq!(plan.stem.stride * pool * blocks, expected, "{anchor:?}");
            }
        }
    }

    #[test]
    fn search_networks_have_the_published_widths() {
        let widths = |architecture| {
            let mut widths: Vec<usize> =
                plan(&Anchor::search(architecture)).blocks.iter().map(|block| block.outputs).collect();
            widths.dedup();
            widths
        };
        assert_eq!(widths(Architecture::ResNet50), [64, 128, 256, 512]);
        assert_eq!(widths(Architecture::MobileNetV2), [8, 16, 32, 48, 80, 160]);
        assert_eq!(widths(Architecture::EfficientNetB0), [8, 16, 24, 40, 56, 96, 160]);
    }

    #[test]
    fn depth_takes_blocks_away_and_keeps_every_stage() {
        for (architecture, all, few) in
            [(Architecture::ResNet50, 16, 4), (Architecture::MobileNetV2, 17, 7), (Architecture::EfficientNetB0, 16, 7)]
        {
            let blocks = |depth| plan(&Anchor { depth, ..Anchor::search(architecture) }).blocks.len();
            assert_eq!((blocks(1.0), blocks(0.01)), (all, few), "{architecture:?}");
        }
    }
}
