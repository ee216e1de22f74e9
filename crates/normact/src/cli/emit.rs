//! `normact emit`: a layer as a file for Burn, PyTorch, JAX or ONNX.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use normact_emit::{EmittedFile, Options, Target, emit};
use normact_ir::{Buffers, Extent, Layer};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use super::{LayerArgs, Outcome, color_on_stderr, note};
use crate::{Failure, files};

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

/// The largest file of weights that is read, in bytes.
const MAX_WEIGHTS: u64 = 1 << 30;

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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Language {
    /// A module for Burn
    Rust,
    /// A torch.nn.Module
    Pytorch,
    /// A function on JAX arrays, and a Flax module
    Jax,
    /// An ONNX model
    Onnx,
}

impl Language {
    fn target(self) -> Target {
        match self {
            Language::Rust => Target::Rust,
            Language::Pytorch => Target::Pytorch,
            Language::Jax => Target::Jax,
            Language::Onnx => Target::Onnx,
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let loaded = args.layer.load()?;
    if let Some(text) = loaded.text.as_ref().filter(|text| !text.warnings.is_empty()) {
        note(normact_syntax::render(&text.source, &text.warnings, color_on_stderr()).trim_end());
    }
    let layer = &loaded.layer;
    let weights = match &args.weights {
        Some(path) => weights(layer, path, args.prefix.as_deref())?,
        None => vec![],
    };
    let channels = match args.channels {
        Some(channels) => Some(channels as usize),
        None => {
            per_channel(layer).and_then(|name| weights.iter().find(|(found, _)| *found == name)).map(|(_, v)| v.len())
        }
    };
    let target = args.target.target();
    let options = Options {
        source: loaded.text.as_ref().map(|_| normact_syntax::print(layer)),
        channels,
        rank: Some(args.rank as usize),
        weights: weights.clone(),
    };
    let failure = |error: normact_emit::EmitError| Failure::new(error.to_string()).help(error.help());
    let mut emitted = emit(layer, target, &options).map_err(failure)?;
    if target != Target::Onnx && !weights.is_empty() {
        emitted.push(EmittedFile { name: format!("{}.safetensors", layer.name), bytes: saved(&weights)? });
    }
    std::fs::create_dir_all(&args.out)
        .map_err(|error| Failure::new(format!("cannot make the folder {}: {error}", args.out.display())))?;
    for file in &emitted {
        let path = args.out.join(&file.name);
        files::write(&path, &file.bytes)?;
        super::print(&format!("{}\n", path.display()))?;
    }
    Ok(Outcome::Success)
}

/// The names of everything that has a value for each channel or one in all.
fn names(layer: &Layer) -> Vec<(String, Extent)> {
    let params = layer.dag.params().iter().map(|param| (param.name.clone(), param.extent));
    let buffers = Buffers::of(&layer.dag);
    params.chain(buffers.list().iter().map(|buffer| (buffer.name.clone(), buffer.extent))).collect()
}

fn per_channel(layer: &Layer) -> Option<String> {
    names(layer).into_iter().find(|(_, extent)| *extent == Extent::PerChannel).map(|(name, _)| name)
}

/// Reads a value for everything that the layer has.
fn weights(layer: &Layer, path: &Path, prefix: Option<&str>) -> Result<Vec<(String, Vec<f32>)>, Failure> {
    let bytes = files::read(path, MAX_WEIGHTS)?;
    let at = path.display();
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|error| Failure::new(format!("{at} is cut short or is not a safetensors file ({error})")))?;
    let mut weights = vec![];
    let mut channels = None;
    for (name, extent) in names(layer) {
        let key = prefix.map_or_else(|| name.clone(), |prefix| format!("{prefix}.{name}"));
        let tensor = tensors.tensor(&key).map_err(|_| {
            let mut known: Vec<&str> = tensors.names().into_iter().collect();
            known.sort_unstable();
            let more = if known.len() > 12 { ", ..." } else { "" };
            known.truncate(12);
            Failure::new(format!("{at} has no tensor `{key}`"))
                .help(format!("it has {}{more}; `--prefix` names the part of a model", known.join(", ")))
        })?;
        let values = numbers(&tensor).ok_or_else(|| {
            Failure::new(format!("`{key}` in {at} is {:?}, not f32", tensor.dtype())).help("save it as f32")
        })?;
        let expected = match extent {
            Extent::Scalar => Some(1),
            Extent::PerChannel => channels,
        };
        if expected.is_some_and(|expected| expected != values.len()) || values.is_empty() {
            let expected = expected.unwrap_or(1);
            return Err(Failure::new(format!("`{key}` in {at} has {} values, not {expected}", values.len())));
        }
        if extent == Extent::PerChannel {
            channels = Some(values.len());
        }
        weights.push((name, values));
    }
    Ok(weights)
}

fn numbers(tensor: &TensorView<'_>) -> Option<Vec<f32>> {
    if tensor.dtype() != Dtype::F32 {
        return None;
    }
    Some(
        tensor
            .data()
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            .collect(),
    )
}

/// Weights as a safetensors file.
pub(super) fn saved(weights: &[(String, Vec<f32>)]) -> Result<Vec<u8>, Failure> {
    let bytes: Vec<(&String, Vec<u8>)> = weights
        .iter()
        .map(|(name, values)| (name, values.iter().flat_map(|value| value.to_le_bytes()).collect()))
        .collect();
    let views = bytes.iter().map(|(name, bytes)| {
        TensorView::new(Dtype::F32, vec![bytes.len() / 4], bytes).map(|view| (name.as_str(), view))
    });
    let cannot = |error: safetensors::SafeTensorError| Failure::new(format!("cannot save the weights: {error}"));
    let views: Vec<_> = views.collect::<Result<_, _>>().map_err(cannot)?;
    safetensors::serialize(views, None).map_err(cannot)
}
