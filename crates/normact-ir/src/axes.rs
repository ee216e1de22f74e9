//! Which axes a moment reduces and which axes a value varies along.
//!
//! The input has rank 2 to 5: axis 0 is the sample `n`, axis 1 the channel `c`, the rest are
//! spatial, `s`. Reduced axes stay at size 1 and broadcast back, so a value's shape is the set of
//! axes it varies along. Nothing depends on how many spatial axes there are, so all ranks share one
//! view: samples x channels x positions.

use std::fmt;
use std::num::NonZeroU32;

/// How channels are put into groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Groups {
    /// The largest number of groups, at most this one, that divides the channels: the rule of the
    /// EvoNorm authors.
    AtMost(NonZeroU32),
    /// Exactly this many; an error where it does not divide the channels.
    Exactly(NonZeroU32),
}

impl Groups {
    /// The number of groups for so many channels; `None` where an exact number does not divide them.
    pub fn count(self, channels: usize) -> Option<usize> {
        match self {
            Groups::AtMost(most) => {
                (1..=channels.min(most.get() as usize)).rev().find(|count| channels.is_multiple_of(*count))
            }
            Groups::Exactly(count) => channels.is_multiple_of(count.get() as usize).then_some(count.get() as usize),
        }
    }
}

/// The index set of a moment: the axes it averages over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum IndexSet {
    /// Samples and positions; the statistic varies along channels.
    Batch,
    /// Positions; the statistic varies along samples and channels.
    Instance,
    /// Channels and positions; the statistic varies along samples.
    Layer,
    /// The channels of one group and positions; the statistic varies along samples and groups.
    Group(Groups),
    /// Channels; the statistic varies along samples and positions.
    Channel,
    /// Everything; the statistic is one number.
    All,
}

/// The names of the index sets with what each reduces, for messages and documentation.
pub const INDEX_SETS: &[(&str, &str)] = &[
    ("batch", "samples and positions"),
    ("instance", "positions"),
    ("layer", "channels and positions"),
    ("group", "the channels of one group and positions"),
    ("channel", "channels"),
    ("all", "samples, channels and positions"),
];

impl IndexSet {
    /// The name in the language, without a number of groups.
    pub fn name(self) -> &'static str {
        let index = match self {
            IndexSet::Batch => 0,
            IndexSet::Instance => 1,
            IndexSet::Layer => 2,
            IndexSet::Group(_) => 3,
            IndexSet::Channel => 4,
            IndexSet::All => 5,
        };
        INDEX_SETS[index].0
    }

    /// Whether it averages over samples.
    pub fn reduces_samples(self) -> bool {
        matches!(self, IndexSet::Batch | IndexSet::All)
    }

    /// Whether it averages over positions.
    pub fn reduces_positions(self) -> bool {
        !matches!(self, IndexSet::Channel)
    }

    /// What is left of the channels after averaging.
    pub fn channels_left(self, operand: Channels) -> Channels {
        match (self, operand) {
            (_, Channels::One) => Channels::One,
            (IndexSet::Batch | IndexSet::Instance, channels) => channels,
            (IndexSet::Group(groups), _) => Channels::Groups(groups),
            (IndexSet::Layer | IndexSet::Channel | IndexSet::All, _) => Channels::One,
        }
    }
}

impl fmt::Display for IndexSet {
    /// As written in the language: `batch`, `group`, `group(8)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IndexSet::Group(Groups::Exactly(count)) => write!(f, "group({count})"),
            _ => f.write_str(self.name()),
        }
    }
}

/// How a value varies along the channel axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Channels {
    /// Not at all.
    One,
    /// From group to group.
    Groups(Groups),
    /// From channel to channel.
    All,
}

/// The axes a value varies along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Axes {
    /// From sample to sample.
    pub samples: bool,
    /// From channel to channel, or group to group.
    pub channels: Channels,
    /// From position to position.
    pub positions: bool,
}

impl Axes {
    /// The input's: all of them.
    pub const INPUT: Axes = Axes { samples: true, channels: Channels::All, positions: true };
    /// A constant's: none.
    pub const NONE: Axes = Axes { samples: false, channels: Channels::One, positions: false };
    /// A per-channel parameter's.
    pub const CHANNEL: Axes = Axes { samples: false, channels: Channels::All, positions: false };

    /// The axes of an elementwise operation on two values.
    pub fn union(self, other: Axes) -> Axes {
        let channels = match (self.channels, other.channels) {
            (Channels::One, channels) | (channels, Channels::One) => channels,
            (a, b) if a == b => a,
            // Two different groupings are refined by single channels.
            _ => Channels::All,
        };
        Axes { samples: self.samples || other.samples, channels, positions: self.positions || other.positions }
    }

    /// The axes of a moment over `set`.
    pub fn reduce(self, set: IndexSet) -> Axes {
        Axes {
            samples: self.samples && !set.reduces_samples(),
            channels: set.channels_left(self.channels),
            positions: self.positions && !set.reduces_positions(),
        }
    }

    /// Whether averaging over `set` leaves such a value as it is.
    pub fn constant_along(self, set: IndexSet) -> bool {
        self.reduce(set) == self
    }
}

impl fmt::Display for Axes {
    /// `[n, c, s]`, `[n, group, 1]`, `[1, 1, 1]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let samples = if self.samples { "n" } else { "1" };
        let channels = match self.channels {
            Channels::One => "1",
            Channels::Groups(_) => "group",
            Channels::All => "c",
        };
        let positions = if self.positions { "s" } else { "1" };
        write!(f, "[{samples}, {channels}, {positions}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_most(count: u32) -> Groups {
        Groups::AtMost(NonZeroU32::new(count).unwrap())
    }

    fn exactly(count: u32) -> Groups {
        Groups::Exactly(NonZeroU32::new(count).unwrap())
    }

    #[test]
    fn groups_are_lowered_until_they_divide() {
        for (most, channels, count) in [(32, 64, 32), (32, 48, 24), (32, 16, 16), (32, 7, 7), (5, 12, 4), (32, 37, 1)] {
            assert_eq!(at_most(most).count(channels), Some(count), "at most {most} of {channels}");
        }
        assert_eq!(exactly(5).count(12), None);
        assert_eq!(exactly(4).count(12), Some(4));
    }

    #[test]
    fn moments_drop_the_axes_they_reduce() {
        let check = |set: IndexSet, axes: &str| assert_eq!(Axes::INPUT.reduce(set).to_string(), axes, "{set}");
        check(IndexSet::Batch, "[1, c, 1]");
        check(IndexSet::Instance, "[n, c, 1]");
        check(IndexSet::Layer, "[n, 1, 1]");
        check(IndexSet::Group(exactly(8)), "[n, group, 1]");
        check(IndexSet::Channel, "[n, 1, s]");
        check(IndexSet::All, "[1, 1, 1]");
    }

    #[test]
    fn different_groupings_meet_in_single_channels() {
        let grouped = |groups| Axes::INPUT.reduce(IndexSet::Group(groups));
        assert_eq!(grouped(exactly(8)).union(grouped(exactly(8))).to_string(), "[n, group, 1]");
        assert_eq!(grouped(exactly(8)).union(grouped(exactly(4))).to_string(), "[n, c, 1]");
        assert!(grouped(exactly(8)).constant_along(IndexSet::Group(exactly(8))));
        assert!(!grouped(exactly(8)).constant_along(IndexSet::Layer));
    }
}
