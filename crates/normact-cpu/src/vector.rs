//! One step of a program over one chunk: a loop over at most [`WIDTH`] elements.
//!
//! Each step is a plain loop over slices that lie in the first-level cache, compiled three times for
//! the instruction sets of [`crate::run`]. It runs on every processor and for every number; where there
//! is machine code for a pass ([`crate::native`]), it takes over the chunks that the code cannot do, and
//! the code is tested against it.

use normact_ir::Prim;

use crate::math;
use crate::slots::Moments;

/// Elements per chunk. Large enough to hide the choice of the loop, small enough that the values of
/// a program fit into the first-level cache.
pub(crate) const WIDTH: usize = 512;

/// The elements of one chunk, aligned so that no vector straddles two cache lines.
#[derive(Debug, Clone)]
#[repr(align(64))]
pub(crate) struct Register(pub(crate) [f32; WIDTH]);

impl Default for Register {
    fn default() -> Self {
        Register([0.0; WIDTH])
    }
}

/// Where a step finds an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The value of an earlier step.
    Register(usize),
    /// What this pass or an earlier one holds.
    Held(usize),
    /// The same number for the whole chunk.
    Scalar(usize),
    /// The chunk of `x`.
    Input,
    /// The chunk of `dy`.
    Upstream,
}

/// What a step computes for each element.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Step {
    /// A unary primitive.
    Unary(Prim, Source),
    /// A binary primitive.
    Binary(Prim, Source, Source),
    /// `a - b`
    Subtract(Source, Source),
    /// `a * b + c`, with a vector for `a`
    MultiplyAdd(Source, Source, Source),
}

/// An operand of the current chunk.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    Vector(&'a [f32]),
    Scalar(f64),
}

/// What a chunk computes with.
pub(crate) struct Chunk<'a> {
    pub(crate) registers: &'a [Box<Register>],
    pub(crate) scalars: &'a [f64],
    pub(crate) x: &'a [f32],
    pub(crate) dy: &'a [f32],
    pub(crate) held: &'a [Vec<f32>],
    /// Where the chunk is in what is held.
    pub(crate) start: usize,
    pub(crate) len: usize,
    /// The registers that rows share, before they are rounded, and those that exceed an f32.
    pub(crate) wide: &'a [Vec<f64>],
    pub(crate) exceeding: &'a [usize],
}

impl<'a> Chunk<'a> {
    #[inline(always)]
    pub(crate) fn operand(&self, source: Source) -> Operand<'a> {
        match source {
            Source::Register(register) => Operand::Vector(&self.registers[register].0[..self.len]),
            Source::Held(held) => Operand::Vector(&self.held[held][self.start..self.start + self.len]),
            Source::Scalar(scalar) => Operand::Scalar(self.scalars[scalar]),
            Source::Input => Operand::Vector(&self.x[..self.len]),
            Source::Upstream => Operand::Vector(&self.dy[..self.len]),
        }
    }

    /// Computes a step into `into`.
    #[inline(always)]
    pub(crate) fn step<const FMA: bool>(&self, step: Step, into: &mut [f32]) {
        match step {
            Step::Unary(prim, a) => unary::<FMA>(prim, self.operand(a), into),
            Step::Binary(Prim::Add, a, b) => add(self.operand(a), self.operand(b), into),
            Step::Binary(Prim::Div, a, Source::Scalar(b)) => {
                let factor = 1.0 / self.scalars[b];
                if fits(factor) {
                    map2(self.operand(a), Operand::Scalar(factor), into, |a, b| a * b);
                } else {
                    self.in_double(into, |at| at(a) * factor);
                }
            }
            Step::Binary(Prim::Mul, a, b) if self.exceeds(a) || self.exceeds(b) => {
                self.in_double(into, |at| at(a) * at(b));
            }
            Step::Binary(Prim::Div, a, b) if self.exceeds(a) || self.exceeds(b) => {
                self.in_double(into, |at| at(a) / at(b));
            }
            Step::Binary(Prim::Mul, a, b) => map2(self.operand(a), self.operand(b), into, |a, b| a * b),
            Step::Binary(Prim::Div, a, b) => map2(self.operand(a), self.operand(b), into, |a, b| a / b),
            Step::Binary(Prim::Max, a, b) => map2(self.operand(a), self.operand(b), into, maximum),
            Step::Binary(prim, ..) => unreachable!("{} is not binary", prim.name()),
            Step::Subtract(a, Source::Scalar(b)) => add(self.operand(a), Operand::Scalar(-self.scalars[b]), into),
            Step::Subtract(a, b) => subtract(self.operand(a), self.operand(b), into),
            Step::MultiplyAdd(a, b, c) if self.exceeds(a) || self.exceeds(b) => {
                self.in_double(into, |at| at(a) * at(b) + at(c));
            }
            Step::MultiplyAdd(a, b, c) => {
                multiply_add::<FMA>(self.operand(a), self.operand(b), self.operand(c), into);
            }
        }
    }

    /// Whether a factor or divisor needs more than an f32.
    #[inline(always)]
    fn exceeds(&self, source: Source) -> bool {
        match source {
            Source::Scalar(scalar) => !fits(self.scalars[scalar]),
            Source::Register(register) => self.exceeding.contains(&register),
            Source::Held(_) | Source::Input | Source::Upstream => false,
        }
    }

    /// Computes each element in f64; `f` is given how to find an operand.
    #[cold]
    fn in_double(&self, into: &mut [f32], f: impl Fn(&dyn Fn(Source) -> f64) -> f64) {
        for (index, into) in into.iter_mut().enumerate() {
            let at = |source: Source| match source {
                Source::Register(register) if self.exceeding.contains(&register) => self.wide[register][index],
                source => match self.operand(source) {
                    Operand::Vector(values) => f64::from(values[index]),
                    Operand::Scalar(value) => value,
                },
            };
            *into = f(&at) as f32;
        }
    }
}

