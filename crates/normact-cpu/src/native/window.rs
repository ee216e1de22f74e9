//! The window of a sum of squares: what values become before they are squared, so that an f32 holds it.
//!
//! Code adds up `(value - centre) * scale` and its squares, as one multiplication and addition. A chunk is
//! visited again, with a better window, where it shows that the first one is none for it: the mean is far from
//! the centre, so that digits are lost when what that adds is taken out again, or squares are too large or too
//! small for an f32. Most chunks take one visit: of values around 0, and all that follow the first one of a
//! slot.

use crate::slots::{Accumulation, Moments};
use crate::vector::TINY;

/// What values become before they are squared.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Window {
    centre: f64,
    scale: f64,
    /// Whether the centre is the mean of these values already.
    is_centred: bool,
}

/// The scale of numbers whose squares are too large.
const OF_LARGE: f64 = 1.0 / (1u128 << 80) as f64;

/// The scale of numbers whose squares are too small.
const OF_SMALL: f64 = (1u128 << 96) as f64;

/// Differences from a larger number are never so small that they have no square, unless they are 0.
const LARGE_CENTRE: f64 = 1.0 / (1u64 << 20) as f64;

/// The largest distance of the mean from the centre, in standard deviations, squared.
const FAR: f64 = 4.0;

/// Whether the window that gave these sums, of so many elements, is one for them. That of a sum of squares has no
/// centre.
#[inline(always)]
pub(super) fn suits(what: Accumulation, count: f64, sum: f64, squares: f64) -> bool {
    squares.is_finite() && squares >= TINY * count && !is_far(what, count, sum, squares)
}

/// Whether the mean is so far from the centre that it should be the centre.
#[inline(always)]
fn is_far(what: Accumulation, count: f64, sum: f64, squares: f64) -> bool {
    what == Accumulation::Moments && (FAR + 1.0) * sum * sum > FAR * count * squares
}

impl Window {
    /// That of these numbers.
    #[inline(always)]
    pub(super) fn new([scale, offset]: [f32; 2]) -> Self {
        let scale = f64::from(scale);
        Self { centre: f64::from(-offset) / scale, scale, is_centred: false }
    }

    fn moved(centre: f64, scale: f64, is_centred: bool) -> Self {
        // As much of it as the code sees.
        Self { centre: f64::from((centre * scale) as f32) / scale, scale, is_centred }
    }

    /// The factor and the summand that code computes with.
    #[inline(always)]
    pub(super) fn numbers(self) -> [f32; 2] {
        [self.scale as f32, (-self.centre * self.scale) as f32]
    }

    /// The sums, of so many elements, without the scale.
    #[inline(always)]
    pub(super) fn moments(self, count: f64, sum: f64, squares: f64) -> Moments {
        let unit = 1.0 / self.scale;
        Moments { count, centre: self.centre, sum: sum * unit, squares: squares * unit * unit }
    }

    /// A window that suits these elements better, if there is one.
    pub(super) fn better(self, what: Accumulation, count: f64, sum: f64, squares: f64) -> Option<Self> {
        let is_far = is_far(what, count, sum, squares) && !self.is_centred;
        let mean = if what == Accumulation::Moments { self.centre + sum / (count * self.scale) } else { 0.0 };
        if !squares.is_finite() {
            // An element is infinite or NaN where smaller squares are no number either.
            let centre = if mean.is_finite() { mean } else { 0.0 };
            return (self.scale != OF_LARGE && !squares.is_nan()).then(|| Self::moved(centre, OF_LARGE, false));
        }
        if squares < TINY * count && self.scale == 1.0 && mean.abs() < LARGE_CENTRE {
            return Some(Self::moved(mean, OF_SMALL, false));
        }
        is_far.then(|| Self::moved(mean, self.scale, true))
    }
}
