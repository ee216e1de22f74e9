//! Graphs that nobody would write: no panic, no endless work, no exhausted stack.

use normact_egraph::{Options, Relation, Status, Verdict, canonical, equiv, fingerprint, key};
use normact_ir::{
    Builder, Dag, Extent, IndexSet, Moment, MomentOp, NodeId, Op, Operands, Param, Prim, Running, Scalar, Tracking,
};

fn constant(builder: &mut Builder, value: f64) -> NodeId {
    builder.constant(Scalar::new(value).unwrap())
}

/// Everything that takes a graph of any kind.
fn survives(dag: &Dag) -> Status {
    let (found, status) = key(dag);
    assert_eq!(found, canonical(dag, Default::default()).key);
    fingerprint(dag);
    for relation in [Relation::Exact, Relation::AlmostEverywhere] {
        let options = Options { relation, attempts: 3, ..Options::default() };
        assert!(!matches!(equiv(dag, dag, &options), Verdict::Different(_)));
    }
    status
}

#[test]
fn deep_chains() {
    for prims in
        [&[Prim::Tanh][..], &[Prim::Abs, Prim::Sigmoid], &[Prim::Exp, Prim::Log], &[Prim::Sqrt, Prim::Neg, Prim::Erf]]
    {
        let mut builder = Builder::new();
        let mut node = builder.input();
        for step in 0..100_000 {
            node = builder.unary(prims[step % prims.len()], node);
        }
        survives(&builder.finish(node));
    }
    let mut builder = Builder::new();
    let x = builder.input();
    let mut node = x;
    for step in 0..20_000 {
        let function = builder.unary(Prim::Tanh, node);
        let prim = [Prim::Add, Prim::Mul, Prim::Max, Prim::Div][step % 4];
        node = builder.binary(prim, function, x);
    }
    survives(&builder.finish(node));
}

#[test]
fn deep_statistics() {
    let tracking = Tracking { momentum: Scalar::new(0.1).unwrap(), running: Running::Biased };
    let mut builder = Builder::new();
    let mut node = builder.input();
    for step in 0..2_000 {
        let over = [IndexSet::Instance, IndexSet::Channel, IndexSet::Batch][step % 3];
        let op = MomentOp::new(Moment::Rms, over, Scalar::new(1e-5).unwrap(), tracking);
        let statistic = builder.intern(Op::Moment(op), Operands::One(node));
        let x = builder.input();
        node = builder.binary(Prim::Add, statistic, x);
    }
    survives(&builder.finish(node));
}

#[test]
fn shared_values_that_double() {
    for prim in [Prim::Add, Prim::Mul, Prim::Max, Prim::Div] {
        let mut builder = Builder::new();
        let mut node = builder.input();
        for _ in 0..60 {
            node = builder.binary(prim, node, node);
        }
        survives(&builder.finish(node));
    }
    let mut builder = Builder::new();
    let x = builder.input();
    let mut node = builder.unary(Prim::Tanh, x);
    for _ in 0..60 {
        let shifted = builder.binary(Prim::Add, node, x);
        node = builder.binary(Prim::Mul, shifted, node);
    }
    survives(&builder.finish(node));
}

#[test]
fn products_of_many_sums() {
    let mut builder = Builder::new();
    let x = builder.input();
    let mut node = x;
    for step in 1..40 {
        let shift = constant(&mut builder, f64::from(step));
        let sum = builder.binary(Prim::Add, x, shift);
        node = builder.binary(Prim::Mul, node, sum);
    }
    let one = constant(&mut builder, 1.0);
    let sum = builder.binary(Prim::Add, node, one);
    survives(&builder.finish(sum));
}

#[test]
fn constants_at_the_edge_of_f64() {
    for (a, b) in [(1e308, 1e308), (1e-308, 1e-308), (-1e308, 2.0), (5e-324, 0.5), (f64::MAX, f64::MIN_POSITIVE)] {
        for first in [Prim::Add, Prim::Mul, Prim::Div, Prim::Max] {
            for second in [Prim::Add, Prim::Mul, Prim::Div] {
                for function in [Prim::Exp, Prim::Log, Prim::Tanh, Prim::Square, Prim::Sqrt] {
                    let mut builder = Builder::new();
                    let x = builder.input();
                    let (a, b) = (constant(&mut builder, a), constant(&mut builder, b));
                    let left = builder.binary(first, a, x);
                    let right = builder.binary(second, left, b);
                    let value = builder.unary(function, right);
                    let sum = builder.binary(Prim::Add, value, left);
                    survives(&builder.finish(sum));
                }
            }
        }
    }
}

#[test]
fn many_parameters() {
    for count in [30, 3_000] {
        let mut builder = Builder::new();
        let mut node = builder.input();
        for number in 0..count {
            let param = Param { name: format!("p{number}"), extent: Extent::PerChannel, init: Scalar::ONE };
            let id = builder.declare(param).unwrap();
            let param = builder.intern(Op::Param(id), Operands::None);
            node = builder.binary(if number % 2 == 0 { Prim::Add } else { Prim::Mul }, node, param);
        }
        assert_eq!(survives(&builder.finish(node)), Status::Budget);
    }
}
