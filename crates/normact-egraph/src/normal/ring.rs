//! Sums and products.

use normact_ir::Prim;

use super::{Normalizer, rounded, sum_of};
use crate::rules::Rule;
use crate::term::{Exponent, Head, TermId};

/// Vectors that are used again and again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    terms: Vec<(f64, TermId)>,
}

impl Normalizer {
    pub(super) fn sum_rule(&mut self, id: TermId) -> Option<(Rule, TermId)> {
        let operands = self.terms.operands(id).to_vec();
        if let Some(result) = self.fold_constants(&operands, Head::Sum) {
            return Some((Rule::AddConstants, result));
        }
        if self.terms.is_const(operands[0], 0.0) {
            return Some((Rule::AddZero, self.terms.sum(&operands[1..])));
        }
        for (index, &operand) in operands.iter().enumerate() {
            if let Some((rule, parts)) = self.split_operand(operand) {
                let mut all = operands.clone();
                all.swap_remove(index);
                all.extend(parts);
                return Some((rule, self.terms.sum(&all)));
            }
        }
        let mut terms = std::mem::take(&mut self.factors.terms);
        terms.clear();
        terms.extend(operands.iter().map(|&operand| self.terms.split_coefficient(operand)));
        let result = self.collect(&operands, &terms).or_else(|| self.sigmoids_and_tanhs(&operands, &terms));
        self.factors.terms = terms;
        result.or_else(|| self.logistic(&operands)).or_else(|| self.factor_out(&operands))
    }

    /// An operand of a sum as several, where it is a product with a sum or what a sum can be.
    fn split_operand(&mut self, operand: TermId) -> Option<(Rule, Vec<TermId>)> {
        if !matches!(self.terms.head(operand), Head::Product | Head::Power(_) | Head::Unary(Prim::Sigmoid)) {
            return None;
        }
        let factors = self.factors_of(operand);
        for (index, &factor) in factors.iter().enumerate() {
            let (base, exponent) = self.terms.as_power(factor);
            let Some(count) = exponent.as_count() else { continue };
            let mut others = factors.clone();
            others.swap_remove(index);
            match self.terms.head(base) {
                Head::Sum => {
                    if count > 1 {
                        others.push(self.lowered(base, count));
                    }
                    if self.expanded_terms(&factors) > self.budget.expansion {
                        self.exhausted = true;
                        return None;
                    }
                    let summands = self.terms.operands(base).to_vec();
                    let rest = self.terms.product(&others);
                    let parts = summands.iter().map(|&summand| self.terms.product(&[summand, rest])).collect();
                    return Some((Rule::Distribute, parts));
                }
                Head::Unary(Prim::Sigmoid) if self.is_negated(self.terms.operand(base)) => {
                    if count > 1 {
                        others.push(self.lowered(base, count));
                    }
                    let rest = self.terms.product(&others);
                    let reflected = self.terms.neg(self.terms.operand(base));
                    let reflected = self.normal(reflected);
                    let sigmoid = self.terms.unary(Prim::Sigmoid, reflected);
                    let minus = self.terms.number(-1.0);
                    let second = self.terms.product(&[minus, rest, sigmoid]);
                    return Some((Rule::SigmoidSplit, vec![rest, second]));
                }
                _ => {}
            }
        }
        None
    }

    fn lowered(&mut self, base: TermId, count: u32) -> TermId {
        let exponent = Exponent::natural(f64::from(count - 1)).expect("counts are finite");
        self.terms.power(base, exponent)
    }

    /// How many terms a product of sums has when multiplied out.
    fn expanded_terms(&self, factors: &[TermId]) -> usize {
        factors.iter().fold(1, |terms: usize, &factor| {
            let (base, exponent) = self.terms.as_power(factor);
            match (self.terms.head(base), exponent.as_count()) {
                (Head::Sum, Some(count)) => terms.saturating_mul(self.terms.operands(base).len().saturating_pow(count)),
                _ => terms,
            }
        })
    }

    /// The factors of a product; a single factor for anything else.
    pub(super) fn factors_of(&self, id: TermId) -> Vec<TermId> {
        match self.terms.head(id) {
            Head::Product => self.terms.operands(id).to_vec(),
            _ => vec![id],
        }
    }

