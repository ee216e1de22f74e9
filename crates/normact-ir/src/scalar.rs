//! A finite number that can be compared, hashed and stored in a graph.

use std::fmt;
use std::hash::{Hash, Hasher};

/// A finite `f64`, equal to another when the bits are equal except that `-0.0` is stored as `0.0`.
#[derive(Debug, Clone, Copy)]
pub struct Scalar(f64);

impl Scalar {
    /// Zero.
    pub const ZERO: Scalar = Scalar(0.0);
    /// One.
    pub const ONE: Scalar = Scalar(1.0);

    /// Wraps a finite number; `None` for infinities and NaN.
    pub fn new(value: f64) -> Option<Self> {
        // Adding zero turns -0.0 into 0.0, so that equal numbers have one representation.
        value.is_finite().then_some(Self(value + 0.0))
    }

    /// The number.
    pub fn get(self) -> f64 {
        self.0
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.to_bits().hash(state);
    }
}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl fmt::Display for Scalar {
    /// The shortest decimal text that reads back as the same number: `1`, `0.5`, `1e-5`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.abs();
        if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
            write!(f, "{:e}", self.0)
        } else {
            write!(f, "{}", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_short_text_that_reads_back() {
        for (value, text) in [(1.0, "1"), (0.5, "0.5"), (1e-5, "1e-5"), (-2.0, "-2"), (1e300, "1e300"), (1e-3, "0.001")]
        {
            let scalar = Scalar::new(value).unwrap();
            assert_eq!(scalar.to_string(), text);
            assert_eq!(text.parse::<f64>().unwrap(), value);
        }
    }

    #[test]
    fn has_one_zero_and_no_infinity() {
        assert_eq!(Scalar::new(-0.0), Some(Scalar::ZERO));
        assert_eq!(Scalar::new(f64::INFINITY), None);
        assert_eq!(Scalar::new(f64::NAN), None);
    }
}
