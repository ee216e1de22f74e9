//! The one kernel of all layers: a program, unrolled while the kernel is built.
//!
//! A workgroup runs the walks of the program over its block, one after the other. In a walk, teams of
//! threads each take a slot and visit its elements, some neighbouring ones at a time where memory is read
//! faster so; what they accumulate is summed in shared memory. Tensors and small operands are read and
//! written in their own formats; everything in between is f32, and sums have a fixed order.
//!
//! On a device that runs threads in the vectors of a CPU, a block is the work of a single thread instead, as far as
//! there are enough: nothing is shared then and nobody waits, which on Mesa's lavapipe halves the time of compiling
//! and, for small inputs, takes two thirds off that of running.

// What is unrolled and assigned here is expanded into a kernel, where these forms have a meaning of
// their own.
#![allow(clippy::assign_op_pattern, clippy::needless_range_loop)]

use cubecl::ir::ElemType;
use cubecl::prelude::*;
use normact_plan::graph::Statistic;

use super::math::{binary, unary};
use super::program::{Accumulate, Coordinate, Extent, Index, Op, Part, Program, Span, SpanKind, Target, Walk, number};

/// How many sums one thread adds up at a time. A workgroup is at most its square.
pub(super) const RADIX: usize = 16;

/// How many elements, or vectors of them, a thread with a slot of its own adds up before it adds their sum to the
/// others: a sum of so many numbers in f32, and then of as many sums, keeps more digits than one of all.
pub(super) const RUN: usize = 256;

/// Where a thread is: an element in the view of all ranks, and the block.
#[derive(CubeType, Clone, Copy)]
struct At {
    sample: usize,
    channel: usize,
    position: usize,
    /// The number of the block among those cut along samples and positions.
    row: usize,
    /// The number of the block among those cut along channels.
    column: usize,
}

/// The range of a block along each axis.
#[derive(CubeType, Clone, Copy)]
struct Block {
    start: At,
    samples: usize,
    channels: usize,
    positions: usize,
}

/// What one thread reads, beside registers.
#[derive(CubeType, Clone, Copy)]
struct Visit {
    at: At,
    lane: usize,
    row: usize,
    is_slot: bool,
    /// How many elements there are along each axis of the slot, and in all.
    samples: usize,
    channels: usize,
    positions: usize,
}

