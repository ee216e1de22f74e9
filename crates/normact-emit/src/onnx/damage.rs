//! Models that are well-formed messages and make no sense: wired at random, with sizes and types that do not
//! fit, or made to grow. Reading one is an error or a layer, at once, and never a panic.

use std::time::{Duration, Instant};

use expect_test::expect;
use normact_syntax::{Overrides, Source, compile};
use prost::Message;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::proto::{AttributeProto, Dimension, DimensionProto, FunctionProto, ModelProto, NodeProto};
use super::{emit, import_onnx};
use crate::Options;

const LAYERS: &str = "
layer grouped(x) { param v = 1 param a: scalar = 2
    x * sigmoid(v * x) / std[group(2)](x) * a + log(x) + max(rms[layer](v * x), mean[batch](x)) }
layer plain(x) { param gamma = 1
    sqrt(x) * gamma - mean[channel](x) / std[instance](x) }
";

const OPERATORS: &[&str] = &[
    "Abs",
    "Add",
    "BatchNormalization",
    "Cast",
    "Clip",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Div",
    "Elu",
    "Equal",
    "Expand",
    "Flatten",
    "Gather",
    "Gelu",
    "GlobalAveragePool",
    "GroupNormalization",
    "Identity",
    "InstanceNormalization",
    "LayerNormalization",
    "Log",
    "Max",
    "Mean",
    "Mul",
    "PRelu",
    "Pow",
    "ReduceMean",
    "ReduceSum",
    "Reshape",
    "Shape",
    "Size",
    "Slice",
    "Sqrt",
    "Squeeze",
    "Sub",
    "Sum",
    "Transpose",
    "Unsqueeze",
    "Where",
    "grouped",
    "plain",
];

const NUMBERS: &[i64] = &[i64::MIN, -2, -1, 0, 1, 2, 3, 4, 6, 64, 1 << 31, u32::MAX as i64, 1 << 40, i64::MAX];

#[test]
fn models_that_make_no_sense_are_errors() {
    let layers = compile(&Source::new("layers.nact", LAYERS), &Overrides::default()).layers;
    let options = Options { channels: Some(4), ..Options::default() };
    let models: Vec<ModelProto> = layers
        .iter()
        .flat_map(|layer| emit(&layer.layer, &options).expect("the layer can be emitted"))
        .map(|file| ModelProto::decode(&*file.bytes).expect("what was encoded can be decoded"))
        .collect();
    let mut layers = 0;
    for seed in 0..20_000 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut model = models[rng.random_range(0..models.len())].clone();
        for _ in 0..rng.random_range(1..5) {
            damage(&mut model, &mut rng);
        }
        let bytes = model.encode_to_vec();
        let start = Instant::now();
        let result = std::panic::catch_unwind(|| import_onnx(&bytes).is_ok());
        layers += usize::from(result.unwrap_or_else(|_| panic!("seed {seed}")));
        assert!(start.elapsed() < Duration::from_secs(5), "seed {seed} took {:?}", start.elapsed());
    }
    println!("{layers} of 20,000 damaged models are layers");
}

fn damage(model: &mut ModelProto, rng: &mut impl Rng) {
    let number = |rng: &mut dyn FnMut(usize) -> usize| NUMBERS[rng(NUMBERS.len())];
    let in_function = !model.functions.is_empty() && rng.random_bool(0.8);
    let graph = model.graph.as_mut().expect("a model has a graph");
    let choice = rng.random_range(0..12);
    let mut below = |len: usize| rng.random_range(0..len);
    match choice {
        0 => {
            let shape = graph.input[0].r#type.as_mut().and_then(|kind| kind.tensor_type.as_mut()?.shape.as_mut());
            let dims = &mut shape.expect("the input has a shape").dim;
            let dim = DimensionProto { value: Some(Dimension::Value(number(&mut below))) };
            match below(3) {
                0 => dims.push(dim),
                1 => drop(dims.pop()),
                _ => {
                    let axis = below(dims.len().max(1));
                    dims.insert(axis, dim);
                }
            }
            return;
        }
        1 if !graph.initializer.is_empty() => {
            let index = below(graph.initializer.len());
            let tensor = &mut graph.initializer[index];
            match below(4) {
                0 => tensor.data_type = number(&mut below) as i32,
                1 => tensor.dims.push(number(&mut below)),
                2 => tensor.raw_data = Some(vec![0xff; below(40)]),
                _ => tensor.dims.reverse(),
            }
            return;
        }
        _ => {}
    }
    let nodes = if in_function { &mut model.functions[0].node } else { &mut graph.node };
    if nodes.is_empty() {
        return;
    }
    let names: Vec<String> = nodes.iter().flat_map(|node| node.input.iter().chain(&node.output)).cloned().collect();
    let (first, second) = (below(nodes.len()), below(nodes.len()));
    let other = nodes[second].clone();
    let node = &mut nodes[first];
    match choice {
        2 => nodes.swap(first, second),
        3 => drop(nodes.remove(first)),
        4 | 5 => node.op_type = OPERATORS[below(OPERATORS.len())].to_owned(),
        6 => node.input.push(names[below(names.len())].clone()),
        7 => drop(node.input.pop()),
        8 => node.attribute.extend(other.attribute),
        9 => {
            for attribute in &mut node.attribute {
                attribute.ints.push(number(&mut below));
                attribute.i = Some(number(&mut below));
                if let Some(tensor) = &mut attribute.t {
                    let len = tensor.raw_data.as_ref().map_or(0, Vec::len) / 8;
                    tensor.raw_data = Some((0..len).flat_map(|_| number(&mut below).to_le_bytes()).collect());
                }
            }
        }
        _ => {
            let index = below(node.input.len().max(1));
            if let Some(input) = node.input.get_mut(index) {
                *input = names[below(names.len())].clone();
            }
        }
    }
}

