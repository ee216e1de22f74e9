//! The one way a file is laid out: `normact fmt`.
//!
//! Params and the results of a gradient are aligned, comments and single blank lines kept where they were; a comment inside an
//! expression moves above it. Numbers and the order of definitions are left as written.

use crate::ast::*;
use crate::source::{Source, Span};

/// Expressions longer than this are broken at the operators of their outermost chain.
const MAX_WIDTH: usize = 100;
const INDENT: &str = "    ";

/// The text of a file in standard layout; formatting it again changes nothing.
pub fn format(source: &Source, file: &File) -> String {
    let mut ctx = Ctx { text: &source.text, comments: &file.comments, out: String::new(), last: 0 };
    for item in &file.items {
        let span = item.span();
        ctx.leading(span.start, "");
        match item {
            Item::Function(function) => {
                // Comments inside a header or a function's body move above the definition.
                ctx.leading(span.end, "");
                ctx.line("", &function_text(function), span.end);
            }
            Item::Layer(layer) => {
                let last = layer.settings.last().map_or(layer.input.span.end, |setting| setting.value.span.end);
                let body = layer_lines(source, &file.comments, layer);
                ctx.definition(&header(layer), last, &body, span);
            }
            Item::Gradient(gradient) => {
                let arguments = gradient.arguments.iter().map(|argument| argument.span.end);
                let settings = gradient.settings.iter().map(|setting| setting.value.span.end);
                let last = arguments.chain(settings).max().unwrap_or(gradient.layer.span.end);
                let body = gradient_lines(source, &file.comments, gradient);
                ctx.definition(&gradient_header(gradient), last, &body, span);
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

    /// Prints a definition with a body. Its header ends after `header_from`.
    fn definition(&mut self, header: &str, header_from: usize, body: &[(Span, String)], span: Span) {
        let body_start = body.first().map_or(span.end, |(span, _)| span.start);
        let header_end = self.header_end(header_from, body_start);
        self.leading(header_end, "");
        self.line("", header, header_end);
        for (span, text) in body {
            // Comments inside the statement move above it.
            self.leading(span.start, INDENT);
            let blank_line_printed_for = self.last;
            self.leading_inside(span.start, span.end);
            self.last = self.last.max(blank_line_printed_for);
            self.line(INDENT, text, span.end);
        }
        self.leading_without_blank_end(span.end - 1);
        self.out.push_str("}\n");
        self.last = span.end;
        self.trailing(span.end);
    }

    /// The byte after the opening brace.
    fn header_end(&self, from: usize, until: usize) -> usize {
        let in_comment =
            |at: usize| self.comments.iter().any(|comment| comment.span.start <= at && at < comment.span.end);
        let brace =
            self.text[from..until].match_indices('{').map(|(offset, _)| from + offset).find(|at| !in_comment(*at));
        brace.map_or(until, |brace| brace + 1)
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

/// The lines of a layer's body, with their places.
fn layer_lines(source: &Source, comments: &[Comment], layer: &Layer) -> Vec<(Span, String)> {
    let statements = &layer.statements;
    let is_aligned = |a: &Statement, b: &Statement| is_aligned(&source.text, comments, a, b);
    let statements = statements.chunk_by(is_aligned).flat_map(|run| {
        let (name_width, extent_width) = run.iter().map(width).fold((0, 0), |a, b| (a.0.max(b.0), a.1.max(b.1)));
        run.iter().map(move |statement| (statement.span(), statement_text(statement, name_width, extent_width)))
    });
    let result = layer.result.iter().map(|result| (result.span, broken("", result)));
    statements.chain(result).collect()
}

fn statement_text(statement: &Statement, name_width: usize, extent_width: usize) -> String {
    match statement {
        Statement::Param { name, extent, init, .. } => {
            let head = match extent {
                Some(extent) => {
                    let name = format!("{}:", name.text);
                    format!("{name:<name_width$} {:<extent_width$}", extent.text)
                }
                None => format!("{:<name_width$}", name.text),
            };
            format!("param {head} = {}", value_text(init))
        }
        Statement::Let { name, value, .. } => broken(&format!("let {} = ", name.text), value),
    }
}

/// The lines of a gradient's body, with their places.
fn gradient_lines(source: &Source, comments: &[Comment], gradient: &Gradient) -> Vec<(Span, String)> {
    let is_aligned =
        |a: &Line, b: &Line| !a.is_let && !b.is_let && are_neighbours(&source.text, comments, a.span, b.span);
    let lines = gradient.lines.chunk_by(is_aligned).flat_map(|run| {
        let width = run.iter().map(|line| line.name.text.len()).max().unwrap_or(0);
        run.iter().map(move |line| {
            let head = match line.is_let {
                true => format!("let {} = ", line.name.text),
                false => format!("{:<width$} = ", line.name.text),
            };
            (line.span, broken(&head, &line.value))
        })
    });
    lines.collect()
}

fn is_aligned(text: &str, comments: &[Comment], a: &Statement, b: &Statement) -> bool {
    let (Statement::Param { extent: of_a, .. }, Statement::Param { extent: of_b, .. }) = (a, b) else { return false };
    of_a.is_some() == of_b.is_some() && are_neighbours(text, comments, a.span(), b.span())
}

/// Whether there is no blank line or comment between two lines.
fn are_neighbours(text: &str, comments: &[Comment], a: Span, b: Span) -> bool {
    let between = &text[a.end..b.start];
    // A comment inside the second moves between the two.
    let inside = |comment: &Comment| (b.start..b.end).contains(&comment.span.start);
    between.matches('\n').count() < 2 && !comments.iter().any(inside)
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

fn gradient_header(gradient: &Gradient) -> String {
    let arguments = gradient.arguments.iter().map(|argument| argument.text.clone());
    let given: Vec<String> = arguments.chain(gradient.settings.iter().map(setting_text)).collect();
    format!("gradient {}({}) {{", gradient.layer.text, given.join(", "))
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
