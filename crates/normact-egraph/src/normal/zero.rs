//! Where a term is zero and where it is defined: the guards of the rules that cancel.
//!
//! [`Relation::Exact`] asks the intervals. [`Relation::AlmostEverywhere`] uses that an analytic
//! function that is not the constant 0 is zero on a set of measure zero only: a term with kinks
//! (absolute values, maxima) is cut at them, and every piece must be another function than 0. So
//! `x / x` is 1, and `relu(x) / relu(x)`, which is undefined on half of all inputs, is not.
//!
//! Shapes count too: those are meant in which every statistic averages several elements, except that
//! `group` may have a group for each channel, which is common.
//!
//! Parameters start at one value, which need not be like almost all others: `v / v` is not a number at
//! a `v` that starts at 0. So whenever a guard has looked at a parameter, the layer is also brought
//! into normal form at its initial values, as written, and what is special there belongs to the key.

use normact_ir::{IndexSet, Moment, Prim};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{Normalizer, Relation, signed_power};
use crate::key::walk;
use crate::term::{Exponent, Head, TermId};

/// A term is cut at so many kinks at most.
const MAX_CUTS: usize = 4;

/// Nothing is proved about terms that nest more deeply.
const MAX_DEPTH: u32 = 300;

/// What has been found out about terms.
#[derive(Debug, Default)]
pub(super) struct Facts {
    nonzero: Vec<Option<bool>>,
    defined: Vec<Option<bool>>,
    /// Whether a guard has taken a parameter not to be at its initial value.
    parameters_matter: bool,
}

impl Facts {
    pub(super) fn clear(&mut self) {
        self.nonzero.clear();
        self.defined.clear();
        self.parameters_matter = false;
    }
}

impl Normalizer {
    /// Whether a term is proved not to be zero: anywhere, or almost everywhere.
    pub(super) fn is_nonzero(&mut self, id: TermId) -> bool {
        if !self.terms.range(id).contains_zero() {
            return true;
        }
        if self.relation == Relation::Exact || self.terms.depth(id) > MAX_DEPTH {
            return false;
        }
        let nonzero = match self.facts.nonzero.get(id.index()) {
            Some(Some(known)) => *known,
            _ => {
                let found = self.find_nonzero(id, MAX_CUTS);
                super::remember(&mut self.facts.nonzero, id, found);
                found
            }
        };
        self.facts.parameters_matter |= nonzero && self.terms.has_params(id);
        nonzero
    }

    fn find_nonzero(&mut self, id: TermId, cuts: usize) -> bool {
        if !self.terms.range(id).contains_zero() {
            return true;
        }
        match self.terms.head(id) {
            Head::Undefined => false,
            Head::Const(value) => value.get() != 0.0,
            Head::Input | Head::Param(_) => true,
            Head::Product => {
                let operands = self.terms.operands(id).to_vec();
                operands.into_iter().all(|operand| self.find_nonzero(operand, cuts))
            }
            Head::Power(_) | Head::Unary(Prim::Tanh | Prim::Erf) => self.find_nonzero(self.terms.operand(id), cuts),
            // `group` with no more channels than groups averages one channel each: the variance of a value
            // per channel is then 0, whatever the value.
            Head::Moment(op)
                if op.moment() == Moment::Var
                    && matches!(op.over(), IndexSet::Group(_))
                    && !self.terms.axes(self.terms.operand(id)).positions =>
            {
                false
            }
            // A mean of values of one sign is zero only if they all are.
            Head::Moment(op)
                if op.moment() == Moment::Mean && self.terms.range(self.terms.operand(id)).is_not_negative() =>
            {
                self.find_nonzero(self.terms.operand(id), cuts)
            }
            Head::Sum | Head::Max | Head::Unary(_) | Head::Moment(_) => match self.kink(id) {
                None => self.is_nonzero_somewhere(id),
                // The elements of a statistic are on both sides of a kink at the same time.
                Some((kink, _)) if cuts == 0 || matches!(self.terms.head(kink), Head::Moment(_)) => false,
                Some((kink, pieces)) => pieces.into_iter().all(|piece| {
                    let replaced = self.replaced(id, kink, piece);
                    let normal = self.normal(replaced);
                    self.find_nonzero(normal, cuts - 1)
                }),
            },
        }
    }

    /// An innermost kink of a term, with the smooth terms it is put together from; a statistic of a term
    /// with a kink, with nothing.
    fn kink(&mut self, id: TermId) -> Option<(TermId, Vec<TermId>)> {
        let order = walk(&self.terms, id);
        // `log(|a|)` has no kink, only a place where it is undefined.
        let mut only_in_logs: FxHashMap<TermId, bool> = FxHashMap::default();
        for &part in &order {
            let in_log = self.terms.head(part) == Head::Unary(Prim::Log);
            for &operand in self.terms.operands(part) {
                *only_in_logs.entry(operand).or_insert(true) &=
                    in_log && self.terms.as_power(operand).1 == Exponent::ABS;
            }
        }
        let mut with_kink: FxHashSet<TermId> = FxHashSet::default();
        let mut first = None;
        for &part in &order {
            let below = self.terms.operands(part).iter().any(|operand| with_kink.contains(operand));
            if below && matches!(self.terms.head(part), Head::Moment(_)) {
                return Some((part, Vec::new()));
            }
            let own = self.is_kinked(part) && !only_in_logs.get(&part).copied().unwrap_or(false);
            if own || below {
                with_kink.insert(part);
            }
            if own && first.is_none() {
                first = Some(part);
            }
        }
        let kink = first?;
        let pieces = match self.terms.head(kink) {
            Head::Power(exponent) if exponent.get() != 0.0 => {
                let base = self.terms.operand(kink);
                let natural = Exponent::natural(exponent.get())?;
                let power = self.terms.power(base, natural);
                vec![power, self.terms.neg(power)]
            }
            Head::Power(_) => {
                let one = self.terms.product(&[]);
                vec![one, self.terms.neg(one)]
            }
            _ => self.terms.operands(kink).to_vec(),
        };
        Some((kink, pieces))
    }

