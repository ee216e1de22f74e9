//! The joint graph of a layer: its value and, by reverse accumulation, its gradients.
//!
//! Derivatives of primitives are the `slope` column of the primitive table, read as graph
//! operations. The adjoint of a value has the axes of that value: where an operand varies along
//! fewer axes than the result, its adjoint is a sum.

use std::cell::RefCell;
use std::f64::consts::FRAC_2_SQRT_PI;
use std::ops::{Add, Div, Mul, Neg, Sub};

use normact_ir::{Axes, Buffer, Buffers, Dag, Extent, Mode, Op, Prim, Quantity, Running, Scalar};

use crate::graph::{Expr, Graph, Statistic, ValueId, is_constant_within, one_by_one};
use crate::schedule::Sizes;

/// A layer with its gradients.
#[derive(Debug, Clone)]
pub struct Joint {
    /// Every value.
    pub graph: Graph,
    /// The layer's result; it broadcasts to the input's shape.
    pub output: ValueId,
    /// For each buffer of [`Buffers::list`], its value after a step of training.
    pub updates: Vec<Option<ValueId>>,
    /// The gradient of the input; `None` where the output does not depend on it.
    pub input_gradient: Option<ValueId>,
    /// The gradient of each parameter; `None` where the output does not depend on it.
    pub param_gradients: Vec<Option<ValueId>>,
}

/// With fewer positions than this, sums of rows are no shortcut to sums of samples or channels.
const SHORT_ROW: usize = 8;

/// Builds the joint graph of a layer in training or evaluation mode. With known sizes, a statistic of
/// a single element is that element (or 0, for a variance), exactly.
pub fn joint(dag: &Dag, mode: Mode, sizes: Option<Sizes>) -> Joint {
    let mut graph = Graph::default();
    graph.has_short_rows = sizes.is_some_and(|sizes| sizes.positions < SHORT_ROW);
    let (values, updates) = forward(dag, mode, sizes, &mut graph);
    let output = values[dag.output().index()].expect("the output is live");
    graph.shares_reciprocals = true;
    let shared = RefCell::new(graph);
    let adjoints = Reverse { graph: &shared }.run(output);
    let graph = shared.into_inner();
    let mut input_gradient = None;
    let mut param_gradients = vec![None; dag.params().len()];
    for (id, adjoint) in graph.ids().zip(adjoints) {
        match graph.expr(id) {
            Expr::Input => input_gradient = adjoint,
            Expr::Param(param) => param_gradients[param.index()] = adjoint,
            Expr::Upstream
            | Expr::Constant(_)
            | Expr::Count { .. }
            | Expr::Running(_)
            | Expr::Prim(..)
            | Expr::Reduce { .. } => {}
        }
    }
    Joint { graph, output, updates, input_gradient, param_gradients }
}

/// The value of every live node, and the values of the buffers after a step of training.
fn forward(
    dag: &Dag,
    mode: Mode,
    sizes: Option<Sizes>,
    graph: &mut Graph,
) -> (Vec<Option<ValueId>>, Vec<Option<ValueId>>) {
    let buffers = Buffers::of(dag);
    let live = dag.live();
    let mut values: Vec<Option<ValueId>> = vec![None; dag.len()];
    let mut updates = vec![None; buffers.list().len()];
    for id in dag.ids().filter(|id| live[id.index()]) {
        let operand = |number: usize| {
            let node = dag.operands(id).iter().nth(number).expect("a graph checks the number of operands");
            values[node.index()].expect("operands of live nodes are live and precede them")
        };
        let value = match dag.op(id) {
            Op::Input => graph.leaf(Expr::Input, Axes::INPUT),
            Op::Constant(value) => graph.leaf(Expr::Constant(value), Axes::NONE),
            Op::Param(param) => graph.leaf(Expr::Param(param), extent_axes(dag.param(param).extent)),
            Op::Prim(prim) if prim.arity().count() == 1 => graph.unary(prim, operand(0)),
            Op::Prim(prim) => graph.binary(prim, operand(0), operand(1)),
            Op::Moment(op) => {
                let average = match (buffers.of_node(id), mode) {
                    (Some(buffer), Mode::Evaluation) => {
                        graph.leaf(Expr::Running(buffer), extent_axes(buffers.list()[buffer].extent))
                    }
                    (buffer, _) => {
                        let to = graph.axes(operand(0)).reduce(op.over());
                        let quantity = op.moment().quantity();
                        if let Some(buffer) = buffer {
                            let average = graph.reduce(statistic(quantity), operand(0), to);
                            let correction = match buffers.list()[buffer].tracking.running {
                                Running::Unbiased => bessel(graph, graph.axes(operand(0)), to, sizes),
                                Running::Biased => graph.leaf(Expr::Constant(Scalar::ONE), Axes::NONE),
                            };
                            let new = graph.binary(Prim::Mul, average, correction);
                            updates[buffer] = Some(moved(graph, buffer, &buffers.list()[buffer], new));
                        }
                        average(graph, quantity, operand(0), to, sizes)
                    }
                };
                if op.moment().is_root() { root(graph, average, op.eps().get()) } else { average }
            }
        };
        values[id.index()] = Some(value);
    }
    (values, updates)
}

