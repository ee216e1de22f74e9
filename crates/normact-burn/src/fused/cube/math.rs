//! The elementary functions of kernels, for vectors of any width.

// What is unrolled here is expanded into a kernel, where these forms have a meaning of their own.
#![allow(clippy::needless_range_loop)]

use cubecl::prelude::*;
use normact_ir::Prim;

/// Every lane the same number.
#[cube]
fn all<N: Size>(#[comptime] value: f32) -> Vector<f32, N> {
    Vector::new(f32::new(value))
}

#[cube]
pub(super) fn unary<N: Size>(x: Vector<f32, N>, #[comptime] prim: Prim) -> Vector<f32, N> {
    match prim {
        Prim::Neg => -x,
        Prim::Sigmoid => sigmoid(x),
        Prim::Tanh => hyperbolic_tangent(x),
        Prim::Exp => x.exp(),
        Prim::Log => sign(x) * x.abs().ln(),
        Prim::Abs => x.abs(),
        Prim::Square => x * x,
        Prim::Sqrt => sign(x) * x.abs().sqrt(),
        Prim::Erf => error_function(x),
        Prim::Sign => sign(x),
        Prim::Add | Prim::Mul | Prim::Div | Prim::Max => {
            comptime!(unreachable!("a graph checks the number of operands"))
        }
    }
}

#[cube]
pub(super) fn binary<N: Size>(a: Vector<f32, N>, b: Vector<f32, N>, #[comptime] prim: Prim) -> Vector<f32, N> {
    match prim {
        Prim::Add => a + b,
        Prim::Mul => a * b,
        Prim::Div => a / b,
        // Where no comparison holds one of them is NaN, and so is the sum.
        Prim::Max => select_many(a.greater_equal(&b), a, select_many(b.greater_than(&a), b, a + b)),
        _ => comptime!(unreachable!("a graph checks the number of operands")),
    }
}

/// `-1`, `0` or `1`; NaN for NaN.
#[cube]
fn sign<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let zero = all::<N>(0.0);
    let unless_positive = select_many(x.less_than(&zero), all::<N>(-1.0), select_many(x.equal(&zero), zero, x));
    select_many(x.greater_than(&zero), all::<N>(1.0), unless_positive)
}

/// The exponential of a number that is not positive never overflows.
#[cube]
fn sigmoid<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let e = (-x.abs()).exp();
    let one = all::<N>(1.0);
    let larger = one / (one + e);
    select_many(x.greater_equal(&all::<N>(0.0)), larger, e * larger)
}

/// Near 0, where `1 - exp(-2x)` would cancel, from a polynomial for `exp(2x) - 1`.
#[cube]
fn hyperbolic_tangent<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let a = x.abs();
    let one = all::<N>(1.0);
    let e = (all::<N>(-2.0) * a).exp();
    let far = (one - e) / (one + e);
    let r = a + a;
    let q = polynomial(r, comptime!(vec![0.499_999_97, 0.166_665_46, 0.041_667_435, 0.008_366_272, 0.001_387_069_2]));
    let growth = r + r * r * q;
    let near = growth / (growth + all::<N>(2.0));
    let magnitude = select_many(a.less_than(&all::<N>(0.17)), near, far);
    select_many(x.less_than(&all::<N>(0.0)), -magnitude, magnitude)
}

/// The same fits as in `normact-cpu`: one around 0, and one for the rest of the way to 1.
#[cube]
fn error_function<N: Size>(x: Vector<f32, N>) -> Vector<f32, N> {
    let end = all::<N>(3.925);
    let a = x.abs();
    let a = select_many(a.greater_than(&end), end, a);
    let p = polynomial(
        a * a,
        comptime!(vec![
            0.128_379_15,
            -0.376_125_48,
            0.112_829_63,
            -0.026_836_928,
            0.005_172_443_6,
            -0.000_804_320_85,
            9.194_286e-5,
            -5.650_273_6e-6,
        ]),
    );
    let q = polynomial(
        a - all::<N>(2.6875),
        comptime!(vec![
            0.000_144_258_27,
            -0.000_823_445_8,
            0.002_214_791_3,
            -0.003_692_930_3,
            0.004_210_473_5,
            -0.003_421_697,
            0.001_980_865,
            -0.000_700_556_1,
            -2.805_419_9e-6,
            0.000_133_578_81,
            -4.236_559e-5,
        ]),
    );
    let magnitude = select_many(a.less_than(&all::<N>(1.5)), a + a * p, all::<N>(1.0) - q);
    select_many(x.less_than(&all::<N>(0.0)), -magnitude, magnitude)
}

/// The polynomial with these coefficients, lowest power first, by Horner's rule.
#[cube]
fn polynomial<N: Size>(x: Vector<f32, N>, #[comptime] coefficients: Vec<f32>) -> Vector<f32, N> {
    let count = comptime!(coefficients.len());
    let mut sum = all::<N>(comptime!(coefficients[count - 1]));
    #[unroll]
    for number in 1..count {
        sum = sum * x + all::<N>(comptime!(coefficients[count - 1 - number]));
    }
    sum
}
