//! Functions on f64 that the primitive table names.

pub(crate) use std::f64::consts::FRAC_2_SQRT_PI;

/// `-1`, `0` or `1`; NaN for NaN.
pub(crate) fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        // Zero stays zero and NaN stays NaN.
        x * 0.0
    }
}

/// The logistic function, without overflow on either side.
pub(crate) fn sigmoid(x: f64) -> f64 {
    if x >= 0.0 {
        1.0 / (1.0 + (-x).exp())
    } else {
        let e = x.exp();
        e / (1.0 + e)
    }
}

/// The larger number; NaN if either is, unlike `f64::max`.
pub(crate) fn max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// The error function.
pub(crate) fn erf(x: f64) -> f64 {
    libm::erf(x)
}

pub(crate) fn abs(x: f64) -> f64 {
    x.abs()
}

pub(crate) fn square(x: f64) -> f64 {
    x * x
}

pub(crate) fn exp(x: f64) -> f64 {
    x.exp()
}
