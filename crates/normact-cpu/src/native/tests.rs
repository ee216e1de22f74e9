//! Single steps as native code against the interpreter, to the bit.

use std::sync::Arc;

use normact_ir::Prim;

use super::{Frame, Instructions, Native, RowNumbers, Rows, Stream};
use crate::program::{Accumulate, Home, PassProgram, ScalarStep, Summand, Target};
use crate::run::Columns;
use crate::slots::{Accumulation, Moments};
use crate::vector::{Chunk, Register, Source, Step, WIDTH, dot, moments, sum, sum_of_squares};

fn available() -> impl Iterator<Item = Instructions> {
    [Instructions::Avx2, Instructions::Avx512].into_iter().filter(|instructions| instructions.is_available())
}

/// A pass that writes the result of one step. The scalar is a product, so that it is not known before.
fn pass(step: Step) -> PassProgram {
    let mut pass = PassProgram {
        steps: vec![(step, Home::Register(0))],
        registers: 1,
        write: Some(Source::Register(0)),
        ..PassProgram::default()
    };
    pass.scalars.steps = vec![ScalarStep::Constant(1.0), ScalarStep::Binary(Prim::Mul, 0, 0)];
    pass
}

fn native(pass: &PassProgram, instructions: Instructions) -> Native {
    Native::of([pass].into_iter(), instructions, false).remove(0).expect("one step has native code")
}

/// What is added to an accumulator.
#[derive(Debug, Clone, Copy)]
enum Addend {
    Sum(f64),
    Moments(Moments),
}

struct Run {
    out: Vec<f32>,
    addends: Option<Vec<Addend>>,
}

/// `None` where the row is left to the interpreter.
fn run(native: &Native, x: &[f32], dy: &[f32], scalar: f64) -> Option<Run> {
    let mut frame = Frame::default();
    let mut numbers = RowNumbers::default();
    numbers.fill(native, &Columns::single(&[1.0, scalar]));
    if !numbers.suit(0) {
        return None;
    }
    let mut out = vec![f32::NAN; x.len()];
    native.begin(&mut frame, |stream| match stream {
        Stream::Input => (x.as_ptr().cast_mut(), 0),
        Stream::Upstream => (dy.as_ptr().cast_mut(), 0),
        Stream::Output => (out.as_mut_ptr(), 0),
        Stream::Held(_) | Stream::Register(_) => unreachable!("neither is in these passes"),
    });
    (0..native.sums.len()).for_each(|sum| native.set_windows(&mut frame, sum, std::iter::once(0.0)));
    let rows = Rows { count: 1, len: x.len(), numbers: numbers.from(0), step: 0, past_caches: false };
    // SAFETY: all have the same length.
    #[allow(unsafe_code)]
    let is_done = unsafe {
        native.run(&mut frame, rows);
        native.settle(&mut frame, rows, 0)
    };
    let sum = |sum: usize| match native.sums[sum].what {
        Accumulation::Sum => Addend::Sum(native.totals(&frame, sum, rows)[0]),
        Accumulation::SumOfSquares => Addend::Sum(native.moments(&frame, sum, rows, 0).squares),
        Accumulation::Moments => Addend::Moments(native.moments(&frame, sum, rows, 0)),
    };
    Some(Run { out, addends: is_done.then(|| (0..native.sums.len()).map(sum).collect()) })
}

fn interpreted(step: Step, x: &[f32], dy: &[f32], scalar: f64) -> Vec<f32> {
    let mut out = vec![0.0; x.len()];
    let scalars = [1.0, scalar];
    let chunk = Chunk {
        registers: &[],
        scalars: &scalars,
        x,
        dy,
        held: &[],
        start: 0,
        len: x.len(),
        wide: &[],
        exceeding: &[],
    };
    chunk.step::<true>(step, &mut out);
    out
}

