//! The primitive table: everything the project knows about an operation, in one row.
//!
//! [`primitives!`](crate::primitives) hands the whole table to the macro it is given; that macro
//! picks the columns it needs. This crate makes the [`Prim`](crate::Prim) and
//! [`Moment`](crate::Moment) enums from it, with names, laws, f64 values, derivatives and ranges;
//! `normact-burn` makes the tensor lowering from the `burn` column, whose tokens this crate never
//! compiles. Adding an operation is adding a row. What needs a second line is a named function:
//! of the module `math` for numbers, of `normact-burn`'s `tensor_math` for tensors.
//!
//! Columns of an elementwise row:
//!
//! * `laws`: algebraic laws, each tested on numbers and turned into one rewrite rule;
//! * `value`: the meaning on f64;
//! * `slope`: the derivative with respect to each operand, given the operands and the result. It
//!   uses only `+ - * /` and `math` functions that are primitives themselves, so that the same
//!   tokens give a number or a graph;
//! * `range`: the image of an [`Interval`](crate::Interval);
//! * `burn`: the same operation on Burn tensors;
//! * `text`: how it is written in the languages that `normact-emit` writes, each `{}` an operand, or the
//!   sign of an infix operator; before a dot an operand is a term, in brackets if need be. What a language lacks is the name of a function that the emitted file
//!   brings with it. `sign` stands in a node of a drawing; `latex` is the sign or command of a formula.

