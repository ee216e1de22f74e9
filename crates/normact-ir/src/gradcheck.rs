//! Finite differences against the reverse-mode gradient.

use crate::dag::Dag;
use crate::eval::{EvalError, Inputs, Mode, evaluate};

/// How one tensor's gradient compares with finite differences.
#[derive(Debug, Clone, PartialEq)]
pub struct GradientCheck {
    /// `x`, or the parameter's name.
    pub name: String,
    /// The largest error over all elements: the difference over `1 + |gradient| + |loss|`.
    pub worst: f64,
    /// The element with that error.
    pub index: usize,
    /// Its gradient by the chain rule.
    pub gradient: f64,
    /// Its gradient by finite differences.
    pub difference: f64,
}

/// The step of the outermost difference, relative to `1 + |element|`. With the extrapolation below
/// the truncation error is of order 1e-16 and the rounding error of order 1e-12.
const STEPS: [f64; 3] = [1e-4, 1e-5, 1e-6];

/// Compares the gradient of `sum(output * dy)` with Richardson-extrapolated central differences, for
/// the input and every parameter. Where the steps straddle a kink (of `max`, `abs`, `sqrt`) smaller
/// ones are tried.
///
/// # Errors
/// The layer cannot be evaluated on these inputs.
pub fn gradcheck(dag: &Dag, inputs: &Inputs, dy: &[f64], mode: Mode) -> Result<Vec<GradientCheck>, EvalError> {
    let gradients = evaluate(dag, inputs, mode)?.gradients(dy);
    let mut moved = inputs.clone();
    let mut checks = vec![check("x", &gradients.x, |index, delta| {
        moved.x[index] = inputs.x[index] + delta;
        let loss = loss(dag, &moved, dy, mode);
        moved.x[index] = inputs.x[index];
        (inputs.x[index], loss)
    })];
    for (number, param) in dag.params().iter().enumerate() {
        checks.push(check(&param.name, &gradients.params[number], |index, delta| {
            let value = inputs.params[number][index];
            moved.params[number][index] = value + delta;
            let loss = loss(dag, &moved, dy, mode);
            moved.params[number][index] = value;
            (value, loss)
        }));
    }
    Ok(checks)
}

fn loss(dag: &Dag, inputs: &Inputs, dy: &[f64], mode: Mode) -> f64 {
    // The shape fits: the first evaluation succeeded.
    let output = evaluate(dag, inputs, mode).map(|evaluation| evaluation.output()).unwrap_or_default();
    output.iter().zip(dy).map(|(y, dy)| y * dy).sum()
}

/// `moved(index, delta)` is the element's value and the loss with `delta` added to it.
fn check(name: &str, gradient: &[f64], mut moved: impl FnMut(usize, f64) -> (f64, f64)) -> GradientCheck {
    let mut worst = GradientCheck { name: name.to_owned(), worst: 0.0, index: 0, gradient: 0.0, difference: 0.0 };
    for (index, &gradient) in gradient.iter().enumerate() {
        let (value, loss) = moved(index, 0.0);
        let mut best = (f64::INFINITY, f64::NAN);
        for step in STEPS {
            let step = step * (1.0 + value.abs());
            let mut central = |step: f64| (moved(index, step).1 - moved(index, -step).1) / (2.0 * step);
            let difference = (4.0 * central(step / 2.0) - central(step)) / 3.0;
            // Rounding in the loss limits what a difference can tell.
            let error = (gradient - difference).abs() / (1.0 + gradient.abs() + loss.abs());
            if error < best.0 || best.1.is_nan() {
                best = (error, difference);
            }
            if error < 1e-8 {
                break;
            }
        }
        // A NaN compares as the worst of all.
        if best.0 > worst.worst || best.0.is_nan() {
            worst = GradientCheck { worst: best.0, index, gradient, difference: best.1, ..worst };
        }
    }
    worst
}
