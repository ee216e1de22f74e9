//! The cheapest form of a layer to execute: equality saturation.
//!
//! The layer as written goes into an e-graph; [rules] add equal forms until nothing new is found or the
//! budget runs out; the normal form of every node joins in, which puts long chains of sums and
//! products in order; then the form with the least [cost] is taken, shared values counting once.
//! What decides is what is executed, so all rules are exact, or guarded by facts that hold for
//! every input ([analysis]).
//!
//! **Statistics of the batch.** In evaluation mode they are running averages, whose past no rule can
//! change. So no rule looks into them: they are leaves of the normal form, their intervals hold the
//! values that averages start with, and their operands may take another spelling, but not lose the
//! samples: `mean[batch](x - x + v)` keeps a running average, `mean[batch](v)` does not. Where
//! an operand would lose them the statistic is frozen: left as written.
//!
//! **Numbers.** No rule turns a variance into a difference of means or a bounded exponential into an
//! unbounded one on purpose; and whatever comes out may not have more steps that can overflow in f32
//! than the layer as written, else that stays.

mod analysis;
mod cost;
mod extract;
mod language;
mod rules;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use egg::{Id, Language, Rewrite, RewriteScheduler, Runner, SearchMatches, StopReason, TreeExplanation};
use normact_ir::{Buffers, Builder, Dag, Extent, Moment, NodeId, Op, Operands, Param, ParamId, Prim, Quantity, Scalar};
use rustc_hash::{FxHashMap, FxHashSet};

use self::analysis::{Facts, Graph, Known, known};
use self::cost::Cost;
use self::extract::{Aim, Choice, choose};
use self::language::{ENode, Head, Set};
use crate::key::Status;
use crate::normal::{Budget, Normalizer, Relation};
use crate::rules::{Class, Theme};
use crate::term::{Head as TermHead, ParamClass};
use crate::write::write;

/// How much work one layer may take. Counts, never seconds, so that every machine gives the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SimplifyBudget {
    /// The most nodes of the e-graph. A layer that takes more than half of them is left as it is.
    pub nodes: usize,
    /// The most rounds in which every rule is applied.
    pub iterations: usize,
    /// The bound on the normal form.
    pub normal: Budget,
}

impl Default for SimplifyBudget {
    fn default() -> Self {
        Self { nodes: 2_000, iterations: 20, normal: Budget::default() }
    }
}

/// A simplified layer.
#[derive(Debug, Clone)]
pub struct Simplified {
    /// The form, equal to the layer by exact and guarded rules, in both modes. It declares the layer's
    /// parameters, also those it has no use for.
    pub dag: Dag,
    /// Each rule on the way from the layer to the form, with how often it was used; the order of the
    /// operands of sums, products and maxima is left out. `fold-constants` computes with numbers,
    /// `normal-form` stands for the rules of [`Rule`](crate::Rule) together. For a layer of more than
    /// 100 nodes, each rule that found anything new.
    pub fired: Vec<(String, usize)>,
    /// The cost before and after, in full-size additions; shared values count once.
    pub cost: (f64, f64),
    /// Whether saturation came to an end.
    pub status: Status,
    /// For each buffer of the form, the buffer of the layer that holds the same average.
    pub buffers: Vec<usize>,
}

/// A rule of the simplifier, as documentation shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimplifyRule {
    /// What it is about.
    pub theme: Theme,
    /// Its telling name.
    pub name: String,
    /// The algebraic line with its guards, in prefix form: `(mul (exp ?a) (exp ?b)) = (exp (add ?a ?b))`.
    pub statement: String,
    /// Exact, or guarded by facts that the analysis proves.
    pub class: Class,
    /// Whether it can change a gradient where a side has a kink.
    pub changes_gradient: bool,
}

/// Every rule of the simplifier.
pub fn simplify_rules() -> Vec<SimplifyRule> {
    let rule = |line: rules::Line| SimplifyRule {
        statement: line.to_string(),
        class: line.class(),
        changes_gradient: line.has_kink(),
        theme: line.theme,
        name: line.name,
    };
    rules::lines().into_iter().map(rule).collect()
}

