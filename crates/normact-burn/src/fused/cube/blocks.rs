//! How the input is cut into the blocks that workgroups work on.

use std::ops::RangeInclusive;

use normact_ir::{Axes, Channels};
use normact_plan::graph::Graph;
use normact_plan::{Schedule, Sizes};

/// Elements of a block that is worth a workgroup.
const BLOCK: usize = 1024;

/// Threads of a workgroup.
const WORKGROUPS: RangeInclusive<usize> = 64..=256;

/// Elements of a thread, beyond which there are more threads.
const ELEMENTS_OF_THREAD: usize = 256;

/// With fewer threads than this, most of a GPU would be idle.
const THREADS: usize = 16384;

/// Positions of a block where they may be cut, so that neighbouring threads read neighbouring elements.
const RUN: usize = 32;

/// How the input is cut into blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    /// The size of a block along each axis.
    pub(super) size: [usize; 3],
    /// How many there are along each axis.
    pub(super) count: [usize; 3],
    /// Whether a block has more than one sample.
    pub(super) samples: bool,
    /// What a block has along channels: one, one group, or any number.
    pub(super) channels: Channels,
    /// Whether a block has more than one position.
    pub(super) positions: bool,
}

impl Blocks {
    pub(super) fn new(graph: &Graph, schedule: &Schedule, sizes: Sizes) -> Self {
        let mut cut = schedule.cut;
        // A sum across blocks has whole groups in a block.
        for &id in &schedule.across {
            if let (to @ Channels::Groups(_), have) = (graph.axes(id).channels, cut.channels) {
                cut.channels = match have {
                    Channels::All => to,
                    Channels::Groups(_) if have == to => to,
                    Channels::Groups(_) | Channels::One => Channels::One,
                };
            }
        }
        let whole = [sizes.samples, sizes.channels, sizes.positions];
        let unit = [
            if cut.samples { 1 } else { sizes.samples },
            match cut.channels {
                Channels::One => sizes.channels,
                Channels::Groups(_) | Channels::All => sizes.channels / sizes.slots(cut)[1],
            },
            if cut.positions { 1 } else { sizes.positions },
        ];
        let mut size = unit;
        if cut.positions {
            let elements: usize = unit.iter().product();
            size[2] = ((BLOCK / elements / RUN).max(1) * RUN).min(sizes.positions);
        }
        for axis in [1, 0] {
            let elements: usize = size.iter().product();
            // Neighbours in memory only.
            let may_grow = (axis + 1..3).all(|axis| size[axis] == whole[axis]);
            if may_grow && elements < BLOCK / 2 {
                let times = (BLOCK / elements).clamp(1, whole[axis].div_ceil(unit[axis]));
                size[axis] = (unit[axis] * times).min(whole[axis]);
            }
        }
        let channels = match cut.channels {
            _ if size[1] == 1 => Channels::All,
            Channels::Groups(groups) if size[1] == unit[1] => Channels::Groups(groups),
            Channels::One | Channels::Groups(_) | Channels::All => Channels::One,
        };
        Self {
            size,
            count: std::array::from_fn(|axis| whole[axis].div_ceil(size[axis])),
            samples: size[0] > 1,
            channels,
            positions: size[2] > 1,
        }
    }

    pub(super) fn whole(sizes: Sizes) -> Self {
        Self {
            size: [sizes.samples, sizes.channels, sizes.positions],
            count: [1; 3],
            samples: true,
            channels: Channels::One,
            positions: true,
        }
    }

    /// The threads that a block is worth, a power of two. Threads of one workgroup wait for each other
    /// at every sum, so few with much to do each are faster, as long as there are blocks enough.
    pub(super) fn workgroup(&self) -> usize {
        let elements: usize = self.size.iter().product();
        let blocks: usize = self.count.iter().product();
        let for_work = power_of_two(elements / ELEMENTS_OF_THREAD);
        let for_width = power_of_two(THREADS / blocks).min(power_of_two(elements));
        for_work.max(for_width).clamp(*WORKGROUPS.start(), *WORKGROUPS.end())
    }

    /// Whether the channels of a block fall into one slot of such an axis.
    pub(super) fn is_one_slot(&self, channels: Channels) -> bool {
        channels == Channels::One || channels == self.channels || self.channels == Channels::All
    }

    /// Whether a value is the same for the whole block.
    pub(super) fn is_uniform(&self, axes: Axes) -> bool {
        !(axes.samples && self.samples || axes.positions && self.positions) && self.is_one_slot(axes.channels)
    }
}

/// The largest power of two up to a number, at least 1.
pub(super) fn power_of_two(number: usize) -> usize {
    1 << number.max(1).ilog2()
}
