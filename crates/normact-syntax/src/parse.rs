//! Text to syntax tree.
//!
//! pest stops at the first mistake, but a user wants to hear of all. So a mistake is reported, the
//! statement it is in is blanked out (with spaces, so that places stay right), and the text is
//! parsed again. Names that a blanked statement would have defined are remembered, so that their
//! uses are not reported as well.

use std::collections::HashSet;

use pest::Parser as _;
use pest::error::{ErrorVariant, InputLocation};
use pest::iterators::Pair;

use crate::ast::*;
use crate::codes::Code;
use crate::diagnostic::Diagnostic;
use crate::source::{Source, Span};

#[derive(pest_derive::Parser)]
#[grammar = "../../../grammar/normact.pest"]
struct Grammar;

/// The largest text that is parsed, in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// How deep brackets may nest.
pub const MAX_NESTING: usize = 200;
/// After so many syntax errors the rest is not looked at.
const MAX_SYNTAX_ERRORS: usize = 20;

/// A syntax tree with what is known about the parts that could not be read.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// What could be read.
    pub file: File,
    /// Names that unreadable statements define.
    pub lost_names: HashSet<String>,
    /// Definitions that hold an unreadable part.
    pub damaged: Vec<Span>,
}

impl Parsed {
    /// Whether a part of the definition could not be read.
    pub(crate) fn is_damaged(&self, definition: Span) -> bool {
        self.damaged.iter().any(|damage| damage.start < definition.end && definition.start < damage.end)
    }
}

/// Parses a text; the tree holds what could be read.
pub fn parse(source: &Source) -> (Parsed, Vec<Diagnostic>) {
    let text = source.text.as_str();
    let comments = comments(text);
    let mut parsed = Parsed { file: File { items: vec![], comments }, lost_names: HashSet::new(), damaged: vec![] };
    if let Some(refusal) = refuse(text, &parsed.file.comments) {
        parsed.damaged.push(Span::new(0, text.len()));
        return (parsed, vec![refusal]);
    }
    let mut diagnostics = Vec::new();
    let mut readable = text.to_owned();
    loop {
        match Grammar::parse(Rule::file, &readable) {
            Ok(pairs) => {
                let mut reader = Reader { text, comments: &parsed.file.comments, diagnostics: &mut diagnostics };
                let items = pairs.flat_map(Pair::into_inner).filter_map(|pair| reader.item(pair)).collect();
                parsed.file.items = items;
                // A definition with a number that could not be read must not be used.
                parsed.damaged.extend(diagnostics.iter().filter(|d| d.code == Code::NumberRange).map(|d| d.span));
                return (parsed, diagnostics);
            }
            Err(error) => {
                let at = match error.location {
                    InputLocation::Pos(at) | InputLocation::Span((at, _)) => at,
                };
                let at = end_of_head(text, at).unwrap_or(at);
                let expected = match &error.variant {
                    ErrorVariant::ParsingError { positives, .. } => expectation(positives),
                    ErrorVariant::CustomError { message } => message.clone(),
                };
                diagnostics.push(syntax_error(text, &parsed.file.comments, at, &expected));
                let blanked = blank(&mut readable, &parsed.file.comments, at);
                parsed.damaged.push(blanked.region);
                parsed.lost_names.extend(blanked.name);
                if !blanked.progress || diagnostics.len() >= MAX_SYNTAX_ERRORS {
                    return (parsed, diagnostics);
                }
            }
        }
    }
}

/// Refuses texts that would cost too much time or stack to parse.
fn refuse(text: &str, comments: &[Comment]) -> Option<Diagnostic> {
    if text.len() > MAX_BYTES {
        let message = format!("the text has {} bytes; at most {MAX_BYTES} are read", text.len());
        let help = "check that this is the file you meant";
        return Some(Diagnostic::new(Code::TooLarge, Span::default(), message).help(help));
    }
    let mut depth = 0usize;
    for (offset, byte) in code_bytes(text, comments) {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            let message = format!("brackets nest more than {MAX_NESTING} deep");
            let help = "give parts of the formula a name with `let`";
            return Some(Diagnostic::new(Code::TooDeep, Span::new(offset, offset + 1), message).help(help));
        }
    }
    None
}

