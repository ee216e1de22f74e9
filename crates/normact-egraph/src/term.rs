//! Terms: the graph of a layer read modulo associativity and commutativity.
//!
//! Sums, products and maxima are flat lists of operands in a fixed order, so a chain of thirty terms
//! is one node whichever way it was written, and no rule has to try the orders. Negation, division,
//! `square`, `sqrt`, `abs` and `sign` are one operation, the *signed power*
//!
//! ```text
//! a^p      = sign(a) * |a|^p    (odd)         a, 1/a, sqrt(a), sign(a) = a^0, ...
//! a^(p, even)     =     |a|^p    (even)        |a|, square(a), 1/square(a), sqrt(|a|), ...
//! ```
//!
//! since the language's roots and powers are all of that kind. Products of signed powers form a
//! commutative group (where nothing is zero), which is what makes a normal form of products
//! possible: one exponent and one parity for each base. That is notation, not a rule: reading a graph
//! as a term and writing a term as a graph changes no value.
//!
//! Terms are hash-consed in an arena. Operands are ordered by a structural hash that depends on
//! nothing but the term, never on the order of creation.

use normact_ir::{Axes, Extent, Interval, Moment, MomentOp, Prim, Scalar};
use rustc_hash::FxHashMap;

use crate::normal::has_two_groupings;

/// The number of a term in its arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TermId(u32);

impl TermId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The exponent of a signed power with its parity: `odd` keeps the sign of the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Exponent {
    pub(crate) value: Scalar,
    pub(crate) odd: bool,
}

impl Exponent {
    /// `a^1 = a`
    pub(crate) const ONE: Exponent = Exponent { value: Scalar::ONE, odd: true };
    /// `sign(a)`
    pub(crate) const SIGN: Exponent = Exponent { value: Scalar::ZERO, odd: true };
    /// `|a|`
    pub(crate) const ABS: Exponent = Exponent { value: Scalar::ONE, odd: false };

    pub(crate) fn new(value: f64, odd: bool) -> Option<Self> {
        Scalar::new(value).map(|value| Self { value, odd })
    }

    /// The exponent with the parity of ordinary powers: odd for odd whole numbers, even for even
    /// ones, odd for fractions (the language's signed root).
    pub(crate) fn natural(value: f64) -> Option<Self> {
        Self::new(value, natural_parity(value))
    }

    pub(crate) fn get(self) -> f64 {
        self.value.get()
    }

    pub(crate) fn is_natural(self) -> bool {
        self.odd == natural_parity(self.get())
    }

    /// A whole number of factors, at least one, with the parity of that product.
    pub(crate) fn as_count(self) -> Option<u32> {
        let value = self.get();
        (value >= 1.0 && value.fract() == 0.0 && value <= 64.0 && self.is_natural()).then_some(value as u32)
    }
}

fn natural_parity(value: f64) -> bool {
    value.fract() != 0.0 || value.rem_euclid(2.0) == 1.0
}

/// What a term computes from its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Head {
    /// What real arithmetic leaves undefined, such as `1 / 0`.
    Undefined,
    Const(Scalar),
    Input,
    /// A parameter by its label.
    Param(u32),
    Sum,
    Product,
    Max,
    Power(Exponent),
    /// `sigmoid`, `tanh`, `exp`, `log` or `erf`.
    Unary(Prim),
    Moment(MomentOp),
}

/// The properties of a parameter that count: its name does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ParamClass {
    pub(crate) extent: Extent,
    pub(crate) init: Scalar,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    head: Head,
    first: u32,
    count: u32,
    hash: u64,
    axes: Axes,
    range: Interval,
    /// Whether a parameter occurs in it.
    has_params: bool,
    /// How deeply its operands nest.
    depth: u32,
}

/// An arena of terms.
#[derive(Debug, Clone, Default)]
pub(crate) struct Terms {
    nodes: Vec<Node>,
    operands: Vec<TermId>,
    interned: FxHashMap<u64, TermId>,
    /// The label, extent and initial value of each parameter; the position is what [`Head::Param`] holds.
    params: Vec<(u32, ParamClass)>,
    scratch: Vec<TermId>,
    /// Whether a chain became too long or a constant too large.
    overflow: bool,
}

/// The most operands of a chain.
const MAX_CHAIN: usize = 4096;

