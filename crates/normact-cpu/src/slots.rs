//! Small arrays: parameters, statistics, and what is accumulated on the way to them.

use std::borrow::Cow;

use normact_ir::{Axes, Channels};
use normact_plan::Sizes;
use normact_plan::graph::Statistic;

/// A box of the input: a range along each axis of the view samples x channels x positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) start: [usize; 3],
    pub(crate) end: [usize; 3],
}

impl Region {
    pub(crate) fn whole(sizes: Sizes) -> Self {
        Self { start: [0; 3], end: [sizes.samples, sizes.channels, sizes.positions] }
    }

    pub(crate) fn len(self, axis: usize) -> usize {
        self.end[axis] - self.start[axis]
    }

    pub(crate) fn elements(self) -> usize {
        (0..3).map(|axis| self.len(axis)).product()
    }
}

/// How the slots of a value in a region are numbered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The slot of the region's first element along each axis.
    origin: [usize; 3],
    /// The number of slots along each axis.
    dims: [usize; 3],
    /// Along which axes the value varies.
    varies: [bool; 3],
    /// Channels per slot.
    group: usize,
}

impl Layout {
    /// In the whole input.
    pub(crate) fn new(axes: Axes, sizes: Sizes) -> Self {
        let group = match axes.channels {
            Channels::One => sizes.channels,
            Channels::Groups(_) | Channels::All => sizes.channels / sizes.slots(axes)[1],
        };
        let varies = [axes.samples, axes.channels != Channels::One, axes.positions];
        Self { varies, group, ..Self::default() }.within(Region::whole(sizes))
    }

    /// In a part of the input.
    pub(crate) fn within(mut self, region: Region) -> Self {
        (self.origin, self.dims) = ([0; 3], [1; 3]);
        for axis in (0..3).filter(|&axis| self.varies[axis]) {
            let unit = if axis == 1 { self.group } else { 1 };
            let (start, end) = (region.start[axis], region.end[axis]);
            (self.origin[axis], self.dims[axis]) =
                if unit == 1 { (start, end - start) } else { (start / unit, end.div_ceil(unit) - start / unit) };
        }
        self
    }

    #[inline(always)]
    pub(crate) fn index(&self, [sample, channel, position]: [usize; 3]) -> usize {
        let sample = if self.varies[0] { sample - self.origin[0] } else { 0 };
        // Most values have single channels, and a division takes longer than all the rest here.
        let unit = |channel: usize| if self.group == 1 { channel } else { channel / self.group };
        let channel = if self.varies[1] { unit(channel) - self.origin[1] } else { 0 };
        let position = if self.varies[2] { position - self.origin[2] } else { 0 };
        (sample * self.dims[1] + channel) * self.dims[2] + position
    }

    pub(crate) fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether each sample has slots of its own.
    pub(crate) fn differs_by_sample(&self) -> bool {
        self.varies[0]
    }
}

/// Indices in order: every sample, in it every `unit`-th channel, of it every position.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Grid {
    pub(crate) start: [usize; 3],
    /// How many along each axis.
    pub(crate) count: [usize; 3],
    pub(crate) unit: usize,
}

impl Grid {
    pub(crate) fn len(&self) -> usize {
        self.count.iter().product()
    }

    /// Each index.
    pub(crate) fn each(&self, mut take: impl FnMut([usize; 3])) {
        let [sample, channel, position] = self.start;
        for n in 0..self.count[0] {
            for c in 0..self.count[1] {
                for s in 0..self.count[2] {
                    take([sample + n, channel + c * self.unit, position + s]);
                }
            }
        }
    }

    /// Parts of at most so many indices.
    pub(crate) fn parts(self, most: usize) -> impl Iterator<Item = Grid> {
        let positions = self.count[2].min(most);
        let channels = self.count[1].min(most / positions.max(1));
        let samples = self.count[0].min(most / (positions * channels).max(1));
        let step = [samples, channels, positions].map(|step| step.max(1));
        let starts = move |axis: usize| (0..self.count[axis]).step_by(step[axis]);
        starts(0).flat_map(move |n| {
            starts(1).flat_map(move |c| {
                starts(2).map(move |s| Grid {
                    start: [self.start[0] + n, self.start[1] + c * self.unit, self.start[2] + s],
                    count: [
                        step[0].min(self.count[0] - n),
                        step[1].min(self.count[1] - c),
                        step[2].min(self.count[2] - s),
                    ],
                    unit: self.unit,
                })
            })
        })
    }
}

