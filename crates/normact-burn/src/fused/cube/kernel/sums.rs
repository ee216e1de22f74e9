//! What is added up over the elements of a slot, and what comes of it.

// What is unrolled and assigned here is expanded into a kernel, where these forms have a meaning of
// their own.
#![allow(clippy::assign_op_pattern, clippy::needless_range_loop)]

use cubecl::prelude::*;
use normact_plan::graph::Statistic;

use super::super::program::{Accumulate, Part, Span, Target, Walk, number};
use super::places::{At, Cursor, Visit, advance, cursor, locate, next_to, place};
use super::{Buffers, evaluate};

/// How many sums one thread adds up at a time. A workgroup is at most its square.
pub(in super::super) const RADIX: usize = 16;

/// How many elements, or vectors of them, a thread with a slot of its own adds up before it adds their sum to the
/// others: a sum of so many numbers in f32, and then of as many sums, keeps more digits than one of all.
pub(in super::super) const RUN: usize = 256;

/// What a thread accumulates, in each lane. Moments are sums of differences from its first element, which keep their
/// digits where the mean is large, and are updated by Welford's method, which keeps them where it is not.
#[derive(CubeType)]
struct Sums<M: Size> {
    parts: Array<Vector<f32, M>>,
    shifts: Array<Vector<f32, M>>,
    means: Array<Vector<f32, M>>,
    squares: Array<Vector<f32, M>>,
}

/// How far a thread is in a slot.
#[derive(CubeType, Clone, Copy)]
struct Progress {
    element: usize,
    sample: usize,
    channel: usize,
    position: usize,
    /// How many elements it has seen.
    seen: f32,
}

#[cube]
impl Progress {
    /// At an element, with none seen so far.
    fn at(element: usize, cursor: &Cursor) -> Progress {
        Progress { element, sample: cursor.sample, channel: cursor.channel, position: cursor.position, seen: 0.0f32 }
    }
}

