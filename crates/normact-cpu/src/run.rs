//! Runs a program over all blocks of an input.
//!
//! Blocks are merged until they fill a part of the second-level cache, and handed to the cores in
//! contiguous teams. How an input is cut depends on its sizes alone, so that the result does not
//! depend on the number of cores. Where there are too few blocks to share out (a batch of one under
//! layer normalization), each pass is shared out instead.

use std::cell::Cell;
use std::ops::Range;

use normact_ir::{Axes, Channels};
use normact_plan::Sizes;
use normact_plan::graph::Statistic;
use rayon::prelude::*;

use crate::native::{ALIGNMENT, Frame, Native, Part, Stream};
use crate::output::{Shared, View, finish_streams, prefetch, stream};
use crate::program::{
    Accumulate, Array, Lane, Operand as Operands, PassProgram, Place, Program, ScalarStep, Scalars, Small, SmallValue,
    Target, Tier,
};
use crate::slots::{Accumulator, Kind, Layout, Moments, Region, Slots};
use crate::vector::{
    Chunk, Operand, Register, Source, Step, WIDTH, Wide, dot, moments, sum, sum_of_squares, wide_step,
};

/// Elements of a block for which it stays in the second-level cache together with `dy` and the result.
const BLOCK: usize = 1 << 15;

/// The most teams: more than any machine has cores, few enough that their sums are cheap to merge.
const TEAMS: usize = 64;

/// Elements of a team, at least, and of a piece of a copy.
const SERIAL: usize = 1 << 14;

/// Below so much work ([`Program::work`]) it is done on the calling thread: to wake another one and to wait
/// for it takes some 50 us, in which a core adds two million numbers.
const PARALLEL: usize = 1 << 21;

/// With fewer blocks than this, passes are shared out, if blocks are large enough.
const FEW_BLOCKS: usize = 8;

/// Elements of a block that is worth being shared out: every pass ends in a rendezvous of the cores.
const SHARED: usize = 1 << 16;

/// Results of so many elements are written past the caches.
pub(crate) const STREAMED: usize = 1 << 23;

/// How far ahead of the chunk memory is fetched.
pub(crate) const AHEAD: usize = 2 * WIDTH;

/// Elements of a chunk of native code, as few as keep the memory of a pass in the first-level cache.
const WIDE: usize = 4 * WIDTH;

/// How many pieces a pass is shared out in.
const PIECES: usize = 16;

/// Everything a run reads.
pub(crate) struct Reads<'a> {
    pub(crate) x: View<'a>,
    pub(crate) dy: View<'a>,
    pub(crate) params: Vec<Slots>,
    pub(crate) running: Vec<Slots>,
    pub(crate) given: Vec<Slots>,
}

impl Reads<'_> {
    fn slots<'a>(&'a self, results: &'a [Slots], array: Array) -> &'a Slots {
        match array {
            Array::Param(number) => &self.params[number],
            Array::Running(number) => &self.running[number],
            Array::Given(number) => &self.given[number],
            Array::Result(number) => &results[number],
        }
    }
}

/// What a run gives beside the full-size result.
pub(crate) struct Outcome {
    /// The kept reductions, one after the other.
    pub(crate) kept: Vec<f64>,
    /// For each small value asked for, its slots along channels.
    pub(crate) finals: Vec<Option<Vec<f64>>>,
    /// The slots of a result that is the same at every position.
    pub(crate) broadcast: Option<Vec<f64>>,
}

