//! Exponentials, logarithms, sigmoids and odd functions.

use normact_ir::Prim;

use super::{Normalizer, rounded, sum_of};
use crate::rules::Rule;
use crate::term::{Exponent, Head, TermId};

impl Normalizer {
    pub(super) fn function_rule(&mut self, id: TermId, prim: Prim) -> Option<(Rule, TermId)> {
        let argument = self.terms.operand(id);
        if let Some(value) = self.terms.const_value(argument) {
            if prim == Prim::Log && value == 0.0 {
                return Some((Rule::FunctionOfConstant, self.terms.undefined()));
            }
            let result = rounded(prim.value(value, 0.0))?;
            // `exp(-1000)` is not 0 and `tanh(50)` is not 1.
            let saturates = match prim {
                Prim::Exp => !result.is_normal(),
                Prim::Sigmoid | Prim::Tanh | Prim::Erf => value != 0.0 && (!result.is_normal() || result.abs() == 1.0),
                _ => false,
            };
            return if saturates { None } else { Some((Rule::FunctionOfConstant, self.terms.number(result))) };
        }
        if prim == Prim::Log {
            return self.log_rule(argument);
        }
        if let Some(sum) = self.multiplied_out(argument) {
            return Some((Rule::Distribute, self.terms.unary(prim, sum)));
        }
        match prim {
            Prim::Exp => self.exp_rule(argument),
            Prim::Tanh | Prim::Erf => self.odd_function_rule(prim, argument),
            _ => None,
        }
    }

    fn exp_rule(&mut self, argument: TermId) -> Option<(Rule, TermId)> {
        // An argument is a sum, or a constant times a sum.
        let (scale, inner) = self.terms.split_coefficient(argument);
        let summands = match self.terms.head(inner) {
            Head::Sum => self.terms.operands(inner).to_vec(),
            _ => vec![inner],
        };
        let scaled_rest = |normalizer: &mut Self, without: usize| {
            let mut rest = summands.clone();
            rest.remove(without);
            let rest = normalizer.terms.sum(&rest);
            let rest = normalizer.terms.scaled(scale, rest);
            normalizer.terms.unary(Prim::Exp, rest)
        };
        for (index, &summand) in summands.iter().enumerate() {
            if let Some(value) = self.terms.const_value(summand) {
                let factor = rounded((scale * value).exp()).filter(|&factor| factor != 0.0)?;
                let factor = self.terms.number(factor);
                let rest = scaled_rest(self, index);
                return Some((Rule::ExpOfSum, self.terms.product(&[factor, rest])));
            }
            let (coefficient, factor) = self.terms.split_coefficient(summand);
            if self.terms.head(factor) != Head::Unary(Prim::Log) {
                continue;
            }
            let argument = self.terms.operand(factor);
            let Some(of) = self.of_magnitude(argument).filter(|&of| self.is_nonzero(of)) else { continue };
            let power = Exponent::new(rounded(scale * coefficient)?, false)?;
            let power = self.terms.power(of, power);
            let rest = scaled_rest(self, index);
            return Some((Rule::ExpOfLog, self.terms.product(&[power, rest])));
        }
        None
    }

    /// `exp(a) * exp(b)`, and `exp(-p * a) * sigmoid(a)^p`.
    pub(super) fn exponentials(&mut self, operands: &[TermId]) -> Option<(Rule, TermId)> {
        let is_exp = |normalizer: &Self, id: TermId| normalizer.terms.head(id) == Head::Unary(Prim::Exp);
        let first = operands.iter().position(|&operand| is_exp(self, operand))?;
        if let Some(second) = operands.iter().skip(first + 1).position(|&operand| is_exp(self, operand)) {
            let second = first + 1 + second;
            let (a, b) = (self.terms.operand(operands[first]), self.terms.operand(operands[second]));
            let sum = self.terms.sum(&[a, b]);
            let mut all = operands.to_vec();
            all.swap_remove(second);
            all.swap_remove(first);
            all.push(self.terms.unary(Prim::Exp, sum));
            return Some((Rule::ProductOfExps, self.terms.product(&all)));
        }
        let exponent_of_e = self.terms.operand(operands[first]);
        for (index, &operand) in operands.iter().enumerate() {
            let (base, exponent) = self.terms.as_power(operand);
            if self.terms.head(base) != Head::Unary(Prim::Sigmoid) {
                continue;
            }
            let argument = self.terms.operand(base);
            let cancelling = self.terms.scaled(-exponent.get(), argument);
            if self.normal(cancelling) != exponent_of_e {
                continue;
            }
            let reflected = self.terms.neg(argument);
            let sigmoid = self.terms.unary(Prim::Sigmoid, reflected);
            let mut all: Vec<TermId> = operands.to_vec();
            all.swap_remove(index.max(first));
            all.swap_remove(index.min(first));
            all.push(self.terms.power(sigmoid, exponent));
            return Some((Rule::ExpTimesSigmoid, self.terms.product(&all)));
        }
        None
    }

