//! The one kernel of all layers: a program, unrolled while the kernel is built.
//!
//! A workgroup runs the walks of the program over its block, one after the other. In a walk, teams of
//! threads each take a slot and visit its elements; what they accumulate is summed in shared memory.
//! Everything is f32, and sums have a fixed order.

// What is unrolled and assigned here is expanded into a kernel, where these forms have a meaning of
// their own.
#![allow(clippy::assign_op_pattern, clippy::needless_range_loop)]

use cubecl::prelude::*;
use normact_ir::Prim;
use normact_plan::graph::Statistic;

use super::program::{Accumulate, Coordinate, Extent, Index, Op, Program, Span, SpanKind, Walk, number};

/// How many sums one thread adds up at a time. A workgroup is at most its square.
const RADIX: usize = 16;

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

#[cube(launch_unchecked)]
pub(super) fn layer_kernel(
    inputs: Sequence<Box<[f32]>>,
    mut outputs: Sequence<Box<[f32]>>,
    numbers: Sequence<usize>,
    counts: Sequence<f32>,
    #[comptime] program: Program,
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
    let numbers = known_numbers;
    let counts = known_counts;
    let blocks = numbers.find(number::BLOCKS);
    // Workgroups beyond the last block, where the grid is not a line, do the last block again.
    let number = min(CUBE_POS, blocks - 1usize);
    let columns = numbers.find(number::CHANNEL_BLOCKS);
    let rows = numbers.find(number::POSITION_BLOCKS);
    let position_block = number % rows;
    let column = number / rows % columns;
    let sample_block = number / (rows * columns);
    let sample = sample_block * numbers.find(number::BLOCK_SAMPLES);
    let channel = column * numbers.find(number::BLOCK_CHANNELS);
    let position = position_block * numbers.find(number::BLOCK_POSITIONS);
    let block = Block {
        start: At { sample, channel, position, row: sample_block * rows + position_block, column },
        samples: min(numbers.find(number::BLOCK_SAMPLES), numbers.find(number::SAMPLES) - sample),
        channels: min(numbers.find(number::BLOCK_CHANNELS), numbers.find(number::CHANNELS) - channel),
        positions: min(numbers.find(number::BLOCK_POSITIONS), numbers.find(number::POSITIONS) - position),
    };
    let mut shared = Shared::<[f32]>::new_slice(comptime!(program.shared));
    let mut statistics = Registry::<usize, f32>::new();
    #[unroll]
    for number in 0..program.walks.len() {
        let walk = comptime!(program.walks[number].clone());
        let after = comptime!(walk.publishes);
        run(&inputs, &mut outputs, &numbers, &counts, &mut statistics, &mut shared, &block, program.workgroup, walk);
        if comptime!(after) {
            sync_storage();
        }
    }
}

#[cube]
#[allow(clippy::too_many_arguments)]
fn run(
    inputs: &Sequence<Box<[f32]>>,
    outputs: &mut Sequence<Box<[f32]>>,
    numbers: &Registry<usize, usize>,
    counts: &Registry<usize, f32>,
    statistics: &mut Registry<usize, f32>,
    shared: &mut Shared<[f32]>,
    block: &Block,
    #[comptime] workgroup: usize,
    #[comptime] walk: Walk,
) {
    let samples = extent(numbers, block.samples, walk.samples);
    let channels = extent(numbers, block.channels, walk.channels);
    let positions = extent(numbers, block.positions, walk.positions);
    let (sample_slots, channel_slots, position_slots) =
        (slots(samples, walk.samples), slots(channels, walk.channels), slots(positions, walk.positions));
    let (samples, channels, positions) =
        (elements(samples, walk.samples), elements(channels, walk.channels), elements(positions, walk.positions));
    let mut registers = Registry::<usize, f32>::new();
    let fixed = comptime!(walk.block_ops.clone());
    evaluate(inputs, outputs, numbers, counts, statistics, &mut registers, &block.start, fixed);
    let unit = UNIT_POS as usize;
    let team = comptime!(walk.team);
    if comptime!(walk.is_single()) {
        let at = At {
            sample: block.start.sample,
            channel: block.start.channel,
            position: block.start.position,
            row: block.start.row,
            column: block.start.column,
        };
        let visit = Visit { at, lane: unit, row: 0usize, is_slot: true, samples, channels, positions };
        slot(
            inputs,
            outputs,
            numbers,
            counts,
            statistics,
            &mut registers,
            shared,
            &block.start,
            &visit,
            workgroup,
            walk,
        );
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
            let at = At {
                sample: block.start.sample + number / (channel_slots * position_slots) * samples,
                channel: block.start.channel + number / position_slots % channel_slots * channels,
                position: block.start.position + number % position_slots * positions,
                row: block.start.row,
                column: block.start.column,
            };
            let visit = Visit { at, lane, row, is_slot, samples, channels, positions };
            slot(
                inputs,
                outputs,
                numbers,
                counts,
                statistics,
                &mut registers,
                shared,
                &block.start,
                &visit,
                workgroup,
                walk.clone(),
            );
            round += 1usize;
        }
    }
}