/// The work of a team on one slot.
#[cube]
pub(super) fn slot<T: Float, S: Float, N: Size, M: Size>(
    buffers: &mut Buffers<T, S, N>,
    registers: &mut Registry<usize, Vector<f32, M>>,
    shared: &mut Shared<[f32]>,
    block: &At,
    visit: &Visit,
    #[comptime] workgroup: usize,
    #[comptime] walk: Walk,
) {
    let fixed = comptime!(walk.slot_ops.clone());
    evaluate::<T, S, N, M>(buffers, registers, &visit.at, comptime!(walk.lanes), fixed);
    let sums = comptime!(walk.accumulate.len());
    let size = visit.samples * visit.channels * visit.positions;
    let first = select(visit.is_slot, visit.lane, size);
    let moments = comptime!(walk.moments());
    let mut sums_of_thread = Sums::<M> {
        parts: Array::new(comptime!(sums.max(1))),
        shifts: Array::new(comptime!(moments.len().max(1))),
        means: Array::new(comptime!(moments.len().max(1))),
        squares: Array::new(comptime!(moments.len().max(1))),
    };
    // The sums of the slot, and for moments two more numbers each; of each slot, where there are several at a time.
    let slots = comptime!(walk.slots_at_a_time());
    let mut totals = Array::<f32>::new(comptime!((sums * slots).max(1)));
    let combined = comptime!(sums.max(2 * moments.len()));
    let mut values = Array::<f32>::new(comptime!((combined * slots).max(1)));
    #[unroll]
    for number in 0..moments.len() {
        sums_of_thread.shifts[number] = Vector::new(0.0f32);
    }
    if comptime!(walk.is_alone()) {
        sum_alone::<T, S, N, M>(
            buffers,
            registers,
            &mut sums_of_thread,
            &mut totals,
            &mut values,
            visit,
            first,
            size,
            comptime!(walk.clone()),
        );
    } else {
        sum_together::<T, S, N, M>(
            buffers,
            registers,
            shared,
            &mut sums_of_thread,
            &mut totals,
            &mut values,
            visit,
            first,
            size,
            workgroup,
            comptime!(walk.clone()),
        );
    }

    let mut results = Registry::<usize, f32>::new();
    #[unroll]
    for sum in 0..sums {
        let accumulate = comptime!(walk.accumulate[sum].clone());
        let number = comptime!(moments.iter().position(|&moment| moment == sum).unwrap_or(0));
        let count = buffers.counts.find(accumulate.count);
        #[unroll]
        for slot in 0..slots {
            let total = guarded(totals[comptime!(sum * slots + slot)], block, comptime!(accumulate.clone()));
            let place = comptime!(2 * (number * slots + slot));
            #[unroll]
            for number_of_result in 0..accumulate.results.len() {
                let result = comptime!(accumulate.results[number_of_result].clone());
                let is_moments = comptime!(accumulate.is_moments());
                let value = match result.statistic {
                    Statistic::Sum => total,
                    Statistic::Mean => {
                        if comptime!(is_moments && walk.is_alone()) {
                            let shift = sums_of_thread.shifts[number].extract(slot);
                            let (mean, low) = in_two_parts(shift, values[place]);
                            match result.part {
                                Part::Value => mean,
                                Part::Low => low,
                            }
                        } else if comptime!(is_moments) {
                            let rough = total / count;
                            let correction = values[place] / count;
                            let mean = rough + correction;
                            match result.part {
                                Part::Value => mean,
                                // What the rounding of the sum has lost.
                                Part::Low => (rough - mean) + correction,
                            }
                        } else {
                            total / count
                        }
                    }
                    Statistic::MeanSquare => total / count,
                    Statistic::Variance => {
                        if comptime!(walk.is_alone()) {
                            values[comptime!(place + 1)] / count
                        } else {
                            let drift = values[place];
                            let variance = (values[comptime!(place + 1)] - drift * (drift / count)) / count;
                            select(variance < 0.0f32, 0.0f32, variance)
                        }
                    }
                };
                if comptime!(result.register.is_some()) {
                    buffers.statistics.insert(comptime!(result.register.unwrap_or(0)), value);
                }
                results.insert(comptime!(walk.number_of(sum, number_of_result) * slots + slot), value);
            }
        }
    }
    let is_writer = visit.is_slot && visit.lane == 0usize;
    let is_writer = if comptime!(walk.is_single()) { is_writer && visit.row == 0usize } else { is_writer };
    if comptime!(walk.has_places()) && is_writer {
        #[unroll]
        for sum in 0..sums {
            let accumulate = comptime!(walk.accumulate[sum].clone());
            #[unroll]
            for number_of_result in 0..accumulate.results.len() {
                let result = comptime!(accumulate.results[number_of_result].clone());
                #[unroll]
                for number in 0..result.places.len() {
                    let (own, index) = comptime!(result.places[number].clone());
                    let place = place(&buffers.numbers, &visit.at, slots, index);
                    let own = buffers.own.index_mut(own);
                    #[unroll]
                    for slot in 0..slots {
                        own[place + slot] =
                            results.find(comptime!(walk.number_of(sum, number_of_result) * slots + slot));
                    }
                }
            }
        }
    }
}

