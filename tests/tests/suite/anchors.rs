//! The networks of a search against the published ones.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Gradients, Tensor};
use normact::anchors::{Anchor, Architecture, Ends, Network, SqueezeExcite, Stem, slots};

use crate::support::layer;

const IMAGE_NET: Ends = Ends { image_channels: 3, classes: 1000 };
const CIFAR: Ends = Ends { image_channels: 3, classes: 10 };

fn network(anchor: &Anchor, name: &str, ends: Ends, seed: u64) -> Network {
    Network::new(anchor, &layer(name, &[]), ends, seed, &Device::flex()).unwrap().train()
}

/// Images that differ from each other and along every axis.
fn images(count: usize, side: usize, device: &Device) -> Tensor<4> {
    let values: Vec<f32> = (0..count * 3 * side * side).map(|index| (index as f32 * 0.7).sin()).collect();
    Tensor::<1>::from_data(values.as_slice(), device).reshape([count, 3, side, side])
}

#[test]
fn parameter_counts_are_the_published_ones() {
    // torchvision's mobilenet_v2 and efficientnet_b0. Its resnet50 has 25,557,032: 23,454,912 of
    // convolutions, 2,049,000 of the classifier, and twice 26,560 channels that are normalized after
    // convolutions. The pre-activation form normalizes before them, 22,720 channels (13,120 that enter
    // the blocks, 7,552 within, 2,048 at the end), and has 25,549,352.
    for (architecture, expected) in [
        (Architecture::ResNet50, 23_454_912 + 2_049_000 + 2 * 22_720),
        (Architecture::MobileNetV2, 3_504_872),
        (Architecture::EfficientNetB0, 5_288_548),
    ] {
        let network = network(&Anchor::image_net(architecture), "bn_relu", IMAGE_NET, 0);
        assert_eq!(network.parameter_count(), expected, "{architecture:?}");
    }
}

/// The trainable values of MobileNetV2 or EfficientNet-B0, from the tables of their papers: for each stage the
/// expansion, the channels, the number of blocks and the kernel; normalizations have two values a channel.
fn inverted_residuals(
    stem: usize,
    stages: [(usize, usize, usize, usize); 7],
    head: usize,
    classes: usize,
    squeezes: bool,
) -> usize {
    let mut count = 3 * 3 * 3 * stem + 2 * stem;
    let mut inputs = stem;
    for (expansion, channels, blocks, kernel) in stages {
        for _ in 0..blocks {
            let hidden = inputs * expansion;
            count += if expansion > 1 { inputs * hidden + 2 * hidden } else { 0 };
            count += kernel * kernel * hidden + 2 * hidden;
            let squeezed = inputs / 4;
            count += if squeezes { 2 * hidden * squeezed + squeezed + hidden } else { 0 };
            count += hidden * channels + 2 * channels;
            inputs = channels;
        }
    }
    count + inputs * head + 2 * head + head * classes + classes
}

/// The same of the pre-activation ResNet-50; the channels are those of the inner convolutions.
fn bottlenecks(stem: usize, channels: [usize; 4], classes: usize) -> usize {
    let mut count = 7 * 7 * 3 * stem;
    let mut inputs = stem;
    for (middle, blocks) in channels.into_iter().zip([3, 4, 6, 3]) {
        for block in 0..blocks {
            count += inputs * middle + 9 * middle * middle + middle * 4 * middle;
            count += if block == 0 { inputs * 4 * middle } else { 0 };
            count += 2 * (inputs + middle + middle);
            inputs = 4 * middle;
        }
    }
    count + 2 * inputs + inputs * classes + classes
}

