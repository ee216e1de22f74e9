//! Graphs as terms, node by node. This is notation: no value changes.

use normact_ir::{Dag, Op, Prim};

use crate::term::{Exponent, TermId, Terms};

pub(crate) fn unary(terms: &mut Terms, prim: Prim, a: TermId) -> TermId {
    let power = |value: f64, odd: bool| Exponent::new(value, odd).expect("these exponents are finite");
    match prim {
        Prim::Neg => terms.neg(a),
        Prim::Abs => terms.power(a, Exponent::ABS),
        Prim::Square => terms.power(a, power(2.0, false)),
        Prim::Sqrt => terms.power(a, power(0.5, true)),
        Prim::Sign => terms.power(a, Exponent::SIGN),
        Prim::Sigmoid | Prim::Tanh | Prim::Exp | Prim::Log | Prim::Erf => terms.unary(prim, a),
        Prim::Add | Prim::Mul | Prim::Div | Prim::Max => unreachable!("these have two operands"),
    }
}

pub(crate) fn binary(terms: &mut Terms, prim: Prim, a: TermId, b: TermId) -> TermId {
    match prim {
        Prim::Add => terms.sum(&[a, b]),
        Prim::Mul => terms.product(&[a, b]),
        Prim::Div => {
            let inverse = Exponent::new(-1.0, true).expect("finite");
            let b = terms.power(b, inverse);
            terms.product(&[a, b])
        }
        Prim::Max => terms.max(&[a, b]),
        Prim::Neg
        | Prim::Abs
        | Prim::Square
        | Prim::Sqrt
        | Prim::Sign
        | Prim::Sigmoid
        | Prim::Tanh
        | Prim::Exp
        | Prim::Log
        | Prim::Erf => unreachable!("these have one operand"),
    }
}

/// A whole graph; `None` if a chain becomes too long to be flat. `position` says where a parameter is in
/// the arena.
pub(crate) fn graph(terms: &mut Terms, dag: &Dag, position: impl Fn(usize) -> u32) -> Option<TermId> {
    let live = dag.live();
    let mut nodes: Vec<Option<TermId>> = vec![None; dag.len()];
    for id in dag.ids().filter(|id| live[id.index()]) {
        let operands: Vec<TermId> =
            dag.operands(id).iter().map(|operand| nodes[operand.index()]).collect::<Option<_>>()?;
        let term = match (dag.op(id), operands.as_slice()) {
            (Op::Input, _) => terms.input(),
            (Op::Constant(value), _) => terms.constant(value),
            (Op::Param(param), _) => terms.param(position(param.index())),
            (Op::Prim(prim), &[a]) => unary(terms, prim, a),
            (Op::Prim(prim), &[a, b]) => binary(terms, prim, a, b),
            (Op::Moment(op), &[a]) => terms.moment(op, a),
            (Op::Prim(_) | Op::Moment(_), _) => unreachable!("the graph checked the number of operands"),
        };
        nodes[id.index()] = Some(term);
        if terms.overflow() {
            return None;
        }
    }
    nodes[dag.output().index()]
}