/// Calls the macro `$user` with the rows of the primitive table.
#[macro_export]
macro_rules! primitives {
    ($user:path) => {
        $user! {
            unary {
                /// `-x`
                Neg "neg" {
                    laws: [Involution, Odd],
                    value: |x| -x,
                    slope: |_x, _y| -1.0,
                    range: |x| x.neg(),
                    burn: |x| x.neg(),
                    text: [rust "-{}", torch "-{}", jax "-{}", onnx "Neg",
                           sign "−", latex "-"],
                }
                /// `1 / (1 + exp(-x))`, the logistic function
                Sigmoid "sigmoid" {
                    laws: [],
                    value: |x| sigmoid(x),
                    slope: |_x, y| y * (1.0 - y),
                    range: |x| x.increasing(sigmoid).without_zero(),
                    burn: |x| sigmoid(x),
                    text: [rust "sigmoid({})", torch "torch.sigmoid({})", jax "jax.nn.sigmoid({})", onnx "Sigmoid",
                           sign "σ", latex "\\sigma"],
                }
                /// the hyperbolic tangent
                Tanh "tanh" {
                    laws: [Odd],
                    value: |x| x.tanh(),
                    slope: |_x, y| 1.0 - y * y,
                    range: |x| x.increasing(f64::tanh).zero_as_in(x),
                    burn: |x| tanh(x),
                    text: [rust "tanh({})", torch "torch.tanh({})", jax "jnp.tanh({})", onnx "Tanh",
                           sign "tanh", latex "\\tanh"],
                }
                /// `e` to the power `x`
                Exp "exp" {
                    laws: [],
                    value: |x| x.exp(),
                    slope: |_x, y| y,
                    range: |x| x.increasing(f64::exp).without_zero(),
                    burn: |x| x.exp(),
                    text: [rust "{}.exp()", torch "torch.exp({})", jax "jnp.exp({})", onnx "Exp",
                           sign "exp", latex "\\exp"],
                }
                /// `sign(x) * ln|x|`: the natural logarithm, extended to negative numbers as an odd
                /// function; undefined (NaN) at 0
                Log "log" {
                    laws: [Odd],
                    value: |x| sign(x) * x.abs().ln(),
                    slope: |x, _y| sign(x) / x,
                    range: |x| x.signed_log(),
                    burn: |x| signed_log(x),
                    text: [rust "signed_log({})", torch "signed_log({})", jax "signed_log({})", onnx "signed_log",
                           sign "ln", latex "\\ln"],
                }
                /// `|x|`; its derivative at 0 is 0
                Abs "abs" {
                    laws: [Even, Projection],
                    value: |x| x.abs(),
                    slope: |x, _y| sign(x),
                    range: |x| x.abs(),
                    burn: |x| x.abs(),
                    text: [rust "{}.abs()", torch "torch.abs({})", jax "absolute({})", onnx "Abs",
                           sign "|·|", latex "|"],
                }
                /// `x * x`
                Square "square" {
                    laws: [Even],
                    value: |x| x * x,
                    slope: |x, _y| 2.0 * x,
                    range: |x| x.square(),
                    burn: |x| x.clone() * x,
                    text: [rust "square({})", torch "torch.square({})", jax "jnp.square({})", onnx "square",
                           sign "(·)²", latex "^{2}"],
                }
                /// `sign(x) * sqrt(|x|)`: the square root, extended to negative numbers as an odd
                /// function; its derivative at 0 is 0
                Sqrt "sqrt" {
                    laws: [Odd],
                    value: |x| sign(x) * x.abs().sqrt(),
                    // 1 / (2 sqrt|x|), and 0 at 0: the second factor is 1 except at 0, where the first is 0.
                    slope: |x, y| 0.5 * square(sign(x)) / (abs(y) + (1.0 - square(sign(x)))),
                    range: |x| x.increasing(|x| sign(x) * x.abs().sqrt()).zero_as_in(x),
                    burn: |x| signed_sqrt(x),
                    text: [rust "signed_sqrt({})", torch "signed_sqrt({})", jax "signed_sqrt({})", onnx "signed_sqrt",
                           sign "√", latex "\\sqrt"],
                }
                /// the error function, `2 / sqrt(pi)` times the integral of `exp(-t * t)` from 0 to `x`
                Erf "erf" {
                    laws: [Odd],
                    value: |x| erf(x),
                    slope: |x, _y| FRAC_2_SQRT_PI * exp(-square(x)),
                    range: |x| x.increasing(erf).zero_as_in(x),
                    burn: |x| x.erf(),
                    text: [rust "{}.erf()", torch "torch.erf({})", jax "jax.scipy.special.erf({})", onnx "Erf",
                           sign "erf", latex "\\operatorname{erf}"],
                }
                /// `-1`, `0` or `1`: the derivative of `abs`; its own derivative is 0
                Sign "sign" {
                    laws: [Odd, Projection],
                    value: |x| sign(x),
                    slope: |_x, _y| 0.0,
                    range: |x| x.increasing(sign).zero_as_in(x),
                    burn: |x| sign(x),
                    text: [rust "sign({})", torch "sign({})", jax "jnp.sign({})", onnx "Sign",
                           sign "sign", latex "\\operatorname{sign}"],
                }
            }
            binary {
                /// `a + b`
                Add "add" {
                    laws: [Commutative, Associative, Identity(0.0)],
                    value: |a, b| a + b,
                    slope: |_a, _b, _y| (1.0, 1.0),
                    range: |a, b| a.add(b),
                    burn: |a, b| a + b,
                    text: [rust "+", torch "+", jax "+", onnx "Add",
                           sign "+", latex "+"],
                }
                /// `a * b`
                Mul "mul" {
                    laws: [Commutative, Associative, Identity(1.0), Absorbing(0.0)],
                    value: |a, b| a * b,
                    slope: |a, b, _y| (b, a),
                    range: |a, b| a.mul(b),
                    burn: |a, b| a * b,
                    text: [rust "*", torch "*", jax "*", onnx "Mul",
                           sign "×", latex "\\,"],
                }
                /// `a / b`
                Div "div" {
                    laws: [RightIdentity(1.0)],
                    value: |a, b| a / b,
                    slope: |_a, b, y| (1.0 / b, -y / b),
                    range: |a, b| a.div(b),
                    burn: |a, b| a / b,
                    text: [rust "/", torch "/", jax "/", onnx "Div",
                           sign "÷", latex "\\frac"],
                }
                /// the larger of `a` and `b`; NaN if either is; on a tie each gets half of the gradient
                Max "max" {
                    laws: [Commutative, Associative, Idempotent],
                    value: |a, b| max(a, b),
                    slope: |a, b, _y| (0.5 + 0.5 * sign(a - b), 0.5 - 0.5 * sign(a - b)),
                    range: |a, b| a.max(b),
                    burn: |a, b| max(a, b),
                    text: [rust "max({}, {})", torch "torch.maximum({}, {})", jax "jnp.maximum({}, {})", onnx "Max",
                           sign "max", latex "\\max"],
                }
            }
            moment {
                /// the mean of `x`, its first moment
                Mean "mean" { quantity: Mean, root: false }
                /// `sqrt(mean(x * x) + eps)`, the root of the second moment
                Rms "rms" { quantity: MeanSquare, root: true }
                /// `sqrt(var(x) + eps)`, the root of the second central moment
                Std "std" { quantity: Variance, root: true }
                /// the population variance of `x`, without eps
                Var "var" { quantity: Variance, root: false }
            }
        }
    };
}
