//! Instances of the rules about statistics.

use normact_ir::{IndexSet, Moment, MomentOp};

use super::Checker;
use crate::normal::has_two_groupings;
use crate::rules::{Class, Rule};
use crate::term::{Exponent, Head, TermId};

impl Checker {
    pub(super) fn moment_instance(&mut self, rule: Rule, left: TermId, right: TermId) -> Option<Class> {
        let (op, operand) = self.moment(left)?;
        let axes = self.terms.axes(operand);
        let constant = |checker: &Self, id: TermId, over: IndexSet| checker.terms.axes(id).constant_along(over);
        let with = |op: MomentOp, moment: Moment| -> Head { Head::Moment(crate::normal::with(op, moment)) };
        let half = Exponent::new(0.5, true)?;
        let two = Exponent::natural(2.0)?;
        let holds = match rule {
            Rule::MomentAxes => {
                let (other, same) = self.moment(right)?;
                same == operand
                    && other.moment() == op.moment()
                    && other.eps() == op.eps()
                    && axes.reduce(op.over()) == axes.reduce(other.over())
                    && (other.tracking() == op.tracking() || !axes.samples)
            }
            Rule::MeanOfConstant => {
                op.moment() == Moment::Mean && right == operand && constant(self, operand, op.over())
            }
            Rule::VarOfConstant => {
                let fits =
                    op.moment() == Moment::Var && self.terms.is_const(right, 0.0) && constant(self, operand, op.over());
                return if fits { self.guarded(self.is_total(operand)) } else { None };
            }
            Rule::RmsDefinition | Rule::StdDefinition => {
                let average = if rule == Rule::RmsDefinition {
                    let square = self.terms.power(operand, two);
                    self.terms.make(with(op, Moment::Mean), &[square])
                } else {
                    self.terms.make(with(op, Moment::Var), &[operand])
                };
                let eps = self.terms.constant(op.eps());
                let sum = self.terms.sum(&[average, eps]);
                let fits = if rule == Rule::RmsDefinition { Moment::Rms } else { Moment::Std };
                op.moment() == fits && self.terms.power(sum, half) == right
            }
            Rule::MeanOfSum => {
                let parts = self.operands_as(right, Head::Sum);
                let operands: Option<Vec<TermId>> = parts
                    .iter()
                    .map(|&part| self.moment(part).filter(|(other, _)| *other == op).map(|(_, of)| of))
                    .collect();
                let sum = self.terms.sum(&operands?);
                op.moment() == Moment::Mean && (sum == operand || self.is_multiplied_out(operand, sum))
            }
            Rule::MeanOfProduct | Rule::VarOfProduct => {
                let (outside, inside): (Vec<TermId>, Vec<TermId>) =
                    self.factors(operand).into_iter().partition(|&factor| constant(self, factor, op.over()));
                let inside = self.terms.product(&inside);
                let moment = self.terms.moment(op, inside);
                let mut outside = self.terms.product(&outside);
                let moment_fits = if rule == Rule::MeanOfProduct { Moment::Mean } else { Moment::Var };
                if rule == Rule::VarOfProduct {
                    outside = self.terms.power(outside, two);
                }
                op.moment() == moment_fits && self.terms.product(&[outside, moment]) == right
            }
            Rule::MeanOfMean | Rule::MeansSwap => {
                let (inner, of) = self.moment(operand)?;
                let axes = self.terms.axes(of);
                let means = op.moment() == Moment::Mean && inner.moment() == Moment::Mean;
                if rule == Rule::MeanOfMean {
                    let (joined, same) = self.moment(right)?;
                    let reduced = axes.reduce(inner.over()).reduce(op.over());
                    means
                        && joined.moment() == Moment::Mean
                        && same == of
                        && reduced == axes.reduce(joined.over())
                        && !has_two_groupings(axes, inner, op)
                } else {
                    let swapped = self.terms.moment(op, of);
                    let fits = op.over() == IndexSet::Batch && matches!(inner.over(), IndexSet::Group(_));
                    means && fits && self.terms.moment(inner, swapped) == right
                }
            }
            Rule::MeanOfVar => {
                let (inner, of) = self.moment(operand)?;
                let parts = self.operands_as(right, Head::Sum);
                let total =
                    parts.iter().copied().find(|&part| self.moment(part).is_some_and(|(_, other)| other == of))?;
                let (joined, _) = self.moment(total)?;
                let mean = self.terms.make(with(inner, Moment::Mean), &[of]);
                let between = self.terms.make(with(op, Moment::Var), &[mean]);
                let between = self.terms.neg(between);
                let axes = self.terms.axes(of);
                op.moment() == Moment::Mean
                    && inner.moment() == Moment::Var
                    && joined.moment() == Moment::Var
                    && !has_two_groupings(axes, inner, op)
                    && axes.reduce(inner.over()).reduce(op.over()) == axes.reduce(joined.over())
                    && self.terms.sum(&[total, between]) == right
            }
            Rule::MeanInside => {
                let (other, of) = self.moment(right)?;
                let (a, b) = self.difference(operand, of, Head::Product);
                let &[mean] = b.as_slice() else { return None };
                let (inner, inside) = self.moment(mean)?;
                let outside: Vec<TermId> = self.factors(of).into_iter().filter(|&factor| factor != mean).collect();
                let product = self.terms.product(&a);
                let part = axes.reduce(inner.over()).reduce(op.over()) == axes.reduce(op.over());
                other == op
                    && !has_two_groupings(self.terms.axes(inside), inner, op)
                    && op.moment() == Moment::Mean
                    && inner.moment() == Moment::Mean
                    && part
                    && product == inside
                    && outside.iter().all(|&factor| constant(self, factor, inner.over()))
            }
            Rule::MeanOfSquare => {
                let parts = self.operands_as(right, Head::Sum);
                let var = parts
                    .iter()
                    .copied()
                    .find(|&part| self.moment(part).is_some_and(|(op, _)| op.moment() == Moment::Var))?;
                let (_, root) = self.moment(var)?;
                let mean = self.terms.moment(op, root);
                let square = self.terms.power(mean, two);
                let var = self.terms.make(with(op, Moment::Var), &[root]);
                op.moment() == Moment::Mean && self.is_square(operand, root) && self.terms.sum(&[var, square]) == right
            }
            Rule::VarOfSum => {
                let (other, of) = self.moment(right)?;
                let (a, b) = self.difference(operand, of, Head::Sum);
                let fits = op == other
                    && op.moment() == Moment::Var
                    && b.is_empty()
                    && a.iter().all(|&part| constant(self, part, op.over()));
                return match fits {
                    true if a.iter().all(|&part| self.is_total(part)) => Some(Class::Exact),
                    true => Some(Class::AlmostEverywhere),
                    false => None,
                };
            }
            _ => false,
        };
        holds.then_some(Class::Exact)
    }

    /// Whether `square` is `root` with all exponents doubled, which are then even.
    fn is_square(&mut self, square: TermId, root: TermId) -> bool {
        let halves: Option<Vec<TermId>> = self
            .factors(square)
            .into_iter()
            .map(|factor| {
                let (base, exponent) = self.terms.as_power(factor);
                let even = !exponent.odd && exponent.get().rem_euclid(2.0) == 0.0;
                let half = Exponent::natural(exponent.get() / 2.0).filter(|_| even)?;
                Some(self.terms.power(base, half))
            })
            .collect();
        halves.is_some_and(|halves| self.terms.product(&halves) == root)
    }
}
