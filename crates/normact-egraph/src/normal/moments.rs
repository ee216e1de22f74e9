//! Statistics.

use normact_ir::{Axes, Channels, IndexSet, Moment, MomentOp, Running, Scalar, Tracking};

use super::Normalizer;
use crate::rules::Rule;
use crate::term::{Exponent, Head, TermId};

impl Normalizer {
    pub(super) fn moment_rule(&mut self, id: TermId, op: MomentOp) -> Option<(Rule, TermId)> {
        let operand = self.terms.operand(id);
        let half = || Exponent::new(0.5, true);
        match op.moment() {
            Moment::Rms => {
                let square = self.terms.power(operand, Exponent::natural(2.0)?);
                let mean = self.terms.moment(with(op, Moment::Mean), square);
                let eps = self.terms.constant(op.eps());
                let sum = self.terms.sum(&[mean, eps]);
                return Some((Rule::RmsDefinition, self.terms.power(sum, half()?)));
            }
            Moment::Std => {
                let var = self.terms.moment(with(op, Moment::Var), operand);
                let eps = self.terms.constant(op.eps());
                let sum = self.terms.sum(&[var, eps]);
                return Some((Rule::StdDefinition, self.terms.power(sum, half()?)));
            }
            Moment::Mean | Moment::Var => {}
        }
        if self.is_constant_along(operand, op.over()) {
            return match op.moment() {
                Moment::Mean => Some((Rule::MeanOfConstant, operand)),
                _ if self.is_defined(operand) => Some((Rule::VarOfConstant, self.terms.number(0.0))),
                _ => None,
            };
        }
        let plain = self.plain_axes(operand, op);
        if plain != op {
            return Some((Rule::MomentAxes, self.terms.moment(plain, operand)));
        }
        match op.moment() {
            Moment::Var => self.var_rule(op, operand),
            _ => self.mean_rule(op, operand),
        }
    }

    fn is_constant_along(&self, id: TermId, over: IndexSet) -> bool {
        self.terms.axes(id).constant_along(over)
    }

    /// The one index set used for reducing these axes of such an operand.
    fn plain_axes(&self, operand: TermId, op: MomentOp) -> MomentOp {
        let axes = self.terms.axes(operand);
        let over = op.over();
        let samples = axes.samples && over.reduces_samples();
        let positions = axes.positions && over.reduces_positions();
        let left = over.channels_left(axes.channels);
        let channels = left != axes.channels;
        let over = match (samples, channels, positions) {
            (true, true, _) => IndexSet::All,
            (true, false, _) => IndexSet::Batch,
            (false, true, _) if left != Channels::One => over,
            (false, true, true) => IndexSet::Layer,
            (false, true, false) => IndexSet::Channel,
            (false, false, _) => IndexSet::Instance,
        };
        let tracking = op.tracking().unwrap_or(Tracking { momentum: Scalar::ZERO, running: Running::Biased });
        MomentOp::new(op.moment(), over, op.eps(), tracking)
    }

    fn mean_rule(&mut self, op: MomentOp, operand: TermId) -> Option<(Rule, TermId)> {
        let factors = self.factors_of(operand);
        let (constant, varying): (Vec<TermId>, Vec<TermId>) =
            factors.iter().copied().partition(|&factor| self.is_constant_along(factor, op.over()));
        if !constant.is_empty() {
            let rest = self.terms.product(&varying);
            let mean = self.terms.moment(op, rest);
            let mut all = constant;
            all.push(mean);
            return Some((Rule::MeanOfProduct, self.terms.product(&all)));
        }
        if let Some(root) = self.square_root(&factors) {
            let var = self.terms.moment(with(op, Moment::Var), root);
            let mean = self.terms.moment(op, root);
            let square = self.terms.power(mean, Exponent::natural(2.0)?);
            return Some((Rule::MeanOfSquare, self.terms.sum(&[var, square])));
        }
        // A sum in normal form has its common factors outside; they have to come back in.
        let sum = self.distributed(operand).unwrap_or(operand);
        if self.terms.head(sum) == Head::Sum {
            let summands = self.terms.operands(sum).to_vec();
            let means: Vec<TermId> = summands.into_iter().map(|summand| self.terms.moment(op, summand)).collect();
            return Some((Rule::MeanOfSum, self.terms.sum(&means)));
        }
        match self.terms.head(operand) {
            Head::Moment(inner) if inner.moment() == Moment::Mean => {
                let of = self.terms.operand(operand);
                if let Some(joined) = self.joined(of, inner, op) {
                    return Some((Rule::MeanOfMean, self.terms.moment(joined, of)));
                }
                // Statistics over samples and over groups: the group outside.
                let swap = op.over() == IndexSet::Batch && matches!(inner.over(), IndexSet::Group(_));
                swap.then(|| {
                    let mean = self.terms.moment(op, of);
                    (Rule::MeansSwap, self.terms.moment(inner, mean))
                })
            }
            Head::Moment(inner) if inner.moment() == Moment::Var => {
                let of = self.terms.operand(operand);
                let joined = self.joined(of, inner, op)?;
                let total = self.terms.moment(with(joined, Moment::Var), of);
                let mean = self.terms.moment(with(inner, Moment::Mean), of);
                let between = self.terms.moment(with(op, Moment::Var), mean);
                let between = self.terms.neg(between);
                Some((Rule::MeanOfVar, self.terms.sum(&[total, between])))
            }
            _ => self.mean_inside(op, &factors),
        }
    }

