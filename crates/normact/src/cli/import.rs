//! `normact import`: an ONNX model, or a layer of PyTorch or timm, as a formula.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use normact_emit::import_onnx;

use super::{Outcome, note, print, weights};
use crate::{Failure, files, pytorch};

const EXAMPLES: &str = "\
Examples:
  normact import block.onnx > block.nact
  normact import block.onnx --weights block.safetensors > block.nact
  normact import block.onnx | normact equiv - evonorm_s0
  normact import --from pytorch-name 'BatchNorm2d(64) + ReLU()' > norm.nact
  normact import --from pytorch-name 'EvoNorm2dS0(64, group_size=16)' > norm.nact
  normact import --from pytorch-name 'BatchNormAct2d(64)' \\
      --state-dict resnet.safetensors --prefix layer1.0.bn1 --weights bn1.safetensors > bn1.nact

An ONNX model must be made of operations that the language has: arithmetic, activations, means and the
normalizations that they make. Everything else in it is reported at once, with the names of its nodes.

A name is that of a class of torch.nn or timm.layers, with its arguments, as one writes it in Python or as
PyTorch prints it; `nn.Sequential(norm, activation)` and `norm + activation` join two. --state-dict takes
what `safetensors.torch.save_file(module.state_dict(), FILE)` saved.";

/// The largest model that is read, in bytes.
const MAX_MODEL: u64 = 64 << 20;

/// Print an ONNX model, or a layer of PyTorch or timm, as a formula
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The model, or the name of the layer
    #[arg(value_name = "FILE|NAME")]
    source: String,

    /// What is read
    #[arg(long, value_enum, default_value_t = Format::Onnx)]
    from: Format,

    /// Save the values of parameters and running averages to this safetensors file
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,

    /// A safetensors file with the weights that the PyTorch layer saved
    #[arg(long, value_name = "FILE", requires = "weights")]
    state_dict: Option<PathBuf>,

    /// What the layer's names in the saved weights start with
    #[arg(long, value_name = "NAME", requires = "state_dict")]
    prefix: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// An ONNX model
    Onnx,
    /// The name of a layer of PyTorch or timm
    PytorchName,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    match args.from {
        Format::Onnx => from_onnx(args),
        Format::PytorchName => from_pytorch_name(args),
    }
}

fn from_onnx(args: &Args) -> Result<Outcome, Failure> {
    if args.state_dict.is_some() {
        return Err(Failure::new("an ONNX model has its weights in it").help("leave --state-dict out"));
    }
    let path = Path::new(&args.source);
    let bytes = files::read(path, MAX_MODEL)?;
    let imported =
        import_onnx(&bytes).map_err(|errors| Failure::new(format!("{} is not a layer:\n{errors}", path.display())))?;
    save(args, &imported.weights)?;
    print(&normact_syntax::print(&imported.layer))?;
    Ok(Outcome::Success)
}

fn from_pytorch_name(args: &Args) -> Result<Outcome, Failure> {
    let named = pytorch::from_name(&args.source)?;
    if let Some(path) = &args.state_dict {
        let values = weights::read(&named.layer, path, args.prefix.as_deref(), pytorch::saved_name)?;
        let found = weights::channels(&named.layer, &values);
        if let (Some(expected), Some(found)) = (named.channels, found)
            && expected != found
        {
            return Err(Failure::new(format!("{} has {found} channels, and the name {expected}", path.display())));
        }
        save(args, &values)?;
    } else if args.weights.is_some() {
        return Err(Failure::new("a name has no weights to save").help("say where they are with --state-dict"));
    }
    print(&named.text)?;
    Ok(Outcome::Success)
}

fn save(args: &Args, values: &weights::Weights) -> Result<(), Failure> {
    if let Some(path) = &args.weights {
        files::write(path, &weights::saved(values)?)?;
        note(&format!("weights  {}", path.display()));
    }
    Ok(())
}
