//! Statistics of statistics: where a value is reduced to coarse slots and to fine ones, the coarse
//! statistic is computed from the fine one.
//!
//! EvoNorm-B0 reads the variance of each channel and that of each channel of each sample; visiting every
//! element for both would double the work. Every slot of a coarse statistic is made of fine slots of one
//! size, so a mean is the mean of means, and a variance the mean of variances plus the variance of means.

use normact_ir::{Axes, Prim};

use crate::adjoint::Joint;
use crate::graph::{Expr, Graph, Operands, Statistic, ValueId, is_constant_within, one_by_one};

/// The same joint graph with nested statistics.
pub(crate) fn nested(joint: Joint) -> Joint {
    let Joint { graph, output, updates, input_gradient, param_gradients } = joint;
    let roots: Vec<ValueId> =
        [Some(output), input_gradient].iter().chain(&updates).chain(&param_gradients).copied().flatten().collect();
    let live = graph.cone(&roots, |_| false);
    let reductions: Vec<(Statistic, ValueId, Axes)> = graph
        .ids()
        .filter(|id| live[id.index()])
        .filter_map(|id| match graph.expr(id) {
            Expr::Reduce { statistic, operand, to } if one_by_one(graph.axes(operand)) == Axes::INPUT => {
                Some((statistic, operand, to))
            }
            _ => None,
        })
        .collect();
    let finest = |statistic: Statistic, operand: ValueId, to: Axes| -> Option<Axes> {
        let gives = |found: Statistic| match statistic {
            Statistic::Sum | Statistic::MeanSquare | Statistic::Variance => found == statistic,
            // A variance comes with its mean.
            Statistic::Mean => matches!(found, Statistic::Mean | Statistic::Variance),
        };
        let finer = |axes: Axes| axes != to && !axes.positions && is_constant_within(to, axes);
        let candidates = reductions.iter().filter(|&&(found, of, axes)| gives(found) && of == operand && finer(axes));
        candidates.map(|&(_, _, axes)| axes).reduce(|a, b| if is_constant_within(a, b) { b } else { a })
    };

    let mut new = Graph::default();
    let mut moved: Vec<ValueId> = vec![];
    for id in graph.ids() {
        let at = |id: ValueId| moved[id.index()];
        let value = match graph.expr(id) {
            Expr::Reduce { statistic, operand, to } => match finest(statistic, operand, to) {
                Some(fine) if live[id.index()] => of_fine(&mut new, statistic, at(operand), fine, to),
                _ => new.leaf(Expr::Reduce { statistic, operand: at(operand), to }, to),
            },
            Expr::Prim(prim, Operands::One(a)) => new.leaf(Expr::Prim(prim, Operands::One(at(a))), graph.axes(id)),
            Expr::Prim(prim, Operands::Two(a, b)) => {
                new.leaf(Expr::Prim(prim, Operands::Two(at(a), at(b))), graph.axes(id))
            }
            leaf => new.leaf(leaf, graph.axes(id)),
        };
        moved.push(value);
    }
    let at = |id: ValueId| moved[id.index()];
    Joint {
        output: at(output),
        updates: updates.into_iter().map(|id| id.map(at)).collect(),
        input_gradient: input_gradient.map(at),
        param_gradients: param_gradients.into_iter().map(|id| id.map(at)).collect(),
        graph: new,
    }
}

/// A statistic of slots of shape `to`, from those of shape `fine`.
fn of_fine(graph: &mut Graph, statistic: Statistic, operand: ValueId, fine: Axes, to: Axes) -> ValueId {
    let once = graph.once(statistic, fine);
    let mut reduce = |statistic, operand, to| graph.leaf(Expr::Reduce { statistic, operand, to }, to);
    match statistic {
        Statistic::Sum => {
            let parts = reduce(statistic, operand, fine);
            let sum = reduce(statistic, parts, to);
            if graph.as_constant(once) == Some(1.0) {
                return sum;
            }
            graph.leaf(Expr::Prim(Prim::Mul, Operands::Two(sum, once)), to)
        }
        Statistic::Mean => {
            let parts = reduce(statistic, operand, fine);
            reduce(statistic, parts, to)
        }
        Statistic::MeanSquare => {
            let parts = reduce(Statistic::MeanSquare, operand, fine);
            reduce(Statistic::Mean, parts, to)
        }
        Statistic::Variance => {
            let means = reduce(Statistic::Mean, operand, fine);
            let variances = reduce(Statistic::Variance, operand, fine);
            let within = reduce(Statistic::Mean, variances, to);
            let between = reduce(Statistic::Variance, means, to);
            graph.leaf(Expr::Prim(Prim::Add, Operands::Two(within, between)), to)
        }
    }
}
