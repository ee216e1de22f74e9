//! Which elements of a value go into one statistic: the geometry every back-end shares.

use crate::axes::IndexSet;

/// How the elements of a value, viewed as samples x channels x positions, are put together for one
/// moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reduction {
    /// The operand's sizes: samples, channels, positions. An axis it does not vary along has size 1.
    pub operand: [usize; 3],
    /// The same for the statistics, with groups in place of channels. Each divides the operand's.
    pub slots: [usize; 3],
}

impl Reduction {
    /// `groups` is the number of groups of the channels, for [`IndexSet::Group`].
    pub fn new(operand: [usize; 3], over: IndexSet, groups: usize) -> Self {
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
    pub fn count(self) -> usize {
        self.operand.iter().product::<usize>() / self.slots.iter().product::<usize>()
    }

    /// Whether several channels, but not all, share a statistic.
    pub fn is_grouped(self) -> bool {
        self.slots[1] != 1 && self.slots[1] != self.operand[1]
    }
}
