//! What emitted models compute, against the evaluator: built-in layers, corner cases and random graphs, by
//! ONNX Runtime and by ONNX's reference evaluator; and that ONNX's checker has nothing to say.

use std::path::Path;
use std::process::Command;

use normact_emit::{Target, emit};
use serde_json::json;

use crate::case::Case;
use crate::layers;

#[test]
fn onnx_runtime_and_the_reference_evaluator_agree() {
    let Ok(python) = std::env::var("NORMACT_ONNX_PYTHON") else {
        eprintln!(
            "SKIPPED: what emitted ONNX models compute is not tested. To test it, run\n    \
             NORMACT_ONNX_PYTHON=$(crates/normact-emit/tests/python/onnx-environment) \
             cargo test --release -p normact-emit"
        );
        return;
    };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let write = |name: String, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).expect("room for a file");
    let bytes = |values: &[f64]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
    let (mut list, mut steady) = (vec![], 0.0);
    for (number, (layer, dims, seed)) in layers::cases().into_iter().enumerate() {
        let case = Case::draw(layer, dims, seed);
        let [model, function] =
            emit(&case.layer, Target::Onnx, &case.options()).expect("the layer can be emitted").try_into().unwrap();
        steady += case.steady();
        write(format!("{number}.onnx"), &model.bytes);
        write(format!("{number}_function.onnx"), &function.bytes);
        write(format!("{number}.x"), &bytes(&case.inputs.x));
        write(format!("{number}.expected"), &bytes(&case.expected));
        write(format!("{number}.allowed"), &bytes(&case.allowed));
        list.push(json!({"name": format!("{} {dims:?} seed {seed}", case.layer.name), "shape": dims}));
    }
    steady /= list.len() as f64;
    println!("{} layers, {steady:.2} of the elements compared", list.len());
    assert!(steady > 0.7, "only {steady:.2} of the elements could be compared");
    write("cases.json".to_owned(), serde_json::to_string(&list).expect("names and sizes").as_bytes());
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/check_onnx.py");
    let status = Command::new(&python).arg(program).arg(folder.path()).status();
    let status = status.unwrap_or_else(|error| panic!("NORMACT_ONNX_PYTHON is {python}, which cannot be run: {error}"));
    assert!(status.success(), "the models do not agree with the evaluator");
}
