//! Expressions to operations: functions inlined, settings filled in, equal parts shared.
//!
//! Inlining remembers the result of each function on each list of operands, so a chain of functions
//! that each call the last one twice takes time in proportion to the graph, not to the formula
//! written out.

use std::collections::HashMap;

use normact_ir::stated::Statistic;
use normact_ir::{Groups, IndexSet, Moment, NodeId, Operands, Prim, Scalar};

use crate::ast::*;
use crate::codes::Code;
use crate::diagnostic::Diagnostic;
use crate::names::Library;
use crate::settings::{InForce, Known, SettingValue, literal, whole};
use crate::source::Span;

/// The most operations a layer may have after inlining.
pub const MAX_OPERATIONS: usize = 100_000;
/// How deep calls and brackets may nest while functions are inlined; keeps the stack small.
const MAX_DEPTH: usize = 1_000;
/// How many expressions are looked at; bounds the time where inlining finds no new operations.
const MAX_STEPS: usize = 4_000_000;

/// What expressions are built into. Equal operations are one node.
pub(crate) trait Target {
    /// What it is called in messages.
    const NAME: &'static str;

    fn len(&self) -> usize;
    fn constant(&mut self, value: Scalar) -> NodeId;
    fn prim(&mut self, prim: Prim, operands: Operands) -> NodeId;
    fn reduce(&mut self, reducer: Reducer, over: IndexSet, in_force: &InForce, x: NodeId) -> NodeId;
}

/// What a call over an index set computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reducer {
    /// A moment.
    Moment(Moment),
    /// A statistic that only gradients have.
    Own(Statistic),
}

impl Reducer {
    /// Of a call whose names have been checked.
    fn of(call: &Call) -> Option<Self> {
        let name = call.function.text.as_str();
        let own = || Statistic::own(name).filter(|_| call.index_set.is_some());
        Moment::by_name(name).map(Reducer::Moment).or_else(|| own().map(Reducer::Own))
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Reducer::Moment(moment) => moment.name(),
            Reducer::Own(statistic) => Self::own(statistic).0,
        }
    }

    /// What it computes, in Markdown.
    pub(crate) fn doc(self) -> &'static str {
        match self {
            Reducer::Moment(moment) => moment.doc(),
            Reducer::Own(statistic) => Self::own(statistic).2,
        }
    }

    fn own(statistic: Statistic) -> (&'static str, Statistic, &'static str) {
        let row = Statistic::OWN.into_iter().find(|(_, own, _)| *own == statistic);
        row.unwrap_or_else(|| unreachable!("a statistic of its own has a name"))
    }
}

pub(crate) type Values<'a> = HashMap<&'a str, Meaning>;

/// What a name stands for. The number of a setting becomes a node only where an expression uses it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meaning {
    Node(NodeId),
    Number(f64),
}

pub(crate) type NodeResult = Result<NodeId, Box<Diagnostic>>;

/// Builds expressions whose names have been checked.
pub(crate) struct Expressions<'a, T> {
    library: &'a Library<'a>,
    in_force: InForce,
    /// What has been built.
    pub(crate) target: T,
    /// For each node, the text it was first built for.
    pub(crate) origins: Vec<Span>,
    memo: HashMap<(usize, Vec<NodeId>), NodeId>,
    /// The place that called into the prelude, whose own text the user has not seen.
    site: Option<Span>,
    depth: usize,
    steps: usize,
}

impl<'a, T: Target> Expressions<'a, T> {
    pub(crate) fn new(library: &'a Library<'a>, in_force: InForce, target: T) -> Self {
        Self { library, in_force, target, origins: vec![], memo: HashMap::new(), site: None, depth: 0, steps: 0 }
    }

    pub(crate) fn expr(&mut self, expr: &Expr, values: &Values<'_>) -> NodeResult {
        self.depth += 1;
        self.steps += 1;
        if self.depth > MAX_DEPTH {
            let message = "calls nest too deeply when functions are inlined";
            let diagnostic = Diagnostic::new(Code::TooDeep, self.site.unwrap_or(expr.span), message);
            return Err(Box::new(diagnostic.help("call fewer functions through one another")));
        }
        if self.steps > MAX_STEPS {
            return Err(self.too_large(expr.span));
        }
        let value = match &expr.kind {
            ExprKind::Number(number, _) => Ok(self.constant(*number, expr.span)),
            ExprKind::Name(name) => match values.get(name.as_str()) {
                Some(Meaning::Node(node)) => Ok(*node),
                Some(Meaning::Number(number)) => Ok(self.constant(*number, expr.span)),
                None => Err(Box::new(
                    Diagnostic::new(Code::BadSetting, expr.span, format!("`{name}` is not a number"))
                        .help("only a setting that is a number can be part of an expression"),
                )),
            },
            ExprKind::Minus(count, operand) => match operand.kind {
                // The minus sign of a literal belongs to the number.
                ExprKind::Number(number, _) => {
                    let sign = if count % 2 == 0 { 1.0 } else { -1.0 };
                    Ok(self.constant(sign * number, expr.span))
                }
                _ => {
                    let operand = self.expr(operand, values)?;
                    (0..*count).try_fold(operand, |operand, _| self.prim(Prim::Neg, Operands::One(operand), expr.span))
                }
            },
            ExprKind::Sum(first, rest) => {
                let mut sum = self.expr(first, values)?;
                for (op, term) in rest {
                    let mut value = self.expr(term, values)?;
                    if *op == SumOp::Minus {
                        value = self.prim(Prim::Neg, Operands::One(value), term.span)?;
                    }
                    let span = Span::new(first.span.start, term.span.end);
                    sum = self.prim(Prim::Add, Operands::Two(sum, value), span)?;
                }
                Ok(sum)
            }
            ExprKind::Product(first, rest) => {
                let mut product = self.expr(first, values)?;
                for (op, factor) in rest {
                    let value = self.expr(factor, values)?;
                    let span = Span::new(first.span.start, factor.span.end);
                    let prim = match op {
                        ProductOp::Times => Prim::Mul,
                        ProductOp::Over => Prim::Div,
                    };
                    product = self.prim(prim, Operands::Two(product, value), span)?;
                }
                Ok(product)
            }
            ExprKind::Call(call) => self.call(call, expr.span, values),
        };
        self.depth -= 1;
        value
    }

