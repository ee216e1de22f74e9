//! The layer's graph while a model is read: a builder that knows what each node is, along which axes it varies
//! and in which range, and that puts idioms of models back to what the language calls them.

use normact_ir::json::defaults;
use normact_ir::{
    Axes, Builder, Dag, Extent, IndexSet, Interval, Moment, MomentOp, NodeId, Op, Operands, Param, ParamId, Prim,
    Running, Scalar, Tracking,
};

#[derive(Default)]
pub(super) struct Graph {
    builder: Builder,
    params: Vec<Param>,
    nodes: Vec<Node>,
}

#[derive(Clone, Copy)]
struct Node {
    op: Op,
    operands: Operands,
    axes: Axes,
    range: Interval,
}

impl Graph {
    pub(super) fn input(&mut self) -> NodeId {
        self.node(Op::Input, Operands::None, Axes::INPUT, Interval::ALL)
    }

    pub(super) fn number(&mut self, value: f64) -> NodeId {
        let value = Scalar::new(value).unwrap_or_else(|| unreachable!("the numbers of operators are finite"));
        self.constant(value)
    }

    pub(super) fn constant(&mut self, value: Scalar) -> NodeId {
        self.node(Op::Constant(value), Operands::None, Axes::NONE, Interval::point(value.get()))
    }

    /// A parameter; `None` if one of that name is there. Its values lie in `range`.
    pub(super) fn param(&mut self, param: Param, range: Interval) -> Option<NodeId> {
        let axes = match param.extent {
            Extent::PerChannel => Axes::CHANNEL,
            Extent::Scalar => Axes::NONE,
        };
        let id = self.builder.declare(param.clone()).ok()?;
        self.params.push(param);
        Some(self.node(Op::Param(id), Operands::None, axes, range))
    }

    pub(super) fn has_param(&self, name: &str) -> bool {
        self.builder.param_named(name).is_some()
    }

    pub(super) fn axes(&self, id: NodeId) -> Axes {
        self.nodes[id.index()].axes
    }

    pub(super) fn unary(&mut self, prim: Prim, x: NodeId) -> NodeId {
        let Node { axes, range, .. } = self.nodes[x.index()];
        self.node(Op::Prim(prim), Operands::One(x), axes, prim.range(range, range))
    }

    pub(super) fn binary(&mut self, prim: Prim, a: NodeId, b: NodeId) -> NodeId {
        let (first, second) = (self.nodes[a.index()], self.nodes[b.index()]);
        let range = prim.range(first.range, second.range);
        self.node(Op::Prim(prim), Operands::Two(a, b), first.axes.union(second.axes), range)
    }

    pub(super) fn add(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.binary(Prim::Add, a, b)
    }

    pub(super) fn div(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.binary(Prim::Div, a, b)
    }

    pub(super) fn max(&mut self, a: NodeId, b: NodeId) -> NodeId {
        self.binary(Prim::Max, a, b)
    }

    /// `-x`; of a number, the number.
    pub(super) fn neg(&mut self, x: NodeId) -> NodeId {
        match self.number_of(x).and_then(|value| Scalar::new(-value.get())) {
            Some(negative) => self.constant(negative),
            None => self.unary(Prim::Neg, x),
        }
    }

    /// The number that a node is.
    pub(super) fn number_of(&self, id: NodeId) -> Option<Scalar> {
        if let Op::Constant(value) = self.nodes[id.index()].op { Some(value) } else { None }
    }

    pub(super) fn sub(&mut self, a: NodeId, b: NodeId) -> NodeId {
        let negative = self.neg(b);
        let difference = self.add(a, negative);
        if a == b {
            self.nodes[difference.index()].range = Interval::point(0.0);
        }
        difference
    }

    /// `-max(-a, -b)`
    pub(super) fn min(&mut self, a: NodeId, b: NodeId) -> NodeId {
        let (a, b) = (self.neg(a), self.neg(b));
        let largest = self.max(a, b);
        self.neg(largest)
    }

    /// The product; a square, and the odd extensions of `log` and `sqrt`, by their names.
    pub(super) fn mul(&mut self, a: NodeId, b: NodeId) -> NodeId {
        if a == b {
            return self.unary(Prim::Square, a);
        }
        let extension = self.odd_extension(a, b).or_else(|| self.odd_extension(b, a));
        match extension {
            Some((prim, x)) => self.unary(prim, x),
            None => self.binary(Prim::Mul, a, b),
        }
    }

    /// `sign(x) * f(abs(x))`
    fn odd_extension(&self, sign: NodeId, of_abs: NodeId) -> Option<(Prim, NodeId)> {
        let x = self.operand_of(sign, Op::Prim(Prim::Sign))?;
        let is_of_x = |prim: &Prim| {
            let abs = self.operand_of(of_abs, Op::Prim(*prim));
            abs.and_then(|abs| self.operand_of(abs, Op::Prim(Prim::Abs))) == Some(x)
        };
        [Prim::Log, Prim::Sqrt].into_iter().find(is_of_x).map(|prim| (prim, x))
    }

    /// The square root of numbers that are not negative: of a variance or a mean square with `eps`, a moment.
    ///
    /// # Errors
    /// It may be negative, where the language's root has a value and the model's has none.
    pub(super) fn sqrt(&mut self, x: NodeId) -> Result<NodeId, String> {
        if let Some((moment, over, operand, eps)) = self.root(x) {
            return Ok(self.moment(moment, over, operand, eps, default_tracking()));
        }
        if !self.nodes[x.index()].range.is_not_negative() {
            return Err("its operand may be negative, where the language's `sqrt` is odd and not undefined".to_owned());
        }
        Ok(self.unary(Prim::Sqrt, x))
    }