/// Runs a program; `out` takes the full-size result, if there is one.
pub(crate) fn run(program: &Program, reads: &Reads<'_>, out: Option<Shared<'_>>) -> Outcome {
    let sizes = program.sizes;
    let whole = Region::whole(sizes);
    let blocks = blocks(program);
    let is_large = program.work() >= PARALLEL;
    // What is held belongs to a block and its thread.
    let share_passes = blocks.len() < FEW_BLOCKS && sizes.elements() >= SHARED * blocks.len() && program.held == 0;
    let across = || -> Vec<Accumulator> {
        let layout = |axes: Axes| Layout::new(program.lane.accumulated(axes), sizes, whole);
        program.across.iter().map(|&(axes, _)| Accumulator::new(layout(axes), Kind::Sum)).collect()
    };
    let teams = blocks.len().min(TEAMS).min(sizes.elements().div_ceil(SERIAL / 2));
    let run_team = |team: usize| {
        let mine = &blocks[blocks.len() * team / teams..blocks.len() * (team + 1) / teams];
        let mut worker = Worker { program, reads, out, across: across(), exports: vec![], workspace: WORKSPACE.take() };
        mine.iter().for_each(|&block| worker.block(block, share_passes));
        finish_streams();
        WORKSPACE.set(worker.workspace);
        (worker.exports, worker.across)
    };
    let parts: Vec<_> = if is_large && !share_passes && teams > 1 {
        (0..teams).into_par_iter().map(run_team).collect()
    } else {
        (0..teams).map(run_team).collect()
    };

    let mut sums = across();
    let empty = Layout::new(Axes::NONE, sizes, whole);
    let mut results: Vec<Slots> = program.results.iter().map(|_| Slots::zeros(empty)).collect();
    for &number in &program.exported {
        results[number] = Slots::zeros(Layout::new(program.results[number], sizes, whole));
    }
    for (exports, across) in parts {
        sums.iter_mut().zip(&across).for_each(|(sum, part)| sum.merge(part));
        exports.iter().for_each(|(number, part)| results[*number].place(part));
    }
    for (&(axes, number), sum) in program.across.iter().zip(&sums) {
        let to = Layout::new(axes, sizes, whole);
        results[number] = sum.finish(&[Statistic::Sum], to, 1.0).remove(0);
    }
    for small in &program.after {
        results[small.result] = small_reduction(small, reads, &results, sizes, whole);
    }
    let kept = program.kept.iter().flat_map(|&number| results[number].values.iter().copied()).collect();
    // The slots of a value, a channel from each group of channels that share one.
    let slots = |value: &SmallValue, axes: Axes, samples: usize| {
        let channels = sizes.slots(axes)[1];
        let unit = sizes.channels / channels;
        let mut values = Vec::with_capacity(samples * channels);
        value.each(reads, &results, [0..samples, 0..channels, 0..1], unit, |_, value| values.push(value));
        values
    };
    let finals = program.finals.iter().map(|last| last.as_ref().map(|(value, axes)| slots(value, *axes, 1))).collect();
    let broadcast = program.broadcast.as_ref().map(|(value, axes)| slots(value, *axes, sizes.slots(*axes)[0]));
    Outcome { kept, finals, broadcast }
}

/// Copies a slice with all cores, as fast as memory allows: the yardstick of a full-size read and
/// write.
///
/// # Panics
/// The lengths differ.
pub fn copy(from: &[f32], to: &mut [f32]) {
    let chunk = from.len().div_ceil(PIECES).max(SERIAL);
    to.par_chunks_mut(chunk).zip(from.par_chunks(chunk)).for_each(|(to, from)| to.copy_from_slice(from));
}