#[test]
fn parameter_counts_of_the_search_follow_from_the_published_tables() {
    let mobile = |stem, c: [usize; 7], head, classes| {
        let [a, b, d, e, f, g, h] = c;
        let stages = [(1, a, 1, 3), (6, b, 2, 3), (6, d, 3, 3), (6, e, 4, 3), (6, f, 3, 3), (6, g, 3, 3), (6, h, 1, 3)];
        inverted_residuals(stem, stages, head, classes, false)
    };
    let efficient = |stem, c: [usize; 7], head, classes| {
        let [a, b, d, e, f, g, h] = c;
        let stages = [(1, a, 1, 3), (6, b, 2, 3), (6, d, 2, 5), (6, e, 3, 3), (6, f, 3, 5), (6, g, 4, 5), (6, h, 1, 3)];
        inverted_residuals(stem, stages, head, classes, true)
    };
    // The way of counting gives the published numbers.
    assert_eq!(bottlenecks(64, [64, 128, 256, 512], 1000), 25_549_352);
    assert_eq!(mobile(32, [16, 24, 32, 64, 96, 160, 320], 1280, 1000), 3_504_872);
    assert_eq!(efficient(32, [16, 24, 40, 80, 112, 192, 320], 1280, 1000), 5_288_548);
    // A quarter of the channels, and a half in multiples of 8; MobileNetV2 keeps all of its last ones.
    for (architecture, expected) in [
        (Architecture::ResNet50, bottlenecks(16, [16, 32, 64, 128], 10)),
        (Architecture::MobileNetV2, mobile(16, [8, 16, 16, 32, 48, 80, 160], 1280, 10)),
        (Architecture::EfficientNetB0, efficient(16, [8, 16, 24, 40, 56, 96, 160], 640, 10)),
    ] {
        let network = network(&Anchor::search(architecture), "bn_relu", CIFAR, 0);
        assert_eq!(network.parameter_count(), expected, "{architecture:?}");
    }
}

#[test]
fn squeeze_excite_can_hold_the_layer_or_be_left_out() {
    let of = |squeeze_excite| Anchor { squeeze_excite, ..Anchor::search(Architecture::EfficientNetB0) };
    let count = |squeeze_excite| network(&of(squeeze_excite), "bn_relu", CIFAR, 0).parameter_count();
    let [published, layer, absent] = [SqueezeExcite::Published, SqueezeExcite::Layer, SqueezeExcite::Absent];
    assert_eq!([published, layer, absent].map(|choice| slots(&of(choice))), [[33, 16], [49, 16], [33, 16]]);
    // Two values for each channel that the blocks squeeze to: a quarter of their inputs.
    let inputs = [16, 8, 16, 16, 24, 24, 40, 40, 40, 56, 56, 56, 96, 96, 96, 96];
    let squeezed: Vec<usize> = inputs.iter().map(|inputs| inputs / 4).collect();
    assert_eq!(count(layer) - count(published), 2 * squeezed.iter().sum::<usize>());
    let expansion = |block: usize| if block == 0 { 1 } else { 6 };
    let of_block = |(block, (inputs, squeezed)): (usize, (usize, &usize))| {
        let hidden = inputs * expansion(block);
        2 * hidden * squeezed + squeezed + hidden
    };
    let all: usize = inputs.into_iter().zip(&squeezed).enumerate().map(of_block).sum();
    assert_eq!(count(published) - count(absent), all);
    let device = Device::flex();
    let scores = |choice| -> Vec<f32> {
        let small = Anchor { width: 0.05, depth: 0.01, ..of(choice) };
        let network = Network::new(&small, &super::support::layer("gn_silu", &[]), CIFAR, 1, &device).unwrap();
        network.forward(images(2, 16, &device)).try_into_vec_as().unwrap()
    };
    let all = [published, layer, absent].map(scores);
    assert!(all.iter().flatten().all(|score| score.is_finite()));
    assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2], "each is another network");
}

#[test]
fn networks_of_full_depth_give_a_score_for_each_class() {
    for architecture in Architecture::ALL {
        for stem in [Stem::Cifar, Stem::ImageNet] {
            let anchor = Anchor { stem, resolution: 33, ..Anchor::search(architecture) };
            let device = Device::flex();
            let network = Network::new(&anchor, &layer("evonorm_s0", &[]), CIFAR, 1, &device).unwrap();
            let scores: Vec<f32> = network.forward(images(2, 33, &device)).try_into_vec_as().unwrap();
            assert_eq!(scores.len(), 20);
            assert!(scores.iter().all(|score| score.is_finite()), "{anchor:?}: {scores:?}");
            assert_ne!(scores[..10], scores[10..], "{anchor:?}");
        }
    }
}