/// The comments of a text. There are no strings, so `//` always starts one.
fn comments(text: &str) -> Vec<Comment> {
    let mut comments = Vec::new();
    let mut from = 0;
    while let Some(found) = text[from..].find("//") {
        let start = from + found;
        let end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        let visible = text[start..end].trim_end().len();
        comments.push(Comment { span: Span::new(start, start + visible) });
        from = end;
    }
    comments
}

/// The bytes of a text outside comments.
fn code_bytes<'a>(text: &'a str, comments: &'a [Comment]) -> impl Iterator<Item = (usize, u8)> + 'a {
    let mut comments = comments.iter().peekable();
    text.bytes().enumerate().filter(move |(offset, _)| {
        while comments.peek().is_some_and(|comment| comment.span.end <= *offset) {
            comments.next();
        }
        comments.peek().is_none_or(|comment| *offset < comment.span.start)
    })
}

fn syntax_error(text: &str, comments: &[Comment], at: usize, expected: &str) -> Diagnostic {
    let found = found(text, at);
    let span = Span::new(at, at + found.trim_end().len());
    let what = match found {
        "" => "the end of the text".to_owned(),
        _ if found.trim().is_empty() => "the end of the line".to_owned(),
        _ => format!("`{found}`"),
    };
    let diagnostic = Diagnostic::new(Code::Syntax, span, format!("expected {expected}, found {what}"))
        .label(format!("expected {expected}"));
    if let Some(open) = open_bracket(text, comments, at)
        && (matches!(found, "" | "{" | "}" | "param" | "let" | "fn" | "layer") || text[open..at].contains('\n'))
        && found != "-"
    {
        let bracket = &text[open..=open];
        return diagnostic
            .related(Span::new(open, open + 1), format!("this `{bracket}` is not closed"))
            .help(format!("close the `{bracket}`"));
    }
    let (definition, _) = definition_around(text, comments, at);
    let is_gradient = begins_gradient(&text[definition..]);
    match advice_on_gradients(text, at, found).filter(|_| is_gradient).or_else(|| advice(text, at, found)) {
        Some(advice) => diagnostic.help(advice),
        None => diagnostic,
    }
}

/// The innermost `(` or `[` that is still open at a place.
fn open_bracket(text: &str, comments: &[Comment], at: usize) -> Option<usize> {
    let (definition, _) = definition_around(text, comments, at);
    let mut open = Vec::new();
    for (offset, byte) in code_bytes(text, comments).take_while(|(offset, _)| *offset < at) {
        match byte {
            _ if offset < definition => {}
            b'(' | b'[' => open.push(offset),
            b')' | b']' => drop(open.pop()),
            _ => {}
        }
    }
    open.pop()
}

/// The word or sign at a place.
fn found(text: &str, at: usize) -> &str {
    let rest = &text[at..];
    let word = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let length = if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) };
    &rest[..length]
}

/// What people who write other languages need to hear.
fn advice(text: &str, at: usize, found: &str) -> Option<&'static str> {
    let before = text[..at].trim_end();
    Some(match found {
        "-" => {
            "a line that starts with a minus sign right before a value begins a new expression; put a space after the `-` to go on"
        }
        ";" => "statements end where the next begins; remove the `;`",
        "^" => "there is no power operator; write `square(x)` or `x * x`",
        "*" if before.ends_with('*') => "there is no power operator; write `square(x)` or `x * x`",
        "#" => "comments start with `//`",
        "def" | "function" | "func" => "a function is `fn name(x) = expression`",
        _ if begins_param(before) => "a param has a value to start with, and may say how many: `param v: scalar = 1`",
        "=" if before.ends_with('=') || before.ends_with(['<', '>', '!']) => {
            "there are no comparisons; use `max` or `min`"
        }
        "<" | ">" | "?" => "there are no comparisons; use `max` or `min`",
        "{" if !before.is_empty() => "only a layer has braces: `layer name(x) { ... }`",
        "fn" | "layer" | "param" | "let" => "`fn`, `layer`, `param` and `let` cannot be names",
        "" if text[..at].matches('{').count() > text[..at].matches('}').count() => "a layer ends with `}`",
        _ if before.ends_with("return") => "the last expression is the result; remove `return`",
        _ if found.starts_with(|c: char| !c.is_ascii()) => "names are made of the letters a-z, digits and `_`",
        _ => return None,
    })
}

/// Whether a text ends between the name of a param and its value.
fn begins_param(text: &str) -> bool {
    begins_statement(text.rsplit('\n').next().unwrap_or(""), "param")
}

