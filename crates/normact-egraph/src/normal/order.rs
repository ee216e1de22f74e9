//! Maxima.

use normact_ir::Prim;

use super::{Normalizer, rounded};
use crate::rules::Rule;
use crate::term::{Exponent, Head, TermId};

/// Operands are compared in pairs up to so many; beyond, by their intervals alone.
const MAX_PAIRS: usize = 8;
/// `max(|a|, b)` becomes a longer maximum up to so many operands.
const MAX_SPLIT: usize = 16;

impl Normalizer {
    pub(super) fn max_rule(&mut self, id: TermId) -> Option<(Rule, TermId)> {
        let operands = self.terms.operands(id).to_vec();
        let constants: Vec<f64> = operands.iter().filter_map(|&operand| self.terms.const_value(operand)).collect();
        if constants.len() > 1 {
            let largest = constants.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let mut all = vec![self.terms.number(largest)];
            all.extend_from_slice(&operands[constants.len()..]);
            return Some((Rule::MaxOfConstants, self.terms.max(&all)));
        }
        let mut distinct = operands.clone();
        distinct.dedup();
        if distinct.len() < operands.len() {
            return Some((Rule::MaxIdempotent, self.terms.max(&distinct)));
        }
        for (index, &operand) in operands.iter().enumerate() {
            if let Some(sum) = self.multiplied_out(operand) {
                let mut all = operands.clone();
                all[index] = sum;
                return Some((Rule::Distribute, self.terms.max(&all)));
            }
        }
        if let Some(index) = self.dominated(&operands) {
            let mut all = operands.clone();
            all.remove(index);
            return Some((Rule::MaxDominated, self.terms.max(&all)));
        }
        if let Some(result) = self.split_abs(&operands) {
            return Some((Rule::MaxOfAbs, result));
        }
        if let [a, b] = operands[..] {
            let difference = self.difference(a, b);
            let magnitude = self.terms.power(difference, Exponent::ABS);
            let sum = self.terms.sum(&[a, b, magnitude]);
            return Some((Rule::MaxAsAbs, self.terms.scaled(0.5, sum)));
        }
        self.shift(&operands).or_else(|| self.scale(&operands))
    }

    fn difference(&mut self, a: TermId, b: TermId) -> TermId {
        let negated = self.terms.neg(b);
        self.terms.sum(&[a, negated])
    }

    /// An operand that another is never less than (or the mean of two others).
    fn dominated(&mut self, operands: &[TermId]) -> Option<usize> {
        if operands.len() > MAX_PAIRS {
            let highest_low =
                operands.iter().map(|&operand| self.terms.range(operand).low()).fold(f64::NEG_INFINITY, f64::max);
            return operands
                .iter()
                .position(|&operand| self.terms.range(operand).high() < highest_low && self.is_defined(operand));
        }
        for (index, &operand) in operands.iter().enumerate() {
            for (other_index, &other) in operands.iter().enumerate() {
                if index == other_index {
                    continue;
                }
                if self.is_at_least(other, operand) && self.is_defined(operand) {
                    return Some(index);
                }
            }
        }
        if operands.len() < 3 {
            return None;
        }
        for (index, &operand) in operands.iter().enumerate() {
            for first in 0..operands.len() {
                for second in first + 1..operands.len() {
                    if first == index || second == index {
                        continue;
                    }
                    let twice = self.terms.scaled(-2.0, operand);
                    let sum = self.terms.sum(&[operands[first], operands[second], twice]);
                    if self.is_not_negative(sum) && self.is_defined(operand) {
                        return Some(index);
                    }
                }
            }
        }
        None
    }

    /// Whether `a >= b` is proved: by the interval of the difference, or since `b <= sqrt(b^2)`, or since
    /// `exp(c) >= c + 1`.
    fn is_at_least(&mut self, a: TermId, b: TermId) -> bool {
        let difference = self.difference(a, b);
        if self.is_not_negative(difference) {
            return true;
        }
        match self.terms.head(a) {
            Head::Power(exponent) if exponent.get() == 0.5 && self.terms.range(a).is_not_negative() => {
                let square = self.terms.power(b, Exponent::natural(2.0).expect("finite"));
                let under = self.terms.operand(a);
                let difference = self.difference(under, square);
                self.is_not_negative(difference)
            }
            Head::Unary(Prim::Exp) => {
                let negated = self.terms.neg(b);
                let one = self.terms.number(1.0);
                let sum = self.terms.sum(&[self.terms.operand(a), negated, one]);
                self.is_not_negative(sum)
            }
            _ => false,
        }
    }

    fn is_not_negative(&mut self, id: TermId) -> bool {
        let normal = self.normal(id);
        if self.terms.range(normal).is_not_negative() {
            return true;
        }
        // Only what is multiplied out shows that terms cancel.
        match self.distributed(normal) {
            Some(sum) => {
                let sum = self.normal(sum);
                self.terms.range(sum).is_not_negative()
            }
            None => false,
        }
    }

