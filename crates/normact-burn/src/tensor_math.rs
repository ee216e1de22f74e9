//! Operations of the primitive table that need more than the Burn operation of the same name.
//!
//! The meaning is that of [`normact_ir::Prim`]: NaN stays NaN, infinities have their limits, and
//! kinks have the derivatives the language states. Burn's operations differ in places, and
//! back-ends differ from each other.

use burn::tensor::{Tensor, activation};

/// `-1`, `0` or `1`, and NaN for NaN, where Burn's gives 0.
pub(crate) fn sign(x: Tensor<3>) -> Tensor<3> {
    let nan = x.clone().is_nan();
    x.sign().mask_fill(nan, f64::NAN)
}

/// The logistic function. Burn has it as a free function; on CubeCL back-ends it is
/// `exp(-log(1 + exp(-x)))` in f32, which overflows on neither side.
pub(crate) fn sigmoid(x: Tensor<3>) -> Tensor<3> {
    activation::sigmoid(x)
}

/// The hyperbolic tangent. WGSL may compute it from `exp(x)` and then gives NaN for large operands,
/// so they are clamped to where the result is 1 in f64 already. Not by `clamp`, which on some
/// back-ends turns NaN into a bound.
pub(crate) fn tanh(x: Tensor<3>) -> Tensor<3> {
    x.clamp_max(20.0).clamp_min(-20.0).tanh()
}

/// `sign(x) * ln|x|`.
pub(crate) fn signed_log(x: Tensor<3>) -> Tensor<3> {
    x.clone().detach().sign() * x.abs().log()
}

/// `sign(x) * sqrt(|x|)`, with derivative 0 at 0.
pub(crate) fn signed_sqrt(x: Tensor<3>) -> Tensor<3> {
    x.clone().detach().sign() * sqrt(x.abs())
}

/// The square root of non-negative numbers, with derivative 0 at 0: there the operand is replaced
/// before Burn's derivative, which is infinite at 0, sees it.
pub(crate) fn sqrt(x: Tensor<3>) -> Tensor<3> {
    let zero = x.clone().equal_elem(0.0);
    x.mask_fill(zero.clone(), 1.0).sqrt().mask_fill(zero, 0.0)
}

/// The larger of two values, NaN if either is. On a tie the first half comes from `a` and the second
/// from `b`, so each gets half of the gradient; elsewhere both come from the larger.
pub(crate) fn max(a: Tensor<3>, b: Tensor<3>) -> Tensor<3> {
    let b_is_larger = a.clone().lower(b.clone());
    let a_is_larger = b.clone().lower(a.clone());
    let first = a.clone().mask_where(b_is_larger, b.clone());
    let second = b.mask_where(a_is_larger, a);
    // The halves are taken before the sum, which could overflow.
    first * 0.5 + second * 0.5
}
