//! Text to syntax tree.
//!
//! pest stops at the first mistake, but a user wants to hear of all. So a mistake is reported, the
//! statement it is in is blanked out (with spaces, so that places stay right), and the text is
//! parsed again. Names that a blanked statement would have defined are remembered, so that their
//! uses are not reported as well.

mod errors;
mod recovery;
mod tree;

use std::collections::HashSet;

use pest::Parser as _;
use pest::error::{ErrorVariant, InputLocation};
use pest::iterators::Pair;

use self::errors::{end_of_head, expectation, syntax_error};
use self::recovery::blank;
use self::tree::Reader;
use crate::ast::{Comment, File};
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
                let at = end_of_head(&readable, at).unwrap_or(at);
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