/// Cuts the input into blocks, merged until they have about [`BLOCK`] elements.
fn blocks(program: &Program) -> Vec<Region> {
    let (sizes, cut) = (program.sizes, program.cut);
    let whole = [sizes.samples, sizes.channels, sizes.positions];
    let mut unit = whole;
    if cut.samples {
        unit[0] = 1;
    }
    if program.lane == Lane::Positions {
        unit[1] = match cut.channels {
            Channels::One => sizes.channels,
            Channels::Groups(_) | Channels::All => sizes.channels / sizes.slots(cut)[1],
        };
    }
    if cut.positions {
        unit[2] = match program.lane {
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
    let mut blocks = vec![];
    for (n0, n1) in ranges(0) {
        for (c0, c1) in ranges(1) {
            for (s0, s1) in ranges(2) {
                blocks.push(Region { start: [n0, c0, s0], end: [n1, c1, s1] });
            }
        }
    }
    blocks
}

/// Cuts a region into pieces for a pass that is shared out.
fn pieces(region: Region, lane: Lane) -> Vec<Region> {
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

/// One team's share of the blocks.
struct Worker<'a> {
    program: &'a Program,
    reads: &'a Reads<'a>,
    out: Option<Shared<'a>>,
    across: Vec<Accumulator>,
    exports: Vec<(usize, Slots)>,
    workspace: Workspace,
}

impl Worker<'_> {
    fn block(&mut self, block: Region, share_passes: bool) {
        let program = self.program;
        let sizes = program.sizes;
        let empty = Layout::new(Axes::NONE, sizes, block);
        let mut results: Vec<Slots> = program.results.iter().map(|_| Slots { layout: empty, values: vec![] }).collect();
        for small in &program.before {
            results[small.result] = small_reduction(small, self.reads, &results, sizes, block);
        }
        for (pass, reductions) in program.passes.iter().zip(&program.block) {
            let accumulators = || -> Vec<Accumulator> {
                let layout = |to: Axes| Layout::new(program.lane.accumulated(to), sizes, block);
                reductions.iter().map(|reduction| Accumulator::new(layout(reduction.to), reduction.kind)).collect()
            };
            let mut sums = accumulators();
            let job = Job { program, pass, reads: self.reads, results: &results, out: self.out };
            if share_passes {
                let none: Vec<Accumulator> =
                    self.across.iter().map(|sum| Accumulator::new(sum.layout, sum.kind)).collect();
                let parts: Vec<_> = pieces(block, program.lane)
                    .into_par_iter()
                    .map(|piece| {
                        let (mut sums, mut across) = (accumulators(), none.clone());
                        job.run(piece, &mut sums, &mut across, &mut Workspace::default());
                        finish_streams();
                        (sums, across)
                    })
                    .collect();
                for (part, across) in &parts {
                    sums.iter_mut().zip(part).for_each(|(sum, part)| sum.merge(part));
                    self.across.iter_mut().zip(across).for_each(|(sum, part)| sum.merge(part));
                }
            } else {
                job.run(block, &mut sums, &mut self.across, &mut self.workspace);
            }
            for (reduction, sum) in reductions.iter().zip(&sums) {
                let to = Layout::new(reduction.to, sizes, block);
                let finished = sum.finish(&reduction.statistics, to, reduction.count);
                reduction.results.iter().zip(finished).for_each(|(&number, slots)| results[number] = slots);
            }
            for small in &pass.small {
                if small.is_across {
                    accumulate_small(small, self.reads, &results, block, &mut self.across[small.result]);
                } else {
                    results[small.result] = small_reduction(small, self.reads, &results, sizes, block);
                }
            }
        }
        for &number in &program.exported {
            self.exports
                .push((number, std::mem::replace(&mut results[number], Slots { layout: empty, values: vec![] })));
        }
    }
}

fn small_reduction(small: &Small, reads: &Reads<'_>, results: &[Slots], sizes: Sizes, region: Region) -> Slots {
    let to = Layout::new(small.to, sizes, region);
    let mut sums = Accumulator::new(to, Kind::of(small.statistic));
    accumulate_small(small, reads, results, region, &mut sums);
    let counted = match small.axes.channels {
        Channels::One => small.axes,
        Channels::Groups(_) | Channels::All => Axes { channels: Channels::All, ..small.axes },
    };
    sums.finish(&[small.statistic], to, sizes.count(counted, small.to)).remove(0)
}

/// Adds the elements of the operand that belong to a region. Along an axis that the operand does not
/// vary along there is one element, and it belongs to the region at the start of that axis, or to
/// every region if its sum stays within the region.
fn accumulate_small(small: &Small, reads: &Reads<'_>, results: &[Slots], region: Region, sums: &mut Accumulator) {
    let varies = [small.axes.samples, small.axes.channels != Channels::One, small.axes.positions];
    if small.is_across && (0..3).any(|axis| !varies[axis] && region.start[axis] != 0) {
        return;
    }
    let range = |axis: usize| {
        let start = region.start[axis];
        if varies[axis] { start..region.end[axis] } else { start..start + 1 }
    };
    let (layout, kind) = (sums.layout, sums.kind);
    small.operand.each(reads, results, [range(0), range(1), range(2)], 1, |index, value| {
        let slot = layout.index(index);
        match kind {
            Kind::Sum => sums.first[slot] += value,
            Kind::SumOfSquares => sums.first[slot] += value * value,
            Kind::Moments => sums.add_moments(slot, Moments::of(value)),
        }
    });
}

/// How many slots are computed together.
const TOGETHER: usize = 128;

impl SmallValue {
    /// Computes the slots at all indices in the ranges, every `unit`-th channel, in order, and hands each to `take`. A step is done
    /// for many slots before the next one, so that finding out what it is costs little.
    fn each(
        &self,
        reads: &Reads<'_>,
        results: &[Slots],
        [samples, channels, positions]: [Range<usize>; 3],
        unit: usize,
        mut take: impl FnMut([usize; 3], f64),
    ) {
        let steps = &self.scalars.steps;
        let mut columns = vec![0.0; steps.len() * TOGETHER];
        let mut indices = Vec::with_capacity(TOGETHER);
        let mut compute = |indices: &mut Vec<[usize; 3]>| {
            for (number, &step) in steps.iter().enumerate() {
                let (known, rest) = columns.split_at_mut(number * TOGETHER);
                let column = |step: usize| Wide::Vector(&known[step * TOGETHER..][..indices.len()]);
                let into = &mut rest[..indices.len()];
                match step {
                    ScalarStep::Constant(value) => into.fill(value),
                    ScalarStep::Load(array) => {
                        let slots = reads.slots(results, array);
                        into.iter_mut().zip(indices.iter()).for_each(|(value, &index)| *value = slots.at(index));
                    }
                    ScalarStep::Unary(prim, a) => wide_step(prim, column(a), Wide::Scalar(0.0), into),
                    ScalarStep::Binary(prim, a, b) => wide_step(prim, column(a), column(b), into),
                }
            }
            let values = &columns[self.root * TOGETHER..];
            indices.drain(..).zip(values).for_each(|(index, &value)| take(index, value));
        };
        for sample in samples {
            for channel in channels.clone() {
                for position in positions.clone() {
                    indices.push([sample, channel * unit, position]);
                    if indices.len() == TOGETHER {
                        compute(&mut indices);
                    }
                }
            }
        }
        compute(&mut indices);
    }
}

impl Scalars {
    #[inline(always)]
    fn step(&self, number: usize, values: &[f64], reads: &Reads<'_>, results: &[Slots], index: [usize; 3]) -> f64 {
        match self.steps[number] {
            ScalarStep::Constant(value) => value,
            ScalarStep::Load(array) => reads.slots(results, array).at(index),
            ScalarStep::Unary(prim, a) => prim.value(values[a], 0.0),
            ScalarStep::Binary(prim, a, b) => prim.value(values[a], values[b]),
        }
    }
}

thread_local! {
    /// Memory that is new must be mapped first, which takes longer than what a block does with it.
    static WORKSPACE: Cell<Workspace> = Cell::default();
}

/// Buffers that are used again for every chunk.
#[derive(Default)]
struct Workspace {
    // In boxes, so that a swap with the spare one moves a pointer.
    #[allow(clippy::vec_box)]
    registers: Vec<Box<Register>>,
    /// For each held value, the elements of the region.
    held: Vec<Vec<f32>>,
    /// Stands in for the register that a step writes.
    spare: Box<Register>,
    /// The registers that rows share, before they are rounded.
    wide: Vec<Vec<f64>>,
    scalars: Vec<f64>,
    x: Box<Register>,
    dy: Box<Register>,
    out: Box<Register>,
    frame: Frame,
}

/// One pass over one region.
struct Job<'a> {
    program: &'a Program,
    pass: &'a PassProgram,
    reads: &'a Reads<'a>,
    results: &'a [Slots],
    out: Option<Shared<'a>>,
}

