//! The one way a file is laid out: `normact fmt`.
//!
//! Params are aligned, comments and single blank lines kept where they were; a comment inside an
//! expression moves above it. Numbers and the order of definitions are left as written.

use crate::ast::*;
use crate::source::Source;

/// Expressions longer than this are broken at the operators of their outermost chain.
const MAX_WIDTH: usize = 100;
const INDENT: &str = "    ";

/// The text of a file in standard layout; formatting it again changes nothing.
pub fn format(source: &Source, file: &File) -> String {
    let mut ctx = Ctx { text: &source.text, comments: &file.comments, out: String::new(), last: 0 };
    for item in &file.items {
        let span = item.span();
        ctx.leading(span.start, "");
        // Comments inside a header or a function's body move above the definition.
        let inner_start = match item {
            Item::Layer(layer) => {
                layer.statements.first().map(Statement::span).or(layer.result.as_ref().map(|r| r.span))
            }
            Item::Function(_) => None,
        };
        match (item, inner_start) {
            (Item::Function(function), _) => {
                ctx.leading(span.end, "");
                ctx.line("", &function_text(function), span.end);
            }
            (Item::Layer(layer), inner_start) => {
                let header_end = ctx.header_end(layer, inner_start.map_or(span.end, |span| span.start));
                ctx.leading(header_end, "");
                ctx.line("", &header(layer), header_end);
                ctx.layer_body(layer);
                ctx.out.push_str("}\n");
                ctx.last = span.end;
                ctx.trailing(span.end);
            }
        }
    }
    ctx.leading(source.text.len(), "");
    ctx.out
}

struct Ctx<'a> {
    text: &'a str,
    comments: &'a [Comment],
    out: String,
    /// Where the text printed so far ends in the source.
    last: usize,
}

impl Ctx<'_> {
    /// Prints the comments before a place, each on its own line, and keeps one blank line where the
    /// source has any.
    fn leading(&mut self, until: usize, indent: &str) {
        while let Some(comment) = self.comments.first().filter(|comment| comment.span.start < until) {
            self.blank_line(comment.span.start);
            self.out.push_str(indent);
            self.out.push_str(&self.text[comment.span.start..comment.span.end]);
            self.out.push('\n');
            self.last = self.last.max(comment.span.end);
            self.comments = &self.comments[1..];
        }
        self.blank_line(until);
    }

    /// A blank line where the source has one between what was printed last and `until`.
    fn blank_line(&mut self, until: usize) {
        let between = &self.text[self.last.min(until)..until];
        let blank = between.matches('\n').count() >= 2 && between.trim().is_empty();
        let first = self.out.is_empty() || self.out.ends_with("{\n") || self.out.ends_with("\n\n");
        if blank && !first && until < self.text.len() {
            self.out.push('\n');
        }
    }

    /// Prints one line, with the comment that follows on the same line of the source.
    fn line(&mut self, indent: &str, text: &str, end: usize) {
        self.out.push_str(indent);
        self.out.push_str(text);
        self.out.push('\n');
        self.last = end;
        self.trailing(end);
    }

    fn trailing(&mut self, end: usize) {
        let Some(comment) = self.comments.first() else { return };
        let start = comment.span.start;
        if start >= end && !self.text[end..start].contains('\n') && self.text[end..start].trim().is_empty() {
            self.out.truncate(self.out.trim_end_matches('\n').len());
            self.out.push_str(&format!(" {}\n", &self.text[start..comment.span.end]));
            self.last = comment.span.end;
            self.comments = &self.comments[1..];
        }
    }

    /// The byte after the opening brace.
    fn header_end(&self, layer: &Layer, until: usize) -> usize {
        let from = layer.settings.last().map_or(layer.input.span.end, |setting| setting.value.span.end);
        let in_comment =
            |at: usize| self.comments.iter().any(|comment| comment.span.start <= at && at < comment.span.end);
        let brace =
            self.text[from..until].match_indices('{').map(|(offset, _)| from + offset).find(|at| !in_comment(*at));
        brace.map_or(until, |brace| brace + 1)
    }

    fn layer_body(&mut self, layer: &Layer) {
        let widths = aligned(self.text, self.comments, &layer.statements);
        for (statement, (name_width, extent_width)) in layer.statements.iter().zip(widths) {
            let span = statement.span();
            // Comments inside the statement move above it.
            self.leading(span.start, INDENT);
            let blank_line_printed_for = self.last;
            self.leading_inside(span.start, span.end);
            self.last = self.last.max(blank_line_printed_for);
            match statement {
                Statement::Param { name, extent, init, .. } => {
                    let head = match extent {
                        Some(extent) => {
                            let name = format!("{}:", name.text);
                            format!("{name:<name_width$} {:<extent_width$}", extent.text)
                        }
                        None => format!("{:<name_width$}", name.text),
                    };
                    let text = format!("param {head} = {}", value_text(init));
                    self.line(INDENT, &text, span.end);
                }
                Statement::Let { name, value, .. } => {
                    let text = broken(&format!("let {} = ", name.text), value);
                    self.line(INDENT, &text, span.end);
                }
            }
        }
        if let Some(result) = &layer.result {
            self.leading(result.span.start, INDENT);
            self.leading_inside(result.span.start, result.span.end);
            self.line(INDENT, &broken("", result), result.span.end);
        }
        self.leading_without_blank_end(layer.span.end - 1);
    }

    fn leading_inside(&mut self, start: usize, end: usize) {
        while let Some(comment) = self.comments.first().filter(|comment| comment.span.start < end) {
            self.out.push_str(&format!("{INDENT}{}\n", &self.text[comment.span.start..comment.span.end]));
            self.comments = &self.comments[1..];
        }
        self.last = self.last.max(start);
    }

    fn leading_without_blank_end(&mut self, until: usize) {
        self.leading(until, INDENT);
        if self.out.ends_with("\n\n") {
            self.out.pop();
        }
    }
}

