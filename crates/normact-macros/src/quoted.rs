//! Rust tokens as the text they were written as, and back from places in the text to the tokens.
//!
//! Lines and spaces matter to the language in two places (`f (x)` is no call, and a line that begins with
//! `-x` is a new expression), so tokens stand in the text as they stand in the file. Tokens of another
//! macro have no such order; a space between them serves, except before the bracket of a call.

use proc_macro::{Delimiter, Group, Span, TokenStream, TokenTree};

/// A text with the token of every part.
pub(crate) struct Quoted {
    pub(crate) text: String,
    places: Vec<Place>,
    /// What stands for a place outside all tokens.
    whole: Span,
    /// Where the last token ends.
    at: Option<Position>,
    /// The column that is the left margin of the text.
    margin: usize,
}

struct Place {
    start: usize,
    end: usize,
    span: Span,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    line: usize,
    column: usize,
}

impl Quoted {
    pub(crate) fn new(whole: Span) -> Self {
        Self { text: String::new(), places: vec![], whole, at: None, margin: 0 }
    }

    /// Appends text of our own, which stands for a token.
    pub(crate) fn push(&mut self, text: &str, span: Span) {
        let start = self.text.len();
        self.text.push_str(text);
        self.places.push(Place { start, end: self.text.len(), span });
    }

    /// Appends the tokens as lines of their own, indented so far.
    pub(crate) fn lines(&mut self, tokens: &TokenStream, indent: usize) {
        let leftmost = first_columns(tokens).min().unwrap_or(0);
        self.margin = leftmost.saturating_sub(indent);
        self.at = None;
        self.text.push_str(&" ".repeat(indent));
        self.tokens(tokens.clone());
    }

    /// Appends the tokens.
    pub(crate) fn tokens(&mut self, tokens: TokenStream) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => self.group(&group),
                TokenTree::Ident(ident) => self.token(&ident.to_string(), ident.span()),
                TokenTree::Punct(punct) => self.token(&punct.as_char().to_string(), punct.span()),
                TokenTree::Literal(literal) => self.token(&literal.to_string(), literal.span()),
            }
        }
    }

    pub(crate) fn group(&mut self, group: &Group) {
        let (open, close) = match group.delimiter() {
            Delimiter::Parenthesis => ("(", ")"),
            Delimiter::Brace => ("{", "}"),
            Delimiter::Bracket => ("[", "]"),
            Delimiter::None => return self.tokens(group.stream()),
        };
        self.token(open, group.span_open());
        self.tokens(group.stream());
        self.token(close, group.span_close());
    }

    fn token(&mut self, text: &str, span: Span) {
        let (start, end) = (position(span.start()), position(span.end()));
        match self.at {
            None => {}
            Some(at) if start.line > at.line => {
                self.text.push_str(&"\n".repeat((start.line - at.line).min(2)));
                self.text.push_str(&" ".repeat(start.column.saturating_sub(self.margin)));
            }
            Some(at) if start >= at && start < end => self.text.push_str(&" ".repeat(start.column - at.column)),
            Some(_) => {
                let is_call = matches!(text, "(" | "[") && self.text.ends_with(|char: char| char.is_alphanumeric());
                self.text.push_str(if is_call { "" } else { " " });
            }
        }
        self.push(text, span);
        self.at = Some(end);
    }

    /// The first token that is this word.
    pub(crate) fn word(&self, word: &str) -> Option<Span> {
        self.places.iter().find(|place| &self.text[place.start..place.end] == word).map(|place| place.span)
    }

    /// The first and the last token of a range of the text; for the end of the text, what stands there.
    pub(crate) fn tokens_at(&self, start: usize, end: usize) -> [Span; 2] {
        let touched = |place: &&Place| place.start < end.max(start + 1) && start < place.end;
        let first = self.places.iter().find(touched).map(|place| place.span);
        let last = self.places.iter().rfind(touched).map(|place| place.span);
        match (first, last) {
            (Some(first), Some(last)) => [first, last],
            _ => {
                // Between tokens: the next one, which is where something was missed.
                let next = self.places.iter().find(|place| place.start >= start).or(self.places.last());
                [next.map_or(self.whole, |place| place.span); 2]
            }
        }
    }
}

fn position(span: Span) -> Position {
    Position { line: span.line(), column: span.column() }
}

/// The columns of the tokens that begin a line.
fn first_columns(tokens: &TokenStream) -> impl Iterator<Item = usize> {
    let mut line = 0;
    flat(tokens.clone()).into_iter().filter_map(move |span| {
        let at = position(span.start());
        let is_first = at.line > line;
        line = line.max(position(span.end()).line);
        is_first.then_some(at.column)
    })
}

/// The place of every token, brackets included.
fn flat(tokens: TokenStream) -> Vec<Span> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Group(group) => {
                let inner = flat(group.stream());
                [vec![group.span_open()], inner, vec![group.span_close()]].concat()
            }
            other => vec![other.span()],
        })
        .collect()
}
