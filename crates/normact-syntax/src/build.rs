//! Syntax tree to graph: functions inlined, settings filled in, equal parts shared.
//!
//! Inlining remembers the result of each function on each list of operands, so a chain of functions
//! that each call the last one twice takes time in proportion to the graph, not to the formula
//! written out.

use std::collections::HashMap;

use normact_ir as ir;
use normact_ir::{Builder, Groups, Moment, MomentOp, NodeId, Op, Operands, Prim, Scalar, Tracking};

use crate::ast::*;
use crate::codes::Code;
use crate::diagnostic::Diagnostic;
use crate::names::Library;
use crate::settings::{InForce, Known, Overrides, SettingValue, literal, whole};
use crate::source::Span;
use crate::suggest::{did_you_mean, listed};

/// The most operations a layer may have after inlining.
pub const MAX_OPERATIONS: usize = 100_000;
/// How deep calls and brackets may nest while functions are inlined; keeps the stack small.
const MAX_DEPTH: usize = 1_000;
/// How many expressions are looked at; bounds the time where inlining finds no new operations.
const MAX_STEPS: usize = 4_000_000;

/// A graph with the places its nodes come from.
#[derive(Debug, Clone)]
pub(crate) struct Built {
    pub(crate) dag: ir::Dag,
    /// For each node, the text it was first built for.
    pub(crate) origins: Vec<Span>,
    /// The settings in force, those the layer declares.
    pub(crate) settings: Vec<(String, SettingValue)>,
}

/// Builds a layer whose names have been checked.
pub(crate) fn build(layer: &Layer, library: &Library<'_>, overrides: &Overrides) -> Result<Built, Vec<Diagnostic>> {
    let settings = settings(layer, overrides)?;
    let mut in_force = InForce::default();
    for (name, value) in overrides.iter().chain(settings.iter().map(|(name, value)| (name.as_str(), *value))) {
        if let Some(known) = Known::by_name(name) {
            in_force.set(known, value);
        }
    }
    let mut ctx = Ctx {
        library,
        in_force,
        builder: Builder::new(),
        origins: Vec::new(),
        memo: HashMap::new(),
        site: None,
        depth: 0,
        steps: 0,
    };
    let output = ctx.layer(layer, &settings).map_err(|diagnostic| vec![*diagnostic])?;
    Ok(Built { dag: ctx.builder.finish(output), origins: ctx.origins, settings })
}

/// The layer's settings after overrides, in the order declared.
fn settings(layer: &Layer, overrides: &Overrides) -> Result<Vec<(String, SettingValue)>, Vec<Diagnostic>> {
    let mut diagnostics = Vec::new();
    for (name, value) in overrides.iter() {
        let declared = layer.settings.iter().find(|setting| setting.name.text == name);
        let known = Known::by_name(name);
        let span = declared.map_or(layer.name.span, |setting| setting.name.span);
        let accepted = match known {
            Some(known) => known.accepts(value),
            None => matches!(value, SettingValue::Number(_)),
        };
        if declared.is_none() && known.is_none() {
            let own = layer.settings.iter().map(|setting| setting.name.text.as_str());
            let all = own.chain(Known::ALL.into_iter().map(|known| -> &str { known.name() }));
            let message = format!("layer `{}` has no setting `{name}`", layer.name.text);
            let otherwise = format!("it has {}", listed(all.clone()));
            let help = did_you_mean(name, all, otherwise);
            diagnostics.push(Diagnostic::new(Code::UnknownSetting, span, message).help(help));
        } else if !accepted {
            let values = known.map_or("a number", Known::values);
            let message = format!("the setting `{name}` was given a value it cannot have");
            diagnostics.push(Diagnostic::new(Code::BadSetting, span, message).help(format!("`{name}` is {values}")));
        }
    }
    if !diagnostics.is_empty() {
        return Err(diagnostics);
    }
    let mut settings: Vec<(String, SettingValue)> = Vec::new();
    for setting in &layer.settings {
        let name = &setting.name.text;
        let default = match &setting.value.kind {
            ValueKind::Word(word) => {
                let earlier = settings.iter().find(|(name, _)| name == word).map(|(_, value)| *value);
                earlier.or(literal(&setting.value.kind))
            }
            kind => literal(kind),
        };
        let value = overrides.get(name).or(default).unwrap_or(SettingValue::Number(0.0));
        if let Some(known) = Known::by_name(name)
            && !known.accepts(value)
        {
            let message = format!("`{name}` has a value it cannot have");
            let help = format!("`{name}` is {}", known.values());
            return Err(vec![Diagnostic::new(Code::BadSetting, setting.value.span, message).help(help)]);
        }
        settings.push((name.clone(), value));
    }
    Ok(settings)
}

type Values<'a> = HashMap<&'a str, Meaning>;

/// What a name stands for. The number of a setting becomes a node only where an expression uses it.
#[derive(Debug, Clone, Copy)]
enum Meaning {
    Node(NodeId),
    Number(f64),
}

type NodeResult = Result<NodeId, Box<Diagnostic>>;

