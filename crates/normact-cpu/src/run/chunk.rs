//! Steps of a pass for some hundred elements, as the interpreter does them.

use super::pass::{Job, Memory, State};
use super::vectorized::{Vectorized, vectorized};
use super::{AHEAD, STREAMED};
use crate::output::{Shared, View, prefetch, stream};
use crate::program::{Accumulate, Home, Summand, Target};
use crate::slots::{Accumulation, Accumulator};
use crate::vector::{Chunk, Operand, Source, WIDTH, dot, moments, sum, sum_of_squares};

/// A part of a run of elements.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    /// The index of its first element. It may go on behind the end of its row.
    pub(super) at: [usize; 3],
    pub(super) len: usize,
    /// The number of its row's scalars.
    pub(super) scalars: usize,
}

impl Job<'_> {
    /// Interprets the steps for a part of a run.
    pub(super) fn interpret(&self, part: Part, state: &mut State<'_>) {
        struct Task<'a, 'b>(&'a Job<'a>, Part, &'a mut State<'b>);
        impl Vectorized for Task<'_, '_> {
            #[inline(always)]
            fn run<const FMA: bool>(self) {
                let Task(job, part, state) = self;
                let (lane_axis, _) = job.context.program.lane.axes();
                for start in (0..part.len).step_by(WIDTH) {
                    let mut at = part.at;
                    at[lane_axis] += start;
                    job.chunk::<FMA>(at, WIDTH.min(part.len - start), state);
                }
            }
        }
        state.memory.begin_row(part.scalars, self.pass.scalars.steps.len());
        vectorized(Task(self, part, state));
    }

    #[inline(always)]
    fn chunk<const FMA: bool>(&self, at: [usize; 3], len: usize, state: &mut State<'_>) {
        let (lane_axis, _) = self.context.program.lane.axes();
        let (pass, reads) = (self.pass, self.context.reads);
        let start = self.first(at);
        let State { sums, across, memory } = state;
        let Memory { registers, held, scalars, spare, scratch, wide, exceeding, .. } = &mut **memory;
        let [x, dy, out] = &mut scratch[..] else { unreachable!("three of them") };
        let x = if pass.reads[0] { read_ahead(reads.x, lane_axis, at, len, &mut x.0) } else { &[] };
        let dy = if pass.reads[1] { read_ahead(reads.dy, lane_axis, at, len, &mut dy.0) } else { &[] };
        let mut written = self.written(at, len);
        let result = &mut written.memory(&mut out.0)[..len];
        let (last, earlier) = match pass.steps.split_last() {
            Some((last, earlier)) if pass.last_step_writes => (Some(last), earlier),
            _ => (None, &pass.steps[..]),
        };
        for &(step, home) in earlier {
            let mut taken = match home {
                Home::Register(_) => vec![],
                Home::Held(number) => std::mem::take(&mut held[number]),
            };
            let into = match home {
                Home::Register(_) => &mut spare.0[..len],
                Home::Held(_) => &mut taken[start..start + len],
            };
            Chunk { registers, scalars, x, dy, held, start, len, wide, exceeding }.step::<FMA>(step, into);
            match home {
                Home::Register(register) => std::mem::swap(&mut registers[register], spare),
                Home::Held(number) => held[number] = taken,
            }
        }
        let chunk = Chunk { registers, scalars, x, dy, held, start, len, wide, exceeding };
        if let Some(&(step, _)) = last {
            chunk.step::<FMA>(step, result);
        } else if let Some(source) = pass.write {
            match chunk.operand(source) {
                Operand::Vector(values) => result.copy_from_slice(values),
                Operand::Scalar(value) => result.fill(value as f32),
            }
        }
        for accumulate in &pass.sums {
            let (target, slot) = target(accumulate, at, sums, across);
            add(accumulate, &chunk, target, slot);
        }
        for accumulate in &pass.by_lane {
            let (target, slot) = target(accumulate, at, sums, across);
            let Summand::Value(value) = accumulate.summand else {
                unreachable!("products are stored for sums by lane")
            };
            add_by_lane(accumulate.what, vector(&chunk, value), target, slot);
        }
        written.deliver(&out.0, len);
    }

    /// The first element of a part in what is held.
    #[inline]
    pub(super) fn first(&self, at: [usize; 3]) -> usize {
        let (lane_axis, row_axis) = self.context.program.lane.axes();
        let (region, from) = (self.region, |axis: usize| at[axis] - self.region.start[axis]);
        (from(0) * region.len(row_axis) + from(row_axis)) * region.len(lane_axis) + from(lane_axis)
    }

    #[inline]
    pub(super) fn written(&self, at: [usize; 3], len: usize) -> Written<'_> {
        let (lane_axis, _) = self.context.program.lane.axes();
        let Some(out) = self.context.out.as_ref().filter(|_| self.pass.write.is_some()) else {
            return Written::Nowhere;
        };
        let start = offset(at, out.strides);
        if out.strides[lane_axis] != 1 && len != 1 {
            Written::Scattered(out, start, out.strides[lane_axis])
        } else if self.context.program.sizes.elements() >= STREAMED {
            Written::Streamed(out.run(start, len))
        } else {
            Written::InPlace(out.run(start, len))
        }
    }
}

