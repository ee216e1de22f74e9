//! Models that PyTorch exported, by the exporter that traces and the one that captures graphs: read as layers,
//! they compute what PyTorch computed. `tests/models/make_models.py` makes them.

use std::path::Path;

use expect_test::expect;
use normact_emit::{Imported, import_onnx};
use normact_ir::{Inputs, Shape};
use normact_syntax::print;
use serde::Deserialize;

use crate::case::output;
use crate::import::inputs;

#[derive(Deserialize)]
struct Numbers {
    shape: Vec<usize>,
    x: Vec<f64>,
    y: Vec<f64>,
}

fn exported(name: &str) -> (Imported, Numbers) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models");
    let layer = name.split('.').next().unwrap_or(name);
    let bytes = std::fs::read(folder.join(format!("{name}.onnx"))).expect("the model is in the folder");
    let numbers = std::fs::read_to_string(folder.join(format!("{layer}.json"))).expect("its numbers are too");
    let imported = import_onnx(&bytes).unwrap_or_else(|errors| panic!("{name}:\n{errors}"));
    (imported, serde_json::from_str(&numbers).expect("numbers of a layer"))
}

#[test]
fn layers_of_pytorch_are_read_as_the_same_functions() {
    let layers = [
        "batch_norm_silu",
        "channels_last",
        "evonorm_s0",
        "filter_response",
        "functions",
        "group_norm_relu",
        "instance_norm_tanh",
    ];
    let mut texts = vec![];
    for name in layers.iter().flat_map(|layer| ["script", "dynamo"].map(|exporter| format!("{layer}.{exporter}"))) {
        let (mut imported, numbers) = exported(&name);
        let shape = Shape::new(&numbers.shape).expect("a valid shape");
        let given = Inputs { shape, x: numbers.x, params: vec![], state: vec![] };
        let found = output(&imported.layer, &inputs(&imported, &given));
        for (found, expected) in found.iter().zip(&numbers.y) {
            assert!((found - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{name}: {found}, expected {expected}");
        }
        imported.layer.name = name.replace('.', "_");
        texts.push(print(&imported.layer));
    }
    expect![[r#"
        layer batch_norm_silu_script(x, eps = 0.001, momentum = 0.2, running = biased) {
            param _0_weight = 1.2509592
            param _0_bias = 0.661571

            let t1 = (x - mean[batch](x)) / std[batch](x) * _0_weight + _0_bias
            t1 * sigmoid(t1)
        }

        layer batch_norm_silu_dynamo(x, eps = 0.001, momentum = 0.2, running = biased) {
            param _0_weight = 1.2509592
            param _0_bias = 0.661571

            let t1 = (x - mean[batch](x)) / std[batch](x) * _0_weight + _0_bias
            t1 * sigmoid(t1)
        }

        layer channels_last_script(x, eps = 1e-5) {
            param norm_weight = 1.2509592
            param norm_bias = 0.10771402

            let t1 = (x - mean[channel](x)) / std[channel](x) * norm_weight + norm_bias
            0.5 * t1 * (erf(t1 / 1.4142135623730951) + 1)
        }

        layer channels_last_dynamo(x, eps = 1e-5) {
            param norm_weight = 1.2509592
            param norm_bias = 0.10771402

            let t1 = (x - mean[channel](x)) / std[channel](x) * norm_weight + norm_bias
            0.5 * t1 * (erf(t1 / 1.4142135623730951) + 1)
        }

        layer evonorm_s0_script(x, eps = 1e-5) {
            param v = 1.2509592
            param gamma = 1.3307855
            param beta = 0.48838505

            x * sigmoid(v * x) / std[group(2)](x) * gamma + beta
        }

        layer evonorm_s0_dynamo(x, eps = 1e-5) {
            param v = 1.2509592
            param gamma = 1.3307855
            param beta = 0.48838505

            x * sigmoid(v * x) / std[group(2)](x) * gamma + beta
        }

        layer filter_response_script(x, eps = 1e-6) {
            param gamma = 0.7503197
            param beta = 0.10771402
            param tau = -0.007743297
            param alpha: scalar = 0.7

            max(gamma * x * (1 / rms[instance](x)) + beta, tau) * alpha
        }

        layer filter_response_dynamo(x, eps = 1e-6) {
            param gamma = 0.7503197
            param beta = 0.10771402
            param tau = -0.007743297
            param alpha: scalar = 0.7

            max(gamma * x * (1 / rms[instance](x)) + beta, tau) * alpha
        }

        layer functions_script(x) {
            let t1 = max(x, 0)
            let t2 = exp(-max(-x, 0)) + -1
            let t3 = abs(x)
            let t4 = t3 + 1
            x * -max(-max(0.16666666666666666 * x + 0.5, 0), -1) + (t1 + 0.5 * t2) + 1.050701 * (t1 + 1.6732632 * t2) + x * tanh(t1 + log(exp(-t3) + 1)) + max(x, 0.01 * x) + x / t4 + sign(x) * log(t4) - max(-t1, -6) - abs(mean[channel](x)) - max(-max(erf(x), -0.5), -0.25)
        }

        layer functions_dynamo(x) {
            let t1 = max(x, 0)
            let t2 = exp(-max(-x, 0)) + -1
            let t3 = abs(x)
            let t4 = t3 + 1
            x * -max(-max(0.16666666666666666 * x + 0.5, 0), -1) + (t1 + 0.5 * t2) + 1.050701 * (t1 + 1.6732632 * t2) + x * tanh(t1 + log(exp(-t3) + 1)) + max(x, 0.01 * x) + x / t4 + sign(x) * log(t4) - max(-t1, -6) - abs(mean[channel](x)) - max(-max(erf(x), -0.5), -0.25)
        }

        layer group_norm_relu_script(x, eps = 1e-5) {
            param onnx__Mul_17 = 1.2509592
            param onnx__Add_18 = 0.661571

            max((x - mean[group(3)](x)) / std[group(3)](x) * onnx__Mul_17 + onnx__Add_18, 0)
        }

        layer group_norm_relu_dynamo(x, eps = 1e-5) {
            param val_21 = 1.2509592
            param val_23 = 0.661571

            max((x - mean[group(3)](x)) / std[group(3)](x) * val_21 + val_23, 0)
        }

        layer instance_norm_tanh_script(x, eps = 1e-5) {
            param _0_weight = 1.2509592
            param _0_bias = 0.661571

            tanh((x - mean[instance](x)) / std[instance](x) * _0_weight + _0_bias)
        }

        layer instance_norm_tanh_dynamo(x, eps = 1e-5) {
            param _0_weight = 1.2509592
            param _0_bias = 0.661571

            tanh((x - mean[instance](x)) / std[instance](x) * _0_weight + _0_bias)
        }
    "#]].assert_eq(&texts.join("\n"));
}
