//! The printed gradient is text of the language, and what it says is what the evaluator says.
//!
//! A random graph can be so steep that rounding decides its gradient: a logarithm of a variance of a constant,
//! an exponential of an exponential. Such elements are found by moving the input in its 12th digit, and are not
//! compared; the tests say how many are.

use expect_test::expect;
use normact_ir::random::Space;
use normact_ir::{Inputs, Layer, Mode, Shape, evaluate, stated};
use normact_plan::{gradient_text, joint};
use normact_syntax::{Compiled, Overrides, Source, compile, format, parse, print, render};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A layer with its gradient, as `normact show --as gradient` prints them.
fn whole(layer: &Layer) -> String {
    let gradient = gradient_text(&joint(&layer.dag, Mode::Training, None), &layer.name, &layer.dag);
    laid_out(&format!("{}\n{gradient}", print(layer)))
}

fn laid_out(text: &str) -> String {
    let source = Source::new("printed", text);
    let (parsed, diagnostics) = parse(&source);
    assert!(diagnostics.is_empty(), "{text}\n{}", render(&source, &diagnostics, false));
    format(&source, &parsed.file)
}

/// The layer of a printed text, which has a gradient and no errors.
fn read_back(text: &str) -> Compiled {
    let source = Source::new("printed", text);
    let mut analysis = compile(&source, &Overrides::none());
    assert!(!analysis.has_errors(), "{text}\n{}", render(&source, &analysis.diagnostics, false));
    let not_stated = analysis.diagnostics.iter().any(|diagnostic| diagnostic.code.as_str() == "W0411");
    assert!(!not_stated, "everything is stated:\n{text}");
    analysis.layers.remove(0)
}

fn built_in_layers() -> Vec<Layer> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../grammar/layers");
    let files = std::fs::read_dir(folder).expect("the built-in layers are in grammar/layers");
    let layers = files.flat_map(|file| {
        let path = file.expect("a folder can be listed").path();
        let text = std::fs::read_to_string(&path).expect("a layer is a text file");
        compile(&Source::new(path.display().to_string(), &text), &Overrides::default()).layers
    });
    layers.map(|layer| layer.layer).collect()
}

fn layer(text: &str) -> Layer {
    let mut layers = compile(&Source::new("l.nact", text), &Overrides::none()).layers;
    layers.remove(0).layer
}

struct Case {
    inputs: Inputs,
    dy: Vec<f64>,
}

impl Case {
    fn draw(layer: &Layer, dims: &[usize], seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut numbers = |len: usize| -> Vec<f64> { (0..len).map(|_| rng.random_range(-2.0..2.0)).collect() };
        let shape = Shape::new(dims).expect("the sizes are positive");
        let mut inputs = Inputs::initial(&layer.dag, shape.clone(), numbers(shape.elements()));
        inputs.params.iter_mut().for_each(|values| *values = numbers(values.len()));
        Self { inputs, dy: numbers(shape.elements()) }
    }

    /// The gradients of the chain rule: of the input, then of the parameters.
    fn expected(&self, layer: &Layer, inputs: &Inputs) -> Vec<Vec<f64>> {
        let evaluation = evaluate(&layer.dag, inputs, Mode::Training).expect("the inputs fit");
        let gradients = evaluation.gradients(&self.dy);
        std::iter::once(gradients.x).chain(gradients.params).collect()
    }

    fn jittered(&self, seed: u64) -> Inputs {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut inputs = self.inputs.clone();
        inputs.x.iter_mut().for_each(|x| *x *= 1.0 + 1e-12 * rng.random_range(-1.0..1.0));
        inputs
    }

