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

use super::{Normalizer, Relation};
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
                None => true,
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
        let operands = self.terms.operands(id).to_vec();
        // `log(|a|)` has no kink, only a place where it is undefined.
        let operands = match (self.terms.head(id), operands.as_slice()) {
            (Head::Unary(Prim::Log), [magnitude]) => match self.terms.as_power(*magnitude) {
                (base, exponent) if exponent == Exponent::ABS => vec![base],
                _ => operands,
            },
            _ => operands,
        };
        if let Some(found) = operands.into_iter().find_map(|operand| self.kink(operand)) {
            let inside = matches!(self.terms.head(id), Head::Moment(_));
            return Some(if inside { (id, Vec::new()) } else { found });
        }
        match self.terms.head(id) {
            Head::Max => Some((id, self.terms.operands(id).to_vec())),
            Head::Power(exponent) => {
                let base = self.terms.operand(id);
                let range = self.terms.range(base);
                let one_sign = range.is_not_negative() || range.high() <= 0.0;
                let is_sign = exponent.get() == 0.0;
                if one_sign || (exponent.is_natural() && !is_sign) {
                    return None;
                }
                let natural = if is_sign {
                    self.terms.product(&[])
                } else {
                    let natural = Exponent::natural(exponent.get())?;
                    self.terms.power(base, natural)
                };
                let negative = self.terms.neg(natural);
                Some((id, vec![natural, negative]))
            }
            _ => None,
        }
    }

    fn replaced(&mut self, id: TermId, old: TermId, new: TermId) -> TermId {
        if id == old {
            return new;
        }
        let operands = self.terms.operands(id).to_vec();
        let replaced: Vec<TermId> = operands.iter().map(|&operand| self.replaced(operand, old, new)).collect();
        if replaced == operands { id } else { self.terms.make(self.terms.head(id), &replaced) }
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
