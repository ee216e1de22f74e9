//! `normact simplify`: the cheapest equal formula that the rules reach.

use normact_egraph::{Simplified, SimplifyBudget, simplify};
use normact_ir::{Layer, json};
use normact_syntax::{print as print_text, render};
use serde::Serialize;
use serde_json::Value;

use super::{LayerArgs, Outcome, color_on_stderr, note, print, print_json, rule_counts};
use crate::Failure;

const EXAMPLES: &str = "\
Examples:
  normact simplify my.nact
  normact simplify my.nact --verbose            which rules did it, and what it saves
  normact simplify my.nact > simpler.nact && normact equiv my.nact simpler.nact --exact

The formula that is printed reads back and is equal to the layer for every input, in training and in
evaluation mode. Its cost counts shared values once.";

/// Print a cheaper formula that is equal to the layer
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    layer: LayerArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Say on standard error which rules were used how often, and the cost before and after
    #[arg(long)]
    verbose: bool,
}

#[derive(Serialize)]
struct Record<'a> {
    name: &'a str,
    text: String,
    graph: Value,
    status: &'static str,
    cost: CostRecord,
    rules: Vec<RuleRecord<'a>>,
}

/// In additions of the size of the input.
#[derive(Serialize)]
struct CostRecord {
    before: f64,
    after: f64,
}

#[derive(Serialize)]
struct RuleRecord<'a> {
    rule: &'a str,
    count: usize,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let loaded = args.layer.load()?;
    if let Some(text) = loaded.text.as_ref().filter(|text| !text.warnings.is_empty()) {
        note(render(&text.source, &text.warnings, color_on_stderr()).trim_end());
    }
    let Simplified { dag, fired, cost: (before, after), status, .. } =
        simplify(&loaded.layer.dag, &SimplifyBudget::default());
    let simplified = Layer { name: loaded.layer.name, dag };
    if args.verbose {
        note(&format!("cost {before:.2} before, {after:.2} after ({})", status.name()));
        note(&rule_counts(fired.iter().map(|(rule, count)| (rule.as_str(), *count as u64))));
    }
    if !args.json {
        print(&print_text(&simplified))?;
        return Ok(Outcome::Success);
    }
    let graph = serde_json::from_str(&json::to_json(&simplified));
    print_json(&Record {
        name: &simplified.name,
        text: print_text(&simplified),
        graph: graph.map_err(|error| Failure::new(format!("cannot write JSON: {error}")))?,
        status: status.name(),
        cost: CostRecord { before, after },
        rules: fired.iter().map(|(rule, count)| RuleRecord { rule, count: *count }).collect(),
    })?;
    Ok(Outcome::Success)
}
