//! What a node is called, in a few characters.

use normact_ir::{Dag, Groups, IndexSet, NodeId, Op};

/// `x`, `gamma`, `0.5`, `mul`, `std[group]`.
pub(crate) fn label(dag: &Dag, id: NodeId) -> String {
    match dag.op(id) {
        Op::Input => "x".to_owned(),
        Op::Constant(value) => value.to_string(),
        Op::Param(param) => dag.param(param).name.clone(),
        Op::Prim(prim) => prim.name().to_owned(),
        Op::Moment(op) => format!("{}[{}]", op.moment().name(), op.over()),
    }
}

/// The settings of a moment: `groups = 32, eps = 1e-5`.
pub(crate) fn settings(dag: &Dag, id: NodeId) -> String {
    let Op::Moment(op) = dag.op(id) else { return String::new() };
    let groups = match op.over() {
        IndexSet::Group(Groups::AtMost(count)) => Some(format!("groups = {count}")),
        _ => None,
    };
    let eps = op.moment().is_root().then(|| format!("eps = {}", op.eps()));
    let momentum = op.tracking().map(|tracking| format!("momentum = {}", tracking.momentum));
    groups.into_iter().chain(eps).chain(momentum).collect::<Vec<_>>().join(", ")
}
