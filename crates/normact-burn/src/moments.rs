//! Statistics over index sets.
//!
//! Axes are reduced one at a time, positions first, then the channels of a group, then samples. The
//! means of equally many elements average to the mean of all, most of the work is done along the
//! axis that is contiguous in memory, and short partial sums lose less to rounding than one long
//! sum.

use burn::tensor::Tensor;
use normact_ir::{NodeId, Quantity, Reduction};

use crate::tensor_math::sqrt;

/// The averages of one forward pass, each computed once: `std` and `var` of one operand share the
/// variance, and both share the mean with `mean`.
#[derive(Default)]
pub(crate) struct Averages {
    known: Vec<((NodeId, Reduction, Quantity), Tensor<3>)>,
}

impl Averages {
    /// The average of a quantity of `x`, the value of node `operand`: one value per statistic.
    pub(crate) fn of(&mut self, operand: NodeId, x: Tensor<3>, reduction: Reduction, quantity: Quantity) -> Tensor<3> {
        let key = (operand, reduction, quantity);
        if let Some((_, average)) = self.known.iter().find(|(known, _)| *known == key) {
            return average.clone();
        }
        let average = match quantity {
            Quantity::Mean => mean(reduction, x),
            Quantity::MeanSquare => mean(reduction, x.clone() * x),
            Quantity::Variance => {
                // Deviations from the mean sum to 0, so nothing flows back through the mean:
                // detaching it leaves the gradient as it is and saves the work.
                let centre = self.of(operand, x.clone(), reduction, Quantity::Mean).detach();
                let deviation = x - as_value(reduction, centre);
                mean(reduction, deviation.clone() * deviation)
            }
        };
        self.known.push((key, average.clone()));
        average
    }
}

/// The mean of the elements of each statistic.
fn mean(reduction: Reduction, x: Tensor<3>) -> Tensor<3> {
    let mean_along = |x: Tensor<3>, axis: usize| if x.dims()[axis] == 1 { x } else { x.mean_dim(axis) };
    let [samples, groups, positions] = reduction.slots;
    let x = if positions == 1 { mean_along(x, 2) } else { x };
    let x = match groups {
        1 => mean_along(x, 1),
        _ if groups == reduction.operand[1] => x,
        _ => {
            let [samples, channels, positions] = x.dims();
            let grouped = x.reshape([samples * groups, channels / groups, positions]);
            grouped.mean_dim(1).reshape([samples, groups, positions])
        }
    };
    if samples == 1 { mean_along(x, 0) } else { x }
}

/// Statistics as a value that broadcasts against the operand: groups are repeated per channel.
pub(crate) fn as_value(reduction: Reduction, statistics: Tensor<3>) -> Tensor<3> {
    let ([_, channels, _], [samples, groups, positions]) = (reduction.operand, reduction.slots);
    if !reduction.is_grouped() {
        return statistics;
    }
    statistics
        .reshape([samples * groups, 1, positions])
        .expand([samples * groups, channels / groups, positions])
        .reshape([samples, channels, positions])
}

/// `sqrt(average + eps)` of a mean square or variance, with derivative 0 where it is 0.
pub(crate) fn root(average: Tensor<3>, eps: f64) -> Tensor<3> {
    let radicand = average + eps;
    // With a positive eps there is no 0 to take care of.
    if eps >= f64::from(f32::MIN_POSITIVE) { radicand.sqrt() } else { sqrt(radicand) }
}