impl Job<'_> {
    /// Runs the pass with the widest vector instructions of this processor.
    fn run(&self, region: Region, sums: &mut [Accumulator], across: &mut [Accumulator], workspace: &mut Workspace) {
        if !self.pass.has_elements() {
            return;
        }
        workspace.registers.resize_with(workspace.registers.len().max(self.pass.registers), Box::default);
        workspace.wide.resize_with(workspace.registers.len(), Vec::new);
        workspace.held.resize_with(self.program.held, Vec::new);
        let elements = (0..3).map(|axis| region.len(axis)).product::<usize>();
        for held in &mut workspace.held {
            held.resize(held.len().max(elements), 0.0);
        }
        workspace.scalars.resize(self.pass.scalars.steps.len(), 0.0);
        #[cfg(target_arch = "x86_64")]
        {
            use crate::native::Instructions;

            #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
            fn avx512(
                job: &Job<'_>,
                region: Region,
                sums: &mut [Accumulator],
                across: &mut [Accumulator],
                w: &mut Workspace,
            ) {
                job.walk::<true>(region, sums, across, w);
            }
            #[target_feature(enable = "avx2,fma")]
            fn avx2(
                job: &Job<'_>,
                region: Region,
                sums: &mut [Accumulator],
                across: &mut [Accumulator],
                w: &mut Workspace,
            ) {
                job.walk::<true>(region, sums, across, w);
            }
            match Instructions::detect() {
                // SAFETY: the processor has the instructions.
                #[allow(unsafe_code)]
                Some(Instructions::Avx512) => return unsafe { avx512(self, region, sums, across, workspace) },
                // SAFETY: the processor has the instructions.
                #[allow(unsafe_code)]
                Some(Instructions::Avx2) => return unsafe { avx2(self, region, sums, across, workspace) },
                None => {}
            }
        }
        // Every 64-bit ARM processor has fused multiply-add.
        self.walk::<{ cfg!(target_arch = "aarch64") }>(region, sums, across, workspace);
    }

    #[inline(always)]
    fn walk<const FMA: bool>(
        &self,
        region: Region,
        sums: &mut [Accumulator],
        across: &mut [Accumulator],
        workspace: &mut Workspace,
    ) {
        let (lane_axis, row_axis) = self.program.lane.axes();
        let width = self.width();
        let hoisted = self.pass.shared.iter().any(|steps| !steps.is_empty());
        // With vectors that rows share, rows are visited for each run of lanes; else in memory order.
        let stride = if hoisted { WIDTH } else { region.len(lane_axis) };
        let mut at = region.start;
        for lane in (region.start[lane_axis]..region.end[lane_axis]).step_by(stride) {
            let end = (lane + stride).min(region.end[lane_axis]);
            at[lane_axis] = lane;
            at[0] = region.start[0];
            at[row_axis] = region.start[row_axis];
            self.prepare(Tier::Lanes, at, end - lane, workspace);
            for sample in region.start[0]..region.end[0] {
                at[0] = sample;
                at[row_axis] = region.start[row_axis];
                self.prepare(Tier::Sample, at, end - lane, workspace);
                for row in region.start[row_axis]..region.end[row_axis] {
                    at[row_axis] = row;
                    self.scalars(Tier::Row, at, workspace);
                    let native = self.pass.native.as_ref();
                    let native = native.filter(|native| native.prepare(&workspace.scalars, &mut workspace.frame));
                    let mut next = lane;
                    while next < end {
                        let start = next;
                        at[lane_axis] = start;
                        let len = self.length(at, native).min(width).min(end - start);
                        next += len;
                        let is_done = match native {
                            Some(native) => self.native_chunk(native, at, region, len, sums, across, workspace),
                            None => false,
                        };
                        if is_done {
                            continue;
                        }
                        for piece in (start..start + len).step_by(WIDTH) {
                            at[lane_axis] = piece;
                            let len = WIDTH.min(start + len - piece);
                            self.chunk::<FMA>(at, region, len, sums, across, workspace);
                        }
                    }
                    at[lane_axis] = lane;
                }
            }
        }
    }

    #[inline(always)]
    fn scalars(&self, tier: Tier, at: [usize; 3], workspace: &mut Workspace) {
        for &number in &self.pass.scalar_tiers[tier as usize] {
            workspace.scalars[number] =
                self.pass.scalars.step(number, &workspace.scalars, self.reads, self.results, at);
        }
    }

    /// Computes what the rows of a tier share: in f64, since it is small and much may depend on it.
    #[inline(always)]
    fn prepare(&self, tier: Tier, at: [usize; 3], len: usize, workspace: &mut Workspace) {
        self.scalars(tier, at, workspace);
        let len = len.min(WIDTH);
        for &(step, register) in &self.pass.shared[tier as usize] {
            let mut wide = std::mem::take(&mut workspace.wide[register]);
            wide.resize(WIDTH, 0.0);
            let operand = |source: Source| match source {
                Source::Register(register) => Wide::Vector(&workspace.wide[register][..len]),
                Source::Scalar(scalar) => Wide::Scalar(workspace.scalars[scalar]),
                Source::Input | Source::Upstream | Source::Held(_) => {
                    unreachable!("rows do not share elements of tensors")
                }
            };
            match step {
                Step::Load(load) => self.load(load, at, &mut wide[..len]),
                Step::Unary(prim, a) => wide_step(prim, operand(a), Wide::Scalar(0.0), &mut wide[..len]),
                Step::Binary(prim, a, b) => wide_step(prim, operand(a), operand(b), &mut wide[..len]),
                Step::Subtract(..) | Step::MultiplyAdd(..) => unreachable!("steps of rows only"),
            }
            let narrow = &mut workspace.registers[register];
            narrow.0.iter_mut().zip(&wide[..len]).for_each(|(narrow, &wide)| *narrow = wide as f32);
            workspace.wide[register] = wide;
        }
    }

    #[inline(always)]
    fn load(&self, load: usize, at: [usize; 3], into: &mut [f64]) {
        let slots = self.reads.slots(self.results, self.pass.loads[load]);
        let (lane_axis, _) = self.program.lane.axes();
        let mut index = at;
        for value in into.iter_mut() {
            *value = slots.at(index);
            index[lane_axis] += 1;
        }
    }

    /// The elements of a chunk: more where native code needs none of the registers, which hold
    /// [`WIDTH`].
    fn width(&self) -> usize {
        let (lane_axis, _) = self.program.lane.axes();
        let native = self.pass.native.as_ref();
        let is_gathered = |reads: bool, view: View<'_>| reads && view.strides[lane_axis] != 1;
        let streams = self.pass.write.is_some() && self.program.sizes.elements() >= STREAMED;
        let needs_registers = native.is_none_or(|native| native.uses_registers() || streams && !native.streams())
            || self.pass.accumulate.iter().any(|accumulate| accumulate.by_lane)
            || is_gathered(self.pass.reads[0], self.reads.x)
            || is_gathered(self.pass.reads[1], self.reads.dy)
            || self.pass.write.is_some() && self.out.is_none_or(|out| out.strides[lane_axis] != 1);
        if needs_registers { WIDTH } else { WIDE }
    }

    /// The most elements of a chunk that starts here: those in front of an address that native code can write
    /// past the caches from are one by themselves. Vectors that rows share are read from the start of a run
    /// of lanes, which is one chunk then.
    #[inline(always)]
    fn length(&self, at: [usize; 3], native: Option<&Native>) -> usize {
        match self.out {
            Some(out) if native.is_some_and(Native::splits) && out.strides[self.program.lane.axes().0] == 1 => {
                match out.until_aligned(place(at, out.strides), ALIGNMENT) {
                    0 => usize::MAX,
                    head => head,
                }
            }
            _ => usize::MAX,
        }
    }

    /// The first element of a chunk in what is held.
    #[inline(always)]
    fn first(&self, at: [usize; 3], region: Region) -> usize {
        let (lane_axis, row_axis) = self.program.lane.axes();
        let row = (at[0] - region.start[0]) * region.len(row_axis) + at[row_axis] - region.start[row_axis];
        row * region.len(lane_axis) + at[lane_axis] - region.start[lane_axis]
    }

    #[inline(always)]
    fn destination(&self, at: [usize; 3], len: usize) -> Destination<'_> {
        let (lane_axis, _) = self.program.lane.axes();
        let Some(out) = self.out.as_ref().filter(|_| self.pass.write.is_some()) else { return Destination::Nowhere };
        let start = place(at, out.strides);
        if out.strides[lane_axis] != 1 && len != 1 {
            Destination::Scattered(out, start, out.strides[lane_axis])
        } else if self.program.sizes.elements() >= STREAMED {
            Destination::Streamed(out.run(start, len))
        } else {
            Destination::InPlace(out.run(start, len))
        }
    }

    /// Runs native code for a chunk; false, and nothing is accumulated, if a sum overflows.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn native_chunk(
        &self,
        native: &Native,
        at: [usize; 3],
        region: Region,
        len: usize,
        sums: &mut [Accumulator],
        across: &mut [Accumulator],
        workspace: &mut Workspace,
    ) -> bool {
        let (lane_axis, _) = self.program.lane.axes();
        let first = self.first(at, region);
        let Workspace { registers, held, scalars, x: x_scratch, dy: dy_scratch, out: scratch, frame, .. } = workspace;
        let x = if self.pass.reads[0] { read(self.reads.x, lane_axis, at, len, &mut x_scratch.0) } else { &[] };
        let dy = if self.pass.reads[1] { read(self.reads.dy, lane_axis, at, len, &mut dy_scratch.0) } else { &[] };
        let (mut destination, streams) = match self.destination(at, len) {
            // The code does so itself.
            Destination::Streamed(result) if native.streams() => (Destination::InPlace(result), true),
            destination => (destination, false),
        };
        let result = destination.result(&mut scratch.0);
        let address = |stream: Stream| match stream {
            Stream::Input => x[..len].as_ptr().cast_mut(),
            Stream::Upstream => dy[..len].as_ptr().cast_mut(),
            Stream::Output => result[..len].as_mut_ptr(),
            Stream::Held(number) => held[number][first..first + len].as_mut_ptr(),
            Stream::Register(number) => registers[number].0[..len].as_mut_ptr(),
        };
        let sums_up = self.pass.accumulate.iter().filter(|accumulate| !accumulate.by_lane);
        let centre = |number: usize| match sums_up.clone().nth(number).expect("one of these").target {
            Target::Block(number) => sums[number].centre[sums[number].layout.index(at)],
            Target::Across(_) => unreachable!("only sums run across blocks"),
        };
        // SAFETY: each address is that of `len` elements; code writes to none of those of `x` and `dy`.
        #[allow(unsafe_code)]
        let Some(mut parts) = (unsafe { native.run(frame, len, streams, centre, address) }) else {
            return false;
        };
        for accumulate in &self.pass.accumulate {
            let target = match accumulate.target {
                Target::Block(number) => &mut sums[number],
                Target::Across(number) => &mut across[number],
            };
            let slot = target.layout.index(at);
            if accumulate.by_lane {
                add(accumulate, &Chunk { registers, scalars, x, dy, held, start: first, len }, target, slot);
                continue;
            }
            match parts.next().expect("native code sums up all that is not by lane") {
                Part::Sum(sum) => target.first[slot] += sum,
                Part::Moments(moments) => target.add_moments(slot, moments),
            }
        }
        destination.deliver(&scratch.0, len);
        true
    }

    /// Interprets the steps for a chunk.
    #[inline(always)]
    fn chunk<const FMA: bool>(
        &self,
        at: [usize; 3],
        region: Region,
        len: usize,
        sums: &mut [Accumulator],
        across: &mut [Accumulator],
        workspace: &mut Workspace,
    ) {
        let (lane_axis, _) = self.program.lane.axes();
        let first = self.first(at, region);
        let Workspace { registers, held, scalars, spare, x: x_scratch, dy: dy_scratch, out: scratch, .. } = workspace;
        let x = if self.pass.reads[0] { read_ahead(self.reads.x, lane_axis, at, len, &mut x_scratch.0) } else { &[] };
        let dy =
            if self.pass.reads[1] { read_ahead(self.reads.dy, lane_axis, at, len, &mut dy_scratch.0) } else { &[] };
        let mut destination = self.destination(at, len);
        let result = &mut destination.result(&mut scratch.0)[..len];
        let steps = &self.pass.steps;
        let (last, earlier) = match steps.split_last() {
            Some((last, earlier)) if self.pass.last_step_writes => (Some(last), earlier),
            _ => (None, &steps[..]),
        };
        for &(step, place) in earlier {
            let mut taken = match place {
                Place::Register(_) => vec![],
                Place::Held(number) => std::mem::take(&mut held[number]),
            };
            let into = match place {
                Place::Register(_) => &mut spare.0[..len],
                Place::Held(_) => &mut taken[first..first + len],
            };
            Chunk { registers, scalars, x, dy, held, start: first, len }.step::<FMA>(step, into);
            match place {
                Place::Register(register) => std::mem::swap(&mut registers[register], spare),
                Place::Held(number) => held[number] = taken,
            }
        }
        if let Some(&(step, _)) = last {
            Chunk { registers, scalars, x, dy, held, start: first, len }.step::<FMA>(step, result);
        } else if let Some(source) = self.pass.write {
            match (Chunk { registers, scalars, x, dy, held, start: first, len }).operand(source) {
                Operand::Vector(values) => result.copy_from_slice(values),
                Operand::Scalar(value) => result.fill(value as f32),
            }
        }
        for accumulate in &self.pass.accumulate {
            let target = match accumulate.target {
                Target::Block(number) => &mut sums[number],
                Target::Across(number) => &mut across[number],
            };
            let slot = target.layout.index(at);
            add(accumulate, &Chunk { registers, scalars, x, dy, held, start: first, len }, target, slot);
        }
        destination.deliver(&scratch.0, len);
    }
}

