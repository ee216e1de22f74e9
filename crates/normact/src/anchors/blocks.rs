//! The residual blocks, and the squeeze-excite within them.

use burn::module::Module;
use burn::nn::conv::Conv2d;
use burn::tensor::{Tensor, activation};

use super::network::Parts;
use super::plan::{BlockPlan, Form, SqueezePlan};
use crate::train::{enter, pooled};
use crate::{Failure, NormAct};

/// Part of a [`super::Network`]: images to images.
#[derive(Module, Debug)]
// Networks have few blocks, and Burn has no modules in boxes.
#[allow(clippy::large_enum_variant)]
pub(super) enum Block {
    Bottleneck(Bottleneck),
    InvertedResidual(InvertedResidual),
}

/// `x + conv3(act3(conv2(act2(conv1(act1(x))))))`; see [`enter`].
#[derive(Module, Debug)]
pub(super) struct Bottleneck {
    norm_act1: NormAct,
    conv1: Conv2d,
    norm_act2: NormAct,
    conv2: Conv2d,
    norm_act3: NormAct,
    conv3: Conv2d,
    shortcut: Option<Conv2d>,
}

/// `affine(project(excite(act(depthwise(act(expand(x)))))))`, and `x` added where the size is the same.
#[derive(Module, Debug)]
pub(super) struct InvertedResidual {
    expand: Option<Conv2d>,
    expand_norm_act: Option<NormAct>,
    depthwise: Conv2d,
    depthwise_norm_act: NormAct,
    squeeze_excite: Option<SqueezeExcite>,
    project: Conv2d,
    affine: NormAct,
    adds_input: bool,
}

/// `x * sigmoid(expand(act(reduce(mean of x over positions))))`, Hu et al. 2018; the activation is EfficientNet's
/// SiLU, or the layer.
#[derive(Module, Debug)]
pub(super) struct SqueezeExcite {
    reduce: Conv2d,
    norm_act: Option<NormAct>,
    expand: Conv2d,
}

impl Block {
    pub(super) fn new(plan: &BlockPlan, parts: &mut Parts<'_>) -> Result<Self, Failure> {
        let BlockPlan { inputs, outputs, stride, form } = *plan;
        Ok(match form {
            Form::Bottleneck { middle } => Self::Bottleneck(Bottleneck {
                norm_act1: parts.norm_act(inputs)?,
                conv1: parts.weights.conv(inputs, middle, 1, 1),
                norm_act2: parts.norm_act(middle)?,
                conv2: parts.weights.conv(middle, middle, 3, stride),
                norm_act3: parts.norm_act(middle)?,
                conv3: parts.weights.conv(middle, outputs, 1, 1),
                shortcut: parts.weights.shortcut(inputs, outputs, stride),
            }),
            Form::InvertedResidual { expanded, kernel, squeeze } => {
                let expands = expanded != inputs;
                Self::InvertedResidual(InvertedResidual {
                    expand: expands.then(|| parts.weights.conv(inputs, expanded, 1, 1)),
                    expand_norm_act: if expands { Some(parts.norm_act(expanded)?) } else { None },
                    depthwise: parts.weights.depthwise(expanded, kernel, stride),
                    depthwise_norm_act: parts.norm_act(expanded)?,
                    squeeze_excite: match squeeze {
                        Some(squeeze) => Some(SqueezeExcite::new(squeeze, expanded, parts)?),
                        None => None,
                    },
                    project: parts.weights.conv(expanded, outputs, 1, 1),
                    affine: parts.affine(outputs)?,
                    adds_input: inputs == outputs && stride == 1,
                })
            }
        })
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        match self {
            Self::Bottleneck(block) => block.forward(x),
            Self::InvertedResidual(block) => block.forward(x),
        }
    }
}

impl Bottleneck {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [activated, kept] = enter(&self.norm_act1, self.shortcut.as_ref(), x);
        let hidden = self.norm_act2.forward(self.conv1.forward(activated));
        let hidden = self.norm_act3.forward(self.conv2.forward(hidden));
        kept + self.conv3.forward(hidden)
    }
}

impl InvertedResidual {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let expanded = match (&self.expand, &self.expand_norm_act) {
            (Some(expand), Some(norm_act)) => norm_act.forward(expand.forward(x.clone())),
            (_, _) => x.clone(),
        };
        let hidden = self.depthwise_norm_act.forward(self.depthwise.forward(expanded));
        let hidden = match &self.squeeze_excite {
            Some(squeeze_excite) => squeeze_excite.forward(hidden),
            None => hidden,
        };
        let projected = self.affine.forward(self.project.forward(hidden));
        if self.adds_input { x + projected } else { projected }
    }
}

impl SqueezeExcite {
    fn new(plan: SqueezePlan, channels: usize, parts: &mut Parts<'_>) -> Result<Self, Failure> {
        Ok(Self {
            reduce: parts.weights.pointwise_with_bias(channels, plan.channels),
            norm_act: if plan.has_layer { Some(parts.norm_act(plan.channels)?) } else { None },
            expand: parts.weights.pointwise_with_bias(plan.channels, channels),
        })
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let reduced = self.reduce.forward(pooled(x.clone()));
        let squeezed = match &self.norm_act {
            Some(norm_act) => norm_act.forward(reduced),
            None => activation::silu(reduced),
        };
        x * activation::sigmoid(self.expand.forward(squeezed))
    }
}
