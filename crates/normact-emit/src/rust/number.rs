//! Numbers as Rust writes them.

use std::f64::consts;

/// Constants of the standard library: clippy refuses their digits.
const CONSTANTS: &[(f64, &str)] = &[
    (consts::E, "E"),
    (consts::FRAC_1_PI, "FRAC_1_PI"),
    (consts::FRAC_1_SQRT_2, "FRAC_1_SQRT_2"),
    (consts::FRAC_2_PI, "FRAC_2_PI"),
    (consts::FRAC_2_SQRT_PI, "FRAC_2_SQRT_PI"),
    (consts::FRAC_PI_2, "FRAC_PI_2"),
    (consts::FRAC_PI_3, "FRAC_PI_3"),
    (consts::FRAC_PI_4, "FRAC_PI_4"),
    (consts::FRAC_PI_6, "FRAC_PI_6"),
    (consts::FRAC_PI_8, "FRAC_PI_8"),
    (consts::LN_2, "LN_2"),
    (consts::LN_10, "LN_10"),
    (consts::LOG2_E, "LOG2_E"),
    (consts::LOG2_10, "LOG2_10"),
    (consts::LOG10_2, "LOG10_2"),
    (consts::LOG10_E, "LOG10_E"),
    (consts::PI, "PI"),
    (consts::SQRT_2, "SQRT_2"),
    (consts::TAU, "TAU"),
];

/// The path before a constant of the standard library.
pub(super) const PATH: &str = "consts::";

/// `2.0`, `-1e-5`, `consts::SQRT_2`, `f64::INFINITY`.
pub(super) fn number(value: f64) -> String {
    if value.is_nan() {
        return "f64::NAN".to_owned();
    }
    let sign = if value < 0.0 { "-" } else { "" };
    if value.is_infinite() {
        return format!("{sign}f64::INFINITY");
    }
    match CONSTANTS.iter().find(|(known, _)| *known == value.abs()) {
        Some((_, name)) => format!("{sign}{PATH}{name}"),
        None => format!("{value:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_literals_or_constants_of_the_standard_library() {
        let written = [0.0, -2.0, 1e-5, 1e300, 0.5, f64::sqrt(2.0), -f64::INFINITY, f64::NAN].map(number);
        assert_eq!(written, ["0.0", "-2.0", "1e-5", "1e300", "0.5", "consts::SQRT_2", "-f64::INFINITY", "f64::NAN"]);
    }
}
