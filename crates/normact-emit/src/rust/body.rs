//! The formula as the statements of a Rust function on `Tensor<3>`.
//!
//! Numbers are operands of Burn's scalar operations and are computed where they meet. The last use of a
//! value moves it and all others clone it, which is known once all lines are: the lines hold variables
//! by number, and are written from the last to the first.

use std::collections::BTreeSet;

use normact_ir::{Axes, Buffer, Channels, Dag, Groups, IndexSet, Op, Prim, Quantity, Running};

use super::Fields;
use super::helpers::Helper;
use super::number::{PATH, number};
use crate::outline::{Average, Expr, Outline, Step, Value};
use crate::text::text;

/// The widest line of rustfmt's default settings.
const LINE: usize = 100;
/// The widest arguments of a call, and the widest chain of methods, that rustfmt leaves on a line.
const CALL: usize = 60;
/// What stands around the value of a variable, indented.
const AROUND: usize = "        let t123 = ;".len();
/// Before the result.
const INDENT: usize = "        ".len();

/// The number of groups as the file writes it: a number, or a field.
pub(super) struct Grouping(pub(super) String);

/// The statements, and what the file needs for them.
pub(super) struct Body<'a> {
    fields: &'a Fields,
    variables: Vec<String>,
    /// Names of the scope.
    taken: Vec<String>,
    /// The input's variable.
    x: Variable,
    params: Vec<Option<Variable>>,
    steps: Vec<Term>,
    lines: Vec<Line>,
    /// The functions that are called.
    pub(super) helpers: Vec<Helper>,
    /// Whether Burn's `sigmoid` is called.
    pub(super) calls_sigmoid: bool,
    /// Whether constants of the standard library are named.
    pub(super) names_constants: bool,
    /// Whether the result has the input's size, so that it need not be expanded.
    pub(super) is_full_size: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Variable(usize);

/// A part of a line.
#[derive(Debug, Clone)]
enum Piece {
    Text(String),
    /// A variable by value.
    Value(Variable),
    /// A variable by reference, which its method or the sign `&` before it takes.
    Place(Variable),
}

/// How strongly the parts of an expression hold together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Sum,
    Product,
    Sign,
    Term,
}

#[derive(Debug, Clone)]
struct Code {
    pieces: Vec<Piece>,
    binding: Binding,
    /// Of a value with a minus sign: what it is without.
    opposite: Option<Box<Code>>,
}

/// The value of an expression.
#[derive(Debug, Clone)]
enum Term {
    Number(f64),
    Code(Code),
}

enum Line {
    Comment(&'static str),
    /// `let training = ...;`
    Fixed(String),
    Let(Variable, Code),
    /// A statistic of the batch in training, its running average otherwise.
    Tracked(Tracked),
    Result(Code),
}

struct Tracked {
    variable: Variable,
    /// The operand's deviation from its mean, of variances.
    deviation: Option<(Variable, Code)>,
    average: Code,
    buffer: Buffer,
}

impl<'a> Body<'a> {
    pub(super) fn new(dag: &Dag, fields: &'a Fields) -> Self {
        let fixed = ["training", "deviation", "samples", "channels", "positions", "estimate", "sigmoid"];
        let mut taken: Vec<String> = fixed.map(str::to_owned).to_vec();
        taken.extend(Helper::ALL.iter().map(|helper| helper.name().to_owned()));
        let mut body = Self {
            fields,
            variables: vec![],
            taken,
            x: Variable(0),
            params: vec![],
            steps: vec![],
            lines: vec![],
            helpers: vec![],
            calls_sigmoid: false,
            names_constants: false,
            is_full_size: false,
        };
        body.read_params(dag);
        let taken: Vec<String> = body.taken.clone();
        let taken: Vec<&str> = taken.iter().map(String::as_str).collect();
        let outline = Outline::new(dag, &taken);
        if !outline.buffers.list().is_empty() {
            let (x, flag) = (body.input().to_owned(), fields.training.clone().unwrap_or_default());
            let training = format!("let training = {x}.device().is_autodiff() && self.{flag}.is_enabled();");
            body.lines.push(Line::Fixed(training));
        }
        let read: Vec<_> =
            body.params.iter().enumerate().filter_map(|(index, param)| Some((index, (*param)?))).collect();
        for (index, variable) in read {
            body.call(Helper::AlongChannels);
            let along_channels = format!("along_channels(self.{}.val(), &", fields.params[index]);
            let code = Code::term(vec![Piece::Text(along_channels), Piece::Place(body.x), Piece::Text(")".to_owned())]);
            body.lines.push(Line::Let(variable, code));
        }
        for step in &outline.steps {
            body.step(step, &outline);
        }
        let result = body.expr(&outline.result, LINE - INDENT);
        body.is_full_size = outline.result_axes == Axes::INPUT || matches!(result, Term::Number(_));
        let result = body.as_tensor(result);
        body.result(result);
        body
    }

