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

mod places;
mod sums;

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use self::places::{At, Block, Cursor, Visit, advance, divided, elements, extent, next_to, place, slots};
use self::sums::slot;
pub(super) use self::sums::{RADIX, RUN};
use super::math::{binary, unary};
use super::program::{Op, Program, Walk, number};

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