fn node(operator: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|&input| input.to_owned()).collect(),
        output: vec![output.to_owned()],
        op_type: operator.to_owned(),
        ..NodeProto::default()
    }
}

fn model_of(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> ModelProto {
    let layers = compile(&Source::new("layer.nact", "layer id(x) { x }"), &Overrides::default()).layers;
    let options = Options { channels: Some(4), ..Options::default() };
    let file = emit(&layers[0].layer, &options).expect("the layer can be emitted").remove(0);
    let mut model = ModelProto::decode(&*file.bytes).expect("what was encoded can be decoded");
    model.graph.as_mut().expect("a model has a graph").node = nodes;
    model.functions = functions;
    model
}

fn errors_of(model: &ModelProto) -> String {
    import_onnx(&model.encode_to_vec()).expect_err("it makes no sense").to_string()
}

#[test]
fn values_that_use_themselves_are_errors() {
    let cycle = vec![node("Neg", &["b"], "a"), node("Neg", &["a"], "b"), node("Add", &["x", "b"], "y")];
    let expected = "node `a` (Neg): it uses `b`, which is not computed before";
    assert_eq!(errors_of(&model_of(cycle, vec![])), expected);
    let twice = vec![node("Neg", &["x"], "y"), node("Abs", &["x"], "y")];
    assert_eq!(errors_of(&model_of(twice, vec![])), "node `y` (Abs): it computes `y`, which is there already");
}

#[test]
fn models_that_grow_are_errors() {
    // A shape that doubles with every node.
    let double = |number: usize| {
        let (from, to) = (format!("s{number}"), format!("s{}", number + 1));
        NodeProto {
            attribute: vec![AttributeProto { name: "axis".to_owned(), i: Some(0), ..AttributeProto::default() }],
            ..node("Concat", &[&from, &from], &to)
        }
    };
    let shapes = [node("Shape", &["x"], "s0")].into_iter().chain((0..60).map(double)).collect();
    assert!(errors_of(&model_of(shapes, vec![])).contains("a shape of more than 16 axes"));
    // Functions that call the next one twice each, and one that calls itself.
    let call = |name: usize, output: &str, input: &str| NodeProto {
        domain: "d".to_owned(),
        ..node(&format!("f{name}"), &[input], output)
    };
    let function = |name: usize, next: usize| FunctionProto {
        name: format!("f{name}"),
        domain: "d".to_owned(),
        input: vec!["x".to_owned()],
        output: vec!["y".to_owned()],
        node: vec![call(next, "a", "x"), call(next, "b", "a"), node("Neg", &["b"], "y")],
        opset_import: vec![super::proto::OperatorSetIdProto { domain: String::new(), version: 9 }],
        ..FunctionProto::default()
    };
    let many = (0..15).map(|name| function(name, name + 1)).collect();
    assert!(errors_of(&model_of(vec![call(0, "y", "x")], many)).contains("more than 10000 nodes"));
    let itself = errors_of(&model_of(vec![call(0, "y", "x")], vec![function(0, 0)]));
    assert!(itself.contains("call each other more than 16 deep"), "{itself}");
}

#[test]
fn everything_that_no_layer_has_is_reported_at_once() {
    let nodes = vec![
        node("Softmax", &["x"], "weights"),
        node("Conv", &["x", "weights"], "conv"),
        node("Sqrt", &["x"], "root"),
        node("Neg", &["root"], "unknown"),
        NodeProto { name: "last_log".to_owned(), ..node("Log", &["unknown", "x"], "log") },
        NodeProto { domain: "com.example".to_owned(), ..node("Norm", &["x"], "norm") },
        NodeProto {
            attribute: vec![AttributeProto { name: "axes".to_owned(), ints: vec![2], ..AttributeProto::default() }],
            ..node("ReduceMean", &["x"], "rows")
        },
        node("Log", &["rows"], "y"),
    ];
    expect![[r#"
        node `weights` (Softmax): the language has no operation like it
        node `conv` (Conv): the language has no operation like it
        node `root` (Sqrt): its operand may be negative, where the language's `sqrt` is odd and not undefined
        node `norm` (com.example.Norm): operators of the domain `com.example` are not read
        node `rows` (ReduceMean): it averages over some of the spatial axes, and no index set does"#]]
    .assert_eq(&errors_of(&model_of(nodes, vec![])));
}