impl Terms {
    /// Forgets every term and keeps the memory.
    pub(crate) fn clear(&mut self, params: impl IntoIterator<Item = (u32, ParamClass)>) {
        self.nodes.clear();
        self.operands.clear();
        self.interned.clear();
        self.overflow = false;
        self.params.clear();
        self.params.extend(params);
    }

    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether a chain became too long to be flat, or a constant too large.
    pub(crate) fn overflow(&self) -> bool {
        self.overflow
    }

    /// How much the arena holds: terms and their operands.
    pub(crate) fn size(&self) -> usize {
        self.nodes.len() + self.operands.len()
    }

    /// The term number `index`.
    pub(crate) fn at(&self, index: usize) -> TermId {
        debug_assert!(index < self.len());
        TermId(index as u32)
    }

    pub(crate) fn head(&self, id: TermId) -> Head {
        self.nodes[id.index()].head
    }

    pub(crate) fn operands(&self, id: TermId) -> &[TermId] {
        let node = &self.nodes[id.index()];
        &self.operands[node.first as usize..(node.first + node.count) as usize]
    }

    /// The one operand of a power, a function or a moment.
    pub(crate) fn operand(&self, id: TermId) -> TermId {
        self.operands(id)[0]
    }

    /// The structural hash: equal for equal terms of any arena whose parameters have the same labels.
    pub(crate) fn hash(&self, id: TermId) -> u64 {
        self.nodes[id.index()].hash
    }

    pub(crate) fn axes(&self, id: TermId) -> Axes {
        self.nodes[id.index()].axes
    }

    /// An interval that holds every value the term can take where it is defined.
    pub(crate) fn range(&self, id: TermId) -> Interval {
        self.nodes[id.index()].range
    }

    pub(crate) fn has_params(&self, id: TermId) -> bool {
        self.nodes[id.index()].has_params
    }

    /// How deeply the operands nest.
    pub(crate) fn depth(&self, id: TermId) -> u32 {
        self.nodes[id.index()].depth
    }

    pub(crate) fn param_class(&self, param: u32) -> ParamClass {
        self.params[param as usize].1
    }

    pub(crate) fn param_label(&self, param: u32) -> u32 {
        self.params[param as usize].0
    }

    pub(crate) fn const_value(&self, id: TermId) -> Option<f64> {
        match self.head(id) {
            Head::Const(value) => Some(value.get()),
            _ => None,
        }
    }

    pub(crate) fn is_const(&self, id: TermId, value: f64) -> bool {
        self.const_value(id) == Some(value)
    }

    pub(crate) fn undefined(&mut self) -> TermId {
        self.intern(Head::Undefined, &[])
    }

    pub(crate) fn input(&mut self) -> TermId {
        self.intern(Head::Input, &[])
    }

    pub(crate) fn param(&mut self, param: u32) -> TermId {
        self.intern(Head::Param(param), &[])
    }

    pub(crate) fn constant(&mut self, value: Scalar) -> TermId {
        self.intern(Head::Const(value), &[])
    }

    /// A constant. A number that is not finite is no constant: the arena overflows, and whoever asked
    /// must not use the term.
    pub(crate) fn number(&mut self, value: f64) -> TermId {
        match Scalar::new(value) {
            Some(value) => self.constant(value),
            None => {
                self.overflow = true;
                self.undefined()
            }
        }
    }

    /// The sum of the operands: flat, in order.
    pub(crate) fn sum(&mut self, operands: &[TermId]) -> TermId {
        self.chain(Head::Sum, operands, 0.0)
    }

    /// The product of the operands: flat, in order.
    pub(crate) fn product(&mut self, operands: &[TermId]) -> TermId {
        self.chain(Head::Product, operands, 1.0)
    }

    /// The maximum of at least one operand: flat, in order.
    pub(crate) fn max(&mut self, operands: &[TermId]) -> TermId {
        debug_assert!(!operands.is_empty());
        self.chain(Head::Max, operands, 0.0)
    }