    fn call(&mut self, call: &Call, span: Span, values: &Values<'_>) -> NodeResult {
        let mut operands = Vec::with_capacity(call.arguments.len());
        for argument in &call.arguments {
            operands.push(self.expr(argument, values)?);
        }
        let name = call.function.text.as_str();
        if let Some(reducer) = Reducer::of(call) {
            let (over, in_force) = self.reading(call, values)?;
            return self.add(span, |target| target.reduce(reducer, over, &in_force, operands[0]));
        }
        if let Some(prim) = Prim::by_name(name) {
            let operands =
                Operands::from_slice(&operands).unwrap_or_else(|| unreachable!("numbers of arguments were checked"));
            return self.prim(prim, operands, span);
        }
        let visible = self.library.visible_at(call.function.span.start);
        self.inline(self.callee(call, visible), operands, span)
    }

    /// The function a call means: inside the prelude, one of the prelude.
    fn callee(&self, call: &Call, visible: usize) -> usize {
        let visible = if self.site.is_some() { self.library.prelude_len() } else { visible };
        self.library.find(&call.function.text, visible).unwrap_or_else(|| unreachable!("names were checked"))
    }

    fn inline(&mut self, index: usize, operands: Vec<NodeId>, span: Span) -> NodeResult {
        let key = (index, operands);
        if let Some(&known) = self.memo.get(&key) {
            return Ok(known);
        }
        let function = self.library.function(index);
        let values: Values<'_> = function
            .arguments
            .iter()
            .map(|argument| argument.text.as_str())
            .zip(key.1.iter().map(|id| Meaning::Node(*id)))
            .collect();
        let outside = self.site;
        if self.library.is_prelude(index) {
            self.site = Some(self.site.unwrap_or(span));
        }
        let result = self.expr(&function.body, &values);
        self.site = outside;
        let result = result?;
        self.memo.insert(key, result);
        Ok(result)
    }

    /// What a statistic is over, and the settings it reads.
    fn reading(&self, call: &Call, values: &Values<'_>) -> Result<(IndexSet, InForce), Box<Diagnostic>> {
        let mut in_force = self.in_force;
        for setting in &call.settings {
            let Some(known) = Known::by_name(&setting.name.text) else { continue };
            let value = literal(&setting.value.kind).or_else(|| match &setting.value.kind {
                // The number of a setting of the layer, which may be one that this setting cannot have.
                ValueKind::Word(word) => match values.get(word.as_str()) {
                    Some(Meaning::Number(number)) => Some(SettingValue::Number(*number)),
                    Some(Meaning::Node(_)) | None => None,
                },
                ValueKind::Number(..) => None,
            });
            match value {
                Some(value) if known.accepts(value) => in_force.set(known, value),
                Some(_) | None => {
                    let message = format!("`{}` has a value it cannot have", setting.name.text);
                    let help = format!("`{}` is {}", setting.name.text, known.values());
                    return Err(Box::new(Diagnostic::new(Code::BadSetting, setting.value.span, message).help(help)));
                }
            }
        }
        let set = call.index_set.as_ref().unwrap_or_else(|| unreachable!("index sets were checked"));
        let exact = match set.count.as_ref().map(|count| &count.kind) {
            Some(ValueKind::Number(count, _)) => whole(*count),
            Some(ValueKind::Word(_)) | None => None,
        };
        let over = match set.name.text.as_str() {
            "batch" => IndexSet::Batch,
            "instance" => IndexSet::Instance,
            "layer" => IndexSet::Layer,
            "group" => IndexSet::Group(exact.map_or(Groups::AtMost(in_force.groups), Groups::Exactly)),
            "channel" => IndexSet::Channel,
            "all" => IndexSet::All,
            _ => unreachable!("index sets were checked"),
        };
        Ok((over, in_force))
    }

    fn constant(&mut self, number: f64, span: Span) -> NodeId {
        let id = self.target.constant(Scalar::new(number).unwrap_or(Scalar::ZERO));
        self.note_origins(span);
        id
    }

    fn prim(&mut self, prim: Prim, operands: Operands, span: Span) -> NodeResult {
        self.add(span, |target| target.prim(prim, operands))
    }

    /// Adds what a piece of the text stands for.
    pub(crate) fn add(&mut self, span: Span, node: impl FnOnce(&mut T) -> NodeId) -> NodeResult {
        if self.target.len() >= MAX_OPERATIONS {
            return Err(self.too_large(span));
        }
        let id = node(&mut self.target);
        self.note_origins(span);
        Ok(id)
    }

    fn note_origins(&mut self, span: Span) {
        self.origins.resize(self.target.len(), self.site.unwrap_or(span));
    }

    fn too_large(&self, span: Span) -> Box<Diagnostic> {
        let what = T::NAME;
        let message = format!("the {what} has more than {MAX_OPERATIONS} operations when functions are inlined");
        let diagnostic = Diagnostic::new(Code::TooLarge, self.site.unwrap_or(span), message)
            .help("name shared results with `let`, so that functions are called on the same values");
        Box::new(diagnostic)
    }
}
