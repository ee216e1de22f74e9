//! Proofs of equality, step by step.
//!
//! A proof goes from one layer to its normal form and from there back to the other. The steps of each
//! half are found again by walking the layer operands first and asking the normalizer, which
//! remembers the rule that applies to every term it has met. A value used several times is one place:
//! a step changes it everywhere. So proofs stay as short as the graph, not as long as the formula.

use std::collections::HashMap;

use normact_ir::{Buffers, Dag, Op, Param};

use crate::check::Checker;
use crate::normal::Normalizer;
use crate::rules::{Class, Rule};
use crate::term::{Head, TermId, Terms};
use crate::write::write;

/// One rule, applied at one place of a layer.
#[derive(Debug, Clone)]
pub struct Step {
    /// The rule.
    pub rule: Rule,
    /// The class of this application: the rule's own, or almost everywhere where its guard has no
    /// proof that holds everywhere.
    pub class: Class,
    /// Whether the rule is used from right to left.
    pub reversed: bool,
    /// Whether a gradient can change: the rule can change one at a kink, and the value may be there.
    pub changes_gradient: bool,
    /// The value that changes, before.
    pub from: Dag,
    /// The same value after.
    pub to: Dag,
    /// The layer before.
    pub before: Dag,
    /// The layer after.
    pub after: Dag,
}

impl Step {
    /// Whether the value that changes holds a statistic over samples, of which a running average is kept.
    pub(crate) fn touches_batch_statistics(&self) -> bool {
        [&self.from, &self.to].into_iter().any(|dag| !Buffers::of(dag).list().is_empty())
    }
}

/// A chain of steps from one layer to another.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The steps as terms, for the checker: graphs spell some terms in several ways.
    pub(crate) moves: Vec<Move>,
    pub(crate) terms: Terms,
    /// The position in the arena of each parameter of the second layer.
    pub(crate) positions: Vec<u32>,
    /// The first `before` is the one layer, the last `after` the other (with its parameters by the
    /// first layer's names). Empty where both are written alike.
    pub steps: Vec<Step>,
    /// For each parameter that both have, its name in the first and in the second layer.
    pub matching: Vec<(String, String)>,
    /// Whether running averages may be kept differently, so that the layers can differ in evaluation
    /// mode until these have settled.
    pub state_differs: bool,
}

impl Proof {
    /// The proof that a layer equals itself, dead nodes and the numbering of nodes aside.
    pub(crate) fn nothing_to_show(dag: &Dag) -> Self {
        let used = used_params(dag);
        let names = dag.params().iter().zip(used).filter(|(_, used)| *used).map(|(param, _)| param.name.clone());
        Self {
            moves: Vec::new(),
            terms: Terms::default(),
            positions: Vec::new(),
            steps: Vec::new(),
            matching: names.map(|name| (name.clone(), name)).collect(),
            state_differs: false,
        }
    }
}

/// Which parameters the output depends on.
pub(crate) fn used_params(dag: &Dag) -> Vec<bool> {
    let mut used = vec![false; dag.params().len()];
    let live = dag.live();
    for id in dag.ids().filter(|id| live[id.index()]) {
        if let Op::Param(param) = dag.op(id) {
            used[param.index()] = true;
        }
    }
    used
}

/// A proof has at most so many steps for each of its halves.
const MAX_STEPS: usize = 2_000;

/// One rule at one place, as terms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) rule: Rule,
    pub(crate) reversed: bool,
    pub(crate) from: TermId,
    pub(crate) to: TermId,
    pub(crate) before: TermId,
    pub(crate) after: TermId,
}

impl Move {
    fn turned(self) -> Move {
        Move { reversed: !self.reversed, from: self.to, to: self.from, before: self.after, after: self.before, ..self }
    }
}

/// A part of the layer that is being rewritten, shared by all its users.
struct Cell {
    head: Head,
    operands: Vec<usize>,
    /// The term it stands for, once it is in normal form.
    normal: Option<TermId>,
}

struct Trace<'a> {
    normalizer: &'a mut Normalizer,
    cells: Vec<Cell>,
    /// Cells in normal form, by their terms.
    finished: HashMap<TermId, usize>,
    root: usize,
    moves: Vec<Move>,
}

/// The steps from a layer to its normal form; `None` if there are too many.
pub(crate) fn moves(normalizer: &mut Normalizer, raw: TermId) -> Option<Vec<Move>> {
    let mut trace = Trace { normalizer, cells: Vec::new(), finished: HashMap::new(), root: 0, moves: Vec::new() };
    trace.root = trace.build(raw, &mut HashMap::new());
    trace.rewrite(trace.root)?;
    let normal = trace.term(trace.root);
    if let Some(expanded) = trace.normalizer.multiplied_out(normal) {
        trace.step(Rule::Distribute, normal, expanded, normal, expanded);
        trace.root = trace.build(expanded, &mut HashMap::new());
        trace.rewrite(trace.root)?;
    }
    Some(trace.moves)
}

