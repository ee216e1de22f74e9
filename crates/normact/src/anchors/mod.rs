//! The networks a layer is judged in: ResNet-50, MobileNetV2 and EfficientNet-B0, with the layer in
//! every place where the original has a normalization and an activation.
//!
//! What is exact: blocks, kernels, strides, widths and their rounding, squeeze-excite, weights and biases. A normalization without an activation (the projection that ends
//! an inverted residual block) becomes the scale and shift per channel alone. ResNet-50 is the
//! pre-activation form (He et al. 2016, "Identity Mappings in Deep Residual Networks") with the
//! stride in the 3x3 convolution, as in the code of EvoNorm's authors. Dropout and stochastic depth are
//! left out: they are part of training on ImageNet and not of the search. What becomes of squeeze-excite's own
//! activation is open in the paper, and [`SqueezeExcite`] a choice.
//!
//! On CIFAR the first two convolutions that reduce the image have stride 1 (Liu et al. 2020,
//! section 4.2). In ResNet-50 these are the first convolution and the one that opens the second of the
//! four stages; the maximum pooling between them is no convolution and stays. So all three networks
//! reduce an image by 8, where on ImageNet they do by 32.
//!
//! `plan` says of which blocks a network is made, `network` and `blocks` are the Burn modules.

mod blocks;
mod network;
mod plan;

use std::fmt;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

pub use network::{Ends, Network, slots};

use crate::{Failure, Impossible};

/// A published network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
pub enum Architecture {
    /// Pre-activation ResNet-50: 49 places for the layer
    #[value(name = "resnet-50")]
    #[serde(rename = "resnet-50")]
    ResNet50,
    /// MobileNetV2: 35 places, and 17 for the affine alone
    #[value(name = "mobilenet-v2")]
    #[serde(rename = "mobilenet-v2")]
    MobileNetV2,
    /// EfficientNet-B0: 33 places, and 16 for the affine alone
    #[value(name = "efficientnet-b0")]
    #[serde(rename = "efficientnet-b0")]
    EfficientNetB0,
}

impl Architecture {
    /// All of them, in the order of the paper.
    pub const ALL: [Self; 3] = [Self::ResNet50, Self::MobileNetV2, Self::EfficientNetB0];

    /// The name as it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::ResNet50 => "resnet-50",
            Self::MobileNetV2 => "mobilenet-v2",
            Self::EfficientNetB0 => "efficientnet-b0",
        }
    }
}

/// For which images a network is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Stem {
    /// Small ones: the first two convolutions that reduce the image have stride 1
    Cifar,
    /// Large ones: the network as published
    #[value(name = "imagenet")]
    #[serde(rename = "imagenet")]
    ImageNet,
}

impl Stem {
    /// The name as it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cifar => "cifar",
            Self::ImageNet => "imagenet",
        }
    }
}

/// What becomes of the squeeze-excite of EfficientNet-B0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SqueezeExcite {
    /// It stays as it is, with its own activation.
    #[default]
    Published,
    /// The layer takes the place of its activation, on images of one pixel.
    Layer,
    /// It is left out.
    Absent,
}

/// A network and its size. Any values can be written down; [`Anchor::check`] refuses impossible ones.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anchor {
    /// The network.
    pub architecture: Architecture,
    /// For which images.
    pub stem: Stem,
    /// Multiplies the channels, which are then rounded to a multiple of 8 as published.
    pub width: f64,
    /// Multiplies the blocks of each stage; a part of a block counts as one.
    pub depth: f64,
    /// Height and width of the images it is given; a task scales its images to this size.
    pub resolution: usize,
    /// What becomes of squeeze-excite, in the network that has it.
    #[serde(default)]
    pub squeeze_excite: SqueezeExcite,
}

/// The widest and deepest networks that make sense, against slips of the pen.
const MAX_SCALE: f64 = 8.0;
const MAX_RESOLUTION: usize = 1024;

impl Anchor {
    /// The network of the published search on CIFAR-10: ResNet-50 with a quarter of its channels, the
    /// others with half, all for crops of 24x24.
    pub fn search(architecture: Architecture) -> Self {
        let width = match architecture {
            Architecture::ResNet50 => 0.25,
            Architecture::MobileNetV2 | Architecture::EfficientNetB0 => 0.5,
        };
        Self { width, ..Self::of(architecture, Stem::Cifar, 24) }
    }

    /// The network as published for ImageNet.
    pub fn image_net(architecture: Architecture) -> Self {
        Self::of(architecture, Stem::ImageNet, 224)
    }

    /// The network as published.
    fn of(architecture: Architecture, stem: Stem, resolution: usize) -> Self {
        Self { architecture, stem, width: 1.0, depth: 1.0, resolution, squeeze_excite: SqueezeExcite::default() }
    }

    /// A network for small images and a small machine: an eighth of the channels, a third of the blocks,
    /// images of 12x12. Its last images are 2x2, so that statistics over positions still have something
    /// to average.
    pub fn small(architecture: Architecture) -> Self {
        Self { width: 0.125, depth: 0.33, ..Self::of(architecture, Stem::Cifar, 12) }
    }

    /// Whether a network of this size can be built.
    ///
    /// # Errors
    /// As [`Self::problems`], the first.
    pub fn check(&self) -> Result<(), Failure> {
        self.problems().into_iter().next().map_or(Ok(()), |problem| Err(problem.into()))
    }

    /// What is impossible: a scale or the resolution is not positive, not finite, or absurdly large; images that
    /// the network reduces to less than a pixel; a choice about a part that the network does not have.
    pub fn problems(&self) -> Vec<Impossible> {
        let name = self.architecture.name();
        let mut problems = vec![];
        for (key, value) in [("width", self.width), ("depth", self.depth)] {
            if !(value > 0.0 && value <= MAX_SCALE) {
                let help = format!("give a number above 0 and up to {MAX_SCALE}; 1 is the published network");
                problems.push(Impossible::new(key, format!("{name}: a {key} of {value} is not possible"), help));
            }
        }
        let (side, least) = (self.resolution, self.reduction());
        if side == 0 || side > MAX_RESOLUTION {
            let message = format!("{name}: images of {side} by {side} are not possible");
            problems.push(Impossible::new("resolution", message, format!("give {least} to {MAX_RESOLUTION}")));
        } else if side < least {
            let message = format!("{name}: {side} by {side} pixels, reduced by {least}, are less than one");
            let help = format!("give {least} or more, or make the network for small images (`stem = \"cifar\"`)");
            problems.push(Impossible::new("resolution", message, help));
        }
        let has_squeeze_excite = self.architecture == Architecture::EfficientNetB0;
        if !has_squeeze_excite && self.squeeze_excite != SqueezeExcite::default() {
            let message = format!("{name} has no squeeze-excite");
            problems.push(Impossible::new("squeeze_excite", message, "leave it out; efficientnet-b0 has one"));
        }
        problems
    }

    /// By how much the network reduces the height and width of images.
    fn reduction(&self) -> usize {
        match self.stem {
            Stem::Cifar => 8,
            Stem::ImageNet => 32,
        }
    }
}

impl fmt::Display for Anchor {
    /// Everything about it, in words.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { architecture, stem, width, depth, resolution, squeeze_excite } = self;
        write!(f, "{}, {} stem, width {width}, depth {depth}, ", architecture.name(), stem.name())?;
        write!(f, "{resolution}x{resolution}")?;
        match squeeze_excite {
            SqueezeExcite::Published => Ok(()),
            SqueezeExcite::Layer => f.write_str(", the layer in squeeze-excite"),
            SqueezeExcite::Absent => f.write_str(", no squeeze-excite"),
        }
    }
}
