//! The computation graph of one layer.
//!
//! A [`Dag`] is a list of nodes in which operands precede their users, with numbered operands and
//! one output. It is made by a [`Builder`], which offers two ways in: `intern` shares equal nodes
//! (what the language uses), `append` keeps a graph node for node, dead and duplicate nodes
//! included (what an evolved graph needs). petgraph holds the nodes; since it does not promise an
//! order of edges, each edge carries the number of its operand.

use std::collections::HashMap;

use petgraph::Direction;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::EdgeRef;

use crate::axes::IndexSet;
use crate::prim::{Arity, Moment, Prim, Quantity};
use crate::scalar::Scalar;

/// The number of a node; operands have smaller numbers than their users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

impl NodeId {
    /// The position in the list of nodes.
    pub fn index(self) -> usize {
        self.0 as usize
    }

    pub(crate) fn at(index: usize) -> Self {
        Self(u32::try_from(index).expect("graphs have fewer than 2^32 nodes: Builder::append counts them"))
    }

    fn in_graph(self) -> NodeIndex {
        NodeIndex::new(self.index())
    }
}

/// The number of a parameter, in the order of declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParamId(u32);

impl ParamId {
    /// The position in [`Dag::params`].
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Whether a parameter has one value per channel or one for the whole layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extent {
    /// One value per channel, shape `[C]`.
    PerChannel,
    /// One value, shape `[1]`.
    Scalar,
}

/// A trainable parameter.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Param {
    /// Its name, unique in the layer.
    pub name: String,
    /// How many values it has.
    pub extent: Extent,
    /// The value it starts with.
    pub init: Scalar,
}

/// What a running variance stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Running {
    /// The population variance (the EvoNorm authors, Burn).
    Biased,
    /// The variance with `count - 1` in the denominator (PyTorch, timm).
    Unbiased,
}

/// How the running average of a batch statistic is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tracking {
    /// The weight of the new value, 0 to 1 (PyTorch's convention).
    pub momentum: Scalar,
    /// What a running variance stores; `Biased` for other quantities, where it makes no difference.
    pub running: Running,
}

/// A moment with its index set and settings. Settings that make no difference have one fixed value,
/// so that equal statistics are equal nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MomentOp {
    moment: Moment,
    over: IndexSet,
    eps: Scalar,
    tracking: Option<Tracking>,
}

impl MomentOp {
    /// A moment over an index set. `eps` counts only for `std` and `rms`, `tracking` only for index
    /// sets that hold samples.
    pub fn new(moment: Moment, over: IndexSet, eps: Scalar, tracking: Tracking) -> Self {
        let running = match moment.quantity() {
            Quantity::Variance => tracking.running,
            Quantity::Mean | Quantity::MeanSquare => Running::Biased,
        };
        Self {
            moment,
            over,
            eps: if moment.is_root() { eps } else { Scalar::ZERO },
            tracking: over.reduces_samples().then_some(Tracking { running, ..tracking }),
        }
    }

    /// Which moment.
    pub fn moment(self) -> Moment {
        self.moment
    }

    /// The index set it averages over.
    pub fn over(self) -> IndexSet {
        self.over
    }

    /// The number added under the root.
    pub fn eps(self) -> Scalar {
        self.eps
    }

    /// How its running average is kept; `None` for index sets within a sample.
    pub fn tracking(self) -> Option<Tracking> {
        self.tracking
    }
}

/// What a node computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    /// The layer's input.
    Input,
    /// A fixed number.
    Constant(Scalar),
    /// A trainable parameter.
    Param(ParamId),
    /// An elementwise primitive.
    Prim(Prim),
    /// A statistic.
    Moment(MomentOp),
}

impl Op {
    /// How many operands the node has.
    pub fn operand_count(self) -> usize {
        match self {
            Op::Input | Op::Constant(_) | Op::Param(_) => 0,
            Op::Prim(prim) => prim.arity().count(),
            Op::Moment(_) => 1,
        }
    }
}

