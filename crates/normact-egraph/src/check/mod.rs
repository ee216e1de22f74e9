//! The checker of proofs. It shares the notation of terms with the [normal form](crate::normal) and
//! nothing else: no rewriting, no e-graph. For each step it verifies that the whole layer changed at
//! one place only, that what changed is an instance of the rule (by building the other side from the
//! rule's statement, or by comparing both sides as sums of monomials), that the guard holds, and that
//! both sides agree on numbers.

mod activation;
mod moments;
mod order;
#[cfg(test)]
mod tests;

use normact_ir::{Builder, Dag, Interval, MomentOp, Param, Prim, Scalar};

use rustc_hash::FxHashMap;

use crate::key::walk;
use crate::normal::Relation;
use crate::normal::{agree_at_zero, signed_power};
use crate::proof::{Move, Proof, used_params};
use crate::read;
use crate::rules::{Class, Rule};
use crate::term::{Exponent, Head, TermId, Terms};
use crate::witness::separate;

/// Why a proof does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {step} ({rule}): {reason}")]
pub struct Refuted {
    /// The position of the step.
    pub step: usize,
    /// The name of its rule.
    pub rule: &'static str,
    /// What is wrong.
    pub reason: &'static str,
}

/// Replays a proof that `a` and `b` are equal: that it starts at `a`, ends at `b`, and that every step
/// is one rule at one place and goes on where the one before ended.
///
/// # Errors
/// The first step that does not hold; step 0 for the ends.
pub fn check(proof: &Proof, a: &Dag, b: &Dag, relation: Relation) -> Result<(), Refuted> {
    if proof.moves.is_empty() && a.normalized() == b.normalized() {
        return Ok(());
    }
    let mut checker = Checker::new(proof.terms.clone());
    let ends = |reason| Refuted { step: 0, rule: "ends", reason };
    let first = read::graph(&mut checker.terms, a, |param| param as u32).ok_or(ends("a chain is too long"))?;
    let last = read::graph(&mut checker.terms, b, |param| proof.positions[param]).ok_or(ends("a chain is too long"))?;
    let mut current = first;
    for (number, (step, shown)) in proof.moves.iter().zip(&proof.steps).enumerate() {
        let refuted = |reason| Refuted { step: number + 1, rule: step.rule.name(), reason };
        if step.before != current {
            return Err(refuted("it does not start where the step before ended"));
        }
        current = step.after;
        let class = checker.class_of(step).map_err(refuted)?;
        if relation == Relation::Exact && class == Class::AlmostEverywhere {
            return Err(refuted("it holds almost everywhere only"));
        }
        // The numbers of one step, checked on a few inputs; rounding apart, nothing may differ.
        let (from, to) = (with_common_parameters(&shown.from), with_common_parameters(&shown.to));
        let attempts = if class == Class::AlmostEverywhere { 60 } else { 6 };
        if separate(&from, &to, Relation::AlmostEverywhere, false, number as u64, attempts).is_some() {
            return Err(refuted("the two sides differ on numbers"));
        }
    }
    if current != last {
        return Err(ends("the proof does not end at the second layer"));
    }
    if !is_matching(proof, b) {
        return Err(ends("parameters of different kinds are taken for each other"));
    }
    // Steps that hold almost everywhere say nothing about the initial values; the layers as a whole do.
    if separate(a, b, Relation::AlmostEverywhere, false, 0, 30).is_some() {
        return Err(ends("the layers differ on numbers"));
    }
    Ok(())
}

/// Whether the parameters of the second layer have places of their own, of their own class.
fn is_matching(proof: &Proof, b: &Dag) -> bool {
    let used = used_params(b);
    let mut taken: Vec<u32> = Vec::new();
    b.params().iter().zip(&proof.positions).zip(used).filter(|(_, used)| *used).all(|((param, &position), _)| {
        let class = proof.terms.param_class(position);
        let is_new = !taken.contains(&position);
        taken.push(position);
        is_new && class.extent == param.extent && class.init == param.init
    })
}

pub(crate) struct Checker {
    terms: Terms,
}

impl Checker {
    pub(crate) fn new(terms: Terms) -> Self {
        Self { terms }
    }

