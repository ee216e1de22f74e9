//! Signed powers: division, roots, absolute values and signs.

use normact_ir::Prim;

use super::{Normalizer, rounded};
use crate::rules::Rule;
use crate::term::{Exponent, Head, TermId};

impl Normalizer {
    /// `a^p * a^q = a^(p+q)`, for the first base that occurs twice.
    pub(super) fn product_of_powers(&mut self, operands: &[TermId]) -> Option<(Rule, TermId)> {
        for (index, &operand) in operands.iter().enumerate() {
            let (base, exponent) = self.terms.as_power(operand);
            if matches!(self.terms.head(base), Head::Const(_)) {
                continue;
            }
            for (other_index, &other) in operands.iter().enumerate().skip(index + 1) {
                let (other_base, other_exponent) = self.terms.as_power(other);
                if other_base != base || !self.may_add(base, exponent, other_exponent) {
                    continue;
                }
                let Some(sum) = rounded(exponent.get() + other_exponent.get()) else { continue };
                let Some(sum) = Exponent::new(sum, exponent.odd != other_exponent.odd) else { continue };
                let mut all = operands.to_vec();
                all.swap_remove(other_index);
                all.swap_remove(index);
                // `a^0` without a sign is 1.
                if sum.get() != 0.0 || sum.odd {
                    all.push(self.terms.power(base, sum));
                }
                return Some((Rule::ProductOfPowers, self.terms.product(&all)));
            }
        }
        None
    }

    /// Whether adding exponents keeps the value where the base is zero, or the base is not zero.
    fn may_add(&mut self, base: TermId, p: Exponent, q: Exponent) -> bool {
        let (sum, odd) = (p.get() + q.get(), p.odd != q.odd);
        agree_at_zero(p, q, sum, odd) || self.may_cancel(base, sum, odd)
    }

    pub(super) fn power_rule(&mut self, id: TermId, exponent: Exponent) -> Option<(Rule, TermId)> {
        let base = self.terms.operand(id);
        match self.terms.head(base) {
            Head::Const(value) => {
                let value = value.get();
                if value == 0.0 && exponent.get() < 0.0 {
                    return Some((Rule::PowerOfConstant, self.terms.undefined()));
                }
                let power = rounded(signed_power(value, exponent))?;
                // A power that underflows is left as it is.
                if value != 0.0 && !power.is_normal() {
                    return None;
                }
                return Some((Rule::PowerOfConstant, self.terms.number(power)));
            }
            Head::Product => {
                let operands = self.terms.operands(base).to_vec();
                let powers: Vec<TermId> = operands.iter().map(|&operand| self.terms.power(operand, exponent)).collect();
                return Some((Rule::PowerOfProduct, self.terms.product(&powers)));
            }
            Head::Power(inner) => {
                let of = self.terms.operand(base);
                let product = Exponent::new(rounded(inner.get() * exponent.get())?, inner.odd && exponent.odd)?;
                if self.may_multiply(of, inner, exponent) {
                    let result = if product.get() == 0.0 && !product.odd {
                        self.terms.product(&[])
                    } else {
                        self.terms.power(of, product)
                    };
                    return Some((Rule::PowerOfPower, result));
                }
            }
            Head::Unary(Prim::Exp) => {
                let argument = self.terms.operand(base);
                let argument = self.terms.scaled(exponent.get(), argument);
                return Some((Rule::PowerOfExp, self.terms.unary(Prim::Exp, argument)));
            }
            Head::Unary(Prim::Tanh | Prim::Erf) => {
                let argument = self.terms.operand(base);
                if exponent == Exponent::SIGN {
                    return Some((Rule::SignOfOdd, self.terms.power(argument, Exponent::SIGN)));
                }
                if !exponent.is_natural() {
                    let natural = Exponent::natural(exponent.get())?;
                    let (power, sign) = (self.terms.power(base, natural), self.terms.power(argument, Exponent::SIGN));
                    return Some((Rule::ParityOfOdd, self.terms.product(&[power, sign])));
                }
            }
            _ => {}
        }
        self.known_sign(base, exponent)
    }