/// The numbers of slots.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Numbers<'a> {
    Single(&'a [f32]),
    Double(&'a [f64]),
}

impl Numbers<'_> {
    #[inline(always)]
    fn at(self, slot: usize) -> f64 {
        match self {
            Numbers::Single(numbers) => f64::from(numbers[slot]),
            Numbers::Double(numbers) => numbers[slot],
        }
    }

    fn copy(self, start: usize, into: &mut [f64]) {
        match self {
            Numbers::Single(numbers) => {
                let numbers = &numbers[start..start + into.len()];
                into.iter_mut().zip(numbers).for_each(|(into, &number)| *into = f64::from(number));
            }
            Numbers::Double(numbers) => into.copy_from_slice(&numbers[start..start + into.len()]),
        }
    }
}

impl Layout {
    /// The numbers at each index of a grid.
    pub(crate) fn gather(&self, grid: &Grid, numbers: Numbers<'_>, into: &mut [f64]) {
        let ([_, channels, positions], [sample, channel, position]) = (grid.count, grid.start);
        if channels * positions == 0 {
            return;
        }
        for (n, into) in into.chunks_exact_mut(channels * positions).enumerate() {
            let start = self.index([sample + n, channel, position]);
            if positions == 1 && self.varies[1] && grid.unit == 1 {
                if self.group == 1 {
                    numbers.copy(start, into);
                    continue;
                }
                // Without a division for each channel.
                let (mut slot, mut left) = (start, self.group - channel % self.group);
                for into in into {
                    if left == 0 {
                        (slot, left) = (slot + 1, self.group);
                    }
                    *into = numbers.at(slot);
                    left -= 1;
                }
                continue;
            }
            if !self.varies[1] && !self.varies[2] {
                into.fill(numbers.at(start));
                continue;
            }
            for (c, into) in into.chunks_exact_mut(positions).enumerate() {
                let start = self.index([sample + n, channel + c * grid.unit, position]);
                if self.varies[2] { numbers.copy(start, into) } else { into.fill(numbers.at(start)) }
            }
        }
    }
}

/// The values of slots.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots {
    pub(crate) layout: Layout,
    pub(crate) values: Vec<f64>,
}

impl Slots {
    /// Zeros, in the same memory.
    pub(crate) fn reset(&mut self, layout: Layout) {
        self.layout = layout;
        self.values.clear();
        self.values.resize(layout.len(), 0.0);
    }

    /// Copies the slots of a part into their places.
    pub(crate) fn copy_from(&mut self, part: &Slots) {
        let [samples, channels, positions] = part.layout.dims;
        for sample in 0..samples {
            for channel in 0..channels {
                let from = (sample * channels + channel) * positions;
                let place = |axis: usize, offset: usize| part.layout.origin[axis] + offset - self.layout.origin[axis];
                let row = place(0, sample) * self.layout.dims[1] + place(1, channel);
                let to = row * self.layout.dims[2] + place(2, 0);
                self.values[to..to + positions].copy_from_slice(&part.values[from..from + positions]);
            }
        }
    }
}

/// What is accumulated of numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Accumulation {
    #[default]
    Sum,
    SumOfSquares,
    Moments,
}

/// What some elements add to the moments of a slot: sums of their differences from a number near their
/// mean. Unlike squares of the elements themselves, those of the differences lose no digits to a large mean.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Moments {
    pub(crate) count: f64,
    /// What the differences are taken from; finite.
    pub(crate) centre: f64,
    pub(crate) sum: f64,
    pub(crate) squares: f64,
}

impl Moments {
    /// Those of one number.
    pub(crate) fn of(number: f64) -> Self {
        let centre = if number.is_finite() { number } else { 0.0 };
        let sum = number - centre;
        Self { count: 1.0, centre, sum, squares: sum * sum }
    }

    pub(crate) fn mean(self) -> f64 {
        self.centre + self.sum / self.count
    }

    /// The sum of squared deviations from the mean: that of the differences, without what the centre is away
    /// from the mean.
    pub(crate) fn deviations(self) -> f64 {
        let deviations = self.squares - self.sum * self.sum / self.count;
        // Unlike a maximum, this keeps a NaN.
        if deviations < 0.0 { 0.0 } else { deviations }
    }
}

