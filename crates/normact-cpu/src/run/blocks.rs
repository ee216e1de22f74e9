//! How an input is cut into blocks, and shared out between cores.
//!
//! Blocks are merged until they fill a part of the second-level cache, and handed to the cores in
//! contiguous teams. How an input is cut depends on its sizes alone, so that the result does not
//! depend on the number of cores. Where there are too few blocks to share out (a batch of one under
//! layer normalization, or channels last, where one block has all channels), each pass is shared out instead.

use normact_ir::{Axes, Channels};
use normact_plan::Sizes;

use super::PIECES;
use crate::program::{Lane, Program};
use crate::slots::Region;
use crate::vector::WIDTH;

/// Elements of a block for which it stays in the second-level cache together with `dy` and the result.
const BLOCK: usize = 1 << 15;

/// The most teams: enough for the cores of most machines, few enough that their sums are cheap to merge.
const TEAMS: usize = 64;

/// Elements of a team, at least.
const TEAM: usize = 1 << 13;

/// Below so much work ([`Program::work`]) it is done on the calling thread: to wake another one and to wait
/// for it takes some 50 us, in which a core adds two million numbers.
const PARALLEL: usize = 1 << 21;

/// With fewer blocks than this, passes are shared out.
const FEW_BLOCKS: usize = 8;

/// The blocks of an input, and who does them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Blocks {
    pub(super) regions: Vec<Region>,
    /// How many teams run side by side.
    pub(super) teams: usize,
    /// Whether each pass over a block is shared out.
    pub(super) shares_passes: bool,
}

impl Blocks {
    /// The blocks of an input that is cut along these axes.
    pub(crate) fn new(cut: Axes, lane: Lane, sizes: Sizes) -> Self {
        Self { regions: regions(cut, lane, sizes), teams: 1, shares_passes: false }
    }

    /// The most elements of a block.
    pub(crate) fn largest(&self) -> usize {
        self.regions.iter().map(|region| region.elements()).max().unwrap_or(0)
    }

    /// Shares out the work of a program, if there is enough of it.
    pub(crate) fn share(&mut self, program: &Program) {
        let (work, blocks) = (program.work(), self.regions.len());
        let passes = program.passes.iter().filter(|pass| pass.has_elements()).count();
        // What is held belongs to a block and its thread. Every pass ends in a rendezvous of the cores.
        self.shares_passes =
            blocks < FEW_BLOCKS && passes > 0 && program.held == 0 && work >= PARALLEL * passes * blocks;
        if work >= PARALLEL && !self.shares_passes {
            self.teams = blocks.min(TEAMS).min(program.sizes.elements().div_ceil(TEAM));
        }
    }
}

/// Cuts an input into blocks, merged until they have about [`BLOCK`] elements.
fn regions(cut: Axes, lane: Lane, sizes: Sizes) -> Vec<Region> {
    let whole = [sizes.samples, sizes.channels, sizes.positions];
    let mut unit = whole;
    if cut.samples {
        unit[0] = 1;
    }
    if lane == Lane::Positions {
        unit[1] = match cut.channels {
            Channels::One => sizes.channels,
            Channels::Groups(_) | Channels::All => sizes.channels / sizes.slots(cut)[1],
        };
    }
    if cut.positions {
        unit[2] = match lane {
            Lane::Positions => WIDTH.min(sizes.positions),
            Lane::Channels => 1,
        };
    }
    let mut block = unit;
    // Neighbours in memory first: positions, then channels, then samples.
    for axis in [2, 1, 0] {
        let elements: usize = block.iter().product();
        let times = (BLOCK / elements).clamp(1, whole[axis].div_ceil(unit[axis]));
        block[axis] = (unit[axis] * times).min(whole[axis]);
    }
    let ranges = |axis: usize| {
        (0..whole[axis]).step_by(block[axis]).map(move |start| (start, (start + block[axis]).min(whole[axis])))
    };
    let mut regions = vec![];
    for (n0, n1) in ranges(0) {
        for (c0, c1) in ranges(1) {
            for (s0, s1) in ranges(2) {
                regions.push(Region { start: [n0, c0, s0], end: [n1, c1, s1] });
            }
        }
    }
    regions
}

/// Cuts a region into pieces for a pass that is shared out.
pub(super) fn pieces(region: Region, lane: Lane) -> Vec<Region> {
    let (lane_axis, row_axis) = lane.axes();
    let axis = [0, row_axis, lane_axis].into_iter().find(|&axis| region.len(axis) >= PIECES).unwrap_or(lane_axis);
    let unit = if axis == lane_axis { WIDTH } else { 1 };
    let step = region.len(axis).div_ceil(PIECES).next_multiple_of(unit);
    (region.start[axis]..region.end[axis])
        .step_by(step)
        .map(|start| {
            let mut piece = region;
            piece.start[axis] = start;
            piece.end[axis] = (start + step).min(region.end[axis]);
            piece
        })
        .collect()
}