/// The way there and the other way back, without what both share at the normal form.
pub(crate) fn joined(mut there: Vec<Move>, other: Vec<Move>) -> Vec<Move> {
    let mut back: Vec<Move> = other.into_iter().rev().map(Move::turned).collect();
    let shared = there.iter().rev().zip(&back).take_while(|(last, next)| last.turned() == **next).count();
    there.truncate(there.len() - shared);
    there.extend(back.drain(shared..));
    there
}

/// The steps as graphs, with their classes; `None` if the checker refuses one.
pub(crate) fn written(terms: &Terms, moves: &[Move], params: &[Param]) -> Option<Vec<Step>> {
    let mut checker = Checker::new(terms.clone());
    let mut before: Option<Dag> = None;
    let mut steps = Vec::with_capacity(moves.len());
    for step in moves {
        let class = checker.class_of(step).ok()?;
        let changes_gradient = checker.may_be_at_a_kink(step);
        let dag = |id: TermId| write(terms, id, params);
        let after = dag(step.after);
        let first = before.take().unwrap_or_else(|| dag(step.before));
        before = Some(after.clone());
        let (from, to) = (dag(step.from), dag(step.to));
        steps.push(Step {
            rule: step.rule,
            class,
            reversed: step.reversed,
            changes_gradient,
            from,
            to,
            before: first,
            after,
        });
    }
    Some(steps)
}

impl Trace<'_> {
    fn build(&mut self, term: TermId, built: &mut HashMap<TermId, usize>) -> usize {
        for part in crate::key::walk(&self.normalizer.terms, term) {
            if built.contains_key(&part) {
                continue;
            }
            let cell = match self.finished.get(&part) {
                Some(&cell) => cell,
                None => {
                    let operands = self.normalizer.terms.operands(part).iter().map(|operand| built[operand]).collect();
                    self.cells.push(Cell { head: self.normalizer.terms.head(part), operands, normal: None });
                    self.cells.len() - 1
                }
            };
            built.insert(part, cell);
        }
        built[&term]
    }

    /// The term a cell stands for now.
    fn term(&mut self, root: usize) -> TermId {
        let mut terms: HashMap<usize, TermId> = HashMap::new();
        let mut stack = vec![(root, false)];
        while let Some((cell, operands_done)) = stack.pop() {
            if terms.contains_key(&cell) {
                continue;
            }
            if let Some(normal) = self.cells[cell].normal {
                terms.insert(cell, normal);
            } else if operands_done {
                let operands: Vec<TermId> = self.cells[cell].operands.iter().map(|operand| terms[operand]).collect();
                terms.insert(cell, self.normalizer.terms.make(self.cells[cell].head, &operands));
            } else {
                stack.push((cell, true));
                stack.extend(self.cells[cell].operands.iter().map(|&operand| (operand, false)));
            }
        }
        terms[&root]
    }

    fn step(&mut self, rule: Rule, from: TermId, to: TermId, before: TermId, after: TermId) {
        self.moves.push(Move { rule, reversed: false, from, to, before, after });
    }

    /// Rewrites a cell to normal form, operands first. The stack holds cells to come back to.
    fn rewrite(&mut self, root: usize) -> Option<()> {
        let mut stack = vec![root];
        while let Some(&cell) = stack.last() {
            if self.cells[cell].normal.is_some() {
                stack.pop();
                continue;
            }
            let waiting: Vec<usize> = self.cells[cell]
                .operands
                .iter()
                .copied()
                .filter(|&operand| self.cells[operand].normal.is_none())
                .collect();
            if !waiting.is_empty() {
                stack.extend(waiting);
                continue;
            }
            let from = self.term(cell);
            // Asking for the normal form makes the normalizer remember the step.
            self.normalizer.normal(from);
            match self.normalizer.step(from) {
                None => {
                    self.cells[cell].normal = Some(from);
                    self.finished.entry(from).or_insert(cell);
                    stack.pop();
                }
                Some((rule, to)) => {
                    if self.moves.len() >= MAX_STEPS {
                        return None;
                    }
                    let before = self.term(self.root);
                    let new = self.build(to, &mut HashMap::new());
                    self.cells[cell] = Cell {
                        head: self.cells[new].head,
                        operands: self.cells[new].operands.clone(),
                        normal: self.cells[new].normal,
                    };
                    let after = self.term(self.root);
                    self.step(rule, from, to, before, after);
                }
            }
        }
        Some(())
    }
}