/// Visits the elements of a slot that a thread has to itself, and gives their sums and, two numbers for each, their
/// moments: the mean, less the first element, and the squared distances from it.
#[cube]
#[allow(clippy::too_many_arguments)]
fn sum_alone<T: Float, S: Float, N: Size, M: Size>(
    buffers: &mut Buffers<T, S, N>,
    registers: &mut Registry<usize, Vector<f32, M>>,
    sums_of_thread: &mut Sums<M>,
    totals: &mut Array<f32>,
    values: &mut Array<f32>,
    visit: &Visit,
    first: usize,
    size: usize,
    #[comptime] walk: Walk,
) {
    let lanes = comptime!(walk.lanes);
    let slots = comptime!(walk.slots_at_a_time());
    let sums = comptime!(walk.accumulate.len());
    let moments = comptime!(walk.moments());
    let varies = comptime!([walk.samples, walk.channels, walk.positions].map(Span::has_elements));
    let zero = Vector::<f32, M>::new(0.0f32);
    // The moments of all runs so far, lane by lane.
    let mut means = Array::<Vector<f32, M>>::new(comptime!(moments.len().max(1)));
    let mut squares = Array::<Vector<f32, M>>::new(comptime!(moments.len().max(1)));
    #[unroll]
    for number in 0..comptime!(sums * slots) {
        totals[number] = 0.0f32;
    }
    #[unroll]
    for number in 0..moments.len() {
        means[number] = zero;
        squares[number] = zero;
    }
    let start = Cursor { sample: 0usize, channel: 0usize, position: 0usize };
    let mut progress = Progress::at(first, &start);
    let step = next_to(varies);
    let mut counted = 0.0f32;
    while progress.element < size {
        clear::<M>(sums_of_thread, sums, comptime!(moments.len()));
        progress.seen = 0.0f32;
        let end = if comptime!(walk.has_elements() && sums > 0) { min(progress.element + RUN, size) } else { size };
        let of_run = comptime!(walk.clone());
        elements_until::<T, S, N, M>(
            buffers,
            registers,
            sums_of_thread,
            visit,
            &mut progress,
            first,
            &step,
            end,
            of_run,
        );
        let all = counted + progress.seen;
        #[unroll]
        for number in 0..moments.len() {
            // Two sets of moments as one, by Chan's formulas.
            let share = progress.seen / all;
            let distance = sums_of_thread.means[number] - means[number];
            let between = distance * (distance * Vector::new(counted * share));
            means[number] = means[number] + distance * Vector::new(share);
            squares[number] = squares[number] + (sums_of_thread.squares[number] + between);
        }
        #[unroll]
        for sum in 0..sums {
            if comptime!(walk.accumulate[sum].is_added_up()) {
                #[unroll]
                for slot in 0..slots {
                    let place = comptime!(sum * slots + slot);
                    totals[place] = totals[place] + of_slot(sums_of_thread.parts[sum], lanes, slots, slot);
                }
            }
        }
        counted = all;
    }
    #[unroll]
    for number in 0..moments.len() {
        if comptime!(slots > 1) {
            #[unroll]
            for slot in 0..slots {
                values[comptime!(2 * (number * slots + slot))] = means[number].extract(slot);
                values[comptime!(2 * (number * slots + slot) + 1)] = squares[number].extract(slot);
            }
        } else {
            let shifts = sums_of_thread.shifts[number];
            let (mean, square) = lanes_together(shifts, means[number], squares[number], counted, lanes);
            values[comptime!(2 * number)] = mean;
            values[comptime!(2 * number + 1)] = square;
        }
    }
}

/// The moments of all lanes, which have so many elements each, as those of one slot: the mean, less the first element
/// of the first lane, and the squared distances from it.
#[cube]
fn lanes_together<M: Size>(
    shifts: Vector<f32, M>,
    means: Vector<f32, M>,
    squares: Vector<f32, M>,
    counted: f32,
    #[comptime] lanes: usize,
) -> (f32, f32) {
    let means = (shifts - Vector::new(shifts.extract(0usize))) + means;
    let mean = across_lanes(means, lanes) / comptime!(lanes as f32);
    let distance = means - Vector::new(mean);
    (mean, across_lanes(squares + distance * (distance * Vector::new(counted)), lanes))
}

