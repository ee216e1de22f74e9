//! Models read back: the same function, in the words of the language.

use expect_test::expect;
use normact_emit::{Imported, Options, Target, emit, import_onnx};
use normact_ir::{Buffers, Inputs};
use normact_syntax::print;

use crate::case::{Case, output};
use crate::layers;

#[test]
fn an_emitted_layer_is_read_back_as_the_same_function() {
    let (mut compared, mut total) = (0, 0);
    for (layer, dims, seed) in layers::cases() {
        let case = Case::draw(layer, dims, seed);
        for file in emit(&case.layer, Target::Onnx, &case.options()).expect("the layer can be emitted") {
            let place = format!("{} {dims:?} seed {seed}", file.name);
            let imported = import_onnx(&file.bytes).unwrap_or_else(|errors| panic!("{place}:\n{errors}"));
            assert_eq!(imported.layer.name, case.layer.name, "{place}");
            assert_eq!(imported.channels, dims[1], "{place}");
            let stored = case.stored();
            for (name, values) in &imported.weights {
                let (_, expected) = stored.iter().find(|(known, _)| known == name).expect("a name of the layer");
                assert_eq!(values, expected, "{place}: {name}");
            }
            let found = output(&imported.layer, &inputs(&imported, &case.inputs));
            for (index, (found, expected)) in found.iter().zip(&case.expected).enumerate() {
                let allowed = case.allowed[index];
                total += 1;
                if allowed.is_finite() {
                    compared += 1;
                    let error = (found - expected).abs();
                    assert!(
                        error <= allowed,
                        "{place}: {found} at {index}, expected {expected}\n{}",
                        print(&imported.layer)
                    );
                }
            }
        }
    }
    println!("{compared} of {total} elements compared");
    assert!(compared * 10 > total * 9);
}

/// The input of a case with the weights of a model.
pub(crate) fn inputs(imported: &Imported, of: &Inputs) -> Inputs {
    let dag = &imported.layer.dag;
    let weights = |name: &String| -> Vec<f64> {
        let (_, values) = imported.weights.iter().find(|(known, _)| known == name).expect("a parameter has its values");
        values.iter().map(|&value| f64::from(value)).collect()
    };
    Inputs {
        params: dag.params().iter().map(|param| weights(&param.name)).collect(),
        state: Buffers::of(dag).list().iter().map(|buffer| weights(&buffer.name)).collect(),
        ..of.clone()
    }
}

#[test]
fn moments_and_signed_functions_have_their_names_again() {
    let names = ["evonorm_s0", "evonorm_b0", "gn_silu", "ln_gelu_tanh", "rms_norm"];
    let mut layers: Vec<_> = layers::built_in().into_iter().filter(|layer| names.contains(&&*layer.name)).collect();
    layers.extend(layers::compiled("layer signed(x) { log(x) + sqrt(x * x * x) + var[instance](x) - abs(x) }"));
    let texts = layers.iter().map(|layer| {
        let options = Options { channels: Some(64), ..Options::default() };
        let files = emit(layer, Target::Onnx, &options).expect("the layer can be emitted");
        print(&import_onnx(&files[0].bytes).expect("the model can be read").layer)
    });
    expect![[r#"
        layer evonorm_b0(x, eps = 1e-5) {
            param running_var = 1
            param v = 1
            param gamma = 1
            param beta = 0

            x / max(sqrt(running_var + 1e-5), v * x + std[instance](x)) * gamma + beta
        }

        layer evonorm_s0(x, eps = 1e-5) {
            param v = 1
            param gamma = 1
            param beta = 0

            x * sigmoid(v * x) / std[group(32)](x) * gamma + beta
        }

        layer gn_silu(x, eps = 1e-5) {
            param gamma = 1
            param beta = 0

            let t1 = (x - mean[group(32)](x)) / std[group(32)](x) * gamma + beta
            t1 * sigmoid(t1)
        }

        layer ln_gelu_tanh(x, eps = 1e-5) {
            param gamma = 1
            param beta = 0

            let t1 = (x - mean[layer](x)) / std[layer](x) * gamma + beta
            0.5 * t1 * (1 + tanh(0.7978846 * (t1 + 0.044715 * t1 * square(t1))))
        }

        layer rms_norm(x, eps = 1e-5) {
            param gamma = 1

            x / rms[channel](x) * gamma
        }

        layer signed(x) {
            log(x) + sqrt(square(x) * x) + var[instance](x) - abs(x)
        }
    "#]]
    .assert_eq(&texts.collect::<Vec<_>>().join("\n"));
}