    /// `max(a + k * |b|, c) = max(a + k * b, a - k * b, c)`
    fn split_abs(&mut self, operands: &[TermId]) -> Option<TermId> {
        if operands.len() >= MAX_SPLIT {
            return None;
        }
        for (index, &operand) in operands.iter().enumerate() {
            let summands = match self.terms.head(operand) {
                Head::Sum => self.terms.operands(operand).to_vec(),
                // A constant times a sum.
                Head::Product => match *self.terms.operands(operand) {
                    [constant, sum]
                        if self.terms.const_value(constant).is_some() && self.terms.head(sum) == Head::Sum =>
                    {
                        let parts = self.terms.operands(sum).to_vec();
                        parts.iter().map(|&part| self.terms.product(&[constant, part])).collect()
                    }
                    _ => vec![operand],
                },
                _ => vec![operand],
            };
            for (position, &summand) in summands.iter().enumerate() {
                let summand = self.normal(summand);
                let (coefficient, factor) = self.terms.split_coefficient(summand);
                let (base, exponent) = self.terms.as_power(factor);
                if exponent != Exponent::ABS || coefficient <= 0.0 {
                    continue;
                }
                let mut all = operands.to_vec();
                all.remove(index);
                for sign in [coefficient, -coefficient] {
                    let mut parts = summands.clone();
                    parts[position] = self.terms.scaled(sign, base);
                    all.push(self.terms.sum(&parts));
                }
                return Some(self.terms.max(&all));
            }
        }
        None
    }

    /// The summands of an operand with their coefficients.
    fn summands(&mut self, operand: TermId) -> Vec<(f64, TermId)> {
        let (scale, inner) = self.terms.split_coefficient(operand);
        match self.terms.head(inner) {
            Head::Sum => {
                let parts = self.terms.operands(inner).to_vec();
                parts
                    .into_iter()
                    .map(|part| {
                        let (coefficient, rest) = self.terms.split_coefficient(part);
                        (rounded(scale * coefficient).unwrap_or(scale * coefficient), rest)
                    })
                    .collect()
            }
            _ => vec![(scale, inner)],
        }
    }

    /// `max(a + c, b + c, ...) = max(a, b, ...) + c`, so that the least coefficient of every term is 0.
    fn shift(&mut self, operands: &[TermId]) -> Option<(Rule, TermId)> {
        let lists: Vec<Vec<(f64, TermId)>> = operands.iter().map(|&operand| self.summands(operand)).collect();
        let mut shared: Vec<(f64, TermId)> = Vec::new();
        for &(_, rest) in lists.iter().flatten() {
            if shared.iter().any(|(_, other)| *other == rest) {
                continue;
            }
            let coefficient = |list: &Vec<(f64, TermId)>| {
                list.iter().find(|(_, other)| *other == rest).map_or(0.0, |(coefficient, _)| *coefficient)
            };
            let least = lists.iter().map(coefficient).fold(f64::INFINITY, f64::min);
            shared.push((least, rest));
        }
        shared.retain(|(least, _)| *least != 0.0);
        if shared.is_empty() {
            return None;
        }
        let mut negative: Vec<TermId> = Vec::new();
        let mut positive: Vec<TermId> = Vec::new();
        for (least, rest) in shared {
            positive.push(self.terms.scaled(least, rest));
            negative.push(self.terms.scaled(-least, rest));
        }
        let mut shifted = Vec::with_capacity(operands.len());
        for &operand in operands {
            let mut parts = vec![operand];
            parts.extend_from_slice(&negative);
            shifted.push(self.terms.sum(&parts));
        }
        positive.push(self.terms.max(&shifted));
        Some((Rule::MaxShift, self.terms.sum(&positive)))
    }

    /// `max(c * a, c * b, ...) = c * max(a, b, ...)` for a shared factor that is not negative.
    fn scale(&mut self, operands: &[TermId]) -> Option<(Rule, TermId)> {
        let mut largest = 0.0_f64;
        for &operand in operands {
            for (coefficient, _) in self.summands(operand) {
                largest = largest.max(coefficient.abs());
            }
        }
        let mut divided: Option<(TermId, Vec<TermId>)> = None;
        if largest != 1.0 && largest.is_normal() {
            let inverse = rounded(1.0 / largest)?;
            let parts = operands.iter().map(|&operand| self.terms.scaled(inverse, operand)).collect();
            divided = Some((self.terms.number(largest), parts));
        } else if operands.iter().all(|&operand| self.terms.const_value(operand).is_none()) {
            let factors = self.factors_of(operands[0]);
            let common = factors.into_iter().find(|&factor| {
                self.terms.const_value(factor).is_none()
                    && self.terms.range(factor).is_not_negative()
                    && operands.iter().all(|&operand| self.factors_of(operand).contains(&factor))
            });
            if let Some(common) = common {
                let parts = operands
                    .iter()
                    .map(|&operand| {
                        let mut rest = self.factors_of(operand);
                        let position = rest.iter().position(|&factor| factor == common);
                        rest.swap_remove(position.expect("every operand has the factor"));
                        self.terms.product(&rest)
                    })
                    .collect();
                divided = Some((common, parts));
            }
        }
        let (factor, parts) = divided?;
        let max = self.terms.max(&parts);
        Some((Rule::MaxScale, self.terms.product(&[factor, max])))
    }
}
