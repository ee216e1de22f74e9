//! One pass over one region: which rows have which scalars, and in what runs its elements are visited.

use std::ops::Range;

use super::chunk::{Part, offset};
use super::scalars::{Columns, TOGETHER};
use super::{Context, STREAMED};
use crate::native::{ALIGNMENT, Frame, Native, RowNumbers};
use crate::output::{Shared, View};
use crate::program::{Accumulate, PassProgram, SharedStep, Target, Tier};
use crate::slots::{Accumulation, Accumulator, Grid, Region, Slots};
use crate::vector::{Register, Source, WIDTH, Wide, fits, wide_step};

/// The most elements that native code does at once: those of a slot's first run may be visited again, from the
/// cache.
const WIDE: usize = 32 * WIDTH;

/// One pass over one region.
pub(super) struct Job<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) pass: &'a PassProgram,
    pub(super) results: &'a [Slots],
    pub(super) region: Region,
}

/// What it changes.
pub(super) struct State<'a> {
    /// The accumulators of the block, and those across blocks.
    pub(super) sums: &'a mut [Accumulator],
    pub(super) across: &'a mut [Accumulator],
    pub(super) memory: &'a mut Memory,
}

/// Buffers that are used again for every chunk.
#[derive(Default)]
pub(super) struct Memory {
    // In boxes, so that a swap with the spare one moves a pointer.
    #[allow(clippy::vec_box)]
    pub(super) registers: Vec<Box<Register>>,
    /// For each held value, the elements of the region.
    pub(super) held: Vec<Vec<f32>>,
    /// Stands in for the register that a step writes.
    pub(super) spare: Box<Register>,
    /// The registers that rows share, before they are rounded, and those that exceed an f32.
    pub(super) wide: Vec<Vec<f64>>,
    pub(super) exceeding: Vec<usize>,
    /// The scalars of some rows, those of one row, and what native code reads of them.
    columns: Columns,
    pub(super) scalars: Vec<f64>,
    pub(super) numbers: RowNumbers,
    /// Elements of `x`, of `dy` and of the result that are not contiguous.
    pub(super) scratch: Vec<Register>,
    pub(super) frame: Frame,
    /// For each sum, its slots in the runs of a call, and those runs whose sums are not finite.
    pub(super) slots: Vec<usize>,
    /// What native code gives for sums by lane.
    pub(super) summands: Vec<f32>,
    pub(super) not_finite: Vec<usize>,
}

impl Memory {
    fn prepare(&mut self, pass: &PassProgram, held: usize, elements: usize) {
        self.registers.resize_with(self.registers.len().max(pass.registers), Box::default);
        self.wide.resize_with(self.registers.len(), Vec::new);
        self.scratch.resize_with(3, Register::default);
        self.exceeding.clear();
        self.held.resize_with(self.held.len().max(held), Vec::new);
        for held in &mut self.held[..held] {
            held.resize(held.len().max(elements), 0.0);
        }
    }

    /// Brings the scalars of a row to their places.
    pub(super) fn begin_row(&mut self, row: usize, scalars: usize) {
        self.scalars.clear();
        self.scalars.extend((0..scalars).map(|scalar| self.columns.of(scalar)[row]));
    }

    /// Finds the factors that exceed an f32.
    fn find_exceeding(&mut self, factors: &[usize], len: usize) {
        let exceeds = |factor: &usize| !self.wide[*factor][..len].iter().all(|&value| fits(value));
        self.exceeding.clear();
        self.exceeding.extend(factors.iter().copied().filter(exceeds));
    }
}

/// Runs of elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Runs {
    /// The index of the first element of the first one.
    pub(super) at: [usize; 3],
    /// The elements of each. They may go on behind the end of a row.
    pub(super) len: usize,
    pub(super) count: usize,
    /// How many rows behind one the next one starts.
    pub(super) rows: usize,
    /// The number of the first one's scalars, and how far behind those the next one's are.
    pub(super) scalars: usize,
    pub(super) step: usize,
}

impl Runs {
    pub(super) fn one(part: Part) -> Self {
        Self { at: part.at, len: part.len, count: 1, rows: 1, scalars: part.scalars, step: 0 }
    }

    /// The run of that number: behind the last row of a sample follows the first one of the next.
    pub(super) fn nth(self, number: usize, region: Region, row_axis: usize) -> Part {
        let mut at = self.at;
        if number > 0 {
            let row = at[row_axis] - region.start[row_axis] + number * self.rows;
            at[0] += row / region.len(row_axis);
            at[row_axis] = region.start[row_axis] + row % region.len(row_axis);
        }
        Part { at, len: self.len, scalars: self.scalars + number * self.step }
    }