/// The operands of a node, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operands {
    /// None: an input, a constant or a parameter.
    None,
    /// One.
    One(NodeId),
    /// Two.
    Two(NodeId, NodeId),
}

impl Operands {
    /// The operands as a list; `None` for more than two.
    pub fn from_slice(ids: &[NodeId]) -> Option<Self> {
        match *ids {
            [] => Some(Operands::None),
            [a] => Some(Operands::One(a)),
            [a, b] => Some(Operands::Two(a, b)),
            _ => None,
        }
    }

    /// How many there are.
    pub fn count(self) -> usize {
        match self {
            Operands::None => 0,
            Operands::One(_) => 1,
            Operands::Two(..) => 2,
        }
    }

    /// Each operand, in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = NodeId> {
        let (a, b) = match self {
            Operands::None => (None, None),
            Operands::One(a) => (Some(a), None),
            Operands::Two(a, b) => (Some(a), Some(b)),
        };
        a.into_iter().chain(b)
    }

    fn map(self, f: impl Fn(NodeId) -> NodeId) -> Self {
        match self {
            Operands::None => Operands::None,
            Operands::One(a) => Operands::One(f(a)),
            Operands::Two(a, b) => Operands::Two(f(a), f(b)),
        }
    }
}

/// Why a node or graph cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DagError {
    /// A node has the wrong number of operands.
    #[error("{op} takes {expected} operand(s), found {found}")]
    OperandCount {
        /// The operation's name.
        op: String,
        /// How many it takes.
        expected: usize,
        /// How many were given.
        found: usize,
    },
    /// An operand or output does not precede its user.
    #[error("node {operand} is not defined before it is used")]
    UndefinedOperand {
        /// The number that was given.
        operand: usize,
    },
    /// A parameter number that was never declared.
    #[error("parameter {0} is not declared")]
    UndefinedParam(usize),
    /// Two parameters have one name.
    #[error("parameter `{0}` is declared twice")]
    DuplicateParam(String),
    /// The graph has more nodes than [`MAX_NODES`].
    #[error("the graph has more than {MAX_NODES} nodes")]
    TooManyNodes,
}

/// The most nodes a graph may have.
pub const MAX_NODES: usize = 1 << 20;

/// The computation graph of one layer: nodes in order, parameters, and an output.
#[derive(Debug, Clone)]
pub struct Dag {
    graph: DiGraph<Op, u8>,
    params: Vec<Param>,
    output: NodeId,
}