    /// A product of two or more sums (or a power of one) as one sum; `None` for anything else.
    pub(crate) fn multiplied_out(&mut self, id: TermId) -> Option<TermId> {
        let factors = self.factors_of(id);
        let mut sums = 0;
        for &factor in &factors {
            let (base, exponent) = self.terms.as_power(factor);
            if let (Head::Sum, Some(count)) = (self.terms.head(base), exponent.as_count()) {
                sums += count;
            }
        }
        if sums < 2 {
            return None;
        }
        self.distributed(id)
    }

    /// A product with a sum as a sum; `None` for anything else.
    pub(crate) fn distributed(&mut self, id: TermId) -> Option<TermId> {
        match self.split_operand(id) {
            Some((Rule::Distribute, parts)) => Some(self.terms.sum(&parts)),
            _ => None,
        }
    }

    /// Whether a term is written with a leading minus.
    pub(super) fn is_negated(&self, id: TermId) -> bool {
        match self.terms.head(id) {
            Head::Const(value) => value.get() < 0.0,
            Head::Product => self.terms.const_value(self.terms.operands(id)[0]).is_some_and(|value| value < 0.0),
            _ => false,
        }
    }

    fn fold_constants(&mut self, operands: &[TermId], head: Head) -> Option<TermId> {
        // Constants come first.
        let count = operands.iter().take_while(|&&operand| self.terms.const_value(operand).is_some()).count();
        if count < 2 {
            return None;
        }
        let values = operands[..count].iter().filter_map(|&operand| self.terms.const_value(operand));
        let folded = match head {
            Head::Sum => sum_of(values)?,
            _ => rounded(values.product())?,
        };
        // A product of constants that underflows is left as it is.
        if head == Head::Product && folded == 0.0 && !operands[..count].iter().any(|&id| self.terms.is_const(id, 0.0)) {
            return None;
        }
        let mut all = vec![self.terms.number(folded)];
        all.extend_from_slice(&operands[count..]);
        Some(self.terms.make(head, &all))
    }

    /// `k * a + l * a = (k + l) * a`, for the first `a` that occurs twice.
    fn collect(&mut self, operands: &[TermId], terms: &[(f64, TermId)]) -> Option<(Rule, TermId)> {
        let twice = |index: usize| terms[index + 1..].iter().any(|(_, rest)| *rest == terms[index].1);
        let first = (0..terms.len()).find(|&index| twice(index))?;
        let rest = terms[first].1;
        let coefficient =
            sum_of(terms.iter().filter(|(_, other)| *other == rest).map(|(coefficient, _)| *coefficient))?;
        let coefficient = self.terms.number(coefficient);
        let mut all = vec![self.terms.product(&[coefficient, rest])];
        all.extend(operands.iter().zip(terms).filter(|(_, (_, other))| *other != rest).map(|(&operand, _)| operand));
        Some((Rule::CollectTerms, self.terms.sum(&all)))
    }

