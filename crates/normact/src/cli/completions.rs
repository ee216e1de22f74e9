//! `normact completions`: what a shell needs to complete commands and options.

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Cli, Outcome, print};
use crate::Failure;

const EXAMPLES: &str = "\
Examples:
  normact completions bash > ~/.local/share/bash-completion/completions/normact
  normact completions zsh  > ~/.zfunc/_normact
  normact completions fish > ~/.config/fish/completions/normact.fish";

/// Print a completion script for a shell
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "normact", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(Outcome::Success)
}
