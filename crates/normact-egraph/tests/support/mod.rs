//! Graphs in other clothes, and inputs for them.

// Each test binary uses a part.
#![allow(dead_code)]

use std::collections::HashMap;

use normact_ir::{Builder, Dag, Inputs, Law, Mode, NodeId, Op, Operands, Param, ParamId, Prim, Shape, evaluate};
use rand::seq::SliceRandom;
use rand::{Rng, RngExt};

/// The same layer with operands of commutative operations swapped, chains put in brackets anew,
/// nodes renumbered, and parameters declared in another order under other names.
pub(crate) fn shuffled(dag: &Dag, rng: &mut impl Rng) -> Dag {
    let mut builder = Builder::new();
    let mut order: Vec<usize> = (0..dag.params().len()).collect();
    order.shuffle(rng);
    let mut params: Vec<Option<ParamId>> = vec![None; order.len()];
    for (position, &old) in order.iter().enumerate() {
        let param = Param { name: format!("p{position}"), ..dag.params()[old].clone() };
        params[old] = Some(builder.declare(param).unwrap());
    }
    let live = dag.live();
    let mut waiting: Vec<NodeId> = dag.ids().filter(|id| live[id.index()]).collect();
    let mut done: HashMap<NodeId, NodeId> = HashMap::new();
    while !waiting.is_empty() {
        let ready: Vec<usize> = (0..waiting.len())
            .filter(|&index| dag.operands(waiting[index]).iter().all(|operand| done.contains_key(&operand)))
            .collect();
        let id = waiting.swap_remove(ready[rng.random_range(0..ready.len())]);
        let new = match (dag.op(id), dag.operands(id)) {
            (Op::Prim(prim), Operands::Two(..)) if prim.obeys(Law::Commutative) && prim.obeys(Law::Associative) => {
                let mut chain = Vec::new();
                flatten(dag, id, prim, &mut chain);
                let mut chain: Vec<NodeId> = chain.into_iter().map(|operand| done[&operand]).collect();
                while chain.len() > 1 {
                    let a = chain.swap_remove(rng.random_range(0..chain.len()));
                    let b = chain.swap_remove(rng.random_range(0..chain.len()));
                    chain.push(builder.append(Op::Prim(prim), Operands::Two(a, b)).unwrap());
                }
                chain[0]
            }
            (Op::Param(param), _) => builder.append(Op::Param(params[param.index()].unwrap()), Operands::None).unwrap(),
            (op, Operands::None) => builder.append(op, Operands::None).unwrap(),
            (op, Operands::One(a)) => builder.append(op, Operands::One(done[&a])).unwrap(),
            (op, Operands::Two(a, b)) => builder.append(op, Operands::Two(done[&a], done[&b])).unwrap(),
        };
        done.insert(id, new);
    }
    builder.finish(done[&dag.output()])
}

/// The operands of a chain; a part that would make it long is an operand itself.
fn flatten(dag: &Dag, id: NodeId, prim: Prim, chain: &mut Vec<NodeId>) {
    for operand in dag.operands(id).iter() {
        if dag.op(operand) == Op::Prim(prim) && chain.len() < 32 {
            flatten(dag, operand, prim, chain);
        } else {
            chain.push(operand);
        }
    }
}

/// A random input of that shape; values of parameters are given by position.
pub(crate) fn inputs(dag: &Dag, shape: &[usize], params: Vec<Vec<f64>>, rng: &mut impl Rng) -> Inputs {
    let shape = Shape::new(shape).unwrap();
    let x = (0..shape.elements()).map(|_| rng.random_range(-1.8..1.8)).collect();
    Inputs { params, ..Inputs::initial(dag, shape, x) }
}

/// The output in training mode, if every value on the way is finite.
pub(crate) fn finite_output(dag: &Dag, inputs: &Inputs) -> Option<Vec<f64>> {
    let evaluation = evaluate(dag, inputs, Mode::Training).ok()?;
    let finite =
        dag.ids().filter_map(|id| evaluation.value(id)).all(|value| value.data().iter().all(|x| x.is_finite()));
    finite.then(|| evaluation.output())
}