    /// Whether a term is put together from two smooth ones: a maximum, a sign, an absolute value.
    fn is_kinked(&self, id: TermId) -> bool {
        match self.terms.head(id) {
            Head::Max => true,
            Head::Power(exponent) => {
                let range = self.terms.range(self.terms.operand(id));
                let one_sign = range.is_not_negative() || range.high() <= 0.0;
                !one_sign && (!exponent.is_natural() || exponent.get() == 0.0)
            }
            _ => false,
        }
    }

    /// Whether a smooth term is other than zero at some point, with statistics as independent numbers. A
    /// sum that the rules do not reduce may still be zero everywhere.
    fn is_nonzero_somewhere(&self, id: TermId) -> bool {
        let mut values: FxHashMap<TermId, (f64, f64)> = FxHashMap::default();
        for part in walk(&self.terms, id) {
            // An irregular number that belongs to the term.
            let own = 0.37 + (self.terms.hash(part) >> 11) as f64 / (1u64 << 53) as f64;
            let operand = |index: usize| values[&self.terms.operands(part)[index]];
            let all = || self.terms.operands(part).iter().map(|operand| values[operand]);
            // Each value with the size of what it was computed from.
            let value = match self.terms.head(part) {
                Head::Undefined => return false,
                Head::Const(value) => (value.get(), value.get().abs()),
                Head::Input | Head::Param(_) | Head::Moment(_) => (own, own),
                Head::Sum => all().fold((0.0, 0.0), |(sum, size), (value, part)| (sum + value, size + part)),
                Head::Product => {
                    all().fold((1.0, 1.0), |(product, size), (value, part)| (product * value, size * part))
                }
                Head::Max => all().fold((f64::NEG_INFINITY, 0.0), |(max, size), (value, part)| {
                    (f64::max(max, value), f64::max(size, part))
                }),
                Head::Power(exponent) => {
                    let value = signed_power(operand(0).0, exponent);
                    (value, value.abs())
                }
                Head::Unary(prim) => {
                    let value = prim.value(operand(0).0, 0.0);
                    (value, value.abs())
                }
            };
            values.insert(part, value);
        }
        let (value, size) = values[&id];
        value.is_finite() && value.abs() > 1e-9 * size && value != 0.0
    }

    fn replaced(&mut self, id: TermId, old: TermId, new: TermId) -> TermId {
        let mut results: FxHashMap<TermId, TermId> = FxHashMap::default();
        for part in walk(&self.terms, id) {
            let operands: Vec<TermId> = self.terms.operands(part).iter().map(|operand| results[operand]).collect();
            let result = match part == old {
                true => new,
                false if operands == self.terms.operands(part) => part,
                false => self.terms.make(self.terms.head(part), &operands),
            };
            results.insert(part, result);
        }
        results[&id]
    }

    /// Whether a term is defined: everywhere, or almost everywhere.
    pub(super) fn is_defined(&mut self, id: TermId) -> bool {
        if self.terms.depth(id) > MAX_DEPTH {
            return false;
        }
        if let Some(Some(known)) = self.facts.defined.get(id.index()) {
            self.facts.parameters_matter |= *known && self.terms.has_params(id);
            return *known;
        }
        let operands = self.terms.operands(id).to_vec();
        let parts = operands.iter().all(|&operand| self.is_defined(operand));
        let defined = parts
            && match self.terms.head(id) {
                Head::Undefined => false,
                Head::Power(exponent) if exponent.get() < 0.0 => self.is_nonzero(operands[0]),
                Head::Unary(Prim::Log) => self.is_nonzero(operands[0]),
                _ => true,
            };
        super::remember(&mut self.facts.defined, id, defined);
        defined
    }

    /// What a layer is at the initial values of its parameters, where its normal form does not say so:
    /// `raw` as written, `normal` its normal form.
    pub(crate) fn special_at_start(&mut self, raw: TermId, normal: TermId) -> Option<TermId> {
        if !self.facts.parameters_matter {
            return None;
        }
        let as_written = self.at_start(raw);
        let as_written = self.canonical(as_written);
        let by_form = self.at_start(normal);
        let by_form = self.canonical(by_form);
        (as_written != by_form).then_some(as_written)
    }

    /// The term with the initial values in place of its parameters.
    fn at_start(&mut self, id: TermId) -> TermId {
        let mut replaced: Vec<Option<TermId>> = vec![None; id.index() + 1];
        for part in crate::key::walk(&self.terms, id) {
            let new = match self.terms.head(part) {
                _ if !self.terms.has_params(part) => part,
                Head::Param(param) => {
                    let init = self.terms.param_class(param).init;
                    self.terms.constant(init)
                }
                head => {
                    let operands = self.terms.operands(part).to_vec();
                    let operands: Vec<TermId> = operands
                        .into_iter()
                        .map(|operand| replaced[operand.index()].expect("operands are replaced before their users"))
                        .collect();
                    self.terms.make(head, &operands)
                }
            };
            if replaced.len() <= part.index() {
                replaced.resize(part.index() + 1, None);
            }
            replaced[part.index()] = Some(new);
        }
        replaced[id.index()].expect("the root is replaced last")
    }
}
