//! What must hold of every layer, wherever it came from. A failed assertion is a bug found.

use normact_ir::{Buffers, Inputs, Layer, Mode, Shape, check, evaluate, findings, infer, json, ranges};
use normact_syntax::{Analysis, Code, MAX_BYTES, Overrides, Source, compile, print, record, render};

/// The largest graph that is evaluated; an evaluation keeps an array per node.
const MAX_EVALUATED: usize = 64;

/// Compiles a text and shows everything there is to say about it, as people and machines read it.
pub fn analyse(text: &str) -> (Source, Analysis) {
    let source = Source::new("fuzz.nact", text);
    let analysis = compile(&source, &Overrides::none());
    for color in [false, true] {
        render(&source, &analysis.diagnostics, color);
    }
    for diagnostic in &analysis.diagnostics {
        record(&source, diagnostic);
    }
    (source, analysis)
}

/// Everything below.
pub fn holds(layer: &Layer) {
    printed_reads_back(layer);
    json_reads_back(layer);
    can_be_studied(layer);
}

/// The printed formula is the same function. It is refused for ignoring its input, which is the
/// graph's fault, or for being too long to be read, and for nothing else.
fn printed_reads_back(layer: &Layer) {
    let text = print(layer);
    let (source, analysis) = analyse(&text);
    if text.len() > MAX_BYTES {
        assert!(analysis.has_errors(), "a text of {} bytes was read", text.len());
        return;
    }
    let unexpected = analysis.diagnostics.iter().any(|d| d.is_error() && d.code != Code::IgnoresInput);
    let messages = || render(&source, &analysis.diagnostics, false);
    assert!(!unexpected, "the printed layer is refused:\n{text}\n{}", messages());
    assert_eq!(analysis.layers.len(), 1, "{text}\n{}", messages());
    let read = &analysis.layers[0].layer;
    assert_eq!(read.name, layer.name, "{text}");
    let same = read.dag.normalized() == layer.dag.normalized();
    assert!(same, "the printed layer is another:\n{text}\n{}\n{}", json::to_json(layer), json::to_json(read));
}

fn json_reads_back(layer: &Layer) {
    for text in [json::to_json(layer), json::to_json_pretty(layer)] {
        assert_eq!(json::from_json(&text).as_ref(), Ok(layer), "{text}");
    }
}

/// Shapes, ranges, findings, buffers, values and gradients come out without a panic.
fn can_be_studied(layer: &Layer) {
    let dag = &layer.dag;
    assert_eq!(infer(dag).len(), dag.len());
    assert_eq!(ranges(dag).len(), dag.len());
    findings(dag);
    Buffers::of(dag);
    assert_eq!(dag.normalized().normalized(), dag.normalized());
    for dims in [&[2, 4, 3][..], &[3, 6]] {
        let shape = Shape::new(dims).expect("the sizes are positive");
        let (errors, notes) = check(dag, &shape);
        if dag.len() > MAX_EVALUATED {
            continue;
        }
        let x: Vec<f64> = (0..shape.elements()).map(|index| (index as f64 * 0.7).sin() * 2.0).collect();
        let inputs = Inputs::initial(dag, shape.clone(), x);
        for mode in [Mode::Training, Mode::Evaluation] {
            let evaluation = match evaluate(dag, &inputs, mode) {
                Ok(evaluation) => evaluation,
                Err(error) => {
                    assert!(!errors.is_empty(), "the check saw nothing, but: {error}");
                    continue;
                }
            };
            assert!(errors.is_empty(), "evaluated against {errors:?}, {notes:?}");
            assert_eq!(evaluation.output().len(), shape.elements());
            let gradients = evaluation.gradients(&vec![1.0; shape.elements()]);
            assert_eq!(gradients.x.len(), shape.elements());
        }
    }
}