    /// The name of the input's variable.
    pub(super) fn input(&self) -> &str {
        &self.variables[self.x.0]
    }

    /// Variables for the input and for the parameters that the result depends on. A parameter's has its
    /// name unless the file means something else by it.
    fn read_params(&mut self, dag: &Dag) {
        let live = dag.live();
        let mut read = vec![false; dag.params().len()];
        for id in dag.ids().filter(|id| live[id.index()]) {
            if let Op::Param(param) = dag.op(id) {
                read[param.index()] = true;
            }
        }
        let reserved = self.taken.clone();
        self.taken.extend(self.fields.params.iter().cloned());
        self.x = self.fresh("x");
        for (name, read) in self.fields.params.iter().zip(read) {
            let variable = match (read, reserved.contains(name)) {
                (false, _) => None,
                (true, true) => Some(self.fresh(&format!("{name}_value"))),
                (true, false) => Some(self.variable(name)),
            };
            self.params.push(variable);
        }
    }

    fn variable(&mut self, name: &str) -> Variable {
        self.variables.push(name.to_owned());
        Variable(self.variables.len() - 1)
    }

    /// A variable of a name that is not taken.
    fn fresh(&mut self, stem: &str) -> Variable {
        let name = super::fresh(stem, &mut self.taken);
        self.variable(&name)
    }

    /// A variable for a part of an expression: `t1`, `t2`, ...
    fn part(&mut self) -> Variable {
        let names = (1..).map(|number| format!("t{number}"));
        let name = names.into_iter().find(|name| !self.taken.contains(name));
        let name = name.unwrap_or_else(|| unreachable!("there are more numbers than names"));
        self.taken.push(name.clone());
        self.variable(&name)
    }

    fn call(&mut self, helper: Helper) {
        if !self.helpers.contains(&helper) {
            self.helpers.push(helper);
            helper.calls().into_iter().for_each(|called| self.call(called));
        }
    }

    fn step(&mut self, step: &Step, outline: &Outline<'_>) {
        let term = match &step.value {
            Value::Expr(expr) => match self.expr(expr, (LINE - AROUND).saturating_sub(step.name.len())) {
                Term::Number(number) => Term::Number(number),
                Term::Code(code) => {
                    let is_part = step.name.strip_prefix('t').is_some_and(|rest| rest.parse::<usize>().is_ok());
                    let variable = if is_part { self.part() } else { self.variable(&step.name) };
                    self.bind(variable, code)
                }
            },
            Value::Average(average) => self.average(&step.name, average, outline),
        };
        self.steps.push(term);
    }

    fn bind(&mut self, variable: Variable, code: Code) -> Term {
        self.lines.push(Line::Let(variable, code));
        Term::Code(Code::value(variable))
    }

