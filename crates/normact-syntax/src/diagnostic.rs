//! What is wrong with a text, where, and what to do: values first, rendered at the end.

use codespan_reporting::diagnostic as report;
use codespan_reporting::files::SimpleFile;
use codespan_reporting::term;

use crate::codes::{Code, Severity};
use crate::source::{Position, Source, Span};

/// One message about a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its code; tells the severity too.
    pub code: Code,
    /// What is wrong; starts lowercase, no full stop.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What the marked text is, in the margin.
    pub label: String,
    /// Other places that matter.
    pub related: Vec<(Span, String)>,
    /// Facts: an equation with its bindings.
    pub notes: Vec<String>,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A message about a place.
    pub fn new(code: Code, span: Span, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), span, label: String::new(), related: vec![], notes: vec![], help: None }
    }

    /// Says what the marked text is.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Marks another place.
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }

    /// Adds a fact.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Says what to do.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Whether the layer cannot be used.
    pub fn is_error(&self) -> bool {
        self.code.severity() == Severity::Error
    }
}

/// Whether any of them is an error.
pub fn any_error(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(Diagnostic::is_error)
}

/// The most messages about one text.
const MOST: usize = 100;

/// Sorts by place and drops repetitions, so that one run reads from top to bottom. Of very many
/// messages the first errors are kept.
pub fn in_order(mut diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    diagnostics.sort_by(|a, b| (a.span, a.code, &a.message).cmp(&(b.span, b.code, &b.message)));
    diagnostics.dedup();
    let more = diagnostics.len().saturating_sub(MOST);
    if more > 0 {
        // A stable sort, so errors and warnings keep their order; then the kept ones go by place again.
        diagnostics.sort_by_key(|diagnostic| diagnostic.code.severity());
        diagnostics.truncate(MOST);
        diagnostics.sort_by_key(|diagnostic| diagnostic.span);
        if let Some(last) = diagnostics.last_mut() {
            last.notes.push(format!("{more} more messages about this text are not shown"));
        }
    }
    diagnostics
}

/// Lines longer than this are not shown around a message: nobody finds the caret in them.
const LONGEST_SHOWN_LINE: usize = 400;

/// The diagnostics as people read them, with source lines and carets; `color` adds terminal colours.
pub fn render(source: &Source, diagnostics: &[Diagnostic], color: bool) -> String {
    let file = SimpleFile::new(&source.name, &source.text);
    let config = term::Config::default();
    let styles = term::Styles::default();
    let mut text = String::new();
    for diagnostic in diagnostics {
        if has_long_line(source, diagnostic) {
            text.push_str(&without_lines(source, diagnostic));
            continue;
        }
        let report = as_report(diagnostic);
        let rendered = if color {
            let mut ansi = term::termcolor::Ansi::new(Vec::new());
            let mut writer = term::StylesWriter::new(&mut ansi, &styles);
            term::emit_to_write_style(&mut writer, &config, &file, &report)
                .map(|()| String::from_utf8_lossy(&ansi.into_inner()).into_owned())
        } else {
            term::emit_into_string(&config, &file, &report)
        };
        // Rendering fails only for a place outside the text.
        text.push_str(&rendered.unwrap_or_else(|_| without_lines(source, diagnostic)));
    }
    text
}

fn has_long_line(source: &Source, diagnostic: &Diagnostic) -> bool {
    let related = diagnostic.related.iter().map(|(span, _)| *span);
    std::iter::once(diagnostic.span).chain(related).any(|span| {
        let (before, after) = source.text.as_bytes().split_at(span.start.min(source.text.len()));
        let newline = |byte: &u8| *byte == b'\n';
        let left = before.iter().rev().position(newline).unwrap_or(before.len());
        let right = after.iter().position(newline).unwrap_or(after.len());
        left + right > LONGEST_SHOWN_LINE
    })
}

fn without_lines(source: &Source, diagnostic: &Diagnostic) -> String {
    let Position { line, column } = source.position(diagnostic.span.start);
    let severity = match diagnostic.code.severity() {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let (code, message) = (diagnostic.code.as_str(), &diagnostic.message);
    let mut text = format!("{severity}[{code}]: {message}\n  at {}:{line}:{column}\n", source.name);
    for note in &diagnostic.notes {
        text.push_str(&format!("  = {note}\n"));
    }
    if let Some(help) = &diagnostic.help {
        text.push_str(&format!("  = help: {help}\n"));
    }
    text + "\n"
}

fn as_report(diagnostic: &Diagnostic) -> report::Diagnostic<()> {
    let report = match diagnostic.code.severity() {
        Severity::Error => report::Diagnostic::error(),
        Severity::Warning => report::Diagnostic::warning(),
    };
    let range = |span: Span| span.start..span.end;
    let mut labels = vec![report::Label::primary((), range(diagnostic.span)).with_message(&diagnostic.label)];
    labels.extend(
        diagnostic.related.iter().map(|(span, text)| report::Label::secondary((), range(*span)).with_message(text)),
    );
    let help = diagnostic.help.iter().map(|help| format!("help: {help}"));
    report
        .with_code(diagnostic.code.as_str())
        .with_message(&diagnostic.message)
        .with_labels(labels)
        .with_notes(diagnostic.notes.iter().cloned().chain(help).collect())
}

/// A diagnostic as machines read it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Record {
    /// The code.
    pub code: &'static str,
    /// `error` or `warning`.
    pub severity: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do, or null.
    pub help: Option<String>,
    /// The first character.
    pub start: Position,
    /// The character after the last.
    pub end: Position,
}

/// The diagnostic as machines read it.
pub fn record(source: &Source, diagnostic: &Diagnostic) -> Record {
    Record {
        code: diagnostic.code.as_str(),
        severity: match diagnostic.code.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        message: std::iter::once(&diagnostic.message).chain(&diagnostic.notes).cloned().collect::<Vec<_>>().join("; "),
        help: diagnostic.help.clone(),
        start: source.position(diagnostic.span.start),
        end: source.position(diagnostic.span.end),
    }
}