/// The cheapest form of a layer that the rules reach; the layer itself, without what it does not use, where
/// none is cheaper.
pub fn simplify(dag: &Dag, budget: &SimplifyBudget) -> Simplified {
    let (layer, sources) = without_waste(dag);
    let before = cost::of_dag(&layer);
    let mut best = Form { origins: layer.ids().map(Some).collect(), dag: layer.clone(), cost: before, choice: None };
    let (fired, status) =
        if layer.len() > budget.nodes / 2 { (Vec::new(), Status::Budget) } else { improve(&layer, budget, &mut best) };
    let buffers = origins_of_buffers(&best, dag, &sources);
    // A layer with nodes that are not used or written twice costs more than what was read from it.
    let written = cost::of_dag(dag);
    let unit = |cost: Cost| cost.work as f64 / 1000.0;
    Simplified { fired, cost: (unit(written), unit(best.cost)), status, buffers, dag: best.dag }
}

/// Replaces a layer by a cheaper form if there is one; the rules that lead there.
fn improve(layer: &Dag, budget: &SimplifyBudget, best: &mut Form) -> (Vec<(String, usize)>, Status) {
    let facts = known(layer);
    let mut frozen = vec![false; layer.len()];
    let mut saturated = loop {
        let saturated = saturate(layer, &facts, &frozen, budget);
        let lost = saturated.without_samples(layer);
        if lost.is_empty() {
            break saturated;
        }
        lost.into_iter().for_each(|node| freeze(layer, &facts, node, &mut frozen));
    };
    for aim in [Aim::Safe, Aim::Fast] {
        let choice = saturated.choose(layer, aim);
        if let Some(form) = saturated.form(layer, choice)
            && form.cost.work <= best.cost.work
            && form.cost.hazards <= best.cost.hazards
            && form.cost != best.cost
        {
            *best = form;
        }
    }
    let fired = best.choice.as_ref().map_or_else(Vec::new, |choice| saturated.explain(layer, choice));
    (fired, saturated.status)
}

/// The graph without unused nodes and with equal ones shared, in the same order; for each of its nodes one
/// that it comes from.
fn without_waste(dag: &Dag) -> (Dag, Vec<NodeId>) {
    let mut copy = Copier::new(dag);
    let output = copy.node(dag, dag.output());
    let mut sources = vec![dag.output(); copy.builder.len()];
    for id in dag.ids().rev() {
        if let Some(new) = copy.nodes[id.index()] {
            sources[new.index()] = id;
        }
    }
    (copy.builder.finish(output), sources)
}

/// Copies parts of one graph into another.
struct Copier {
    builder: Builder,
    params: Vec<ParamId>,
    /// For each node of the old graph, the new one.
    nodes: Vec<Option<NodeId>>,
}

impl Copier {
    fn new(dag: &Dag) -> Self {
        let mut builder = Builder::new();
        let declare =
            |param: &Param| builder.declare(param.clone()).expect("the parameters of a graph have distinct names");
        let params = dag.params().iter().map(declare).collect();
        Self { builder, params, nodes: vec![None; dag.len()] }
    }

    /// The copy of a node, made with all it depends on in the order of the old graph.
    fn node(&mut self, dag: &Dag, root: NodeId) -> NodeId {
        let needed = below(dag, root);
        for id in dag.ids().filter(|id| needed[id.index()]) {
            if self.nodes[id.index()].is_some() {
                continue;
            }
            let new = |old: NodeId| self.nodes[old.index()].expect("operands precede their users");
            let operands = match dag.operands(id) {
                Operands::None => Operands::None,
                Operands::One(a) => Operands::One(new(a)),
                Operands::Two(a, b) => Operands::Two(new(a), new(b)),
            };
            self.nodes[id.index()] = Some(self.builder.intern(dag.op(id), operands));
        }
        self.nodes[root.index()].expect("the root is below itself")
    }
}

