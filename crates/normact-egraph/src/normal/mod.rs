//! The normal form: every layer rewritten, by the [rules](crate::rules), to one spelling.
//!
//! **Why not an e-graph.** A search asks for ten thousand keys a second, whichever way a chain is
//! written. An e-graph with rules for associativity and commutativity at its default limits makes half
//! of that, and of sums of more than four terms no two orders get one form (`cargo bench -p
//! normact-egraph`): it holds all spellings at once, and those of a sum of n terms outnumber `n!`.
//! Nearly all of the algebra of a norm-activation layer has a direction: collect like terms, add
//! exponents, pull constants out of a mean. So the identity of a layer is decided by rewriting in that
//! direction, on terms whose chains are flat and sorted ([`crate::term`]), and the e-graph is kept for
//! what needs a choice: the cheapest form to execute ([`crate::simplify`]).
//!
//! **How.** Operands first, then the first rule that applies at the root, until none does; the result
//! of every term is remembered, so each shared value is treated once. A rule sees operands in normal
//! form and returns a new term. What is decided here:
//!
//! * A product has one constant, one exponent for each base, one exponential. A sum of
//!   proportional terms has one of each, and no factor that all its terms share: that is taken out,
//!   so that `v * x + v` and `v * (x + 1)` meet. Products of sums stay products as long as roots,
//!   quotients and logarithms can make use of the factors; they are multiplied out inside a sum, a
//!   function or a statistic, and at the end.
//! * `max(a, b)` is `(a + b + |a - b|) / 2`, which gives it all the laws of sums and absolute values;
//!   a maximum of three or more is a sorted list, with what all its operands share taken out.
//! * Roots of statistics become statistics: only `mean` and `var` are left, and `mean(a^2)` is
//!   `var(a) + mean(a)^2`. Means are linear, and skip what is constant along their axes.
//!
//! **What equality means** here is given by [`Relation`]. The rules that cancel (`x / x = 1`) ask
//! whether the base can be zero: never, for [`Relation::Exact`]; on more than a set of measure zero,
//! or at the initial values of the parameters, for [`Relation::AlmostEverywhere`]. The latter matters:
//! `v / v` with a `v` that starts at 0 is not a number when training starts, and `relu(x) / relu(x)`
//! is undefined for half of all inputs.

mod activation;
mod moments;
mod order;
mod power;
mod ring;
mod zero;

pub(crate) use moments::{has_two_groupings, with};
pub(crate) use power::{agree_at_zero, signed_power};

use normact_ir::{Dag, NodeId, Op, Operands, Prim};

use crate::read;
use crate::rules::Rule;
use crate::term::{Head, ParamClass, TermId, Terms};

/// What counts as equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Relation {
    /// The same real number wherever either side is defined.
    Exact,
    /// The same except for inputs and parameter values of measure zero, the initial values of the
    /// parameters not being excepted.
    AlmostEverywhere,
}

/// How much work one normal form may take. Counts, never seconds, so that every machine gives the
/// same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The most rule applications.
    pub steps: usize,
    /// The most terms in the arena, operands counted too.
    pub terms: usize,
    /// The most terms a product of sums may have when multiplied out.
    pub expansion: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { steps: 3_000, terms: 30_000, expansion: 256 }
    }
}

/// A term rewriter with its memory.
#[derive(Debug)]
pub(crate) struct Normalizer {
    pub(crate) terms: Terms,
    relation: Relation,
    budget: Budget,
    /// For each term, the rule that applies at its root and the result.
    next: Vec<Option<(Rule, TermId)>>,
    /// For each term, its normal form.
    normal: Vec<Option<TermId>>,
    /// How often each rule was applied, to all layers so far.
    applied: Vec<u64>,
    /// The terms whose normal form is being found.
    active: Vec<Option<()>>,
    steps: usize,
    depth: usize,
    exhausted: bool,
    facts: zero::Facts,
    factors: ring::Scratch,
}

/// A graph flattens to at most so many operands of one chain before its parts are put in normal form
/// first: shared sums of sums would double at every level.
const MAX_FLAT: u64 = 512;

/// Terms that come up while others are put in normal form nest at most so deeply.
const MAX_DEPTH: usize = 400;

