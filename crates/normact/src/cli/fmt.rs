//! `normact fmt`: files in standard layout.

use std::path::Path;

use normact_syntax::{Source, format, parse, render};

use super::{Outcome, color_on_stderr, note, print, print_json};
use crate::{Failure, files, load};

const EXAMPLES: &str = "\
Examples:
  normact fmt my.nact              rewrite the file in standard layout
  normact fmt layers/*.nact --check
  normact fmt - < my.nact          print the layout to standard output";

/// Lay files out in the standard way
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Files to rewrite, or - to go from standard input to standard output
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,

    /// Change nothing; exit with 1 if a file is not in standard layout
    #[arg(long)]
    check: bool,

    /// Print a JSON object for each file
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct FileRecord<'a> {
    file: &'a str,
    changed: bool,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mut outcome = Outcome::Success;
    for file in &args.files {
        let source = read(file)?;
        let formatted = formatted(&source)?;
        let changed = formatted != source.text;
        if args.check {
            if changed {
                outcome = Outcome::Negative;
                note(&format!("{file}: not in standard layout; `normact fmt {file}` rewrites it"));
            }
        } else if file == "-" {
            print(&formatted)?;
        } else if changed {
            files::write(Path::new(file), formatted.as_bytes())?;
        }
        if args.json && file != "-" {
            print_json(&FileRecord { file, changed })?;
        }
    }
    Ok(outcome)
}

fn read(file: &str) -> Result<Source, Failure> {
    load::source(file)?
        .map_err(|unreadable| Failure::rendered(render(&unreadable.0, &[unreadable.1], color_on_stderr())))
}

fn formatted(source: &Source) -> Result<String, Failure> {
    let (parsed, diagnostics) = parse(source);
    if !diagnostics.is_empty() {
        return Err(Failure::rendered(render(source, &diagnostics, color_on_stderr())));
    }
    Ok(format(source, &parsed.file))
}