    /// Verifies one step and says how far it can be trusted.
    pub(crate) fn class_of(&mut self, step: &Move) -> Result<Class, &'static str> {
        if !self.changed(step.before, step.after, step.from, step.to) {
            return Err("the layer changed elsewhere");
        }
        let (left, right) = if step.reversed { (step.to, step.from) } else { (step.from, step.to) };
        self.instance(step.rule, left, right).ok_or("it is not an instance of the rule")
    }

    /// Whether a step can change a gradient. Powers have their kinks at zero, so not where the base is
    /// never zero.
    pub(crate) fn may_be_at_a_kink(&self, step: &Move) -> bool {
        let of_powers = |id: TermId| {
            self.factors(id).into_iter().all(|factor| {
                let mut base = factor;
                while let (inner, Head::Power(_)) = (self.terms.as_power(base).0, self.terms.head(base)) {
                    base = inner;
                }
                !self.terms.range(base).contains_zero()
            })
        };
        let (a, b) = self.difference(step.from, step.to, Head::Product);
        let never_zero = a.into_iter().chain(b).all(of_powers);
        let powers = matches!(step.rule, Rule::PowerOfPower | Rule::ProductOfPowers);
        step.rule.changes_gradient() && !(powers && never_zero)
    }
}

/// The factors of a product: bases with exponents and parities.
type Factors = Vec<(TermId, f64, bool)>;

/// A sum as constants times products: for each product its factors, in order, and its constant.
type Collected = Vec<(Factors, f64)>;

impl Checker {
    /// Whether `after` is `before` with `from` replaced by `to` at some of its places.
    fn changed(&self, before: TermId, after: TermId, from: TermId, to: TermId) -> bool {
        self.changed_once(before, after, (from, to), &mut FxHashMap::default())
    }

    fn changed_once(
        &self,
        before: TermId,
        after: TermId,
        change: (TermId, TermId),
        known: &mut FxHashMap<(TermId, TermId), bool>,
    ) -> bool {
        if before == after || (before, after) == change {
            return true;
        }
        if let Some(&known) = known.get(&(before, after)) {
            return known;
        }
        let chain = |head: Head| matches!(head, Head::Sum | Head::Product | Head::Max);
        let (first, second) = (self.terms.head(before), self.terms.head(after));
        // A chain of one operand is that operand.
        let head = if chain(first) { first } else { second };
        let result = if chain(head) {
            self.chain_changed(before, after, head, change, known)
        } else {
            let (left, right) = (self.terms.operands(before), self.terms.operands(after));
            first == second
                && left.len() == right.len()
                && left.iter().zip(right).all(|(&a, &b)| self.changed_once(a, b, change, known))
        };
        known.insert((before, after), result);
        result
    }

    /// The same for chains, in which what changes can be a part of the operands, once or several times.
    fn chain_changed(
        &self,
        before: TermId,
        after: TermId,
        head: Head,
        change: (TermId, TermId),
        known: &mut FxHashMap<(TermId, TermId), bool>,
    ) -> bool {
        let (mut left, mut right) = (self.operands_as(before, head), self.operands_as(after, head));
        let (from, to) = (self.operands_as(change.0, head), self.operands_as(change.1, head));
        loop {
            // The operands in which nothing changed, or something deeper.
            let mut rest = right.clone();
            let paired = left.iter().all(|&a| {
                let same = rest.iter().position(|&b| a == b);
                let position = same.or_else(|| {
                    // A chain within this chain does not occur: it would have been flat.
                    rest.iter().position(|&b| {
                        self.terms.head(a) != head
                            && self.terms.head(b) != head
                            && self.changed_once(a, b, change, known)
                    })
                });
                position.map(|position| rest.swap_remove(position)).is_some()
            });
            if paired && rest.is_empty() {
                return true;
            }
            if !removed(&mut left, &from) || !removed(&mut right, &to) {
                return false;
            }
        }
    }

    /// The operands of a term as one of a chain: several, or itself.
    fn operands_as(&self, id: TermId, head: Head) -> Vec<TermId> {
        if self.terms.head(id) == head { self.terms.operands(id).to_vec() } else { vec![id] }
    }