fn assert_same(step: Step, scalar: f64, x: &[f32], dy: &[f32]) {
    for instructions in available() {
        let Some(run) = run(&native(&pass(step), instructions), x, dy, scalar) else { continue };
        let expected = interpreted(step, x, dy, scalar);
        for (index, (found, expected)) in run.out.iter().zip(&expected).enumerate() {
            // The sign of a zero is that of either operand of a maximum.
            let same = found.to_bits() == expected.to_bits() || found == expected && *found == 0.0;
            assert!(
                same || found.is_nan() && expected.is_nan(),
                "{instructions:?} {step:?} of {:e} and {:e} with {scalar:e}: {found:e}, expected {expected:e}",
                x[index],
                dy[index],
            );
        }
    }
}

/// Numbers of all kinds.
const SPECIAL: [f32; 20] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.3,
    -2.5,
    f32::MIN_POSITIVE,
    -f32::MIN_POSITIVE,
    1e-40,
    -1e-45,
    f32::MAX,
    f32::MIN,
    1e30,
    -1e-30,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
    88.5,
    -88.0,
    9.1,
];

#[test]
fn functions_are_those_of_the_interpreter() {
    // Odd, so that every low bit takes both values.
    let stride = if cfg!(debug_assertions) { 99_991 } else { 4_999 };
    let bits: Vec<u32> = (0..=u32::MAX).step_by(stride).collect();
    for &prim in Prim::ALL {
        if matches!(prim, Prim::Add | Prim::Mul | Prim::Div | Prim::Max) {
            continue;
        }
        let step = Step::Unary(prim, Source::Input);
        let native: Vec<Native> = available().map(|instructions| native(&pass(step), instructions)).collect();
        for bits in bits.chunks(WIDTH) {
            let x: Vec<f32> = bits.iter().copied().map(f32::from_bits).collect();
            let expected = interpreted(step, &x, &x, 1.0);
            for native in &native {
                let found = run(native, &x, &x, 1.0).expect("no scalar is read").out;
                for ((x, found), expected) in x.iter().zip(&found).zip(&expected) {
                    let same = found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan();
                    assert!(same, "{prim:?} of {x:e}: {found:e}, expected {expected:e}");
                }
            }
        }
        assert_same(step, 1.0, &SPECIAL, &SPECIAL);
    }
}

#[test]
fn operations_are_those_of_the_interpreter() {
    use Source::{Input, Scalar, Upstream};
    let (first, second): (Vec<f32>, Vec<f32>) =
        SPECIAL.iter().flat_map(|&a| SPECIAL.iter().map(move |&b| (a, b))).unzip();
    let mut steps =
        vec![Step::Subtract(Input, Upstream), Step::Subtract(Input, Scalar(1)), Step::Subtract(Scalar(1), Input)];
    for prim in [Prim::Add, Prim::Mul, Prim::Div, Prim::Max] {
        for (a, b) in [
            (Input, Upstream),
            (Input, Input),
            (Input, Scalar(1)),
            (Scalar(1), Input),
            (Input, Scalar(0)),
            (Scalar(0), Input),
        ] {
            steps.push(Step::Binary(prim, a, b));
        }
    }
    for b in [Upstream, Input, Scalar(1), Scalar(0)] {
        steps.extend([Upstream, Input, Scalar(1), Scalar(0)].map(|c| Step::MultiplyAdd(Input, b, c)));
    }
    let scalars = SPECIAL.iter().copied().map(f64::from).chain([0.1, 1.0 / 3.0, 1e300, -1e-300, 123_456.789]);
    for scalar in scalars {
        for &step in &steps {
            assert_same(step, scalar, &first, &second);
        }
    }
}

#[test]
fn a_factor_that_exceeds_an_f32_is_left_to_the_interpreter() {
    for instructions in available() {
        let native = native(&pass(Step::Binary(Prim::Mul, Source::Input, Source::Scalar(1))), instructions);
        assert!(run(&native, &[1e20], &[1.0], 1e-50).is_none());
        assert!(run(&native, &[1e20], &[1.0], 0.5).is_some());
    }
}

