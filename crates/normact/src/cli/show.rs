//! `normact show`: a layer as text, graph, JSON or DOT.

use clap::ValueEnum;
use normact_ir::json;
use normact_syntax::print as print_text;

use super::{LayerArgs, Outcome, color_on_stderr, note, print};
use crate::Failure;

const EXAMPLES: &str = "\
Examples:
  normact show evonorm_s0                       the formula with its functions inlined
  normact show evonorm_b0 --as graph            nodes, axes, statistics
  normact show my.nact:best --as json > best.json
  normact show best.json --as text
  normact show gn_silu --as dot | dot -Tsvg > gn_silu.svg";

/// Show a layer as text, graph, JSON or DOT
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    layer: LayerArgs,

    /// The form
    #[arg(long = "as", value_enum, value_name = "FORM", default_value_t = Form::Text)]
    form: Form,

    /// The same as --as json
    #[arg(long, conflicts_with = "form")]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// The formula in the language, functions inlined
    Text,
    /// One line per node: operation, operands, the axes it varies along
    Graph,
    /// The versioned JSON form other programs read and write
    Json,
    /// A drawing for Graphviz
    Dot,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let loaded = args.layer.load()?;
    if let Some(text) = loaded.text.as_ref().filter(|text| !text.warnings.is_empty()) {
        note(normact_syntax::render(&text.source, &text.warnings, color_on_stderr()).trim_end());
    }
    let layer = &loaded.layer;
    print(&match if args.json { Form::Json } else { args.form } {
        Form::Text => print_text(layer),
        Form::Graph => normact_emit::listing(layer),
        Form::Json => json::to_json_pretty(layer) + "\n",
        Form::Dot => normact_emit::dot(layer),
    })?;
    Ok(Outcome::Success)
}