/// The index of an element.
#[inline(always)]
fn place(at: [usize; 3], strides: [usize; 3]) -> usize {
    (0..3).map(|axis| at[axis] * strides[axis]).sum()
}

/// Where the result of a chunk goes.
enum Destination<'a> {
    /// The pass has none, or nobody wants it.
    Nowhere,
    InPlace(&'a mut [f32]),
    /// Past the caches.
    Streamed(&'a mut [f32]),
    /// From a place on, so far apart.
    Scattered(&'a Shared<'a>, usize, usize),
}

impl Destination<'_> {
    /// Where to write it.
    #[inline(always)]
    fn result<'b>(&'b mut self, scratch: &'b mut [f32]) -> &'b mut [f32] {
        match self {
            Destination::InPlace(result) => result,
            Destination::Nowhere | Destination::Streamed(_) | Destination::Scattered(..) => scratch,
        }
    }

    /// Brings it to its place from the scratch.
    #[inline(always)]
    fn deliver(self, scratch: &[f32], len: usize) {
        match self {
            Destination::Nowhere | Destination::InPlace(_) => {}
            Destination::Streamed(result) => stream(result, &scratch[..len]),
            Destination::Scattered(out, start, stride) => {
                for (lane, &value) in scratch[..len].iter().enumerate() {
                    out.run(start + lane * stride, 1)[0] = value;
                }
            }
        }
    }
}

