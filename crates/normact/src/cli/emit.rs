//! `normact emit`: a layer as a file for Burn, PyTorch, JAX or ONNX.

use std::path::PathBuf;

use normact_emit::{EmittedFile, Options};

use super::targets::{self, Language};
use super::{LayerArgs, Outcome, color_on_stderr, note, weights};
use crate::Failure;

const EXAMPLES: &str = "\
Examples:
  normact emit evonorm_s0 --target rust --out src/layers
  normact emit my.nact --target pytorch --out layers
  normact emit evonorm_b0 --target onnx --channels 64 --out models
  normact emit bn_relu --target pytorch --weights bn.safetensors --out layers

Files of rust, pytorch and jax serve any number of channels and depend on burn, torch or jax alone. An
ONNX model holds its parameters and serves evaluation; --channels says for how many channels.

--weights takes a safetensors file with a tensor for each parameter and running average, under their
names in the formula, after --prefix and a dot if one is given. They become part of an ONNX model; for
the other targets they are written beside the file, under plain names.";

/// Write a layer as a file for Burn, PyTorch, JAX or ONNX
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    layer: LayerArgs,

    /// The language or format
    #[arg(long, value_enum)]
    target: Language,

    /// The folder to write to; it is made if there is none
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// The number of channels, for ONNX
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    channels: Option<u32>,

    /// The number of axes of the input, for ONNX
    #[arg(long, value_name = "COUNT", default_value_t = 4, value_parser = clap::value_parser!(u8).range(2..=5))]
    rank: u8,

    /// A safetensors file with values of the parameters and running averages
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,

    /// What the names in the file of weights start with
    #[arg(long, value_name = "NAME", requires = "weights")]
    prefix: Option<String>,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let loaded = args.layer.load()?;
    if let Some(text) = loaded.text.as_ref().filter(|text| !text.warnings.is_empty()) {
        note(normact_syntax::render(&text.source, &text.warnings, color_on_stderr()).trim_end());
    }
    let layer = &loaded.layer;
    let values = match &args.weights {
        Some(path) => weights::read(layer, path, args.prefix.as_deref(), |name| name)?,
        None => vec![],
    };
    let channels = args.channels.map(|channels| channels as usize).or_else(|| weights::channels(layer, &values));
    let options = Options {
        source: loaded.text.as_ref().map(|_| normact_syntax::print(layer)),
        channels,
        rank: Some(args.rank as usize),
        weights: values.clone(),
    };
    let mut beside = vec![];
    if args.target != Language::Onnx && !values.is_empty() {
        beside.push(EmittedFile { name: format!("{}.safetensors", layer.name), bytes: weights::saved(&values)? });
    }
    for path in targets::write(layer, args.target, &options, beside, &args.out)? {
        super::print(&format!("{}\n", path.display()))?;
    }
    Ok(Outcome::Success)
}
