//! What tract computes from emitted models, against the evaluator: every built-in layer, corner cases and random
//! graphs. Run by `cargo test --release --manifest-path tests/tract/Cargo.toml`.

#[path = "../../../crates/normact-emit/tests/onnx/case.rs"]
mod case;
#[path = "../../../crates/normact-emit/tests/onnx/layers.rs"]
mod layers;

use case::Case;
use normact_emit::{Target, emit};
use tract_onnx::prelude::*;

#[test]
fn tract_agrees() {
    let mut problems = vec![];
    let cases = layers::cases();
    let count = cases.len();
    for (layer, dims, seed) in cases {
        let case = Case::draw(layer, dims, seed);
        let files = emit(&case.layer, Target::Onnx, &case.options()).expect("the layer can be emitted");
        let place = format!("{} {dims:?} seed {seed}", case.layer.name);
        match run(&files[0].bytes, dims, &case.inputs.x) {
            Err(error) => problems.push(format!("{place}: {error:#}")),
            Ok(found) => {
                let wrong = |index: &usize| {
                    let error = (f64::from(found[*index]) - case.expected[*index]).abs();
                    case.allowed[*index].is_finite() && (error.is_nan() || error > case.allowed[*index])
                };
                if let Some(at) = (0..found.len()).find(wrong) {
                    problems.push(format!("{place}: {} at {at}, expected {}", found[at], case.expected[at]));
                }
            }
        }
    }
    assert!(problems.is_empty(), "{} of {count} models:\n{}", problems.len(), problems.join("\n"));
    println!("{count} models");
}

fn run(mut model: &[u8], dims: &[usize], x: &[f64]) -> TractResult<Vec<f32>> {
    let x: Vec<f32> = x.iter().map(|&x| x as f32).collect();
    let model = tract_onnx::onnx()
        .model_for_read(&mut model)?
        .with_input_fact(0, f32::fact(dims).into())?
        .into_optimized()?
        .into_runnable()?;
    let y = model.run(tvec!(Tensor::from_shape(dims, &x)?.into()))?;
    assert_eq!(y[0].shape(), dims);
    Ok(y[0].to_plain_array_view::<f32>()?.iter().copied().collect())
}