    fn chain(&mut self, head: Head, operands: &[TermId], empty: f64) -> TermId {
        let mut flat = std::mem::take(&mut self.scratch);
        flat.clear();
        let length = |id: TermId| if self.head(id) == head { self.operands(id).len() } else { 1 };
        self.overflow |= operands.iter().map(|&operand| length(operand)).sum::<usize>() > MAX_CHAIN;
        for &operand in operands {
            // A chain that grows without end is left nested; the budget has run out.
            if self.head(operand) == head && !self.overflow {
                flat.extend_from_slice(self.operands(operand));
            } else {
                flat.push(operand);
            }
        }
        let id = match flat.as_slice() {
            [] => self.number(empty),
            [one] => *one,
            _ => {
                flat.sort_unstable_by_key(|&operand| {
                    let node = &self.nodes[operand.index()];
                    (!matches!(node.head, Head::Const(_)), node.hash)
                });
                self.intern(head, &flat)
            }
        };
        self.scratch = flat;
        id
    }

    /// A signed power; `a^1` is `a`.
    pub(crate) fn power(&mut self, base: TermId, exponent: Exponent) -> TermId {
        if exponent == Exponent::ONE { base } else { self.intern(Head::Power(exponent), &[base]) }
    }

    /// The base and exponent of a factor.
    pub(crate) fn as_power(&self, id: TermId) -> (TermId, Exponent) {
        match self.head(id) {
            Head::Power(exponent) => (self.operand(id), exponent),
            _ => (id, Exponent::ONE),
        }
    }

    pub(crate) fn neg(&mut self, id: TermId) -> TermId {
        self.scaled(-1.0, id)
    }

    /// `factor * a` as a raw product.
    pub(crate) fn scaled(&mut self, factor: f64, id: TermId) -> TermId {
        let factor = self.number(factor);
        self.product(&[factor, id])
    }

    pub(crate) fn unary(&mut self, prim: Prim, operand: TermId) -> TermId {
        self.intern(Head::Unary(prim), &[operand])
    }

    pub(crate) fn moment(&mut self, op: MomentOp, operand: TermId) -> TermId {
        self.intern(Head::Moment(op), &[operand])
    }

    /// The term with this head and these operands.
    pub(crate) fn make(&mut self, head: Head, operands: &[TermId]) -> TermId {
        match head {
            Head::Sum => self.sum(operands),
            Head::Product => self.product(operands),
            Head::Max => self.max(operands),
            Head::Power(exponent) => self.power(operands[0], exponent),
            Head::Undefined | Head::Const(_) | Head::Input | Head::Param(_) | Head::Unary(_) | Head::Moment(_) => {
                self.intern(head, operands)
            }
        }
    }

    /// The constant factor of a term and the product of its other factors.
    pub(crate) fn split_coefficient(&mut self, id: TermId) -> (f64, TermId) {
        match self.head(id) {
            Head::Const(value) => (value.get(), self.product(&[])),
            Head::Product => {
                let operands = self.operands(id);
                match self.const_value(operands[0]) {
                    Some(value) => {
                        let rest = operands[1..].to_vec();
                        (value, self.product(&rest))
                    }
                    None => (1.0, id),
                }
            }
            _ => (1.0, id),
        }
    }

    fn intern(&mut self, head: Head, operands: &[TermId]) -> TermId {
        let mut hash = self.hash_of(head, operands);
        loop {
            match self.interned.get(&hash) {
                Some(&id) if same(self.nodes[id.index()].head, head) && self.operands(id) == operands => return id,
                // Two terms with one 64-bit hash: move on to the next.
                Some(_) => hash = mix(hash, 1),
                None => break,
            }
        }
        let id = TermId(u32::try_from(self.nodes.len()).expect("the budget keeps arenas small"));
        let node = Node {
            head,
            first: self.operands.len() as u32,
            count: operands.len() as u32,
            hash,
            axes: self.axes_of(head, operands),
            range: self.range_of(head, operands),
            depth: operands.iter().map(|&operand| self.depth(operand) + 1).max().unwrap_or(0),
            has_params: matches!(head, Head::Param(_)) || operands.iter().any(|&operand| self.has_params(operand)),
        };
        self.operands.extend_from_slice(operands);
        self.nodes.push(node);
        self.interned.insert(hash, id);
        id
    }

