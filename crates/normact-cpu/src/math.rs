//! Elementary functions of `f32` that the compiler turns into vector code.
//!
//! Every function is branch-free: range reduction, a polynomial and a few selects, written with plain arithmetic, so a
//! loop such as `for (d, &s) in dst.iter_mut().zip(src) { *d = exp::<true>(s) }` becomes packed instructions of
//! whatever width the enclosing function enables with `#[target_feature]`. The parameter `FMA` says whether that
//! function has fused multiply-add. It must be `false` where the processor lacks it, because `f32::mul_add` is then a
//! slow library call.
//!
//! # Method
//!
//! The exponential writes x = k·ln 2 + r with an integer k and |r| ≤ ln 2 / 2 (Cody and Waite: ln 2 is split into a
//! short part whose multiples by k are exact and a small remainder). k is rounded by adding 1.5·2²³, which pushes the
//! fraction out of the significand and leaves k in the low bits, ready to be shifted into an exponent. The logarithm
//! splits its argument into 2^e·m with m around 1. The polynomials are minimax fits: a linear programme on a Chebyshev
//! grid minimises the largest weighted error, and the coefficients are rounded to `f32` one by one, lowest power first,
//! the remaining ones being fitted again after each rounding. Coefficients are listed from the lowest power up.
//!
//! # Error and speed
//!
//! The error is the largest over all 2³² arguments whose exact result is a normal number, in units of the spacing of
//! `f32` at that result (ULP), first with and then without fused multiply-add. The speed is that of a loop over 1,024
//! elements in the first-level cache, on one core of a Zen 4 EPYC, in nanoseconds per element: AVX-512, AVX2 (both with
//! fused multiply-add) and the SSE2 of every x86-64 (without).
//!
//! | Function    | Fused, ULP | Not fused, ULP | Stated bound | AVX-512, ns | AVX2, ns | SSE2, ns |
//! |-------------|------------|----------------|--------------|-------------|----------|----------|
//! | `exp`       | 0.892      | 1.168          | 1.2          | 0.23        | 0.40     | 1.03     |
//! | `ln`        | 0.876      | 0.954          | 1.0          | 0.33        | 0.57     | 1.58     |
//! | `sigmoid`   | 2.481      | 2.481          | 2.5          | 0.23        | 0.28     | 1.07     |
//! | `tanh`      | 2.566      | 2.606          | 2.7          | 0.23        | 0.38     | 1.17     |
//! | `erf`       | 2.291      | 2.969          | 3.0          | 0.35        | 0.57     | 1.76     |

/// 1.5·2²³: adding it to |v| < 2²² rounds v to an integer, which then sits in the low bits of the sum.
pub(crate) const ROUND: f32 = 12_582_912.0;

/// ln 2 to sixteen bits, so that its product with an integer of up to eight bits is exact.
pub(crate) const LN_2_HIGH: f32 = 0.693_145_75;

/// ln 2 minus [`LN_2_HIGH`].
pub(crate) const LN_2_LOW: f32 = 1.428_606_8e-6;

/// e^r for |r| ≤ ln 2 / 2.
pub(crate) const EXP: [f32; 7] = [1.0, 1.0, 0.499_999_94, 0.166_665_21, 0.041_668_274, 0.008_368_683, 0.001_382_005_2];

/// (ln(1 + f) − f + f²/2) / f³ for √½ ≤ 1 + f < √2.
pub(crate) const LN: [f32; 8] =
    [0.333_333_3, -0.250_008_2, 0.200_012_42, -0.166_234_1, 0.142_015_86, -0.131_595_98, 0.127_621_43, -0.076_363_62];

/// e^−r, as [`EXP`].
pub(crate) const SIGMOID: [f32; 7] =
    [1.0, -1.0, 0.499_999_94, -0.166_665_21, 0.041_668_274, -0.008_368_683, 0.001_382_005_2];

/// (e^r − 1 − r) / r², as [`EXP`].
pub(crate) const TANH: [f32; 5] = [0.499_999_97, 0.166_665_46, 0.041_667_435, 0.008_366_272, 0.001_387_069_2];

/// erf(a) / a − 1, of a² for a < 1.5.
pub(crate) const ERF_NEAR: [f32; 8] = [
    0.128_379_15,
    -0.376_125_48,
    0.112_829_63,
    -0.026_836_928,
    0.005_172_443_6,
    -0.000_804_320_85,
    9.194_286e-5,
    -5.650_273_6e-6,
];

/// 1 − erf(a), of a − 2.6875 for 1.5 ≤ a ≤ 3.925.
pub(crate) const ERF_FAR: [f32; 11] = [
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
];