    /// The operands of two chains that are in one of them only.
    fn difference(&self, a: TermId, b: TermId, head: Head) -> (Vec<TermId>, Vec<TermId>) {
        let mut right = self.operands_as(b, head);
        let mut left = self.operands_as(a, head);
        left.retain(|operand| match right.iter().position(|other| other == operand) {
            Some(position) => {
                right.swap_remove(position);
                false
            }
            None => true,
        });
        (left, right)
    }

    fn factors(&self, id: TermId) -> Vec<TermId> {
        self.operands_as(id, Head::Product)
    }

    fn unary_operand(&self, id: TermId, prim: Prim) -> Option<TermId> {
        (self.terms.head(id) == Head::Unary(prim)).then(|| self.terms.operand(id))
    }

    fn moment(&self, id: TermId) -> Option<(MomentOp, TermId)> {
        match self.terms.head(id) {
            Head::Moment(op) => Some((op, self.terms.operand(id))),
            _ => None,
        }
    }

    /// A term multiplied out, without rules: constants times powers, like terms together.
    fn collected(&self, id: TermId) -> Collected {
        let mut sum: Vec<(Factors, f64, f64)> = Vec::new();
        for (mut factors, constant) in self.expanded(id) {
            factors.sort_by_key(|factor| (factor.0, factor.1.to_bits(), factor.2));
            match sum.iter_mut().find(|(other, ..)| *other == factors) {
                Some((_, total, size)) => (*total, *size) = (*total + constant, size.max(constant.abs())),
                None => sum.push((factors, constant, constant.abs())),
            }
        }
        sum.retain(|(_, constant, size)| constant.abs() > 1e-13 * size);
        sum.into_iter().map(|(factors, constant, _)| (factors, constant)).collect()
    }

    fn expanded(&self, id: TermId) -> Collected {
        match self.terms.head(id) {
            Head::Const(value) => vec![(vec![], value.get())],
            Head::Sum => self.terms.operands(id).iter().flat_map(|&part| self.expanded(part)).collect(),
            Head::Product => {
                let mut product: Collected = vec![(vec![], 1.0)];
                for &factor in self.terms.operands(id) {
                    let parts = self.expanded(factor);
                    if product.len() * parts.len() > 4096 {
                        return vec![(vec![(id, 1.0, true)], 1.0)];
                    }
                    product = product.iter().flat_map(|a| parts.iter().map(move |b| multiplied(a, b))).collect();
                }
                product
            }
            Head::Power(exponent) => {
                let base = self.terms.operand(id);
                if let (Head::Sum, Some(count)) = (self.terms.head(base), exponent.as_count().filter(|&c| c <= 4)) {
                    let one = self.expanded(base);
                    let mut power = one.clone();
                    for _ in 1..count {
                        power = power.iter().flat_map(|a| one.iter().map(move |b| multiplied(a, b))).collect();
                    }
                    return power;
                }
                vec![(vec![(base, exponent.get(), exponent.odd)], 1.0)]
            }
            _ => vec![(vec![(id, 1.0, true)], 1.0)],
        }
    }

    /// Whether two terms are the same sum of monomials, up to the rounding of constants.
    fn alike(&self, a: TermId, b: TermId) -> bool {
        if a == b {
            return true;
        }
        let (a, b) = (self.collected(a), self.collected(b));
        a.len() == b.len()
            && a.iter()
                .all(|(factors, constant)| b.iter().any(|(other, value)| other == factors && close(*constant, *value)))
    }

    /// Whether the sums of two lists of terms are alike.
    fn alike_sums(&mut self, a: &[TermId], b: &[TermId]) -> bool {
        let (a, b) = (self.terms.sum(a), self.terms.sum(b));
        self.alike(a, b)
    }

    /// Whether two lists of terms are alike in some order.
    fn alike_in_some_order(&self, a: &[TermId], b: &[TermId]) -> bool {
        let mut rest = b.to_vec();
        a.len() == b.len()
            && a.iter().all(|&a| match rest.iter().position(|&b| self.alike(a, b)) {
                Some(position) => {
                    rest.swap_remove(position);
                    true
                }
                None => false,
            })
    }

    fn times(&mut self, factor: f64, id: TermId) -> TermId {
        self.terms.scaled(factor, id)
    }

