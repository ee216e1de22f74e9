//! The steps of a pass as straight-line operations on single vectors.
//!
//! Every operation is about one instruction. A value is known by the number of its operation, and
//! equal operations are one. The elementary functions are the sequences of [`crate::math`], with the
//! same coefficients, so that its error bounds hold here too.

use std::collections::HashMap;
use std::f32::consts::{FRAC_1_SQRT_2, LN_2, LOG2_E};

use normact_ir::Prim;

use crate::math;
use crate::program::{Accumulate, Array, Home, PassProgram, ScalarStep, Summand};
use crate::slots::Accumulation;
use crate::vector::{Source, Step, fits};

/// The number of an operation that has a result.
pub(super) type Value = usize;

/// What an operation does for each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    /// The same number for every element: one of [`Operations::numbers`].
    Number(usize),
    /// The elements of a chunk in memory: one of [`Operations::streams`].
    Load(usize),
    Unary(Unary, Value),
    Binary(Binary, Value, Value),
    /// `a * b + c`, rounded once.
    MultiplyAdd(Value, Value, Value),
    /// `if a ? b { c } else { d }`, element by element.
    Select(Comparison, [Value; 4]),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Unary {
    SquareRoot,
    /// From a signed integer in the same bits.
    FromInteger,
    ShiftLeft(u8),
    ShiftRight(u8),
    /// A shift that repeats the sign.
    ShiftSigned(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Binary {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// `if a < b { a } else { b }`
    Minimum,
    /// `if a > b { a } else { b }`
    Maximum,
    And,
    Or,
    ExclusiveOr,
    /// Of integers in the same bits.
    SubtractIntegers,
}

/// With the numbers that the comparison instructions have for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(super) enum Comparison {
    Equal = 0,
    Less = 1,
    /// One of both is NaN.
    Unordered = 3,
    /// Greater, or one of both is NaN.
    NotLessOrEqual = 6,
    EqualOrUnordered = 8,
}

/// What is done with a value beside computing with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sink {
    /// Into a chunk in memory.
    Store(usize, Value),
    /// Added to one of the sums.
    Sum(usize, Value),
    /// The product of both is added to one of the sums.
    SumProduct(usize, Value, Value),
}

impl Operation {
    pub(super) fn operands(&self) -> Vec<Value> {
        match *self {
            Operation::Number(_) | Operation::Load(_) => vec![],
            Operation::Unary(_, a) => vec![a],
            Operation::Binary(_, a, b) => vec![a, b],
            Operation::MultiplyAdd(a, b, c) => vec![a, b, c],
            Operation::Select(_, operands) => operands.to_vec(),
        }
    }
}

impl Sink {
    pub(super) fn operands(&self) -> Vec<Value> {
        match *self {
            Sink::Store(_, a) | Sink::Sum(_, a) => vec![a],
            Sink::SumProduct(_, a, b) => vec![a, b],
        }
    }
}

/// A chunk in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Stream {
    Input,
    Upstream,
    Output,
    Held(usize),
    Register(usize),
}

/// A number that is the same for the whole chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Number {
    /// The bits of a constant.
    Constant(u32),
    Scalar(usize, Form),
    /// The number of that position in the windows of the sums that have one.
    Window(usize),
}

/// How a scalar, which is an f64, becomes an f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Form {
    /// Rounded.
    High,
    /// What rounding leaves of it.
    Low,
    NegatedHigh,
    NegatedLow,
    /// Rounded, for a product or quotient: native code is left where it has no meaning as an f32.
    Factor,
    /// The reciprocal, for a product.
    Reciprocal,
}

impl Form {
    /// The number, unless it is a factor that would not keep its meaning.
    #[inline(always)]
    pub(super) fn of(self, scalar: f64) -> Option<f32> {
        let (high, low) = crate::vector::high_low(scalar);
        match self {
            Form::High => Some(high),
            Form::Low => Some(low),
            Form::NegatedHigh => Some(-high),
            Form::NegatedLow => Some(-low),
            Form::Factor => fits(scalar).then_some(high),
            Form::Reciprocal => fits(1.0 / scalar).then_some((1.0 / scalar) as f32),
        }
    }