impl Normalizer {
    pub(crate) fn new(relation: Relation, budget: Budget) -> Self {
        Self {
            terms: Terms::default(),
            relation,
            budget,
            next: Vec::new(),
            normal: Vec::new(),
            active: Vec::new(),
            applied: vec![0; Rule::ALL.len()],
            steps: 0,
            depth: 0,
            exhausted: false,
            facts: zero::Facts::default(),
            factors: ring::Scratch::default(),
        }
    }

    /// Starts on new layers: forgets all terms. Each parameter has a label and a class.
    pub(crate) fn start(&mut self, params: impl IntoIterator<Item = (u32, ParamClass)>) {
        self.terms.clear(params);
        self.next.clear();
        self.normal.clear();
        self.active.clear();
        self.facts.clear();
        self.steps = 0;
        self.depth = 0;
        self.exhausted = false;
    }

    /// How often each rule of [`Rule::ALL`] was applied, to all layers so far.
    pub(crate) fn applied(&self) -> &[u64] {
        &self.applied
    }

    /// Whether the budget ran out.
    pub(crate) fn exhausted(&self) -> bool {
        self.exhausted
    }

    /// The rule that applies at the root of a term, with the result.
    pub(crate) fn step(&self, id: TermId) -> Option<(Rule, TermId)> {
        self.next.get(id.index()).copied().flatten()
    }

    /// Reads a graph as a term; `param_at` gives the parameter's position in the arena.
    pub(crate) fn read(&mut self, dag: &Dag, param_at: impl Fn(usize) -> u32) -> TermId {
        let live = dag.live();
        let mut terms: Vec<Option<TermId>> = vec![None; dag.len()];
        let mut flat: Vec<u64> = vec![1; dag.len()];
        for id in dag.ids().filter(|id| live[id.index()]) {
            let at = |id: NodeId| terms[id.index()].expect("operands of live nodes are live and precede them");
            let term = match (dag.op(id), dag.operands(id)) {
                (Op::Input, _) => self.terms.input(),
                (Op::Constant(value), _) => self.terms.constant(value),
                (Op::Param(param), _) => self.terms.param(param_at(param.index())),
                (Op::Prim(prim), Operands::One(a)) => {
                    // `-a` is flat when `a` is.
                    flat[id.index()] = if prim == Prim::Neg { flat[a.index()].saturating_add(1) } else { 1 };
                    let a = at(a);
                    read::unary(&mut self.terms, prim, a)
                }
                (Op::Prim(prim), Operands::Two(a, b)) => {
                    let count = flat[a.index()].saturating_add(flat[b.index()]);
                    flat[id.index()] = count;
                    let (mut a, mut b) = (at(a), at(b));
                    if count > MAX_FLAT {
                        self.normal_of_parts(a);
                        self.normal_of_parts(b);
                        (a, b) = (self.normal(a), self.normal(b));
                        let length = |id: TermId| self.terms.operands(id).len() as u64;
                        flat[id.index()] = (length(a) + length(b)).max(2);
                    }
                    read::binary(&mut self.terms, prim, a, b)
                }
                (Op::Moment(op), Operands::One(a)) => {
                    let a = at(a);
                    self.terms.moment(op, a)
                }
                (Op::Prim(_) | Op::Moment(_), _) => unreachable!("the graph checked the number of operands"),
            };
            terms[id.index()] = Some(term);
        }
        terms[dag.output().index()].expect("the output is live")
    }

    /// The normal form of a whole layer: normal, and multiplied out.
    pub(crate) fn canonical(&mut self, root: TermId) -> TermId {
        self.normal_of_parts(root);
        let normal = self.normal(root);
        match self.multiplied_out(normal) {
            Some(expanded) => self.normal(expanded),
            None => normal,
        }
    }

    /// Puts the parts of a raw term in normal form in the order of their numbers, operands first, so
    /// that no chain of recursion is as deep as the graph.
    fn normal_of_parts(&mut self, root: TermId) {
        let mut needed = vec![false; root.index() + 1];
        needed[root.index()] = true;
        for index in (0..=root.index()).rev() {
            let id = self.terms.at(index);
            if needed[index] {
                self.terms.operands(id).iter().for_each(|operand| needed[operand.index()] = true);
            }
        }
        for (index, needed) in needed.into_iter().enumerate() {
            if needed {
                let id = self.terms.at(index);
                self.normal(id);
            }
        }
    }

