//! Dense f64 arrays in the view all ranks share: samples x channels x positions.

use crate::prim::Quantity;
use crate::reduction::Reduction;

/// A value of the reference evaluator; an axis it does not vary along has size 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    dims: [usize; 3],
    data: Vec<f64>,
}

impl Array {
    /// An array from its elements in row-major order.
    ///
    /// # Panics
    /// The number of elements is not the product of the sizes.
    pub fn new(dims: [usize; 3], data: Vec<f64>) -> Self {
        assert_eq!(dims.iter().product::<usize>(), data.len(), "{dims:?} does not describe {} elements", data.len());
        Self { dims, data }
    }

    /// One value everywhere.
    pub fn full(dims: [usize; 3], value: f64) -> Self {
        Self::new(dims, vec![value; dims.iter().product()])
    }

    /// The sizes of samples, channels, positions.
    pub fn dims(&self) -> [usize; 3] {
        self.dims
    }

    /// The elements in row-major order.
    pub fn data(&self) -> &[f64] {
        &self.data
    }

    /// The elements in row-major order.
    pub fn into_data(self) -> Vec<f64> {
        self.data
    }

    pub(crate) fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self::new(self.dims, self.data.iter().map(|&x| f(x)).collect())
    }

    /// Elementwise with broadcasting.
    pub(crate) fn zip(&self, other: &Self, f: impl Fn(f64, f64) -> f64) -> Self {
        if self.dims == other.dims {
            return Self::new(self.dims, self.data.iter().zip(&other.data).map(|(&a, &b)| f(a, b)).collect());
        }
        let dims = [0, 1, 2].map(|axis| self.dims[axis].max(other.dims[axis]));
        let mut data = Vec::with_capacity(dims.iter().product());
        for_each_index(dims, |index| data.push(f(self.data[self.offset(index)], other.data[other.offset(index)])));
        Self::new(dims, data)
    }

    /// Repeats the elements along axes of size 1.
    pub(crate) fn broadcast(&self, dims: [usize; 3]) -> Self {
        if self.dims == dims {
            return self.clone();
        }
        let mut data = Vec::with_capacity(dims.iter().product());
        for_each_index(dims, |index| data.push(self.data[self.offset(index)]));
        Self::new(dims, data)
    }

    /// The transpose of broadcasting: sums over the axes that `dims` has at size 1.
    pub(crate) fn sum_to(&self, dims: [usize; 3]) -> Self {
        if self.dims == dims {
            return self.clone();
        }
        let mut sum = Self::full(dims, 0.0);
        let mut position = 0;
        for_each_index(self.dims, |index| {
            let offset = sum.offset(index);
            sum.data[offset] += self.data[position];
            position += 1;
        });
        sum
    }

    /// The offset of an index, with axes of size 1 repeated.
    fn offset(&self, index: [usize; 3]) -> usize {
        let at = |axis: usize| if self.dims[axis] == 1 { 0 } else { index[axis] };
        (at(0) * self.dims[1] + at(1)) * self.dims[2] + at(2)
    }
}

fn for_each_index(dims: [usize; 3], mut f: impl FnMut([usize; 3])) {
    for sample in 0..dims[0] {
        for channel in 0..dims[1] {
            for position in 0..dims[2] {
                f([sample, channel, position]);
            }
        }
    }
}

/// Reductions of arrays, and their transposes.
impl Reduction {
    /// Sums the elements of `x` into their statistics.
    pub(crate) fn sum(self, x: &Array) -> Array {
        let mut sums = Array::full(self.slots, 0.0);
        let mut position = 0;
        for_each_index(self.operand, |index| {
            let slot = self.slot(index);
            sums.data[slot] += x.data[position];
            position += 1;
        });
        sums
    }

    /// Gives every element its statistic: the transpose of [`Self::sum`].
    pub(crate) fn spread(self, statistics: &Array) -> Array {
        let mut data = Vec::with_capacity(self.operand.iter().product());
        for_each_index(self.operand, |index| data.push(statistics.data[self.slot(index)]));
        Array::new(self.operand, data)
    }

    /// The average of a quantity, one value per statistic. Variances take two passes.
    pub(crate) fn average(self, x: &Array, quantity: Quantity) -> Array {
        let count = self.count() as f64;
        let mean = |x: &Array| self.sum(x).map(|sum| sum / count);
        match quantity {
            Quantity::Mean => mean(x),
            Quantity::MeanSquare => mean(&x.map(|x| x * x)),
            Quantity::Variance => {
                let centre = self.spread(&mean(x));
                mean(&x.zip(&centre, |x, centre| (x - centre) * (x - centre)))
            }
        }
    }

    /// Statistics as a value that broadcasts against the operand: groups are repeated per channel.
    pub(crate) fn as_value(self, statistics: Array) -> Array {
        if self.is_grouped() { self.of_values(self.operand[1]).spread(&statistics) } else { statistics }
    }

    /// The transpose of [`Self::as_value`].
    pub(crate) fn gather(self, gradient: &Array) -> Array {
        self.of_values(gradient.dims[1]).sum(gradient)
    }

    /// One value per statistic, from the form made by [`Self::as_value`].
    pub(crate) fn representative(self, value: &Array) -> Array {
        let per_channel = self.of_values(value.dims[1]);
        let mut statistics = Array::full(self.slots, 0.0);
        let mut position = 0;
        for_each_index(per_channel.operand, |index| {
            statistics.data[per_channel.slot(index)] = value.data[position];
            position += 1;
        });
        statistics
    }

    /// From statistics in the form of a value, one for each channel, to statistics.
    fn of_values(self, channels: usize) -> Self {
        let [samples, _, positions] = self.slots;
        Self { operand: [samples, channels, positions], ..self }
    }

    fn slot(self, [sample, channel, position]: [usize; 3]) -> usize {
        let sample = if self.slots[0] == 1 { 0 } else { sample };
        let channel = channel * self.slots[1] / self.operand[1];
        let position = if self.slots[2] == 1 { 0 } else { position };
        (sample * self.slots[1] + channel) * self.slots[2] + position
    }
}