/// For each node, whether the root depends on it.
fn below(dag: &Dag, root: NodeId) -> Vec<bool> {
    let mut needed = vec![false; dag.len()];
    needed[root.index()] = true;
    for id in dag.ids().rev() {
        if needed[id.index()] {
            dag.operands(id).iter().for_each(|operand| needed[operand.index()] = true);
        }
    }
    needed
}

/// The set of a moment, with what it averages.
fn moment_of(dag: &Dag, facts: &[Known], id: NodeId) -> Option<(Moment, Set, Scalar, NodeId)> {
    let (Op::Moment(op), Operands::One(operand)) = (dag.op(id), dag.operands(id)) else { return None };
    Some((op.moment(), Set::of(op, facts[operand.index()].axes), op.eps(), operand))
}

/// Freezes a statistic of the batch and all those it depends on.
fn freeze(layer: &Dag, facts: &[Known], node: NodeId, frozen: &mut [bool]) {
    let needed = below(layer, node);
    for id in layer.ids().filter(|id| needed[id.index()]) {
        let tracked = moment_of(layer, facts, id).is_some_and(|(_, set, ..)| set.tracking.is_some());
        frozen[id.index()] |= tracked;
    }
}

/// A form of the layer.
struct Form {
    dag: Dag,
    cost: Cost,
    /// For each node that is a statistic of the batch, the same statistic of the layer.
    origins: Vec<Option<NodeId>>,
    /// `None` for the layer as written.
    choice: Option<Choice>,
}

fn origins_of_buffers(form: &Form, dag: &Dag, sources: &[NodeId]) -> Vec<usize> {
    let (new, old) = (Buffers::of(&form.dag), Buffers::of(dag));
    let origin = |buffer: usize| {
        let reader = form.dag.ids().find(|&id| new.of_node(id) == Some(buffer)).expect("a buffer has a reader");
        let statistic = form.origins[reader.index()].expect("every statistic of the batch comes from the layer");
        old.of_node(sources[statistic.index()]).expect("it is one of the layer too")
    };
    (0..new.list().len()).map(origin).collect()
}

/// An e-graph that holds the layer.
struct Saturated {
    graph: Graph,
    /// For each node of the layer, the term it is in the e-graph; `None` below frozen statistics.
    terms: Vec<Option<Id>>,
    root: Id,
    status: Status,
    /// The rules that found anything new.
    applied: Vec<(String, usize)>,
}

/// A statistic of the batch: its operand's class, what is averaged, and how.
type Statistic = (Id, Quantity, Set);

fn saturate(layer: &Dag, facts: &[Known], frozen: &[bool], budget: &SimplifyBudget) -> Saturated {
    let frozen_facts: HashMap<NodeId, Known> =
        layer.ids().filter(|id| frozen[id.index()]).map(|id| (id, facts[id.index()])).collect();
    let analysis = Facts { params: layer.params().to_vec(), frozen: frozen_facts };
    let mut graph = Graph::new(analysis);
    if layer.len() <= MANY_NODES {
        graph = graph.with_explanations_enabled().without_explanation_length_optimization();
    }
    let terms = add_layer(&mut graph, layer, facts, frozen);
    let root = terms[layer.output().index()].expect("the output is not below a frozen statistic");
    let mut applied = Vec::new();
    let (mut graph, first) = run(graph, budget, &mut applied);
    let complete = add_normal_forms(&mut graph, layer, &terms, budget);
    let (graph, second) = run(graph, budget, &mut applied);
    let status = if first && complete && second { Status::Saturated } else { Status::Budget };
    Saturated { graph, terms, root, status, applied }
}

/// Applies the rules, counting them; whether they came to an end.
fn run(graph: Graph, budget: &SimplifyBudget, applied: &mut Vec<(String, usize)>) -> (Graph, bool) {
    let complete = Rc::new(Cell::new(true));
    let runner = Runner::<ENode, Facts>::new(Facts::default())
        .with_egraph(graph)
        .with_scheduler(Bounded { nodes: budget.nodes, complete: Rc::clone(&complete) })
        .with_iter_limit(budget.iterations)
        .with_node_limit(budget.nodes)
        .with_time_limit(Duration::MAX)
        .run(rules::rewrites());
    for (rule, &times) in runner.iterations.iter().flat_map(|iteration| &iteration.applied) {
        add_count(applied, rule.as_str(), times);
    }
    let saturated = matches!(runner.stop_reason, Some(StopReason::Saturated)) && complete.get();
    (runner.egraph, saturated)
}

