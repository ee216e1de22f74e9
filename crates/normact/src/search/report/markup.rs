//! HTML in small: escaped text, tables, numbers.

use std::fmt::Write as _;

/// Text between tags or in an attribute; characters that pages may not have are replaced.
pub(super) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(char),
            char if char.is_control() || matches!(char, '\u{fffe}' | '\u{ffff}') => escaped.push('\u{fffd}'),
            char => escaped.push(char),
        }
    }
    escaped
}

/// Text in the face of programs.
pub(super) fn code(text: &str) -> String {
    format!("<code>{}</code>", escaped(text))
}

/// What is in a cell, as HTML.
pub(super) enum Cell {
    /// On the left; the first cell of a row is its header.
    Text(String),
    /// On the right.
    Number(String),
}

impl Cell {
    /// A number, or a dash where there is none.
    pub(super) fn number(text: Option<String>) -> Self {
        Cell::Number(text.unwrap_or_else(|| "–".to_owned()))
    }
}

/// A table, which scrolls in itself where it is wider than the page. The caption and the head are text.
pub(super) fn table(caption: &str, head: &[&str], rows: &[Vec<Cell>]) -> String {
    let mut text = format!(
        "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{0}\"><table>\n<caption>{0}</caption>\n\
         <thead><tr>",
        escaped(caption)
    );
    for (column, name) in head.iter().enumerate() {
        let is_number = matches!(rows.first().and_then(|row| row.get(column)), Some(Cell::Number(_)));
        let class = if is_number { " class=\"number\"" } else { "" };
        let _ = write!(text, "<th scope=\"col\"{class}>{}</th>", escaped(name));
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let _ = match cell {
                Cell::Text(html) if column == 0 => write!(text, "<th scope=\"row\">{html}</th>"),
                Cell::Text(html) => write!(text, "<td>{html}</td>"),
                Cell::Number(html) => write!(text, "<td class=\"number\">{html}</td>"),
            };
        }
        text.push_str("</tr>\n");
    }
    text + "</tbody>\n</table></div>\n"
}

/// A score as a percentage, without the sign.
pub(super) fn percent(score: f64) -> String {
    // No accuracy is that large; a made-up score may be.
    // Adding zero turns -0.0 into 0.0.
    if score.abs() < 100.0 { format!("{:.2}", score * 100.0 + 0.0) } else { format!("{:.2e}", score * 100.0) }
}

/// The difference of two scores in percentage points, with its sign.
pub(super) fn points(difference: f64) -> String {
    let text = percent(difference.abs());
    match text.trim_matches(['0', '.']).is_empty() {
        true => "0.00".to_owned(),
        false if difference < 0.0 => format!("−{text}"),
        false => format!("+{text}"),
    }
}

/// A duration in a unit that suits it.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        // A sum of nothing is -0.0.
        0.0 => "0 s".to_owned(),
        seconds if seconds < 0.095 => format!("{:.0} ms", seconds * 1e3),
        seconds if seconds < 9.95 => format!("{seconds:.1} s"),
        seconds if seconds < 600.0 => format!("{seconds:.0} s"),
        seconds if seconds < 5400.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3600.0),
    }
}

/// A number with spaces between thousands.
pub(super) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// The number with its noun.
pub(super) fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!([0.5, -0.0, 1e300].map(percent), ["50.00", "0.00", "1.00e302"]);
        assert_eq!([0.013, -0.2, 1e-9, -1e-9, 0.0].map(points), ["+1.30", "−20.00", "0.00", "0.00", "0.00"]);
        let durations = [-0.0, 0.02, 0.5, 42.0, 900.0, 9000.0].map(duration);
        assert_eq!(durations, ["0 s", "20 ms", "0.5 s", "42 s", "15 min", "2.5 h"]);
        assert_eq!([7, 999, 1000, 1_234_567].map(count), ["7", "999", "1\u{202f}000", "1\u{202f}234\u{202f}567"]);
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(escaped("<a href=\"x\">'&\u{1b}\n"), "&lt;a href=&quot;x&quot;&gt;&#39;&amp;\u{fffd}\n");
    }
}