/// a·b + c, fused when `FMA` holds.
#[inline(always)]
fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// The polynomial with these coefficients (lowest power first) by Horner's rule.
#[inline(always)]
fn polynomial<const FMA: bool, const N: usize>(x: f32, coefficients: [f32; N]) -> f32 {
    let mut sum = coefficients[N - 1];
    let mut power = N - 1;
    while power > 0 {
        power -= 1;
        sum = madd::<FMA>(sum, x, coefficients[power]);
    }
    sum
}

/// The smaller of x and `limit`; a NaN in x passes through, unlike with `f32::min`.
///
/// The order of the comparison is that of the x86 minimum, so this is one instruction.
#[inline(always)]
fn at_most(x: f32, limit: f32) -> f32 {
    if limit < x { limit } else { x }
}

/// The larger of x and `limit`; a NaN in x passes through.
#[inline(always)]
fn at_least(x: f32, limit: f32) -> f32 {
    if limit > x { limit } else { x }
}

/// e^x for every x.
///
/// Above 88.722839 the result is infinite; below −87.336 it underflows gradually through the subnormals to 0. NaN
/// stays NaN. Error at most 1.2 ULP.
#[inline(always)]
pub(crate) fn exp<const FMA: bool>(x: f32) -> f32 {
    // Beyond these limits the result is already infinite or 0, and k stays within −150..=129.
    let x = at_least(at_most(x, 89.0), -104.0);
    // The bias of both scale factors, 2·127, rides along in the rounding constant.
    let biased = madd::<FMA>(x, std::f32::consts::LOG2_E, ROUND + 254.0);
    let k = biased - (ROUND + 254.0);
    let r = madd::<FMA>(k, -LN_2_LOW, madd::<FMA>(k, -LN_2_HIGH, x));
    let p = polynomial::<FMA, 7>(r, EXP);
    // 2^k may lie outside the normal range, so it is applied as 2^h·2^(k − h) with h = ⌊k / 2⌋. The low nine bits of
    // the rounding constant and of its half are 0, so the shifts by 23 leave nothing but the biased exponents. The
    // first product is exact, so a subnormal result is rounded once.
    let bits = biased.to_bits();
    let half = bits >> 1;
    p * f32::from_bits(half << 23) * f32::from_bits(bits.wrapping_sub(half) << 23)
}

/// The natural logarithm of x.
///
/// x = 0 gives −∞, x < 0 and NaN give NaN, +∞ gives +∞; subnormal x are treated exactly. Error at most 1.0 ULP.
#[inline(always)]
pub(crate) fn ln<const FMA: bool>(x: f32) -> f32 {
    // As signed integers, the bits of the numbers from +0 to +∞ are ordered as their values, above all with a sign.
    let bits = x.to_bits() as i32;
    // A subnormal x is multiplied by 2²³ to give it a full significand and a true exponent field.
    let tiny = bits < f32::MIN_POSITIVE.to_bits() as i32;
    let scaled = if tiny { x * 8_388_608.0 } else { x };
    // The correction of e also carries the special results through the sum below: +∞ and NaN are their own
    // logarithms, 0 gives −∞, and everything with a sign gives NaN.
    let shift = if tiny { -23.0 } else { 0.0 };
    let shift = if bits > f32::MAX.to_bits() as i32 { x } else { shift };
    let pole = if x == 0.0 { f32::NEG_INFINITY } else { f32::NAN };
    let shift = if bits <= 0 { pole } else { shift };
    // x = 2^e·m with √½ ≤ m < √2: subtracting the bits of √½ makes the exponent field e, and its shift is arithmetic.
    let offset = scaled.to_bits().wrapping_sub(std::f32::consts::FRAC_1_SQRT_2.to_bits()) as i32;
    let exponent = offset >> 23;
    let m = f32::from_bits(scaled.to_bits().wrapping_sub((exponent as u32) << 23));
    let e = exponent as f32 + shift;
    // ln(1 + f) = f − f²/2 + f³·q(f), the small terms first.
    let f = m - 1.0;
    let square = f * f;
    let q = polynomial::<FMA, 8>(f, LN);
    let tail = madd::<FMA>(square, madd::<FMA>(f, q, -0.5), e * LN_2_LOW);
    madd::<FMA>(e, LN_2_HIGH, f + tail)
}