/// Applies every rule in every round, but not to more matches than the e-graph has room for: egg looks at the
/// size between rules only, and one rule can multiply it.
struct Bounded {
    nodes: usize,
    /// Whether every match was applied.
    complete: Rc<Cell<bool>>,
}

/// The most matches of one rule in one round.
const MAX_MATCHES: usize = 1_000;

impl RewriteScheduler<ENode, Facts> for Bounded {
    fn search_rewrite<'a>(
        &mut self,
        _iteration: usize,
        graph: &Graph,
        rewrite: &'a Rewrite<ENode, Facts>,
    ) -> Vec<SearchMatches<'a, ENode>> {
        let matches = rewrite.search_with_limit(graph, MAX_MATCHES);
        if matches.iter().map(|found| found.substs.len()).sum::<usize>() >= MAX_MATCHES {
            self.complete.set(false);
        }
        matches
    }

    fn apply_rewrite(
        &mut self,
        _iteration: usize,
        graph: &mut Graph,
        rewrite: &Rewrite<ENode, Facts>,
        matches: Vec<SearchMatches<'_, ENode>>,
    ) -> usize {
        let mut applied = 0;
        for found in matches.chunks(1) {
            if graph.total_size() > self.nodes {
                self.complete.set(false);
                break;
            }
            applied += rewrite.apply(graph, found).len();
        }
        applied
    }
}

fn add_layer(graph: &mut Graph, layer: &Dag, facts: &[Known], frozen: &[bool]) -> Vec<Option<Id>> {
    let mut needed = vec![false; layer.len()];
    needed[layer.output().index()] = true;
    for id in layer.ids().rev() {
        if needed[id.index()] && !frozen[id.index()] {
            layer.operands(id).iter().for_each(|operand| needed[operand.index()] = true);
        }
    }
    let mut terms: Vec<Option<Id>> = vec![None; layer.len()];
    for id in layer.ids().filter(|id| needed[id.index()]) {
        let node = if frozen[id.index()] {
            ENode::leaf(Head::Frozen(id))
        } else {
            let at = |id: NodeId| terms[id.index()].expect("operands precede their users");
            enode(graph, layer, id, Some(facts), at)
        };
        terms[id.index()] = Some(graph.add_uncanonical(node));
    }
    terms
}

/// A node of a graph as an e-node; without facts there is no moment in the graph.
fn enode(graph: &mut Graph, dag: &Dag, id: NodeId, facts: Option<&[Known]>, at: impl Fn(NodeId) -> Id) -> ENode {
    match dag.op(id) {
        Op::Input => ENode::leaf(Head::Input),
        Op::Constant(value) => ENode::leaf(Head::Constant(value)),
        Op::Param(param) => ENode::leaf(Head::Param(param)),
        Op::Prim(prim) => {
            let children: Vec<Id> = dag.operands(id).iter().map(at).collect();
            ENode::new(Head::Prim(prim), &children)
        }
        Op::Moment(_) => {
            let facts = facts.expect("a graph without facts has no moments");
            let (moment, set, eps, operand) = moment_of(dag, facts, id).expect("a moment has one operand");
            let set = graph.add_uncanonical(ENode::leaf(Head::Set(set)));
            let mut children = vec![set, at(operand)];
            if moment.is_root() {
                children.push(graph.add_uncanonical(ENode::leaf(Head::Constant(eps))));
            }
            ENode::new(Head::Moment(moment), &children)
        }
    }
}

/// A layer with more nodes has normal forms only of its result and of the operands of moments, and no
/// explanation, which takes a stack as deep as the layer.
const MANY_NODES: usize = 100;

