//! Native code for runs of elements.

use super::chunk::{Part, Written, add_by_lane, offset, read};
use super::pass::{Job, Memory, Runs, State};
use crate::native::{ALIGNMENT, MOST_ROWS, Native, Rows, Stream};
use crate::output::View;
use crate::program::{Accumulate, Summand, Target};
use crate::slots::{Accumulation, Accumulator};
use crate::vector::{Source, WIDTH};

/// Where the first of several runs is in memory, and how many elements behind it the next one is.
type Start = (*mut f32, usize);

/// Of what is not read.
const NOWHERE: Start = (std::ptr::null_mut(), 0);

/// The most elements of what is summed up by lane in one call.
const SUMMANDS: usize = 4 * WIDTH;

/// What one call of native code does.
struct Call<'a> {
    native: &'a Native,
    runs: Runs,
    x: Start,
    dy: Start,
    out: Start,
    past_caches: bool,
}

impl Job<'_> {
    /// Does runs whose elements are contiguous in every tensor.
    pub(super) fn native_runs(&self, native: &Native, runs: Runs, past_caches: bool, state: &mut State<'_>) {
        let (_, row_axis) = self.context.program.lane.axes();
        let (pass, reads) = (self.pass, self.context.reads);
        let mut left = runs;
        while left.count > 0 {
            let State { sums, across, memory } = &mut *state;
            let few = Runs { count: left.count.min(self.most_runs(left.len)), ..left };
            let runs = Runs { count: self.independent(few, sums, across, &mut memory.slots), ..few };
            let start = |strides: [usize; 3]| (offset(runs.at, strides), runs.rows * strides[row_axis]);
            let reach = |stride: usize| stride * (runs.count - 1) + runs.len;
            let read = |is_read: bool, view: View<'_>| {
                let (start, stride) = start(view.strides);
                if is_read { (view.data[start..start + reach(stride)].as_ptr().cast_mut(), stride) } else { NOWHERE }
            };
            let out = match self.context.out {
                Some(out) if pass.write.is_some() => {
                    let (start, stride) = start(out.strides);
                    (out.part(start, reach(stride)), stride)
                }
                // What nobody wants has the same place for every run.
                None if pass.write.is_some() => (state.memory.scratch[0].0[..runs.len].as_mut_ptr(), 0),
                _ => NOWHERE,
            };
            let (x, dy) = (read(pass.reads[0], reads.x), read(pass.reads[1], reads.dy));
            // SAFETY: all runs lie within `x`, `dy` and the result, as has been asked of each.
            #[allow(unsafe_code)]
            unsafe {
                self.call(&Call { native, runs, x, dy, out, past_caches }, state);
            }
            while let Some(run) = state.memory.not_finite.pop() {
                self.interpret(runs.nth(run, self.region, row_axis), state);
            }
            let next = runs.nth(runs.count, self.region, row_axis);
            left = Runs { at: next.at, scalars: next.scalars, count: left.count - runs.count, ..left };
        }
    }

    /// Does a part of a run, whose elements may have to be gathered; false, and nothing is accumulated, if a sum is
    /// not finite.
    pub(super) fn native_part(&self, native: &Native, part: Part, state: &mut State<'_>) -> bool {
        let Part { at, len, .. } = part;
        let (lane_axis, _) = self.context.program.lane.axes();
        let (pass, reads) = (self.pass, self.context.reads);
        let mut scratch = std::mem::take(&mut state.memory.scratch);
        let [x, dy, out] = &mut scratch[..] else { unreachable!("three of them") };
        let read = |is_read: bool, view: View<'_>, into: &mut [f32]| {
            if is_read { (read(view, lane_axis, at, len, into)[..len].as_ptr().cast_mut(), 0) } else { NOWHERE }
        };
        let (x, dy) = (read(pass.reads[0], reads.x, &mut x.0), read(pass.reads[1], reads.dy, &mut dy.0));
        let (mut written, past_caches) = match self.written(at, len) {
            // The code does so itself, from such an address on.
            Written::Streamed(result) if native.streams() => {
                let is_aligned = result.as_ptr().addr().is_multiple_of(ALIGNMENT);
                (Written::InPlace(result), is_aligned)
            }
            written => (written, false),
        };
        let is_written = pass.write.is_some();
        let into = if is_written { (written.memory(&mut out.0)[..len].as_mut_ptr(), 0) } else { NOWHERE };
        let call = Call { native, runs: Runs::one(part), x, dy, out: into, past_caches };
        self.independent(call.runs, state.sums, state.across, &mut state.memory.slots);
        // SAFETY: each address is that of `len` elements.
        #[allow(unsafe_code)]
        unsafe {
            self.call(&call, state);
        }
        let is_done = state.memory.not_finite.pop().is_none();
        if is_done {
            written.deliver(&out.0, len);
        }
        state.memory.scratch = scratch;
        is_done
    }

    /// The most runs of a call: what is summed up by lane must stay in the first-level cache.
    fn most_runs(&self, len: usize) -> usize {
        if self.pass.by_lane.is_empty() { MOST_ROWS } else { (SUMMANDS / len).clamp(1, MOST_ROWS) }
    }

    /// Finds the slots of runs in each accumulator, and gives how many of them can be done in one call: the centre
    /// of a slot's moments, which is that of its first run, must be known before its others are done.
    fn independent(&self, runs: Runs, sums: &[Accumulator], across: &[Accumulator], slots: &mut Vec<usize>) -> usize {
        let (_, row_axis) = self.context.program.lane.axes();
        let mut count = runs.count;
        slots.resize(self.pass.sums.len() * MOST_ROWS, 0);
        for (accumulate, slots) in self.pass.sums.iter().zip(slots.as_chunks_mut::<MOST_ROWS>().0) {
            let sums = match accumulate.target {
                Target::Block(number) => &sums[number],
                Target::Across(number) => &across[number],
            };
            let mut at = runs.at;
            for slot in &mut slots[..count] {
                *slot = sums.layout.index(at);
                at = runs.next(at, self.region, row_axis);
            }
            if accumulate.what == Accumulation::Moments {
                let waits = |pair: &[usize]| pair[0] == pair[1] && sums.count[pair[0]] == 0.0;
                count = slots[..count].windows(2).position(waits).map_or(count, |before| before + 1);
            }
        }
        count
    }

    /// Calls native code, and accumulates the sums of all runs but those of [`Memory::not_finite`].
    ///
    /// # Safety
    /// The elements of all runs can be read and written where they start, with no other reference to them in
    /// use. Their slots have been found.
    #[allow(unsafe_code)]
    unsafe fn call(&self, call: &Call<'_>, state: &mut State<'_>) {
        let Call { native, runs, .. } = *call;
        let (lane_axis, row_axis) = self.context.program.lane.axes();
        let State { sums, across, memory } = state;
        let Memory { registers, held, frame, numbers, slots, summands, not_finite, .. } = &mut **memory;
        let (first, behind) = (self.first(runs.at), runs.rows * self.region.len(lane_axis));
        let elements = runs.count * runs.len;
        summands.resize(summands.len().max(self.pass.by_lane.len() * elements), 0.0);
        let summand = |source: Source| {
            let is_source = |accumulate: &Accumulate| accumulate.summand == Summand::Value(source);
            self.pass.by_lane.iter().position(is_source)
        };
        native.begin(frame, |stream| match stream {
            Stream::Input => call.x,
            Stream::Upstream => call.dy,
            Stream::Output => call.out,
            Stream::Held(number) => {
                let end = first + behind * (runs.count - 1) + runs.len;
                (held[number][first..end].as_mut_ptr(), behind)
            }
            Stream::Register(number) => match summand(Source::Register(number)) {
                Some(place) => (summands[place * elements..][..elements].as_mut_ptr(), runs.len),
                None => (registers[number].0[..runs.len].as_mut_ptr(), 0),
            },
        });
        let slots = slots.as_chunks::<MOST_ROWS>().0;
        for (number, (accumulate, slots)) in self.pass.sums.iter().zip(slots).enumerate() {
            let centre = |&slot: &usize| match accumulate.target {
                Target::Block(number) if accumulate.what == Accumulation::Moments => sums[number].centre[slot],
                Target::Block(_) | Target::Across(_) => 0.0,
            };
            native.set_windows(frame, number, slots[..runs.count].iter().map(centre));
        }
        let rows = Rows {
            count: runs.count,
            len: runs.len,
            numbers: numbers.from(runs.scalars),
            step: runs.step,
            past_caches: call.past_caches,
        };
        // SAFETY: by the conditions above; what is held of the runs and the registers are as long.
        unsafe { native.run(frame, rows) };
        if (0..self.pass.sums.len()).any(|sum| !native.suits(frame, sum, rows)) {
            // SAFETY: as before.
            not_finite.extend((0..runs.count).filter(|&run| !unsafe { native.settle(frame, rows, run) }));
        }
        for (number, (accumulate, slots)) in self.pass.sums.iter().zip(slots).enumerate() {
            let sums = match accumulate.target {
                Target::Block(number) => &mut sums[number],
                Target::Across(number) => &mut across[number],
            };
            for (run, (&slot, &sum)) in slots.iter().zip(native.totals(frame, number, rows)).enumerate() {
                if !not_finite.is_empty() && not_finite.contains(&run) {
                    continue;
                }
                match accumulate.what {
                    Accumulation::Sum => sums.first[slot] += sum,
                    Accumulation::SumOfSquares => {
                        sums.first[slot] += native.moments(frame, number, rows, run).squares;
                    }
                    Accumulation::Moments => sums.add_moments(slot, native.moments(frame, number, rows, run)),
                }
            }
        }
        for accumulate in &self.pass.by_lane {
            let Summand::Value(source) = accumulate.summand else {
                unreachable!("products are stored for sums by lane")
            };
            let (start, stride) = match source {
                Source::Input => call.x,
                Source::Upstream => call.dy,
                Source::Held(number) => (held[number][first..].as_mut_ptr(), behind),
                Source::Register(_) => {
                    let place = summand(source).expect("one of those by lane");
                    (summands[place * elements..].as_mut_ptr(), runs.len)
                }
                Source::Scalar(_) => unreachable!("what is reduced varies along the lanes"),
            };
            let sums = match accumulate.target {
                Target::Block(number) => &mut sums[number],
                Target::Across(number) => &mut across[number],
            };
            let mut at = runs.at;
            for run in 0..runs.count {
                if !not_finite.contains(&run) {
                    // SAFETY: by the conditions above, or what code has just written.
                    let values = unsafe { std::slice::from_raw_parts(start.wrapping_add(run * stride), runs.len) };
                    add_by_lane(accumulate.what, values, sums, sums.layout.index(at));
                }
                at = runs.next(at, self.region, row_axis);
            }
        }
    }
}
