//! How the input is cut into the blocks that workgroups work on.

use std::ops::RangeInclusive;

use normact_ir::{Axes, Channels};
use normact_plan::graph::{Graph, ValueId};
use normact_plan::{Schedule, Sizes};

/// How a device runs threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Threads {
    /// Side by side, and quickly: a block is the work of a workgroup.
    Gpu,
    /// One after the other on so many cores, so many threads at a time in a vector. To wait for each other is what
    /// takes longest there, to compile too: a block is the work of one thread, if there are blocks enough.
    Cpu { cores: usize, vector: usize },
}

/// Elements of a block that is worth a workgroup.
const BLOCK: usize = 1024;

/// Elements of a block that is worth a thread.
const BLOCK_OF_THREAD: RangeInclusive<usize> = 64..=4096;

/// A block of so few elements is the work of one thread even if there are few.
const QUICK_BLOCK: usize = 1024;

/// Blocks for each thread that runs at a time, so that all have something to do until the end.
const BLOCKS_OF_THREAD: usize = 4;

/// The most blocks that threads find by themselves: such numbers are exact in f32.
const MOST_ALONE: usize = 1 << 22;

/// The most threads of a workgroup.
const WORKGROUP: usize = 256;

/// The fewest threads of a GPU's workgroup.
const GPU_WORKGROUP: usize = 64;

/// Elements of a thread, beyond which there are more threads.
const ELEMENTS_OF_THREAD: usize = 256;

/// The same of a CPU.
const ELEMENTS_OF_CPU_THREAD: usize = 4096;

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
    /// Whether each is the work of one thread.
    pub(super) alone: bool,
    /// Threads of a workgroup.
    pub(super) workgroup: usize,
}

impl Blocks {
    pub(super) fn new(graph: &Graph, schedule: &Schedule, sizes: Sizes, threads: Threads) -> Self {
        let blocks = Self::of(graph, schedule, schedule.cut, sizes, BLOCK);
        let elements: usize = blocks.size.iter().product();
        Self { workgroup: workgroup(elements, blocks.count.iter().product(), threads), ..blocks }
    }

    /// Blocks for single threads, if there are enough for all that a device runs at a time, or each is quick.
    pub(super) fn alone(graph: &Graph, schedule: &Schedule, sizes: Sizes, threads: Threads) -> Option<Self> {
        Self::cut_for_threads(graph, schedule, schedule.cut, sizes, threads)
    }

    /// The same of whole channels, where all sums across blocks are of one: so no sums are left for a second kernel.
    pub(super) fn whole_channels(graph: &Graph, schedule: &Schedule, sizes: Sizes, threads: Threads) -> Option<Self> {
        let is_by_channel = |&id: &ValueId| graph.axes(id).channels == Channels::All;
        let is_possible = schedule.cut.channels == Channels::All
            && !schedule.across.is_empty()
            && schedule.across.iter().chain(&schedule.after).all(is_by_channel);
        let cut = Axes { samples: false, positions: false, ..schedule.cut };
        is_possible.then(|| Self::cut_for_threads(graph, schedule, cut, sizes, threads)).flatten()
    }

    fn cut_for_threads(graph: &Graph, schedule: &Schedule, cut: Axes, sizes: Sizes, threads: Threads) -> Option<Self> {
        let Threads::Cpu { cores, vector } = threads else { return None };
        let at_a_time = cores * vector;
        let worth = sizes.elements() / (at_a_time * BLOCKS_OF_THREAD);
        let worth = worth.clamp(*BLOCK_OF_THREAD.start(), *BLOCK_OF_THREAD.end());
        let blocks = Self { alone: true, workgroup: vector, ..Self::of(graph, schedule, cut, sizes, worth) };
        let elements: usize = blocks.size.iter().product();
        let least = if elements <= QUICK_BLOCK { 1 } else { at_a_time };
        (least..=MOST_ALONE).contains(&blocks.count.iter().product()).then_some(blocks)
    }

    /// Blocks of about `worth` elements, if reductions do not need larger ones.
    fn of(graph: &Graph, schedule: &Schedule, mut cut: Axes, sizes: Sizes, worth: usize) -> Self {
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
            size[2] = ((worth / elements / RUN).max(1) * RUN).min(sizes.positions);
        }
        for axis in [1, 0] {
            let elements: usize = size.iter().product();
            // Neighbours in memory only.
            let may_grow = (axis + 1..3).all(|axis| size[axis] == whole[axis]);
            if may_grow && elements < worth / 2 {
                let times = (worth / elements).clamp(1, whole[axis].div_ceil(unit[axis]));
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
            alone: false,
            workgroup: 1,
        }
    }

    /// One block, of which so many numbers are read.
    pub(super) fn whole(sizes: Sizes, numbers: usize, threads: Threads) -> Self {
        Self {
            size: [sizes.samples, sizes.channels, sizes.positions],
            count: [1; 3],
            samples: true,
            channels: Channels::One,
            positions: true,
            alone: false,
            workgroup: workgroup(numbers, 1, threads),
        }
    }

    /// A block for each channel, of which so many numbers are read: each is the work of one thread.
    pub(super) fn channels(sizes: Sizes, vector: usize) -> Self {
        Self {
            size: [sizes.samples, 1, sizes.positions],
            count: [1, sizes.channels, 1],
            samples: true,
            channels: Channels::All,
            positions: true,
            alone: true,
            workgroup: vector,
        }
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

/// The threads that a block of so many elements is worth, a power of two. Threads of one workgroup wait for each
/// other at every sum, so few with much to do each are faster, as long as there are blocks enough.
fn workgroup(elements: usize, blocks: usize, threads: Threads) -> usize {
    let (least, of_thread, for_width) = match threads {
        Threads::Gpu => {
            let for_width = power_of_two(THREADS / blocks).min(power_of_two(elements));
            (GPU_WORKGROUP, ELEMENTS_OF_THREAD, for_width)
        }
        Threads::Cpu { vector, .. } => (vector, ELEMENTS_OF_CPU_THREAD, vector),
    };
    power_of_two(elements / of_thread).max(for_width).clamp(least, WORKGROUP)
}

/// The largest power of two up to a number, at least 1.
pub(super) fn power_of_two(number: usize) -> usize {
    1 << number.max(1).ilog2()
}