/// Unites the nodes of the layer with their normal forms, in which moments are unknown numbers. Whether
/// the normal forms came to an end.
fn add_normal_forms(graph: &mut Graph, layer: &Dag, terms: &[Option<Id>], budget: &SimplifyBudget) -> bool {
    let opened = Opened::of(layer, terms, graph);
    let mut normalizer = Normalizer::new(Relation::Exact, budget.normal);
    let classes = opened.params.iter().map(|param| ParamClass { extent: param.extent, init: param.init });
    normalizer.start(classes.enumerate().map(|(label, class)| (label as u32, class)));
    let many = layer.len() > MANY_NODES;
    let mut wanted = vec![!many; layer.len()];
    wanted[layer.output().index()] = true;
    for id in layer.ids().filter(|&id| matches!(layer.op(id), Op::Moment(_))) {
        layer.operands(id).iter().for_each(|operand| wanted[operand.index()] = true);
    }
    for id in layer.ids().filter(|id| wanted[id.index()]) {
        let (Op::Prim(_), Some(term), Some(node)) = (layer.op(id), terms[id.index()], opened.nodes[id.index()]) else {
            continue;
        };
        let raw = normalizer.read(&opened.builder.clone().finish(node), |param| param as u32);
        let normal = normalizer.normal(raw);
        // An infinite quotient inside `tanh` is no number, but has a value in floating-point.
        if normalizer.terms.head(normal) == TermHead::Undefined {
            continue;
        }
        let form = write(&normalizer.terms, normal, &opened.params);
        // Multiplying out can make a form that nobody wants.
        if form.len() > 2 * layer.len() + 20 {
            continue;
        }
        let mut added: Vec<Id> = Vec::with_capacity(form.len());
        for id in form.ids() {
            let statistic = match form.op(id) {
                Op::Param(param) => param.index().checked_sub(layer.params().len()),
                _ => None,
            };
            added.push(match statistic {
                Some(index) => opened.statistics[index],
                None => {
                    let node = enode(graph, &form, id, None, |id| added[id.index()]);
                    graph.add_uncanonical(node)
                }
            });
        }
        graph.union_trusted(term, added[form.output().index()], "normal-form");
    }
    graph.rebuild();
    !normalizer.exhausted()
}

/// The layer with a parameter in place of every moment.
struct Opened {
    builder: Builder,
    /// The layer's parameters, then the moments.
    params: Vec<Param>,
    /// The terms of the moments.
    statistics: Vec<Id>,
    /// The nodes; `None` for those with a moment in them that may be undefined, which a parameter never is.
    nodes: Vec<Option<NodeId>>,
}

impl Opened {
    fn of(layer: &Dag, terms: &[Option<Id>], graph: &Graph) -> Self {
        let copy = Copier::new(layer);
        let mut opened = Self {
            builder: copy.builder,
            params: layer.params().to_vec(),
            statistics: Vec::new(),
            nodes: vec![None; layer.len()],
        };
        for id in layer.ids() {
            let Some(term) = terms[id.index()] else { continue };
            opened.nodes[id.index()] = match (layer.op(id), layer.operands(id)) {
                _ if !opened.may_be_opened(layer, id, terms, graph) => {
                    graph[term].data.defined.then(|| opened.statistic(term))
                }
                (op, operands) => {
                    let parts: Option<Vec<NodeId>> =
                        operands.iter().map(|operand| opened.nodes[operand.index()]).collect();
                    parts.and_then(|parts| Operands::from_slice(&parts)).map(|parts| opened.builder.intern(op, parts))
                }
            };
        }
        opened
    }

    /// Moments are no part of a normal form, and differences from statistics, such as `x - mean(x)`, stay
    /// together: multiplied out they would lose digits.
    fn may_be_opened(&self, layer: &Dag, id: NodeId, terms: &[Option<Id>], graph: &Graph) -> bool {
        let known = |id: NodeId| terms[id.index()].map(|term| &graph[term].data);
        match (layer.op(id), layer.operands(id)) {
            (Op::Moment(_), _) => false,
            (Op::Prim(Prim::Add), Operands::Two(a, b)) => match (known(a), known(b)) {
                (Some(a), Some(b)) => !(a.of_input && b.of_input) || a.axes == b.axes,
                _ => true,
            },
            _ => true,
        }
    }