    /// The range of a term, of the term with like terms collected where that shows more.
    fn range(&mut self, id: TermId) -> Interval {
        let range = self.terms.range(id);
        if range.is_not_negative() || self.terms.head(id) != Head::Sum {
            return range;
        }
        let collected = self.collected(id);
        let finite = |(factors, constant): &(Factors, f64)| {
            constant.is_finite() && factors.iter().all(|(_, exponent, _)| exponent.is_finite())
        };
        if !collected.iter().all(finite) {
            return range;
        }
        let parts: Vec<TermId> = collected
            .into_iter()
            .map(|(factors, constant)| {
                let mut all = vec![self.terms.number(constant)];
                for (base, exponent, odd) in factors {
                    let exponent = Exponent::new(exponent, odd).expect("it was found to be finite");
                    all.push(self.terms.power(base, exponent));
                }
                if constant == 1.0 && all.len() > 1 {
                    all.remove(0);
                }
                self.terms.product(&all)
            })
            .collect();
        let sum = self.terms.sum(&parts);
        self.terms.range(sum)
    }

    /// Whether a term is proved not to be negative: by its range, or as the maximum of two terms of
    /// which one is not negative.
    fn is_not_negative(&mut self, id: TermId) -> bool {
        if self.range(id).is_not_negative() {
            return true;
        }
        match self.terms.head(id) {
            Head::Unary(Prim::Tanh | Prim::Erf) => return self.is_not_negative(self.terms.operand(id)),
            Head::Product => return self.factors(id).into_iter().all(|factor| self.is_not_negative(factor)),
            _ => {}
        }
        let operands = self.operands_as(id, Head::Sum);
        for (index, &operand) in operands.iter().enumerate() {
            let (constant, factor) = self.terms.split_coefficient(operand);
            let (base, exponent) = self.terms.as_power(factor);
            if exponent != Exponent::ABS || constant <= 0.0 {
                continue;
            }
            for sign in [constant, -constant] {
                let mut parts = operands.clone();
                parts[index] = self.times(sign, base);
                let sum = self.terms.sum(&parts);
                if self.range(sum).is_not_negative() {
                    return true;
                }
            }
        }
        false
    }

    /// Whether a term is defined on all inputs.
    fn is_total(&self, id: TermId) -> bool {
        walk(&self.terms, id).into_iter().all(|part| match self.terms.head(part) {
            Head::Undefined => false,
            Head::Power(exponent) if exponent.get() < 0.0 => {
                !self.terms.range(self.terms.operand(part)).contains_zero()
            }
            Head::Unary(Prim::Log) => !self.terms.range(self.terms.operand(part)).contains_zero(),
            _ => true,
        })
    }

    /// Whether a base is proved not to be zero, and to be defined where no power of it is left.
    fn may_cancel(&self, base: TermId, exponent: f64, odd: bool) -> bool {
        let kept = exponent != 0.0 || odd;
        !self.terms.range(base).contains_zero() && (kept || self.is_total(base))
    }

    /// Whether everything that one term divides by or takes the logarithm of, another does too.
    fn divides_no_more(&self, one: TermId, other: TermId) -> bool {
        let divisors = |id: TermId| -> Vec<TermId> {
            let parts = walk(&self.terms, id).into_iter();
            parts
                .filter(|&part| match self.terms.head(part) {
                    Head::Power(exponent) => exponent.get() < 0.0,
                    Head::Unary(Prim::Log) => true,
                    _ => false,
                })
                .map(|part| self.terms.operand(part))
                .collect()
        };
        let others = divisors(other);
        divisors(one).iter().all(|divisor| others.contains(divisor))
    }

    /// Guarded if the guard is proved, else almost everywhere.
    fn guarded(&self, proved: bool) -> Option<Class> {
        Some(if proved { Class::Guarded } else { Class::AlmostEverywhere })
    }

