//! Numbers as Rust writes them.

use std::f64::consts;

/// Constants of the standard library. Clippy refuses their digits, and these digits cut short or rounded
/// where the text is longer than so much.
const CONSTANTS: &[(f64, &str, usize)] = &[
    (consts::E, "E", 4),
    (consts::FRAC_1_PI, "FRAC_1_PI", 4),
    (consts::FRAC_1_SQRT_2, "FRAC_1_SQRT_2", 5),
    (consts::FRAC_2_PI, "FRAC_2_PI", 5),
    (consts::FRAC_2_SQRT_PI, "FRAC_2_SQRT_PI", 5),
    (consts::FRAC_PI_2, "FRAC_PI_2", 5),
    (consts::FRAC_PI_3, "FRAC_PI_3", 5),
    (consts::FRAC_PI_4, "FRAC_PI_4", 5),
    (consts::FRAC_PI_6, "FRAC_PI_6", 5),
    (consts::FRAC_PI_8, "FRAC_PI_8", 5),
    (consts::LN_2, "LN_2", 5),
    (consts::LN_10, "LN_10", 5),
    (consts::LOG2_E, "LOG2_E", 5),
    (consts::LOG2_10, "LOG2_10", 5),
    (consts::LOG10_2, "LOG10_2", 5),
    (consts::LOG10_E, "LOG10_E", 5),
    (consts::PI, "PI", 3),
    (consts::SQRT_2, "SQRT_2", 5),
    (consts::TAU, "TAU", 3),
];

/// The path before a constant of the standard library.
pub(super) const PATH: &str = "consts::";

/// `2.0`, `-1e-5`, `consts::SQRT_2`, `f64::INFINITY`; for a number that is nearly a constant of the
/// standard library, a division with the same result: `314.0 / 1e2`.
pub(super) fn number(value: f64) -> String {
    if value.is_nan() {
        return "f64::NAN".to_owned();
    }
    let sign = if value < 0.0 { "-" } else { "" };
    if value.is_infinite() {
        return format!("{sign}f64::INFINITY");
    }
    let magnitude = value.abs();
    if let Some((_, name, _)) = CONSTANTS.iter().find(|(known, ..)| *known == magnitude) {
        return format!("{sign}{PATH}{name}");
    }
    let text = format!("{magnitude:?}");
    match text.split_once('.') {
        Some((whole, decimals)) if is_nearly_a_constant(&text) => {
            let digits = format!("{whole}{decimals}");
            format!("{sign}{}.0 / 1e{}", digits.trim_start_matches('0'), decimals.len())
        }
        _ => format!("{sign}{text}"),
    }
}

fn is_nearly_a_constant(text: &str) -> bool {
    CONSTANTS.iter().any(|(constant, _, digits)| {
        let rounded = || format!("{constant:.0$}", text.len() - 2);
        text.len() > *digits && (constant.to_string().starts_with(text) || rounded() == text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clippy_takes_for_a_constant_is_a_division() {
        for (value, text) in
            [(314.0 / 1e2, "314.0 / 1e2"), (-69315.0 / 1e5, "-69315.0 / 1e5"), (0.7, "0.7"), (2.7, "2.7")]
        {
            assert_eq!(number(value), text);
            if let Some((a, b)) = text.split_once(" / ") {
                let [a, b] = [a, b].map(|part| part.parse::<f64>().expect("a number"));
                assert_eq!(a / b, value);
            }
        }
    }

    #[test]
    fn numbers_are_literals_or_constants_of_the_standard_library() {
        let written = [0.0, -2.0, 1e-5, 1e300, 0.5, f64::sqrt(2.0), -f64::INFINITY, f64::NAN].map(number);
        assert_eq!(written, ["0.0", "-2.0", "1e-5", "1e300", "0.5", "consts::SQRT_2", "-f64::INFINITY", "f64::NAN"]);
    }
}