    fn statistic(&mut self, term: Id) -> NodeId {
        let mut name = format!("moment{}", self.statistics.len());
        while self.builder.param_named(&name).is_some() {
            name.push('_');
        }
        let param = Param { name, extent: Extent::PerChannel, init: Scalar::ZERO };
        let id = self.builder.declare(param.clone()).expect("the name is not taken");
        self.params.push(param);
        self.statistics.push(term);
        self.builder.intern(Op::Param(id), Operands::None)
    }
}

impl Saturated {
    /// The statistics of the batch whose operand was found to be the same for all samples.
    fn without_samples(&self, layer: &Dag) -> Vec<NodeId> {
        let lost =
            |id: NodeId| self.statistic(id).is_some_and(|(operand, _, _)| !self.graph[operand].data.axes.samples);
        layer.ids().filter(|&id| lost(id)).collect()
    }

    /// What a node of the layer is, if it is a statistic of the batch that is not frozen.
    fn statistic(&self, id: NodeId) -> Option<Statistic> {
        self.statistic_of(self.graph.id_to_node(self.terms[id.index()]?))
    }

    fn statistic_of(&self, node: &ENode) -> Option<Statistic> {
        let Head::Moment(moment) = node.head else { return None };
        let set = self.graph[node.children()[0]].data.set?;
        set.tracking?;
        Some((self.graph.find(node.children()[1]), moment.quantity(), set))
    }

    fn choose(&self, layer: &Dag, aim: Aim) -> Choice {
        let canonical = |&term: &Id| self.graph.id_to_node(term).clone().map_children(|child| self.graph.find(child));
        let written: FxHashSet<ENode> = self.terms.iter().flatten().map(canonical).collect();
        let frozen_cost = |node: &ENode| match node.head {
            Head::Frozen(id) => {
                let mut copy = Copier::new(layer);
                let root = copy.node(layer, id);
                cost::of_dag(&copy.builder.finish(root))
            }
            _ => Cost { hazards: 0, work: 0 },
        };
        choose(&self.graph, &written, self.root, aim, frozen_cost)
    }

    /// The chosen form as a graph. Statistics of the batch come in the order of the layer, so that their
    /// running averages keep their names.
    fn form(&self, layer: &Dag, choice: Choice) -> Option<Form> {
        let mut origin_of: FxHashMap<Statistic, NodeId> = FxHashMap::default();
        for id in layer.ids().rev() {
            if let Some(statistic) = self.statistic(id) {
                origin_of.insert(statistic, id);
            }
        }
        let origin = |node: &ENode| match node.head {
            Head::Frozen(id) => Some(id),
            _ => self.statistic_of(node).and_then(|statistic| origin_of.get(&statistic).copied()),
        };
        let root = self.graph.find(self.root);
        let order = walk(&choice, root);
        let mut tracked: Vec<(NodeId, Id)> = Vec::new();
        for &class in &order {
            if let Some(id) = origin(choice[usize::from(class)].as_ref()?) {
                tracked.push((id, class));
            }
        }
        tracked.sort_unstable();
        let mut copy = Copier::new(layer);
        let mut nodes: FxHashMap<Id, NodeId> = FxHashMap::default();
        let mut origins: Vec<(NodeId, NodeId)> = Vec::new();
        for start in tracked.into_iter().map(|(_, class)| class).chain([root]) {
            for class in walk(&choice, start) {
                if nodes.contains_key(&class) {
                    continue;
                }
                let node = choice[usize::from(class)].as_ref()?;
                let Some(id) = self.write(layer, node, &mut copy, &nodes)? else { continue };
                nodes.insert(class, id);
                origins.extend(origin(node).map(|origin| (id, origin)));
            }
        }
        let dag = copy.builder.finish(nodes[&root]);
        let mut origin_of_node: Vec<Option<NodeId>> = vec![None; dag.len()];
        // What was copied with a frozen statistic.
        for id in layer.ids() {
            if let Some(new) = copy.nodes[id.index()] {
                origin_of_node[new.index()] = Some(id);
            }
        }
        origins.into_iter().for_each(|(new, origin)| origin_of_node[new.index()] = Some(origin));
        Some(Form { cost: cost::of_dag(&dag), origins: origin_of_node, dag, choice: Some(choice) })
    }

