//! `normact bench`: how fast a layer is, and what it keeps.

use normact_ir::Shape;

use super::{Outcome, note, print, print_json};
use crate::bench::{Config, bars, bench, table};
use crate::device::{self, DeviceChoice};
use crate::{Failure, load};

const EXAMPLES: &str = "\
Examples:
  normact bench evonorm_s0 --shape 32,128,56,56
  normact bench evonorm_s0 evonorm_b0 bn_relu gn_silu --device cpu
  normact bench my.nact --shape 8,16,8,8 --json

A step is forward and backward of the layer alone, in training mode, to the gradients of the input
and of every parameter. The fused path, the layer operation by operation and Burn's own module (of
bn_relu and gn_silu) take turns; times are medians. `kept` is what the step holds between forward
and backward, the input included, and `peak` the most it allocates, both as multiples of the input.
`of ideal` compares with the full-size reads and writes of a hand-fused layer (5, or 8 with batch
statistics), each at the speed of a copy on the same device.";

/// Time a layer, fused and operation by operation, against a copy
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Layers: FILE, FILE:NAME, graphs in JSON, or names of built-in layers
    #[arg(value_name = "LAYER", required = true)]
    layers: Vec<String>,

    /// Override a setting of the layers; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,

    /// The shape of the input; may be repeated
    #[arg(long, value_name = "N,C,H,W", default_values = ["32,64,32,32"], value_parser = super::tensors::shape)]
    shape: Vec<Shape>,

    /// Where to run
    #[arg(long, value_enum, default_value_t)]
    device: DeviceChoice,

    /// How many steps are timed
    #[arg(long, value_name = "COUNT", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,

    /// One JSON object per shape instead of a table
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let layers = args.layers.iter().map(|spec| load::layer(spec, &args.set)).collect::<Result<Vec<_>, _>>()?;
    let device = device::open(args.device)?;
    for (number, shape) in args.shape.iter().enumerate() {
        let report = bench(&layers, &Config { shape: shape.clone(), runs: args.runs as usize }, &device)?;
        if args.json {
            print_json(&report)?;
            continue;
        }
        let gap = if number == 0 { "" } else { "\n" };
        print(&format!("{gap}{}\n{}", table(&report), bars(&report, 60)))?;
        for figures in report.layers.iter().filter(|figures| figures.fused.path != "fused") {
            note(&format!("{}: {}", figures.layer, figures.fused.path));
        }
    }
    Ok(Outcome::Success)
}