#[test]
fn a_sum_that_cannot_be_finite_is_left_to_the_interpreter() {
    let product = Step::Binary(Prim::Mul, Source::Input, Source::Scalar(1));
    let of = |value| Accumulate { target: Target::Block(0), summand: Summand::Value(value), what: Accumulation::Sum };
    for instructions in available() {
        for (summed, is_left) in [(Source::Register(0), true), (Source::Input, false)] {
            let pass = PassProgram { sums: vec![of(summed)], ..pass(product) };
            let native = native(&pass, instructions);
            assert_eq!(run(&native, &[2.0], &[1.0], f64::INFINITY).is_none(), is_left, "{summed:?}");
            assert!(run(&native, &[2.0], &[1.0], 3.0).is_some());
        }
    }
}

#[test]
fn sums_of_all_lengths_are_those_of_the_interpreter() {
    let sums = [
        (Summand::Value(Source::Input), Accumulation::Sum),
        (Summand::Value(Source::Upstream), Accumulation::SumOfSquares),
        (Summand::Product(Source::Input, Source::Upstream), Accumulation::Sum),
        (Summand::Value(Source::Input), Accumulation::Moments),
    ]
    .map(|(summand, what)| Accumulate { target: Target::Block(0), summand, what });
    let pass = PassProgram { sums: sums.to_vec(), ..PassProgram::default() };
    for instructions in available() {
        let native = native(&pass, instructions);
        for len in 1..=WIDTH {
            // Numbers behind the chunk must not count.
            let numbers = |factor: f32| -> Vec<f32> { (0..len).map(|i| (i as f32 * factor).sin() + 1.0).collect() };
            let (x, dy) = (numbers(0.7), numbers(1.3));
            let addends = run(&native, &x, &dy, 1.0).and_then(|run| run.addends).expect("the sums are finite");
            let expected = [sum(&x), sum_of_squares(&dy), dot(&x, &dy)];
            let near = |found: f64, expected: f64| (found - expected).abs() <= 1e-6 * expected.abs() + 1e-6;
            for (addend, expected) in addends.iter().zip(expected) {
                assert!(
                    matches!(addend, Addend::Sum(sum) if near(*sum, expected)),
                    "{len}: {addend:?}, expected {expected}"
                );
            }
            let (Addend::Moments(found), expected) = (addends[3], moments(&x)) else { panic!("moments come last") };
            assert!(
                near(found.mean(), expected.mean()) && near(found.deviations(), expected.deviations()),
                "{len}: {found:?}, expected {expected:?}"
            );
        }
        let (huge, small) = ([3e38; 100], [1.0; 100]);
        assert!(run(&native, &huge, &small, 1.0).expect("no scalar is read").addends.is_none(), "an overflow");
    }
}