    /// Writes one chosen node; `Some(None)` for an index set, `None` for a form that cannot be written.
    fn write(
        &self,
        layer: &Dag,
        node: &ENode,
        copy: &mut Copier,
        nodes: &FxHashMap<Id, NodeId>,
    ) -> Option<Option<NodeId>> {
        let at = |index: usize| nodes.get(&node.children()[index]).copied();
        let (op, operands) = match node.head {
            Head::Input => (Op::Input, Operands::None),
            Head::Constant(value) => (Op::Constant(value), Operands::None),
            Head::Param(param) => (Op::Param(copy.params[param.index()]), Operands::None),
            Head::Prim(prim) => {
                let operands: Vec<NodeId> = (0..node.len()).map(at).collect::<Option<_>>()?;
                (Op::Prim(prim), Operands::from_slice(&operands)?)
            }
            Head::Moment(moment) => {
                let set = self.graph[node.children()[0]].data.set?;
                let eps = node.children().get(2).map_or(Some(Scalar::ZERO), |&eps| self.graph[eps].data.constant)?;
                (Op::Moment(set.moment(moment, eps)), Operands::One(at(1)?))
            }
            Head::Set(_) => return Some(None),
            Head::Frozen(id) => return Some(Some(copy.node(layer, id))),
        };
        Some(Some(copy.builder.intern(op, operands)))
    }

    /// The rules on the way from the layer to the chosen form.
    fn explain(&mut self, layer: &Dag, choice: &Choice) -> Vec<(String, usize)> {
        if !self.graph.are_explanations_enabled() {
            return self.applied.clone();
        }
        let mut terms: FxHashMap<Id, Id> = FxHashMap::default();
        let root = self.graph.find(self.root);
        for class in walk(choice, root) {
            let node = choice[usize::from(class)].clone().expect("the walk saw a member of every class");
            let term = self.graph.add_uncanonical(node.map_children(|child| terms[&child]));
            terms.insert(class, term);
        }
        let written = self.terms[layer.output().index()].expect("the output is in the e-graph");
        let explanation = self.graph.explain_id_equivalence(written, terms[&root]);
        let mut fired: Vec<(String, usize)> = Vec::new();
        count(&explanation.explanation_trees, &mut FxHashSet::default(), &mut fired);
        fired
    }
}

/// The classes below a root, operands first.
fn walk(choice: &Choice, root: Id) -> Vec<Id> {
    let mut seen = FxHashSet::default();
    let mut order = Vec::new();
    let mut stack = vec![(root, false)];
    while let Some((class, operands_done)) = stack.pop() {
        if operands_done {
            order.push(class);
        } else if seen.insert(class) {
            stack.push((class, true));
            let children = choice[usize::from(class)].iter().flat_map(|node| node.children().iter().rev());
            stack.extend(children.map(|&child| (child, false)));
        }
    }
    order
}

/// Counts the rules of an explanation, shared parts once.
fn count(explanation: &TreeExplanation<ENode>, seen: &mut FxHashSet<usize>, fired: &mut Vec<(String, usize)>) {
    for step in explanation {
        if !seen.insert(Rc::as_ptr(step) as usize) {
            continue;
        }
        for rule in step.forward_rule.iter().chain(&step.backward_rule) {
            add_count(fired, rule.as_str(), 1);
        }
        step.child_proofs.iter().for_each(|proof| count(proof, seen, fired));
    }
}

/// Both directions of a rule count as one, and the order of operands does not count.
fn add_count(fired: &mut Vec<(String, usize)>, rule: &str, times: usize) {
    if rule.ends_with("-commutative") {
        return;
    }
    let rule = rule.strip_suffix("-back").unwrap_or(rule);
    match fired.iter_mut().find(|(name, _)| name == rule) {
        Some((_, count)) => *count += times,
        None => fired.push((rule.to_owned(), times)),
    }
}
