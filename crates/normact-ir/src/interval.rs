//! Interval arithmetic: which values an expression can take, whatever its input and parameters.
//!
//! It decides the warnings "possible division by zero" and "`exp` overflow", and the guards of
//! rewrite rules. An interval may also say that zero is never taken, since `exp(x)` is positive
//! though no positive number bounds it from below.

use crate::math::sign;
use crate::prim::{Moment, Quantity};

/// A closed interval of extended real numbers, possibly without zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    low: f64,
    high: f64,
    nonzero: bool,
}

impl Interval {
    /// All numbers.
    pub const ALL: Interval = Interval { low: f64::NEG_INFINITY, high: f64::INFINITY, nonzero: false };

    /// The numbers from `low` to `high`.
    pub fn new(low: f64, high: f64) -> Self {
        if low.is_nan() || high.is_nan() {
            return Self::ALL;
        }
        // Adding zero turns -0.0 into 0.0, whose inverse is positive.
        Self { low: low + 0.0, high: high + 0.0, nonzero: low > 0.0 || high < 0.0 }
    }

    /// One number.
    pub fn point(value: f64) -> Self {
        Self::new(value, value)
    }

    /// The least value, or minus infinity.
    pub fn low(self) -> f64 {
        self.low
    }

    /// The greatest value, or infinity.
    pub fn high(self) -> f64 {
        self.high
    }

    /// Whether zero is one of the values.
    pub fn contains_zero(self) -> bool {
        !self.nonzero
    }

    /// Whether every value is greater than zero.
    pub fn is_positive(self) -> bool {
        self.low >= 0.0 && self.nonzero
    }

    /// Whether every value is zero or greater.
    pub fn is_not_negative(self) -> bool {
        self.low >= 0.0
    }

    /// The same values except zero.
    pub fn without_zero(self) -> Self {
        Self { nonzero: true, ..self }
    }

    /// For a function that is zero only at zero.
    pub(crate) fn zero_as_in(self, operand: Self) -> Self {
        Self { nonzero: operand.nonzero, ..self }
    }

    pub(crate) fn increasing(self, f: fn(f64) -> f64) -> Self {
        Self::new(f(self.low), f(self.high))
    }

    pub(crate) fn neg(self) -> Self {
        Self::new(-self.high, -self.low).zero_as_in(self)
    }

    pub(crate) fn abs(self) -> Self {
        let (low, high) = if self.low >= 0.0 {
            (self.low, self.high)
        } else if self.high <= 0.0 {
            (-self.high, -self.low)
        } else {
            (0.0, self.high.max(-self.low))
        };
        Self::new(low, high).zero_as_in(self)
    }

    pub(crate) fn square(self) -> Self {
        let magnitude = self.abs();
        Self::new(magnitude.low * magnitude.low, magnitude.high * magnitude.high).zero_as_in(self)
    }

    pub(crate) fn signed_log(self) -> Self {
        let log = |x: f64| sign(x) * x.abs().ln();
        if self.is_positive() || (self.high < 0.0) { Self::new(log(self.low), log(self.high)) } else { Self::ALL }
    }

    pub(crate) fn add(self, other: Self) -> Self {
        let sum = Self::new(self.low + other.low, self.high + other.high);
        // Two numbers of one sign add up to zero only if both are zero.
        let not_negative = self.is_not_negative() && other.is_not_negative();
        let not_positive = self.high <= 0.0 && other.high <= 0.0;
        let nonzero = sum.nonzero || ((not_negative || not_positive) && (self.nonzero || other.nonzero));
        Self { nonzero, ..sum }
    }

    pub(crate) fn mul(self, other: Self) -> Self {
        let corners = [self.low * other.low, self.low * other.high, self.high * other.low, self.high * other.high]
            // Zero times an unbounded end is zero: the end is a limit, never a value.
            .map(|corner| if corner.is_nan() { 0.0 } else { corner });
        let low = corners.iter().copied().fold(f64::INFINITY, f64::min);
        let high = corners.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Self { nonzero: self.nonzero && other.nonzero, ..Self::new(low, high) }
    }

    pub(crate) fn div(self, other: Self) -> Self {
        if other.contains_zero() {
            return Self::ALL;
        }
        self.mul(other.inverse())
    }

    /// `1 / x` of an interval without zero.
    fn inverse(self) -> Self {
        if self.low >= 0.0 {
            Self::new(1.0 / self.high, 1.0 / self.low).without_zero()
        } else if self.high <= 0.0 {
            self.neg().inverse().neg()
        } else {
            Self::ALL.without_zero()
        }
    }

    pub(crate) fn max(self, other: Self) -> Self {
        let result = Self::new(self.low.max(other.low), self.high.max(other.high));
        let nonzero = result.nonzero || self.is_positive() || other.is_positive() || (self.nonzero && other.nonzero);
        Self { nonzero, ..result }
    }

    /// The image of a moment of values in this interval.
    pub fn moment(self, moment: Moment, eps: f64) -> Self {
        let average = match moment.quantity() {
            Quantity::Mean => return self,
            Quantity::MeanSquare => self.square(),
            // A population variance is at most the square of half the width.
            Quantity::Variance => Self::new(0.0, ((self.high - self.low) / 2.0).powi(2)),
        };
        if !moment.is_root() {
            return average;
        }
        // A mean square of numbers that are not zero is positive, though it may be as small as you like.
        let nonzero = average.nonzero || eps > 0.0;
        Self { nonzero, ..Self::new((average.low + eps).sqrt(), (average.high + eps).sqrt()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prim::Prim;

    #[test]
    fn what_is_positive_is_known_to_be() {
        let x = Interval::ALL;
        let sigmoid = Prim::Sigmoid.range(x, x);
        assert!(sigmoid.is_positive() && sigmoid.high() == 1.0);
        let exp = Prim::Exp.range(x, x);
        assert!(exp.is_positive());
        let std = x.moment(Moment::Std, 1e-5);
        assert!(std.is_positive());
        assert!(!x.moment(Moment::Std, 0.0).is_positive());
        assert!(Prim::Max.range(std, x).is_positive());
        let one = Interval::point(1.0);
        assert!(Prim::Add.range(one, Prim::Square.range(x, x)).is_positive());
        assert!(Prim::Div.range(one, exp).is_positive());
        assert!(Prim::Div.range(one, Prim::Neg.range(exp, exp)).high() <= 0.0);
        assert!(Prim::Add.range(one, x).contains_zero());
    }
}
