//! The joint graph: a layer and its gradient in one list of values.
//!
//! Unlike a [`normact_ir::Dag`] it has a second tensor, the upstream gradient, several results, and
//! sums over any axes, since the transpose of broadcasting is a sum. A statistic is split into its
//! reduction and what follows it, so that `std` and `var` of one operand share one reduction.
//!
//! Values are shared when equal, and simplified as they are made, by rules that are exact over the
//! real numbers: constants are folded, and factors that vary along fewer axes are collected on the
//! outside of products and taken out of sums. So `sum(dy * gamma / std)` becomes
//! `sum(dy) * (gamma / std)`: one reduction less when `sum(dy)` is needed anyway, and per-channel
//! arithmetic in place of per-element arithmetic. This local form was chosen over the e-graph
//! because a plan must be ready within milliseconds, and because here it is the number of
//! full-size operations that counts, which these rules never raise.

use normact_ir::{Axes, Channels, ParamId, Prim, Scalar};
use rustc_hash::FxHashMap;

/// The number of a value; operands have smaller numbers than their users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(u32);

impl ValueId {
    /// The position in the list of values.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a reduction computes of the elements of each slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Statistic {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The mean of their squares.
    MeanSquare,
    /// Their population variance.
    Variance,
}

/// What a value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expr {
    /// The layer's input `x`.
    Input,
    /// The upstream gradient `dy`, of the input's shape.
    Upstream,
    /// A number.
    Constant(Scalar),
    /// How many elements of shape `of` there are for each of shape `per`.
    Count {
        /// The axes counted.
        of: Axes,
        /// The axes that make one unit.
        per: Axes,
    },
    /// A parameter.
    Param(ParamId),
    /// The running average in the buffer of that number.
    Running(usize),
    /// An elementwise primitive.
    Prim(Prim, Operands),
    /// A reduction of `operand` to the axes `to`. Channels are counted one by one, also where the
    /// operand varies from group to group only.
    Reduce {
        /// What is computed.
        statistic: Statistic,
        /// The value reduced.
        operand: ValueId,
        /// The axes the result varies along.
        to: Axes,
    },
}

/// The operands of an elementwise primitive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operands {
    /// Of a unary primitive.
    One(ValueId),
    /// Of a binary primitive.
    Two(ValueId, ValueId),
}

impl Operands {
    /// Each operand, in order.
    pub fn iter(self) -> impl Iterator<Item = ValueId> {
        let (a, b) = match self {
            Operands::One(a) => (a, None),
            Operands::Two(a, b) => (a, Some(b)),
        };
        std::iter::once(a).chain(b)
    }
}

impl Expr {
    /// Each operand, in order.
    pub fn operands(self) -> impl Iterator<Item = ValueId> {
        let (elementwise, reduced) = match self {
            Expr::Prim(_, operands) => (Some(operands), None),
            Expr::Reduce { operand, .. } => (None, Some(operand)),
            Expr::Input
            | Expr::Upstream
            | Expr::Constant(_)
            | Expr::Count { .. }
            | Expr::Param(_)
            | Expr::Running(_) => (None, None),
        };
        elementwise.into_iter().flat_map(Operands::iter).chain(reduced)
    }
}

/// A value as `core * small * number`.
#[derive(Clone, Copy)]
struct Parts {
    core: Option<ValueId>,
    small: Option<ValueId>,
    number: f64,
}

/// The factors of a full-size product, and what it is scaled with.
#[derive(Clone)]
struct Factors {
    full: Vec<ValueId>,
    small: Option<ValueId>,
    number: f64,
}

impl Factors {
    fn is_scaled(&self) -> bool {
        self.small.is_some() || self.number != 1.0
    }
}

/// How deep in a product a sum is looked for. Products share their factors, so that without a limit
/// the search could take exponentially long.
const DEPTH: usize = 6;

/// Shared values, operands before users.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// Whether a division by a full-size value multiplies with its reciprocal. The derivatives of a
    /// quotient all need that; a value of its own is rounded once less without.
    pub(crate) shares_reciprocals: bool,
    /// Whether rows of positions are so short that their sums are nearly as many as there are elements.
    pub(crate) has_short_rows: bool,
    values: Vec<(Expr, Axes)>,
    known: FxHashMap<Expr, ValueId>,
}

