//! Where a thread is, and where in memory what belongs there is.

use cubecl::prelude::*;

use super::super::program::{Coordinate, Extent, Index, Span, SpanKind, Walk};

/// Where a thread is: an element in the view of all ranks, and the block.
#[derive(CubeType, Clone, Copy)]
pub(super) struct At {
    pub(super) sample: usize,
    pub(super) channel: usize,
    pub(super) position: usize,
    /// The number of the block among those cut along samples and positions.
    pub(super) row: usize,
    /// The number of the block among those cut along channels.
    pub(super) column: usize,
}

/// The range of a block along each axis.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Block {
    pub(super) start: At,
    pub(super) samples: usize,
    pub(super) channels: usize,
    pub(super) positions: usize,
}

/// What one thread reads, beside registers.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Visit {
    pub(super) at: At,
    pub(super) lane: usize,
    pub(super) row: usize,
    pub(super) is_slot: bool,
    /// How many elements there are along each axis of the slot, and in all.
    pub(super) samples: usize,
    pub(super) channels: usize,
    pub(super) positions: usize,
}

/// The element of a slot that a thread is at, and how far it is to its next one: divisions are slow,
/// and one for each step of each element would cost more than the element.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Cursor {
    pub(super) sample: usize,
    pub(super) channel: usize,
    pub(super) position: usize,
}

/// A number divided by another one and what is left, where the quotient and the rest may be other than 0. A
/// `small` number is below 2^22.
#[cube]
pub(super) fn divided(
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

#[cube]
pub(super) fn extent(
    numbers: &Registry<usize, usize>,
    block: &Block,
    of_block: usize,
    #[comptime] span: Span,
) -> usize {
    match span.extent {
        Extent::Block => of_block,
        Extent::BlockOfRows => block.channels * block.positions,
        Extent::Number(index) => numbers.find(index),
    }
}

/// How many slots there are along an axis of such an extent.
#[cube]
pub(super) fn slots(extent: usize, #[comptime] span: Span) -> usize {
    match span.kind {
        SpanKind::One | SpanKind::Elements => 1usize.runtime(),
        SpanKind::Slots => extent,
        SpanKind::Grouped(size) => extent / size,
    }
}

/// How many elements of a slot there are along an axis of such an extent.
#[cube]
pub(super) fn elements(extent: usize, #[comptime] span: Span) -> usize {
    match span.kind {
        SpanKind::One | SpanKind::Slots => 1usize.runtime(),
        SpanKind::Elements => extent,
        SpanKind::Grouped(size) => size.runtime(),
    }
}

/// Which element of a slot has that number; also how far apart elements are whose numbers are that far
/// apart.
#[cube]
pub(super) fn cursor(visit: &Visit, element: usize, #[comptime] walk: Walk) -> Cursor {
    let [sample_varies, channel_varies, position_varies] =
        comptime!([walk.samples, walk.channels, walk.positions].map(Span::has_elements));
    let (rest, position) =
        divided(element, visit.positions, position_varies, comptime!(channel_varies || sample_varies), true);
    let (sample, channel) = divided(rest, visit.channels, channel_varies, sample_varies, true);
    Cursor { sample, channel, position }
}

/// How far it is to the next element, along the last of the axes that vary.
#[cube]
pub(super) fn next_to(#[comptime] varies: [bool; 3]) -> Cursor {
    let [_, channels, positions] = comptime!(varies);
    let (sample, channel, position) =
        comptime!((usize::from(!positions && !channels), usize::from(!positions && channels), usize::from(positions),));
    Cursor { sample: sample.runtime(), channel: channel.runtime(), position: position.runtime() }
}

/// What is a step further, with what overflows an axis carried to the next.
#[cube]
pub(super) fn advance(size: &Cursor, from: &Cursor, step: &Cursor, #[comptime] varies: [bool; 3]) -> Cursor {
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
pub(super) fn locate(visit: &Visit, cursor: &Cursor) -> At {
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
pub(super) fn place(
    numbers: &Registry<usize, usize>,
    at: &At,
    #[comptime] positions: usize,
    #[comptime] index: Index,
) -> usize {
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