    /// The number of each scalar, whether or not it keeps its meaning.
    #[inline(always)]
    pub(super) fn of_each(self, scalars: &[f64], into: &mut [f32]) {
        let into = &mut into[..scalars.len()];
        let rounded = |into: &mut [f32], of: fn(f64) -> f64| {
            into.iter_mut().zip(scalars).for_each(|(into, &scalar)| *into = of(scalar) as f32);
        };
        match self {
            Form::High => rounded(into, |scalar| scalar),
            Form::NegatedHigh => rounded(into, |scalar| -scalar),
            Form::Factor => rounded(into, |scalar| scalar),
            Form::Reciprocal => rounded(into, |scalar| 1.0 / scalar),
            Form::Low | Form::NegatedLow => {
                let numbers = scalars.iter().map(|&scalar| self.of(scalar).expect("no factor"));
                into.iter_mut().zip(numbers).for_each(|(into, number)| *into = number);
            }
        }
    }
}

/// A pass as operations.
#[derive(Debug, Default)]
pub(super) struct Operations {
    pub(super) operations: Vec<Operation>,
    pub(super) sinks: Vec<Sink>,
    pub(super) numbers: Vec<Number>,
    pub(super) streams: Vec<Stream>,
    pub(super) sums: usize,
    /// The numbers of windows.
    pub(super) windows: usize,
    known: HashMap<Operation, Value>,
}

impl Operations {
    /// For each number, whether a sum depends on it.
    pub(super) fn numbers_in_sums(&self) -> Vec<bool> {
        let mut numbers = vec![false; self.numbers.len()];
        let mut is_summed = vec![false; self.operations.len()];
        for sink in &self.sinks {
            match sink {
                Sink::Sum(..) | Sink::SumProduct(..) => {
                    sink.operands().into_iter().for_each(|operand| is_summed[operand] = true);
                }
                Sink::Store(..) => {}
            }
        }
        for value in (0..self.operations.len()).rev() {
            match self.operations[value] {
                _ if !is_summed[value] => {}
                Operation::Number(number) => numbers[number] = true,
                operation => operation.operands().into_iter().for_each(|operand| is_summed[operand] = true),
            }
        }
        numbers
    }

    /// `None` if a constant of the pass needs more than an f32, or if there would be more than `most`
    /// operations.
    pub(super) fn of(pass: &PassProgram, most: usize) -> Option<Self> {
        let mut lowering =
            Lowering { pass, to: Operations::default(), registers: vec![None; pass.registers], held: HashMap::new() };
        for &(step, home) in &pass.steps {
            let value = lowering.step(step)?;
            if lowering.to.operations.len() > most {
                return None;
            }
            match home {
                Home::Register(register) => lowering.registers[register] = Some(value),
                Home::Held(held) => {
                    lowering.held.insert(held, value);
                    lowering.store(Stream::Held(held), value);
                }
            }
        }
        if let Some(source) = pass.write {
            let value = lowering.value(source)?;
            lowering.store(Stream::Output, value);
        }
        pass.sums.iter().try_for_each(|accumulate| lowering.accumulate(accumulate))?;
        pass.by_lane.iter().for_each(|accumulate| lowering.store_summand(accumulate));
        Some(lowering.to)
    }

    fn push(&mut self, operation: Operation) -> Value {
        *self.known.entry(operation).or_insert_with(|| {
            self.operations.push(operation);
            self.operations.len() - 1
        })
    }

    fn number(&mut self, number: Number) -> Value {
        let index = position(&mut self.numbers, number);
        self.push(Operation::Number(index))
    }

    fn bits(&mut self, bits: u32) -> Value {
        self.number(Number::Constant(bits))
    }

    fn constant(&mut self, constant: f32) -> Value {
        self.bits(constant.to_bits())
    }

    fn load(&mut self, stream: Stream) -> Value {
        let index = position(&mut self.streams, stream);
        self.push(Operation::Load(index))
    }

    fn unary(&mut self, unary: Unary, a: Value) -> Value {
        self.push(Operation::Unary(unary, a))
    }

