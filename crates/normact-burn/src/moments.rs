//! Statistics over index sets.
//!
//! Axes are reduced one at a time, positions first, then the channels of a group, then samples. The
//! means of equally many elements average to the mean of all, most of the work is done along the
//! axis that is contiguous in memory, and short partial sums lose less to rounding than one long
//! sum.

use burn::tensor::Tensor;
use normact_ir::{IndexSet, NodeId, Quantity};

use crate::tensor_math::sqrt;

/// Which elements of an operand go into one statistic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Reduction {
    /// The operand's sizes: samples, channels, positions.
    operand: [usize; 3],
    /// The same for the statistics, with groups in place of channels. Each divides the operand's.
    slots: [usize; 3],
}

impl Reduction {
    /// `groups` is the number of groups of the channels, for [`IndexSet::Group`].
    pub(crate) fn new(operand: [usize; 3], over: IndexSet, groups: usize) -> Self {
        let [samples, channels, positions] = operand;
        let slot_channels = match over {
            IndexSet::Batch | IndexSet::Instance => channels,
            // A value without channels is the same in every group.
            IndexSet::Group(_) => groups.min(channels),
            IndexSet::Layer | IndexSet::Channel | IndexSet::All => 1,
        };
        let slots = [
            if over.reduces_samples() { 1 } else { samples },
            slot_channels,
            if over.reduces_positions() { 1 } else { positions },
        ];
        Self { operand, slots }
    }

    /// How many elements go into one statistic.
    pub(crate) fn count(self) -> usize {
        self.operand.iter().product::<usize>() / self.slots.iter().product::<usize>()
    }

    /// The mean of the elements of each statistic.
    fn mean(self, x: Tensor<3>) -> Tensor<3> {
        let mean_along = |x: Tensor<3>, axis: usize| if x.dims()[axis] == 1 { x } else { x.mean_dim(axis) };
        let [samples, groups, positions] = self.slots;
        let x = if positions == 1 { mean_along(x, 2) } else { x };
        let x = match groups {
            1 => mean_along(x, 1),
            _ if groups == self.operand[1] => x,
            _ => {
                let [samples, channels, positions] = x.dims();
                let grouped = x.reshape([samples * groups, channels / groups, positions]);
                grouped.mean_dim(1).reshape([samples, groups, positions])
            }
        };
        if samples == 1 { mean_along(x, 0) } else { x }
    }

    /// Statistics as a value that broadcasts against the operand: groups are repeated per channel.
    pub(crate) fn as_value(self, statistics: Tensor<3>) -> Tensor<3> {
        let ([_, channels, _], [samples, groups, positions]) = (self.operand, self.slots);
        if groups == 1 || groups == channels {
            return statistics;
        }
        statistics
            .reshape([samples * groups, 1, positions])
            .expand([samples * groups, channels / groups, positions])
            .reshape([samples, channels, positions])
    }
}

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
            Quantity::Mean => reduction.mean(x),
            Quantity::MeanSquare => reduction.mean(x.clone() * x),
            Quantity::Variance => {
                // Deviations from the mean sum to 0, so nothing flows back through the mean:
                // detaching it leaves the gradient as it is and saves the work.
                let mean = self.of(operand, x.clone(), reduction, Quantity::Mean).detach();
                let deviation = x - reduction.as_value(mean);
                reduction.mean(deviation.clone() * deviation)
            }
        };
        self.known.push((key, average.clone()));
        average
    }
}

/// `sqrt(average + eps)` of a mean square or variance, with derivative 0 where it is 0.
pub(crate) fn root(average: Tensor<3>, eps: f64) -> Tensor<3> {
    let radicand = average + eps;
    // With a positive eps there is no 0 to take care of.
    if eps >= f64::from(f32::MIN_POSITIVE) { radicand.sqrt() } else { sqrt(radicand) }
}
