//! A layer as straight-line code: what every target language prints.
//!
//! The input is viewed as `[samples, channels, positions]`, which serves every rank alike. A step names a
//! value that is used more than once, a statistic, or a part of an expression too long for a line; all
//! other operations are written where they are used. A statistic is the average itself (of `v`, of its
//! square, or of its squared deviation): nodes that read one average share its step, and the root of
//! `std` and `rms` is an expression on it. So a running average is one buffer and one step.
//!
//! A value that varies from group to group has a place for every channel in this form, and every
//! statistic keeps the axes it reduces at size 1.

use std::collections::HashMap;

use normact_ir::{
    Axes, Buffers, Channels, Dag, IndexSet, NodeId, Op, Operands, ParamId, Prim, Quantity, Scalar, infer,
};

/// Operations of one line, beyond which a part of it gets a name.
const OPERATIONS: usize = 7;

/// Straight-line code.
#[derive(Debug, Clone)]
pub(crate) struct Outline<'a> {
    pub(crate) dag: &'a Dag,
    pub(crate) buffers: Buffers,
    /// In order; each reads the ones before.
    pub(crate) steps: Vec<Step>,
    /// The layer's result; it may have to be broadcast to the input's shape.
    pub(crate) result: Expr,
    /// The axes along which the result varies.
    pub(crate) result_axes: Axes,
}

/// A value with a name.
#[derive(Debug, Clone)]
pub(crate) struct Step {
    /// Lower-case ASCII letters, digits and underscores; unlike every other step. The names of
    /// parameters and buffers are none of its business: [`Outline::new`] is told what to avoid.
    pub(crate) name: String,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) enum Value {
    Expr(Expr),
    Average(Average),
}

/// An average over an index set, of the elements that the operand has: along an axis of size 1 there is
/// one.
#[derive(Debug, Clone)]
pub(crate) struct Average {
    /// The input, a parameter, a number, or a step.
    pub(crate) operand: Expr,
    /// The axes along which the operand varies.
    pub(crate) operand_axes: Axes,
    pub(crate) over: IndexSet,
    pub(crate) quantity: Quantity,
    /// Of a variance: the step that is the mean over the same elements, if the code has one anyway.
    pub(crate) mean: Option<usize>,
    /// The number of the running average that it updates in training, and that stands for it in
    /// evaluation.
    pub(crate) buffer: Option<usize>,
}

impl Average {
    /// The axes of `[samples, channels, positions]` that it reduces, among those that the operand
    /// varies along; channels also where groups of them are meant.
    pub(crate) fn reduced(&self) -> [bool; 3] {
        let channels = match self.over {
            IndexSet::Batch | IndexSet::Instance => false,
            IndexSet::Layer | IndexSet::Group(_) | IndexSet::Channel | IndexSet::All => {
                self.operand_axes.channels != Channels::One
            }
        };
        [
            self.over.reduces_samples() && self.operand_axes.samples,
            channels,
            self.over.reduces_positions() && self.operand_axes.positions,
        ]
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Expr {
    Input,
    Constant(Scalar),
    Param(ParamId),
    /// The step of that number.
    Step(usize),
    Unary(Prim, Box<Expr>),
    Binary(Prim, Box<Expr>, Box<Expr>),
    /// `sqrt(average + eps)` of an average that is not negative.
    Root(Box<Expr>, Scalar),
}

impl Expr {
    /// How many operations it has.
    fn operations(&self) -> usize {
        match self {
            Expr::Input | Expr::Constant(_) | Expr::Param(_) | Expr::Step(_) => 0,
            Expr::Unary(_, a) => 1 + a.operations(),
            Expr::Root(a, _) => 2 + a.operations(),
            Expr::Binary(_, a, b) => 1 + a.operations() + b.operations(),
        }
    }

    /// Calls `visit` with it and its parts, operands first and from the left.
    pub(crate) fn visit(&self, visit: &mut impl FnMut(&Expr)) {
        match self {
            Expr::Input | Expr::Constant(_) | Expr::Param(_) | Expr::Step(_) => {}
            Expr::Unary(_, a) | Expr::Root(a, _) => a.visit(visit),
            Expr::Binary(_, a, b) => {
                a.visit(visit);
                b.visit(visit);
            }
        }
        visit(self);
    }
}

impl<'a> Outline<'a> {
    /// Outlines a graph; no step has a name of `taken`.
    pub(crate) fn new(dag: &'a Dag, taken: &[&str]) -> Self {
        let live = dag.live();
        let mut uses = vec![0; dag.len()];
        for id in dag.ids().filter(|id| live[id.index()]) {
            dag.operands(id).iter().for_each(|operand| uses[operand.index()] += 1);
        }
        uses[dag.output().index()] += 1;
        let mut writer = Writer {
            dag,
            axes: infer(dag),
            buffers: Buffers::of(dag),
            names: taken.iter().map(|name| (*name).to_owned()).collect(),
            averages: HashMap::new(),
            steps: vec![],
            values: vec![None; dag.len()],
        };
        for id in dag.ids().filter(|id| live[id.index()]) {
            let value = writer.value(id);
            let is_leaf = value.operations() == 0;
            let is_long = value.operations() >= OPERATIONS && id != dag.output();
            let value = if !is_leaf && (uses[id.index()] > 1 || is_long) { writer.named(id, value) } else { value };
            writer.values[id.index()] = Some(value);
        }
        let result = writer.of(dag.output());
        let result_axes = writer.axes[dag.output().index()];
        Self { dag, buffers: writer.buffers, steps: writer.steps, result, result_axes }
    }
}

struct Writer<'a> {
    dag: &'a Dag,
    axes: Vec<Axes>,
    buffers: Buffers,
    names: Vec<String>,
    /// The step of each average.
    averages: HashMap<(NodeId, IndexSet, Quantity, Option<usize>), usize>,
    steps: Vec<Step>,
    values: Vec<Option<Expr>>,
}

impl Writer<'_> {
    fn of(&self, id: NodeId) -> Expr {
        self.values[id.index()].clone().unwrap_or_else(|| unreachable!("operands precede their users"))
    }