    fn binary(&mut self, binary: Binary, a: Value, b: Value) -> Value {
        self.push(Operation::Binary(binary, a, b))
    }

    fn add(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Add, a, b)
    }

    fn subtract(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Subtract, a, b)
    }

    fn multiply(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Multiply, a, b)
    }

    fn divide(&mut self, a: Value, b: Value) -> Value {
        self.binary(Binary::Divide, a, b)
    }

    fn multiply_add(&mut self, a: Value, b: Value, c: Value) -> Value {
        self.push(Operation::MultiplyAdd(a, b, c))
    }

    fn multiply_add_constants(&mut self, a: Value, b: f32, c: f32) -> Value {
        let (b, c) = (self.constant(b), self.constant(c));
        self.multiply_add(a, b, c)
    }

    fn select(&mut self, comparison: Comparison, operands: [Value; 4]) -> Value {
        self.push(Operation::Select(comparison, operands))
    }

    fn is_never_nan(&self, value: Value) -> bool {
        match self.operations[value] {
            Operation::Number(number) => match self.numbers[number] {
                Number::Constant(bits) => !f32::from_bits(bits).is_nan(),
                Number::Scalar(..) | Number::Window(_) => false,
            },
            _ => false,
        }
    }

    // From here on as in `math` and `vector`, which explain the methods.

    fn polynomial(&mut self, x: Value, coefficients: &[f32]) -> Value {
        let mut coefficients = coefficients.iter().rev();
        let highest = coefficients.next().expect("a polynomial has a coefficient");
        let mut sum = self.constant(*highest);
        for &coefficient in coefficients {
            let coefficient = self.constant(coefficient);
            sum = self.multiply_add(sum, x, coefficient);
        }
        sum
    }

    fn at_most(&mut self, x: Value, limit: f32) -> Value {
        let limit = self.constant(limit);
        self.binary(Binary::Minimum, limit, x)
    }

    fn at_least(&mut self, x: Value, limit: f32) -> Value {
        let limit = self.constant(limit);
        self.binary(Binary::Maximum, limit, x)
    }

    fn absolute(&mut self, x: Value) -> Value {
        let mask = self.bits(!SIGN);
        self.binary(Binary::And, x, mask)
    }

    /// A number that is not negative, with the sign of `x`.
    fn with_sign(&mut self, magnitude: Value, x: Value) -> Value {
        let mask = self.bits(SIGN);
        let sign = self.binary(Binary::And, x, mask);
        self.binary(Binary::Or, magnitude, sign)
    }

    /// The part of e^x that is a power of two, and the exponent of the rest.
    fn rounded_exponent(&mut self, x: Value, log: f32, bias: f32) -> (Value, Value) {
        let biased = self.multiply_add_constants(x, log, math::ROUND + bias);
        let offset = self.constant(math::ROUND + bias);
        (biased, self.subtract(biased, offset))
    }

    fn exp(&mut self, x: Value) -> Value {
        let x = self.at_most(x, 89.0);
        let x = self.at_least(x, -104.0);
        let (biased, k) = self.rounded_exponent(x, LOG2_E, 254.0);
        let (high, low) = (self.constant(-math::LN_2_HIGH), self.constant(-math::LN_2_LOW));
        let r = self.multiply_add(k, high, x);
        let r = self.multiply_add(k, low, r);
        let p = self.polynomial(r, &math::EXP);
        let half = self.unary(Unary::ShiftRight(1), biased);
        let rest = self.binary(Binary::SubtractIntegers, biased, half);
        let (half, rest) = (self.unary(Unary::ShiftLeft(23), half), self.unary(Unary::ShiftLeft(23), rest));
        let scaled = self.multiply(p, half);
        self.multiply(scaled, rest)
    }

    fn sigmoid(&mut self, x: Value) -> Value {
        let x = self.at_most(x, 88.0);
        let x = self.at_least(x, -89.0);
        let (biased, k) = self.rounded_exponent(x, -LOG2_E, 127.0);
        let (high, low) = (self.constant(math::LN_2_HIGH), self.constant(math::LN_2_LOW));
        let r = self.multiply_add(k, high, x);
        let r = self.multiply_add(k, low, r);
        let p = self.polynomial(r, &math::SIGMOID);
        let scale = self.unary(Unary::ShiftLeft(23), biased);
        let one = self.constant(1.0);
        let denominator = self.multiply_add(p, scale, one);
        self.divide(one, denominator)
    }

    fn tanh(&mut self, x: Value) -> Value {
        let magnitude = self.absolute(x);
        let y = self.at_most(magnitude, 10.0);
        let y = self.add(y, y);
        let (biased, k) = self.rounded_exponent(y, LOG2_E, 127.0);
        let minus_log = self.constant(-LN_2);
        let r = self.multiply_add(k, minus_log, y);
        let q = self.polynomial(r, &math::TANH);
        let square = self.multiply(r, r);
        let growth = self.multiply_add(square, q, r);
        let scale = self.unary(Unary::ShiftLeft(23), biased);
        let (one, two) = (self.constant(1.0), self.constant(2.0));
        let less = self.subtract(scale, one);
        let t = self.multiply_add(scale, growth, less);
        let denominator = self.add(t, two);
        let quotient = self.divide(t, denominator);
        self.with_sign(quotient, x)
    }

    fn erf(&mut self, x: Value) -> Value {
        let magnitude = self.absolute(x);
        let a = self.at_most(magnitude, 3.925);
        let square = self.multiply(a, a);
        let p = self.polynomial(square, &math::ERF_NEAR);
        let near = self.multiply_add(a, p, a);
        let centre = self.constant(2.6875);
        let offset = self.subtract(a, centre);
        let q = self.polynomial(offset, &math::ERF_FAR);
        let (one, limit) = (self.constant(1.0), self.constant(1.5));
        let far = self.subtract(one, q);
        let magnitude = self.select(Comparison::Less, [a, limit, near, far]);
        self.with_sign(magnitude, x)
    }

    /// The logarithm of a number that is not negative. What `math` asks of the bits is asked of the
    /// number here, which is the same for those.
    fn ln(&mut self, x: Value) -> Value {
        let (smallest, scale) = (self.constant(f32::MIN_POSITIVE), self.constant(8_388_608.0));
        let scaled = self.multiply(x, scale);
        let scaled = self.select(Comparison::Less, [x, smallest, scaled, x]);
        let (shift, zero) = (self.constant(-23.0), self.constant(0.0));
        let shift = self.select(Comparison::Less, [x, smallest, shift, zero]);
        let largest = self.constant(f32::MAX);
        let shift = self.select(Comparison::NotLessOrEqual, [x, largest, x, shift]);
        let pole = self.constant(f32::NEG_INFINITY);
        let shift = self.select(Comparison::Equal, [x, zero, pole, shift]);
        let root = self.constant(FRAC_1_SQRT_2);
        let offset = self.binary(Binary::SubtractIntegers, scaled, root);
        let exponent = self.unary(Unary::ShiftSigned(23), offset);
        let field = self.unary(Unary::ShiftLeft(23), exponent);
        let m = self.binary(Binary::SubtractIntegers, scaled, field);
        let e = self.unary(Unary::FromInteger, exponent);
        let e = self.add(e, shift);
        let one = self.constant(1.0);
        let f = self.subtract(m, one);
        let square = self.multiply(f, f);
        let q = self.polynomial(f, &math::LN);
        let (low, high, minus_half) =
            (self.constant(math::LN_2_LOW), self.constant(math::LN_2_HIGH), self.constant(-0.5));
        let rest = self.multiply(e, low);
        let inner = self.multiply_add(f, q, minus_half);
        let tail = self.multiply_add(square, inner, rest);
        let sum = self.add(f, tail);
        self.multiply_add(e, high, sum)
    }

    fn sign(&mut self, x: Value) -> Value {
        let (one, zero) = (self.constant(1.0), self.constant(0.0));
        let unit = self.with_sign(one, x);
        self.select(Comparison::EqualOrUnordered, [x, zero, x, unit])
    }

    pub(super) fn prim(&mut self, prim: Prim, a: Value) -> Value {
        match prim {
            Prim::Neg => {
                let mask = self.bits(SIGN);
                self.binary(Binary::ExclusiveOr, a, mask)
            }
            Prim::Sigmoid => self.sigmoid(a),
            Prim::Tanh => self.tanh(a),
            Prim::Exp => self.exp(a),
            Prim::Log => {
                let magnitude = self.absolute(a);
                let (sign, log) = (self.sign(a), self.ln(magnitude));
                self.multiply(sign, log)
            }
            Prim::Abs => self.absolute(a),
            Prim::Square => self.multiply(a, a),
            Prim::Sqrt => {
                let magnitude = self.absolute(a);
                let root = self.unary(Unary::SquareRoot, magnitude);
                self.with_sign(root, a)
            }
            Prim::Erf => self.erf(a),
            Prim::Sign => self.sign(a),
            Prim::Add | Prim::Mul | Prim::Div | Prim::Max => unreachable!("two operands"),
        }
    }
}