/// Whether a line is a statement that has no value yet.
fn begins_statement(line: &str, keyword: &str) -> bool {
    begins_with_word(line.trim_start(), keyword) && !line.contains('=')
}

/// The end of the line before a place, if that is a `param` or a `let` without a value: the mistake is there, not where
/// the next line begins.
fn end_of_head(text: &str, at: usize) -> Option<usize> {
    let line = text[..at].rfind('\n')?;
    let code = text[..line].split_inclusive('\n').scan(0, |end, line| {
        let start = *end;
        *end += line.len();
        Some((start, line.split("//").next().unwrap_or("").trim_end()))
    });
    let (start, code) = code.filter(|(_, code)| !code.is_empty()).last()?;
    let is_head = begins_statement(code, "param") || begins_statement(code, "let");
    (is_head && text[line..at].trim().is_empty()).then_some(start + code.len())
}

/// What people hear who write a gradient as if it were a layer.
fn advice_on_gradients(text: &str, at: usize, found: &str) -> Option<&'static str> {
    Some(match found {
        "=" if text[..at].ends_with(|c: char| c == ' ' || c.is_ascii_alphanumeric() || c == '_') => {
            "the expression in the line before is not complete"
        }
        "param" => "a gradient reads the params of its layer; remove the line",
        "}" | "[" | "(" => "each line of a gradient has a name: `let t = ...`, `dx = ...`",
        "" => "a gradient ends with `}`",
        _ => return None,
    })
}