    /// Panics where the stated gradient differs from that of the layer; the share of elements that could be
    /// compared. An element is steady where a change in the input's 12th digit moves it by less than a hundredth
    /// of what is allowed.
    fn compare(&self, layer: &Layer, read: &Compiled, about: &str) -> f64 {
        let expected = self.expected(layer, &self.inputs);
        let near: Vec<_> = (1..4).map(|seed| self.expected(layer, &self.jittered(seed))).collect();
        let gradient = &read.gradient.as_ref().expect("a gradient is stated").gradient;
        let found = gradient.evaluate(&self.inputs, &self.dy).expect("the inputs fit");
        let found: Vec<Vec<f64>> =
            std::iter::once(found.x).chain(found.params).map(|values| values.expect("everything is stated")).collect();
        let (mut total, mut steady) = (0, 0);
        for (list, (expected, found)) in expected.iter().zip(&found).enumerate() {
            assert_eq!(expected.len(), found.len());
            let largest = expected.iter().filter(|x| x.is_finite()).fold(1.0, |a: f64, b| a.max(b.abs()));
            for (index, (&expected, &found)) in expected.iter().zip(found).enumerate() {
                total += 1;
                let moved = |lists: &Vec<Vec<f64>>| (lists[list][index] - expected).abs();
                if !near.iter().all(|lists| moved(lists) < 1e-11 * largest) {
                    continue;
                }
                steady += 1;
                assert!((found - expected).abs() <= 1e-9 * largest, "{about}: {list} {index}: {found}, not {expected}");
            }
        }
        f64::from(steady) / f64::from(total.max(1))
    }
}

const SHAPES: [&[usize]; 8] =
    [&[3, 6, 4], &[4, 4], &[2, 6, 3, 2], &[1, 8, 5], &[5, 2, 1], &[2, 4, 2, 3, 2], &[1, 6], &[3, 12, 2, 2]];

#[test]
fn built_in_layers_print_their_gradient_as_text() {
    let layers = built_in_layers();
    assert!(layers.len() >= 19, "{}", layers.len());
    for layer in layers {
        let text = whole(&layer);
        assert_eq!(laid_out(&text), text);
        let read = read_back(&text);
        assert_eq!(read.layer.dag.normalized(), layer.dag.normalized(), "{text}");
        // 7 and 37 channels have other numbers of groups than the layer asks for.
        for (seed, dims) in SHAPES.iter().chain(&[&[2, 7, 3][..], &[2, 37], &[1, 64, 2]]).enumerate() {
            // Some layers are steep where a parameter is near zero; the initial ones are not.
            let steady = Case::draw(&layer, dims, seed as u64).compare(&layer, &read, &text);
            assert!(steady > 0.5, "{} {dims:?}: only {steady:.2} could be compared", layer.name);
        }
    }
}

#[test]
fn random_graphs_print_their_gradient_as_text() {
    for (space, name) in [(Space::language(), "language"), (Space::evonorm(), "evonorm")] {
        // A graph that ignores its input is none of the language's layers.
        let layers = (0..).map(|seed| (seed, space.draw(&mut ChaCha8Rng::seed_from_u64(seed))));
        let layers = layers.filter(|(_, layer)| layer.dag.depends_on_input()[layer.dag.output().index()]);
        let mut steady = 0.0;
        for (number, (seed, layer)) in layers.take(300).enumerate() {
            println!("{name} seed {seed}");
            let text = whole(&layer);
            assert_eq!(laid_out(&text), text);
            let read = read_back(&text);
            steady += Case::draw(&layer, SHAPES[number % SHAPES.len()], seed).compare(&layer, &read, &text) / 300.0;
        }
        println!("{name}: {steady:.3} of the elements were compared");
        assert!(steady > 0.75, "{name}: only {steady:.2} of the elements could be compared");
    }
}

/// Groups that differ from the layer's setting, groups in sums of groups, and params without channels.
#[test]
fn groups_print_their_gradient_as_text() {
    for body in [
        "x / std[group](x) / std[group](x, groups = 2) * mean[group(3)](x)",
        "x * std[group](x) * mean[channel](x)",
        "x + std[group](x) * mean[batch](std[group(2)](x))",
        "v * x / std[group](x) + v * w",
        "x + mean[layer](x * std[group](x)) * mean[all](x / rms[group(2)](x))",
        "v * x * mean[group](x) + w * mean[group(2)](x + w)",
        "x * mean[group](w) + mean[group(2)](mean[group](w * x))",
        "mean[batch](mean[group](x) * x) * w + tanh(mean[group](v * x))",
    ] {
        let layer = layer(&format!("layer l(x, groups = 4) {{ param v: scalar = 1\nparam w = 1\n{body} }}"));
        let text = whole(&layer);
        let read = read_back(&text);
        for dims in [&[3, 12, 4][..], &[2, 6], &[1, 6, 3, 2]] {
            let steady = Case::draw(&layer, dims, 5).compare(&layer, &read, &text);
            assert!(steady > 0.9, "{body} {dims:?}: only {steady:.2} could be compared");
        }
    }
}