#[inline(always)]
fn map(a: Operand<'_>, into: &mut [f32], f: impl Fn(f32) -> f32) {
    match a {
        Operand::Vector(a) => into.iter_mut().zip(a).for_each(|(into, &a)| *into = f(a)),
        Operand::Scalar(a) => into.fill(f(a as f32)),
    }
}

#[inline(always)]
fn map2(a: Operand<'_>, b: Operand<'_>, into: &mut [f32], f: impl Fn(f32, f32) -> f32) {
    match (a, b) {
        (Operand::Vector(a), Operand::Vector(b)) => {
            into.iter_mut().zip(a).zip(b).for_each(|((into, &a), &b)| *into = f(a, b));
        }
        (Operand::Vector(a), Operand::Scalar(b)) => {
            let b = b as f32;
            into.iter_mut().zip(a).for_each(|(into, &a)| *into = f(a, b));
        }
        (Operand::Scalar(a), Operand::Vector(b)) => {
            let a = a as f32;
            into.iter_mut().zip(b).for_each(|(into, &b)| *into = f(a, b));
        }
        (Operand::Scalar(a), Operand::Scalar(b)) => into.fill(f(a as f32, b as f32)),
    }
}

/// A scalar in two parts whose sum is closer to it than one f32 is.
#[inline(always)]
pub(crate) fn high_low(scalar: f64) -> (f32, f32) {
    let high = scalar as f32;
    let low = if high.is_finite() { (scalar - f64::from(high)) as f32 } else { 0.0 };
    (high, low)
}

#[inline(always)]
fn add(a: Operand<'_>, b: Operand<'_>, into: &mut [f32]) {
    match (a, b) {
        (Operand::Vector(vector), Operand::Scalar(scalar)) | (Operand::Scalar(scalar), Operand::Vector(vector)) => {
            // A mean that is large beside the deviations from it would lose their digits if it were
            // rounded to f32 first.
            let (high, low) = high_low(scalar);
            if low == 0.0 {
                into.iter_mut().zip(vector).for_each(|(into, &x)| *into = x + high);
            } else {
                into.iter_mut().zip(vector).for_each(|(into, &x)| *into = (x + high) + low);
            }
        }
        _ => map2(a, b, into, |a, b| a + b),
    }
}

#[inline(always)]
fn subtract(a: Operand<'_>, b: Operand<'_>, into: &mut [f32]) {
    match (a, b) {
        (Operand::Scalar(scalar), Operand::Vector(vector)) => {
            let (high, low) = high_low(scalar);
            into.iter_mut().zip(vector).for_each(|(into, &x)| *into = (high - x) + low);
        }
        _ => map2(a, b, into, |a, b| a - b),
    }
}

/// Whether a number keeps its meaning as an f32: neither too large nor too small for it.
#[inline(always)]
pub(crate) fn fits(scalar: f64) -> bool {
    let magnitude = (scalar as f32).abs();
    (f32::MIN_POSITIVE..=f32::MAX).contains(&magnitude) || scalar == 0.0 || !scalar.is_finite()
}