struct Ctx<'a> {
    library: &'a Library<'a>,
    in_force: InForce,
    builder: Builder,
    origins: Vec<Span>,
    memo: HashMap<(usize, Vec<NodeId>), NodeId>,
    /// The place that called into the prelude, whose own text the user has not seen.
    site: Option<Span>,
    depth: usize,
    steps: usize,
}

impl Ctx<'_> {
    fn layer(&mut self, layer: &Layer, settings: &[(String, SettingValue)]) -> NodeResult {
        let mut values = Values::new();
        let input = self.builder.input();
        self.note_origin(input, layer.input.span);
        values.insert(&layer.input.text, Meaning::Node(input));
        for (name, value) in settings {
            if let SettingValue::Number(number) = value {
                values.insert(name, Meaning::Number(*number));
            }
        }
        for statement in &layer.statements {
            let value = match statement {
                Statement::Param { span, name, extent, init } => {
                    let init = match &init.kind {
                        ValueKind::Number(number, _) => *number,
                        ValueKind::Word(word) => match settings.iter().find(|(name, _)| name == word) {
                            Some((_, SettingValue::Number(number))) => *number,
                            _ => {
                                let message = format!("a param starts at a number, and `{word}` is none");
                                let diagnostic = Diagnostic::new(Code::BadSetting, init.span, message);
                                return Err(Box::new(diagnostic.help("write a number")));
                            }
                        },
                    };
                    let scalar = extent.as_ref().is_some_and(|extent| extent.text == "scalar");
                    let param = ir::Param {
                        name: name.text.clone(),
                        extent: if scalar { ir::Extent::Scalar } else { ir::Extent::PerChannel },
                        init: Scalar::new(init).unwrap_or(Scalar::ZERO),
                    };
                    let param = self.builder.declare(param).unwrap_or_else(|_| unreachable!("names were checked"));
                    self.intern(Op::Param(param), Operands::None, *span)?
                }
                Statement::Let { value, .. } => self.expr(value, &values)?,
            };
            values.insert(&statement.name().text, Meaning::Node(value));
        }
        let result = layer.result.as_ref().unwrap_or_else(|| unreachable!("layers without a result are not built"));
        self.expr(result, &values)
    }

    fn expr(&mut self, expr: &Expr, values: &Values<'_>) -> NodeResult {
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
        if let Some(moment) = Moment::by_name(name) {
            let op = self.moment(moment, call);
            return self.intern(op, Operands::One(operands[0]), span);
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

    fn moment(&self, moment: Moment, call: &Call) -> Op {
        let mut in_force = self.in_force;
        for setting in &call.settings {
            if let (Some(known), Some(value)) = (Known::by_name(&setting.name.text), literal(&setting.value.kind)) {
                in_force.set(known, value);
            }
        }
        let set = call.index_set.as_ref().unwrap_or_else(|| unreachable!("index sets were checked"));
        let exact = match set.count.as_ref().map(|count| &count.kind) {
            Some(ValueKind::Number(count, _)) => whole(*count),
            Some(ValueKind::Word(_)) | None => None,
        };
        let over = match set.name.text.as_str() {
            "batch" => ir::IndexSet::Batch,
            "instance" => ir::IndexSet::Instance,
            "layer" => ir::IndexSet::Layer,
            "group" => ir::IndexSet::Group(exact.map_or(Groups::AtMost(in_force.groups), Groups::Exactly)),
            "channel" => ir::IndexSet::Channel,
            "all" => ir::IndexSet::All,
            _ => unreachable!("index sets were checked"),
        };
        let tracking = Tracking { momentum: in_force.momentum, running: in_force.running };
        Op::Moment(MomentOp::new(moment, over, in_force.eps, tracking))
    }

    fn constant(&mut self, number: f64, span: Span) -> NodeId {
        let id = self.builder.constant(Scalar::new(number).unwrap_or(Scalar::ZERO));
        self.note_origin(id, self.site.unwrap_or(span));
        id
    }

    fn prim(&mut self, prim: Prim, operands: Operands, span: Span) -> NodeResult {
        self.intern(Op::Prim(prim), operands, span)
    }

    fn intern(&mut self, op: Op, operands: Operands, span: Span) -> NodeResult {
        if self.builder.len() >= MAX_OPERATIONS {
            return Err(self.too_large(span));
        }
        let id = self.builder.intern(op, operands);
        self.note_origin(id, self.site.unwrap_or(span));
        Ok(id)
    }

    fn note_origin(&mut self, id: NodeId, span: Span) {
        if id.index() == self.origins.len() {
            self.origins.push(span);
        }
    }

    fn too_large(&self, span: Span) -> Box<Diagnostic> {
        let message = format!("the layer has more than {MAX_OPERATIONS} operations when functions are inlined");
        let diagnostic = Diagnostic::new(Code::TooLarge, self.site.unwrap_or(span), message)
            .help("name shared results with `let`, so that functions are called on the same values");
        Box::new(diagnostic)
    }
}