    /// The class of `left = right` as an instance of a rule; `None` if it is none.
    fn instance(&mut self, rule: Rule, left: TermId, right: TermId) -> Option<Class> {
        let holds = match rule {
            Rule::UndefinedSpreads => {
                let undefined = |id: TermId| self.terms.head(id) == Head::Undefined;
                undefined(right) && self.terms.operands(left).iter().any(|&operand| undefined(operand))
            }
            Rule::AddConstants => self.only_constants(left, right, Head::Sum),
            Rule::MulConstants => self.only_constants(left, right, Head::Product),
            Rule::AddZero => self.dropped(left, right, Head::Sum, 0.0),
            Rule::MulOne => self.dropped(left, right, Head::Product, 1.0),
            Rule::MulZero => {
                let factors = self.factors(left);
                let zero = self.terms.is_const(right, 0.0) && factors.iter().any(|&f| self.terms.is_const(f, 0.0));
                let total = factors.iter().all(|&factor| self.is_total(factor));
                return if zero { self.guarded(total) } else { None };
            }
            Rule::CollectTerms => {
                let (a, b) = self.difference(left, right, Head::Sum);
                let rest = self.terms.split_coefficient(*a.first()?).1;
                let same = a.iter().chain(&b).all(|&part| self.terms.split_coefficient(part).1 == rest);
                let total = |checker: &mut Self, parts: &[TermId]| -> (f64, f64) {
                    parts
                        .iter()
                        .map(|&part| checker.terms.split_coefficient(part).0)
                        .fold((0.0, 0.0), |(sum, size), c| (sum + c, f64::max(size, c.abs())))
                };
                let ((before, size), (after, _)) = (total(self, &a), total(self, &b));
                same && (before - after).abs() <= 1e-11 * size
            }
            Rule::Distribute => self.is_distributed(left, right),
            Rule::FactorOut => {
                let mut factors = self.factors(right);
                let position = factors.iter().position(|&factor| self.terms.head(factor) == Head::Sum)?;
                let sum = factors.swap_remove(position);
                let common = self.terms.product(&factors);
                let inside = self.terms.operands(sum).to_vec();
                let products: Vec<TermId> =
                    inside.into_iter().map(|part| self.terms.product(&[common, part])).collect();
                let operands = self.operands_as(left, Head::Sum);
                self.alike_in_some_order(&operands, &products) && self.divides_no_more(right, left)
            }
            Rule::PowerOfConstant | Rule::FunctionOfConstant => self.is_computed(left, right),
            Rule::PowerOfProduct => {
                let (base, exponent) = self.terms.as_power(left);
                let powers: Vec<TermId> =
                    self.factors(base).into_iter().map(|factor| self.terms.power(factor, exponent)).collect();
                self.terms.product(&powers) == right
            }
            Rule::PowerOfPower => {
                let (inner, q) = self.terms.as_power(left);
                let (base, p) = self.terms.as_power(inner);
                let odd = p.odd && q.odd;
                let product = p.get() * q.get();
                let expected = self.power_or_one(base, product, odd)?;
                if !self.alike(expected, right) {
                    return None;
                }
                let proved = agree_at_zero(p, q, product, odd) || self.may_cancel(base, product, odd);
                return self.guarded(proved);
            }
            Rule::ProductOfPowers => {
                let (a, b) = self.difference(left, right, Head::Product);
                let [first, second] = a[..] else { return None };
                let ((base, p), (other, q)) = (self.terms.as_power(first), self.terms.as_power(second));
                let (sum, odd) = (p.get() + q.get(), p.odd != q.odd);
                let expected = self.power_or_one(base, sum, odd)?;
                let found = self.terms.product(&b);
                if base != other || !self.alike(expected, found) {
                    return None;
                }
                let proved = agree_at_zero(p, q, sum, odd) || self.may_cancel(base, sum, odd);
                return self.guarded(proved);
            }
            Rule::PowerOfExp => {
                let (exp, exponent) = self.terms.as_power(left);
                let (a, b) = (self.unary_operand(exp, Prim::Exp)?, self.unary_operand(right, Prim::Exp)?);
                let scaled = self.times(exponent.get(), a);
                scaled == b
            }
            Rule::KnownSign => {
                let (base, exponent) = self.terms.as_power(left);
                let power = self.terms.power(base, Exponent::natural(exponent.get())?);
                let negative = self.terms.range(base).high() <= 0.0;
                let expected = if negative { self.terms.neg(power) } else { power };
                let proved = negative || self.is_not_negative(base);
                return if expected == right && proved { Some(Class::Guarded) } else { None };
            }
            Rule::SignOfNonzero => {
                let (base, exponent) = self.terms.as_power(left);
                let value = self.terms.const_value(right)?;
                let range = self.terms.range(base);
                let fits = match (exponent.odd, value) {
                    (false, 1.0) => true,
                    (true, 1.0) => self.is_not_negative(base),
                    (true, -1.0) => range.high() <= 0.0,
                    _ => false,
                };
                return if fits && exponent.get() == 0.0 {
                    self.guarded(self.may_cancel(base, 0.0, false))
                } else {
                    None
                };
            }
            Rule::SignOfOdd => {
                let (base, exponent) = self.terms.as_power(left);
                let argument = self.odd_argument(base)?;
                exponent == Exponent::SIGN && self.terms.power(argument, Exponent::SIGN) == right
            }
            Rule::ParityOfOdd => {
                let (base, exponent) = self.terms.as_power(left);
                let argument = self.odd_argument(base)?;
                let power = self.terms.power(base, Exponent::natural(exponent.get())?);
                let sign = self.terms.power(argument, Exponent::SIGN);
                !exponent.is_natural() && self.terms.product(&[power, sign]) == right
            }
            Rule::MaxOfConstants
            | Rule::MaxIdempotent
            | Rule::MaxDominated
            | Rule::MaxOfAbs
            | Rule::MaxAsAbs
            | Rule::MaxShift
            | Rule::MaxScale => return self.max_instance(rule, left, right),
            Rule::ExpOfSum
            | Rule::ExpOfLog
            | Rule::ProductOfExps
            | Rule::LogOfProduct
            | Rule::OddFunction
            | Rule::OddFunctionOfSign
            | Rule::SigmoidReflection
            | Rule::SigmoidSplit
            | Rule::TanhOfSigmoid
            | Rule::TanhSplit
            | Rule::ExpTimesSigmoid
            | Rule::LogisticQuotient => return self.activation_instance(rule, left, right),
            Rule::MomentAxes
            | Rule::MeanOfConstant
            | Rule::VarOfConstant
            | Rule::RmsDefinition
            | Rule::StdDefinition
            | Rule::MeanOfSum
            | Rule::MeanOfProduct
            | Rule::MeanOfMean
            | Rule::MeansSwap
            | Rule::MeanOfVar
            | Rule::MeanInside
            | Rule::MeanOfSquare
            | Rule::VarOfSum
            | Rule::VarOfProduct => return self.moment_instance(rule, left, right),
        };
        holds.then_some(Class::Exact)
    }