    fn hash_of(&self, head: Head, operands: &[TermId]) -> u64 {
        let start = match head {
            Head::Undefined => mix(1, 0),
            Head::Const(value) => mix(2, quantum(value)),
            Head::Input => mix(3, 0),
            Head::Param(param) => {
                let (label, class) = self.params[param as usize];
                let extent = match class.extent {
                    Extent::PerChannel => 0,
                    Extent::Scalar => 1,
                };
                mix(mix(mix(4, u64::from(label)), extent), class.init.get().to_bits())
            }
            Head::Sum => mix(5, 0),
            Head::Product => mix(6, 0),
            Head::Max => mix(7, 0),
            Head::Power(exponent) => mix(mix(8, exponent.get().to_bits()), u64::from(exponent.odd)),
            Head::Unary(prim) => mix(9, hash_text(prim.name())),
            Head::Moment(op) => hash_moment(op),
        };
        operands.iter().fold(start, |hash, &operand| mix(hash, self.hash(operand)))
    }

    fn axes_of(&self, head: Head, operands: &[TermId]) -> Axes {
        let union = || operands.iter().map(|&operand| self.axes(operand)).fold(Axes::NONE, Axes::union);
        match head {
            Head::Undefined | Head::Const(_) => Axes::NONE,
            Head::Input => Axes::INPUT,
            Head::Param(param) => match self.param_class(param).extent {
                Extent::PerChannel => Axes::CHANNEL,
                Extent::Scalar => Axes::NONE,
            },
            Head::Sum | Head::Product | Head::Max | Head::Power(_) | Head::Unary(_) => union(),
            Head::Moment(op) => union().reduce(op.over()),
        }
    }

    fn range_of(&self, head: Head, operands: &[TermId]) -> Interval {
        let fold = |prim: Prim| {
            operands.iter().map(|&operand| self.range(operand)).reduce(|a, b| prim.range(a, b)).unwrap_or(Interval::ALL)
        };
        match head {
            Head::Undefined | Head::Input | Head::Param(_) => Interval::ALL,
            Head::Const(value) => Interval::point(value.get()),
            Head::Sum => self.sum_range(operands, fold(Prim::Add)),
            Head::Product => self.product_range(operands, fold(Prim::Mul)),
            Head::Max => fold(Prim::Max),
            Head::Power(exponent) => power_range(self.range(operands[0]), exponent),
            Head::Unary(prim) => {
                let operand = self.range(operands[0]);
                prim.range(operand, operand)
            }
            Head::Moment(op) => self.range(operands[0]).moment(op.moment(), op.eps().get()),
        }
    }

    /// Two facts that the intervals of the terms of a sum do not show: `k * |a| + l * a` with `|l| <= k`
    /// is not negative, and neither is a sum of squares, multiplied out.
    fn sum_range(&self, operands: &[TermId], folded: Interval) -> Interval {
        if folded.is_not_negative() || folded.high() <= 0.0 || operands.len() > 12 {
            return folded;
        }
        let monomials: Vec<Monomial> = operands.iter().map(|&operand| self.monomial(operand)).collect();
        let ranges: Vec<Interval> = operands.iter().map(|&operand| self.range(operand)).collect();
        let better = |found: Interval| found.low() > folded.low() || (found.is_positive() && !folded.is_positive());
        if let Some(found) = absolute_values(&monomials, &ranges).filter(|&found| better(found)) {
            return found;
        }
        if let Some(found) = self.variances(operands, &ranges).filter(|&found| better(found)) {
            return found;
        }
        if let Some(found) = squares(&monomials, &ranges, 1.0) {
            return found;
        }
        match squares(&monomials, &ranges, -1.0) {
            Some(found) => Prim::Neg.range(found, found),
            None => folded,
        }
    }