    /// `c * a + c * b = c * (a + b)`, for the greatest common `c`, which is chosen so that the first
    /// term inside has no constant factor.
    fn factor_out(&mut self, operands: &[TermId]) -> Option<(Rule, TermId)> {
        let mut common: Vec<(TermId, Exponent)> = Vec::new();
        for (index, &operand) in operands.iter().enumerate() {
            let factors: Vec<(TermId, Exponent)> = self
                .factors_of(operand)
                .into_iter()
                .filter(|&factor| self.terms.const_value(factor).is_none())
                .map(|factor| self.terms.as_power(factor))
                .collect();
            if index == 0 {
                common = factors;
                continue;
            }
            common.retain_mut(|(base, exponent)| {
                let Some((_, other)) = factors.iter().find(|(other, _)| other == base) else { return false };
                match other.get().total_cmp(&exponent.get()) {
                    std::cmp::Ordering::Less => *exponent = *other,
                    // With different parities neither is a factor of the other.
                    std::cmp::Ordering::Equal => return other.odd == exponent.odd,
                    std::cmp::Ordering::Greater => {}
                }
                true
            });
            if common.is_empty() {
                break;
            }
        }
        // A lower exponent may have come after two of different parity; and a base that may be zero can
        // be in a product twice, above and below, where no power of it can be taken out.
        common.retain(|&(base, exponent)| {
            operands.iter().all(|&operand| {
                let mut powers = self.factors_of(operand).into_iter().map(|factor| self.terms.as_power(factor));
                let power = powers.find(|(other, _)| *other == base);
                power.is_some_and(|(_, e)| e.get() > exponent.get() || e == exponent)
                    && !powers.any(|(other, _)| other == base)
            })
        });
        let inside: Vec<(f64, TermId)> =
            operands.iter().map(|&operand| self.divided_by(operand, &common)).collect::<Option<_>>()?;
        // The scale: the coefficient, sign aside, that most terms have, the least of those; with the sign
        // of the majority of the terms, of the first in order where there is none. It makes one of a
        // sum and all its multiples.
        let one = self.terms.product(&[]);
        let terms: Vec<(f64, TermId)> = inside.iter().copied().filter(|(_, rest)| *rest != one).collect();
        let alike = |a: f64, b: f64| (a.abs() - b.abs()).abs() <= 1e-12 * a.abs();
        let votes = |scale: f64| terms.iter().filter(|(coefficient, _)| alike(scale, *coefficient)).count();
        let &(scale, _) =
            terms.iter().max_by(|(a, _), (b, _)| votes(*a).cmp(&votes(*b)).then(b.abs().total_cmp(&a.abs())))?;
        let positive = terms.iter().filter(|(coefficient, _)| *coefficient > 0.0).count();
        let &(first, _) = terms.iter().min_by_key(|(_, rest)| self.terms.hash(*rest))?;
        let sign = match (2 * positive).cmp(&terms.len()) {
            std::cmp::Ordering::Less => -1.0,
            std::cmp::Ordering::Greater => 1.0,
            std::cmp::Ordering::Equal => first.signum(),
        };
        let leading = sign * scale.abs();
        if !leading.is_normal() {
            return None;
        }
        if common.is_empty() && leading == 1.0 {
            return None;
        }
        let mut summands = Vec::with_capacity(inside.len());
        for (coefficient, rest) in inside {
            let coefficient = self.terms.number(rounded(coefficient / leading)?);
            summands.push(self.terms.product(&[coefficient, rest]));
        }
        // Operands of a product are compared as they are: a coefficient of 1 has to go.
        let summands: Vec<TermId> = summands.into_iter().map(|summand| self.without_one(summand)).collect();
        let mut factors = Vec::with_capacity(common.len() + 2);
        if leading != 1.0 {
            factors.push(self.terms.number(leading));
        }
        factors.extend(common.into_iter().map(|(base, exponent)| self.terms.power(base, exponent)));
        factors.push(self.terms.sum(&summands));
        Some((Rule::FactorOut, self.terms.product(&factors)))
    }

    fn without_one(&mut self, id: TermId) -> TermId {
        match self.terms.head(id) {
            Head::Product if self.terms.is_const(self.terms.operands(id)[0], 1.0) => {
                let rest = self.terms.operands(id)[1..].to_vec();
                self.terms.product(&rest)
            }
            _ => id,
        }
    }

    /// A term as coefficient and rest, without the factors of `common`.
    fn divided_by(&mut self, operand: TermId, common: &[(TermId, Exponent)]) -> Option<(f64, TermId)> {
        let (coefficient, rest) = self.terms.split_coefficient(operand);
        if common.is_empty() {
            return Some((coefficient, rest));
        }
        let mut factors = Vec::new();
        for factor in self.factors_of(rest) {
            let (base, exponent) = self.terms.as_power(factor);
            match common.iter().find(|(other, _)| *other == base) {
                Some((_, divisor)) if *divisor == exponent => {}
                Some((_, divisor)) => {
                    let left = Exponent::new(exponent.get() - divisor.get(), exponent.odd != divisor.odd)?;
                    factors.push(self.terms.power(base, left));
                }
                None => factors.push(factor),
            }
        }
        Some((coefficient, self.terms.product(&factors)))
    }

    pub(super) fn product_rule(&mut self, id: TermId) -> Option<(Rule, TermId)> {
        let operands = self.terms.operands(id).to_vec();
        if let Some(result) = self.fold_constants(&operands, Head::Product) {
            return Some((Rule::MulConstants, result));
        }
        match self.terms.const_value(operands[0]) {
            Some(1.0) => return Some((Rule::MulOne, self.terms.product(&operands[1..]))),
            Some(0.0) if operands[1..].iter().all(|&operand| self.is_defined(operand)) => {
                return Some((Rule::MulZero, self.terms.number(0.0)));
            }
            _ => {}
        }
        self.product_of_powers(&operands).or_else(|| self.exponentials(&operands))
    }
}