/// Counts the places for layers, and collects the trainable values that no gradient reaches.
struct Places<'a> {
    gradients: &'a Gradients,
    path: Vec<String>,
    gammas: usize,
    unreached: Vec<String>,
}

impl ModuleVisitor for Places<'_> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _: &str, _: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !param.is_require_grad() {
            return;
        }
        self.gammas += usize::from(self.path.last().is_some_and(|name| name == "gamma"));
        let reached = param.val().grad(self.gradients).is_some_and(|gradient| {
            let largest: f32 = gradient.abs().max().into_scalar();
            largest > 0.0 && largest.is_finite()
        });
        if !reached {
            self.unreached.push(self.path.join("."));
        }
    }
}

#[test]
fn every_place_runs_and_gradients_reach_every_weight() {
    for (architecture, expected) in [
        (Architecture::ResNet50, [49, 0]),
        (Architecture::MobileNetV2, [35, 17]),
        (Architecture::EfficientNetB0, [33, 16]),
    ] {
        let anchor = Anchor { width: 0.05, ..Anchor::search(architecture) };
        assert_eq!(slots(&anchor), expected, "{architecture:?}");
        let network = network(&anchor, "gn_silu", CIFAR, 2);
        let device = Device::flex().autodiff();
        let scores = network.forward(images(4, 16, &device));
        let labels = Tensor::from_data([3, 1, 4, 1], &device);
        let gradients = CrossEntropyLossConfig::new().init(&device).forward(scores, labels).backward();
        let mut places = Places { gradients: &gradients, path: Vec::new(), gammas: 0, unreached: Vec::new() };
        network.visit(&mut places);
        assert_eq!(places.gammas, expected[0] + expected[1], "{architecture:?}");
        assert_eq!(places.unreached, Vec::<String>::new(), "{architecture:?}");
    }
}

#[test]
fn the_seed_decides_the_initial_weights() {
    let anchor = Anchor::small(Architecture::MobileNetV2);
    let scores = |seed| -> Vec<f32> {
        let device = Device::flex();
        network(&anchor, "evonorm_s0", CIFAR, seed).valid().forward(images(2, 12, &device)).try_into_vec_as().unwrap()
    };
    assert_eq!(scores(7), scores(7));
    assert_ne!(scores(7), scores(8));
}

#[test]
fn impossible_sizes_are_refused() {
    let base = Anchor::small(Architecture::ResNet50);
    let check = |anchor: Anchor, expected: &str| {
        let error = Network::new(&anchor, &layer("bn_relu", &[]), CIFAR, 0, &Device::flex()).unwrap_err();
        assert_eq!(error.message, expected);
    };
    check(Anchor { width: f64::NAN, ..base }, "resnet-50: a width of NaN is not possible");
    check(Anchor { width: 0.0, ..base }, "resnet-50: a width of 0 is not possible");
    check(Anchor { depth: -1.0, ..base }, "resnet-50: a depth of -1 is not possible");
    check(Anchor { depth: 1e9, ..base }, "resnet-50: a depth of 1000000000 is not possible");
    check(Anchor { resolution: 0, ..base }, "resnet-50: images of 0 by 0 are not possible");
    check(Anchor { resolution: 7, ..base }, "resnet-50: 7 by 7 pixels, reduced by 8, are less than one");
    let large = Anchor { resolution: 24, ..Anchor::image_net(Architecture::ResNet50) };
    check(large, "resnet-50: 24 by 24 pixels, reduced by 32, are less than one");
    let excites = Anchor { squeeze_excite: SqueezeExcite::Absent, ..base };
    check(excites, "resnet-50 has no squeeze-excite");
}