impl Graph {
    /// The number of values.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there is no value yet.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Every value, operands before users.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = ValueId> + use<> {
        (0..self.values.len() as u32).map(ValueId)
    }

    /// What a value is.
    pub fn expr(&self, id: ValueId) -> Expr {
        self.values[id.index()].0
    }

    /// The axes a value varies along.
    pub fn axes(&self, id: ValueId) -> Axes {
        self.values[id.index()].1
    }

    /// For each value, whether one of `roots` depends on it; the operands of values for which
    /// `is_leaf` holds are not followed.
    pub fn cone(&self, roots: &[ValueId], is_leaf: impl Fn(ValueId) -> bool) -> Vec<bool> {
        let mut needed = vec![false; self.len()];
        roots.iter().for_each(|root| needed[root.index()] = true);
        for id in self.ids().rev() {
            if needed[id.index()] && !is_leaf(id) {
                self.expr(id).operands().for_each(|operand| needed[operand.index()] = true);
            }
        }
        needed
    }

    /// A value that has no operands.
    pub fn leaf(&mut self, expr: Expr, axes: Axes) -> ValueId {
        self.intern(expr, axes)
    }

    /// A number.
    pub fn constant(&mut self, value: f64) -> Option<ValueId> {
        Some(self.intern(Expr::Constant(Scalar::new(value)?), Axes::NONE))
    }

    fn number(&mut self, value: Scalar) -> ValueId {
        self.intern(Expr::Constant(value), Axes::NONE)
    }

    /// The number that a value is, if it is a constant.
    pub fn as_constant(&self, id: ValueId) -> Option<f64> {
        match self.expr(id) {
            Expr::Constant(value) => Some(value.get()),
            _ => None,
        }
    }

    /// A unary operation.
    pub fn unary(&mut self, prim: Prim, a: ValueId) -> ValueId {
        if let Some(folded) = self.as_constant(a).and_then(|a| Scalar::new(prim.value(a, 0.0))) {
            return self.number(folded);
        }
        match prim {
            Prim::Neg => self.negated(a),
            Prim::Square => self.product(a, a),
            _ => self.intern(Expr::Prim(prim, Operands::One(a)), self.axes(a)),
        }
    }

    /// A binary operation.
    pub fn binary(&mut self, prim: Prim, a: ValueId, b: ValueId) -> ValueId {
        if let (Some(x), Some(y)) = (self.as_constant(a), self.as_constant(b))
            && let Some(folded) = Scalar::new(prim.value(x, y))
        {
            return self.number(folded);
        }
        match prim {
            Prim::Mul => self.product(a, b),
            Prim::Add => self.sum_of_two(a, b),
            Prim::Div
                if self.as_constant(a) != Some(1.0)
                    && is_full(self.axes(a).union(self.axes(b)))
                    && (self.shares_reciprocals || !is_full(self.axes(b))) =>
            {
                // By a small divisor, a division per element becomes one per slot and a product per
                // element.
                let one = self.number(Scalar::ONE);
                let reciprocal = self.binary(Prim::Div, one, b);
                self.product(a, reciprocal)
            }
            Prim::Div if self.as_constant(b) == Some(1.0) => a,
            _ => self.plain(prim, a, b),
        }
    }

    fn plain(&mut self, prim: Prim, a: ValueId, b: ValueId) -> ValueId {
        let (a, b) = if prim.obeys(normact_ir::Law::Commutative) && b < a { (b, a) } else { (a, b) };
        let axes = by_channel(self.axes(a).union(self.axes(b)));
        self.intern(Expr::Prim(prim, Operands::Two(a, b)), axes)
    }

    /// The reduction of `operand` to the axes `to`.
    pub fn reduce(&mut self, statistic: Statistic, operand: ValueId, to: Axes) -> ValueId {
        let linear = matches!(statistic, Statistic::Sum | Statistic::Mean);
        let (core, factor) = self.split(operand);
        if let Some(factor) = factor
            && linear
            && self.axes(core) == self.axes(operand)
        {
            if is_constant_within(self.axes(factor), to) {
                let reduced = self.reduce(statistic, core, to);
                return self.product(reduced, factor);
            }
            // A factor of whole rows of positions is multiplied to the sums of rows.
            let rows = to.union(self.axes(factor));
            if !rows.positions && !self.has_short_rows {
                let sums = self.reduce(statistic, core, rows);
                let scaled = self.product(sums, factor);
                let reduced = self.reduce(statistic, scaled, to);
                let once = self.once(statistic, rows);
                return self.product(reduced, once);
            }
        }
        self.intern(Expr::Reduce { statistic, operand, to }, to)
    }

    /// The sum of `value` over the slots of shape `from` that fall into each slot of shape `to`. The
    /// value may vary along fewer axes than `from`: then it counts once for every slot it stands for.
    pub fn sum_to(&mut self, value: ValueId, from: Axes, to: Axes) -> ValueId {
        let axes = self.axes(value);
        let (core, factor) = self.split(value);
        if let Some(factor) = factor
            && from != to
            && is_constant_within(self.axes(factor), to)
        {
            let sum = self.sum_to(core, from, to);
            return self.product(sum, factor);
        }
        // What is left to sum, and how often each element of that counts.
        let (mut target, mut of, mut per) = (axes, Axes::NONE, Axes::NONE);
        let mut is_reduced = false;
        if from.samples && !to.samples {
            is_reduced |= axes.samples;
            target.samples = false;
            of.samples = !axes.samples;
        }
        if from.positions && !to.positions {
            is_reduced |= axes.positions;
            target.positions = false;
            of.positions = !axes.positions;
        }
        (of.channels, per.channels) = if axes.channels == Channels::One {
            (from.channels, to.channels)
        } else if axes.channels == to.channels || to.channels == Channels::All {
            // The channels stay as they are, but a reduction along other axes counts each of a group.
            if is_reduced { (axes.channels, Channels::All) } else { (from.channels, to.channels) }
        } else {
            is_reduced = true;
            target.channels = to.channels;
            // A reduction counts channels; slots of `from` may be groups of them.
            (from.channels, Channels::All)
        };
        let sum = if is_reduced { self.reduce(Statistic::Sum, value, target) } else { value };
        let count = self.count(of, per);
        self.product(sum, count)
    }

    /// What the reduction of such sums is multiplied with. It counts each sum of a group once for each of
    /// the group's channels, which makes no difference to a mean.
    pub(crate) fn once(&mut self, statistic: Statistic, sums: Axes) -> ValueId {
        if statistic != Statistic::Sum || !matches!(sums.channels, Channels::Groups(_)) {
            return self.number(Scalar::ONE);
        }
        let channels = |channels| Axes { channels, ..Axes::NONE };
        self.count(channels(sums.channels), channels(Channels::All))
    }

    /// How many elements of shape `of` there are for each of shape `per`.
    pub fn count(&mut self, mut of: Axes, mut per: Axes) -> ValueId {
        if of.samples && per.samples {
            (of.samples, per.samples) = (false, false);
        }
        if of.positions && per.positions {
            (of.positions, per.positions) = (false, false);
        }
        if of.channels == per.channels {
            (of.channels, per.channels) = (Channels::One, Channels::One);
        }
        if of == per { self.number(Scalar::ONE) } else { self.intern(Expr::Count { of, per }, Axes::NONE) }
    }

    /// A value as a product of a full-size core, a factor that varies along fewer axes, and a number.
    /// Products are built in that form, so one look at the outermost operations finds it.
    fn parts(&self, id: ValueId) -> Parts {
        if !is_full(self.axes(id)) {
            let (small, number) = self.small_parts(id);
            return Parts { core: None, small, number };
        }
        match self.expr(id) {
            Expr::Prim(Prim::Neg, Operands::One(a)) => Parts { core: Some(a), small: None, number: -1.0 },
            Expr::Prim(Prim::Mul, Operands::Two(a, b)) => match (is_full(self.axes(a)), is_full(self.axes(b))) {
                (true, false) => self.scaled(a, b),
                (false, true) => self.scaled(b, a),
                (true, true) | (false, false) => Parts { core: Some(id), small: None, number: 1.0 },
            },
            _ => Parts { core: Some(id), small: None, number: 1.0 },
        }
    }

    fn scaled(&self, core: ValueId, factor: ValueId) -> Parts {
        let (small, number) = self.small_parts(factor);
        Parts { core: Some(core), small, number }
    }

    fn small_parts(&self, id: ValueId) -> (Option<ValueId>, f64) {
        match self.expr(id) {
            Expr::Constant(number) => (None, number.get()),
            Expr::Prim(Prim::Neg, Operands::One(a)) => (Some(a), -1.0),
            Expr::Prim(Prim::Mul, Operands::Two(a, b)) => match (self.as_constant(a), self.as_constant(b)) {
                (None, Some(number)) => (Some(a), number),
                (Some(number), None) => (Some(b), number),
                _ => (Some(id), 1.0),
            },
            _ => (Some(id), 1.0),
        }
    }

    /// The product of the parts; `None` where the number is not finite.
    fn assemble(&mut self, Parts { core, small, number }: Parts) -> Option<ValueId> {
        let scaled = match (small, number) {
            (None, 1.0) => None,
            (None, -1.0) if core.is_some() => {
                let core = core?;
                return Some(self.intern(Expr::Prim(Prim::Neg, Operands::One(core)), self.axes(core)));
            }
            (None, number) => Some(self.constant(number)?),
            (Some(small), 1.0) => Some(small),
            (Some(small), -1.0) => Some(self.intern(Expr::Prim(Prim::Neg, Operands::One(small)), self.axes(small))),
            (Some(small), number) => {
                let number = self.constant(number)?;
                Some(self.plain(Prim::Mul, small, number))
            }
        };
        Some(match (core, scaled) {
            (Some(core), Some(factor)) => self.plain(Prim::Mul, core, factor),
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => self.number(Scalar::ONE),
        })
    }

    /// A value as a rest and a factor that sums may take out, if it can vary along so few axes.
    fn split(&mut self, id: ValueId) -> (ValueId, Option<ValueId>) {
        let parts = self.parts(id);
        let rest = match (parts.core, parts.small) {
            (Some(core), _) => core,
            (None, Some(small)) if parts.number != 1.0 => small,
            (None, Some(small)) => match self.expr(small) {
                Expr::Prim(Prim::Mul, Operands::Two(a, b)) => match (self.expr(a), self.expr(b)) {
                    (_, Expr::Count { .. }) => return (a, Some(b)),
                    (Expr::Count { .. }, _) => return (b, Some(a)),
                    _ => return (id, None),
                },
                _ => return (id, None),
            },
            (None, None) => return (id, None),
        };
        let small = if parts.core.is_some() { parts.small } else { None };
        match self.assemble(Parts { core: None, small, number: parts.number }) {
            Some(factor) if rest != id => (rest, Some(factor)),
            _ => (id, None),
        }
    }

    fn negated(&mut self, a: ValueId) -> ValueId {
        let parts = self.parts(a);
        let number = -parts.number;
        self.assemble(Parts { number, ..parts }).expect("a negated number is as finite as it was")
    }

    fn product(&mut self, a: ValueId, b: ValueId) -> ValueId {
        let (first, second) = (self.parts(a), self.parts(b));
        let small = match (first.small, second.small) {
            (Some(a), Some(b)) => Some(self.small_product(a, b)),
            (one, other) => one.or(other),
        };
        if small.is_some_and(|small| is_full(self.axes(small))) {
            return self.plain(Prim::Mul, a, b);
        }
        let core = match (first.core, second.core) {
            (Some(a), Some(b)) => Some(self.plain(Prim::Mul, a, b)),
            (one, other) => one.or(other),
        };
        let number = first.number * second.number;
        self.assemble(Parts { core, small, number }).unwrap_or_else(|| self.plain(Prim::Mul, a, b))
    }

    fn small_product(&mut self, a: ValueId, b: ValueId) -> ValueId {
        if let Some(mean) = self.mean_of(a, b, DEPTH).or_else(|| self.mean_of(b, a, DEPTH)) {
            return mean;
        }
        self.plain(Prim::Mul, a, b)
    }

    /// A product with a sum in it, times one over the number of its terms: a mean.
    fn mean_of(&mut self, product: ValueId, count: ValueId, depth: usize) -> Option<ValueId> {
        let Expr::Count { .. } = self.expr(count) else { return None };
        match self.expr(product) {
            Expr::Reduce { statistic: Statistic::Sum, operand, to } => {
                let terms = one_by_one(self.axes(operand));
                let mean = Expr::Reduce { statistic: Statistic::Mean, operand, to };
                (self.count(to, terms) == count).then(|| self.intern(mean, to))
            }
            Expr::Prim(Prim::Mul, Operands::Two(a, b)) if depth > 0 => match self.mean_of(a, count, depth - 1) {
                Some(mean) => Some(self.plain(Prim::Mul, mean, b)),
                None => self.mean_of(b, count, depth - 1).map(|mean| self.plain(Prim::Mul, a, mean)),
            },
            _ => None,
        }
    }

    fn sum_of_two(&mut self, a: ValueId, b: ValueId) -> ValueId {
        for (value, other) in [(a, b), (b, a)] {
            if self.as_constant(value) == Some(0.0) {
                return other;
            }
        }
        // `p * f + q * f` is `(p + q) * f`: one product instead of two.
        let (first, second) = (self.parts(a), self.parts(b));
        if let (Some(core), Some(other)) = (first.core, second.core)
            && first.small == second.small
            && first.number.abs() == second.number.abs()
            && (first.small.is_some() || first.number != 1.0)
        {
            let other = if first.number == second.number { other } else { self.negated(other) };
            let core = self.plain(Prim::Add, core, other);
            if let Some(sum) = self.assemble(Parts { core: Some(core), ..first }) {
                return sum;
            }
        }
        if let Some(sum) = self.scaled_sum(first, second).or_else(|| self.scaled_sum(second, first)) {
            return sum;
        }
        // A small term joins one of the products, so that each product is added to something.
        for (sum, small) in [(a, b), (b, a)] {
            if let Expr::Prim(Prim::Add, Operands::Two(p, q)) = self.expr(sum)
                && !is_full(self.axes(small))
                && [p, q].iter().all(|&id| is_full(self.axes(id)) && matches!(self.expr(id), Expr::Prim(Prim::Mul, _)))
            {
                let inner = self.plain(Prim::Add, q, small);
                return self.plain(Prim::Add, p, inner);
            }
        }
        if let Some(sum) = self.factored_sum(a, b).or_else(|| self.factored_sum(b, a)) {
            return sum;
        }
        self.plain(Prim::Add, a, b)
    }

    /// `p q + p r` as `p (q + r)`, where that is less to compute; `p q` may be a term of `sum`. The
    /// derivative of a product whose factors depend on one another is such a sum.
    fn factored_sum(&mut self, sum: ValueId, term: ValueId) -> Option<ValueId> {
        let own = self.factors(term)?;
        let mut rest: Option<ValueId> = None;
        let mut next = sum;
        for _ in 0..DEPTH {
            let (head, tail) = match self.expr(next) {
                Expr::Prim(Prim::Add, Operands::Two(a, b)) if is_full(self.axes(a)) && is_full(self.axes(b)) => {
                    if matches!(self.expr(a), Expr::Prim(Prim::Add, _)) { (b, Some(a)) } else { (a, Some(b)) }
                }
                _ => (next, None),
            };
            if let Some(factored) = self.factors(head).and_then(|factors| self.factored(&factors, &own)) {
                let others = [rest, tail].into_iter().flatten();
                return Some(others.fold(factored, |sum, other| self.plain(Prim::Add, other, sum)));
            }
            rest = Some(rest.map_or(head, |rest| self.plain(Prim::Add, rest, head)));
            next = tail?;
        }
        None
    }

    /// The sum of two products with what they share taken out, if it is less to compute: a product
    /// that is added to something takes no step of its own.
    fn factored(&mut self, first: &Factors, second: &Factors) -> Option<ValueId> {
        let (mut first, mut second) = (first.clone(), second.clone());
        let steps = |factors: &Factors| (factors.full.len() + usize::from(factors.is_scaled())).saturating_sub(1);
        let joined = |a: usize, b: usize| a + b + usize::from(a.max(b) == 0);
        let before = joined(steps(&first), steps(&second));
        let mut common = vec![];
        first.full.retain(|id| match second.full.iter().position(|other| other == id) {
            Some(position) => {
                common.push(second.full.remove(position));
                false
            }
            None => true,
        });
        let small = first.full.is_empty() && second.full.is_empty();
        let after = common.len() + if small { 0 } else { joined(steps(&first), steps(&second)) };
        if common.is_empty() || after >= before {
            return None;
        }
        let (first, second) = (self.multiplied(first)?, self.multiplied(second)?);
        let sum = self.sum_of_two(first, second);
        let shared = common.into_iter().reduce(|product, factor| self.product(product, factor))?;
        Some(self.product(shared, sum))
    }

    /// A full-size product taken apart.
    fn factors(&self, id: ValueId) -> Option<Factors> {
        let Parts { core, small, number } = self.parts(id);
        let mut factors = Factors { full: vec![], small, number };
        let mut open = vec![core?];
        while let Some(id) = open.pop() {
            match self.expr(id) {
                Expr::Prim(Prim::Mul, Operands::Two(a, b)) if is_full(self.axes(a)) && is_full(self.axes(b)) => {
                    open.extend([b, a]);
                }
                _ => factors.full.push(id),
            }
            if open.len() + factors.full.len() > DEPTH {
                return None;
            }
        }
        Some(factors)
    }

    fn multiplied(&mut self, Factors { full, small, number }: Factors) -> Option<ValueId> {
        let core = full.into_iter().reduce(|product, factor| self.product(product, factor));
        self.assemble(Parts { core, small, number })
    }

    /// `p * f + q * f`, where only `p` is full-size, as `(p + q) * f`: what cancels does so before it
    /// is scaled and rounded.
    fn scaled_sum(&mut self, full: Parts, small: Parts) -> Option<ValueId> {
        let (Some(core), Some(factor), None, Some(product)) = (full.core, full.small, small.core, small.small) else {
            return None;
        };
        let Expr::Prim(Prim::Mul, Operands::Two(a, b)) = self.expr(product) else { return None };
        let rest = if a == factor { b } else { (b == factor).then_some(a)? };
        let number = self.constant(small.number / full.number)?;
        let rest = self.product(rest, number);
        let sum = self.plain(Prim::Add, core, rest);
        self.assemble(Parts { core: Some(sum), ..full })
    }

    fn intern(&mut self, expr: Expr, axes: Axes) -> ValueId {
        *self.known.entry(expr).or_insert_with(|| {
            self.values.push((expr, axes));
            ValueId((self.values.len() - 1) as u32)
        })
    }
}

/// Whether a value varies along channels and positions, so that no layout of the input keeps it
/// constant along the innermost axis.
pub(crate) fn is_full(axes: Axes) -> bool {
    axes.channels != Channels::One && axes.positions
}

/// What varies along groups and along positions is taken to vary along channels: no index set reduces a
/// value to groups at each position.
fn by_channel(axes: Axes) -> Axes {
    if axes.positions { one_by_one(axes) } else { axes }
}

/// The axes of the elements that a reduction of such a value counts.
pub fn one_by_one(axes: Axes) -> Axes {
    match axes.channels {
        Channels::One => axes,
        Channels::Groups(_) | Channels::All => Axes { channels: Channels::All, ..axes },
    }
}

/// Whether such a value is the same for everything that falls into one slot of shape `slots`.
pub(crate) fn is_constant_within(axes: Axes, slots: Axes) -> bool {
    let channels = axes.channels == Channels::One || slots.channels == Channels::All || axes.channels == slots.channels;
    channels && (!axes.samples || slots.samples) && (!axes.positions || slots.positions)
}
