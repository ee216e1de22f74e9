//! What is blanked out of a text, so that what comes after a mistake is parsed too.

use crate::ast::Comment;
use crate::source::Span;

/// What was blanked out.
pub(super) struct Blanked {
    pub(super) region: Span,
    pub(super) name: Option<String>,
    pub(super) progress: bool,
}

/// Blanks the statement or definition that holds a mistake.
pub(super) fn blank(readable: &mut String, comments: &[Comment], at: usize) -> Blanked {
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
pub(super) fn definition_around(text: &str, comments: &[Comment], at: usize) -> (usize, usize) {
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

pub(super) fn begins_with_word(text: &str, word: &str) -> bool {
    text.strip_prefix(word).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_'))
}

/// Whether a gradient begins here: `gradient` and a name. Elsewhere the word is a name itself.
pub(super) fn begins_gradient(text: &str) -> bool {
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

/// The word or sign at a place.
pub(super) fn found(text: &str, at: usize) -> &str {
    let rest = &text[at..];
    let word = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
    let length = if word > 0 { word } else { rest.chars().next().map_or(0, char::len_utf8) };
    &rest[..length]
}
