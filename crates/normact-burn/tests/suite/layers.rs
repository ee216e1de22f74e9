//! Layers for tests, written with the graph builder.

use normact_ir::{
    Builder, Extent, IndexSet, Layer, Moment, MomentOp, NodeId, Op, Operands, Param, Prim, Running, Scalar, Tracking,
};

/// The layer whose result `build` returns.
pub(crate) fn layer(name: &str, build: impl FnOnce(&mut Builder) -> NodeId) -> Layer {
    let mut builder = Builder::new();
    let output = build(&mut builder);
    Layer { name: name.to_owned(), dag: builder.finish(output) }
}

/// A new parameter.
pub(crate) fn param(builder: &mut Builder, name: &str, extent: Extent, init: f64) -> NodeId {
    let param = Param { name: name.to_owned(), extent, init: scalar(init) };
    let param = builder.declare(param).expect("the names of a test are distinct");
    builder.intern(Op::Param(param), Operands::None)
}

/// A moment with momentum 0.1 and biased running statistics.
pub(crate) fn moment(builder: &mut Builder, moment: Moment, over: IndexSet, eps: f64, x: NodeId) -> NodeId {
    tracked_moment(builder, moment, over, eps, Running::Biased, x)
}

/// A moment with momentum 0.1.
pub(crate) fn tracked_moment(
    builder: &mut Builder,
    moment: Moment,
    over: IndexSet,
    eps: f64,
    running: Running,
    x: NodeId,
) -> NodeId {
    let tracking = Tracking { momentum: scalar(0.1), running };
    builder.intern(Op::Moment(MomentOp::new(moment, over, scalar(eps), tracking)), Operands::One(x))
}

/// `(x - mean[over](x)) / std[over](x)`
pub(crate) fn normalized(builder: &mut Builder, over: IndexSet, eps: f64, x: NodeId) -> NodeId {
    let mean = moment(builder, Moment::Mean, over, 0.0, x);
    let std = moment(builder, Moment::Std, over, eps, x);
    let negative = builder.unary(Prim::Neg, mean);
    let centred = builder.binary(Prim::Add, x, negative);
    builder.binary(Prim::Div, centred, std)
}

/// EvoNorm-B0, Liu et al. 2020: `x / max(std[batch](x), v * x + std[instance](x)) * gamma + beta`
pub(crate) fn evonorm_b0() -> Layer {
    layer("evonorm_b0", |builder| {
        let x = builder.input();
        let v = param(builder, "v", Extent::PerChannel, 1.0);
        let batch = moment(builder, Moment::Std, IndexSet::Batch, 1e-5, x);
        let instance = moment(builder, Moment::Std, IndexSet::Instance, 1e-5, x);
        let scaled = builder.binary(Prim::Mul, v, x);
        let sum = builder.binary(Prim::Add, scaled, instance);
        let divisor = builder.binary(Prim::Max, batch, sum);
        let quotient = builder.binary(Prim::Div, x, divisor);
        affine(builder, quotient)
    })
}

/// `x * gamma + beta`
pub(crate) fn affine(builder: &mut Builder, x: NodeId) -> NodeId {
    let gamma = param(builder, "gamma", Extent::PerChannel, 1.0);
    let beta = param(builder, "beta", Extent::PerChannel, 0.0);
    let scaled = builder.binary(Prim::Mul, x, gamma);
    builder.binary(Prim::Add, scaled, beta)
}

pub(crate) fn scalar(value: f64) -> Scalar {
    Scalar::new(value).expect("the numbers of a test are finite")
}