    fn power_or_one(&mut self, base: TermId, exponent: f64, odd: bool) -> Option<TermId> {
        if exponent == 0.0 && !odd {
            return Some(self.terms.product(&[]));
        }
        Some(self.terms.power(base, Exponent::new(exponent, odd)?))
    }

    fn odd_argument(&self, id: TermId) -> Option<TermId> {
        self.unary_operand(id, Prim::Tanh).or_else(|| self.unary_operand(id, Prim::Erf))
    }

    fn only_constants(&self, left: TermId, right: TermId, head: Head) -> bool {
        let split = |id: TermId| -> (Vec<f64>, Vec<TermId>) {
            let operands = self.operands_as(id, head);
            let constants = operands.iter().filter_map(|&operand| self.terms.const_value(operand)).collect();
            (constants, operands.into_iter().filter(|&operand| self.terms.const_value(operand).is_none()).collect())
        };
        let ((a, others), (b, same)) = (split(left), split(right));
        let size = a.iter().fold(0.0, |size: f64, value| size.max(value.abs()));
        others == same
            && match head {
                Head::Sum => (a.iter().sum::<f64>() - b.iter().sum::<f64>()).abs() <= 1e-11 * size,
                _ => close(a.iter().product(), b.iter().product()),
            }
    }

    fn dropped(&self, left: TermId, right: TermId, head: Head, value: f64) -> bool {
        let (a, b) = self.difference(left, right, head);
        b.is_empty() && !a.is_empty() && a.iter().all(|&id| self.terms.is_const(id, value))
    }

