//! `normact check`: everything wrong or suspicious about formulas, in one run.

use normact_ir::Shape;
use normact_syntax::{
    Code, Diagnostic, Overrides, Record, Source, any_error, compile, in_order, record, render, shape_diagnostics,
};

use super::{Outcome, color_on_stderr, note, print_json};
use crate::{Failure, built_in, load};

const EXAMPLES: &str = "\
Examples:
  normact check my.nact
  normact check layers/*.nact --shape 8,64,32,32
  normact check my.nact --set groups=8 --json
  normact explain E0302

With --shape the checks that need sizes run too: groups that do not divide the channels, statistics
over a single element. Exit codes: 1 if a formula is wrong (E02.., E03..), 2 if a file cannot be
read as formulas at all (E01..). Warnings alone exit with 0.";

/// Report everything wrong or suspicious about formulas
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Files of formulas, names of built-in layers, or - for standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,

    /// Check against an input of this shape: samples, channels, up to three spatial sizes
    #[arg(long, value_name = "N,C,H,W", value_parser = super::tensors::shape)]
    shape: Option<Shape>,

    /// Override a setting of the layers; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,

    /// Print a JSON object for each file
    #[arg(long)]
    json: bool,

    /// Treat warnings as errors
    #[arg(long)]
    deny_warnings: bool,
}

#[derive(serde::Serialize)]
struct FileRecord<'a> {
    file: &'a str,
    diagnostics: Vec<Record>,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let overrides = Overrides::parse(&args.set).map_err(Failure::new)?;
    let mut worst = Verdict::Good;
    for file in &args.files {
        let (source, diagnostics) = match read(file)? {
            Ok(source) => {
                let diagnostics = check(&source, &overrides, args.shape.as_ref());
                (source, diagnostics)
            }
            Err(unreadable) => (unreadable.0, vec![unreadable.1]),
        };
        worst = worst.max(verdict(&diagnostics, args.deny_warnings));
        if args.json {
            let diagnostics = diagnostics.iter().map(|diagnostic| record(&source, diagnostic)).collect();
            print_json(&FileRecord { file, diagnostics })?;
        } else if !diagnostics.is_empty() {
            note(render(&source, &diagnostics, color_on_stderr()).trim_end());
        }
        if !args.json {
            summary(&source, &diagnostics);
        }
    }
    match worst {
        Verdict::Good => Ok(Outcome::Success),
        Verdict::Wrong => Ok(Outcome::Negative),
        Verdict::Unreadable => {
            let help = "`normact explain CODE` says more about a message";
            Err(Failure::new("not every file could be read as formulas").help(help))
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Good,
    Wrong,
    Unreadable,
}

fn verdict(diagnostics: &[Diagnostic], deny_warnings: bool) -> Verdict {
    if diagnostics.iter().any(|diagnostic| diagnostic.code.as_str().starts_with("E01")) {
        Verdict::Unreadable
    } else if any_error(diagnostics) || (deny_warnings && !diagnostics.is_empty()) {
        Verdict::Wrong
    } else {
        Verdict::Good
    }
}

/// The text of a file or built-in layer; the inner error is what is wrong with its bytes.
fn read(file: &str) -> Result<Result<Source, Box<(Source, Diagnostic)>>, Failure> {
    match built_in::source(file) {
        Some(source) => Ok(Ok(source)),
        None => load::source(file),
    }
}

fn check(source: &Source, overrides: &Overrides, shape: Option<&Shape>) -> Vec<Diagnostic> {
    let analysis = compile(source, overrides);
    let mut diagnostics = analysis.diagnostics;
    if analysis.layers.is_empty() && diagnostics.is_empty() && source.text.trim().is_empty() {
        let message = "the file is empty";
        diagnostics
            .push(Diagnostic::new(Code::NoLayer, Default::default(), message).help("write `layer name(x) { ... }`"));
    }
    if let Some(shape) = shape {
        diagnostics.extend(analysis.layers.iter().flat_map(|compiled| shape_diagnostics(compiled, shape)));
    }
    in_order(diagnostics)
}

fn summary(source: &Source, diagnostics: &[Diagnostic]) {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).count();
    let warnings = diagnostics.len() - errors;
    let count = |count: usize, noun: &str| match count {
        0 => None,
        1 => Some(format!("1 {noun}")),
        _ => Some(format!("{count} {noun}s")),
    };
    let counts: Vec<String> = [count(errors, "error"), count(warnings, "warning")].into_iter().flatten().collect();
    note(&format!("{}: {}", source.name, if counts.is_empty() { "no problems".to_owned() } else { counts.join(", ") }));
}