    /// The range of a sum in which some `-l * var(mean(a))` have a `k * var(a)` with `l <= k` beside them:
    /// the variance of means is a part of the variance.
    fn variances(&self, operands: &[TermId], ranges: &[Interval]) -> Option<Interval> {
        let var_of = |id: TermId| -> Option<(f64, TermId)> {
            let (coefficient, factor) = match (self.head(id), self.operands(id)) {
                (Head::Product, [coefficient, factor]) => (self.const_value(*coefficient)?, *factor),
                _ => (1.0, id),
            };
            match self.head(factor) {
                Head::Moment(op) if op.moment() == Moment::Var => Some((coefficient, self.operand(factor))),
                _ => None,
            }
        };
        let mut used = vec![false; operands.len()];
        for (index, &part) in operands.iter().enumerate() {
            let Some((l, mean)) = var_of(part).filter(|(l, _)| *l < 0.0) else { continue };
            let whole = match (self.head(mean), self.head(self.split_product(part))) {
                (Head::Moment(inner), Head::Moment(outer))
                    if inner.moment() == Moment::Mean
                        && !has_two_groupings(self.axes(self.operand(mean)), inner, outer) =>
                {
                    self.operand(mean)
                }
                _ => continue,
            };
            let partner = (0..operands.len()).find(|&other| {
                let fits = |(k, of): (f64, TermId)| of == whole && k >= -l;
                !used[other]
                    && self.axes(operands[other]) == self.axes(part)
                    && var_of(operands[other]).is_some_and(fits)
            });
            if let Some(partner) = partner {
                (used[index], used[partner]) = (true, true);
            }
        }
        if !used.contains(&true) {
            return None;
        }
        let rest = ranges.iter().zip(&used).filter(|(_, used)| !**used).map(|(range, _)| *range);
        Some(rest.fold(Interval::new(0.0, f64::INFINITY), |a, b| Prim::Add.range(a, b)))
    }

    /// The last factor of a product, or the term itself.
    fn split_product(&self, id: TermId) -> TermId {
        match self.head(id) {
            Head::Product => self.operands(id).last().copied().unwrap_or(id),
            _ => id,
        }
    }

    /// A term as coefficient and powers.
    fn monomial(&self, id: TermId) -> Monomial {
        let mut monomial = Monomial { coefficient: 1.0, powers: Vec::new() };
        let factors = match self.head(id) {
            Head::Product => self.operands(id),
            _ => &[id],
        };
        for &factor in factors {
            match self.const_value(factor) {
                Some(value) => monomial.coefficient *= value,
                None => monomial.powers.push(self.as_power(factor)),
            }
        }
        monomial.powers.sort_unstable();
        monomial
    }

    /// `sign(a) * f(a)` is `|f(a)|` for an odd function `f` that keeps signs.
    fn product_range(&self, operands: &[TermId], folded: Interval) -> Interval {
        if folded.is_not_negative() || operands.len() > 8 {
            return folded;
        }
        let mut used = [false; 8];
        let mut total = Interval::point(1.0);
        for (index, &operand) in operands.iter().enumerate() {
            let (base, exponent) = self.as_power(operand);
            if !exponent.odd || !matches!(self.head(base), Head::Unary(Prim::Tanh | Prim::Erf)) {
                continue;
            }
            let argument = self.operand(base);
            let partner = operands.iter().enumerate().position(|(other, &operand)| {
                let (base, exponent) = self.as_power(operand);
                other != index && !used[other] && base == argument && exponent.odd
            });
            if let Some(partner) = partner {
                used[index] = true;
                used[partner] = true;
                let magnitude = |id: TermId| Prim::Abs.range(self.range(id), self.range(id));
                let pair = Prim::Mul.range(magnitude(operand), magnitude(operands[partner]));
                total = Prim::Mul.range(total, pair);
            }
        }
        if !used.contains(&true) {
            return folded;
        }
        let rest =
            operands.iter().enumerate().filter(|(index, _)| !used[*index]).map(|(_, &operand)| self.range(operand));
        rest.fold(total, |a, b| Prim::Mul.range(a, b))
    }
}

/// A constant times a product of powers, in order.
#[derive(Debug, Clone)]
struct Monomial {
    coefficient: f64,
    powers: Vec<(TermId, Exponent)>,
}

impl Monomial {
    /// The powers of the monomial whose square this is, constant aside.
    fn square_root(&self) -> Option<Vec<(TermId, Exponent)>> {
        let half = |&(base, exponent): &(TermId, Exponent)| {
            let even = exponent.get() != 0.0 && exponent.get().rem_euclid(2.0) == 0.0 && exponent.is_natural();
            if even { Exponent::natural(exponent.get() / 2.0).map(|half| (base, half)) } else { None }
        };
        self.powers.iter().map(half).collect()
    }
}