    /// Where the run behind one is.
    pub(super) fn next(self, mut at: [usize; 3], region: Region, row_axis: usize) -> [usize; 3] {
        at[row_axis] += self.rows;
        if at[row_axis] >= region.end[row_axis] {
            at[0] += 1;
            at[row_axis] = region.start[row_axis];
        }
        at
    }
}

/// Rows whose scalars are computed together.
struct Tile {
    samples: Range<usize>,
    rows: Range<usize>,
    /// The indices at which scalars differ.
    grid: Grid,
}

impl Job<'_> {
    pub(super) fn run(&self, state: &mut State<'_>) {
        if self.pass.has_elements() {
            state.memory.prepare(self.pass, self.context.program.held, self.region.elements());
            self.walk(state);
        }
    }

    fn walk(&self, state: &mut State<'_>) {
        let (lane_axis, row_axis) = self.context.program.lane.axes();
        let region = self.region;
        let [lanes_share, samples_share] = [Tier::Lanes, Tier::Sample].map(|tier| self.shares(tier));
        let manner = self.manner();
        // With vectors that rows share, rows are visited for each run of lanes; else in memory order.
        let stride = if lanes_share || samples_share { WIDTH } else { region.len(lane_axis) };
        let together = if lanes_share || samples_share { Together::Rows(1) } else { self.together() };
        for lane in (region.start[lane_axis]..region.end[lane_axis]).step_by(stride) {
            let len = stride.min(region.end[lane_axis] - lane);
            let mut at = region.start;
            at[lane_axis] = lane;
            let mut begins = true;
            self.tiles(lane, samples_share, |tile| {
                let memory = &mut *state.memory;
                self.context.scalars(&self.pass.scalars, self.results, &tile.grid, &mut memory.columns);
                if let Some(native) = &self.pass.native {
                    memory.numbers.fill(native, &memory.columns);
                }
                at[0] = tile.samples.start;
                at[row_axis] = region.start[row_axis];
                let sample_begins = tile.rows.start == region.start[row_axis];
                if begins && lanes_share {
                    self.share(Tier::Lanes, at, len, memory);
                }
                if sample_begins && samples_share {
                    self.share(Tier::Sample, at, len, memory);
                }
                if begins || sample_begins && samples_share {
                    memory.find_exceeding(&self.pass.factors, len);
                }
                begins = false;
                let runs = Runs { at, len: region.elements(), count: 1, rows: 1, scalars: 0, step: 0 };
                match together {
                    Together::All => self.visit(runs, &manner, state),
                    Together::Rows(unit) => self.visit_tile(tile, unit, Runs { len, ..runs }, &manner, state),
                }
            });
        }
    }

    /// Visits the rows of a tile, of which so many are one run.
    fn visit_tile(&self, tile: &Tile, unit: usize, row: Runs, manner: &Manner<'_>, state: &mut State<'_>) {
        let (_, row_axis) = self.context.program.lane.axes();
        let [samples, rows] = [0, row_axis].map(|axis| tile.grid.count[axis]);
        let per_row = usize::from(rows > 1);
        let per_sample = if samples > 1 { rows } else { 0 };
        if unit == 1 && (per_sample == per_row * tile.rows.len()) && self.follow_samples(tile, state.sums) {
            let count = tile.samples.len() * tile.rows.len();
            return self.visit(Runs { count, step: per_row, ..row }, manner, state);
        }
        for sample in tile.samples.clone() {
            let mut next = tile.rows.start;
            while next < tile.rows.end {
                let (left, head) = (tile.rows.end - next, next % unit);
                // Whole runs, or what is left of one.
                let (rows, count) =
                    if head == 0 && left >= unit { (unit, left / unit) } else { (left.min(unit - head), 1) };
                let mut runs = Runs { count, rows, len: rows * row.len, step: rows * per_row, ..row };
                (runs.at[0], runs.at[row_axis]) = (sample, next);
                runs.scalars = (sample - tile.samples.start) * per_sample + (next - tile.rows.start) * per_row;
                self.visit(runs, manner, state);
                next += rows * count;
            }
        }
    }

    /// Whether the first row of a sample is where another row would follow, in every tensor.
    fn follow_samples(&self, tile: &Tile, sums: &[Accumulator]) -> bool {
        let (_, row_axis) = self.context.program.lane.axes();
        let rows = self.region.len(row_axis);
        let is_known = |accumulate: &Accumulate| match accumulate.target {
            // A slot's centre must be known before its other elements are visited.
            Target::Block(number) => {
                accumulate.what != Accumulation::Moments || sums[number].layout.differs_by_sample()
            }
            Target::Across(_) => true,
        };
        tile.rows.len() == rows
            && self.views().iter().flatten().all(|strides| strides[0] == rows * strides[row_axis])
            && self.pass.sums.iter().all(is_known)
    }

    /// The strides of the tensors that the pass reads and writes.
    fn views(&self) -> [Option<[usize; 3]>; 3] {
        let Context { reads, out, .. } = self.context;
        [
            self.pass.reads[0].then_some(reads.x.strides),
            self.pass.reads[1].then_some(reads.dy.strides),
            out.filter(|_| self.pass.write.is_some()).map(|out| out.strides),
        ]
    }

    /// Visits runs of elements.
    fn visit(&self, runs: Runs, manner: &Manner<'_>, state: &mut State<'_>) {
        let (lane_axis, row_axis) = self.context.program.lane.axes();
        let native = manner.native.filter(|_| state.memory.exceeding.is_empty());
        let is_direct = manner.is_direct && runs.len <= manner.most && state.memory.numbers.suit_all();
        let past_caches = manner.streams && is_direct && self.are_aligned(runs);
        if let Some(native) = native.filter(|_| is_direct && past_caches == manner.streams) {
            return self.native_runs(native, runs, past_caches, state);
        }
        for number in 0..runs.count {
            let run = runs.nth(number, self.region, row_axis);
            let native = native.filter(|_| state.memory.numbers.suit(run.scalars));
            let mut start = 0;
            while start < run.len {
                let mut part = run;
                part.at[lane_axis] += start;
                part.len = manner.most.min(run.len - start);
                if manner.splits {
                    part.len = part.len.min(self.until_aligned(part.at));
                }
                start += part.len;
                if !native.is_some_and(|native| self.native_part(native, part, state)) {
                    self.interpret(part, state);
                }
            }
        }
    }

    fn shares(&self, tier: Tier) -> bool {
        !self.pass.shared[tier as usize].is_empty()
    }

    /// Computes what the rows of a tier share: in f64, since it is small and much may depend on it.
    fn share(&self, tier: Tier, at: [usize; 3], len: usize, memory: &mut Memory) {
        let Memory { registers, wide, columns, .. } = memory;
        for &(step, register) in &self.pass.shared[tier as usize] {
            let mut into = std::mem::take(&mut wide[register]);
            into.resize(WIDTH, 0.0);
            let values = &mut into[..len];
            let operand = |source: Source| match source {
                Source::Register(register) => Wide::Vector(&wide[register][..len]),
                Source::Scalar(scalar) => Wide::Scalar(columns.of(scalar)[0]),
                Source::Input | Source::Upstream | Source::Held(_) => {
                    unreachable!("rows do not share elements of tensors")
                }
            };
            match step {
                SharedStep::Load(array) => {
                    let (layout, numbers) = self.context.slots(self.results, array);
                    let mut count = [1; 3];
                    count[self.context.program.lane.axes().0] = len;
                    layout.gather(&Grid { start: at, count, unit: 1 }, numbers, values);
                }
                SharedStep::Unary(prim, a) => wide_step(prim, operand(a), Wide::Scalar(0.0), values),
                SharedStep::Binary(prim, a, b) => wide_step(prim, operand(a), operand(b), values),
                SharedStep::Remainder(of) => {
                    let rounded = &registers[of].0[..len];
                    for ((rest, &value), &rounded) in values.iter_mut().zip(&wide[of]).zip(rounded) {
                        *rest = if rounded.is_finite() { value - f64::from(rounded) } else { 0.0 };
                    }
                }
            }
            let narrow = &mut registers[register];
            narrow.0.iter_mut().zip(&*values).for_each(|(narrow, &wide)| *narrow = wide as f32);
            wide[register] = into;
        }
    }

    /// Hands out the rows of the region, so many together that there are not too many scalars.
    fn tiles(&self, lane: usize, one_sample: bool, mut take: impl FnMut(&Tile)) {
        let (lane_axis, row_axis) = self.context.program.lane.axes();
        let (region, same) = (self.region, self.pass.scalars_same);
        let rows_are_same = self.is_one_unit(same.rows);
        let (samples, rows) = (region.len(0), region.len(row_axis));
        let most_rows = if rows_are_same { rows } else { rows.min(TOGETHER) };
        let most_samples = match (one_sample, same.samples) {
            (true, _) => 1,
            (false, true) => samples,
            (false, false) => if rows_are_same { TOGETHER } else { TOGETHER / most_rows.max(1) }.max(1),
        };
        for sample in (region.start[0]..region.end[0]).step_by(most_samples.max(1)) {
            for row in (region.start[row_axis]..region.end[row_axis]).step_by(most_rows.max(1)) {
                let samples = sample..region.end[0].min(sample + most_samples);
                let rows = row..region.end[row_axis].min(row + most_rows);
                let (mut start, mut count) = (region.start, [1; 3]);
                (start[0], start[row_axis], start[lane_axis]) = (sample, row, lane);
                if !same.samples {
                    count[0] = samples.len();
                }
                if !rows_are_same {
                    count[row_axis] = rows.len();
                }
                take(&Tile { samples, rows, grid: Grid { start, count, unit: 1 } });
            }
        }
    }

    fn manner(&self) -> Manner<'_> {
        let Context { program, reads, out } = self.context;
        let (lane_axis, _) = program.lane.axes();
        let writes = self.pass.write.is_some();
        let native = self.pass.native.as_ref();
        let is_gathered = |reads: bool, view: View<'_>| reads && view.strides[lane_axis] != 1;
        let uses_scratch = is_gathered(self.pass.reads[0], reads.x)
            || is_gathered(self.pass.reads[1], reads.dy)
            || writes && out.is_none_or(|out| out.strides[lane_axis] != 1);
        let streams = writes && program.sizes.elements() >= STREAMED;
        let through_scratch = uses_scratch || streams && !native.is_some_and(Native::streams);
        let uses_registers = native.is_none_or(Native::uses_registers) || !self.pass.by_lane.is_empty();
        Manner {
            native,
            most: if through_scratch || uses_registers { WIDTH } else { WIDE },
            is_direct: !through_scratch,
            streams,
            // Vectors that rows share are read from the start of a run of lanes, which is one part then.
            splits: streams && !through_scratch && !uses_registers,
        }
    }

    /// Whether the result of each run starts where native code can write it past the caches.
    fn are_aligned(&self, runs: Runs) -> bool {
        let (_, row_axis) = self.context.program.lane.axes();
        let stride = |out: &Shared<'_>| runs.rows * out.strides[row_axis] * size_of::<f32>();
        self.until_aligned(runs.at) == usize::MAX
            && self.context.out.is_some_and(|out| runs.count == 1 || stride(&out).is_multiple_of(ALIGNMENT))
    }

    /// How many elements of the result are in front of an address from which on native code can write it past the
    /// caches; as many as can be if there is none.
    fn until_aligned(&self, at: [usize; 3]) -> usize {
        let elements = self.context.out.map_or(0, |out| out.until_aligned(offset(at, out.strides), ALIGNMENT));
        if elements == 0 { usize::MAX } else { elements }
    }

    /// Whether all rows of the region are part of one unit of so many, counted from a multiple of that number.
    fn is_one_unit(&self, unit: usize) -> bool {
        let (_, row_axis) = self.context.program.lane.axes();
        let (start, end) = (self.region.start[row_axis], self.region.end[row_axis]);
        start / unit == (end - 1) / unit
    }

    /// Which rows follow one another in memory and have the same scalars and sums.
    fn together(&self) -> Together {
        let (lane_axis, row_axis) = self.context.program.lane.axes();
        let (region, views) = (self.region, self.views());
        let follow = |axis: usize, len: usize| {
            let follows = |strides: &[usize; 3]| strides[lane_axis] == 1 && strides[axis] == len;
            region.len(axis) == 1 || views.iter().flatten().all(follows)
        };
        let lanes = region.len(lane_axis);
        let same = self.pass.same;
        if !follow(row_axis, lanes) {
            return Together::Rows(1);
        }
        let all_rows = self.is_one_unit(same.rows);
        if all_rows && same.rows != 1 && same.samples && follow(0, lanes * region.len(row_axis)) {
            return Together::All;
        }
        Together::Rows(if all_rows { usize::MAX } else { same.rows })
    }
}

/// How the runs of a pass are visited.
struct Manner<'a> {
    native: Option<&'a Native>,
    /// The most elements of a part: what goes through a register is not longer.
    most: usize,
    /// Whether native code can do whole runs, and many.
    is_direct: bool,
    /// Whether the result is written past the caches, and whether a run is split where native code can do so.
    streams: bool,
    splits: bool,
}

/// Which rows of a region are one run of elements.
#[derive(Debug, Clone, Copy)]
enum Together {
    /// So many, counted from a multiple of that number.
    Rows(usize),
    /// Those of all samples.
    All,
}
