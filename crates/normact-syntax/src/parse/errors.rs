//! What is said of a mistake of syntax.

use super::recovery::{begins_gradient, begins_with_word, definition_around, found};
use super::{Rule, code_bytes};
use crate::ast::Comment;
use crate::codes::Code;
use crate::diagnostic::Diagnostic;
use crate::source::Span;

pub(super) fn syntax_error(text: &str, comments: &[Comment], at: usize, expected: &str) -> Diagnostic {
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
        _ if begins_param(&text[..at]) => {
            "a param has a value to start with, and may say how many: `param v: scalar = 1`"
        }
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
pub(super) fn end_of_head(text: &str, at: usize) -> Option<usize> {
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
pub(super) fn expectation(rules: &[Rule]) -> String {
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