    fn value(&mut self, id: NodeId) -> Expr {
        match (self.dag.op(id), self.dag.operands(id)) {
            (Op::Input, _) => Expr::Input,
            (Op::Constant(value), _) => Expr::Constant(value),
            (Op::Param(param), _) => Expr::Param(param),
            (Op::Prim(prim), Operands::One(a)) => Expr::Unary(prim, Box::new(self.of(a))),
            (Op::Prim(prim), Operands::Two(a, b)) => Expr::Binary(prim, Box::new(self.of(a)), Box::new(self.of(b))),
            (Op::Moment(op), Operands::One(operand)) => {
                let buffer = self.buffers.of_node(id);
                let average = self.average(operand, op.over(), op.moment().quantity(), buffer);
                if op.moment().is_root() { Expr::Root(Box::new(average), op.eps()) } else { average }
            }
            (Op::Prim(_) | Op::Moment(_), _) => unreachable!("a graph checks the number of operands"),
        }
    }

    fn average(&mut self, operand: NodeId, over: IndexSet, quantity: Quantity, buffer: Option<usize>) -> Expr {
        // Evaluation reads the buffer, whichever node it belongs to.
        let key = (operand, over, quantity, buffer);
        if let Some(&step) = self.averages.get(&key) {
            return Expr::Step(step);
        }
        let value = self.of(operand);
        let value = if value.operations() > 0 { self.named(operand, value) } else { value };
        self.values[operand.index()] = Some(value.clone());
        let mean = match quantity {
            Quantity::Variance => {
                let same = |known: &&(NodeId, IndexSet, Quantity, Option<usize>)| {
                    (known.0, known.1, known.2) == (operand, over, Quantity::Mean)
                };
                // The first one: a map has no order of its own.
                self.averages.keys().filter(same).map(|key| self.averages[key]).min()
            }
            Quantity::Mean | Quantity::MeanSquare => None,
        };
        let stem = match quantity {
            Quantity::Mean => "mean",
            Quantity::MeanSquare => "mean_square",
            Quantity::Variance => "var",
        };
        let name = self.fresh(&format!("{stem}_{}", over.name()), false);
        let operand_axes = self.axes[operand.index()];
        let average = Average { operand: value, operand_axes, over, quantity, mean, buffer };
        self.steps.push(Step { name, value: Value::Average(average) });
        self.averages.insert(key, self.steps.len() - 1);
        Expr::Step(self.steps.len() - 1)
    }

    /// A step for the value of a node.
    fn named(&mut self, id: NodeId, value: Expr) -> Expr {
        let name = match self.dag.op(id) {
            Op::Moment(op) => self.fresh(&format!("{}_{}", op.moment().name(), op.over().name()), false),
            _ => self.fresh("t", true),
        };
        self.steps.push(Step { name, value: Value::Expr(value) });
        Expr::Step(self.steps.len() - 1)
    }

    /// A name that is not taken: the stem, or the stem with the first number that is free.
    fn fresh(&mut self, stem: &str, numbered: bool) -> String {
        let plain = (!numbered).then(|| stem.to_owned());
        let separator = if numbered { "" } else { "_" };
        let first = if numbered { 1 } else { 2 };
        let numbers = (first..).map(|number| format!("{stem}{separator}{number}"));
        let name = plain.into_iter().chain(numbers).find(|name| !self.names.contains(name));
        let name = name.unwrap_or_else(|| unreachable!("there are more numbers than names"));
        self.names.push(name.clone());
        name
    }
}