    /// `f(k)`, `k^p` against its number; undefined for a negative power or the logarithm of zero.
    fn is_computed(&self, left: TermId, right: TermId) -> bool {
        let Some(&operand) = self.terms.operands(left).first() else { return false };
        let Some(value) = self.terms.const_value(operand) else { return false };
        let computed = match self.terms.head(left) {
            Head::Power(exponent) => signed_power(value, exponent),
            Head::Unary(prim) if prim == Prim::Log && value == 0.0 => f64::NAN,
            Head::Unary(prim) => prim.value(value, 0.0),
            _ => return false,
        };
        match self.terms.const_value(right) {
            Some(found) => close(computed, found),
            None => self.terms.head(right) == Head::Undefined && computed.is_nan(),
        }
    }

    /// One product with a sum, multiplied out: at the root, in a chain or in the operand of a function.
    fn is_distributed(&mut self, left: TermId, right: TermId) -> bool {
        let head = self.terms.head(left);
        match head {
            Head::Unary(_) | Head::Moment(_) if self.terms.head(right) == head => {
                let (a, b) = (self.terms.operand(left), self.terms.operand(right));
                return self.is_multiplied_out(a, b);
            }
            Head::Max if self.terms.head(right) == head => {
                let (a, b) = self.difference(left, right, Head::Max);
                return matches!((&a[..], &b[..]), (&[a], &[b]) if self.is_multiplied_out(a, b));
            }
            _ => {}
        }
        let (a, b) = self.difference(left, right, Head::Sum);
        let &[product] = a.as_slice() else { return false };
        let sum = self.terms.sum(&b);
        self.is_multiplied_out(product, sum)
    }

    /// The product of a base to the power `count - 1` and other factors.
    fn product_with_one_less(&mut self, base: TermId, count: u32, mut others: Vec<TermId>) -> TermId {
        if let Some(lowered) = Exponent::natural(f64::from(count - 1)).filter(|_| count > 1) {
            others.push(self.terms.power(base, lowered));
        }
        self.terms.product(&others)
    }

    /// `(a + b + ...) * c = a * c + b * c + ...`, for one of the sums on the left.
    fn is_multiplied_out(&mut self, left: TermId, right: TermId) -> bool {
        let factors = self.factors(left);
        (0..factors.len()).any(|index| {
            let (base, exponent) = self.terms.as_power(factors[index]);
            let (Head::Sum, Some(count)) = (self.terms.head(base), exponent.as_count()) else { return false };
            let mut others = factors.clone();
            others.swap_remove(index);
            let rest = self.product_with_one_less(base, count, others);
            let summands = self.terms.operands(base).to_vec();
            let parts: Vec<TermId> = summands.into_iter().map(|part| self.terms.product(&[part, rest])).collect();
            self.terms.sum(&parts) == right
        })
    }
}

/// Takes the elements of `part` out of `list`; `false` if one is not there.
fn removed(list: &mut Vec<TermId>, part: &[TermId]) -> bool {
    part.iter().all(|element| match list.iter().position(|other| other == element) {
        Some(position) => {
            list.swap_remove(position);
            true
        }
        None => false,
    })
}

/// The same graph with initial values that are like any others: a step that holds almost everywhere
/// says nothing about parameters at 0.
fn with_common_parameters(dag: &Dag) -> Dag {
    let mut builder = Builder::new();
    for (index, param) in dag.params().iter().enumerate() {
        let init = Scalar::new(0.6180339887 + 0.1415926535 * index as f64).expect("finite");
        builder.declare(Param { init, ..param.clone() }).expect("the names are those of a graph");
    }
    for id in dag.ids() {
        builder.append(dag.op(id), dag.operands(id)).expect("the nodes are those of a graph");
    }
    let output = builder.node(dag.output().index()).expect("the output is a node");
    builder.finish(output)
}

/// The product of two monomials.
fn multiplied((a, x): &(Factors, f64), (b, y): &(Factors, f64)) -> (Factors, f64) {
    let mut factors = a.clone();
    for &(base, exponent, odd) in b {
        match factors.iter_mut().find(|(other, ..)| *other == base) {
            Some((_, other, parity)) => {
                *other += exponent;
                *parity = *parity != odd;
            }
            None => factors.push((base, exponent, odd)),
        }
    }
    factors.retain(|&(_, exponent, odd)| exponent != 0.0 || odd);
    (factors, x * y)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-10 * a.abs().max(b.abs()) || a == b
}