/// The logistic function 1 / (1 + e^−x) for every x, 0 at −∞ and 1 at +∞.
///
/// Small results keep their relative accuracy down to the smallest normal number; below it, from about −87.34, they
/// are subnormal and from −88.4 they are 0. NaN stays NaN. Error at most 2.5 ULP.
#[inline(always)]
pub(crate) fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    // Within these limits e^−x = 2^k·p with −127 ≤ k ≤ 128. At both ends the exponent field of the single scale
    // factor does the right thing: k = −127 makes it 0 (the result is 1), k = 128 makes it infinite (the result is 0).
    let x = at_least(at_most(x, 88.0), -89.0);
    let biased = madd::<FMA>(x, -std::f32::consts::LOG2_E, ROUND + 127.0);
    let k = biased - (ROUND + 127.0);
    // This is −r, so that x need not be negated; the odd coefficients change sign instead.
    let r = madd::<FMA>(k, LN_2_LOW, madd::<FMA>(k, LN_2_HIGH, x));
    let p = polynomial::<FMA, 7>(r, SIGMOID);
    1.0 / madd::<FMA>(p, f32::from_bits(biased.to_bits() << 23), 1.0)
}

/// The hyperbolic tangent for every x, ±1 from |x| = 9.02 on.
///
/// Odd to the last bit (−0.0 included), relatively accurate near 0, where a subnormal x is its own result. NaN stays
/// NaN. Error at most 2.7 ULP.
#[inline(always)]
pub(crate) fn tanh<const FMA: bool>(x: f32) -> f32 {
    // tanh(y / 2) = t / (t + 2) with t = e^y − 1, and t has no cancellation when it is built from e^r − 1.
    let y = at_most(x.abs(), 10.0) * 2.0;
    let biased = madd::<FMA>(y, std::f32::consts::LOG2_E, ROUND + 127.0);
    let k = biased - (ROUND + 127.0);
    // One step of reduction suffices: where k is large, the result hardly depends on r.
    let r = madd::<FMA>(k, -std::f32::consts::LN_2, y);
    let q = polynomial::<FMA, 5>(r, TANH);
    let growth = madd::<FMA>(r * r, q, r);
    let scale = f32::from_bits(biased.to_bits() << 23);
    let t = madd::<FMA>(scale, growth, scale - 1.0);
    (t / (t + 2.0)).copysign(x)
}