    fn average(&mut self, name: &str, average: &Average, outline: &Outline<'_>) -> Term {
        let operand = match self.expr(&average.operand, LINE) {
            Term::Number(number) => {
                return Term::Number(match average.quantity {
                    Quantity::Mean => number,
                    Quantity::MeanSquare => number * number,
                    Quantity::Variance => 0.0,
                });
            }
            Term::Code(code) => code,
        };
        if average.reduced() == [false; 3] {
            // An average of one element.
            return match (average.quantity, operand.variable()) {
                (Quantity::Mean, _) => Term::Code(operand),
                (Quantity::MeanSquare, _) => {
                    let square = self.helper(Helper::Square, operand);
                    let variable = self.variable(name);
                    self.bind(variable, square)
                }
                (Quantity::Variance, variable) => {
                    let zeros = vec![Piece::Place(variable), Piece::Text(".zeros_like()".to_owned())];
                    let variable = self.variable(name);
                    self.bind(variable, Code::term(zeros))
                }
            };
        }
        let (deviation, value) = match average.quantity {
            Quantity::Mean => (None, self.mean(average, operand)),
            Quantity::MeanSquare => {
                let square = self.helper(Helper::Square, operand);
                (None, self.mean(average, square))
            }
            Quantity::Variance => {
                let mean = match average.mean.map(|step| self.steps[step].clone()) {
                    Some(Term::Code(mean)) => mean,
                    Some(Term::Number(_)) | None => self.mean(average, operand.clone()),
                };
                let mean = Code::term([mean.pieces, vec![Piece::Text(".detach()".to_owned())]].concat());
                let deviation = self.variable("deviation");
                let difference = operand.infix("-", mean, Binding::Sum);
                let square = self.helper(Helper::Square, Code::value(deviation));
                (Some((deviation, difference)), self.mean(average, square))
            }
        };
        if deviation.is_some() && !self.lines.iter().any(|line| matches!(line, Line::Comment(_))) {
            self.lines.push(Line::Comment("// Deviations sum to 0: no gradient flows through their mean."));
        }
        let variable = self.variable(name);
        match average.buffer {
            None => {
                self.lines.extend(deviation.map(|(variable, code)| Line::Let(variable, code)));
                self.bind(variable, value)
            }
            Some(buffer) => {
                let buffer = outline.buffers.list()[buffer].clone();
                self.call(Helper::Update);
                self.call(Helper::RunningValue);
                if buffer.tracking.running == Running::Unbiased {
                    self.call(Helper::Unbiased);
                }
                self.lines.push(Line::Tracked(Tracked { variable, deviation, average: value, buffer }));
                Term::Code(Code::value(variable))
            }
        }
    }

    /// The mean over the index set of an average.
    fn mean(&mut self, average: &Average, operand: Code) -> Code {
        let helper = match average.over {
            IndexSet::Batch => Helper::BatchMean,
            IndexSet::Instance => Helper::InstanceMean,
            IndexSet::Layer => Helper::LayerMean,
            // A value without channels is the same in every group.
            IndexSet::Group(_) if average.operand_axes.channels == Channels::One => Helper::InstanceMean,
            IndexSet::Group(groups) => return self.group_mean(groups, operand),
            IndexSet::Channel => Helper::ChannelMean,
            IndexSet::All => Helper::AllMean,
        };
        self.helper(helper, operand)
    }

    fn group_mean(&mut self, groups: Groups, operand: Code) -> Code {
        let Grouping(groups) = self.fields.grouping(groups);
        self.call(Helper::GroupMean);
        Code::call(Helper::GroupMean.name(), [operand, Code::number(&groups)])
    }

    fn helper(&mut self, helper: Helper, operand: Code) -> Code {
        self.call(helper);
        Code::call(helper.name(), [operand])
    }

    /// An expression of at most so many characters; parts of a longer one become variables.
    fn expr(&mut self, expr: &Expr, limit: usize) -> Term {
        match expr {
            Expr::Input => Term::Code(Code::value(self.x)),
            Expr::Constant(value) => Term::Number(value.get()),
            Expr::Param(param) => {
                let variable = self.params[param.index()];
                Term::Code(Code::value(variable.unwrap_or_else(|| unreachable!("parameters in use are read"))))
            }
            Expr::Step(step) => self.steps[*step].clone(),
            Expr::Root(average, eps) => match self.expr(average, limit) {
                Term::Number(average) => Term::Number((average + eps.get()).sqrt()),
                Term::Code(average) => self.root(average, eps.get(), limit),
            },
            Expr::Unary(prim, a) => match self.expr(a, limit) {
                Term::Number(a) => Term::Number(prim.value(a, 0.0)),
                Term::Code(a) => self.unary(*prim, a, limit),
            },
            Expr::Binary(prim, a, b) => match (*prim, self.expr(a, limit), self.expr(b, limit)) {
                (prim, Term::Number(a), Term::Number(b)) => Term::Number(prim.value(a, b)),
                (Prim::Max, Term::Code(x), Term::Number(number)) | (Prim::Max, Term::Number(number), Term::Code(x)) => {
                    Term::Code(self.max_scalar(x, number, limit))
                }
                (Prim::Div, Term::Code(a), Term::Number(b)) => {
                    let b = self.reciprocal(b);
                    self.binary(Prim::Mul, a, b, limit)
                }
                (prim, a, b) => {
                    let (a, b) = (self.operand(a), self.operand(b));
                    self.binary(prim, a, b, limit)
                }
            },
        }
    }