/// Visits the elements of a slot that threads share, and gives each of them the sums of all and, two numbers for each,
/// the moments around the common mean: the distances from it, which would be 0 without rounding, and their squares.
#[cube]
#[allow(clippy::too_many_arguments)]
fn sum_together<T: Float, S: Float, N: Size, M: Size>(
    buffers: &mut Buffers<T, S, N>,
    registers: &mut Registry<usize, Vector<f32, M>>,
    shared: &mut Shared<[f32]>,
    sums_of_thread: &mut Sums<M>,
    totals: &mut Array<f32>,
    values: &mut Array<f32>,
    visit: &Visit,
    first: usize,
    size: usize,
    #[comptime] workgroup: usize,
    #[comptime] walk: Walk,
) {
    let lanes = comptime!(walk.lanes);
    let slots = comptime!(walk.slots_at_a_time());
    let sums = comptime!(walk.accumulate.len());
    let team = comptime!(walk.team);
    let moments = comptime!(walk.moments());
    let combined = comptime!(sums.max(2 * moments.len()) * slots);
    clear::<M>(sums_of_thread, sums, comptime!(moments.len()));
    let start = cursor(visit, first, comptime!(walk.clone()));
    let step = cursor(visit, team.runtime(), comptime!(walk.clone()));
    let mut progress = Progress::at(first, &start);
    let of_all = comptime!(walk.clone());
    elements_until::<T, S, N, M>(buffers, registers, sums_of_thread, visit, &mut progress, first, &step, size, of_all);
    let seen = progress.seen;
    // The sums of the slot; with moments, in a second phase, every lane's moments around the common mean. The
    // first sum of those would be 0 without rounding, and corrects for it. One loop has the code of both.
    if comptime!(sums > 0) {
        #[unroll]
        for sum in 0..combined {
            values[sum] = 0.0f32;
        }
        let zero = Vector::<f32, M>::new(0.0f32);
        let radix = buffers.numbers.find(number::RADIX);
        let phases = if comptime!(moments.is_empty()) { 1usize.runtime() } else { radix - comptime!(RADIX - 2) };
        for phase in 0..phases {
            if phase == 0usize {
                #[unroll]
                for sum in 0..sums {
                    let moment = comptime!(moments.iter().position(|&moment| moment == sum));
                    #[unroll]
                    for slot in 0..slots {
                        let place = comptime!(sum * slots + slot);
                        if comptime!(moment.is_some()) {
                            let number = comptime!(moment.unwrap_or(0));
                            let mean = sums_of_thread.shifts[number] + sums_of_thread.means[number];
                            values[place] = seen * of_slot(mean, lanes, slots, slot);
                        } else {
                            values[place] = of_slot(sums_of_thread.parts[sum], lanes, slots, slot);
                        }
                    }
                }
            } else {
                #[unroll]
                for number in 0..moments.len() {
                    let accumulate = comptime!(walk.accumulate[moments[number]].clone());
                    let count = buffers.counts.find(accumulate.count);
                    let first = comptime!(moments[number] * slots);
                    let mut mean = Vector::<f32, M>::new(totals[first] / count);
                    #[unroll]
                    for slot in 1..slots {
                        mean.insert(slot, totals[comptime!(first + slot)] / count);
                    }
                    let distance = (sums_of_thread.shifts[number] - mean) + sums_of_thread.means[number];
                    let distance = select(seen > 0.0f32, distance, zero);
                    let drift = Vector::new(seen) * distance;
                    let square = sums_of_thread.squares[number] + drift * distance;
                    #[unroll]
                    for slot in 0..slots {
                        values[comptime!(2 * (number * slots + slot))] = of_slot(drift, lanes, slots, slot);
                        values[comptime!(2 * (number * slots + slot) + 1)] = of_slot(square, lanes, slots, slot);
                    }
                }
            }
            let slots_first = comptime!(walk.slots_first);
            combine(shared, values, visit.lane, visit.row, radix, combined, workgroup, team, slots_first);
            if phase == 0usize {
                #[unroll]
                for number in 0..comptime!(sums * slots) {
                    totals[number] = values[number];
                }
            }
        }
    }
}

/// Sets what a thread accumulates to that of no elements.
#[cube]
fn clear<M: Size>(sums_of_thread: &mut Sums<M>, #[comptime] sums: usize, #[comptime] moments: usize) {
    let zero = Vector::<f32, M>::new(0.0f32);
    #[unroll]
    for sum in 0..sums {
        sums_of_thread.parts[sum] = zero;
    }
    #[unroll]
    for number in 0..moments {
        sums_of_thread.means[number] = zero;
        sums_of_thread.squares[number] = zero;
    }
}

