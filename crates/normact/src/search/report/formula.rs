//! Formulas of layers, as people read them.

use normact_egraph::{SimplifyBudget, simplify};
use normact_ir::{Builder, Dag, DagError, Layer, Op, Operands};

/// The cheapest equal layer, with the parameters it uses.
pub(super) fn simplified(layer: &Layer, name: &str) -> Layer {
    tidied(simplify(&layer.dag, &SimplifyBudget::default()).dag, name)
}

/// The layer as it is, without what its result does not use.
pub(super) fn tidied(dag: Dag, name: &str) -> Layer {
    let dag = with_used_params(&dag).unwrap_or(dag);
    Layer { name: name.to_owned(), dag }
}

fn with_used_params(dag: &Dag) -> Result<Dag, DagError> {
    let live = dag.live();
    let mut builder = Builder::new();
    // In the order of declaration, so that the formula lists them as before.
    let mut params = vec![];
    for id in dag.param_ids() {
        let is_used = dag.ids().any(|node| live[node.index()] && dag.op(node) == Op::Param(id));
        params.push(if is_used { Some(builder.declare(dag.param(id).clone())?) } else { None });
    }
    let mut copies = vec![None; dag.len()];
    for id in dag.ids().filter(|id| live[id.index()]) {
        let op = match dag.op(id) {
            Op::Param(param) => Op::Param(params[param.index()].unwrap_or(param)),
            op @ (Op::Input | Op::Constant(_) | Op::Prim(_) | Op::Moment(_)) => op,
        };
        let operands: Vec<_> = dag.operands(id).iter().filter_map(|operand| copies[operand.index()]).collect();
        let operands = Operands::from_slice(&operands).unwrap_or(Operands::None);
        copies[id.index()] = Some(builder.append(op, operands)?);
    }
    let output = dag.output();
    Ok(builder.finish(copies[output.index()].unwrap_or(output)))
}

/// What a layer computes, on one line: its formula without head and parameters.
pub(super) fn one_line(layer: &Layer) -> String {
    let text = normact_syntax::print(layer);
    let lines = text.lines().skip(1).map(str::trim);
    let body: Vec<&str> =
        lines.filter(|line| !line.is_empty() && *line != "}" && !line.starts_with("param ")).collect();
    body.join("; ")
}
