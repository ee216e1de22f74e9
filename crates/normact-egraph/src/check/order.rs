//! Instances of the rules about maxima.

use normact_ir::Prim;

use super::Checker;
use crate::rules::{Class, Rule};
use crate::term::{Exponent, Head, TermId};

impl Checker {
    pub(super) fn max_instance(&mut self, rule: Rule, left: TermId, right: TermId) -> Option<Class> {
        let operands = self.operands_as(left, Head::Max);
        let (a, b) = self.difference(left, right, Head::Max);
        let holds = match rule {
            Rule::MaxOfConstants => {
                let values =
                    |ids: &[TermId]| ids.iter().map(|&id| self.terms.const_value(id)).collect::<Option<Vec<f64>>>();
                let all = self.operands_as(right, Head::Max);
                let largest = values(&a)?.into_iter().fold(f64::NEG_INFINITY, f64::max);
                b.is_empty() && all.iter().any(|&id| self.terms.const_value(id).is_some_and(|value| value >= largest))
            }
            Rule::MaxIdempotent => {
                let left_over = self.operands_as(right, Head::Max);
                b.is_empty() && a.iter().all(|operand| left_over.contains(operand))
            }
            Rule::MaxDominated => {
                let &[dropped] = a.as_slice() else { return None };
                let kept = self.operands_as(right, Head::Max);
                let dominated = b.is_empty()
                    && (kept.iter().any(|&other| self.is_at_least(other, dropped))
                        || self.is_below_a_mean(dropped, &kept));
                return if dominated { self.guarded(self.is_total(dropped)) } else { None };
            }
            Rule::MaxOfAbs => {
                let (&[split], &[first, second]) = (a.as_slice(), b.as_slice()) else { return None };
                let (scale, inner) = self.terms.split_coefficient(split);
                let summands = self.operands_as(inner, Head::Sum);
                (0..summands.len()).any(|index| {
                    let (constant, factor) = self.terms.split_coefficient(summands[index]);
                    let (base, exponent) = self.terms.as_power(factor);
                    if exponent != Exponent::ABS || scale * constant <= 0.0 {
                        return false;
                    }
                    let sides: Vec<TermId> = [1.0, -1.0]
                        .into_iter()
                        .map(|sign| {
                            let mut parts = summands.clone();
                            parts[index] = self.times(sign * constant, base);
                            let sum = self.terms.sum(&parts);
                            self.times(scale, sum)
                        })
                        .collect();
                    self.alike_in_some_order(&sides, &[first, second])
                })
            }
            Rule::MaxAsAbs => {
                let &[a, b] = operands.as_slice() else { return None };
                [(a, b), (b, a)].into_iter().any(|(a, b)| {
                    let negated = self.terms.neg(b);
                    let difference = self.terms.sum(&[a, negated]);
                    let magnitude = self.terms.power(difference, Exponent::ABS);
                    let sum = self.terms.sum(&[a, b, magnitude]);
                    self.times(0.5, sum) == right
                })
            }
            Rule::MaxShift => {
                let mut parts = self.operands_as(right, Head::Sum);
                let position = parts.iter().position(|&part| self.terms.head(part) == Head::Max)?;
                let max = parts.swap_remove(position);
                let shift = self.terms.sum(&parts);
                let inside = self.terms.operands(max).to_vec();
                let shifted: Vec<TermId> = inside.into_iter().map(|part| self.terms.sum(&[part, shift])).collect();
                self.alike_in_some_order(&operands, &shifted) && self.divides_no_more(right, left)
            }
            Rule::MaxScale => {
                let mut factors = self.factors(right);
                let position = factors.iter().position(|&factor| self.terms.head(factor) == Head::Max)?;
                let max = factors.swap_remove(position);
                let scale = self.terms.product(&factors);
                let inside = self.terms.operands(max).to_vec();
                let scaled: Vec<TermId> = inside.into_iter().map(|part| self.terms.product(&[part, scale])).collect();
                let fits = self.alike_in_some_order(&operands, &scaled);
                return (fits && self.terms.range(scale).is_not_negative()).then_some(Class::Guarded);
            }
            _ => false,
        };
        holds.then_some(Class::Exact)
    }

    /// `a >= b`: by the interval of the difference, by `b <= sqrt(b^2)`, or by `exp(c) >= c + 1`.
    fn is_at_least(&mut self, a: TermId, b: TermId) -> bool {
        let minus_b = self.terms.neg(b);
        let difference = self.terms.sum(&[a, minus_b]);
        if self.is_not_negative(difference) {
            return true;
        }
        let (base, exponent) = self.terms.as_power(a);
        if exponent.get() == 0.5 && self.terms.range(a).is_not_negative() {
            // The square of a square root is what is under it.
            let square = match self.terms.as_power(b) {
                (under, root) if root.get() == 0.5 => under,
                _ => {
                    let powers = self
                        .factors(b)
                        .into_iter()
                        .map(|factor| {
                            let (base, exponent) = self.terms.as_power(factor);
                            match (self.terms.const_value(base), Exponent::new(2.0 * exponent.get(), false)) {
                                (Some(value), _) => Some(self.terms.number(value * value)),
                                (None, doubled) => doubled.map(|doubled| self.terms.power(base, doubled)),
                            }
                        })
                        .collect::<Option<Vec<TermId>>>()
                        .unwrap_or_default();
                    if powers.is_empty() {
                        return false;
                    }
                    self.terms.product(&powers)
                }
            };
            let negated = self.terms.neg(square);
            let difference = self.terms.sum(&[base, negated]);
            return self.range(difference).is_not_negative();
        }
        if let Some(argument) = self.unary_operand(a, Prim::Exp) {
            let one = self.terms.number(1.0);
            let sum = self.terms.sum(&[argument, minus_b, one]);
            return self.is_not_negative(sum);
        }
        false
    }

    fn is_below_a_mean(&mut self, dropped: TermId, kept: &[TermId]) -> bool {
        let twice = self.times(-2.0, dropped);
        kept.iter().enumerate().any(|(index, &first)| {
            kept[index + 1..].iter().any(|&second| {
                let sum = self.terms.sum(&[first, second, twice]);
                self.is_not_negative(sum)
            })
        })
    }
}
