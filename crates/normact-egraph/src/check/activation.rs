//! Instances of the rules about exponentials, logarithms, sigmoids and odd functions.

use normact_ir::Prim;

use super::{Checker, close};
use crate::rules::{Class, Rule};
use crate::term::{Exponent, Head, TermId};

impl Checker {
    pub(super) fn activation_instance(&mut self, rule: Rule, left: TermId, right: TermId) -> Option<Class> {
        let holds = match rule {
            Rule::ExpOfSum => {
                let argument = self.unary_operand(left, Prim::Exp)?;
                let factors = self.factors(right);
                let (exp, constants): (Vec<TermId>, Vec<TermId>) =
                    factors.into_iter().partition(|&factor| self.terms.const_value(factor).is_none());
                let (&[exp], &[constant]) = (exp.as_slice(), constants.as_slice()) else { return None };
                let rest = self.unary_operand(exp, Prim::Exp)?;
                let log = self.terms.number(self.terms.const_value(constant).filter(|&value| value > 0.0)?.ln());
                self.alike_sums(&[argument], &[rest, log])
            }
            Rule::ExpOfLog => {
                let argument = self.unary_operand(left, Prim::Exp)?;
                let factors = self.factors(right);
                let (exps, powers): (Vec<TermId>, Vec<TermId>) =
                    factors.into_iter().partition(|&factor| self.terms.head(factor) == Head::Unary(Prim::Exp));
                let rest = exps.iter().map(|&exp| self.terms.operand(exp)).next()?;
                let &[power] = powers.as_slice() else { return None };
                let (base, exponent) = self.terms.as_power(power);
                let magnitude = self.terms.power(base, Exponent::ABS);
                let mut inner = vec![magnitude, base];
                if let Some(argument) = self.odd_argument(base) {
                    let sign = self.terms.power(argument, Exponent::SIGN);
                    inner.push(self.terms.product(&[base, sign]));
                }
                let fits = inner.into_iter().enumerate().any(|(index, inner)| {
                    // Without the absolute value the base has to be positive.
                    if index == 1 && !self.is_not_negative(base) {
                        return false;
                    }
                    let log = self.terms.unary(Prim::Log, inner);
                    let scaled = self.times(exponent.get(), log);
                    self.alike_sums(&[argument], &[rest, scaled])
                });
                return if fits { self.guarded(!self.terms.range(base).contains_zero()) } else { None };
            }
            Rule::ProductOfExps => {
                let (a, b) = self.difference(left, right, Head::Product);
                let (&[first, second], &[joined]) = (a.as_slice(), b.as_slice()) else { return None };
                let parts = [self.unary_operand(first, Prim::Exp)?, self.unary_operand(second, Prim::Exp)?];
                let joined = self.unary_operand(joined, Prim::Exp)?;
                self.alike_sums(&parts, &[joined])
            }
            Rule::LogOfProduct => {
                let argument = self.unary_operand(left, Prim::Log)?;
                let mut logs = Vec::new();
                for factor in self.factors(argument) {
                    let log = if let Some(value) = self.terms.const_value(factor) {
                        let magnitude = self.terms.number(value.abs());
                        self.terms.unary(Prim::Log, magnitude)
                    } else if let Some(exponent) = self.unary_operand(factor, Prim::Exp) {
                        exponent
                    } else {
                        let (base, exponent) = self.terms.as_power(factor);
                        let magnitude = self.terms.power(base, Exponent::ABS);
                        let log = self.terms.unary(Prim::Log, magnitude);
                        self.times(exponent.get(), log)
                    };
                    logs.push(log);
                }
                let sign = self.terms.power(argument, Exponent::SIGN);
                let sum = self.terms.sum(&logs);
                self.terms.product(&[sign, sum]) == right
            }
            Rule::OddFunction => {
                let argument = self.odd_argument(left)?;
                let negated = self.terms.neg(argument);
                let function = self.terms.make(self.terms.head(left), &[negated]);
                self.terms.neg(function) == right
            }
            Rule::OddFunctionOfSign => {
                let argument = self.odd_argument(left)?;
                let factors = self.factors(argument);
                (0..factors.len()).any(|index| {
                    let (base, exponent) = self.terms.as_power(factors[index]);
                    let mut others = factors.clone();
                    others.swap_remove(index);
                    if exponent != Exponent::SIGN {
                        let Some(natural) = Exponent::natural(exponent.get()).filter(|_| !exponent.is_natural()) else {
                            return false;
                        };
                        others.push(self.terms.power(base, natural));
                    }
                    let inner = self.terms.product(&others);
                    let function = self.terms.make(self.terms.head(left), &[inner]);
                    let sign = self.terms.power(base, Exponent::SIGN);
                    self.terms.product(&[sign, function]) == right
                })
            }
            Rule::SigmoidReflection => {
                let mut factors = self.factors(right);
                let position =
                    factors.iter().position(|&factor| self.unary_operand(factor, Prim::Sigmoid).is_some())?;
                let reflected = self.terms.operand(factors.swap_remove(position));
                let scale = self.terms.product(&factors);
                let candidates: Vec<TermId> =
                    self.operands_as(left, Head::Sum).into_iter().flat_map(|part| self.factors(part)).collect();
                candidates.into_iter().any(|sigmoid| {
                    let Some(argument) = self.unary_operand(sigmoid, Prim::Sigmoid) else { return false };
                    let product = self.terms.product(&[scale, sigmoid]);
                    let negated = self.terms.neg(product);
                    self.opposite(argument, reflected) && self.alike_sums(&[scale, negated], &[left])
                })
            }
            Rule::SigmoidSplit => {
                let (a, b) = self.difference(left, right, Head::Sum);
                let &[product] = a.as_slice() else { return None };
                let factors = self.factors(product);
                let split = self.terms.sum(&b);
                (0..factors.len()).any(|index| {
                    let (base, exponent) = self.terms.as_power(factors[index]);
                    let (Some(argument), Some(count)) = (self.unary_operand(base, Prim::Sigmoid), exponent.as_count())
                    else {
                        return false;
                    };
                    let mut others = factors.clone();
                    others.swap_remove(index);
                    let rest = self.product_with_one_less(base, count, others);
                    let candidates: Vec<TermId> = b.iter().flat_map(|&part| self.factors(part)).collect();
                    let reflected = candidates.into_iter().find(|&factor| {
                        self.unary_operand(factor, Prim::Sigmoid).is_some_and(|other| self.opposite(argument, other))
                    });
                    let Some(reflected) = reflected else { return false };
                    let minus = self.terms.number(-1.0);
                    let second = self.terms.product(&[minus, rest, reflected]);
                    let expected = self.terms.sum(&[rest, second]);
                    self.alike(expected, split)
                })
            }
            Rule::TanhOfSigmoid | Rule::TanhSplit => {
                let (tanh_side, sigmoid_side) = if rule == Rule::TanhSplit { (left, right) } else { (right, left) };
                let (a, b) = self.difference(tanh_side, sigmoid_side, Head::Sum);
                let &[with_tanh] = a.as_slice() else { return None };
                let mut factors = self.factors(with_tanh);
                let position = factors.iter().position(|&factor| self.unary_operand(factor, Prim::Tanh).is_some())?;
                let tanh = factors.swap_remove(position);
                let argument = self.terms.operand(tanh);
                let others = self.terms.product(&factors);
                let double = self.times(2.0, argument);
                let sigmoid = b.iter().flat_map(|&part| self.factors(part)).find(|&factor| {
                    self.unary_operand(factor, Prim::Sigmoid).is_some_and(|other| self.alike(double, other))
                })?;
                let two = self.terms.number(2.0);
                let first = self.terms.product(&[two, others, sigmoid]);
                let second = self.terms.neg(others);
                self.alike_sums(&[first, second], &b)
            }
            Rule::ExpTimesSigmoid => {
                let (a, b) = self.difference(left, right, Head::Product);
                let (&[first, second], &[reflected]) = (a.as_slice(), b.as_slice()) else { return None };
                let (exp, power) =
                    if self.unary_operand(first, Prim::Exp).is_some() { (first, second) } else { (second, first) };
                let (base, exponent) = self.terms.as_power(power);
                let (other, other_exponent) = self.terms.as_power(reflected);
                let argument = self.unary_operand(base, Prim::Sigmoid)?;
                let reflected = self.unary_operand(other, Prim::Sigmoid)?;
                let scaled = self.times(-exponent.get(), argument);
                let of_exp = self.unary_operand(exp, Prim::Exp)?;
                exponent == other_exponent && self.opposite(argument, reflected) && self.alike(scaled, of_exp)
            }
            Rule::LogisticQuotient => {
                let &[constant, exp] = self.terms.operands(left) else { return None };
                let k = self.terms.const_value(constant).filter(|&k| k > 0.0)?;
                let argument = self.unary_operand(exp, Prim::Exp)?;
                let factors = self.factors(right);
                let inverse = factors.iter().copied().find(|&factor| self.terms.const_value(factor).is_none())?;
                let (base, exponent) = self.terms.as_power(inverse);
                let of_sigmoid = self.unary_operand(base, Prim::Sigmoid)?;
                let log = self.terms.number(k.ln());
                let negated = self.terms.neg(argument);
                let found = factors.iter().find_map(|&factor| self.terms.const_value(factor)).unwrap_or(1.0);
                exponent.get() == -1.0
                    && factors.len() <= 2
                    && close(found, k)
                    && self.alike_sums(&[log, negated], &[of_sigmoid])
            }
            _ => false,
        };
        holds.then_some(Class::Exact)
    }

    fn opposite(&mut self, a: TermId, b: TermId) -> bool {
        let negated = self.terms.neg(a);
        self.alike(negated, b)
    }
}