    /// The logarithm of numbers that are not negative.
    ///
    /// # Errors
    /// They may be negative.
    pub(super) fn log(&mut self, x: NodeId) -> Result<NodeId, String> {
        if !self.nodes[x.index()].range.is_not_negative() {
            return Err("its operand may be negative, where the language's `log` is odd and not undefined".to_owned());
        }
        Ok(self.unary(Prim::Log, x))
    }

    /// The moment that is the root of an average, with or without `eps`.
    fn root(&self, x: NodeId) -> Option<(Moment, IndexSet, NodeId, Scalar)> {
        let eps = |id: NodeId| self.number_of(id).filter(|&eps| eps >= Scalar::ZERO);
        let (average, eps) = match (self.nodes[x.index()].op, self.nodes[x.index()].operands) {
            (Op::Prim(Prim::Add), Operands::Two(a, b)) => match (eps(a), eps(b)) {
                (_, Some(eps)) => (a, eps),
                (Some(eps), None) => (b, eps),
                (None, None) => return None,
            },
            _ => (x, Scalar::ZERO),
        };
        let Node { op: Op::Moment(op), operands: Operands::One(operand), .. } = self.nodes[average.index()] else {
            return None;
        };
        match op.moment() {
            Moment::Var => Some((Moment::Std, op.over(), operand, eps)),
            Moment::Mean => Some((Moment::Rms, op.over(), self.operand_of(operand, Op::Prim(Prim::Square))?, eps)),
            Moment::Rms | Moment::Std => None,
        }
    }

    /// The mean over an index set; of squared deviations from the mean over the same, the variance.
    pub(super) fn mean(&mut self, over: IndexSet, x: NodeId) -> NodeId {
        let (moment, x) = match self.deviates_from_mean(over, x) {
            Some(operand) => (Moment::Var, operand),
            None => (Moment::Mean, x),
        };
        self.moment(moment, over, x, Scalar::ZERO, default_tracking())
    }

    /// The `z` of `square(z - mean(z))`.
    fn deviates_from_mean(&self, over: IndexSet, square: NodeId) -> Option<NodeId> {
        let deviation = self.operand_of(square, Op::Prim(Prim::Square))?;
        let Node { op: Op::Prim(Prim::Add), operands: Operands::Two(z, negative), .. } = self.nodes[deviation.index()]
        else {
            return None;
        };
        let mean = self.operand_of(negative, Op::Prim(Prim::Neg))?;
        let Node { op: Op::Moment(op), operands: Operands::One(of), .. } = self.nodes[mean.index()] else {
            return None;
        };
        (op.moment() == Moment::Mean && op.over() == over && of == z).then_some(z)
    }

    pub(super) fn moment(
        &mut self,
        moment: Moment,
        over: IndexSet,
        x: NodeId,
        eps: Scalar,
        tracking: Tracking,
    ) -> NodeId {
        let Node { axes, range, .. } = self.nodes[x.index()];
        let op = Op::Moment(MomentOp::new(moment, over, eps, tracking));
        self.node(op, Operands::One(x), axes.reduce(over), range.moment(moment, eps.get()))
    }

    /// The graph of what `output` depends on, and the new number of each node that is left.
    pub(super) fn finish(self, output: NodeId) -> (Dag, Vec<Option<NodeId>>) {
        let params = self.params;
        let dag = self.builder.finish(output);
        let live = dag.live();
        let mut builder = Builder::new();
        let mut new_params: Vec<Option<ParamId>> = vec![None; params.len()];
        let mut new: Vec<Option<NodeId>> = vec![None; dag.len()];
        let distinct = "the graph that is copied has these names once";
        for id in dag.ids().filter(|id| live[id.index()]) {
            let op = match dag.op(id) {
                Op::Param(param) => Op::Param(*new_params[param.index()].get_or_insert_with(|| {
                    builder.declare(params[param.index()].clone()).unwrap_or_else(|_| unreachable!("{distinct}"))
                })),
                op @ (Op::Input | Op::Constant(_) | Op::Prim(_) | Op::Moment(_)) => op,
            };
            let operands: Vec<NodeId> = dag.operands(id).iter().filter_map(|operand| new[operand.index()]).collect();
            let operands = Operands::from_slice(&operands).unwrap_or_else(|| unreachable!("there are at most two"));
            new[id.index()] = Some(builder.intern(op, operands));
        }
        let output = new[output.index()].unwrap_or_else(|| unreachable!("the output is live"));
        (builder.finish(output), new)
    }

    fn operand_of(&self, id: NodeId, op: Op) -> Option<NodeId> {
        match self.nodes[id.index()] {
            Node { op: found, operands: Operands::One(x), .. } if found == op => Some(x),
            _ => None,
        }
    }

    fn node(&mut self, op: Op, operands: Operands, axes: Axes, range: Interval) -> NodeId {
        let id = self.builder.intern(op, operands);
        if id.index() == self.nodes.len() {
            self.nodes.push(Node { op, operands, axes, range });
        }
        id
    }
}

pub(super) fn default_tracking() -> Tracking {
    let momentum = Scalar::new(defaults::MOMENTUM).unwrap_or(Scalar::ZERO);
    Tracking { momentum, running: Running::Biased }
}