#[test]
fn names_of_the_layer_stay_what_they_are() {
    let text = whole(&layer(
        "layer gradient(h, groups = 4) { param x = 1\nparam dy = 1\nparam t1: scalar = 1\nparam y = 1\nparam sum1 = 1\n\
         tanh(h * x) * t1 * std[group](h + sum1) + dy * std[group](h, groups = 2) + y }",
    ));
    assert_eq!(laid_out(&text), text);
    read_back(&text);
    expect![[r#"
        layer gradient(x1, groups = 4, eps = 1e-5) {
            param x  = 1
            param dy = 1
            param t1: scalar = 1
            param y    = 1
            param sum1 = 1

            tanh(x1 * x) * t1 * std[group](x1 + sum1) + dy * std[group](x1, groups = 2) + y
        }

        // What a backward pass computes for the upstream gradient dy1.
        gradient gradient(x1, dy1) {
            let t2 = tanh(x1 * x)
            let t3 = x1 + sum1
            let var1 = var[group](t3)
            let t4 = sqrt(var1 + 1e-5)
            let t5 = t1 * t4
            let var2 = var[group](x1, groups = 2)
            let t6 = sqrt(1e-5 + var2)
            let sum2 = sum[instance](dy1)
            let sum3 = sum[group](dy * sum2, groups = 2)
            let mean1 = mean[group](x1, groups = 2)
            let t7 = t2 * dy1
            let sum4 = sum[group](t7)
            let sum5 = sum[all](t4 * sum4)
            let mean2 = mean[group](t3)
            let t8 = t3 - mean2
            let mean3 = mean[group](t7)
            let t9 = 0.5 / t4 * (t1 * mean3)
            let sum6 = sum[instance](t8)
            let sum7 = sum[batch](t9 * sum6)
            let t10 = dy1 * (1 - t2 * t2)
            let sum8 = sum[instance](x1 * t10)

            dx1   = (x1 - mean1) * (2 * (sum3 * (0.5 / t6) / count[group](x1, groups = 2)))
                + t8 * (2 * t9)
                + t10 * (x * t5)
            dx    = sum[batch](t5 * sum8)
            ddy   = sum[batch](t6 * sum2)
            dt1   = sum5 * count[instance](x1) / count[group](x1)
            dy    = sum[batch](dy1)
            dsum1 = 2 * sum7
        }
    "#]]
    .assert_eq(&text);
}

#[test]
fn no_line_of_a_gradient_can_change_unnoticed() {
    let mut changed = 0;
    for layer in built_in_layers() {
        let text = whole(&layer);
        let (before, gradient) = text.split_once("gradient ").expect("a gradient is printed");
        let case = Case::draw(&layer, &[3, 6, 4], 1);
        let worst = |text: &str| {
            let read = read_back(text);
            let stated = &read.gradient.as_ref().expect("a gradient is stated").gradient;
            let checks = stated::check(&layer.dag, stated, &case.inputs, &case.dy).expect("the inputs fit");
            checks.into_iter().map(|check| check.expect("everything is stated").worst).fold(0.0, f64::max)
        };
        assert!(worst(&text) <= 1e-9, "{text}");
        let lines: Vec<&str> = gradient.lines().collect();
        for (number, line) in lines.iter().enumerate() {
            let Some((head, value)) = line.split_once(" = ").filter(|(_, value)| *value != "0") else { continue };
            // A value goes on in lines that begin with an operator.
            let more = lines[number + 1..].iter().take_while(|line| line.starts_with("        ")).count();
            let value = [&[value], &lines[number + 1..][..more]].concat().join(" ");
            let wrong = format!("{head} = ({value}) * 1.001");
            let lines = [&lines[..number], &[&wrong], &lines[number + 1 + more..]].concat();
            let text = format!("{before}gradient {}\n", lines.join("\n"));
            assert!(worst(&text) > 1e-9, "{text}");
            changed += 1;
        }
    }
    println!("{changed} changed lines were found out");
    assert!(changed > 200, "{changed}");
}