    /// A base of one sign needs no absolute value and no sign.
    fn known_sign(&mut self, base: TermId, exponent: Exponent) -> Option<(Rule, TermId)> {
        let range = self.terms.range(base);
        let negative = range.high() <= 0.0;
        let is_maximum = !exponent.is_natural() && self.is_maximum_with_a_positive(base);
        if !negative && !range.is_not_negative() && !is_maximum {
            // `|sign(a)| = 1` where `a` is not zero.
            if exponent.get() == 0.0 && !exponent.odd && self.may_cancel(base, 0.0, false) {
                return Some((Rule::SignOfNonzero, self.terms.product(&[])));
            }
            return None;
        }
        if exponent.get() == 0.0 {
            if !self.may_cancel(base, 0.0, false) {
                return None;
            }
            let sign = if negative && exponent.odd { -1.0 } else { 1.0 };
            return Some((Rule::SignOfNonzero, self.terms.number(sign)));
        }
        if exponent.is_natural() {
            return None;
        }
        let power = self.terms.power(base, Exponent::natural(exponent.get())?);
        Some((Rule::KnownSign, if negative { self.terms.neg(power) } else { power }))
    }

    /// Whether a term is `a + k * |b|`, which is the maximum of `a + k * b` and `a - k * b`, and one of
    /// those is not negative.
    pub(super) fn is_maximum_with_a_positive(&mut self, id: TermId) -> bool {
        if self.terms.head(id) != Head::Sum {
            return false;
        }
        let operands = self.terms.operands(id).to_vec();
        for (index, &operand) in operands.iter().enumerate() {
            let (coefficient, factor) = self.terms.split_coefficient(operand);
            let (base, exponent) = self.terms.as_power(factor);
            if exponent != Exponent::ABS || coefficient <= 0.0 {
                continue;
            }
            for sign in [coefficient, -coefficient] {
                let mut parts = operands.clone();
                parts[index] = self.terms.scaled(sign, base);
                let sum = self.terms.sum(&parts);
                let normal = self.normal(sum);
                if self.terms.range(normal).is_not_negative() {
                    return true;
                }
            }
        }
        false
    }

    /// Whether a base is not zero, and is defined where no power of it is left.
    fn may_cancel(&mut self, base: TermId, exponent: f64, odd: bool) -> bool {
        let kept = exponent != 0.0 || odd;
        self.is_nonzero(base) && (kept || self.is_defined(base))
    }

    /// Whether `(a^p)^q` and `a^(p*q)` agree where `a` is zero, or `a` is not zero.
    fn may_multiply(&mut self, of: TermId, p: Exponent, q: Exponent) -> bool {
        let (product, odd) = (p.get() * q.get(), p.odd && q.odd);
        agree_at_zero(p, q, product, odd) || self.may_cancel(of, product, odd)
    }
}

/// Whether two powers of zero, combined, give what one power gives: nothing for a negative exponent,
/// else 0, but 1 where no power is left.
pub(crate) fn agree_at_zero(p: Exponent, q: Exponent, combined: f64, odd: bool) -> bool {
    let undefined = p.get() < 0.0 || q.get() < 0.0;
    let nothing_left = combined == 0.0 && !odd;
    undefined == (combined < 0.0) && (undefined || !nothing_left)
}

/// `sign(x)^odd * |x|^p`; `sign(0) = 0`.
pub(crate) fn signed_power(x: f64, exponent: Exponent) -> f64 {
    let p = exponent.get();
    if x == 0.0 {
        return if p < 0.0 { f64::NAN } else { 0.0 };
    }
    let magnitude = if p == 1.0 {
        x.abs()
    } else if p == 0.5 {
        x.abs().sqrt()
    } else if p == -1.0 {
        1.0 / x.abs()
    } else {
        x.abs().powf(p)
    };
    if exponent.odd && x < 0.0 { -magnitude } else { magnitude }
}
