//! From what pest has matched to the syntax tree.

use pest::iterators::Pair;

use super::Rule;
use crate::ast::*;
use crate::codes::Code;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

/// Turns pest's pairs into the tree. The grammar guarantees the children that are taken here.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    pub(super) comments: &'a [Comment],
    pub(super) diagnostics: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    /// The place of a phrase. A rule that ends in an optional part has swallowed the space and the
    /// comments before it, which are no part of the phrase.
    fn span(&self, pair: &Pair<'_, Rule>) -> Span {
        let Span { start, end } = exact(pair);
        let mut end = start + self.text[start..end].trim_end().len();
        while let Ok(comment) = self.comments.binary_search_by_key(&end, |comment| comment.span.end) {
            end = start + self.text[start..self.comments[comment].span.start.max(start)].trim_end().len();
        }
        Span::new(start, end)
    }

    pub(super) fn item(&mut self, pair: Pair<'_, Rule>) -> Option<Item> {
        match pair.as_rule() {
            Rule::function => Some(Item::Function(self.function(pair))),
            Rule::layer => Some(Item::Layer(self.layer(pair))),
            Rule::gradient => Some(Item::Gradient(self.gradient(pair))),
            _ => None,
        }
    }

    fn function(&mut self, pair: Pair<'_, Rule>) -> Function {
        let span = self.span(&pair);
        let mut inner = parts(pair);
        let name = name(next(&mut inner));
        let mut arguments = Vec::new();
        let mut part = next(&mut inner);
        if part.as_rule() == Rule::names {
            arguments = part.into_inner().map(self::name).collect();
            part = next(&mut inner);
        }
        Function { span, name, arguments, body: self.expr(part) }
    }

    fn layer(&mut self, pair: Pair<'_, Rule>) -> Layer {
        let span = self.span(&pair);
        let mut inner = parts(pair);
        let name = name(next(&mut inner));
        let input = self::name(next(&mut inner));
        let mut layer = Layer { span, name, input, settings: vec![], statements: vec![], result: None };
        for part in inner {
            match part.as_rule() {
                Rule::setting => layer.settings.push(self.setting(part)),
                Rule::param => layer.statements.push(self.param(part)),
                Rule::binding => {
                    let span = self.span(&part);
                    let mut inner = parts(part);
                    let name = self::name(next(&mut inner));
                    let value = self.expr(next(&mut inner));
                    layer.statements.push(Statement::Let { span, name, value });
                }
                Rule::result => layer.result = part.into_inner().next().map(|expr| self.expr(expr)),
                _ => unreachable!("the grammar has no other part of a layer"),
            }
        }
        layer
    }

    fn gradient(&mut self, pair: Pair<'_, Rule>) -> Gradient {
        let span = self.span(&pair);
        let mut inner = parts(pair);
        let layer = name(next(&mut inner));
        let mut gradient = Gradient { span, layer, arguments: vec![], settings: vec![], lines: vec![] };
        for part in inner {
            match part.as_rule() {
                Rule::name => gradient.arguments.push(self::name(part)),
                Rule::setting => gradient.settings.push(self.setting(part)),
                rule => {
                    let span = self.span(&part);
                    let mut inner = parts(part);
                    let name = self::name(next(&mut inner));
                    let value = self.expr(next(&mut inner));
                    gradient.lines.push(Line { span, is_let: rule == Rule::binding, name, value });
                }
            }
        }
        gradient
    }

    fn param(&mut self, pair: Pair<'_, Rule>) -> Statement {
        let span = self.span(&pair);
        let mut inner = parts(pair);
        let name = name(next(&mut inner));
        let mut part = next(&mut inner);
        let mut extent = None;
        if part.as_rule() == Rule::extent {
            extent = part.into_inner().next().map(self::name);
            part = next(&mut inner);
        }
        Statement::Param { span, name, extent, init: self.value(part) }
    }

    fn setting(&mut self, pair: Pair<'_, Rule>) -> Setting {
        let mut inner = pair.into_inner();
        let name = name(next(&mut inner));
        Setting { name, value: self.value(next(&mut inner)) }
    }

    fn value(&mut self, pair: Pair<'_, Rule>) -> Value {
        let pair = if pair.as_rule() == Rule::value { next(&mut pair.into_inner()) } else { pair };
        let kind = match pair.as_rule() {
            Rule::signed => ValueKind::Number(self.number(&pair), pair.as_str().to_owned()),
            _ => ValueKind::Word(pair.as_str().to_owned()),
        };
        Value { span: exact(&pair), kind }
    }

    fn number(&mut self, pair: &Pair<'_, Rule>) -> f64 {
        let value: f64 = pair.as_str().parse().unwrap_or(f64::INFINITY);
        if value.is_finite() {
            return value;
        }
        let message = format!("{} is too large for a number", pair.as_str());
        self.diagnostics.push(
            Diagnostic::new(Code::NumberRange, exact(pair), message)
                .help("numbers reach about 1.8e308, as in double precision"),
        );
        1.0
    }

    fn expr(&mut self, pair: Pair<'_, Rule>) -> Expr {
        let span = self.span(&pair);
        let mut inner = pair.into_inner();
        let first = self.product(next(&mut inner));
        let mut rest = Vec::new();
        while let Some(operator) = inner.next() {
            let op = if operator.as_rule() == Rule::plus { SumOp::Plus } else { SumOp::Minus };
            rest.push((op, self.product(next(&mut inner))));
        }
        if rest.is_empty() { first } else { Expr { span, kind: ExprKind::Sum(Box::new(first), rest) } }
    }

    fn product(&mut self, pair: Pair<'_, Rule>) -> Expr {
        let span = self.span(&pair);
        let mut inner = pair.into_inner();
        let first = self.prefix(next(&mut inner));
        let mut rest = Vec::new();
        while let Some(operator) = inner.next() {
            let op = if operator.as_rule() == Rule::times { ProductOp::Times } else { ProductOp::Over };
            rest.push((op, self.prefix(next(&mut inner))));
        }
        if rest.is_empty() { first } else { Expr { span, kind: ExprKind::Product(Box::new(first), rest) } }
    }

    fn prefix(&mut self, pair: Pair<'_, Rule>) -> Expr {
        let span = self.span(&pair);
        let mut minuses = 0;
        let mut inner = pair.into_inner();
        let mut part = next(&mut inner);
        while part.as_rule() == Rule::minus {
            minuses += 1;
            part = next(&mut inner);
        }
        let primary = self.primary(part);
        if minuses == 0 { primary } else { Expr { span, kind: ExprKind::Minus(minuses, Box::new(primary)) } }
    }

    fn primary(&mut self, pair: Pair<'_, Rule>) -> Expr {
        let span = self.span(&pair);
        let kind = match pair.as_rule() {
            Rule::number => ExprKind::Number(self.number(&pair), pair.as_str().to_owned()),
            Rule::name => ExprKind::Name(pair.as_str().to_owned()),
            Rule::call => ExprKind::Call(self.call(pair)),
            _ => return self.expr(pair),
        };
        Expr { span, kind }
    }

    fn call(&mut self, pair: Pair<'_, Rule>) -> Call {
        let mut inner = pair.into_inner();
        let mut call = Call { function: name(next(&mut inner)), index_set: None, arguments: vec![], settings: vec![] };
        for part in inner {
            match part.as_rule() {
                Rule::index_set => {
                    let span = self.span(&part);
                    let mut inner = part.into_inner();
                    let name = name(next(&mut inner));
                    let count = inner.next().map(|count| self.value(count));
                    call.index_set = Some(IndexSet { span, name, count });
                }
                _ => {
                    for argument in part.into_inner().flat_map(Pair::into_inner) {
                        match argument.as_rule() {
                            Rule::setting => call.settings.push(self.setting(argument)),
                            _ => call.arguments.push(self.expr(argument)),
                        }
                    }
                }
            }
        }
        call
    }
}

fn next<'i>(pairs: &mut impl Iterator<Item = Pair<'i, Rule>>) -> Pair<'i, Rule> {
    pairs.next().unwrap_or_else(|| unreachable!("the grammar requires this part"))
}

/// The parts of a phrase after its keyword.
fn parts<'i>(pair: Pair<'i, Rule>) -> impl Iterator<Item = Pair<'i, Rule>> {
    let is_keyword = |rule: Rule| {
        matches!(rule, Rule::fn_word | Rule::layer_word | Rule::gradient_word | Rule::param_word | Rule::let_word)
    };
    let is_sign =
        |rule: Rule| matches!(rule, Rule::is | Rule::of | Rule::comma | Rule::open | Rule::close | Rule::begin);
    pair.into_inner().filter(move |part| !is_keyword(part.as_rule()) && !is_sign(part.as_rule()))
}

fn name(pair: Pair<'_, Rule>) -> Name {
    Name { text: pair.as_str().to_owned(), span: exact(&pair) }
}

/// The place of a single word.
fn exact(pair: &Pair<'_, Rule>) -> Span {
    Span::new(pair.as_span().start(), pair.as_span().end())
}