    /// The normal form of a term.
    pub(crate) fn normal(&mut self, id: TermId) -> TermId {
        if let Some(Some(normal)) = self.normal.get(id.index()) {
            return *normal;
        }
        self.depth += 1;
        let mut passed = vec![id];
        let mut current = id;
        let normal = loop {
            if let Some(Some(normal)) = self.normal.get(current.index()) {
                break *normal;
            }
            // A term whose normal form asks for its own: the rules go round in a circle.
            if self.active.get(current.index()) == Some(&Some(())) {
                self.exhausted = true;
                break current;
            }
            remember(&mut self.active, current, ());
            let with_parts = self.with_normal_operands(current);
            if with_parts != current {
                current = with_parts;
            } else if self.steps >= self.budget.steps
                || self.terms.size() >= self.budget.terms
                || self.depth > MAX_DEPTH
                || self.terms.overflow()
            {
                self.exhausted = true;
                break current;
            } else if let Some((rule, result)) = self.rule_at_root(current) {
                if self.terms.overflow() {
                    self.exhausted = true;
                    break current;
                }
                debug_assert_ne!(result, current, "{} changes nothing", rule.name());
                self.steps += 1;
                self.applied[rule as usize] += 1;
                remember(&mut self.next, current, (rule, result));
                current = result;
            } else {
                break current;
            }
            passed.push(current);
        };
        self.depth -= 1;
        for id in passed {
            if let Some(active) = self.active.get_mut(id.index()) {
                *active = None;
            }
            remember(&mut self.normal, id, normal);
        }
        normal
    }

    fn with_normal_operands(&mut self, id: TermId) -> TermId {
        let count = self.terms.operands(id).len();
        match count {
            0 => id,
            1 => {
                let operand = self.terms.operand(id);
                let normal = self.normal(operand);
                if normal == operand { id } else { self.terms.make(self.terms.head(id), &[normal]) }
            }
            _ => {
                let operands = self.terms.operands(id).to_vec();
                let normal: Vec<TermId> = operands.iter().map(|&operand| self.normal(operand)).collect();
                if normal == operands { id } else { self.terms.make(self.terms.head(id), &normal) }
            }
        }
    }

    fn rule_at_root(&mut self, id: TermId) -> Option<(Rule, TermId)> {
        let undefined = self.terms.operands(id).iter().any(|&operand| self.terms.head(operand) == Head::Undefined);
        if undefined {
            return Some((Rule::UndefinedSpreads, self.terms.undefined()));
        }
        match self.terms.head(id) {
            Head::Undefined | Head::Const(_) | Head::Input | Head::Param(_) => None,
            Head::Sum => self.sum_rule(id),
            Head::Product => self.product_rule(id),
            Head::Max => self.max_rule(id),
            Head::Power(exponent) => self.power_rule(id, exponent),
            Head::Unary(prim) => self.function_rule(id, prim),
            Head::Moment(op) => self.moment_rule(id, op),
        }
    }
}

fn remember<T: Copy>(memory: &mut Vec<Option<T>>, id: TermId, value: T) {
    if memory.len() <= id.index() {
        memory.resize(id.index() + 1, None);
    }
    memory[id.index()] = Some(value);
}

/// A computed constant; one that is within rounding of a short decimal is that decimal, so that
/// `0.1 + 0.2` is `0.3`. `None` if it is not finite.
pub(crate) fn rounded(value: f64) -> Option<f64> {
    if !value.is_finite() {
        return None;
    }
    let scaled = value * 1e6;
    if scaled.fract() == 0.0 && scaled.abs() < 1e15 && value == scaled / 1e6 {
        return Some(value);
    }
    let text = format!("{value:.13e}");
    let digits = text
        .split('e')
        .next()
        .map_or(0, |mantissa| mantissa.trim_end_matches('0').chars().filter(char::is_ascii_digit).count());
    if digits <= 11 { text.parse().ok() } else { Some(value) }
}

/// The sum of constants, compensated for rounding (Neumaier); what is then left of it by rounding counts
/// as zero.
fn sum_of(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (mut sum, mut lost, mut largest) = (0.0_f64, 0.0_f64, 0.0_f64);
    for value in values {
        let next = sum + value;
        lost += if sum.abs() >= value.abs() { (sum - next) + value } else { (value - next) + sum };
        sum = next;
        largest = largest.max(value.abs());
    }
    let sum = sum + lost;
    if sum.abs() <= largest * 16.0 * f64::EPSILON { Some(0.0) } else { rounded(sum) }
}
