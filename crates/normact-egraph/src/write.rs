//! Terms back to graphs: signed powers become the primitives they are made of, and sums and products
//! are written the way a person would: positive terms first, quotients as quotients.

use normact_ir::{Builder, Dag, NodeId, Op, Operands, Param, ParamId, Prim, Scalar};

use crate::key::walk;
use crate::term::{Exponent, Head, TermId, Terms};

/// Writes a term as a graph with these parameters; `params[i]` is the parameter at position `i` of
/// the arena. Parameters that do not occur are declared all the same.
pub(crate) fn write(terms: &Terms, root: TermId, params: &[Param]) -> Dag {
    let mut builder = Builder::new();
    let ids: Vec<ParamId> = params
        .iter()
        .map(|param| builder.declare(param.clone()).expect("the parameters of a graph have distinct names"))
        .collect();
    let mut writer = Writer { terms, builder, ids, nodes: Vec::new() };
    for id in walk(terms, root) {
        let node = writer.node(id);
        if writer.nodes.len() <= id.index() {
            writer.nodes.resize(id.index() + 1, None);
        }
        writer.nodes[id.index()] = Some(node);
    }
    let output = writer.at(root);
    writer.builder.finish(output)
}

/// A factor of a product: what is multiplied or divided by.
struct Factor {
    node: NodeId,
    divides: bool,
}

struct Writer<'a> {
    terms: &'a Terms,
    builder: Builder,
    ids: Vec<ParamId>,
    nodes: Vec<Option<NodeId>>,
}

