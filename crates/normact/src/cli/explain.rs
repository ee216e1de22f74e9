//! `normact explain`: one diagnostic, at length.

use normact_syntax::{Code, Severity};

use super::{Outcome, print, print_json};
use crate::Failure;

const EXAMPLES: &str = "\
Examples:
  normact explain E0302
  normact explain            list every code";

/// Explain a diagnostic at length
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The code in brackets of an error or warning; all codes are listed without one
    #[arg(value_name = "CODE")]
    code: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct CodeRecord {
    code: &'static str,
    severity: &'static str,
    title: &'static str,
    explanation: &'static str,
    example: &'static str,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let codes = match &args.code {
        Some(text) => vec![Code::by_str(text).ok_or_else(|| {
            Failure::new(format!("there is no diagnostic `{text}`")).help("`normact explain` lists every code")
        })?],
        None => Code::ALL.to_vec(),
    };
    if args.json {
        codes.iter().try_for_each(|code| print_json(&record(*code)))?;
    } else if args.code.is_some() {
        print(&at_length(codes[0]))?;
    } else {
        let lines: String = codes.iter().map(|code| format!("{}  {}\n", code.as_str(), code.title())).collect();
        print(&lines)?;
    }
    Ok(Outcome::Success)
}

fn record(code: Code) -> CodeRecord {
    CodeRecord {
        code: code.as_str(),
        severity: match code.severity() {
            Severity::Error => "error",
            Severity::Warning => "warning",
        },
        title: code.title(),
        explanation: code.explanation(),
        example: code.example(),
    }
}

fn at_length(code: Code) -> String {
    let mut text = format!("{}: {}\n\n{}\n", code.as_str(), code.title(), code.explanation());
    if !code.example().is_empty() {
        let example: String = code.example().lines().map(|line| format!("    {line}\n")).collect();
        text.push_str(&format!("\nA text that gets this message:\n\n{example}"));
    }
    text
}