#[inline(always)]
fn multiply_add<const FMA: bool>(a: Operand<'_>, b: Operand<'_>, c: Operand<'_>, into: &mut [f32]) {
    let fused = |a: f32, b: f32, c: f32| if FMA { a.mul_add(b, c) } else { a * b + c };
    match (a, b, c) {
        (Operand::Vector(a), Operand::Vector(b), Operand::Vector(c)) => {
            into.iter_mut().zip(a).zip(b).zip(c).for_each(|(((into, &a), &b), &c)| *into = fused(a, b, c));
        }
        (Operand::Vector(a), Operand::Vector(b), Operand::Scalar(c)) => {
            let c = c as f32;
            into.iter_mut().zip(a).zip(b).for_each(|((into, &a), &b)| *into = fused(a, b, c));
        }
        (Operand::Vector(a), Operand::Scalar(b), Operand::Vector(c)) => {
            let b = b as f32;
            into.iter_mut().zip(a).zip(c).for_each(|((into, &a), &c)| *into = fused(a, b, c));
        }
        (Operand::Vector(a), Operand::Scalar(b), Operand::Scalar(c)) => {
            let (b, c) = (b as f32, c as f32);
            into.iter_mut().zip(a).for_each(|(into, &a)| *into = fused(a, b, c));
        }
        (Operand::Scalar(_), ..) => unreachable!("the first factor is a vector"),
    }
}

#[inline(always)]
fn maximum(a: f32, b: f32) -> f32 {
    let larger = if a > b { a } else { b };
    if a.is_nan() { a } else { larger }
}

#[inline(always)]
fn sign(x: f32) -> f32 {
    let unit = if x > 0.0 { 1.0 } else { -1.0 };
    if x == 0.0 || x.is_nan() { x } else { unit }
}

#[inline(always)]
fn unary<const FMA: bool>(prim: Prim, a: Operand<'_>, into: &mut [f32]) {
    match prim {
        Prim::Neg => map(a, into, |x| -x),
        Prim::Sigmoid => map(a, into, math::sigmoid::<FMA>),
        Prim::Tanh => map(a, into, math::tanh::<FMA>),
        Prim::Exp => map(a, into, math::exp::<FMA>),
        Prim::Log => map(a, into, |x| sign(x) * math::ln::<FMA>(x.abs())),
        Prim::Abs => map(a, into, f32::abs),
        Prim::Square => map(a, into, |x| x * x),
        Prim::Sqrt => map(a, into, |x| x.abs().sqrt().copysign(x)),
        Prim::Erf => map(a, into, math::erf::<FMA>),
        Prim::Sign => map(a, into, sign),
        Prim::Add | Prim::Mul | Prim::Div | Prim::Max => unreachable!("two operands"),
    }
}

/// An operand in f64.
#[derive(Clone, Copy)]
pub(crate) enum Wide<'a> {
    Vector(&'a [f64]),
    Scalar(f64),
}

/// A step in f64; a unary primitive ignores `b`.
#[inline(always)]
pub(crate) fn wide_step(prim: Prim, a: Wide<'_>, b: Wide<'_>, into: &mut [f64]) {
    match prim {
        Prim::Add => wide_map(a, b, into, |a, b| a + b),
        Prim::Mul => wide_map(a, b, into, |a, b| a * b),
        Prim::Div => wide_map(a, b, into, |a, b| a / b),
        Prim::Neg => wide_map(a, b, into, |a, _| -a),
        Prim::Sqrt => wide_map(a, b, into, |a, _| a.abs().sqrt().copysign(a)),
        Prim::Sigmoid
        | Prim::Tanh
        | Prim::Exp
        | Prim::Log
        | Prim::Abs
        | Prim::Square
        | Prim::Erf
        | Prim::Sign
        | Prim::Max => wide_map(a, b, into, |a, b| prim.value(a, b)),
    }
}

#[inline(always)]
fn wide_map(a: Wide<'_>, b: Wide<'_>, into: &mut [f64], f: impl Fn(f64, f64) -> f64) {
    match (a, b) {
        (Wide::Vector(a), Wide::Vector(b)) => {
            into.iter_mut().zip(a).zip(b).for_each(|((into, &a), &b)| *into = f(a, b));
        }
        (Wide::Vector(a), Wide::Scalar(b)) => into.iter_mut().zip(a).for_each(|(into, &a)| *into = f(a, b)),
        (Wide::Scalar(a), Wide::Vector(b)) => into.iter_mut().zip(b).for_each(|(into, &b)| *into = f(a, b)),
        (Wide::Scalar(a), Wide::Scalar(b)) => into.fill(f(a, b)),
    }
}