/// The bit of an f32 that is its sign.
const SIGN: u32 = 1 << 31;

/// The place of an item in a list, where it is put if it is new.
fn position<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|known| *known == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

struct Lowering<'a> {
    pass: &'a PassProgram,
    to: Operations,
    /// What the registers hold that rows write.
    registers: Vec<Option<Value>>,
    held: HashMap<usize, Value>,
}

impl Lowering<'_> {
    fn store(&mut self, stream: Stream, value: Value) {
        let index = position(&mut self.to.streams, stream);
        self.to.sinks.push(Sink::Store(index, value));
    }

    /// `None` for a constant that does not keep its meaning in this form.
    fn scalar(&mut self, scalar: usize, form: Form) -> Option<Value> {
        Some(match self.pass.scalars.steps[scalar] {
            ScalarStep::Constant(constant) => {
                let constant = form.of(constant)?;
                self.to.constant(constant)
            }
            _ => self.to.number(Number::Scalar(scalar, form)),
        })
    }

    /// Whether rounding to f32 leaves nothing of a scalar, whatever its value.
    fn is_single(&self, scalar: usize) -> bool {
        match self.pass.scalars.steps[scalar] {
            ScalarStep::Constant(constant) => Form::Low.of(constant) == Some(0.0),
            ScalarStep::Load(Array::Param(_) | Array::Running(_)) => true,
            ScalarStep::Load(Array::Given(_) | Array::Result(_)) | ScalarStep::Unary(..) | ScalarStep::Binary(..) => {
                false
            }
        }
    }

    fn value(&mut self, source: Source) -> Option<Value> {
        Some(match source {
            Source::Input => self.to.load(Stream::Input),
            Source::Upstream => self.to.load(Stream::Upstream),
            Source::Scalar(scalar) => return self.scalar(scalar, Form::High),
            Source::Held(held) => match self.held.get(&held) {
                Some(&value) => value,
                None => self.to.load(Stream::Held(held)),
            },
            Source::Register(register) => match self.registers[register] {
                Some(value) => value,
                None => self.to.load(Stream::Register(register)),
            },
        })
    }

    fn factor(&mut self, source: Source) -> Option<Value> {
        match source {
            Source::Scalar(scalar) => self.scalar(scalar, Form::Factor),
            _ => self.value(source),
        }
    }

    /// The sum of a vector and a scalar in two parts.
    fn add_scalar(&mut self, vector: Value, scalar: usize, [high, low]: [Form; 2]) -> Option<Value> {
        let first = self.scalar(scalar, high)?;
        let sum = self.to.add(vector, first);
        if self.is_single(scalar) {
            return Some(sum);
        }
        let second = self.scalar(scalar, low)?;
        Some(self.to.add(sum, second))
    }

    fn step(&mut self, step: Step) -> Option<Value> {
        Some(match step {
            Step::Unary(prim, a) => {
                let a = self.value(a)?;
                self.to.prim(prim, a)
            }
            Step::Binary(Prim::Add, Source::Scalar(scalar), vector)
            | Step::Binary(Prim::Add, vector, Source::Scalar(scalar)) => {
                let vector = self.value(vector)?;
                self.add_scalar(vector, scalar, [Form::High, Form::Low])?
            }
            Step::Subtract(vector, Source::Scalar(scalar)) => {
                let vector = self.value(vector)?;
                self.add_scalar(vector, scalar, [Form::NegatedHigh, Form::NegatedLow])?
            }
            Step::Subtract(Source::Scalar(scalar), vector) => {
                let (high, vector) = (self.scalar(scalar, Form::High)?, self.value(vector)?);
                let difference = self.to.subtract(high, vector);
                if self.is_single(scalar) {
                    return Some(difference);
                }
                let low = self.scalar(scalar, Form::Low)?;
                self.to.add(difference, low)
            }
            Step::Binary(Prim::Add, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                self.to.add(a, b)
            }
            Step::Subtract(a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                self.to.subtract(a, b)
            }
            Step::Binary(Prim::Mul, a, b) => {
                let (a, b) = (self.factor(a)?, self.factor(b)?);
                self.to.multiply(a, b)
            }
            Step::Binary(Prim::Div, a, Source::Scalar(scalar)) => {
                let (a, reciprocal) = (self.value(a)?, self.scalar(scalar, Form::Reciprocal)?);
                self.to.multiply(a, reciprocal)
            }
            Step::Binary(Prim::Div, a, b) => {
                let (a, b) = (self.factor(a)?, self.value(b)?);
                self.to.divide(a, b)
            }
            Step::Binary(Prim::Max, a, b) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                self.maximum(a, b)
            }
            Step::Binary(prim, ..) => unreachable!("{} is not binary", prim.name()),
            Step::MultiplyAdd(a, b, c) => {
                let (a, b, c) = (self.value(a)?, self.factor(b)?, self.value(c)?);
                self.to.multiply_add(a, b, c)
            }
        })
    }

    /// The larger one, or NaN if one of both is.
    fn maximum(&mut self, a: Value, b: Value) -> Value {
        // The instruction gives its second operand where one of both is NaN.
        if self.to.is_never_nan(b) {
            return self.to.binary(Binary::Maximum, b, a);
        }
        let larger = self.to.binary(Binary::Maximum, a, b);
        if self.to.is_never_nan(a) {
            return larger;
        }
        self.to.select(Comparison::Unordered, [a, a, a, larger])
    }

    /// What is summed up by lane is added up from memory.
    fn store_summand(&mut self, accumulate: &Accumulate) {
        if let Summand::Value(Source::Register(register)) = accumulate.summand
            && let Some(value) = self.registers[register]
        {
            self.store(Stream::Register(register), value);
        }
    }

    fn accumulate(&mut self, accumulate: &Accumulate) -> Option<()> {
        match (accumulate.summand, accumulate.what) {
            (Summand::Product(a, b), _) => {
                let (a, b) = (self.value(a)?, self.value(b)?);
                self.sum_of_products(a, b);
            }
            (Summand::Value(source), Accumulation::Sum) => {
                let value = self.value(source)?;
                self.sum(value);
            }
            (Summand::Value(source), Accumulation::SumOfSquares) => {
                let value = self.value(source)?;
                let [scale] = self.window();
                let scaled = self.to.multiply(value, scale);
                self.sum_of_products(scaled, scaled);
            }
            (Summand::Value(source), Accumulation::Moments) => {
                let value = self.value(source)?;
                let [scale, offset] = self.window();
                let difference = self.to.multiply_add(value, scale, offset);
                self.sum(difference);
                self.sum_of_products(difference, difference);
            }
        }
        Some(())
    }

    /// The next numbers of windows.
    fn window<const COUNT: usize>(&mut self) -> [Value; COUNT] {
        std::array::from_fn(|_| {
            self.to.windows += 1;
            self.to.number(Number::Window(self.to.windows - 1))
        })
    }

    fn sum(&mut self, value: Value) {
        self.to.sinks.push(Sink::Sum(self.to.sums, value));
        self.to.sums += 1;
    }

    fn sum_of_products(&mut self, a: Value, b: Value) {
        self.to.sinks.push(Sink::SumProduct(self.to.sums, a, b));
        self.to.sums += 1;
    }
}