    /// A number or a tensor beside an operator.
    fn operand(&mut self, term: Term) -> Code {
        match term {
            Term::Code(code) => code,
            Term::Number(value) => self.number(value),
        }
    }

    fn number(&mut self, value: f64) -> Code {
        let literal = |value| Code::number(&number(value));
        self.names_constants |= number(value).contains(PATH);
        Code { opposite: (value < 0.0).then(|| Box::new(literal(-value))), ..literal(value) }
    }

    /// One over a number. Burn takes the gradient of a division by a number in f32 alone, that of a product
    /// in the format of the tensor.
    fn reciprocal(&mut self, value: f64) -> Code {
        let (reciprocal, number) = (1.0 / value, self.number(value));
        let is_exact = reciprocal.is_finite() && reciprocal.abs().log2().fract() == 0.0;
        if is_exact { self.number(reciprocal) } else { Code::number("1.0").infix("/", number, Binding::Product) }
    }

    fn root(&mut self, average: Code, eps: f64, limit: usize) -> Term {
        let radicand = match eps {
            0.0 => average,
            _ => {
                let eps = self.number(eps);
                average.infix("+", eps, Binding::Sum)
            }
        };
        // With an eps that does not vanish in f32 there is no 0 to take care of.
        if eps >= f64::from(f32::MIN_POSITIVE) {
            return Term::Code(self.fit([radicand], limit, |[radicand]| radicand.method("sqrt")));
        }
        self.call(Helper::Sqrt);
        Term::Code(self.fit([radicand], limit, |operands| Code::call("sqrt", operands)))
    }

    fn unary(&mut self, prim: Prim, a: Code, limit: usize) -> Term {
        let template = text(prim).rust;
        Term::Code(if let Some(name) = template.strip_suffix("({})") {
            self.function(name);
            self.fit([a], limit, |operands| Code::call(name, operands))
        } else if let Some(method) = template.strip_prefix("{}.").and_then(|rest| rest.strip_suffix("()")) {
            self.fit([a], limit, |[a]| a.method(method))
        } else {
            let sign = template.trim_end_matches("{}");
            self.fit([a], limit, |[a]| a.prefixed(sign))
        })
    }

    fn binary(&mut self, prim: Prim, a: Code, b: Code, limit: usize) -> Term {
        let template = text(prim).rust;
        Term::Code(if let Some(name) = template.strip_suffix("({}, {})") {
            self.function(name);
            self.fit([a, b], limit, |operands| Code::call(name, operands))
        } else {
            let binding = if prim == Prim::Add { Binding::Sum } else { Binding::Product };
            self.fit([a, b], limit, |[mut a, mut b]| match (binding, b.opposite.take(), a.opposite.take()) {
                (Binding::Sum, Some(b), _) => a.infix("-", *b, binding),
                (Binding::Sum, None, Some(a)) => b.infix("-", *a, binding),
                _ => a.infix(template, b, binding),
            })
        })
    }

    fn max_scalar(&mut self, x: Code, value: f64, limit: usize) -> Code {
        let value = self.number(value);
        self.call(Helper::MaxScalar);
        self.fit([x], limit, |[x]| Code::call(Helper::MaxScalar.name(), [x, value.clone()]))
    }

    fn function(&mut self, name: &str) {
        match Helper::by_name(name) {
            Some(helper) => self.call(helper),
            None => self.calls_sigmoid = true,
        }
    }

    /// Puts operands together; where that is too long for a line, the longest become variables.
    fn fit<const N: usize>(
        &mut self,
        mut operands: [Code; N],
        limit: usize,
        together: impl Fn([Code; N]) -> Code,
    ) -> Code {
        loop {
            let code = together(operands.clone());
            let longest = operands.iter_mut().max_by_key(|operand| self.width(operand));
            match longest {
                Some(longest) if self.is_too_long(&code, limit) && !longest.is_atom() => {
                    let variable = self.part();
                    let part = std::mem::replace(longest, Code::value(variable));
                    self.lines.push(Line::Let(variable, part));
                }
                _ => return code,
            }
        }
    }

    fn is_too_long(&self, code: &Code, limit: usize) -> bool {
        let limit = if code.binding == Binding::Term { limit.min(CALL) } else { limit };
        self.width(code) > limit
    }

