//! The networks of a search against the published ones.

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Gradients, Tensor};
use normact::anchors::{Anchor, Architecture, Ends, Network, Stem, slots};

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
}