/// The element of a slot that a thread is at, and how far it is to its next one: divisions are slow,
/// and one for each step of each element would cost more than the element.
#[derive(CubeType, Clone, Copy)]
struct Cursor {
    sample: usize,
    channel: usize,
    position: usize,
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

/// What a thread accumulates, in each lane. Moments are sums of differences from its first element, which keep their
/// digits where the mean is large, and are updated by Welford's method, which keeps them where it is not.
#[derive(CubeType)]
struct Sums<M: Size> {
    parts: Array<Vector<f32, M>>,
    shifts: Array<Vector<f32, M>>,
    means: Array<Vector<f32, M>>,
    squares: Array<Vector<f32, M>>,
}

/// The memory that a kernel reads and writes: tensors in the format `T`, `N` elements at a time, small operands
/// in the format `S`, and numbers of its own.
#[derive(CubeType)]
struct Buffers<T: Float, S: Float, N: Size> {
    tensors: Sequence<Box<[Vector<T, N>]>>,
    small: Sequence<Box<[S]>>,
    given: Sequence<Box<[f32]>>,
    full: Sequence<Box<[Vector<T, N>]>>,
    finals: Sequence<Box<[S]>>,
    own: Sequence<Box<[f32]>>,
    numbers: Registry<usize, usize>,
    counts: Registry<usize, f32>,
    /// Results of walks with a single slot.
    statistics: Registry<usize, f32>,
}

#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments)]
pub(super) fn layer_kernel<T: Float, S: Float, N: Size>(
    tensors: Sequence<Box<[Vector<T, N>]>>,
    small: Sequence<Box<[S]>>,
    given: Sequence<Box<[f32]>>,
    full: Sequence<Box<[Vector<T, N>]>>,
    finals: Sequence<Box<[S]>>,
    own: Sequence<Box<[f32]>>,
    numbers: Sequence<usize>,
    counts: Sequence<f32>,
    #[comptime] program: Program,
    #[define(T, S)] _formats: [ElemType; 2],
) {
    // Read once: the compiler cannot know that what the kernel writes leaves them as they are.
    let mut known_numbers = Registry::<usize, usize>::new();
    #[unroll]
    for number in 0..numbers.len() {
        known_numbers.insert(number, *numbers.index(number));
    }
    let mut known_counts = Registry::<usize, f32>::new();
    #[unroll]
    for number in 0..counts.len() {
        known_counts.insert(number, *counts.index(number));
    }
    let statistics = Registry::<usize, f32>::new();
    let mut buffers = Buffers::<T, S, N> {
        tensors,
        small,
        given,
        full,
        finals,
        own,
        numbers: known_numbers,
        counts: known_counts,
        statistics,
    };
    let block = block(&buffers, comptime!(program.cut), comptime!(program.alone));
    let team = comptime!(if program.alone { 1 } else { program.workgroup });
    let mut shared = Shared::<[f32]>::new_slice(comptime!(program.shared));
    #[unroll]
    for number in 0..program.walks.len() {
        let walk = comptime!(program.walks[number].clone());
        let after = comptime!(walk.publishes && !program.alone);
        if comptime!(walk.lanes > 1) {
            run::<T, S, N, N>(&mut buffers, &mut shared, &block, team, walk);
        } else {
            run::<T, S, N, Const<1>>(&mut buffers, &mut shared, &block, team, walk);
        }
        if comptime!(after) {
            sync_storage();
        }
    }
}

/// The block of this workgroup, or of this thread. Divisions of integers take several times as long as anything
/// else here, to compile too: there are none for axes that are not cut.
#[cube]
fn block<T: Float, S: Float, N: Size>(
    buffers: &Buffers<T, S, N>,
    #[comptime] cut: [bool; 3],
    #[comptime] alone: bool,
) -> Block {
    let numbers = &buffers.numbers;
    let blocks = numbers.find(number::BLOCKS);
    let number = if comptime!(alone) { ABSOLUTE_POS } else { CUBE_POS };
    // Beyond the last block, where the grid has more than there are, the last block is done again.
    let number = min(number, blocks - 1usize);
    let [samples, channels, positions] = comptime!(cut);
    let rows = if comptime!(positions) { numbers.find(number::POSITION_BLOCKS) } else { 1usize.runtime() };
    let columns = if comptime!(channels) { numbers.find(number::CHANNEL_BLOCKS) } else { 1usize.runtime() };
    let (number, position_block) = divided(number, rows, comptime!(positions), comptime!(samples || channels), alone);
    let (sample_block, column) = divided(number, columns, comptime!(channels), samples, alone);
    let sample = sample_block * numbers.find(number::BLOCK_SAMPLES);
    let channel = column * numbers.find(number::BLOCK_CHANNELS);
    let position = position_block * numbers.find(number::BLOCK_POSITIONS);
    Block {
        start: At { sample, channel, position, row: sample_block * rows + position_block, column },
        samples: min(numbers.find(number::BLOCK_SAMPLES), numbers.find(number::SAMPLES) - sample),
        channels: min(numbers.find(number::BLOCK_CHANNELS), numbers.find(number::CHANNELS) - channel),
        positions: min(numbers.find(number::BLOCK_POSITIONS), numbers.find(number::POSITIONS) - position),
    }
}

/// A number divided by another one and what is left, where the quotient and the rest may be other than 0. A
/// `small` number is below 2^22.
#[cube]
fn divided(
    number: usize,
    by: usize,
    #[comptime] has_rest: bool,
    #[comptime] has_quotient: bool,
    #[comptime] small: bool,
) -> (usize, usize) {
    if comptime!(has_rest && has_quotient && small) {
        // The quotient of two floats is off by one at most.
        let quotient = usize::cast_from(f32::cast_from(number) / f32::cast_from(by));
        let is_more = quotient * by > number;
        let quotient = select(is_more, quotient - 1usize, quotient);
        let rest = number - quotient * by;
        let is_less = rest >= by;
        (select(is_less, quotient + 1usize, quotient), select(is_less, rest - by, rest))
    } else if comptime!(has_rest && has_quotient) {
        let quotient = number / by;
        (quotient, number - quotient * by)
    } else if comptime!(has_rest) {
        (0usize.runtime(), number)
    } else {
        (number, 0usize.runtime())
    }
}

/// Runs a walk that visits `M` elements at a time.
#[cube]
fn run<T: Float, S: Float, N: Size, M: Size>(
    buffers: &mut Buffers<T, S, N>,
    shared: &mut Shared<[f32]>,
    block: &Block,
    #[comptime] workgroup: usize,
    #[comptime] walk: Walk,
) {
    let lanes = comptime!(walk.lanes);
    let samples = extent(&buffers.numbers, block, block.samples, walk.samples);
    let channels = extent(&buffers.numbers, block, block.channels, walk.channels);
    let positions = extent(&buffers.numbers, block, block.positions, walk.positions) / lanes;
    let (sample_slots, channel_slots, position_slots) =
        (slots(samples, walk.samples), slots(channels, walk.channels), slots(positions, walk.positions));
    let (samples, channels, positions) =
        (elements(samples, walk.samples), elements(channels, walk.channels), elements(positions, walk.positions));
    let start = At {
        sample: block.start.sample,
        channel: block.start.channel,
        position: block.start.position / lanes,
        row: block.start.row,
        column: block.start.column,
    };
    let mut registers = Registry::<usize, Vector<f32, M>>::new();
    let fixed = comptime!(walk.block_ops.clone());
    evaluate::<T, S, N, M>(buffers, &mut registers, &start, lanes, fixed);
    let unit = if comptime!(workgroup == 1) { 0usize.runtime() } else { UNIT_POS as usize };
    let team = comptime!(walk.team);
    if comptime!(walk.is_single()) {
        let at = At {
            sample: start.sample,
            channel: start.channel,
            position: start.position,
            row: start.row,
            column: start.column,
        };
        // A walk of few elements is made by each thread on its own.
        let (lane, row) = if comptime!(team == 1) { (0usize.runtime(), unit) } else { (unit, 0usize.runtime()) };
        let visit = Visit { at, lane, row, is_slot: true, samples, channels, positions };
        slot::<T, S, N, M>(buffers, &mut registers, shared, &start, &visit, workgroup, walk);
    } else if comptime!(workgroup == 1) {
        let varies = comptime!([walk.samples, walk.channels, walk.positions].map(|span| !span.is_single()));
        let all = Cursor { sample: sample_slots, channel: channel_slots, position: position_slots };
        let step = next_to(varies);
        let mut slot_sample = 0usize;
        let mut slot_channel = 0usize;
        let mut slot_position = 0usize;
        let mut left = sample_slots * channel_slots * position_slots;
        while left > 0usize {
            let at = At {
                sample: start.sample + slot_sample * samples,
                channel: start.channel + slot_channel * channels,
                position: start.position + slot_position * positions,
                row: start.row,
                column: start.column,
            };
            let visit = Visit { at, lane: unit, row: 0usize, is_slot: true, samples, channels, positions };
            slot::<T, S, N, M>(buffers, &mut registers, shared, &start, &visit, workgroup, walk.clone());
            let cursor = Cursor { sample: slot_sample, channel: slot_channel, position: slot_position };
            let moved = advance(&all, &cursor, &step, varies);
            slot_sample = moved.sample;
            slot_channel = moved.channel;
            slot_position = moved.position;
            left -= 1usize;
        }
    } else {
        let teams = comptime!(workgroup / team);
        let (lane, row) =
            if comptime!(walk.slots_first) { (unit / teams, unit % teams) } else { (unit % team, unit / team) };
        let all = sample_slots * channel_slots * position_slots;
        let rounds = (all + comptime!(teams - 1)) / teams;
        let mut round = 0usize;
        while round < rounds {
            let number = round * teams + row;
            let is_slot = number < all;
            let number = select(is_slot, number, 0usize);
            let [sample_varies, channel_varies, position_varies] =
                comptime!([walk.samples, walk.channels, walk.positions].map(|span| !span.is_single()));
            let (rest, position_slot) =
                divided(number, position_slots, position_varies, comptime!(channel_varies || sample_varies), false);
            let (sample_slot, channel_slot) = divided(rest, channel_slots, channel_varies, sample_varies, false);
            let at = At {
                sample: start.sample + sample_slot * samples,
                channel: start.channel + channel_slot * channels,
                position: start.position + position_slot * positions,
                row: start.row,
                column: start.column,
            };
            let visit = Visit { at, lane, row, is_slot, samples, channels, positions };
            slot::<T, S, N, M>(buffers, &mut registers, shared, &start, &visit, workgroup, walk.clone());
            round += 1usize;
        }
    }
}

/// The work of a team on one slot.
#[cube]
fn slot<T: Float, S: Float, N: Size, M: Size>(
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
    let mut element = first;
    let mut sample = 0usize;
    let mut channel = 0usize;
    let mut position = 0usize;
    let mut counted = 0.0f32;
    while element < size {
        clear::<M>(sums_of_thread, sums, comptime!(moments.len()));
        let end = if comptime!(walk.has_elements() && sums > 0) { min(element + RUN, size) } else { size };
        let from = Progress { element, sample, channel, position, seen: 0.0f32 };
        let step = next_to(varies);
        let to = elements_until::<T, S, N, M>(
            buffers,
            registers,
            sums_of_thread,
            visit,
            first,
            &from,
            &step,
            end,
            comptime!(walk.clone()),
        );
        element = to.element;
        sample = to.sample;
        channel = to.channel;
        position = to.position;
        let all = counted + to.seen;
        #[unroll]
        for number in 0..moments.len() {
            // Two sets of moments as one, by Chan's formulas.
            let share = to.seen / all;
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
    let from = Progress {
        element: first,
        sample: start.sample,
        channel: start.channel,
        position: start.position,
        seen: 0.0f32,
    };
    let to = elements_until::<T, S, N, M>(
        buffers,
        registers,
        sums_of_thread,
        visit,
        first,
        &from,
        &step,
        size,
        comptime!(walk.clone()),
    );
    let seen = to.seen;
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
    first: usize,
    from: &Progress,
    step: &Cursor,
    end: usize,
    #[comptime] walk: Walk,
) -> Progress {
    let varies = comptime!([walk.samples, walk.channels, walk.positions].map(Span::has_elements));
    let size = Cursor { sample: visit.samples, channel: visit.channels, position: visit.positions };
    let mut element = from.element;
    let mut sample = from.sample;
    let mut channel = from.channel;
    let mut position = from.position;
    let mut seen = from.seen;
    if comptime!(!walk.has_elements()) {
        if element < end {
            let here = Cursor { sample, channel, position };
            seen += 1.0f32;
            one_element::<T, S, N, M>(buffers, registers, sums_of_thread, visit, &here, element == first, seen, walk);
        }
        element = end;
    } else {
        while element < end {
            let here = Cursor { sample, channel, position };
            seen += 1.0f32;
            let is_first = element == first;
            one_element::<T, S, N, M>(
                buffers,
                registers,
                sums_of_thread,
                visit,
                &here,
                is_first,
                seen,
                comptime!(walk.clone()),
            );
            element += comptime!(walk.team);
            let moved = advance(&size, &here, step, varies);
            sample = moved.sample;
            channel = moved.channel;
            position = moved.position;
        }
    }
    Progress { element, sample, channel, position, seen }
}

/// Visits an element, the first of its thread or not, when the thread has `seen` so many with it.
#[cube]
#[allow(clippy::too_many_arguments)]
fn one_element<T: Float, S: Float, N: Size, M: Size>(
    buffers: &mut Buffers<T, S, N>,
    registers: &mut Registry<usize, Vector<f32, M>>,
    sums_of_thread: &mut Sums<M>,
    visit: &Visit,
    here: &Cursor,
    is_first: bool,
    seen: f32,
    #[comptime] walk: Walk,
) {
    let sums = comptime!(walk.accumulate.len());
    let moments = comptime!(walk.moments());
    let at = locate(visit, here);
    let ops = comptime!(walk.element_ops.clone());
    evaluate::<T, S, N, M>(buffers, registers, &at, comptime!(walk.lanes), ops);
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
        let place = place(&buffers.numbers, &at, 1usize, comptime!(write.index.clone()));
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

#[cube]
fn extent(numbers: &Registry<usize, usize>, block: &Block, of_block: usize, #[comptime] span: Span) -> usize {
    match span.extent {
        Extent::Block => of_block,
        Extent::BlockOfRows => block.channels * block.positions,
        Extent::Number(index) => numbers.find(index),
    }
}

/// How many slots there are along an axis of such an extent.
#[cube]
fn slots(extent: usize, #[comptime] span: Span) -> usize {
    match span.kind {
        SpanKind::One | SpanKind::Elements => 1usize.runtime(),
        SpanKind::Slots => extent,
        SpanKind::Grouped(size) => extent / size,
    }
}

/// How many elements of a slot there are along an axis of such an extent.
#[cube]
fn elements(extent: usize, #[comptime] span: Span) -> usize {
    match span.kind {
        SpanKind::One | SpanKind::Slots => 1usize.runtime(),
        SpanKind::Elements => extent,
        SpanKind::Grouped(size) => size.runtime(),
    }
}

/// Which element of a slot has that number; also how far apart elements are whose numbers are that far
/// apart.
#[cube]
fn cursor(visit: &Visit, element: usize, #[comptime] walk: Walk) -> Cursor {
    let [sample_varies, channel_varies, position_varies] =
        comptime!([walk.samples, walk.channels, walk.positions].map(Span::has_elements));
    let (rest, position) =
        divided(element, visit.positions, position_varies, comptime!(channel_varies || sample_varies), true);
    let (sample, channel) = divided(rest, visit.channels, channel_varies, sample_varies, true);
    Cursor { sample, channel, position }
}

/// How far it is to the next element, along the last of the axes that vary.
#[cube]
fn next_to(#[comptime] varies: [bool; 3]) -> Cursor {
    let [_, channels, positions] = comptime!(varies);
    let (sample, channel, position) =
        comptime!((usize::from(!positions && !channels), usize::from(!positions && channels), usize::from(positions),));
    Cursor { sample: sample.runtime(), channel: channel.runtime(), position: position.runtime() }
}

/// What is a step further, with what overflows an axis carried to the next.
#[cube]
fn advance(size: &Cursor, from: &Cursor, step: &Cursor, #[comptime] varies: [bool; 3]) -> Cursor {
    let [samples, channels, positions] = comptime!(varies);
    let mut position = from.position + step.position;
    let mut channel = from.channel + step.channel;
    let mut sample = from.sample + step.sample;
    if comptime!(positions) {
        let overflows = position >= size.position;
        position = select(overflows, position - size.position, position);
        let carry = select(overflows, 1usize, 0usize);
        if comptime!(channels) {
            channel += carry;
        } else if comptime!(samples) {
            sample += carry;
        }
    }
    if comptime!(channels && samples) {
        let overflows = channel >= size.channel;
        channel = select(overflows, channel - size.channel, channel);
        sample += select(overflows, 1usize, 0usize);
    }
    Cursor { sample, channel, position }
}

/// Where an element of a slot is.
#[cube]
fn locate(visit: &Visit, cursor: &Cursor) -> At {
    At {
        sample: visit.at.sample + cursor.sample,
        channel: visit.at.channel + cursor.channel,
        position: visit.at.position + cursor.position,
        row: visit.at.row,
        column: visit.at.column,
    }
}

/// The place in a buffer that belongs to an element, where positions are counted in so many.
#[cube]
fn place(numbers: &Registry<usize, usize>, at: &At, #[comptime] positions: usize, #[comptime] index: Index) -> usize {
    let offset = comptime!(index.offset);
    let mut place =
        if comptime!(offset.is_some()) { numbers.find(comptime!(offset.unwrap_or(0))) } else { 0usize.runtime() };
    #[unroll]
    for number in 0..index.terms.len() {
        let term = comptime!(index.terms[number]);
        let coordinate = match term.of {
            Coordinate::Sample => at.sample,
            Coordinate::Channel => at.channel,
            Coordinate::Position => at.position * positions,
            Coordinate::Row => at.row,
            Coordinate::Column => at.column,
        };
        let unit = comptime!(term.unit);
        let slot = if comptime!(unit == 1) { coordinate } else { coordinate / unit };
        let stride = comptime!(term.stride);
        place += if comptime!(stride.is_some()) { slot * numbers.find(comptime!(stride.unwrap_or(0))) } else { slot };
    }
    place
}

/// Adds the results of the operations to the registers.
#[cube]
fn evaluate<T: Float, S: Float, N: Size, M: Size>(
    buffers: &mut Buffers<T, S, N>,
    registers: &mut Registry<usize, Vector<f32, M>>,
    at: &At,
    #[comptime] lanes: usize,
    #[comptime] ops: Vec<(usize, Op)>,
) {
    #[unroll]
    for number in 0..ops.len() {
        let (register, op) = comptime!(ops[number].clone());
        let value = match op {
            Op::Tensor(tensor, index) => {
                Vector::<f32, M>::cast_from(buffers.tensors.index(tensor)[place(&buffers.numbers, at, 1usize, index)])
            }
            Op::Small(small, index) => {
                Vector::new(f32::cast_from(buffers.small.index(small)[place(&buffers.numbers, at, lanes, index)]))
            }
            Op::Given(given, index) => {
                let varies = comptime!(index.varies_along_positions());
                let place = place(&buffers.numbers, at, lanes, index);
                neighbours(buffers.given.index(given), place, comptime!(if varies { lanes } else { 1 }))
            }
            Op::Own(own, index) => {
                let varies = comptime!(index.varies_along_positions());
                let place = place(&buffers.numbers, at, lanes, index);
                neighbours(buffers.own.index(own), place, comptime!(if varies { lanes } else { 1 }))
            }
            Op::Statistic(statistic) => Vector::new(buffers.statistics.find(statistic)),
            Op::Constant(bits) => Vector::new(f32::new(comptime!(f32::from_bits(bits)))),
            Op::Count(count) => Vector::new(buffers.counts.find(count)),
            Op::Unary(prim, a) => unary(registers.find(a), prim),
            Op::Binary(prim, a, b) => binary(registers.find(a), registers.find(b), prim),
            Op::Centered(a, mean, low) => (registers.find(a) - registers.find(mean)) - registers.find(low),
        };
        registers.insert(register, value);
    }
}

/// So many numbers from a place on, one for each lane; one for all lanes.
#[cube]
fn neighbours<M: Size>(numbers: &[f32], place: usize, #[comptime] lanes: usize) -> Vector<f32, M> {
    let mut vector = Vector::<f32, M>::new(numbers[place]);
    #[unroll]
    for lane in 1..lanes {
        vector.insert(lane, numbers[place + lane]);
    }
    vector
}
