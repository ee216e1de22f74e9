//! What a command says when it cannot do what was asked: one sentence, and what to do about it.

use std::fmt;

/// A user-facing error: what is wrong and where, with an optional line of help.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    /// What is wrong, with the file or option it concerns; starts lowercase, no full stop.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    is_rendered: bool,
}

impl Failure {
    /// An error without a remedy of its own.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), help: None, is_rendered: false }
    }

    /// Diagnostics that are laid out already and need no `error:` before them.
    pub fn rendered(text: impl Into<String>) -> Self {
        Self { message: text.into(), help: None, is_rendered: true }
    }

    /// The message with its help in parentheses, for where it becomes a part of another one.
    pub(crate) fn in_words(&self) -> String {
        let message = self.message.trim_end().trim_start_matches("error: ");
        self.help.as_ref().map_or(message.to_owned(), |help| format!("{message} ({help})"))
    }

    /// A message with what to do about it, if anything is.
    pub(crate) fn with(message: impl Into<String>, help: Option<impl Into<String>>) -> Self {
        Self { help: help.map(Into::into), ..Self::new(message) }
    }

    /// Adds what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// A value that an option cannot have. Where the option stands, in a file or on the command line, is known to
/// whoever reads it.
#[derive(Debug, Clone, PartialEq)]
pub struct Impossible {
    /// The option, `quality.steps` for one in a table.
    pub key: &'static str,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl Impossible {
    pub(crate) fn new(key: &'static str, message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { key, message: message.into(), help: help.into() }
    }
}

impl From<Impossible> for Failure {
    fn from(Impossible { message, help, .. }: Impossible) -> Self {
        Failure::new(message).help(help)
    }
}

impl fmt::Display for Failure {
    /// The message as it is shown to a user, `error:` included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_rendered {
            return f.write_str(self.message.trim_end());
        }
        write!(f, "error: {}", self.message)?;
        match &self.help {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Failure {}