/// What is accumulated for each slot, in f64.
#[derive(Debug, Clone, Default)]
pub(crate) struct Accumulator {
    pub(crate) layout: Layout,
    pub(crate) what: Accumulation,
    /// The sum, the sum of squares, or that of the differences from the centre.
    pub(crate) first: Vec<f64>,
    /// For moments only: the sum of squared differences, the centre, and the number of elements so far.
    pub(crate) second: Vec<f64>,
    pub(crate) centre: Vec<f64>,
    pub(crate) count: Vec<f64>,
}

impl Accumulator {
    pub(crate) fn new(layout: Layout, what: Accumulation) -> Self {
        let mut accumulator = Self::default();
        accumulator.reset(layout, what);
        accumulator
    }

    /// Begins anew, in the same memory.
    pub(crate) fn reset(&mut self, layout: Layout, what: Accumulation) {
        (self.layout, self.what) = (layout, what);
        let moments = if what == Accumulation::Moments { layout.len() } else { 0 };
        for (values, len) in [
            (&mut self.first, layout.len()),
            (&mut self.second, moments),
            (&mut self.centre, moments),
            (&mut self.count, moments),
        ] {
            values.clear();
            values.resize(len, 0.0);
        }
    }

    /// Adds the elements counted by another accumulator of the same layout.
    pub(crate) fn merge(&mut self, other: &Accumulator) {
        if self.what != Accumulation::Moments {
            self.first.iter_mut().zip(&other.first).for_each(|(sum, more)| *sum += more);
            return;
        }
        for slot in 0..self.count.len() {
            self.add_moments(slot, other.moments(slot));
        }
    }

    pub(crate) fn moments(&self, slot: usize) -> Moments {
        Moments {
            count: self.count[slot],
            centre: self.centre[slot],
            sum: self.first[slot],
            squares: self.second[slot],
        }
    }

    /// Adds elements to a slot, whose centre is that of the first ones. In f64 all digits that matter are kept
    /// when differences from another centre become those from this one.
    #[inline(always)]
    pub(crate) fn add_moments(&mut self, slot: usize, part: Moments) {
        if part.count == 0.0 {
            return;
        }
        if self.count[slot] == 0.0 {
            self.centre[slot] = part.centre;
        }
        let shift = part.centre - self.centre[slot];
        self.first[slot] += part.sum + part.count * shift;
        self.second[slot] += part.squares + shift * (2.0 * part.sum + part.count * shift);
        self.count[slot] += part.count;
    }

    /// Gives memory back that is for more than so many slots.
    pub(crate) fn shrink_to(&mut self, slots: usize) {
        for values in [&mut self.first, &mut self.second, &mut self.centre, &mut self.count] {
            values.truncate(slots);
            values.shrink_to(slots);
        }
    }

    /// The value of a statistic in each slot, of which `count` elements make one.
    pub(crate) fn statistic(&self, statistic: Statistic, count: f64, into: &mut Slots) {
        into.layout = self.layout;
        into.values.clear();
        let moments = (0..self.count.len()).map(|slot| self.moments(slot));
        match (self.what, statistic) {
            (Accumulation::Sum, Statistic::Sum) => into.values.extend_from_slice(&self.first),
            (Accumulation::Sum, Statistic::Mean) | (Accumulation::SumOfSquares, Statistic::MeanSquare) => {
                into.values.extend(self.first.iter().map(|sum| sum / count));
            }
            (Accumulation::Moments, Statistic::Mean) => into.values.extend(moments.map(Moments::mean)),
            (Accumulation::Moments, Statistic::Variance) => {
                into.values.extend(moments.map(|moments| moments.deviations() / count));
            }
            (what, statistic) => unreachable!("{what:?} does not give {statistic:?}"),
        }
    }

    /// The same elements in slots of the layout `to`, which may be groups where this accumulator has single
    /// channels.
    pub(crate) fn folded(&self, to: Layout) -> Cow<'_, Accumulator> {
        if self.layout == to {
            return Cow::Borrowed(self);
        }
        let mut folded = Accumulator::new(to, self.what);
        let ([samples, channels, positions], groups) = (self.layout.dims, to.dims[1]);
        let per_group = channels / groups;
        for row in 0..samples * channels {
            for position in 0..positions {
                let from = row * positions + position;
                let slot = (row / channels * groups + row % channels / per_group) * positions + position;
                if self.what == Accumulation::Moments {
                    folded.add_moments(slot, self.moments(from));
                } else {
                    folded.first[slot] += self.first[from];
                }
            }
        }
        Cow::Owned(folded)
    }
}
