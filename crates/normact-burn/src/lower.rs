//! Runs a graph on Burn tensors, operation by operation.
//!
//! The Burn form of an elementwise operation is the `burn` column of the primitive table
//! ([`normact_ir::table`]); nothing here names a single primitive.

use burn::module::Param;
use burn::tensor::{FloatDType, Tensor};
use normact_ir::{Buffer, IndexSet, Mode, NodeId, Op, Operands, Prim, Reduction, Running, bessel};

use crate::moments::{Averages, as_value, root};
use crate::prepared::Prepared;
use crate::running::{RunningAverage, on};
use crate::tensor_math::*;

/// Computes the layer of `x`, viewed as samples x channels x positions; the result broadcasts to the
/// same sizes. In training the running averages are updated.
pub(crate) fn run(
    prepared: &Prepared,
    mode: Mode,
    x: Tensor<3>,
    params: &[Param<Tensor<1>>],
    running: &[RunningAverage],
) -> Tensor<3> {
    let (dag, reads) = (&prepared.layer.dag, prepared.reads(mode));
    let (device, dtype) = (x.device(), FloatDType::from(x.dtype()));
    let mut values = Values { values: vec![None; dag.len()], reads_left: reads.to_vec() };
    let mut averages = Averages::default();
    let mut updated = vec![false; running.len()];
    for id in dag.ids().filter(|id| reads[id.index()] > 0) {
        let value = match (dag.op(id), dag.operands(id)) {
            (Op::Input, _) => x.clone(),
            (Op::Constant(value), _) => Tensor::full([1; 3], value.get(), (&device, dtype.into())),
            (Op::Param(param), _) => along_channels(params[param.index()].val(), dtype),
            (Op::Prim(prim), operands) => apply(prim, operands, &mut values),
            (Op::Moment(op), operands) => {
                let finish = |average| if op.moment().is_root() { root(average, op.eps().get()) } else { average };
                match (prepared.buffers.of_node(id), mode, operands) {
                    (Some(buffer), Mode::Evaluation, _) => {
                        let average = on(running[buffer].value(), &device);
                        finish(along_channels(average, dtype))
                    }
                    (buffer, _, Operands::One(operand)) => {
                        let x = values.read(operand);
                        let reduction = Reduction::new(x.dims(), op.over(), group_count(op.over(), prepared.channels));
                        let average = averages.of(operand, x, reduction, op.moment().quantity());
                        if let Some(buffer) = buffer
                            && !std::mem::replace(&mut updated[buffer], true)
                        {
                            let tracked = &prepared.buffers.list()[buffer];
                            update(&running[buffer], tracked, average.clone(), reduction.count());
                        }
                        as_value(reduction, finish(average))
                    }
                    (_, _, Operands::None | Operands::Two(..)) => unreachable!("a moment has one operand"),
                }
            }
        };
        values.values[id.index()] = Some(value);
    }
    values.read(dag.output())
}

/// The values that will still be read.
struct Values {
    values: Vec<Option<Tensor<3>>>,
    reads_left: Vec<usize>,
}

impl Values {
    /// A node's value. The last reader gets the tensor itself, which frees its memory or lets Burn
    /// work in place.
    fn read(&mut self, id: NodeId) -> Tensor<3> {
        let (value, reads_left) = (&mut self.values[id.index()], &mut self.reads_left[id.index()]);
        *reads_left -= 1;
        let value = if *reads_left == 0 { value.take() } else { value.clone() };
        value.expect("operands precede their users and are kept until the last read")
    }
}

/// The Burn form of an elementwise primitive.
enum Lowering {
    Unary(fn(Tensor<3>) -> Tensor<3>),
    Binary(fn(Tensor<3>, Tensor<3>) -> Tensor<3>),
}

/// Makes `lowering`, one match arm per elementwise row of the table.
macro_rules! lower {
    (
        unary { $( $(#[doc = $udoc:literal])+ $Unary:ident $uname:literal {
            laws: [$($ulaw:expr),*], value: $uvalue:expr, slope: $uslope:expr, range: $urange:expr, burn: $uburn:expr,
            text: $utext:tt,
        } )* }
        binary { $( $(#[doc = $bdoc:literal])+ $Binary:ident $bname:literal {
            laws: [$($blaw:expr),*], value: $bvalue:expr, slope: $bslope:expr, range: $brange:expr, burn: $bburn:expr,
            text: $btext:tt,
        } )* }
        moment { $($moment:tt)* }
    ) => {
        fn lowering(prim: Prim) -> Lowering {
            match prim {
                $(Prim::$Unary => Lowering::Unary($uburn),)*
                $(Prim::$Binary => Lowering::Binary($bburn),)*
            }
        }
    };
}

normact_ir::primitives!(lower);

fn apply(prim: Prim, operands: Operands, values: &mut Values) -> Tensor<3> {
    match (lowering(prim), operands) {
        (Lowering::Unary(function), Operands::One(x)) => function(values.read(x)),
        (Lowering::Binary(function), Operands::Two(a, b)) => function(values.read(a), values.read(b)),
        (Lowering::Unary(_) | Lowering::Binary(_), _) => unreachable!("a graph checks the number of operands"),
    }
}

/// Values per channel, or one for all, as a tensor that broadcasts.
fn along_channels(values: Tensor<1>, dtype: FloatDType) -> Tensor<3> {
    let [len] = values.dims();
    values.cast(dtype).reshape([1, len, 1])
}

/// Moves a running average towards the average of a batch of `count` elements per statistic.
pub(crate) fn update<const D: usize>(running: &RunningAverage, buffer: &Buffer, average: Tensor<D>, count: usize) {
    let momentum = buffer.tracking.momentum.get();
    let correction = match buffer.tracking.running {
        Running::Unbiased => bessel(count),
        Running::Biased => 1.0,
    };
    let old = on(running.value(), &average.device());
    let new = average.detach().reshape(old.dims()).cast(old.dtype());
    running.update((old * (1.0 - momentum) + new * (momentum * correction)).detach());
}

fn group_count(over: IndexSet, channels: usize) -> usize {
    match over {
        IndexSet::Group(groups) => {
            groups.count(channels).expect("a layer is prepared for a number of channels that fits")
        }
        IndexSet::Batch | IndexSet::Instance | IndexSet::Layer | IndexSet::Channel | IndexSet::All => 1,
    }
}