    /// The most characters that the code can have.
    fn width(&self, code: &Code) -> usize {
        let width = |piece: &Piece| match piece {
            Piece::Text(text) => text.chars().count(),
            Piece::Value(variable) => self.variables[variable.0].len() + ".clone()".len(),
            Piece::Place(variable) => self.variables[variable.0].len(),
        };
        code.pieces.iter().map(width).sum()
    }

    fn as_tensor(&mut self, term: Term) -> Code {
        match term {
            Term::Code(code) => code,
            Term::Number(value) => {
                let Code { pieces, .. } = self.number(value);
                let mut full = vec![Piece::Place(self.x), Piece::Text(".ones_like() * ".to_owned())];
                full.extend(pieces);
                Code { pieces: full, binding: Binding::Product, opposite: None }
            }
        }
    }

    /// The last line. A variable that is the result needs no name.
    fn result(&mut self, result: Code) {
        match (result.pieces.as_slice(), self.lines.last_mut()) {
            ([Piece::Value(result)], Some(Line::Let(variable, code))) if result == variable => {
                let code = code.clone();
                self.lines.pop();
                self.lines.push(Line::Result(code));
            }
            _ => self.lines.push(Line::Result(result)),
        }
    }

    /// Every line with its indentation in the function.
    pub(super) fn lines(&self) -> Vec<(usize, String)> {
        let mut live = BTreeSet::new();
        let mut written: Vec<Vec<(usize, String)>> = vec![];
        let is_result = |line: usize, variable: Variable| match self.lines.get(line + 1) {
            Some(Line::Result(code)) => {
                line + 2 == self.lines.len() && code.variables() == [variable] && code.is_atom()
            }
            _ => false,
        };
        let mut tail = None;
        for (index, line) in self.lines.iter().enumerate().rev() {
            written.push(match line {
                Line::Comment(text) => vec![(0, (*text).to_owned())],
                Line::Fixed(text) => vec![(0, text.clone())],
                Line::Let(variable, code) => {
                    let (name, value) = (&self.variables[variable.0], self.write(code, &mut live));
                    let line = format!("let {name} = {value};");
                    match INDENT + line.len() <= LINE {
                        true => vec![(0, line)],
                        false => vec![(0, format!("let {name} =")), (1, format!("{value};"))],
                    }
                }
                Line::Tracked(tracked) => self.tracked(tracked, tail == Some(tracked.variable), &mut live),
                Line::Result(code) => match index.checked_sub(1).map(|before| &self.lines[before]) {
                    Some(Line::Tracked(tracked)) if is_result(index - 1, tracked.variable) => {
                        tail = Some(tracked.variable);
                        vec![]
                    }
                    _ => vec![(0, self.write(code, &mut live))],
                },
            });
        }
        written.into_iter().rev().flatten().collect()
    }

    fn tracked(&self, tracked: &Tracked, is_result: bool, live: &mut BTreeSet<usize>) -> Vec<(usize, String)> {
        let Tracked { variable, deviation, average, buffer } = tracked;
        let (name, momentum) = (&self.variables[variable.0], number(buffer.tracking.momentum.get()));
        // In evaluation the statistic's operand is not read, so what is live after it is live before.
        let mut in_training = live.clone();
        let mut lines = vec![];
        let mut new = format!("{name}.clone()");
        let mut count = None;
        if buffer.tracking.running == Running::Unbiased {
            let (sizes, product) = match buffer.over {
                IndexSet::All => ("samples, channels, positions", "samples * channels * positions"),
                _ => ("samples, _, positions", "samples * positions"),
            };
            lines.push((1, format!("let estimate = unbiased({name}.clone(), {product});")));
            count = Some(format!("let [{sizes}] = deviation.dims();"));
            new = "estimate".to_owned();
        }
        lines.push((1, format!("update(&self.{}, {new}, {momentum});", buffer.name)));
        let average = self.write(average, &mut in_training);
        lines.insert(0, (1, format!("let {name} = {average};")));
        lines.splice(0..0, count.map(|count| (1, count)));
        if let Some((_, code)) = deviation {
            let deviation = self.write(code, &mut in_training);
            lines.insert(0, (1, format!("let deviation = {deviation};")));
        }
        let opening = if is_result { "if training {".to_owned() } else { format!("let {name} = if training {{") };
        let closing = if is_result { "}" } else { "};" };
        lines.insert(0, (0, opening));
        lines.push((1, name.clone()));
        lines.push((0, "} else {".to_owned()));
        lines.push((1, format!("running_value(&self.{}, &{})", buffer.name, self.input())));
        lines.push((0, closing.to_owned()));
        live.insert(self.x.0);
        live.extend(in_training);
        lines
    }