/// Whatever the size of the numbers, and of their mean beside their deviations from it.
#[test]
fn moments_are_exact_for_numbers_of_all_sizes() {
    let sums = [Accumulation::SumOfSquares, Accumulation::Moments].map(|what| Accumulate {
        target: Target::Block(0),
        summand: Summand::Value(Source::Input),
        what,
    });
    let pass = PassProgram { sums: sums.to_vec(), ..PassProgram::default() };
    for instructions in available() {
        let native = native(&pass, instructions);
        for scale in [1e-44f32, 1e-38, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e20, 1e30, 1e34] {
            for mean in [0.0f32, 1.0, -30.0, 1e3, -3e4] {
                for spread in [0.0f32, 1.0] {
                    let x: Vec<f32> = (0..1000).map(|i| ((i as f32 * 0.7).sin() * spread + mean) * scale).collect();
                    let wide = || x.iter().map(|&x| f64::from(x));
                    let squares: f64 = wide().map(|x| x * x).sum();
                    let mean = wide().sum::<f64>() / 1000.0;
                    let deviations: f64 = wide().map(|x| (x - mean) * (x - mean)).sum();
                    let addends = run(&native, &x, &x, 1.0).and_then(|run| run.addends).expect("no plain sum");
                    let [Addend::Sum(sum), Addend::Moments(moments)] = addends[..] else { panic!("these two") };
                    let case = format!("{instructions:?} {scale:e} {mean:e} {spread}");
                    assert!((sum - squares).abs() <= 1e-6 * squares, "{case}: {sum:e}, expected {squares:e}");
                    let distance = (moments.mean() - mean).abs();
                    assert!(distance <= 1e-6 * (deviations / 1000.0).sqrt(), "{case}: {distance:e} away");
                    let found = moments.deviations();
                    assert!((found - deviations).abs() <= 3e-6 * deviations, "{case}: {found:e}, {deviations:e}");
                }
            }
        }
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = vec![1.0f32; 1000];
            x[700] = odd;
            let addends = run(&native, &x, &x, 1.0).and_then(|run| run.addends).expect("no plain sum");
            let [Addend::Sum(sum), Addend::Moments(moments)] = addends[..] else { panic!("these two") };
            assert!(!sum.is_finite() && !moments.mean().is_finite() && moments.deviations().is_nan(), "{odd}");
        }
    }
}

/// More values at a time than there are registers.
#[test]
fn values_without_a_register_are_spilled() {
    const VALUES: usize = 60;
    let mut pass = PassProgram { registers: VALUES + 1, ..PassProgram::default() };
    let constant = |number: usize| ScalarStep::Constant(1.0 + number as f64);
    pass.scalars.steps = (0..VALUES).map(constant).collect();
    for number in 0..VALUES {
        let step = Step::MultiplyAdd(Source::Input, Source::Scalar(number), Source::Scalar(number));
        pass.steps.push((step, Home::Register(number)));
    }
    // The differences of the first and the last, of the second and the one before it, and so on.
    let total = Source::Register(VALUES);
    pass.steps.push((Step::Subtract(Source::Register(0), Source::Register(VALUES - 1)), Home::Register(VALUES)));
    for number in 1..VALUES / 2 {
        let (a, b) = (Source::Register(number), Source::Register(VALUES - 1 - number));
        pass.steps.push((Step::Binary(Prim::Mul, a, b), Home::Register(number)));
        pass.steps.push((Step::Binary(Prim::Add, total, Source::Register(number)), Home::Register(VALUES)));
    }
    pass.write = Some(total);
    let x: Vec<f32> = (0..77).map(|i| i as f32 * 0.01).collect();
    for instructions in available() {
        let native = native(&pass, instructions);
        let found = run(&native, &x, &x, 1.0).expect("all factors fit").out;
        let mut registers = vec![Box::new(Register::default()); VALUES + 1];
        let scalars: Vec<f64> = (0..VALUES).map(|number| 1.0 + number as f64).collect();
        for &(step, home) in &pass.steps {
            let mut into = Box::new(Register::default());
            let Home::Register(register) = home else { unreachable!("nothing is held") };
            let chunk = Chunk {
                registers: &registers,
                scalars: &scalars,
                x: &x,
                dy: &x,
                held: &[],
                start: 0,
                len: 77,
                wide: &[],
                exceeding: &[],
            };
            chunk.step::<true>(step, &mut into.0[..77]);
            registers[register] = into;
        }
        assert_eq!(found, registers[VALUES].0[..77], "{instructions:?}");
    }
}

/// Code outlives the program that made it as long as a clone of it does.
#[test]
fn a_clone_keeps_the_code() {
    for instructions in available() {
        let first = native(&pass(Step::Unary(Prim::Neg, Source::Input)), instructions);
        let second = first.clone();
        assert_eq!(Arc::strong_count(&second.memory), 2);
        drop(first);
        assert_eq!(run(&second, &[2.0], &[0.0], 1.0).expect("no scalar is read").out, [-2.0]);
    }
}
