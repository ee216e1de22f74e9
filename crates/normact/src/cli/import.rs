//! `normact import`: an ONNX model as a formula.

use std::path::PathBuf;

use clap::ValueEnum;
use normact_emit::import_onnx;

use super::{Outcome, emit, note, print};
use crate::{Failure, files};

const EXAMPLES: &str = "\
Examples:
  normact import block.onnx > block.nact
  normact import block.onnx --weights block.safetensors > block.nact
  normact import block.onnx | normact equiv - evonorm_s0

The model must be made of operations that the language has: arithmetic, activations, means and the
normalizations that they make. Everything else in it is reported at once, with the names of its nodes.";

/// The largest model that is read, in bytes.
const MAX_MODEL: u64 = 64 << 20;

/// Print an ONNX model as a formula
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The model
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// The format of the file
    #[arg(long, value_enum, default_value_t = Format::Onnx)]
    from: Format,

    /// Save the values of parameters and running averages to this safetensors file
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// An ONNX model
    Onnx,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let Format::Onnx = args.from;
    let bytes = files::read(&args.file, MAX_MODEL)?;
    let imported = import_onnx(&bytes)
        .map_err(|errors| Failure::new(format!("{} is not a layer:\n{errors}", args.file.display())))?;
    if let Some(path) = &args.weights {
        files::write(path, &emit::saved(&imported.weights)?)?;
        note(&format!("weights  {}", path.display()));
    }
    print(&normact_syntax::print(&imported.layer))?;
    Ok(Outcome::Success)
}