/// The work of a team on one slot.
#[cube]
#[allow(clippy::too_many_arguments)]
fn slot(
    inputs: &Sequence<Box<[f32]>>,
    outputs: &mut Sequence<Box<[f32]>>,
    numbers: &Registry<usize, usize>,
    counts: &Registry<usize, f32>,
    statistics: &mut Registry<usize, f32>,
    registers: &mut Registry<usize, f32>,
    shared: &mut Shared<[f32]>,
    block: &At,
    visit: &Visit,
    #[comptime] workgroup: usize,
    #[comptime] walk: Walk,
) {
    let fixed = comptime!(walk.slot_ops.clone());
    evaluate(inputs, outputs, numbers, counts, statistics, registers, &visit.at, fixed);
    let sums = comptime!(walk.accumulate.len());
    let team = comptime!(walk.team);
    let size = visit.samples * visit.channels * visit.positions;
    let first = select(visit.is_slot, visit.lane, size);

    // A thread's own moments are sums of differences from its first element, which keep their digits
    // where the mean is large, and are updated by Welford's method, which keeps them where it is not.
    let moments = comptime!(walk.moments());
    let mut totals = Array::<f32>::new(comptime!(sums.max(1)));
    #[unroll]
    for sum in 0..sums {
        totals[sum] = 0.0f32;
    }
    let mut shifts = Array::<f32>::new(comptime!(moments.len().max(1)));
    let mut deviations = Array::<f32>::new(comptime!((2 * moments.len()).max(1)));
    #[unroll]
    for number in 0..moments.len() {
        shifts[number] = 0.0f32;
        deviations[comptime!(2 * number)] = 0.0f32;
        deviations[comptime!(2 * number + 1)] = 0.0f32;
    }
    let mut seen = 0.0f32;
    let start = cursor(visit, first, comptime!(walk.clone()));
    let step = cursor(visit, team.runtime(), comptime!(walk.clone()));
    let mut element = first;
    let mut sample = start.sample;
    let mut channel = start.channel;
    let mut position = start.position;
    while element < size {
        let next = Cursor { sample, channel, position };
        let at = locate(visit, &next);
        let ops = comptime!(walk.element_ops.clone());
        evaluate(inputs, outputs, numbers, counts, statistics, registers, &at, ops);
        if comptime!(!moments.is_empty()) {
            seen += 1.0f32;
        }
        #[unroll]
        for sum in 0..sums {
            let accumulate = comptime!(walk.accumulate[sum].clone());
            let value = registers.find(accumulate.value);
            let moment = comptime!(moments.iter().position(|&moment| moment == sum));
            if comptime!(moment.is_some()) {
                let number = comptime!(moment.unwrap_or(0));
                let shift = select(seen == 1.0f32, value, shifts[number]);
                let mean = deviations[comptime!(2 * number)];
                let difference = value - shift;
                let distance = difference - mean;
                let moved = mean + distance / seen;
                shifts[number] = shift;
                deviations[comptime!(2 * number)] = moved;
                deviations[comptime!(2 * number + 1)] =
                    deviations[comptime!(2 * number + 1)] + distance * (difference - moved);
            } else if comptime!(accumulate.is_square()) {
                totals[sum] = totals[sum] + value * value;
            } else {
                totals[sum] = totals[sum] + value;
            }
        }
        #[unroll]
        for number in 0..walk.writes.len() {
            let write = comptime!(walk.writes[number].clone());
            let place = place(numbers, &at, comptime!(write.index.clone()));
            let value = registers.find(write.value);
            let output = outputs.index_mut(write.output);
            output[place] = value;
        }
        element += team;
        let moved = advance(visit, &next, &step, comptime!(walk.clone()));
        sample = moved.sample;
        channel = moved.channel;
        position = moved.position;
    }
    #[unroll]
    for number in 0..moments.len() {
        totals[comptime!(moments[number])] = seen * (shifts[number] + deviations[comptime!(2 * number)]);
    }
    if comptime!(sums > 0) {
        combine(shared, &mut totals, visit.lane, visit.row, sums, workgroup, team, comptime!(walk.slots_first));
    }

    // Every thread's moments around the common mean. Their first sum would be 0 without rounding, and
    // corrects for it.
    if comptime!(!moments.is_empty()) {
        #[unroll]
        for number in 0..moments.len() {
            let accumulate = comptime!(walk.accumulate[moments[number]].clone());
            let mean = totals[comptime!(moments[number])] / counts.find(accumulate.count);
            let distance = (shifts[number] - mean) + deviations[comptime!(2 * number)];
            let distance = select(seen > 0.0f32, distance, 0.0f32);
            deviations[comptime!(2 * number)] = seen * distance;
            deviations[comptime!(2 * number + 1)] = deviations[comptime!(2 * number + 1)] + seen * distance * distance;
        }
        let pairs = comptime!(2 * moments.len());
        combine(shared, &mut deviations, visit.lane, visit.row, pairs, workgroup, team, comptime!(walk.slots_first));
    }

    #[unroll]
    for sum in 0..sums {
        let accumulate = comptime!(walk.accumulate[sum].clone());
        let number = comptime!(moments.iter().position(|&moment| moment == sum).unwrap_or(0));
        let total = guarded(totals[sum], block, comptime!(accumulate.clone()));
        let count = counts.find(accumulate.count);
        #[unroll]
        for number_of_result in 0..accumulate.results.len() {
            let result = comptime!(accumulate.results[number_of_result].clone());
            let is_moments = comptime!(accumulate.is_moments());
            let value = match result.statistic {
                Statistic::Sum => total,
                Statistic::Mean => {
                    if comptime!(is_moments) {
                        total / count + deviations[comptime!(2 * number)] / count
                    } else {
                        total / count
                    }
                }
                Statistic::MeanSquare => total / count,
                Statistic::Variance => {
                    let drift = deviations[comptime!(2 * number)];
                    let variance = (deviations[comptime!(2 * number + 1)] - drift * (drift / count)) / count;
                    select(variance < 0.0f32, 0.0f32, variance)
                }
            };
            if comptime!(result.register.is_some()) {
                statistics.insert(comptime!(result.register.unwrap_or(0)), value);
            }
            #[unroll]
            for number in 0..result.places.len() {
                let (output, index) = comptime!(result.places[number].clone());
                if visit.is_slot && visit.lane == 0usize {
                    let place = place(numbers, &visit.at, index);
                    let output = outputs.index_mut(output);
                    output[place] = value;
                }
            }
        }
    }
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
#[cube]
fn combine(
    shared: &mut Shared<[f32]>,
    totals: &mut Array<f32>,
    lane: usize,
    row: usize,
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
            shared[mine + comptime!(sum * workgroup)] = totals[sum];
        }
        sync_cube();
        // Few barriers, which cost more than additions: sixteen to one, and then each thread adds up
        // what is left.
        let left = comptime!(if team > RADIX { team / RADIX } else { team });
        if comptime!(team > RADIX) {
            if lane < left {
                #[unroll]
                for sum in 0..sums {
                    let place = mine + comptime!(sum * workgroup);
                    let mut total = shared[place];
                    // A loop, as is the next one: what is unrolled takes the driver longer to compile than
                    // it saves.
                    for number in 1..RADIX {
                        total += shared[place + number * comptime!(left * stride)];
                    }
                    shared[place] = total;
                }
            }
            sync_cube();
        }
        #[unroll]
        for sum in 0..sums {
            let mut total = shared[base + comptime!(sum * workgroup)];
            for number in 1..left {
                total += shared[base + comptime!(sum * workgroup) + number * stride];
            }
            totals[sum] = total;
        }
    }
}