/// Visits the elements of a thread up to the one with the number `end`, the first of them `first`.
#[cube]
#[allow(clippy::too_many_arguments)]
fn elements_until<T: Float, S: Float, N: Size, M: Size>(
    buffers: &mut Buffers<T, S, N>,
    registers: &mut Registry<usize, Vector<f32, M>>,
    sums_of_thread: &mut Sums<M>,
    visit: &Visit,
    progress: &mut Progress,
    first: usize,
    step: &Cursor,
    end: usize,
    #[comptime] walk: Walk,
) {
    let varies = comptime!([walk.samples, walk.channels, walk.positions].map(Span::has_elements));
    let size = Cursor { sample: visit.samples, channel: visit.channels, position: visit.positions };
    if comptime!(!walk.has_elements()) {
        if progress.element < end {
            progress.seen += 1.0f32;
            let here = Cursor { sample: progress.sample, channel: progress.channel, position: progress.position };
            let at = locate(visit, &here);
            let is_first = progress.element == first;
            one_element::<T, S, N, M>(buffers, registers, sums_of_thread, &at, is_first, progress.seen, walk);
        }
        progress.element = end;
    } else {
        while progress.element < end {
            progress.seen += 1.0f32;
            let here = Cursor { sample: progress.sample, channel: progress.channel, position: progress.position };
            let at = locate(visit, &here);
            let is_first = progress.element == first;
            let of_element = comptime!(walk.clone());
            one_element::<T, S, N, M>(buffers, registers, sums_of_thread, &at, is_first, progress.seen, of_element);
            progress.element += comptime!(walk.team);
            let moved = advance(&size, &here, step, varies);
            progress.sample = moved.sample;
            progress.channel = moved.channel;
            progress.position = moved.position;
        }
    }
}

/// Visits an element, the first of its thread or not, when the thread has `seen` so many with it.
#[cube]
fn one_element<T: Float, S: Float, N: Size, M: Size>(
    buffers: &mut Buffers<T, S, N>,
    registers: &mut Registry<usize, Vector<f32, M>>,
    sums_of_thread: &mut Sums<M>,
    at: &At,
    is_first: bool,
    seen: f32,
    #[comptime] walk: Walk,
) {
    let sums = comptime!(walk.accumulate.len());
    let moments = comptime!(walk.moments());
    let ops = comptime!(walk.element_ops.clone());
    evaluate::<T, S, N, M>(buffers, registers, at, comptime!(walk.lanes), ops);
    #[unroll]
    for sum in 0..sums {
        let accumulate = comptime!(walk.accumulate[sum].clone());
        let value = registers.find(accumulate.value);
        let moment = comptime!(moments.iter().position(|&moment| moment == sum));
        if comptime!(moment.is_some()) {
            let number = comptime!(moment.unwrap_or(0));
            let shift = select(is_first, value, sums_of_thread.shifts[number]);
            let mut difference = value - shift;
            if comptime!(accumulate.low.is_some()) {
                difference = difference + registers.find(comptime!(accumulate.low.unwrap_or(0)));
            }
            let distance = difference - sums_of_thread.means[number];
            let moved = sums_of_thread.means[number] + distance / Vector::new(seen);
            sums_of_thread.shifts[number] = shift;
            sums_of_thread.means[number] = moved;
            sums_of_thread.squares[number] = sums_of_thread.squares[number] + distance * (difference - moved);
        }
        if comptime!(accumulate.is_square()) {
            sums_of_thread.parts[sum] = sums_of_thread.parts[sum] + value * value;
        } else if comptime!(accumulate.is_added_up()) {
            sums_of_thread.parts[sum] = sums_of_thread.parts[sum] + value;
        }
    }
    #[unroll]
    for number in 0..walk.writes.len() {
        let write = comptime!(walk.writes[number].clone());
        let place = place(&buffers.numbers, at, 1usize, comptime!(write.index.clone()));
        let value = registers.find(write.value);
        match write.target {
            Target::Full => {
                let full = buffers.full.index_mut(0usize);
                full[place] = Vector::cast_from(value);
            }
            Target::Final(number) => {
                let small = buffers.finals.index_mut(number);
                small[place] = S::cast_from(value.extract(0usize));
            }
        }
    }
}

