//! The drawing for Graphviz.

use normact_ir::Layer;

use crate::drawing::{BLUE, Drawing, GRAY, Role};

/// A `digraph` that `dot -Tsvg` draws: statistics are boxes, parameters hexagons, constants dashed, the main
/// path from the input to the result thick. A parameter or constant is drawn at each use; `÷` leads to a
/// divisor, `−` to what is subtracted.
pub fn dot(layer: &Layer) -> String {
    let drawing = Drawing::new(layer);
    let mut text = format!("digraph {} {{\n", quoted(&drawing.name));
    text.push_str("  graph [rankdir=TB, bgcolor=white, nodesep=0.3, ranksep=0.4];\n");
    text.push_str("  node [fontname=\"Helvetica\", fontsize=11, height=0.3, margin=\"0.12,0.06\"];\n");
    text.push_str(&format!("  edge [fontname=\"Helvetica\", fontsize=12, color=\"{GRAY}\", arrowsize=0.7];\n"));
    for node in &drawing.nodes {
        let (fill, outline) = node.role.colors();
        let label = quoted(&node.lines.join("\n"));
        let note = quoted(&node.note);
        let shape = shape(node.role);
        text.push_str(&format!(
            "  {} [label={label}, {shape}, fillcolor=\"{fill}\", color=\"{outline}\", tooltip={note}];\n",
            node.key
        ));
        for link in &node.links {
            let sign = (!link.sign.is_empty()).then(|| format!("label={}", quoted(link.sign)));
            let main = link.main.then(|| format!("color=\"{BLUE}\", penwidth=2.4, weight=8"));
            let attributes: Vec<String> = sign.into_iter().chain(main).collect();
            let attributes =
                if attributes.is_empty() { String::new() } else { format!(" [{}]", attributes.join(", ")) };
            text.push_str(&format!("  {} -> {}{attributes};\n", drawing.nodes[link.from].key, node.key));
        }
    }
    text.push_str("}\n");
    text
}

fn shape(role: Role) -> &'static str {
    match role {
        Role::End => "shape=box, style=\"filled,rounded\"",
        Role::Statistic => "shape=box, style=filled",
        Role::Param => "shape=hexagon, style=filled",
        Role::Constant => "shape=box, style=\"filled,dashed\"",
        Role::Operation => "shape=circle, style=filled, margin=0.02",
    }
}

/// A string of the DOT language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
