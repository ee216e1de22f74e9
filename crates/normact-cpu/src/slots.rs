//! Small arrays: parameters, statistics, and what is accumulated on the way to them.

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
}

/// How the slots of a value in a region are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The slot of the region's first element along each axis.
    origin: [usize; 3],
    /// The number of slots along each axis.
    dims: [usize; 3],
    /// 1 where the value varies along samples and positions, else 0.
    varies: [bool; 3],
    /// Channels per slot.
    group: usize,
}

impl Layout {
    pub(crate) fn new(axes: Axes, sizes: Sizes, region: Region) -> Self {
        let group = match axes.channels {
            Channels::One => sizes.channels,
            Channels::Groups(_) | Channels::All => sizes.channels / sizes.slots(axes)[1],
        };
        let varies = [axes.samples, axes.channels != Channels::One, axes.positions];
        let (mut origin, mut dims) = ([0; 3], [1; 3]);
        for axis in 0..3 {
            if varies[axis] {
                let unit = if axis == 1 { group } else { 1 };
                origin[axis] = region.start[axis] / unit;
                dims[axis] = region.end[axis].div_ceil(unit) - origin[axis];
            }
        }
        Self { origin, dims, varies, group }
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
}

/// The values of slots.
#[derive(Debug, Clone)]
pub(crate) struct Slots {
    pub(crate) layout: Layout,
    pub(crate) values: Vec<f64>,
}

impl Slots {
    pub(crate) fn zeros(layout: Layout) -> Self {
        Self { layout, values: vec![0.0; layout.len()] }
    }

    #[inline(always)]
    pub(crate) fn at(&self, index: [usize; 3]) -> f64 {
        self.values[self.layout.index(index)]
    }

    /// Copies the slots of a part into their places.
    pub(crate) fn place(&mut self, part: &Slots) {
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

/// What is accumulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Sum,
    SumOfSquares,
    Moments,
}

impl Kind {
    pub(crate) fn of(statistic: Statistic) -> Self {
        match statistic {
            Statistic::Sum | Statistic::Mean => Kind::Sum,
            Statistic::MeanSquare => Kind::SumOfSquares,
            Statistic::Variance => Kind::Moments,
        }
    }
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
#[derive(Debug, Clone)]
pub(crate) struct Accumulator {
    pub(crate) layout: Layout,
    pub(crate) kind: Kind,
    /// The sum, the sum of squares, or that of the differences from the centre.
    pub(crate) first: Vec<f64>,
    /// For moments only: the sum of squared differences, the centre, and the number of elements so far.
    pub(crate) second: Vec<f64>,
    pub(crate) centre: Vec<f64>,
    pub(crate) count: Vec<f64>,
}

impl Accumulator {
    pub(crate) fn new(layout: Layout, kind: Kind) -> Self {
        let len = layout.len();
        let zeros = || vec![0.0; if kind == Kind::Moments { len } else { 0 }];
        Self { layout, kind, first: vec![0.0; len], second: zeros(), centre: zeros(), count: zeros() }
    }

    /// Adds the elements counted by another accumulator of the same layout.
    pub(crate) fn merge(&mut self, other: &Accumulator) {
        if self.kind != Kind::Moments {
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

    /// The statistics, in slots of the layout `to`, which may be groups where this accumulator has
    /// single channels. `count` elements make a slot.
    pub(crate) fn finish(&self, statistics: &[Statistic], to: Layout, count: f64) -> Vec<Slots> {
        let folded;
        let source = if self.layout == to {
            self
        } else {
            folded = self.folded(to);
            &folded
        };
        let value = |statistic: Statistic, slot: usize| match (self.kind, statistic) {
            (Kind::Sum, Statistic::Sum) => source.first[slot],
            (Kind::Sum, Statistic::Mean) | (Kind::SumOfSquares, Statistic::MeanSquare) => source.first[slot] / count,
            (Kind::Moments, Statistic::Mean) => source.moments(slot).mean(),
            (Kind::Moments, Statistic::Variance) => source.moments(slot).deviations() / count,
            (kind, statistic) => unreachable!("{kind:?} does not give {statistic:?}"),
        };
        let slots = |&statistic: &Statistic| {
            let values = (0..to.len()).map(|slot| value(statistic, slot)).collect();
            Slots { layout: to, values }
        };
        statistics.iter().map(slots).collect()
    }

    fn folded(&self, to: Layout) -> Accumulator {
        let mut folded = Accumulator::new(to, self.kind);
        let ([samples, channels, positions], groups) = (self.layout.dims, to.dims[1]);
        let per_group = channels / groups;
        for row in 0..samples * channels {
            for position in 0..positions {
                let from = row * positions + position;
                let slot = (row / channels * groups + row % channels / per_group) * positions + position;
                if self.kind == Kind::Moments {
                    folded.add_moments(slot, self.moments(from));
                } else {
                    folded.first[slot] += self.first[from];
                }
            }
        }
        folded
    }
}