/// The range of a sum in which some `l * a` have a `k * |a|` with `|l| <= k` beside them.
fn absolute_values(monomials: &[Monomial], ranges: &[Interval]) -> Option<Interval> {
    let single = |monomial: &Monomial, exponent: Exponent| match monomial.powers[..] {
        [(base, found)] if found == exponent => Some(base),
        _ => None,
    };
    let mut used = vec![false; monomials.len()];
    let mut total = Interval::point(0.0);
    for (index, monomial) in monomials.iter().enumerate() {
        let Some(base) = single(monomial, Exponent::ABS).filter(|_| monomial.coefficient > 0.0) else { continue };
        let partner = (0..monomials.len()).find(|&other| {
            let other_monomial = &monomials[other];
            !used[other]
                && single(other_monomial, Exponent::ONE) == Some(base)
                && other_monomial.coefficient.abs() <= monomial.coefficient
        });
        if let Some(partner) = partner {
            (used[index], used[partner]) = (true, true);
            total = Prim::Add.range(total, Interval::new(0.0, f64::INFINITY));
        }
    }
    if !used.contains(&true) {
        return None;
    }
    let rest = ranges.iter().zip(&used).filter(|(_, used)| !**used).map(|(range, _)| *range);
    Some(rest.fold(total, |a, b| Prim::Add.range(a, b)))
}

/// The range of `sign` times a sum that is a positive semidefinite form in the monomials whose squares
/// occur in it, plus terms of one sign; `None` if it is none.
fn squares(monomials: &[Monomial], ranges: &[Interval], sign: f64) -> Option<Interval> {
    let coefficient = |index: usize| sign * monomials[index].coefficient;
    let signed = |index: usize| {
        let range = ranges[index];
        if sign < 0.0 { Prim::Neg.range(range, range) } else { range }
    };
    let doubtful = |index: usize| !signed(index).is_not_negative();
    // The squares, and the constant as the square of a number where a term needs it.
    let mut basis: Vec<(usize, Vec<(TermId, Exponent)>)> = Vec::new();
    for (index, monomial) in monomials.iter().enumerate() {
        if coefficient(index) > 0.0
            && let Some(root) = monomial.square_root()
        {
            basis.push((index, root));
        }
    }
    if basis.is_empty() {
        return None;
    }
    let mut form = vec![vec![0.0; basis.len()]; basis.len()];
    let mut in_form = vec![false; basis.len()];
    for index in (0..monomials.len()).filter(|&index| doubtful(index)) {
        let mut pairs = (0..basis.len()).flat_map(|i| (i + 1..basis.len()).map(move |j| (i, j)));
        let (i, j) =
            pairs.find(|&(i, j)| product(&basis[i].1, &basis[j].1).as_ref() == Some(&monomials[index].powers))?;
        form[i][j] += coefficient(index) / 2.0;
        form[j][i] = form[i][j];
        (in_form[i], in_form[j]) = (true, true);
    }
    for (position, (index, _)) in basis.iter().enumerate() {
        form[position][position] = coefficient(*index);
    }
    if !is_positive_semidefinite(form) {
        return None;
    }
    let used = |index: usize| basis.iter().zip(&in_form).any(|((square, _), used)| *square == index && *used);
    let rest = (0..monomials.len()).filter(|&index| !doubtful(index) && !used(index)).map(signed);
    Some(rest.fold(Interval::new(0.0, f64::INFINITY), |a, b| Prim::Add.range(a, b)))
}

/// The product of two monomials with natural exponents.
fn product(a: &[(TermId, Exponent)], b: &[(TermId, Exponent)]) -> Option<Vec<(TermId, Exponent)>> {
    let mut powers = a.to_vec();
    for &(base, exponent) in b {
        match powers.iter_mut().find(|(other, _)| *other == base) {
            Some((_, other)) => *other = Exponent::new(other.get() + exponent.get(), other.odd != exponent.odd)?,
            None => powers.push((base, exponent)),
        }
    }
    powers.sort_unstable();
    Some(powers)
}