#[cube]
fn extent(numbers: &Registry<usize, usize>, of_block: usize, #[comptime] span: Span) -> usize {
    match span.extent {
        Extent::Block => of_block,
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
    let position = if comptime!(walk.positions.has_elements()) { element % visit.positions } else { 0usize.runtime() };
    let row = if comptime!(walk.positions.has_elements()) { element / visit.positions } else { element };
    let channel = if comptime!(walk.channels.has_elements()) {
        if comptime!(walk.samples.has_elements()) { row % visit.channels } else { row }
    } else {
        0usize.runtime()
    };
    let sample = if comptime!(walk.samples.has_elements()) {
        if comptime!(walk.channels.has_elements()) { row / visit.channels } else { row }
    } else {
        0usize.runtime()
    };
    Cursor { sample, channel, position }
}

/// The element that is a step further, with what overflows an axis carried to the next.
#[cube]
fn advance(visit: &Visit, from: &Cursor, step: &Cursor, #[comptime] walk: Walk) -> Cursor {
    let mut position = from.position + step.position;
    let mut channel = from.channel + step.channel;
    let mut sample = from.sample + step.sample;
    if comptime!(walk.positions.has_elements()) {
        let overflows = position >= visit.positions;
        position = select(overflows, position - visit.positions, position);
        let carry = select(overflows, 1usize, 0usize);
        if comptime!(walk.channels.has_elements()) {
            channel += carry;
        } else if comptime!(walk.samples.has_elements()) {
            sample += carry;
        }
    }
    if comptime!(walk.channels.has_elements() && walk.samples.has_elements()) {
        let overflows = channel >= visit.channels;
        channel = select(overflows, channel - visit.channels, channel);
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

/// The place in a buffer that belongs to an element.
#[cube]
fn place(numbers: &Registry<usize, usize>, at: &At, #[comptime] index: Index) -> usize {
    let mut place = numbers.find(index.offset);
    #[unroll]
    for number in 0..index.terms.len() {
        let term = comptime!(index.terms[number]);
        let coordinate = match term.of {
            Coordinate::Sample => at.sample,
            Coordinate::Channel => at.channel,
            Coordinate::Position => at.position,
            Coordinate::Row => at.row,
            Coordinate::Column => at.column,
        };
        let unit = comptime!(term.unit);
        let slot = if comptime!(unit == 1) { coordinate } else { coordinate / unit };
        place += slot * numbers.find(term.stride);
    }
    place
}

/// Adds the results of the operations to the registers.
#[cube]
#[allow(clippy::too_many_arguments)]
fn evaluate(
    inputs: &Sequence<Box<[f32]>>,
    outputs: &mut Sequence<Box<[f32]>>,
    numbers: &Registry<usize, usize>,
    counts: &Registry<usize, f32>,
    statistics: &mut Registry<usize, f32>,
    registers: &mut Registry<usize, f32>,
    at: &At,
    #[comptime] ops: Vec<(usize, Op)>,
) {
    #[unroll]
    for number in 0..ops.len() {
        let (register, op) = comptime!(ops[number].clone());
        let value = match op {
            Op::Input(input, index) => inputs.index(input)[place(numbers, at, index)],
            Op::Output(output, index) => outputs.index(output)[place(numbers, at, index)],
            Op::Statistic(statistic) => statistics.find(statistic),
            Op::Constant(bits) => f32::new(comptime!(f32::from_bits(bits))),
            Op::Count(count) => counts.find(count),
            Op::Unary(prim, a) => unary(registers.find(a), prim),
            Op::Binary(prim, a, b) => binary(registers.find(a), registers.find(b), prim),
        };
        registers.insert(register, value);
    }
}

#[cube]
fn unary(x: f32, #[comptime] prim: Prim) -> f32 {
    match prim {
        Prim::Neg => -x,
        Prim::Sigmoid => sigmoid(x),
        Prim::Tanh => hyperbolic_tangent(x),
        Prim::Exp => x.exp(),
        Prim::Log => sign(x) * x.abs().ln(),
        Prim::Abs => x.abs(),
        Prim::Square => x * x,
        Prim::Sqrt => sign(x) * x.abs().sqrt(),
        Prim::Erf => error_function(x),
        Prim::Sign => sign(x),
        Prim::Add | Prim::Mul | Prim::Div | Prim::Max => {
            comptime!(unreachable!("a graph checks the number of operands"))
        }
    }
}

#[cube]
fn binary(a: f32, b: f32, #[comptime] prim: Prim) -> f32 {
    match prim {
        Prim::Add => a + b,
        Prim::Mul => a * b,
        Prim::Div => a / b,
        // Where no comparison holds one of them is NaN, and so is the sum.
        Prim::Max => select(a >= b, a, select(b > a, b, a + b)),
        _ => comptime!(unreachable!("a graph checks the number of operands")),
    }
}

/// `-1`, `0` or `1`; NaN for NaN.
#[cube]
fn sign(x: f32) -> f32 {
    select(x > 0.0f32, 1.0f32, select(x < 0.0f32, -1.0f32, select(x == 0.0f32, 0.0f32, x)))
}

/// The exponential of a number that is not positive never overflows.
#[cube]
fn sigmoid(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    let larger = 1.0f32 / (1.0f32 + e);
    select(x >= 0.0f32, larger, e * larger)
}

/// Near 0, where `1 - exp(-2x)` would cancel, from a polynomial for `exp(2x) - 1`.
#[cube]
fn hyperbolic_tangent(x: f32) -> f32 {
    let a = x.abs();
    let e = (-2.0f32 * a).exp();
    let far = (1.0f32 - e) / (1.0f32 + e);
    let r = 2.0f32 * a;
    let q = polynomial(r, comptime!(vec![0.499_999_97, 0.166_665_46, 0.041_667_435, 0.008_366_272, 0.001_387_069_2]));
    let growth = r + r * r * q;
    let near = growth / (growth + 2.0f32);
    let magnitude = select(a < 0.17f32, near, far);
    select(x < 0.0f32, -magnitude, magnitude)
}

/// The same fits as in `normact-cpu`: one around 0, and one for the rest of the way to 1.
#[cube]
fn error_function(x: f32) -> f32 {
    let a = x.abs();
    let a = select(a > 3.925f32, 3.925f32, a);
    let p = polynomial(
        a * a,
        comptime!(vec![
            0.128_379_15,
            -0.376_125_48,
            0.112_829_63,
            -0.026_836_928,
            0.005_172_443_6,
            -0.000_804_320_85,
            9.194_286e-5,
            -5.650_273_6e-6,
        ]),
    );
    let q = polynomial(
        a - 2.6875f32,
        comptime!(vec![
            0.000_144_258_27,
            -0.000_823_445_8,
            0.002_214_791_3,
            -0.003_692_930_3,
            0.004_210_473_5,
            -0.003_421_697,
            0.001_980_865,
            -0.000_700_556_1,
            -2.805_419_9e-6,
            0.000_133_578_81,
            -4.236_559e-5,
        ]),
    );
    let magnitude = select(a < 1.5f32, a + a * p, 1.0f32 - q);
    select(x < 0.0f32, -magnitude, magnitude)
}

/// The polynomial with these coefficients, lowest power first, by Horner's rule.
#[cube]
fn polynomial(x: f32, #[comptime] coefficients: Vec<f32>) -> f32 {
    let count = comptime!(coefficients.len());
    let mut sum = f32::new(comptime!(coefficients[count - 1]));
    #[unroll]
    for number in 1..count {
        sum = sum * x + f32::new(comptime!(coefficients[count - 1 - number]));
    }
    sum
}