/// A sum, and what its rounding has lost.
#[cube]
fn in_two_parts(a: f32, b: f32) -> (f32, f32) {
    let is_larger = a.abs() >= b.abs();
    let larger = select(is_larger, a, b);
    let smaller = select(is_larger, b, a);
    let sum = larger + smaller;
    (sum, (larger - sum) + smaller)
}

/// What a slot has of a vector: the sum of its lanes, or, where each lane is of a slot of its own, that of the slot.
#[cube]
fn of_slot<M: Size>(
    vector: Vector<f32, M>,
    #[comptime] lanes: usize,
    #[comptime] slots: usize,
    #[comptime] slot: usize,
) -> f32 {
    if comptime!(slots > 1) { vector.extract(slot) } else { across_lanes(vector, lanes) }
}

/// The sum of a vector's lanes.
#[cube]
fn across_lanes<M: Size>(vector: Vector<f32, M>, #[comptime] lanes: usize) -> f32 {
    let mut sum = vector.extract(0usize);
    #[unroll]
    for lane in 1..lanes {
        sum += vector.extract(comptime!(lane));
    }
    sum
}

/// The sum, or 0 in blocks that do not start where the elements that it counts are.
#[cube]
fn guarded(total: f32, block: &At, #[comptime] accumulate: Accumulate) -> f32 {
    let mut total = total;
    if comptime!(accumulate.only_first[0]) {
        total = select(block.sample == 0usize, total, 0.0f32);
    }
    if comptime!(accumulate.only_first[1]) {
        total = select(block.channel == 0usize, total, 0.0f32);
    }
    if comptime!(accumulate.only_first[2]) {
        total = select(block.position == 0usize, total, 0.0f32);
    }
    total
}

/// Sums what the threads of each team have, and gives every thread the sums of its team.
///
/// A driver compiles every access of shared memory to a lot of code, and unrolls loops of a known length, and those
/// that count the elements of a small array: so there are few of the first and none of the others, which is what
/// `radix`, a number that it cannot know, is for.
#[cube]
fn combine(
    shared: &mut Shared<[f32]>,
    values: &mut Array<f32>,
    lane: usize,
    row: usize,
    radix: usize,
    #[comptime] sums: usize,
    #[comptime] workgroup: usize,
    #[comptime] team: usize,
    #[comptime] slots_first: bool,
) {
    if comptime!(team > 1) {
        let teams = comptime!(workgroup / team);
        let stride = comptime!(if slots_first { teams } else { 1 });
        let base = if comptime!(slots_first) { row } else { row * team };
        let mine = base + lane * stride;
        // Others may still read what was combined before.
        sync_cube();
        #[unroll]
        for sum in 0..sums {
            shared[mine + comptime!(sum * workgroup)] = values[sum];
        }
        sync_cube();
        // Few barriers, which cost more than additions: sixteen to one, and then every thread adds up what is left.
        let left = comptime!(if team > RADIX { team / RADIX } else { team });
        if comptime!(team > RADIX) {
            if lane < left {
                for sum in 0..comptime!(sums) + radix - comptime!(RADIX) {
                    let place = mine + sum * workgroup;
                    let mut total = shared[place];
                    for number in 1..radix {
                        total += shared[place + number * comptime!(left * stride)];
                    }
                    shared[place] = total;
                }
            }
            sync_cube();
        }
        #[unroll]
        for sum in 0..sums {
            values[sum] = shared[base + comptime!(sum * workgroup)];
        }
        let one = radix - comptime!(RADIX - 1);
        for number in 0..radix - comptime!(RADIX + 1 - left) {
            let place = base + (number + one) * stride;
            #[unroll]
            for sum in 0..sums {
                values[sum] = values[sum] + shared[place + comptime!(sum * workgroup)];
            }
        }
    }
}