/// A running average moved towards that of a batch.
fn moved(graph: &mut Graph, number: usize, buffer: &Buffer, new: ValueId) -> ValueId {
    let momentum = buffer.tracking.momentum;
    let rest = Scalar::new(1.0 - momentum.get()).unwrap_or(Scalar::ZERO);
    let old = graph.leaf(Expr::Running(number), extent_axes(buffer.extent));
    let [momentum, rest] = [momentum, rest].map(|share| graph.leaf(Expr::Constant(share), Axes::NONE));
    let (old, new) = (graph.binary(Prim::Mul, old, rest), graph.binary(Prim::Mul, new, momentum));
    graph.binary(Prim::Add, old, new)
}

/// What makes a variance of values with the axes `from` unbiased: `n / (n - 1)`, or 1 where there is
/// a single element.
fn bessel(graph: &mut Graph, from: Axes, to: Axes, sizes: Option<Sizes>) -> ValueId {
    let one = graph.leaf(Expr::Constant(Scalar::ONE), Axes::NONE);
    let count = graph.count(one_by_one(from), to);
    if sizes.is_some_and(|sizes| sizes.count(one_by_one(from), to) <= 1.0) || graph.as_constant(count) == Some(1.0) {
        return one;
    }
    let minus_one = graph.unary(Prim::Neg, one);
    let others = graph.binary(Prim::Add, count, minus_one);
    graph.binary(Prim::Div, count, others)
}

fn extent_axes(extent: Extent) -> Axes {
    match extent {
        Extent::PerChannel => Axes::CHANNEL,
        Extent::Scalar => Axes::NONE,
    }
}

fn average(graph: &mut Graph, quantity: Quantity, operand: ValueId, to: Axes, sizes: Option<Sizes>) -> ValueId {
    let elements = one_by_one(graph.axes(operand));
    let is_single = sizes.is_some_and(|sizes| sizes.count(elements, to) == 1.0);
    if is_single || is_constant_within(graph.axes(operand), to) {
        return match quantity {
            Quantity::Mean => operand,
            Quantity::MeanSquare => graph.binary(Prim::Mul, operand, operand),
            // 0, and NaN where the operand is not finite.
            Quantity::Variance => {
                let zero = graph.constant(0.0).expect("0 is finite");
                graph.binary(Prim::Mul, operand, zero)
            }
        };
    }
    graph.reduce(statistic(quantity), operand, to)
}

fn statistic(quantity: Quantity) -> Statistic {
    match quantity {
        Quantity::Mean => Statistic::Mean,
        Quantity::MeanSquare => Statistic::MeanSquare,
        Quantity::Variance => Statistic::Variance,
    }
}

/// `sqrt(average + eps)` of a value that is not negative.
fn root(graph: &mut Graph, average: ValueId, eps: f64) -> ValueId {
    let eps = graph.constant(eps).expect("an eps is finite");
    let radicand = graph.binary(Prim::Add, average, eps);
    graph.unary(Prim::Sqrt, radicand)
}

/// Whether a value is `average + eps` of a mean square or variance with a positive eps.
fn is_positive_radicand(graph: &Graph, id: ValueId) -> bool {
    let Expr::Prim(Prim::Add, operands) = graph.expr(id) else { return false };
    let is_average = |id: ValueId| {
        matches!(graph.expr(id), Expr::Reduce { statistic: Statistic::MeanSquare | Statistic::Variance, .. })
    };
    operands.iter().any(is_average)
        && operands.iter().any(|id| graph.as_constant(id).is_some_and(|eps| eps >= f64::from(f32::MIN_POSITIVE)))
}

struct Reverse<'a> {
    graph: &'a RefCell<Graph>,
}