    /// The term whose square is the product of these factors, if all exponents are even.
    fn square_root(&mut self, factors: &[TermId]) -> Option<TermId> {
        let mut roots = Vec::with_capacity(factors.len());
        for &factor in factors {
            let (base, exponent) = self.terms.as_power(factor);
            if !exponent.is_natural() || exponent.get() == 0.0 || exponent.get().rem_euclid(2.0) != 0.0 {
                return None;
            }
            roots.push(self.terms.power(base, Exponent::natural(exponent.get() / 2.0)?));
        }
        Some(self.terms.product(&roots))
    }

    /// The one mean that two, one after the other, are; `None` where no index set says so.
    fn joined(&self, operand: TermId, inner: MomentOp, outer: MomentOp) -> Option<MomentOp> {
        let axes = self.terms.axes(operand);
        if has_two_groupings(axes, inner, outer) {
            return None;
        }
        let wanted = axes.reduce(inner.over()).reduce(outer.over());
        let tracking = match (outer.tracking(), inner.tracking()) {
            (Some(tracking), _) | (None, Some(tracking)) => tracking,
            (None, None) => Tracking { momentum: Scalar::ZERO, running: Running::Biased },
        };
        let channels = axes.channels != wanted.channels;
        if channels && wanted.channels != Channels::One {
            // Channels are put into groups by one of the two; the other must not touch them.
            let over = if matches!(inner.over(), IndexSet::Group(_)) { inner.over() } else { outer.over() };
            let over_axes = axes.reduce(over);
            return (over_axes == wanted).then(|| MomentOp::new(Moment::Mean, over, Scalar::ZERO, tracking));
        }
        let candidates = [IndexSet::Instance, IndexSet::Batch, IndexSet::Channel, IndexSet::Layer, IndexSet::All];
        let over = candidates.into_iter().find(|&over| axes.reduce(over) == wanted)?;
        Some(MomentOp::new(Moment::Mean, over, Scalar::ZERO, tracking))
    }

    /// `mean[I](c * a) = mean[I](c * mean[J](a))` where `c` is constant along the part `J` of `I`:
    /// positions first, then channels.
    fn mean_inside(&mut self, op: MomentOp, factors: &[TermId]) -> Option<(Rule, TermId)> {
        if factors.len() < 2 {
            return None;
        }
        let parts: &[IndexSet] = match op.over() {
            IndexSet::Batch => &[IndexSet::Instance],
            IndexSet::Layer => &[IndexSet::Instance, IndexSet::Channel],
            IndexSet::Group(_) => &[IndexSet::Instance],
            IndexSet::All => &[IndexSet::Instance, IndexSet::Channel, IndexSet::Layer],
            IndexSet::Instance | IndexSet::Channel => &[],
        };
        for &part in parts {
            let (constant, varying): (Vec<TermId>, Vec<TermId>) =
                factors.iter().copied().partition(|&factor| self.is_constant_along(factor, part));
            if constant.is_empty() || varying.is_empty() {
                continue;
            }
            let tracking = Tracking { momentum: Scalar::ZERO, running: Running::Biased };
            let inner = MomentOp::new(Moment::Mean, part, Scalar::ZERO, tracking);
            let varying = self.terms.product(&varying);
            let mut all = constant;
            all.push(self.terms.moment(inner, varying));
            let product = self.terms.product(&all);
            return Some((Rule::MeanInside, self.terms.moment(op, product)));
        }
        None
    }

    fn var_rule(&mut self, op: MomentOp, operand: TermId) -> Option<(Rule, TermId)> {
        let factors = self.factors_of(operand);
        let (constant, varying): (Vec<TermId>, Vec<TermId>) =
            factors.iter().copied().partition(|&factor| self.is_constant_along(factor, op.over()));
        if !constant.is_empty() {
            let constant = self.terms.product(&constant);
            let square = self.terms.power(constant, Exponent::natural(2.0)?);
            let varying = self.terms.product(&varying);
            let var = self.terms.moment(op, varying);
            return Some((Rule::VarOfProduct, self.terms.product(&[square, var])));
        }
        if let Some(sum) = self.multiplied_out(operand) {
            return Some((Rule::Distribute, self.terms.moment(op, sum)));
        }
        if self.terms.head(operand) == Head::Sum {
            let summands = self.terms.operands(operand).to_vec();
            let (constant, varying): (Vec<TermId>, Vec<TermId>) =
                summands.iter().copied().partition(|&summand| self.is_constant_along(summand, op.over()));
            if !constant.is_empty() && constant.iter().all(|&summand| self.is_defined(summand)) {
                let varying = self.terms.sum(&varying);
                return Some((Rule::VarOfSum, self.terms.moment(op, varying)));
            }
        }
        None
    }
}

/// Whether channels are put into groups in two ways, so that reducing by one does not nest in reducing by
/// the other.
pub(crate) fn has_two_groupings(operand: Axes, inner: MomentOp, outer: MomentOp) -> bool {
    let of_operand = match operand.channels {
        Channels::Groups(groups) => Some(groups),
        Channels::One | Channels::All => None,
    };
    let of_moment = |op: MomentOp| match op.over() {
        IndexSet::Group(groups) => Some(groups),
        IndexSet::Batch | IndexSet::Instance | IndexSet::Layer | IndexSet::Channel | IndexSet::All => None,
    };
    let groupings: Vec<_> = [of_operand, of_moment(inner), of_moment(outer)].into_iter().flatten().collect();
    groupings.windows(2).any(|pair| pair[0] != pair[1])
}

/// The same index set and tracking for another moment.
pub(crate) fn with(op: MomentOp, moment: Moment) -> MomentOp {
    let tracking = op.tracking().unwrap_or(Tracking { momentum: Scalar::ZERO, running: Running::Biased });
    MomentOp::new(moment, op.over(), op.eps(), tracking)
}