/// Where an element is, in elements from the first.
#[inline(always)]
pub(super) fn offset(at: [usize; 3], strides: [usize; 3]) -> usize {
    (0..3).map(|axis| at[axis] * strides[axis]).sum()
}

/// The accumulator of a sum, and the slot of an element or of the first lane in it.
#[inline(always)]
fn target<'a>(
    accumulate: &Accumulate,
    at: [usize; 3],
    sums: &'a mut [Accumulator],
    across: &'a mut [Accumulator],
) -> (&'a mut Accumulator, usize) {
    let target = match accumulate.target {
        Target::Block(number) => &mut sums[number],
        Target::Across(number) => &mut across[number],
    };
    let slot = target.layout.index(at);
    (target, slot)
}

/// Where the result of a part goes.
pub(super) enum Written<'a> {
    /// The pass has none, or nobody wants it.
    Nowhere,
    InPlace(&'a mut [f32]),
    /// Past the caches.
    Streamed(&'a mut [f32]),
    /// From a place on, so far apart.
    Scattered(&'a Shared<'a>, usize, usize),
}

impl Written<'_> {
    /// Where to write it.
    #[inline(always)]
    pub(super) fn memory<'b>(&'b mut self, scratch: &'b mut [f32]) -> &'b mut [f32] {
        match self {
            Written::InPlace(result) => result,
            Written::Nowhere | Written::Streamed(_) | Written::Scattered(..) => scratch,
        }
    }

    /// Brings it to its place from the scratch.
    #[inline(always)]
    pub(super) fn deliver(self, scratch: &[f32], len: usize) {
        match self {
            Written::Nowhere | Written::InPlace(_) => {}
            Written::Streamed(result) => stream(result, &scratch[..len]),
            Written::Scattered(out, start, stride) => {
                for (lane, &value) in scratch[..len].iter().enumerate() {
                    out.run(start + lane * stride, 1)[0] = value;
                }
            }
        }
    }
}

/// A part of a tensor: in place where it is contiguous, else gathered.
#[inline(always)]
pub(super) fn read<'a>(
    view: View<'a>,
    lane_axis: usize,
    at: [usize; 3],
    len: usize,
    scratch: &'a mut [f32],
) -> &'a [f32] {
    let (start, stride) = (offset(at, view.strides), view.strides[lane_axis]);
    if stride == 1 || len == 1 {
        return &view.data[start..start + len];
    }
    for (lane, value) in scratch[..len].iter_mut().enumerate() {
        *value = view.data[start + lane * stride];
    }
    &scratch[..len]
}

/// The same, and asks for a later part, which native code does itself.
#[inline(always)]
fn read_ahead<'a>(view: View<'a>, lane_axis: usize, at: [usize; 3], len: usize, scratch: &'a mut [f32]) -> &'a [f32] {
    if view.strides[lane_axis] == 1 || len == 1 {
        // The hardware stops at every page, and there is work enough to hide the way to memory.
        let start = offset(at, view.strides);
        let (from, to) = (start + AHEAD, start + AHEAD + len);
        prefetch(&view.data[from.min(view.data.len())..to.min(view.data.len())]);
    }
    read(view, lane_axis, at, len, scratch)
}

#[inline(always)]
fn vector<'a>(chunk: &Chunk<'a>, source: Source) -> &'a [f32] {
    match chunk.operand(source) {
        Operand::Vector(values) => values,
        Operand::Scalar(_) => unreachable!("what is reduced varies along the lanes"),
    }
}

/// Adds a chunk to a slot of an accumulator.
#[inline(always)]
fn add(accumulate: &Accumulate, chunk: &Chunk<'_>, sums: &mut Accumulator, slot: usize) {
    match (accumulate.summand, accumulate.what) {
        (Summand::Product(a, b), _) => sums.first[slot] += dot(vector(chunk, a), vector(chunk, b)),
        (Summand::Value(value), Accumulation::Sum) => sums.first[slot] += sum(vector(chunk, value)),
        (Summand::Value(value), Accumulation::SumOfSquares) => {
            sums.first[slot] += sum_of_squares(vector(chunk, value));
        }
        (Summand::Value(value), Accumulation::Moments) => sums.add_moments(slot, moments(vector(chunk, value))),
    }
}

/// Adds each element to a slot of its own, from `slot` on.
#[inline(always)]
pub(super) fn add_by_lane(what: Accumulation, values: &[f32], sums: &mut Accumulator, slot: usize) {
    let slots = slot..slot + values.len();
    let first = &mut sums.first[slots.clone()];
    match what {
        Accumulation::Sum => first.iter_mut().zip(values).for_each(|(sum, &x)| *sum += f64::from(x)),
        Accumulation::SumOfSquares => {
            first.iter_mut().zip(values).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
        }
        Accumulation::Moments => {
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