impl Reverse<'_> {
    /// The adjoint of each value of the forward graph; `None` where the output does not depend on it.
    fn run(&self, output: ValueId) -> Vec<Option<ValueId>> {
        let forward_len = self.graph.borrow().len();
        let mut adjoints: Vec<Option<ValueId>> = vec![None; forward_len];
        let dy = self.graph.borrow_mut().leaf(Expr::Upstream, Axes::INPUT);
        let output_axes = self.graph.borrow().axes(output);
        adjoints[output.index()] = Some(self.graph.borrow_mut().sum_to(dy, Axes::INPUT, output_axes));
        for index in (0..forward_len).rev() {
            let Some(adjoint) = adjoints[index] else { continue };
            let id = self.graph.borrow().ids().nth(index).expect("one of the forward values");
            let expr = self.graph.borrow().expr(id);
            match expr {
                Expr::Input
                | Expr::Upstream
                | Expr::Constant(_)
                | Expr::Count { .. }
                | Expr::Param(_)
                | Expr::Running(_) => {}
                Expr::Prim(prim, operands) => {
                    let slopes = self.slopes(prim, id, &operands.iter().collect::<Vec<_>>());
                    let from = self.graph.borrow().axes(id);
                    for (operand, slope) in operands.iter().zip(slopes) {
                        let Some(slope) = slope else { continue };
                        let product = self.graph.borrow_mut().binary(Prim::Mul, adjoint, slope);
                        self.add(&mut adjoints, operand, product, from);
                    }
                }
                Expr::Reduce { statistic, operand, to } => {
                    let slope = self.reduction_slope(statistic, operand, to);
                    let product = self.graph.borrow_mut().binary(Prim::Mul, adjoint, slope);
                    let from = one_by_one(self.graph.borrow().axes(operand));
                    self.add(&mut adjoints, operand, product, from);
                }
            }
        }
        adjoints
    }

    /// Adds `product`, one value for each slot of shape `from`, to the adjoint of `operand`.
    fn add(&self, adjoints: &mut [Option<ValueId>], operand: ValueId, product: ValueId, from: Axes) {
        let mut graph = self.graph.borrow_mut();
        if graph.as_constant(operand).is_some() {
            return;
        }
        let to = graph.axes(operand);
        let contribution = graph.sum_to(product, from, to);
        let slot = &mut adjoints[operand.index()];
        *slot = Some(match *slot {
            Some(sum) => graph.binary(Prim::Add, sum, contribution),
            None => contribution,
        });
    }

    /// The derivative of a reduction with respect to one element of its operand.
    fn reduction_slope(&self, statistic: Statistic, operand: ValueId, to: Axes) -> ValueId {
        let mut graph = self.graph.borrow_mut();
        let elements = one_by_one(graph.axes(operand));
        let share = graph.count(to, elements);
        let two = graph.constant(2.0).expect("2 is finite");
        match statistic {
            Statistic::Sum => graph.constant(1.0).expect("1 is finite"),
            Statistic::Mean => share,
            Statistic::MeanSquare => {
                let weight = graph.binary(Prim::Mul, two, share);
                graph.binary(Prim::Mul, operand, weight)
            }
            Statistic::Variance => {
                let weight = graph.binary(Prim::Mul, two, share);
                let mean = graph.reduce(Statistic::Mean, operand, to);
                let minus_mean = graph.unary(Prim::Neg, mean);
                let deviation = graph.binary(Prim::Add, operand, minus_mean);
                graph.binary(Prim::Mul, deviation, weight)
            }
        }
    }

    /// The derivative of a primitive with respect to each operand; `None` where it is 0.
    fn slopes(&self, prim: Prim, result: ValueId, operands: &[ValueId]) -> Vec<Option<ValueId>> {
        let symbol = |id: ValueId| Symbol::Value(self.graph, id);
        if prim == Prim::Sqrt && is_positive_radicand(&self.graph.borrow(), operands[0]) {
            return vec![self.value_of(0.5 / symbol(result))];
        }
        let slopes = match *operands {
            [a] => vec![unary_slope(prim, symbol(a), symbol(result))],
            [a, b] => {
                let (first, second) = binary_slope(prim, symbol(a), symbol(b), symbol(result));
                vec![first, second]
            }
            _ => unreachable!("a primitive has one or two operands"),
        };
        slopes.into_iter().map(|slope| self.value_of(slope)).collect()
    }

    fn value_of(&self, symbol: Symbol<'_>) -> Option<ValueId> {
        match symbol {
            Symbol::Number(0.0) => None,
            Symbol::Number(number) => self.graph.borrow_mut().constant(number),
            Symbol::Value(graph, id) if graph.borrow().as_constant(id) == Some(0.0) => None,
            Symbol::Value(_, id) => Some(id),
        }
    }
}

/// A number or a value of the graph: what the table's slopes compute with here.
#[derive(Clone, Copy)]
enum Symbol<'a> {
    Number(f64),
    Value(&'a RefCell<Graph>, ValueId),
}

impl From<f64> for Symbol<'_> {
    fn from(number: f64) -> Self {
        Symbol::Number(number)
    }
}