/// For each statement, the widths of the names and extents of the params it is aligned with: its
/// neighbours of the same form, without a blank line or comment between.
fn aligned(text: &str, comments: &[Comment], statements: &[Statement]) -> Vec<(usize, usize)> {
    let mut widths = vec![(0, 0); statements.len()];
    let mut start = 0;
    while start < statements.len() {
        let mut end = start + 1;
        while end < statements.len() && is_aligned(text, comments, &statements[end - 1], &statements[end]) {
            end += 1;
        }
        let width = statements[start..end].iter().map(width).fold((0, 0), |a, b| (a.0.max(b.0), a.1.max(b.1)));
        widths[start..end].fill(width);
        start = end;
    }
    widths
}

fn is_aligned(text: &str, comments: &[Comment], a: &Statement, b: &Statement) -> bool {
    let (Statement::Param { extent: of_a, .. }, Statement::Param { extent: of_b, .. }) = (a, b) else { return false };
    let between = &text[a.span().end..b.span().start];
    // A comment inside the second moves between the two.
    let inside = |comment: &Comment| (b.span().start..b.span().end).contains(&comment.span.start);
    of_a.is_some() == of_b.is_some() && between.matches('\n').count() < 2 && !comments.iter().any(inside)
}

fn width(statement: &Statement) -> (usize, usize) {
    match statement {
        Statement::Param { name, extent, .. } => match extent {
            Some(extent) => (name.text.len() + 1, extent.text.len()),
            None => (name.text.len(), 0),
        },
        Statement::Let { .. } => (0, 0),
    }
}

fn function_text(function: &Function) -> String {
    let arguments: Vec<&str> = function.arguments.iter().map(|argument| argument.text.as_str()).collect();
    let head = format!("fn {}({}) = ", function.name.text, arguments.join(", "));
    broken(&head, &function.body).replace("\n    ", "\n")
}