/// The error function for every x, ±1 from |x| = 3.92 on.
///
/// Odd to the last bit (−0.0 included) and relatively accurate near 0. NaN stays NaN. Error at most 3.0 ULP.
#[inline(always)]
pub(crate) fn erf<const FMA: bool>(x: f32) -> f32 {
    // Near 0, erf(a) = a + a·p(a²); from 1.5 on, erf(a) = 1 − q(a − 2.6875) with the centre of that interval.
    let a = at_most(x.abs(), 3.925);
    let p = polynomial::<FMA, 8>(a * a, ERF_NEAR);
    let q = polynomial::<FMA, 11>(a - 2.6875, ERF_FAR);
    let magnitude = if a < 1.5 { madd::<FMA>(a, p, a) } else { 1.0 - q };
    magnitude.copysign(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The distance of the tested bit patterns, odd so that every low bit takes both values. A debug build is many
    /// times slower and tests fewer patterns.
    const STRIDE: usize = if cfg!(debug_assertions) { 9_973 } else { 29 };

    /// The same for the fused variants, which are slow where the target computes the fused operation in software.
    const FUSED_STRIDE: usize = if cfg!(target_feature = "fma") { STRIDE } else { 31 * STRIDE };

    /// Compares `actual` with `exact` on every `stride`-th bit pattern and asserts the error bound.
    ///
    /// The unit is the spacing of `f32` at the exact value. Below the normal range the error is bounded absolutely,
    /// by about the smallest normal number.
    fn check(name: &str, stride: usize, bound: f64, actual: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64) {
        let mut largest = (0.0, 0.0);
        for bits in (0..=u32::MAX).step_by(stride) {
            let x = f32::from_bits(bits);
            let (value, truth) = (actual(x), exact(f64::from(x)));
            let difference = (f64::from(value) - truth).abs();
            if truth.is_nan() {
                assert!(value.is_nan(), "{name}({x:e}) = {value:e} should be NaN");
            } else if (truth as f32).is_infinite() || value.is_infinite() {
                assert_eq!(value, truth as f32, "{name}({x:e})");
            } else if truth.abs() < f64::from(f32::MIN_POSITIVE) {
                assert!(difference <= 1.2e-38, "{name}({x:e}) = {value:e}, not {truth:e}");
            } else {
                let exponent_field = truth.to_bits() >> 52 & 0x7ff;
                let error = difference / f64::from_bits((exponent_field - 23) << 52);
                // A NaN sticks and fails the last assertion.
                if error.is_nan() || error > largest.0 {
                    largest = (error, x);
                }
            }
        }
        println!("{name}: {:.3} ULP at {:e}", largest.0, largest.1);
        assert!(largest.0 <= bound, "{name}: {} ULP at {:e} exceed {bound}", largest.0, largest.1);
    }

    /// Defines the test of a function with its stated bound, and one of all bit patterns that only runs on request.
    macro_rules! error_tests {
        ($function:ident, $bound:expr, $exact:expr) => {
            mod $function {
                use super::*;

                fn check_both(stride: usize, fused_stride: usize) {
                    check(stringify!($function), stride, $bound, super::$function::<false>, $exact);
                    check(
                        concat!(stringify!($function), " fused"),
                        fused_stride,
                        $bound,
                        super::$function::<true>,
                        $exact,
                    );
                }

                #[test]
                fn error_is_bounded() {
                    check_both(STRIDE, FUSED_STRIDE);
                }

                #[test]
                #[ignore = "takes minutes"]
                fn error_is_bounded_everywhere() {
                    check_both(1, 1);
                }
            }
        };
    }

    error_tests!(exp, 1.2, f64::exp);
    error_tests!(ln, 1.0, f64::ln);
    error_tests!(sigmoid, 2.5, |x: f64| 1.0 / (1.0 + (-x).exp()));
    error_tests!(tanh, 2.7, f64::tanh);
    error_tests!(erf, 3.0, libm::erf);

    /// Asserts that the results are those expected, to the bit, with every NaN equal to every other.
    fn assert_values(name: &str, function: impl Fn(f32) -> f32, pairs: &[(f32, f32)]) {
        for &(x, expected) in pairs {
            let value = function(x);
            let same = value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan();
            assert!(same, "{name}({x:e}) = {value:e}, expected {expected:e}");
        }
    }

    fn special_values<const FMA: bool>() {
        const INFINITY: f32 = f32::INFINITY;
        const NAN: f32 = f32::NAN;
        let smallest = f32::from_bits(1);
        let exp_pairs = [
            (0.0, 1.0),
            (-0.0, 1.0),
            (INFINITY, INFINITY),
            (-INFINITY, 0.0),
            (f32::MAX, INFINITY),
            (f32::MIN, 0.0),
            (88.722_84, INFINITY),
            (-104.0, 0.0),
            (NAN, NAN),
            (-NAN, NAN),
        ];
        assert_values("exp", exp::<FMA>, &exp_pairs);
        assert!(exp::<FMA>(88.722_83).is_finite());
        // Gradual underflow: the result is within one step of the subnormal numbers.
        let subnormal = exp::<FMA>(-95.0);
        assert!((f64::from(subnormal) - (-95.0_f64).exp()).abs() <= f64::from(smallest));
        let ln_pairs = [
            (1.0, 0.0),
            (0.0, -INFINITY),
            (-0.0, -INFINITY),
            (INFINITY, INFINITY),
            (-INFINITY, NAN),
            (-1.0, NAN),
            (-smallest, NAN),
            (smallest, -103.278_93),
            (NAN, NAN),
            (-NAN, NAN),
        ];
        assert_values("ln", ln::<FMA>, &ln_pairs);
        let sigmoid_pairs = [
            (0.0, 0.5),
            (-0.0, 0.5),
            (INFINITY, 1.0),
            (-INFINITY, 0.0),
            (f32::MAX, 1.0),
            (f32::MIN, 0.0),
            (NAN, NAN),
            (-NAN, NAN),
        ];
        assert_values("sigmoid", sigmoid::<FMA>, &sigmoid_pairs);
        for (name, function, saturation) in
            [("tanh", tanh::<FMA> as fn(f32) -> f32, 9.02), ("erf", erf::<FMA> as fn(f32) -> f32, 3.92)]
        {
            let pairs = [
                (0.0, 0.0),
                (-0.0, -0.0),
                (INFINITY, 1.0),
                (-INFINITY, -1.0),
                (f32::MAX, 1.0),
                (f32::MIN, -1.0),
                (saturation, 1.0),
                (-saturation, -1.0),
                (NAN, NAN),
                (-NAN, NAN),
            ];
            assert_values(name, function, &pairs);
        }
        assert_values("tanh", tanh::<FMA>, &[(smallest, smallest), (-1e-40, -1e-40), (1e-20, 1e-20)]);
    }

    #[test]
    fn special_values_hold() {
        special_values::<false>();
        special_values::<true>();
    }

    #[test]
    fn tanh_and_erf_are_odd_and_bounded() {
        for bits in (0..=f32::INFINITY.to_bits()).step_by(if cfg!(debug_assertions) { 99_991 } else { 997 }) {
            let x = f32::from_bits(bits);
            for function in [tanh::<false>, tanh::<true>, erf::<false>, erf::<true>] {
                assert_eq!(function(-x).to_bits(), (-function(x)).to_bits(), "at {x:e}");
                assert!((0.0..=1.0).contains(&function(x)), "at {x:e}");
            }
        }
    }
}
