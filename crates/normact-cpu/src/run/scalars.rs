//! Arithmetic on slots, in f64: scalars of rows, reductions of what has slots only, and results that are
//! small.
//!
//! A step is done at many indices before the next one, so that finding out what it is costs little.

use normact_plan::graph::Statistic;

use super::Context;
use super::vectorized::{Vectorized, vectorized};
use crate::native::MOST_ROWS;
use crate::program::{Array, ScalarStep, Scalars, Small, SmallValue};
use crate::slots::{Accumulation, Accumulator, Grid, Layout, Moments, Numbers, Region, Slots};
use crate::vector::{Wide, wide_step};

/// The most indices that scalars are computed at together.
pub(super) const TOGETHER: usize = MOST_ROWS;

/// Scalars at several indices.
#[derive(Default)]
pub(crate) struct Columns {
    values: Vec<f64>,
    len: usize,
}

impl Columns {
    /// A scalar at each index.
    #[inline(always)]
    pub(crate) fn of(&self, scalar: usize) -> &[f64] {
        &self.values[scalar * self.len..][..self.len]
    }

    /// Scalars at one index: for tests.
    #[cfg(test)]
    pub(crate) fn single(scalars: &[f64]) -> Self {
        Self { values: scalars.to_vec(), len: 1 }
    }

    /// Computes scalars at the indices of a grid.
    #[inline(always)]
    fn compute<'a>(&mut self, scalars: &Scalars, grid: &Grid, slots: impl Fn(Array) -> (Layout, Numbers<'a>)) {
        self.len = grid.len();
        self.values.resize(self.values.len().max(scalars.steps.len() * self.len), 0.0);
        for (number, &step) in scalars.steps.iter().enumerate() {
            let (known, rest) = self.values.split_at_mut(number * self.len);
            let column = |step: usize| Wide::Vector(&known[step * self.len..][..self.len]);
            let into = &mut rest[..self.len];
            match step {
                ScalarStep::Constant(value) => into.fill(value),
                ScalarStep::Load(array) => {
                    let (layout, numbers) = slots(array);
                    layout.gather(grid, numbers, into);
                }
                ScalarStep::Unary(prim, a) => wide_step(prim, column(a), Wide::Scalar(0.0), into),
                ScalarStep::Binary(prim, a, b) => wide_step(prim, column(a), column(b), into),
            }
        }
    }
}

impl Context<'_> {
    /// Computes scalars at the indices of a grid, of at most [`TOGETHER`].
    pub(super) fn scalars(&self, scalars: &Scalars, results: &[Slots], grid: &Grid, columns: &mut Columns) {
        struct Task<'a>(&'a Context<'a>, &'a Scalars, &'a [Slots], &'a Grid, &'a mut Columns);
        impl Vectorized for Task<'_> {
            #[inline(always)]
            fn run<const FMA: bool>(self) {
                let Task(context, scalars, results, grid, columns) = self;
                columns.compute(scalars, grid, |array| context.slots(results, array));
            }
        }
        vectorized(Task(self, scalars, results, grid, columns));
    }

    /// Hands a value at each index of a grid to `take`.
    pub(super) fn each(
        &self,
        value: &SmallValue,
        results: &[Slots],
        grid: Grid,
        columns: &mut Columns,
        mut take: impl FnMut([usize; 3], f64),
    ) {
        for part in grid.parts(TOGETHER) {
            self.scalars(&value.scalars, results, &part, columns);
            let mut values = columns.of(value.root).iter();
            part.each(|index| take(index, *values.next().expect("a value at each index")));
        }
    }

    /// Reduces a value that has slots only.
    pub(super) fn reduce(&self, small: &Small, results: &mut [Slots], region: Region, memory: &mut Memory) {
        let to = small.to.within(region);
        memory.sums.reset(to, Accumulation::of(small.statistic));
        self.accumulate(small, results, region, &mut memory.sums, &mut memory.columns);
        memory.sums.statistic(small.statistic, small.count, &mut results[small.result]);
    }

    /// Adds the elements of the operand that belong to a region. Along an axis that the operand does not
    /// vary along there is one element, and it belongs to the region at the start of that axis, or to
    /// every region if its sum stays within the region.
    pub(super) fn accumulate(
        &self,
        small: &Small,
        results: &[Slots],
        region: Region,
        sums: &mut Accumulator,
        columns: &mut Columns,
    ) {
        let varies = small.varies;
        if small.is_across && (0..3).any(|axis| !varies[axis] && region.start[axis] != 0) {
            return;
        }
        let count = std::array::from_fn(|axis| if varies[axis] { region.len(axis) } else { 1 });
        let (layout, what) = (sums.layout, sums.what);
        let grid = Grid { start: region.start, count, unit: 1 };
        self.each(&small.operand, results, grid, columns, |index, value| {
            let slot = layout.index(index);
            match what {
                Accumulation::Sum => sums.first[slot] += value,
                Accumulation::SumOfSquares => sums.first[slot] += value * value,
                Accumulation::Moments => sums.add_moments(slot, Moments::of(value)),
            }
        });
    }
}

/// What reductions of slots use again.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) columns: Columns,
    sums: Accumulator,
}

impl Accumulation {
    fn of(statistic: Statistic) -> Self {
        match statistic {
            Statistic::Sum | Statistic::Mean => Accumulation::Sum,
            Statistic::MeanSquare => Accumulation::SumOfSquares,
            Statistic::Variance => Accumulation::Moments,
        }
    }
}