    /// The text of an expression after which the variables `live` are read; adds those that it reads.
    fn write(&self, code: &Code, live: &mut BTreeSet<usize>) -> String {
        let mut parts: Vec<String> = vec![];
        for piece in code.pieces.iter().rev() {
            parts.push(match piece {
                Piece::Text(text) => text.clone(),
                Piece::Value(variable) => {
                    let clone = if live.insert(variable.0) { "" } else { ".clone()" };
                    format!("{}{clone}", self.variables[variable.0])
                }
                Piece::Place(variable) => {
                    live.insert(variable.0);
                    self.variables[variable.0].clone()
                }
            });
        }
        parts.into_iter().rev().collect()
    }
}

impl Code {
    fn value(variable: Variable) -> Code {
        Code::term(vec![Piece::Value(variable)])
    }

    fn term(pieces: Vec<Piece>) -> Code {
        Code { pieces, binding: Binding::Term, opposite: None }
    }

    fn number(text: &str) -> Code {
        let binding = if text.contains('/') { Binding::Product } else { Binding::Term };
        Code { pieces: vec![Piece::Text(text.to_owned())], binding, opposite: None }
    }

    fn call<const N: usize>(name: &str, operands: [Code; N]) -> Code {
        let mut pieces = vec![Piece::Text(format!("{name}("))];
        for (number, operand) in operands.into_iter().enumerate() {
            pieces.extend((number > 0).then(|| Piece::Text(", ".to_owned())));
            pieces.extend(operand.pieces);
        }
        pieces.push(Piece::Text(")".to_owned()));
        Code::term(pieces)
    }

    fn method(self, name: &str) -> Code {
        let mut pieces = self.at_least(Binding::Term).pieces;
        pieces.push(Piece::Text(format!(".{name}()")));
        Code::term(pieces)
    }

    fn infix(self, sign: &str, other: Code, binding: Binding) -> Code {
        // Burn has these operations for numbers of several types on the left, so a number is better on
        // the right, or says its type.
        let (mut left, mut other) = (self, other);
        if left.is_number() && !other.is_number() {
            match sign {
                "+" | "*" => std::mem::swap(&mut left, &mut other),
                _ => left = left.typed(),
            }
        }
        let tighter = if binding == Binding::Sum { Binding::Product } else { Binding::Sign };
        let (left, right) = (left.at_least(binding), other.at_least(tighter));
        let pieces = [left.pieces, vec![Piece::Text(format!(" {sign} "))], right.pieces].concat();
        Code { pieces, binding, opposite: None }
    }

    /// With a minus sign.
    fn prefixed(self, sign: &str) -> Code {
        let operand = self.clone().at_least(Binding::Sign);
        let pieces = [vec![Piece::Text(sign.to_owned())], operand.pieces].concat();
        Code { pieces, binding: Binding::Sign, opposite: Some(Box::new(self)) }
    }

    fn is_number(&self) -> bool {
        matches!(self.pieces.as_slice(), [Piece::Text(_)])
    }

    /// A number whose type is in its text.
    fn typed(mut self) -> Code {
        for piece in &mut self.pieces {
            if let Piece::Text(text) = piece
                && text.ends_with(|char: char| char.is_ascii_digit())
                && !text.contains("::")
            {
                text.push_str("_f64");
            }
        }
        self
    }

    /// In brackets if its parts do not hold together that strongly.
    fn at_least(self, binding: Binding) -> Code {
        if self.binding >= binding {
            return self;
        }
        let open = vec![Piece::Text("(".to_owned())];
        Code::term([open, self.pieces, vec![Piece::Text(")".to_owned())]].concat())
    }

    fn variables(&self) -> Vec<Variable> {
        let of_piece = |piece: &Piece| match piece {
            Piece::Text(_) => None,
            Piece::Value(variable) | Piece::Place(variable) => Some(*variable),
        };
        self.pieces.iter().filter_map(of_piece).collect()
    }

    /// The variable of an operand that is one.
    fn variable(&self) -> Variable {
        let variable = self.variables().first().copied();
        variable.unwrap_or_else(|| unreachable!("the operand of an average has a name"))
    }

    /// Whether it is a variable or a number.
    fn is_atom(&self) -> bool {
        self.pieces.len() == 1
    }
}