impl Writer<'_> {
    fn at(&self, id: TermId) -> NodeId {
        self.nodes[id.index()].expect("operands are written before their users")
    }

    fn number(&mut self, value: f64) -> NodeId {
        self.builder.constant(Scalar::new(value).expect("constants of terms are finite"))
    }

    fn node(&mut self, id: TermId) -> NodeId {
        match self.terms.head(id) {
            Head::Undefined => {
                let zero = self.number(0.0);
                self.builder.binary(Prim::Div, zero, zero)
            }
            Head::Const(value) => self.builder.constant(value),
            Head::Input => self.builder.input(),
            Head::Param(param) => self.builder.intern(Op::Param(self.ids[param as usize]), Operands::None),
            Head::Sum => self.sum(id),
            Head::Product => {
                let operands = self.terms.operands(id).to_vec();
                self.product(&operands)
            }
            Head::Max => {
                let nodes: Vec<NodeId> =
                    self.in_reading_order(id).into_iter().map(|operand| self.at(operand)).collect();
                let max = nodes.into_iter().reduce(|a, b| self.builder.binary(Prim::Max, a, b));
                max.expect("a maximum has operands")
            }
            Head::Power(_) => self.product(&[id]),
            Head::Unary(prim) => {
                let operand = self.at(self.terms.operand(id));
                self.builder.unary(prim, operand)
            }
            Head::Moment(op) => {
                let operand = self.at(self.terms.operand(id));
                self.builder.intern(Op::Moment(op), Operands::One(operand))
            }
        }
    }

    /// The operands of a chain as a person would write them: what depends on the input, then
    /// parameters, then constants.
    fn in_reading_order(&self, id: TermId) -> Vec<TermId> {
        let mut operands = self.terms.operands(id).to_vec();
        operands.sort_by_key(|&operand| self.reading_rank(operand));
        operands
    }

    fn reading_rank(&self, id: TermId) -> u32 {
        match self.terms.head(id) {
            Head::Input => 0,
            Head::Sum | Head::Product | Head::Max | Head::Power(_) | Head::Unary(_) | Head::Moment(_) => 1,
            Head::Param(_) => 2,
            Head::Const(_) | Head::Undefined => 3,
        }
    }

    fn sum(&mut self, id: TermId) -> NodeId {
        let operands = self.in_reading_order(id);
        let is_negative = |writer: &Self, id: TermId| match writer.terms.head(id) {
            Head::Const(value) => value.get() < 0.0,
            Head::Product => writer.terms.const_value(writer.terms.operands(id)[0]).is_some_and(|value| value < 0.0),
            _ => false,
        };
        let (negative, positive): (Vec<TermId>, Vec<TermId>) =
            operands.into_iter().partition(|&operand| is_negative(self, operand));
        let mut sum: Option<NodeId> = None;
        for operand in positive {
            let node = self.at(operand);
            sum = Some(match sum {
                Some(sum) => self.builder.binary(Prim::Add, sum, node),
                None => node,
            });
        }
        for operand in negative {
            // The first term keeps its sign; the others are subtracted.
            let Some(before) = sum else {
                sum = Some(self.at(operand));
                continue;
            };
            let node = self.magnitude(operand);
            let negated = self.builder.unary(Prim::Neg, node);
            sum = Some(self.builder.binary(Prim::Add, before, negated));
        }
        sum.expect("a sum has operands")
    }

    /// A term with a negative constant, without the sign.
    fn magnitude(&mut self, id: TermId) -> NodeId {
        match self.terms.head(id) {
            Head::Const(value) => self.number(-value.get()),
            _ => {
                let operands = self.terms.operands(id).to_vec();
                let constant = self.terms.const_value(operands[0]).expect("a negative product has a constant");
                self.product_with(Some(-constant).filter(|&magnitude| magnitude != 1.0), &operands[1..])
            }
        }
    }

    fn product(&mut self, factors: &[TermId]) -> NodeId {
        match self.terms.const_value(factors[0]) {
            Some(constant) => self.product_with(Some(constant), &factors[1..]),
            None => self.product_with(None, factors),
        }
    }

    fn product_with(&mut self, constant: Option<f64>, factors: &[TermId]) -> NodeId {
        let mut factors = factors.to_vec();
        factors.sort_by_key(|&factor| self.reading_rank(factor));
        let written: Vec<Factor> = factors.iter().map(|&factor| self.factor(factor)).collect();
        let multiplied = written.iter().filter(|factor| !factor.divides).map(|factor| factor.node);
        let mut numerator = multiplied.reduce(|a, b| self.builder.binary(Prim::Mul, a, b));
        numerator = match (numerator, constant) {
            (None, constant) => Some(self.number(constant.unwrap_or(1.0))),
            (Some(node), Some(-1.0)) => Some(self.builder.unary(Prim::Neg, node)),
            (Some(node), Some(constant)) => {
                let constant = self.number(constant);
                Some(self.builder.binary(Prim::Mul, constant, node))
            }
            (numerator, None) => numerator,
        };
        let divided = written.iter().filter(|factor| factor.divides).map(|factor| factor.node);
        let denominator = divided.reduce(|a, b| self.builder.binary(Prim::Mul, a, b));
        let numerator = numerator.expect("it was just given one");
        match denominator {
            Some(denominator) => self.builder.binary(Prim::Div, numerator, denominator),
            None => numerator,
        }
    }

    /// A factor as primitives: `sign(a)`, whole powers as products of `a`, `square(a)` and `|a|`, halves
    /// as roots, other exponents by `exp` and `log`.
    fn factor(&mut self, id: TermId) -> Factor {
        let (base, exponent) = self.terms.as_power(id);
        if exponent == Exponent::ONE || matches!(self.terms.head(id), Head::Const(_)) {
            return Factor { node: self.at_or_write(id), divides: false };
        }
        let base = self.at(base);
        let divides = exponent.get() < 0.0;
        let power = self.power(base, exponent.get().abs(), exponent.odd);
        Factor { node: power, divides }
    }

    fn at_or_write(&mut self, id: TermId) -> NodeId {
        match self.nodes.get(id.index()).copied().flatten() {
            Some(node) => node,
            None => self.node(id),
        }
    }

    fn power(&mut self, base: NodeId, exponent: f64, odd: bool) -> NodeId {
        if exponent == 0.0 {
            let sign = self.builder.unary(Prim::Sign, base);
            return if odd { sign } else { self.builder.unary(Prim::Abs, sign) };
        }
        if exponent.fract() == 0.0 && exponent <= 64.0 {
            return self.whole_power(base, exponent as u32, odd);
        }
        let doubled = exponent * 2.0;
        // Halves, quarters, ... down to a 64th.
        if (exponent * 64.0).fract() == 0.0 && exponent <= 64.0 {
            // The root of an even power has lost the sign; an odd one keeps it.
            let inner = self.power(base, doubled, odd);
            return self.builder.unary(Prim::Sqrt, inner);
        }
        let magnitude = self.builder.unary(Prim::Abs, base);
        let log = self.builder.unary(Prim::Log, magnitude);
        let exponent = self.number(exponent);
        let scaled = self.builder.binary(Prim::Mul, exponent, log);
        let power = self.builder.unary(Prim::Exp, scaled);
        if odd {
            let sign = self.builder.unary(Prim::Sign, base);
            self.builder.binary(Prim::Mul, sign, power)
        } else {
            power
        }
    }

    fn whole_power(&mut self, base: NodeId, exponent: u32, odd: bool) -> NodeId {
        match (exponent, odd) {
            (1, true) => base,
            (1, false) => self.builder.unary(Prim::Abs, base),
            (2, false) => self.builder.unary(Prim::Square, base),
            (_, false) if exponent.is_multiple_of(2) => {
                let root = self.whole_power(base, exponent / 2, false);
                self.builder.unary(Prim::Square, root)
            }
            (_, true) if exponent.is_multiple_of(2) => {
                let magnitude = self.builder.unary(Prim::Abs, base);
                let rest = self.whole_power(base, exponent - 1, true);
                self.builder.binary(Prim::Mul, magnitude, rest)
            }
            (_, parity) => {
                let one = self.whole_power(base, 1, parity);
                let rest = self.whole_power(base, exponent - 1, false);
                self.builder.binary(Prim::Mul, one, rest)
            }
        }
    }
}
