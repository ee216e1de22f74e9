//! The text language of normact.
//!
//! [`compile`] takes a text to the layers it defines with everything that is wrong or suspicious
//! about them:
//!
//! ```text
//! text --parse--> syntax tree --names--> checked --build--> graph --findings--> diagnostics
//! ```
//!
//! A text may state the gradient of a layer below it; it is built into a program of its own
//! ([`StatedGradient`]), by what builds the expressions of layers.
//!
//! [`print()`] takes a layer back to text, [`format()`] lays a file out. A user's mistake is a
//! [`Diagnostic`] with a [`Code`] and a place; [`render`] shows it with the line and a caret.
//! Only this crate knows pest.

pub mod ast;
mod build;
mod codes;
mod diagnostic;
mod expressions;
mod findings;
mod format;
mod names;
mod parse;
mod prelude;
mod print;
mod settings;
mod source;
mod stated;
mod suggest;

use normact_ir::{Layer, NodeId};

pub use codes::{Code, Severity};
pub use diagnostic::{Diagnostic, Record, any_error, in_order, record, render};
pub use expressions::MAX_OPERATIONS;
pub use findings::shape_diagnostics;
pub use format::format;
pub use parse::{MAX_BYTES, MAX_NESTING, Parsed, parse};
pub use prelude::{functions as prelude_functions, source as prelude_source};
pub use print::print;
pub use settings::{Known, Overrides, SettingValue};
pub use source::{Position, Source, Span};
pub use stated::StatedGradient;
pub use suggest::nearest;

/// A layer made from a text.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The layer.
    pub layer: Layer,
    /// The comment above its definition, without the slashes.
    pub doc: String,
    /// The settings it declares, with the values in force.
    pub settings: Vec<(String, SettingValue)>,
    /// The place of its name.
    pub name_span: Span,
    /// The gradient that the text states for it.
    pub gradient: Option<StatedGradient>,
    origins: Vec<Span>,
}

impl Compiled {
    /// The text a node was built for.
    pub fn origin(&self, id: NodeId) -> Span {
        self.origins.get(id.index()).copied().unwrap_or(self.name_span)
    }
}

/// What a text defines, and what there is to say about it.
#[derive(Debug, Clone, Default)]
pub struct Analysis {
    /// The layers that can be used, in the order of the text.
    pub layers: Vec<Compiled>,
    /// Everything wrong or suspicious, from top to bottom.
    pub diagnostics: Vec<Diagnostic>,
}

impl Analysis {
    /// Whether anything is wrong.
    pub fn has_errors(&self) -> bool {
        any_error(&self.diagnostics)
    }
}

/// Compiles every layer of a text. A layer with a mistake is left out; the others are compiled all
/// the same, so that one run reports everything.
pub fn compile(source: &Source, overrides: &Overrides) -> Analysis {
    let (parsed, mut diagnostics) = parse(source);
    let library = names::Library::new(&parsed.file);
    let checked = names::check(&parsed, &library);
    diagnostics.extend(checked.diagnostics);
    let mut compiled = Vec::new();
    for layer in names::layers(&parsed.file) {
        if checked.broken_layers.contains(&layer.name.text) {
            continue;
        }
        match build::build(layer, &library, overrides) {
            Ok(built) => {
                diagnostics.extend(findings::diagnostics(layer, &built));
                let stated = checked.gradients.get(layer.name.text.as_str());
                let gradient = match stated.map(|gradient| stated::build(gradient, &built, &library)) {
                    Some(Ok(gradient)) => Some(gradient),
                    Some(Err(errors)) => {
                        diagnostics.extend(errors);
                        None
                    }
                    None => None,
                };
                compiled.push(Compiled {
                    layer: Layer { name: layer.name.text.clone(), dag: built.dag },
                    doc: doc(source, &parsed.file.comments, layer.span.start),
                    settings: built.settings,
                    name_span: layer.name.span,
                    gradient,
                    origins: built.origins,
                });
            }
            Err(errors) => diagnostics.extend(errors),
        }
    }
    Analysis { layers: compiled, diagnostics: in_order(diagnostics) }
}

/// The comment lines that end right above a definition.
fn doc(source: &Source, comments: &[ast::Comment], start: usize) -> String {
    let mut lines = Vec::new();
    let mut below = start;
    for comment in comments.iter().rev().skip_while(|comment| comment.span.start >= start) {
        let between = &source.text[comment.span.end..below];
        if !between.trim().is_empty() || between.matches('\n').count() != 1 {
            break;
        }
        let text = &source.text[comment.span.start..comment.span.end];
        lines.push(text.trim_start_matches('/').trim());
        below = comment.span.start;
    }
    lines.reverse();
    lines.join("\n")
}