impl Dag {
    /// The number of nodes, dead ones included.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether it has no nodes: never, since a graph has an output.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every node, operands before users.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.len()).map(NodeId::at)
    }

    /// What a node computes.
    pub fn op(&self, id: NodeId) -> Op {
        self.graph[id.in_graph()]
    }

    /// A node's operands, in order.
    pub fn operands(&self, id: NodeId) -> Operands {
        let mut slots = [None; 2];
        for edge in self.graph.edges_directed(id.in_graph(), Direction::Incoming) {
            slots[*edge.weight() as usize] = Some(NodeId::at(edge.source().index()));
        }
        match slots {
            [None, _] => Operands::None,
            [Some(a), None] => Operands::One(a),
            [Some(a), Some(b)] => Operands::Two(a, b),
        }
    }

    /// The parameters, in the order of declaration; some may be unused.
    pub fn params(&self) -> &[Param] {
        &self.params
    }

    /// The number of each parameter, in the order of declaration.
    pub fn param_ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.params.len() as u32).map(ParamId)
    }

    /// A parameter by its number.
    pub fn param(&self, id: ParamId) -> &Param {
        &self.params[id.index()]
    }

    /// The node whose value is the layer's result.
    pub fn output(&self) -> NodeId {
        self.output
    }

    /// For each node, whether the output depends on it.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.len()];
        live[self.output.index()] = true;
        for id in self.ids().rev() {
            if live[id.index()] {
                self.operands(id).iter().for_each(|operand| live[operand.index()] = true);
            }
        }
        live
    }

    /// For each node, whether it depends on the input.
    pub fn depends_on_input(&self) -> Vec<bool> {
        let mut depends = vec![false; self.len()];
        for id in self.ids() {
            depends[id.index()] =
                self.op(id) == Op::Input || self.operands(id).iter().any(|operand| depends[operand.index()]);
        }
        depends
    }

    /// The same function without dead nodes, equal nodes shared, numbered in the order of a walk
    /// from the output. Graphs that differ only in those respects have one normal form.
    pub fn normalized(&self) -> Dag {
        let mut builder = Builder::new();
        builder.params = self.params.clone();
        let mut renumbered: Vec<Option<NodeId>> = vec![None; self.len()];
        let mut stack = vec![self.output];
        while let Some(&id) = stack.last() {
            if renumbered[id.index()].is_some() {
                stack.pop();
                continue;
            }
            let operands = self.operands(id);
            // The last pushed is visited first, so push in reverse.
            let before = stack.len();
            stack.extend(operands.iter().rev().filter(|operand| renumbered[operand.index()].is_none()));
            if stack.len() == before {
                let operands = operands.map(|operand| {
                    renumbered[operand.index()].expect("all operands are numbered when none was pushed")
                });
                renumbered[id.index()] = Some(builder.intern(self.op(id), operands));
                stack.pop();
            }
        }
        let output = renumbered[self.output.index()].expect("the walk starts at the output");
        builder.finish(output)
    }
}

impl PartialEq for Dag {
    /// Node for node, parameter for parameter.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.output == other.output
            && self.params == other.params
            && self.ids().all(|id| self.op(id) == other.op(id) && self.operands(id) == other.operands(id))
    }
}

/// Builds a [`Dag`], operands before users.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    graph: DiGraph<Op, u8>,
    interned: HashMap<(Op, Operands), NodeId>,
    params: Vec<Param>,
}

impl Builder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of nodes so far.
    pub fn len(&self) -> usize {
        self.graph.node_count()
    }

    /// Whether there is no node yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Declares a parameter.
    ///
    /// # Errors
    /// The name is taken.
    pub fn declare(&mut self, param: Param) -> Result<ParamId, DagError> {
        if self.params.iter().any(|declared| declared.name == param.name) {
            return Err(DagError::DuplicateParam(param.name));
        }
        self.params.push(param);
        Ok(ParamId((self.params.len() - 1) as u32))
    }

    /// The parameter of that name.
    pub fn param_named(&self, name: &str) -> Option<ParamId> {
        self.params.iter().position(|param| param.name == name).map(|index| ParamId(index as u32))
    }

    /// The node number `index`, if there is one.
    pub fn node(&self, index: usize) -> Option<NodeId> {
        (index < self.len()).then(|| NodeId::at(index))
    }

    /// Adds a node as it is, even if an equal one exists.
    ///
    /// # Errors
    /// The operands do not fit the operation, or are not there yet; the graph is too large.
    pub fn append(&mut self, op: Op, operands: Operands) -> Result<NodeId, DagError> {
        self.check(op, operands)?;
        Ok(self.push(op, operands))
    }

    /// The node for an operation, shared with an equal one.
    ///
    /// # Panics
    /// The operands do not fit the operation: the caller's mistake.
    pub fn intern(&mut self, op: Op, operands: Operands) -> NodeId {
        debug_assert_eq!(self.check(op, operands), Ok(()));
        match self.interned.get(&(op, operands)) {
            Some(&id) => id,
            None => self.push(op, operands),
        }
    }

    /// The shared input node.
    pub fn input(&mut self) -> NodeId {
        self.intern(Op::Input, Operands::None)
    }

    /// A shared constant.
    pub fn constant(&mut self, value: Scalar) -> NodeId {
        self.intern(Op::Constant(value), Operands::None)
    }

    /// A shared unary operation.
    pub fn unary(&mut self, prim: Prim, x: NodeId) -> NodeId {
        assert_eq!(prim.arity(), Arity::Unary, "{} is not unary", prim.name());
        self.intern(Op::Prim(prim), Operands::One(x))
    }

    /// A shared binary operation.
    pub fn binary(&mut self, prim: Prim, a: NodeId, b: NodeId) -> NodeId {
        assert_eq!(prim.arity(), Arity::Binary, "{} is not binary", prim.name());
        self.intern(Op::Prim(prim), Operands::Two(a, b))
    }

    /// The graph with that output.
    pub fn finish(self, output: NodeId) -> Dag {
        assert!(output.index() < self.len(), "the output is one of the builder's nodes");
        Dag { graph: self.graph, params: self.params, output }
    }

    fn check(&self, op: Op, operands: Operands) -> Result<(), DagError> {
        if op.operand_count() != operands.count() {
            return Err(DagError::OperandCount {
                op: op_name(op).to_owned(),
                expected: op.operand_count(),
                found: operands.count(),
            });
        }
        if let Some(operand) = operands.iter().find(|operand| operand.index() >= self.len()) {
            return Err(DagError::UndefinedOperand { operand: operand.index() });
        }
        if let Op::Param(param) = op
            && param.index() >= self.params.len()
        {
            return Err(DagError::UndefinedParam(param.index()));
        }
        if self.len() >= MAX_NODES {
            return Err(DagError::TooManyNodes);
        }
        Ok(())
    }

    fn push(&mut self, op: Op, operands: Operands) -> NodeId {
        let id = NodeId::at(self.graph.add_node(op).index());
        for (number, operand) in operands.iter().enumerate() {
            self.graph.add_edge(operand.in_graph(), id.in_graph(), number as u8);
        }
        self.interned.entry((op, operands)).or_insert(id);
        id
    }
}

