//! The `normact` command line: one file per command, each an `Args` and a `run`.
//!
//! Results go to standard output, everything else to standard error. Exit codes: 0 success, 1 a
//! negative answer, 2 bad use.

mod bench;
mod canon;
mod check;
mod completions;
mod emit;
mod equiv;
mod explain;
mod fmt;
mod gradcheck;
mod import;
mod list;
mod output;
mod probe;
mod run;
mod search;
mod show;
mod simplify;
mod targets;
mod tensors;
mod train;
mod weights;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::Failure;
use crate::load::{self, Loaded};
pub(crate) use output::{color_on_stderr, note, print, print_json, quoted, rule_counts, stop_on_interrupt};

/// How a command that could do its work ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Exit code 0.
    Success,
    /// Exit code 1: the answer is no (a check failed, two layers differ).
    Negative,
}

/// The layer a command works on.
#[derive(Debug, Clone, clap::Args)]
struct LayerArgs {
    /// A layer: FILE, FILE:NAME, a graph in JSON, the name of a built-in layer, or - for standard input
    #[arg(value_name = "LAYER")]
    layer: String,

    /// Override a setting of the layer; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

impl LayerArgs {
    fn load(&self) -> Result<Loaded, Failure> {
        load::load(&self.layer, &self.set)
    }
}

const EXAMPLES: &str = "\
Examples:
  normact train evonorm_s0              train a small ResNet with the layer on real images
  normact check my.nact                 everything wrong or suspicious about a formula
  normact show evonorm_b0 --as graph    its computation graph, shapes and statistics
  normact equiv bn_relu my.nact         are two layers equal? with a proof, or where they differ
  normact run bn_relu --input x.safetensors --output y.safetensors --grad

LAYER is a file, file.nact:name, a graph in JSON, the name of a built-in layer, or - for standard input.
Exit codes: 0 success, 1 a negative answer, 2 bad use.";

/// A text language and compiler for normalization-activation layers
#[derive(Debug, Parser)]
#[command(name = "normact", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Fmt(fmt::Args),
    List(list::Args),
    Show(show::Args),
    Simplify(simplify::Args),
    Equiv(equiv::Args),
    Canon(canon::Args),
    Run(run::Args),
    Gradcheck(gradcheck::Args),
    Bench(bench::Args),
    Emit(emit::Args),
    Import(import::Args),
    Probe(probe::Args),
    Train(train::Args),
    Search(search::Args),
    Explain(explain::Args),
    Completions(completions::Args),
}

/// Runs the program on the process's arguments.
pub fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Check(args) => check::run(&args),
        Command::Fmt(args) => fmt::run(&args),
        Command::List(args) => list::run(&args),
        Command::Show(args) => show::run(&args),
        Command::Simplify(args) => simplify::run(&args),
        Command::Equiv(args) => equiv::run(&args),
        Command::Canon(args) => canon::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Gradcheck(args) => gradcheck::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Emit(args) => emit::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Probe(args) => probe::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Search(args) => search::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Completions(args) => completions::run(&args),
    };
    match outcome {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::Negative) => ExitCode::from(1),
        Err(failure) => {
            report(&failure);
            ExitCode::from(2)
        }
    }
}

fn report(failure: &Failure) {
    note(&failure.to_string());
}