/// Rules that could have followed, in the words of the user.
fn expectation(rules: &[Rule]) -> String {
    let mut words: Vec<&str> = Vec::new();
    for rule in rules {
        let word = match rule {
            Rule::plus | Rule::minus | Rule::times | Rule::over => "an operator",
            Rule::expr | Rule::product | Rule::prefix | Rule::result | Rule::call | Rule::number => "an expression",
            Rule::argument | Rule::arguments => "an argument",
            Rule::name | Rule::names | Rule::extent => "a name",
            Rule::setting => "a setting `name = value`",
            Rule::value | Rule::signed => "a number",
            Rule::param | Rule::param_word => "`param`",
            Rule::binding | Rule::let_word => "`let`",
            Rule::function | Rule::fn_word => "`fn`",
            Rule::layer | Rule::layer_word => "`layer`",
            Rule::gradient | Rule::gradient_word => "`gradient`",
            Rule::is => "`=`",
            Rule::of => "`:`",
            Rule::comma => "`,`",
            Rule::open => "`(`",
            Rule::close => "`)`",
            Rule::begin => "`{`",
            Rule::stated => "a gradient such as `dx = ...`",
            Rule::index_set => "an index set such as `[batch]`",
            Rule::set_name => "the name of an index set",
            Rule::EOI | Rule::file => "the end of the text",
            Rule::statement | Rule::given | Rule::primary | Rule::word | Rule::keyword => "an expression",
            Rule::WHITESPACE | Rule::COMMENT | Rule::gap | Rule::negative => continue,
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    if words.contains(&"an expression") {
        // A name or a call is an expression; saying both is noise.
        words.retain(|word| *word != "a name" && *word != "an argument");
    }
    // The end of the text is the least likely thing to be meant.
    words.sort_by_key(|word| *word == "the end of the text");
    match words.as_slice() {
        [] => "a bracket or a comma that fits".to_owned(),
        [one] => (*one).to_owned(),
        [init @ .., last] => format!("{} or {last}", init.join(", ")),
    }
}

/// What was blanked out.
struct Blanked {
    region: Span,
    name: Option<String>,
    progress: bool,
}

/// Blanks the statement or definition that holds a mistake.
fn blank(readable: &mut String, comments: &[Comment], at: usize) -> Blanked {
    let text = readable.as_str();
    let (definition, next_definition) = definition_around(text, comments, at);
    let is_gradient = begins_gradient(&text[definition..]);
    let inside_body = (is_gradient || text[definition..].starts_with("layer")) && {
        // Between the braces, and the closing one is there.
        let open = text[definition..at.max(definition)].contains('{');
        let close = text[at..next_definition].contains('}');
        open && close
    };
    let region = if inside_body {
        let body = definition + text[definition..at].find('{').map_or(0, |open| open + 1);
        let close = at + text[at..next_definition].rfind('}').unwrap_or(0);
        let starts = statement_starts(text, body, close, is_gradient);
        let start = starts.iter().copied().rfind(|start| *start <= at).unwrap_or(body);
        let end = starts.iter().copied().find(|start| *start > at).unwrap_or(close);
        // Where the line before is not complete, the name of a result is read as its end.
        let ends_before = |name: &str| text.get(start + name.len()..at).is_some_and(|gap| gap.trim().is_empty());
        let is_name = is_gradient && stated_name(&text[start..]).is_some_and(ends_before);
        match starts.iter().copied().rfind(|before| is_name && *before < start) {
            Some(before) => Span::new(before, start),
            None => Span::new(start, end.max(start)),
        }
    } else {
        Span::new(definition, next_definition)
    };
    let lost = &text[region.start..region.end];
    let result = stated_name(lost.trim_start()).filter(|_| is_gradient).map(str::to_owned);
    let name = result.or_else(|| statement_name(lost));
    let blanked: String = text[region.start..region.end]
        .chars()
        .map(|c| if c == '\n' { "\n".to_owned() } else { " ".repeat(c.len_utf8()) })
        .collect();
    let progress = blanked != text[region.start..region.end];
    let damaged = Span::new(definition, next_definition);
    readable.replace_range(region.start..region.end, &blanked);
    Blanked { region: damaged, name, progress }
}

/// The definition that holds a place: from its keyword at the start of a line to the next one.
fn definition_around(text: &str, comments: &[Comment], at: usize) -> (usize, usize) {
    let mut starts = vec![0];
    starts.extend(line_starts(text, 0, text.len()).filter(|start| {
        let rest = &text[*start..];
        (begins_with_word(rest, "fn") || begins_with_word(rest, "layer") || begins_gradient(rest))
            && !comments.iter().any(|comment| comment.span.start <= *start && *start < comment.span.end)
    }));
    let start = starts.iter().copied().rfind(|start| *start <= at).unwrap_or(0);
    let end = starts.iter().copied().find(|start| *start > at).unwrap_or(text.len());
    (start, end)
}

/// Where `param`, `let`, in a gradient a result, and after an empty line anything else begins in a body.
fn statement_starts(text: &str, from: usize, to: usize, is_gradient: bool) -> Vec<usize> {
    let mut after_blank_line = false;
    line_starts(text, from, to)
        .filter(|start| {
            let rest = &text[*start..to];
            let blank = rest.trim_start_matches([' ', '\t', '\r']).starts_with('\n') || rest.is_empty();
            let begins = begins_with_word(rest, "param")
                || begins_with_word(rest, "let")
                || (is_gradient && stated_name(rest).is_some())
                || (after_blank_line && !blank);
            after_blank_line = blank;
            begins
        })
        .collect()
}

/// The first visible byte of every line of a range.
fn line_starts(text: &str, from: usize, to: usize) -> impl Iterator<Item = usize> + '_ {
    let breaks = text[from..to].match_indices('\n').map(move |(offset, _)| from + offset + 1);
    std::iter::once(from).chain(breaks).map(move |start| {
        let line = &text[start..to];
        start + line.len() - line.trim_start_matches([' ', '\t']).len()
    })
}

fn begins_with_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
}

/// Whether a gradient begins here: `gradient` and a name. Elsewhere the word is a name itself.
fn begins_gradient(text: &str) -> bool {
    begins_with_word(text, "gradient")
        && text["gradient".len()..]
            .trim_start_matches([' ', '\t'])
            .starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}

/// The name of a result at the start of a line of a gradient.
fn stated_name(text: &str) -> Option<&str> {
    let name = found(text, 0);
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let after = text[name.len()..].trim_start_matches([' ', '\t']);
    (is_name && after.starts_with('=') && !after.starts_with("==")).then_some(name)
}

/// The name that a statement or definition gives, if it can be made out.
fn statement_name(text: &str) -> Option<String> {
    let text = text.trim_start();
    let keyword = ["param", "let", "fn", "layer"].into_iter().find(|keyword| begins_with_word(text, keyword))?;
    let name = found(text[keyword.len()..].trim_start(), 0);
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_').then(|| name.to_owned())
}

/// Turns pest's pairs into the tree. The grammar guarantees the children that are taken here.
struct Reader<'a> {
    text: &'a str,
    comments: &'a [Comment],
    diagnostics: &'a mut Vec<Diagnostic>,
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

    fn item(&mut self, pair: Pair<'_, Rule>) -> Option<Item> {
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