/// The name of an operation as the language and the JSON form spell it.
pub(crate) fn op_name(op: Op) -> &'static str {
    match op {
        Op::Input => "input",
        Op::Constant(_) => "constant",
        Op::Param(_) => "param",
        Op::Prim(prim) => prim.name(),
        Op::Moment(op) => op.moment().name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_nodes_are_shared_and_appended_ones_are_not() {
        let mut builder = Builder::new();
        let x = builder.input();
        let a = builder.unary(Prim::Tanh, x);
        assert_eq!(builder.unary(Prim::Tanh, x), a);
        let b = builder.append(Op::Prim(Prim::Tanh), Operands::One(x)).unwrap();
        assert_ne!(a, b);
        let sum = builder.binary(Prim::Add, a, b);
        let dag = builder.finish(sum);
        assert_eq!(dag.len(), 4);
        assert_eq!(dag.normalized().len(), 3);
    }

    #[test]
    fn operands_keep_their_order() {
        let mut builder = Builder::new();
        let x = builder.input();
        let two = builder.constant(Scalar::new(2.0).unwrap());
        let forward = builder.binary(Prim::Div, x, two);
        let backward = builder.binary(Prim::Div, two, x);
        let same = builder.binary(Prim::Div, x, x);
        let dag = builder.finish(backward);
        assert_eq!(dag.operands(forward), Operands::Two(x, two));
        assert_eq!(dag.operands(backward), Operands::Two(two, x));
        assert_eq!(dag.operands(same), Operands::Two(x, x));
    }

    #[test]
    fn bad_nodes_are_refused() {
        let mut builder = Builder::new();
        let x = builder.input();
        let error = builder.append(Op::Prim(Prim::Add), Operands::One(x)).unwrap_err();
        assert_eq!(error.to_string(), "add takes 2 operand(s), found 1");
        let later = NodeId(7);
        let error = builder.append(Op::Prim(Prim::Neg), Operands::One(later)).unwrap_err();
        assert_eq!(error.to_string(), "node 7 is not defined before it is used");
    }
}
