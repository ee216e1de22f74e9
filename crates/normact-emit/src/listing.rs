//! The graph as a list: one line a node, with the axes its value varies along.

use normact_ir::{Buffers, Extent, Layer, Op, Quantity, infer};

use crate::label::{label, settings};

/// One line for each node, dead ones marked, then the buffers.
pub fn listing(layer: &Layer) -> String {
    let dag = &layer.dag;
    let axes = infer(dag);
    let live = dag.live();
    let buffers = Buffers::of(dag);
    let rows: Vec<[String; 4]> = dag
        .ids()
        .map(|id| {
            let operands: String = dag.operands(id).iter().map(|operand| format!(" %{}", operand.index())).collect();
            let note = match dag.op(id) {
                Op::Input => "the input".to_owned(),
                Op::Param(param) => {
                    let param = dag.param(param);
                    let extent = match param.extent {
                        Extent::PerChannel => "per channel",
                        Extent::Scalar => "one value",
                    };
                    format!("trainable, {extent}, starts at {}", param.init)
                }
                Op::Moment(_) => match buffers.of_node(id) {
                    Some(buffer) => format!("{}, {} in evaluation", settings(dag, id), buffers.list()[buffer].name),
                    None => settings(dag, id),
                },
                Op::Constant(_) | Op::Prim(_) => String::new(),
            };
            let state = match (id == dag.output(), live[id.index()]) {
                (true, _) => "output",
                (false, false) => "dead",
                (false, true) => "",
            };
            let note: Vec<&str> = [state, &note].into_iter().filter(|part| !part.is_empty()).collect();
            let note = note.join("; ");
            [format!("%{}", id.index()), format!("{}{operands}", label(dag, id)), axes[id.index()].to_string(), note]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (number, operation, varies) = (width(0), width(1), width(2));
    let mut text = format!("layer {}: {} nodes\n", layer.name, dag.len());
    for [id, op, axes, note] in &rows {
        let line = format!("  {id:>number$}  {op:operation$}  {axes:varies$}  {note}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    for buffer in buffers.list() {
        let quantity = match buffer.quantity {
            Quantity::Mean => "mean",
            Quantity::MeanSquare => "mean square",
            Quantity::Variance => "variance",
        };
        let (over, operand, momentum) = (buffer.over, buffer.operand.index(), buffer.tracking.momentum);
        text.push_str(&format!(
            "  {}: running {quantity} of %{operand} over {over}, momentum {momentum}\n",
            buffer.name
        ));
    }
    text
}