/// What one vector register holds at most.
const LANES: usize = 16;

/// Where the mean of squares is smaller, those that matter may be too small for an f32.
pub(crate) const TINY: f64 = 1.0 / (1u128 << 100) as f64;

/// The sum of `f` over the elements of up to two slices of one length.
///
/// Four vectors of partial sums run side by side, so that no addition waits for the one before it.
#[inline(always)]
fn total(a: &[f32], b: &[f32], f: impl Fn(f32, f32) -> f32) -> f64 {
    let (mut first, mut second, mut third, mut fourth) =
        ([0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES], [0.0f32; LANES]);
    let (whole_a, rest_a) = a.as_chunks::<{ 4 * LANES }>();
    let (whole_b, rest_b) = b.as_chunks::<{ 4 * LANES }>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        // Four loops of a length that is unrolled early, or the sums stay in memory.
        for lane in 0..LANES {
            first[lane] += f(a[lane], b[lane]);
        }
        for lane in 0..LANES {
            second[lane] += f(a[LANES + lane], b[LANES + lane]);
        }
        for lane in 0..LANES {
            third[lane] += f(a[2 * LANES + lane], b[2 * LANES + lane]);
        }
        for lane in 0..LANES {
            fourth[lane] += f(a[3 * LANES + lane], b[3 * LANES + lane]);
        }
    }
    let mut sum = 0.0f64;
    for (&a, &b) in rest_a.iter().zip(rest_b) {
        sum += f64::from(f(a, b));
    }
    for lane in 0..LANES {
        sum += f64::from((first[lane] + second[lane]) + (third[lane] + fourth[lane]));
    }
    sum
}

/// The same in f64, for where f32 does not reach.
#[inline(always)]
fn wide_total(a: &[f32], b: &[f32], f: impl Fn(f64, f64) -> f64) -> f64 {
    let f = |a: f32, b: f32| f(f64::from(a), f64::from(b));
    let mut sums = [0.0f64; LANES];
    let (whole_a, rest_a) = a.as_chunks::<LANES>();
    let (whole_b, rest_b) = b.as_chunks::<LANES>();
    for (a, b) in whole_a.iter().zip(whole_b) {
        for lane in 0..LANES {
            sums[lane] += f(a[lane], b[lane]);
        }
    }
    let rest: f64 = rest_a.iter().zip(rest_b).map(|(&a, &b)| f(a, b)).sum();
    sums.iter().sum::<f64>() + rest
}

/// The sum of a chunk.
#[inline(always)]
pub(crate) fn sum(x: &[f32]) -> f64 {
    let sum = total(x, x, |x, _| x);
    if sum.is_finite() { sum } else { wide_total(x, x, |x, _| x) }
}

/// The sum of the products of two chunks.
#[inline(always)]
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f64 {
    let sum = total(a, b, |a, b| a * b);
    if sum.is_finite() { sum } else { wide_total(a, b, |a, b| a * b) }
}

/// The sum of squares of a chunk.
#[inline(always)]
pub(crate) fn sum_of_squares(x: &[f32]) -> f64 {
    sum_of_squared_differences(x, 0.0)
}

#[inline(always)]
fn sum_of_squared_differences(x: &[f32], centre: f32) -> f64 {
    let sum = total(x, x, |x, _| (x - centre) * (x - centre));
    if sum.is_finite() && sum >= TINY * x.len() as f64 {
        return sum;
    }
    let centre = f64::from(centre);
    wide_total(x, x, |x, _| (x - centre) * (x - centre))
}

/// The moments of a chunk, in three visits: with the mean that the first one gives, rounded, as the centre.
#[inline(always)]
pub(crate) fn moments(x: &[f32]) -> Moments {
    let count = x.len() as f64;
    let sum = sum(x);
    if !sum.is_finite() {
        // An element is not finite, since f64 has room for all others: there is no variance about such a mean.
        return Moments { count, centre: 0.0, sum, squares: f64::NAN };
    }
    let centre = (sum / count) as f32;
    let sum = total(x, x, |x, _| x - centre);
    let sum = if sum.is_finite() { sum } else { wide_total(x, x, |x, _| x - f64::from(centre)) };
    Moments { count, centre: f64::from(centre), sum, squares: sum_of_squared_differences(x, centre) }
}
