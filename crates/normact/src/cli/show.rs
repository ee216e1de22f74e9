//! `normact show`: a layer as text, graph, canonical form, gradient, plan, JSON, formula or drawing.

use clap::ValueEnum;
use normact_egraph::{Budget, canonical, canonical_rules};
use normact_ir::{Dag, Layer, Mode, Shape, check, json};
use normact_plan::{Plan, Sizes, gradient_text, joint, plan_text};
use normact_syntax::{Source, format, parse, print as print_text};

use serde_json::Value;

use super::{LayerArgs, Outcome, color_on_stderr, note, print, print_json, rule_counts};
use crate::Failure;

const EXAMPLES: &str = "\
Examples:
  normact show evonorm_s0                       the formula with its functions inlined
  normact show evonorm_b0 --as graph            nodes, axes, statistics
  normact show my.nact --as canonical           what equal layers have in common, and their key
  normact show evonorm_s0 --as gradient         the layer and its gradient, as text that reads back
  normact show bn_relu --as plan --shape 32,64,32,32
                                                passes over memory, and what is kept for backward
  normact show my.nact:best --as json > best.json
  normact show best.json --as text
  normact show gn_silu --as svg > gn_silu.svg
  normact show evonorm_s0 --as latex            the formula as a paper prints it";

/// Show a layer as text, graph, canonical form, gradient, plan, JSON, formula or drawing
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    layer: LayerArgs,

    /// The form
    #[arg(long = "as", value_enum, value_name = "FORM", hide_default_value = true)]
    form: Option<Form>,

    /// With --as plan, the shape of the input
    #[arg(long, value_name = "N,C,H,W", default_value = "32,64,32,32", value_parser = super::tensors::shape)]
    shape: Shape,

    /// The same as --as json; with --as canonical, an object with the key and the form
    #[arg(long)]
    json: bool,

    /// With --as canonical, say on standard error which rules lead to the form, and how often
    #[arg(long)]
    verbose: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Form {
    /// The formula in the language, functions inlined
    Text,
    /// One line per node: operation, operands, the axes it varies along
    Graph,
    /// The normal form that all equal layers share, with its key
    Canonical,
    /// The layer and the gradients of its input and of every parameter, in the language
    Gradient,
    /// The passes over memory of a training step, and what is kept between forward and backward
    Plan,
    /// The versioned JSON form other programs read and write
    Json,
    /// The formula for a LaTeX document with amsmath
    Latex,
    /// A picture
    Svg,
    /// A drawing for Mermaid, as Markdown on GitHub
    Mermaid,
    /// A drawing for Graphviz
    Dot,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let loaded = args.layer.load()?;
    if let Some(text) = loaded.text.as_ref().filter(|text| !text.warnings.is_empty()) {
        note(normact_syntax::render(&text.source, &text.warnings, color_on_stderr()).trim_end());
    }
    let layer = &loaded.layer;
    if args.verbose {
        if args.form != Some(Form::Canonical) {
            return Err(Failure::new("`--verbose` goes with `--as canonical` only").help("leave it out"));
        }
        let rules = canonical_rules(&layer.dag, Budget::default());
        note(&rule_counts(rules.into_iter().map(|(rule, count)| (rule.name(), count as u64))));
    }
    let form = match (args.form, args.json) {
        (Some(Form::Canonical), true) => return canonical_json(layer),
        (None | Some(Form::Json), true) => Form::Json,
        (
            Some(
                Form::Text
                | Form::Graph
                | Form::Gradient
                | Form::Plan
                | Form::Latex
                | Form::Svg
                | Form::Mermaid
                | Form::Dot,
            ),
            true,
        ) => {
            return Err(Failure::new("`--json` goes with `--as json` and `--as canonical` only")
                .help("leave one of the two out"));
        }
        (form, false) => form.unwrap_or(Form::Text),
    };
    print(&match form {
        Form::Text => print_text(layer),
        Form::Graph => normact_emit::listing(layer),
        Form::Canonical => canonical_text(layer),
        Form::Gradient => gradient(layer),
        Form::Plan => plan(layer, &args.shape)?,
        Form::Json => json::to_json_pretty(layer) + "\n",
        Form::Latex => normact_emit::latex(layer),
        Form::Svg => normact_emit::svg(layer),
        Form::Mermaid => normact_emit::mermaid(layer),
        Form::Dot => normact_emit::dot(layer),
    })?;
    Ok(Outcome::Success)
}

/// The layer and its gradient, as a file in standard layout.
fn gradient(layer: &Layer) -> String {
    let gradient = gradient_text(&joint(&layer.dag, Mode::Training, None), &layer.name, &layer.dag);
    let source = Source::new(layer.name.clone(), format!("{}\n{gradient}", print_text(layer)));
    let (parsed, diagnostics) = parse(&source);
    // A text that is longer than what is read back stays as it is.
    if diagnostics.is_empty() { format(&source, &parsed.file) } else { source.text }
}

fn plan(layer: &Layer, shape: &Shape) -> Result<String, Failure> {
    let (errors, _) = check(&layer.dag, shape);
    if let Some(error) = errors.into_iter().next() {
        return Err(Failure::new(error.to_string()));
    }
    let sizes = Sizes { samples: shape.samples(), channels: shape.channels(), positions: shape.positions() };
    Ok(plan_text(&Plan::new(&layer.dag, Mode::Training, sizes), &layer.name, &layer.dag, sizes))
}

/// The canonical form, which reads back: what is said about it is a comment.
fn canonical_text(layer: &Layer) -> String {
    let form = canonical(&layer.dag, Budget::default());
    let mut text = format!("// key {}, {}\n", form.key, form.status.name());
    if let Some(at_start) = form.at_start {
        text.push_str("// At the initial values of the parameters it is:\n");
        let at_start = print_text(&named(layer, at_start));
        at_start.lines().for_each(|line| text.push_str(&format!("// {line}\n")));
    }
    text + &print_text(&named(layer, form.dag))
}

#[derive(serde::Serialize)]
struct CanonicalRecord<'a> {
    name: &'a str,
    key: String,
    status: &'static str,
    text: String,
    graph: Value,
    /// What the layer is at the initial values of its parameters, where the form does not say so.
    at_start: Option<String>,
}

fn canonical_json(layer: &Layer) -> Result<Outcome, Failure> {
    let form = canonical(&layer.dag, Budget::default());
    let canonical = named(layer, form.dag);
    let graph = serde_json::from_str(&json::to_json(&canonical));
    print_json(&CanonicalRecord {
        name: &layer.name,
        key: form.key.to_string(),
        status: form.status.name(),
        text: print_text(&canonical),
        graph: graph.map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?,
        at_start: form.at_start.map(|at_start| print_text(&named(layer, at_start))),
    })?;
    Ok(Outcome::Success)
}

fn named(layer: &Layer, dag: Dag) -> Layer {
    Layer { name: layer.name.clone(), dag }
}