/// A chunk of a tensor: in place where it is contiguous, else gathered.
#[inline(always)]
fn read<'a>(view: View<'a>, lane_axis: usize, at: [usize; 3], len: usize, scratch: &'a mut [f32]) -> &'a [f32] {
    let start = place(at, view.strides);
    let stride = view.strides[lane_axis];
    if stride == 1 || len == 1 {
        return &view.data[start..start + len];
    }
    for (lane, value) in scratch[..len].iter_mut().enumerate() {
        *value = view.data[start + lane * stride];
    }
    &scratch[..len]
}

/// The same, and asks for a later chunk, which native code does itself.
#[inline(always)]
fn read_ahead<'a>(view: View<'a>, lane_axis: usize, at: [usize; 3], len: usize, scratch: &'a mut [f32]) -> &'a [f32] {
    if view.strides[lane_axis] == 1 || len == 1 {
        // The hardware stops at every page, and there is work enough to hide the way to memory.
        let start = place(at, view.strides);
        let (from, to) = (start + AHEAD, start + AHEAD + len);
        prefetch(&view.data[from.min(view.data.len())..to.min(view.data.len())]);
    }
    read(view, lane_axis, at, len, scratch)
}

/// Adds a chunk to an accumulator, from slot `slot` on.
#[inline(always)]
fn add(accumulate: &Accumulate, chunk: &Chunk<'_>, sums: &mut Accumulator, slot: usize) {
    let vector = |source: Source| match chunk.operand(source) {
        Operand::Vector(values) => values,
        Operand::Scalar(_) => unreachable!("what is reduced varies along the lanes"),
    };
    let values = match accumulate.operand {
        Operands::Product(a, b) => {
            sums.first[slot] += dot(vector(a), vector(b));
            return;
        }
        Operands::Value(source) => vector(source),
    };
    if !accumulate.by_lane {
        match accumulate.kind {
            Kind::Sum => sums.first[slot] += sum(values),
            Kind::SumOfSquares => sums.first[slot] += sum_of_squares(values),
            Kind::Moments => sums.add_moments(slot, moments(values)),
        }
        return;
    }
    let slots = slot..slot + values.len();
    let first = &mut sums.first[slots.clone()];
    match accumulate.kind {
        Kind::Sum => first.iter_mut().zip(values).for_each(|(sum, &x)| *sum += f64::from(x)),
        Kind::SumOfSquares => first.iter_mut().zip(values).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x)),
        Kind::Moments => {
            let (centre, second) = (&mut sums.centre[slots.clone()], &mut sums.second[slots.clone()]);
            let count = &mut sums.count[slots];
            // Every lane has seen as many.
            if count.first() == Some(&0.0) {
                let finite = |x: f32| if x.is_finite() { f64::from(x) } else { 0.0 };
                centre.iter_mut().zip(values).for_each(|(centre, &x)| *centre = finite(x));
            }
            count.iter_mut().for_each(|count| *count += 1.0);
            for (((sum, squares), centre), &x) in first.iter_mut().zip(second).zip(centre).zip(values) {
                let difference = f64::from(x) - *centre;
                *sum += difference;
                *squares += difference * difference;
            }
        }
    }
}