fn header(layer: &Layer) -> String {
    let settings: String = layer.settings.iter().map(|setting| format!(", {}", setting_text(setting))).collect();
    format!("layer {}({}{settings}) {{", layer.name.text, layer.input.text)
}

fn setting_text(setting: &Setting) -> String {
    format!("{} = {}", setting.name.text, value_text(&setting.value))
}

fn value_text(value: &Value) -> &str {
    match &value.kind {
        ValueKind::Number(_, text) | ValueKind::Word(text) => text,
    }
}

/// A head and an expression, on several lines where one would be too long.
fn broken(head: &str, expr: &Expr) -> String {
    let line = format!("{head}{}", expr_text(expr));
    if line.len() <= MAX_WIDTH {
        return line;
    }
    let continuation = format!("\n{INDENT}{INDENT}");
    match &expr.kind {
        ExprKind::Sum(first, rest) => {
            let rest = rest.iter().map(|(op, term)| format!("{continuation}{} {}", sum_sign(*op), at_product(term)));
            format!("{head}{}{}", at_product(first), rest.collect::<String>())
        }
        ExprKind::Product(first, rest) => {
            let rest =
                rest.iter().map(|(op, factor)| format!("{continuation}{} {}", product_sign(*op), at_prefix(factor)));
            format!("{head}{}{}", at_prefix(first), rest.collect::<String>())
        }
        _ => line,
    }
}

fn sum_sign(op: SumOp) -> &'static str {
    match op {
        SumOp::Plus => "+",
        SumOp::Minus => "-",
    }
}

fn product_sign(op: ProductOp) -> &'static str {
    match op {
        ProductOp::Times => "*",
        ProductOp::Over => "/",
    }
}

fn expr_text(expr: &Expr) -> String {
    match &expr.kind {
        ExprKind::Number(_, text) | ExprKind::Name(text) => text.clone(),
        ExprKind::Minus(count, operand) => format!("{}{}", "-".repeat(*count), at_primary(operand)),
        ExprKind::Sum(first, rest) => {
            let rest = rest.iter().map(|(op, term)| format!(" {} {}", sum_sign(*op), at_product(term)));
            format!("{}{}", at_product(first), rest.collect::<String>())
        }
        ExprKind::Product(first, rest) => {
            let rest = rest.iter().map(|(op, factor)| format!(" {} {}", product_sign(*op), at_prefix(factor)));
            format!("{}{}", at_prefix(first), rest.collect::<String>())
        }
        ExprKind::Call(call) => {
            let set = call.index_set.as_ref().map_or(String::new(), |set| match &set.count {
                Some(count) => format!("[{}({})]", set.name.text, value_text(count)),
                None => format!("[{}]", set.name.text),
            });
            let arguments = call.arguments.iter().map(expr_text).chain(call.settings.iter().map(setting_text));
            format!("{}{set}({})", call.function.text, arguments.collect::<Vec<_>>().join(", "))
        }
    }
}

/// An operand of a sum. A sum in parentheses keeps them: `a + (b + c)` is another graph.
fn at_product(expr: &Expr) -> String {
    parenthesized(expr, matches!(expr.kind, ExprKind::Sum(..)))
}

/// An operand of a product.
fn at_prefix(expr: &Expr) -> String {
    parenthesized(expr, matches!(expr.kind, ExprKind::Sum(..) | ExprKind::Product(..)))
}

/// The operand of a minus sign. The negation of a number in parentheses is no negative number.
fn at_primary(expr: &Expr) -> String {
    let needed = matches!(expr.kind, ExprKind::Sum(..) | ExprKind::Product(..) | ExprKind::Minus(..));
    parenthesized(expr, needed)
}

fn parenthesized(expr: &Expr, needed: bool) -> String {
    if needed { format!("({})", expr_text(expr)) } else { expr_text(expr) }
}