    /// `log(k * a^p * exp(b)) = sign(k * a^p) * (log(|k|) + p * log(|a|) + b)`
    fn log_rule(&mut self, argument: TermId) -> Option<(Rule, TermId)> {
        if self.of_magnitude(argument).is_some() {
            return None;
        }
        let factors = self.factors_of(argument);
        let mut summands = Vec::with_capacity(factors.len());
        for factor in factors {
            if let Some(value) = self.terms.const_value(factor) {
                let magnitude = self.terms.number(value.abs());
                summands.push(self.terms.unary(Prim::Log, magnitude));
                continue;
            }
            if self.terms.head(factor) == Head::Unary(Prim::Exp) {
                summands.push(self.terms.operand(factor));
                continue;
            }
            let (base, exponent) = self.terms.as_power(factor);
            // `log(|sign(a)|)` is 0 where `a` is not zero, and undefined there like the left side.
            let magnitude = self.terms.power(base, Exponent::ABS);
            let log = self.terms.unary(Prim::Log, magnitude);
            summands.push(self.terms.scaled(exponent.get(), log));
        }
        let sign = self.terms.power(argument, Exponent::SIGN);
        let logs = self.terms.sum(&summands);
        Some((Rule::LogOfProduct, self.terms.product(&[sign, logs])))
    }

    /// The `a` of a term that is the normal form of `|a|`, for an `a` that is no product.
    fn of_magnitude(&mut self, id: TermId) -> Option<TermId> {
        let factors = self.factors_of(id);
        let of = match factors.as_slice() {
            [factor] => {
                let (base, exponent) = self.terms.as_power(*factor);
                let plain = exponent == Exponent::ONE
                    && self.terms.head(base) != Head::Unary(Prim::Exp)
                    && self.is_magnitude_itself(base);
                (plain || exponent == Exponent::ABS).then_some(base)
            }
            // `|f(a)|` of an odd function is written `sign(a) * f(a)`.
            _ => factors
                .iter()
                .copied()
                .find(|&factor| matches!(self.terms.head(factor), Head::Unary(Prim::Tanh | Prim::Erf))),
        }?;
        if factors.len() > 1 {
            let magnitude = self.terms.power(of, Exponent::ABS);
            if self.normal(magnitude) != id {
                return None;
            }
        }
        Some(of)
    }

    /// Whether `|a|` is rewritten to `a`.
    fn is_magnitude_itself(&mut self, id: TermId) -> bool {
        if self.terms.range(id).is_not_negative() {
            return true;
        }
        match self.terms.head(id) {
            Head::Unary(Prim::Tanh | Prim::Erf) => self.is_magnitude_itself(self.terms.operand(id)),
            Head::Product => {
                let factors = self.factors_of(id);
                factors.into_iter().all(|factor| self.is_magnitude_itself(factor))
            }
            _ => self.is_maximum_with_a_positive(id),
        }
    }

    fn odd_function_rule(&mut self, prim: Prim, argument: TermId) -> Option<(Rule, TermId)> {
        if self.is_negated(argument) {
            let reflected = self.terms.neg(argument);
            let function = self.terms.unary(prim, reflected);
            return Some((Rule::OddFunction, self.terms.neg(function)));
        }
        let factors = self.factors_of(argument);
        for (index, &factor) in factors.iter().enumerate() {
            let (base, exponent) = self.terms.as_power(factor);
            let signed = exponent.get() == 0.0 && exponent.odd;
            if exponent.is_natural() && !signed || self.terms.const_value(factor).is_some() {
                continue;
            }
            if exponent.get() == 0.0 && !exponent.odd {
                continue;
            }
            let sign = self.terms.power(base, Exponent::SIGN);
            let mut all = factors.clone();
            all.swap_remove(index);
            if signed {
                if all.is_empty() {
                    continue;
                }
            } else {
                all.push(self.terms.power(base, Exponent::natural(exponent.get())?));
            }
            let inner = self.terms.product(&all);
            let function = self.terms.unary(prim, inner);
            return Some((Rule::OddFunctionOfSign, self.terms.product(&[sign, function])));
        }
        None
    }

