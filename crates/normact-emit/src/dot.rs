//! The graph for Graphviz: the input, statistics, parameters and the rest told apart.

use normact_ir::{Layer, Op};

use crate::label::{label, settings};

/// A `digraph` that `dot -Tsvg` draws.
pub fn dot(layer: &Layer) -> String {
    let dag = &layer.dag;
    let live = dag.live();
    let mut text = format!("digraph \"{}\" {{\n", layer.name);
    text.push_str("  rankdir=BT;\n  node [fontname=\"Helvetica\", fontsize=11, style=filled, fillcolor=white];\n");
    text.push_str("  edge [fontname=\"Helvetica\", fontsize=9, color=\"#555555\"];\n");
    for id in dag.ids() {
        let (shape, color) = match dag.op(id) {
            Op::Input => ("box", "#cfe3ff"),
            Op::Param(_) => ("ellipse", "#ffe2b8"),
            Op::Constant(_) => ("plaintext", "#ffffff"),
            Op::Moment(_) => ("box", "#d8f0d2"),
            Op::Prim(_) => ("ellipse", "#ffffff"),
        };
        let settings = settings(dag, id);
        let name = label(dag, id);
        let name = if settings.is_empty() { name } else { format!("{name}\\n{settings}") };
        let dashed = if live[id.index()] { "" } else { ", style=\"filled,dashed\"" };
        text.push_str(&format!(
            "  n{} [label=\"{name}\", shape={shape}, fillcolor=\"{color}\"{dashed}];\n",
            id.index()
        ));
        let operands: Vec<_> = dag.operands(id).iter().collect();
        for (number, operand) in operands.iter().enumerate() {
            // The sides of a division cannot be told apart by position in a drawing.
            let side = if operands.len() == 2 { format!(" [label=\"{}\"]", ["a", "b"][number]) } else { String::new() };
            text.push_str(&format!("  n{} -> n{}{side};\n", operand.index(), id.index()));
        }
    }
    text.push_str("  y [label=\"y\", shape=box, fillcolor=\"#cfe3ff\"];\n");
    text.push_str(&format!("  n{} -> y;\n}}\n", dag.output().index()));
    text
}