/// Gaussian elimination on a symmetric matrix.
fn is_positive_semidefinite(mut matrix: Vec<Vec<f64>>) -> bool {
    let size = matrix.len();
    // With ones on the diagonal, which is positive, one tolerance fits all.
    let scale: Vec<f64> = (0..size).map(|index| 1.0 / matrix[index][index].sqrt()).collect();
    for (row, values) in matrix.iter_mut().enumerate() {
        values.iter_mut().zip(&scale).for_each(|(value, column)| *value *= scale[row] * column);
    }
    if matrix.iter().flatten().any(|value| !value.is_finite()) {
        return false;
    }
    let tolerance = 1e-12;
    for pivot in 0..size {
        let diagonal = matrix[pivot][pivot];
        if diagonal < -tolerance {
            return false;
        }
        if diagonal <= tolerance {
            if (pivot + 1..size).any(|column| matrix[pivot][column].abs() > tolerance) {
                return false;
            }
            continue;
        }
        let (above, below) = matrix.split_at_mut(pivot + 1);
        for row in below {
            let factor = row[pivot] / diagonal;
            row.iter_mut().zip(&above[pivot]).skip(pivot).for_each(|(value, other)| *value -= factor * other);
        }
    }
    true
}

/// The image of a signed power.
fn power_range(base: Interval, exponent: Exponent) -> Interval {
    let magnitude = Prim::Abs.range(base, base);
    let power = |value: f64| value.powf(exponent.get());
    let value = exponent.get();
    let image = if value > 0.0 {
        Interval::new(power(magnitude.low()), power(magnitude.high()))
    } else if value < 0.0 {
        Interval::new(power(magnitude.high()), power(magnitude.low()))
    } else if base.contains_zero() {
        Interval::new(0.0, 1.0)
    } else {
        Interval::point(1.0)
    };
    // A negative power of zero is undefined, so its values are never zero.
    let nonzero = value < 0.0 || !base.contains_zero();
    let image = if nonzero { image.without_zero() } else { image };
    if !exponent.odd || base.is_not_negative() {
        return image;
    }
    let negative = Prim::Neg.range(image, image);
    if base.high() <= 0.0 {
        return negative;
    }
    let both = Interval::new(negative.low(), image.high());
    if nonzero { both.without_zero() } else { both }
}

/// Two heads are the same when they are equal, constants when they agree to 13 digits: the same number
/// computed in two ways.
fn same(a: Head, b: Head) -> bool {
    match (a, b) {
        (Head::Const(a), Head::Const(b)) => quantum(a) == quantum(b),
        _ => a == b,
    }
}

/// The number without its last bits, in which rounding shows.
pub(crate) fn quantum(value: Scalar) -> u64 {
    const DROPPED: u32 = 8;
    let bits = value.get().to_bits();
    if !value.get().is_normal() {
        // Nothing is near zero.
        return bits;
    }
    // Adding half of what is dropped rounds to nearest; a carry into the exponent is right.
    (bits + (1 << (DROPPED - 1))) >> DROPPED
}

/// A fixed mixing function: the order of operands and so the key depend on it.
pub(crate) fn mix(hash: u64, value: u64) -> u64 {
    let product =
        u128::from(hash ^ 0x9e37_79b9_7f4a_7c15) * u128::from(value ^ 0xd1b5_4a32_d192_ed03 ^ hash.rotate_left(23));
    let folded = (product as u64) ^ ((product >> 64) as u64);
    folded.wrapping_mul(0x94d0_49bb_1331_11eb) ^ hash.rotate_left(41) ^ value.rotate_left(7)
}

fn hash_text(text: &str) -> u64 {
    text.bytes().fold(0, |hash, byte| mix(hash, u64::from(byte)))
}

fn hash_moment(op: MomentOp) -> u64 {
    use normact_ir::{Groups, IndexSet, Running};
    let groups = match op.over() {
        IndexSet::Group(Groups::AtMost(count)) => 2 * u64::from(count.get()),
        IndexSet::Group(Groups::Exactly(count)) => 2 * u64::from(count.get()) + 1,
        IndexSet::Batch | IndexSet::Instance | IndexSet::Layer | IndexSet::Channel | IndexSet::All => 0,
    };
    let tracking = op.tracking().map_or(0, |tracking| {
        let running = match tracking.running {
            Running::Biased => 1,
            Running::Unbiased => 2,
        };
        mix(running, tracking.momentum.get().to_bits())
    });
    let parts =
        [hash_text(op.moment().name()), hash_text(op.over().name()), groups, op.eps().get().to_bits(), tracking];
    parts.into_iter().fold(10, mix)
}