    /// In a sum: `1 - sigmoid(a)`, and one of `sigmoid` and `tanh` where both could be.
    pub(super) fn sigmoids_and_tanhs(
        &mut self,
        operands: &[TermId],
        terms: &[(f64, TermId)],
    ) -> Option<(Rule, TermId)> {
        if let Some(result) = self.reflected(terms) {
            return Some((Rule::SigmoidReflection, result));
        }
        for (index, &(coefficient, rest)) in terms.iter().enumerate() {
            let factors = self.factors_of(rest);
            for (position, &factor) in factors.iter().enumerate() {
                let prim = match self.terms.head(factor) {
                    Head::Unary(prim @ (Prim::Sigmoid | Prim::Tanh)) => prim,
                    _ => continue,
                };
                let mut others = factors.clone();
                others.swap_remove(position);
                let others = self.terms.product(&others);
                let beside = terms.iter().find(|(_, rest)| *rest == others).map(|(k, _)| *k);
                let mut all = operands.to_vec();
                all.swap_remove(index);
                let argument = self.terms.operand(factor);
                if prim == Prim::Sigmoid {
                    // 2 * c * sigmoid(a) - c = c * tanh(a / 2)
                    if beside.and_then(|k| sum_of([k, coefficient / 2.0])) != Some(0.0) {
                        continue;
                    }
                    let half = self.terms.scaled(0.5, argument);
                    let tanh = self.terms.unary(Prim::Tanh, half);
                    let coefficient = self.terms.number(coefficient / 2.0);
                    all.retain(|&operand| self.terms.split_coefficient(operand).1 != others);
                    all.push(self.terms.product(&[coefficient, others, tanh]));
                    return Some((Rule::TanhOfSigmoid, self.terms.sum(&all)));
                }
                let double = self.terms.scaled(2.0, argument);
                let double = self.normal(double);
                let sigmoid = self.terms.unary(Prim::Sigmoid, double);
                let with_sigmoid = self.terms.product(&[others, sigmoid]);
                if beside.is_none() && !terms.iter().any(|(_, rest)| *rest == with_sigmoid) {
                    continue;
                }
                let (first, second) =
                    (self.terms.scaled(2.0 * coefficient, with_sigmoid), self.terms.scaled(-coefficient, others));
                all.extend([first, second]);
                return Some((Rule::TanhSplit, self.terms.sum(&all)));
            }
        }
        None
    }

    /// `c - c * sigmoid(a) = c * sigmoid(-a)`, where the whole sum is of that form.
    fn reflected(&mut self, terms: &[(f64, TermId)]) -> Option<TermId> {
        if !terms.len().is_multiple_of(2) {
            return None;
        }
        let is_sigmoid = |normalizer: &Self, id: TermId| normalizer.terms.head(id) == Head::Unary(Prim::Sigmoid);
        let candidates: Vec<TermId> = terms
            .iter()
            .find_map(|(_, rest)| {
                let sigmoids: Vec<TermId> =
                    self.factors_of(*rest).into_iter().filter(|&factor| is_sigmoid(self, factor)).collect();
                (!sigmoids.is_empty()).then_some(sigmoids)
            })
            .unwrap_or_default();
        for sigmoid in candidates {
            let mut without: Vec<(f64, TermId)> = Vec::new();
            let mut with: Vec<(f64, TermId)> = Vec::new();
            for &(coefficient, rest) in terms {
                let mut factors = self.factors_of(rest);
                match factors.iter().position(|&factor| factor == sigmoid) {
                    Some(position) => {
                        factors.swap_remove(position);
                        with.push((coefficient, self.terms.product(&factors)));
                    }
                    None => without.push((coefficient, rest)),
                }
            }
            let matches = with.len() == without.len()
                && without
                    .iter()
                    .all(|(k, rest)| with.iter().any(|(l, other)| other == rest && sum_of([*k, *l]) == Some(0.0)));
            if !matches {
                continue;
            }
            let mut parts = Vec::with_capacity(without.len());
            for (coefficient, rest) in without {
                parts.push(self.terms.scaled(coefficient, rest));
            }
            let sum = self.terms.sum(&parts);
            let argument = self.terms.operand(sigmoid);
            let reflected = self.terms.neg(argument);
            let reflected = self.terms.unary(Prim::Sigmoid, reflected);
            return Some(self.terms.product(&[sum, reflected]));
        }
        None
    }

    /// `k + exp(a) = k * sigmoid(log(k) - a)^-1`
    pub(super) fn logistic(&mut self, operands: &[TermId]) -> Option<(Rule, TermId)> {
        let &[constant, exp] = operands else { return None };
        let k = self.terms.const_value(constant).filter(|&k| k > 0.0)?;
        if self.terms.head(exp) != Head::Unary(Prim::Exp) {
            return None;
        }
        let argument = self.terms.operand(exp);
        let log = self.terms.number(rounded(k.ln())?);
        let negated = self.terms.neg(argument);
        let inner = self.terms.sum(&[log, negated]);
        let sigmoid = self.terms.unary(Prim::Sigmoid, inner);
        let inverse = Exponent::new(-1.0, true)?;
        let inverse = self.terms.power(sigmoid, inverse);
        Some((Rule::LogisticQuotient, self.terms.product(&[constant, inverse])))
    }
}
