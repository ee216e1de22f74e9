//! Every primitive alone on hard values, in f32: values and derivatives against the table.

use burn::tensor::FloatDType;
use normact_ir::{Arity, Extent, Inputs, Mode, Prim, Shape, Slope};

use crate::layers::{layer, param};
use crate::reference::{Outcome, Subject};
use crate::ways::{Way, ways};

/// Zero, numbers whose squares leave f32 on both sides, where exponentials overflow, and no numbers.
#[rustfmt::skip]
const GRID: [f32; 23] = [
    0.0, 1e-30, -1e-30, 1e-6, -1e-6, 1e-3, -1e-3, 0.3, -0.3, 1.0, -1.0, 7.0, -7.0, 87.0, -87.0, 100.0, -100.0, 1000.0,
    1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY, f32::NAN,
];

#[test]
fn primitives_have_the_values_of_the_table() {
    for (way, prim) in ways_and_prims() {
        let (points, outcome) = on_grid(prim, &way);
        for (point, found) in points.iter().zip(&outcome.y) {
            let expected = prim.value(point.0, point.1);
            assert!(
                close(prim, *found, expected),
                "{} of {point:?} on {way:?} is {found}, expected {expected}",
                prim.name()
            );
        }
    }
}

#[test]
fn primitives_have_the_derivatives_of_the_table() {
    for (way, prim) in ways_and_prims() {
        let (points, outcome) = on_grid(prim, &way);
        for (index, &(a, b)) in points.iter().enumerate() {
            let check = |operand: &str, found: f64, expected: f64| {
                assert!(
                    is_free(&way, prim, a, b) || expected.is_nan() || close(prim, found, expected),
                    "the derivative of {} by {operand} at ({a}, {b}) on {way:?} is {found}, expected {expected}",
                    prim.name()
                );
            };
            match prim.slope(a, b, prim.value(a, b)) {
                Slope::Unary(slope) => check("x", outcome.dx[index], slope),
                Slope::Binary(by_a, by_b) => {
                    check("a", outcome.dx[index], by_a);
                    check("b", outcome.params[0][index], by_b);
                }
            }
        }
    }
}

#[test]
fn a_tie_splits_the_gradient_and_kinks_have_derivative_zero() {
    for way in ways() {
        let (points, outcome) = on_grid(Prim::Max, &way);
        let ties = points.iter().enumerate().filter(|(_, (a, b))| a == b && a.is_finite());
        for (index, point) in ties {
            assert_eq!((outcome.dx[index], outcome.params[0][index]), (0.5, 0.5), "{point:?} on {way:?}");
        }
        for prim in [Prim::Abs, Prim::Sqrt, Prim::Sign] {
            let (points, outcome) = on_grid(prim, &way);
            assert_eq!((points[0].0, outcome.y[0], outcome.dx[0]), (0.0, 0.0, 0.0), "{} on {way:?}", prim.name());
        }
    }
}

fn ways_and_prims() -> impl Iterator<Item = (Way, Prim)> {
    ways().into_iter().flat_map(|way| Prim::ALL.iter().map(move |&prim| (way.clone(), prim)))
}

/// A primitive at every point of the grid, or pair of points: the first operand is the input, the
/// second a parameter.
fn on_grid(prim: Prim, way: &Way) -> (Vec<(f64, f64)>, Outcome) {
    let grid = || GRID.iter().copied().map(f64::from);
    let points: Vec<(f64, f64)> = match prim.arity() {
        Arity::Unary => grid().map(|x| (x, 0.0)).collect(),
        Arity::Binary => grid().flat_map(|a| grid().map(move |b| (a, b))).collect(),
    };
    let layer = layer(prim.name(), |builder| {
        let x = builder.input();
        match prim.arity() {
            Arity::Unary => builder.unary(prim, x),
            Arity::Binary => {
                let p = param(builder, "p", Extent::PerChannel, 0.0);
                builder.binary(prim, x, p)
            }
        }
    });
    let (first, second): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
    let shape = Shape::new(&[1, points.len()]).expect("the grid is not empty");
    let mut inputs = Inputs::initial(&layer.dag, shape, vec![]);
    inputs.params.iter_mut().for_each(|values| values.clone_from(&second));
    let subject = Subject::new(&layer, &inputs, way, FloatDType::F32);
    let outcome = subject.pass(&first, Mode::Training, &vec![1.0; points.len()]);
    (points, outcome)
}

/// Whether a number computed in f32 is right.
fn close(prim: Prim, found: f64, expected: f64) -> bool {
    let expected = f64::from(expected as f32);
    if !expected.is_finite() {
        return found == expected || (found.is_nan() && expected.is_nan());
    }
    let absolute = match prim {
        // Burn's `erf` and WGSL's `tanh` are close in absolute terms, and the derivatives of all
        // three subtract from 1.
        Prim::Erf | Prim::Tanh | Prim::Sigmoid => 4e-7,
        // Subnormal numbers are 0 on some back-ends.
        _ => f64::from(f32::MIN_POSITIVE),
    };
    (found - expected).abs() <= absolute + 4e-6 * expected.abs()
}

/// Where a derivative may be anything. No loss with such a value means anything; and the derivative of `a / b` by
/// `b` has the square of `b`, which leaves f32 where arithmetic is not f64, as it is in plans on the CPU.
fn is_free(way: &Way, prim: Prim, a: f64, b: f64) -> bool {
    let square = (b * b) as f32;
    let overflows = prim == Prim::Div && b != 0.0 && b.is_finite() && !square.is_normal();
    a.is_nan() || b.is_nan() || overflows && !way.is_planned_on_the_cpu()
}
