//! A model as text, one line a value, for golden files; and the golden file of each built-in layer.

use std::fmt::Write as _;

use expect_test::expect_file;
use normact_syntax::{Overrides, Source, compile};
use prost::Message;

use super::emit;
use super::proto::{Dimension, ModelProto, NodeProto, TensorProto, ValueInfoProto, data_type};
use crate::Options;

/// Channels that groups of 32 divide, two to a group.
const CHANNELS: usize = 64;

#[test]
fn built_in_layers_become_these_models() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../grammar/layers");
    for file in std::fs::read_dir(folder).expect("the built-in layers are in grammar/layers") {
        let path = file.expect("a folder can be listed").path();
        let text = std::fs::read_to_string(&path).expect("a layer is a text file");
        let analysis = compile(&Source::new(path.display().to_string(), &text), &Overrides::default());
        for layer in analysis.layers.iter().map(|compiled| &compiled.layer) {
            let options = Options { source: Some(text.clone()), channels: Some(CHANNELS), ..Options::default() };
            let files = emit(layer, &options).expect("a built-in layer can be emitted");
            let models: Vec<ModelProto> = files
                .iter()
                .map(|file| ModelProto::decode(&*file.bytes).expect("what was encoded can be decoded"))
                .collect();
            let graph = models[0].graph.as_ref().expect("a model has a graph");
            assert_eq!(graph.node, models[1].functions[0].node, "one body serves both");
            let models: Vec<String> = files
                .iter()
                .zip(&models)
                .map(|(file, model)| format!("== {}\n{}", file.name, listing(model)))
                .collect();
            let golden = format!("{}/tests/golden/onnx/{}.txt", env!("CARGO_MANIFEST_DIR"), layer.name);
            expect_file![golden].assert_eq(&models.join("\n"));
        }
    }
}

fn listing(model: &ModelProto) -> String {
    let mut text = format!("format {}", model.ir_version);
    for opset in &model.opset_import {
        let domain = if opset.domain.is_empty() { "operators" } else { &opset.domain };
        let _ = write!(text, ", {domain} {}", opset.version);
    }
    text.push('\n');
    let graph = model.graph.as_ref().expect("a model has a graph");
    for line in graph.doc_string.lines() {
        let _ = writeln!(text, "{}", format!("| {line}").trim_end());
    }
    graph.input.iter().for_each(|value| text.push_str(&format!("input {}\n", typed(value))));
    for tensor in &graph.initializer {
        let _ = writeln!(text, "{} = {} ({})", tensor.name, elements(tensor), tensor.doc_string);
    }
    nodes(&graph.node, &mut text);
    graph.output.iter().for_each(|value| text.push_str(&format!("output {}\n", typed(value))));
    for function in &model.functions {
        let _ = writeln!(text, "function {}.{}({})", function.domain, function.name, function.input.join(", "));
        let _ = writeln!(text, "    the same {} nodes", function.node.len());
        let _ = writeln!(text, "    return {}", function.output.join(", "));
    }
    text
}

fn typed(value: &ValueInfoProto) -> String {
    let tensor_type = value.r#type.as_ref().and_then(|r#type| r#type.tensor_type.as_ref());
    let shape = tensor_type.and_then(|tensor| tensor.shape.as_ref()).expect("a graph's values have shapes");
    let sizes = shape.dim.iter().map(|size| match size.value.as_ref().expect("sizes are known or named") {
        Dimension::Value(size) => size.to_string(),
        Dimension::Param(name) => name.clone(),
    });
    format!("{}: float[{}]", value.name, sizes.collect::<Vec<_>>().join(", "))
}

fn nodes(nodes: &[NodeProto], text: &mut String) {
    for node in nodes {
        let attributes = node.attribute.iter().map(|attribute| {
            let value = match (&attribute.t, attribute.i) {
                (Some(tensor), _) => elements(tensor),
                (_, Some(number)) => number.to_string(),
                _ => format!("{:?}", attribute.ints),
            };
            format!("{}={value}", attribute.name)
        });
        let arguments: Vec<String> = node.input.iter().cloned().chain(attributes).collect();
        let domain = if node.domain.is_empty() { String::new() } else { format!("{}.", node.domain) };
        let (output, operator) = (node.output.join(", "), &node.op_type);
        let _ = writeln!(text, "{output} = {domain}{operator}({})", arguments.join(", "));
    }
}

fn elements(tensor: &TensorProto) -> String {
    let raw = tensor.raw_data.as_deref().expect("elements are written as bytes");
    if tensor.data_type == data_type::INT64 {
        let sizes = raw.chunks_exact(8).map(|bytes| i64::from_le_bytes(bytes.try_into().expect("eight bytes")));
        return format!("{:?}", sizes.collect::<Vec<_>>());
    }
    let values: Vec<f32> =
        raw.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes"))).collect();
    match tensor.dims.is_empty() {
        true => values[0].to_string(),
        false => format!("float{:?} of {}", tensor.dims, values[0]),
    }
}
