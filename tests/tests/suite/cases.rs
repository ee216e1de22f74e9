//! Formulas and what the program says about them: `tests/cases/*.nact` with the answer beside each.
//!
//! `UPDATE_EXPECT=1 cargo test cases` writes the answers anew; the diff is the review.

use burn::module::Module;
use burn::tensor::{Device, Tensor, TensorData};
use expect_test::expect_file;
use normact::ir::{Inputs, Layer, Mode, Shape, evaluate, json};
use normact::syntax::{Overrides, Source, compile, format, parse, print, render, shape_diagnostics};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{assert_close, formulas, root};

/// What is said about a formula: messages, messages for an input of 8 samples, 12 channels and 4x4
/// positions, and the graph of each layer that can be used.
fn answer(source: &Source) -> String {
    let analysis = compile(source, &Overrides::none());
    let mut answer = render(source, &analysis.diagnostics, false);
    let shape = Shape::new(&[8, 12, 4, 4]).unwrap();
    for compiled in &analysis.layers {
        let about_shape = render(source, &shape_diagnostics(compiled, &shape), false);
        if !about_shape.is_empty() {
            answer.push_str(&format!("--- for an input {shape}\n{about_shape}"));
        }
        answer.push_str(&format!("--- {}\n", print(&compiled.layer)));
        answer.push_str(&normact_emit::listing(&compiled.layer));
    }
    answer
}

#[test]
fn every_case_gets_its_answer() {
    let mut paths = formulas();
    paths.retain(|path| path.starts_with(root().join("tests/cases")));
    for path in paths {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let source = Source::new(name, std::fs::read_to_string(&path).unwrap());
        expect_file![path.with_extension("txt")].assert_eq(&answer(&source));
    }
}

/// Every layer of the repository's formulas.
fn layers() -> Vec<(String, Layer)> {
    let mut layers = Vec::new();
    for path in formulas() {
        let source = Source::new(path.display().to_string(), std::fs::read_to_string(&path).unwrap());
        let analysis = compile(&source, &Overrides::none());
        layers.extend(analysis.layers.into_iter().map(|compiled| (source.name.clone(), compiled.layer)));
    }
    layers
}

#[test]
fn every_formula_reads_back_and_round_trips() {
    for (file, layer) in layers() {
        let printed = print(&layer);
        let again = compile(&Source::new("printed", &*printed), &Overrides::none());
        if let Some(again) = again.layers.first() {
            assert_eq!(again.layer.dag.normalized(), layer.dag.normalized(), "{file}: {printed}");
        }
        assert_eq!(json::from_json(&json::to_json(&layer)).as_ref(), Ok(&layer), "{file}");
    }
}

#[test]
fn shipped_formulas_are_clean_and_in_standard_layout() {
    let mut checked = 0;
    for path in formulas().into_iter().filter(|path| !path.starts_with(root().join("tests"))) {
        let source = Source::new(path.display().to_string(), std::fs::read_to_string(&path).unwrap());
        let analysis = compile(&source, &Overrides::none());
        assert_eq!(render(&source, &analysis.diagnostics, false), "");
        let (parsed, _) = parse(&source);
        assert_eq!(format(&source, &parsed.file), source.text, "{}", source.name);
        assert!(
            analysis.layers.iter().all(|compiled| !compiled.doc.is_empty()),
            "{} says where it is from",
            source.name
        );
        checked += 1;
    }
    assert!(checked >= 21);
    let prelude = normact::syntax::prelude_source();
    assert_eq!(format(&prelude, &parse(&prelude).0.file), prelude.text);
}

#[test]
fn every_formula_runs_as_the_evaluator_says() {
    for (file, layer) in layers() {
        for dims in [vec![5, 10], vec![3, 10, 4], vec![2, 10, 3, 5], vec![2, 10, 2, 3, 2]] {
            let mut rng = ChaCha8Rng::seed_from_u64(3);
            let shape = Shape::new(&dims).unwrap();
            let x: Vec<f64> = (0..shape.elements()).map(|_| rng.random_range(-2.0..2.0)).collect();
            let inputs = Inputs::initial(&layer.dag, shape, x);
            for mode in [Mode::Training, Mode::Evaluation] {
                let expected = evaluate(&layer.dag, &inputs, mode).unwrap().output();
                let found = on_cpu(&layer, &inputs, mode);
                assert_close(&format!("{file}: {} {dims:?} {mode:?}", layer.name), &expected, &found, 2e-5);
            }
        }
    }
}

fn on_cpu(layer: &Layer, inputs: &Inputs, mode: Mode) -> Vec<f64> {
    let device = Device::flex().autodiff();
    let module = normact::module_from_layer(layer, inputs.shape.channels(), &device).unwrap();
    let (module, device) = match mode {
        Mode::Training => (module, device),
        Mode::Evaluation => (module.valid(), Device::flex()),
    };
    fn forward<const D: usize>(module: &normact::NormAct, inputs: &Inputs, device: &Device) -> Vec<f64> {
        let x: Vec<f32> = inputs.x.iter().map(|&x| x as f32).collect();
        let data = TensorData::new(x, inputs.shape.dims().to_vec());
        module.forward(Tensor::<D>::from_data(data, device)).try_to_vec_as().unwrap()
    }
    match inputs.shape.dims().len() {
        2 => forward::<2>(&module, inputs, &device),
        3 => forward::<3>(&module, inputs, &device),
        4 => forward::<4>(&module, inputs, &device),
        _ => forward::<5>(&module, inputs, &device),
    }
}