fn apply<'a>(prim: Prim, a: Symbol<'a>, b: Symbol<'a>) -> Symbol<'a> {
    let ((Symbol::Value(graph, _), _) | (_, Symbol::Value(graph, _))) = (a, b) else {
        let (Symbol::Number(a), Symbol::Number(b)) = (a, b) else { unreachable!("neither is a value") };
        return Symbol::Number(prim.value(a, b));
    };
    let id = |symbol: Symbol<'a>| match symbol {
        Symbol::Value(_, id) => id,
        Symbol::Number(number) => graph.borrow_mut().constant(number).expect("slopes have finite numbers"),
    };
    let (a, b) = (id(a), id(b));
    let result = graph.borrow_mut().binary(prim, a, b);
    Symbol::Value(graph, result)
}

fn apply_unary(prim: Prim, a: Symbol<'_>) -> Symbol<'_> {
    match a {
        Symbol::Number(a) => Symbol::Number(prim.value(a, 0.0)),
        Symbol::Value(graph, id) => Symbol::Value(graph, graph.borrow_mut().unary(prim, id)),
    }
}

macro_rules! operators {
    ($($Trait:ident $method:ident |$a:ident, $b:ident| $meaning:expr;)*) => {$(
        impl<'a> $Trait<Symbol<'a>> for Symbol<'a> {
            type Output = Symbol<'a>;
            fn $method(self, other: Symbol<'a>) -> Symbol<'a> { let ($a, $b) = (self, other); $meaning }
        }
        impl<'a> $Trait<f64> for Symbol<'a> {
            type Output = Symbol<'a>;
            fn $method(self, other: f64) -> Symbol<'a> { $Trait::$method(self, Symbol::Number(other)) }
        }
        impl<'a> $Trait<Symbol<'a>> for f64 {
            type Output = Symbol<'a>;
            fn $method(self, other: Symbol<'a>) -> Symbol<'a> { $Trait::$method(Symbol::Number(self), other) }
        }
    )*};
}

operators! {
    Add add |a, b| apply(Prim::Add, a, b);
    Mul mul |a, b| apply(Prim::Mul, a, b);
    Div div |a, b| apply(Prim::Div, a, b);
    Sub sub |a, b| apply(Prim::Add, a, -b);
}

impl<'a> Neg for Symbol<'a> {
    type Output = Symbol<'a>;
    fn neg(self) -> Symbol<'a> {
        apply_unary(Prim::Neg, self)
    }
}

fn sign(a: Symbol<'_>) -> Symbol<'_> {
    apply_unary(Prim::Sign, a)
}

fn abs(a: Symbol<'_>) -> Symbol<'_> {
    apply_unary(Prim::Abs, a)
}

fn square(a: Symbol<'_>) -> Symbol<'_> {
    apply_unary(Prim::Square, a)
}

fn exp(a: Symbol<'_>) -> Symbol<'_> {
    apply_unary(Prim::Exp, a)
}

fn of_unary<'a, S: Into<Symbol<'a>>>(
    slope: impl Fn(Symbol<'a>, Symbol<'a>) -> S,
    a: Symbol<'a>,
    y: Symbol<'a>,
) -> Symbol<'a> {
    slope(a, y).into()
}

fn of_binary<'a, S: Into<Symbol<'a>>, T: Into<Symbol<'a>>>(
    slope: impl Fn(Symbol<'a>, Symbol<'a>, Symbol<'a>) -> (S, T),
    a: Symbol<'a>,
    b: Symbol<'a>,
    y: Symbol<'a>,
) -> (Symbol<'a>, Symbol<'a>) {
    let (first, second) = slope(a, b, y);
    (first.into(), second.into())
}

/// Makes `unary_slope` and `binary_slope`, one match arm per elementwise row of the table.
macro_rules! slopes {
    (
        unary { $( $(#[doc = $udoc:literal])+ $Unary:ident $uname:literal {
            laws: [$($ulaw:expr),*], value: $uvalue:expr, slope: $uslope:expr, range: $urange:expr, burn: $uburn:expr,
            text: $utext:tt,
        } )* }
        binary { $( $(#[doc = $bdoc:literal])+ $Binary:ident $bname:literal {
            laws: [$($blaw:expr),*], value: $bvalue:expr, slope: $bslope:expr, range: $brange:expr, burn: $bburn:expr,
            text: $btext:tt,
        } )* }
        moment { $($moment:tt)* }
    ) => {
        fn unary_slope<'a>(prim: Prim, a: Symbol<'a>, y: Symbol<'a>) -> Symbol<'a> {
            match prim {
                $(Prim::$Unary => of_unary($uslope, a, y),)*
                $(Prim::$Binary)|* => unreachable!("two operands"),
            }
        }

        fn binary_slope<'a>(prim: Prim, a: Symbol<'a>, b: Symbol<'a>, y: Symbol<'a>) -> (Symbol<'a>, Symbol<'a>) {
            match prim {
                $(Prim::$Binary => of_binary($bslope, a, b, y),)*
                $(Prim::$Unary)|* => unreachable!("one operand"),
            }
        }
    };
}

normact_ir::primitives!(slopes);
