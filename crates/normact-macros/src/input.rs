//! What the macro was given: a formula, a text of the language, or a file.

use std::iter::Peekable;

use proc_macro::token_stream::IntoIter;
use proc_macro::{Delimiter, Group, Ident, Literal, Span, TokenStream, TokenTree};

use crate::expand::Mistake;

pub(crate) struct Input {
    /// Lines of documentation.
    pub(crate) docs: Vec<String>,
    /// `pub`, `pub(crate)` or nothing.
    pub(crate) visibility: TokenStream,
    pub(crate) kind: Kind,
}

pub(crate) enum Kind {
    /// `Name(x, settings) { formula }`
    Formula { name: Ident, header: Option<Group>, body: Group },
    /// Functions and layers.
    Text(TokenStream),
    /// `Name = "file.nact"`
    File { name: Option<Ident>, path: Literal },
}

const FORMS: &str = "write `pub Name { formula }`, `pub layer name(x) { ... }`, or `pub Name = \"file.nact\"`";

impl Input {
    pub(crate) fn read(tokens: TokenStream) -> Result<Self, Vec<Mistake>> {
        let mut tokens = tokens.into_iter().peekable();
        let docs = docs(&mut tokens)?;
        let visibility = visibility(&mut tokens);
        let kind = kind(&mut tokens)?;
        match tokens.next() {
            None => Ok(Self { docs, visibility, kind }),
            Some(more) => Err(expected("the end of the layer", Some(&more))),
        }
    }
}

fn expected(what: &str, found: Option<&TokenTree>) -> Vec<Mistake> {
    let span = found.map_or_else(Span::call_site, TokenTree::span);
    vec![Mistake { message: format!("expected {what}\nhelp: {FORMS}"), at: [span; 2] }]
}

fn kind(tokens: &mut Peekable<IntoIter>) -> Result<Kind, Vec<Mistake>> {
    match tokens.next() {
        Some(TokenTree::Literal(path)) => Ok(Kind::File { name: None, path }),
        Some(TokenTree::Ident(word)) if matches!(word.to_string().as_str(), "layer" | "fn") => {
            let first = TokenStream::from(TokenTree::Ident(word));
            Ok(Kind::Text(first.into_iter().chain(tokens).collect()))
        }
        Some(TokenTree::Ident(name)) => match tokens.next() {
            Some(TokenTree::Punct(sign)) if sign.as_char() == '=' => match tokens.next() {
                Some(TokenTree::Literal(path)) => Ok(Kind::File { name: Some(name), path }),
                other => Err(expected("a file, `\"file.nact\"`", other.as_ref())),
            },
            Some(TokenTree::Group(body)) if body.delimiter() == Delimiter::Brace => {
                Ok(Kind::Formula { name, header: None, body })
            }
            Some(TokenTree::Group(header)) if header.delimiter() == Delimiter::Parenthesis => match tokens.next() {
                Some(TokenTree::Group(body)) if body.delimiter() == Delimiter::Brace => {
                    Ok(Kind::Formula { name, header: Some(header), body })
                }
                other => Err(expected("the formula in braces", other.as_ref())),
            },
            other => Err(expected("the formula in braces", other.as_ref().or(Some(&TokenTree::Ident(name))))),
        },
        other => Err(expected("the name of a layer", other.as_ref())),
    }
}

/// The lines of `/// ...` before a layer.
fn docs(tokens: &mut Peekable<IntoIter>) -> Result<Vec<String>, Vec<Mistake>> {
    let mut docs = vec![];
    while let Some(TokenTree::Punct(_)) = tokens.peek() {
        let sign = tokens.next();
        let attribute = match tokens.next() {
            Some(TokenTree::Group(attribute)) => attribute.stream().into_iter().collect(),
            _ => vec![],
        };
        match attribute.as_slice() {
            [TokenTree::Ident(doc), TokenTree::Punct(_), TokenTree::Literal(text)] if doc.to_string() == "doc" => {
                docs.extend(string(text).unwrap_or_default().lines().map(|line| line.trim().to_owned()));
            }
            _ => return Err(expected("the name of a layer; only documentation can stand before it", sign.as_ref())),
        }
    }
    Ok(docs)
}

fn visibility(tokens: &mut Peekable<IntoIter>) -> TokenStream {
    let mut visibility = TokenStream::new();
    if matches!(tokens.peek(), Some(TokenTree::Ident(word)) if word.to_string() == "pub") {
        visibility.extend(tokens.next());
        if matches!(tokens.peek(), Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis) {
            visibility.extend(tokens.next());
        }
    }
    visibility
}

/// The value of a literal that is a string.
pub(crate) fn string(literal: &Literal) -> Option<String> {
    let text = literal.to_string();
    if let Some(raw) = text.strip_prefix('r') {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        let inner = raw.get(hashes + 1..raw.len() - hashes - 1)?;
        return raw[hashes..].starts_with('"').then(|| inner.to_owned());
    }
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    let mut value = String::new();
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match (char, char == '\\') {
            (_, false) => value.push(char),
            (_, true) => match chars.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                other => value.push(other),
            },
        }
    }
    Some(value)
}
