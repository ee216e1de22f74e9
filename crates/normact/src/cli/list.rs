//! `normact list`: the built-in layers, and the functions of the language.

use normact_ir::{INDEX_SETS, Moment, Prim};
use normact_syntax::{Overrides, compile, prelude_functions};

use super::{Outcome, print, print_json};
use crate::{Failure, built_in};

const EXAMPLES: &str = "\
Examples:
  normact list                  the built-in layers
  normact list --functions      primitives, moments, index sets and the prelude";

/// List the built-in layers, or the functions of the language
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// List primitives, moments, index sets and the functions of the prelude
    #[arg(long)]
    functions: bool,

    /// Print a JSON object for each
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Entry {
    kind: &'static str,
    name: String,
    doc: String,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let entries = if args.functions { functions() } else { layers() };
    if args.json {
        entries.iter().try_for_each(print_json)?;
        return Ok(Outcome::Success);
    }
    let width = entries.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut kind = "";
    for entry in &entries {
        if args.functions && entry.kind != kind {
            text.push_str(&format!("{}{}\n", if kind.is_empty() { "" } else { "\n" }, entry.kind));
            kind = entry.kind;
        }
        text.push_str(&format!("  {:width$}  {}\n", entry.name, entry.doc.replace('\n', " ")));
    }
    print(&text)?;
    Ok(Outcome::Success)
}

fn layers() -> Vec<Entry> {
    let sources = built_in::names().filter_map(|name| built_in::source(name).map(|source| (name, source)));
    sources
        .map(|(name, source)| {
            let analysis = compile(&source, &Overrides::none());
            let doc = analysis.layers.into_iter().next().map_or(String::new(), |compiled| compiled.doc);
            Entry { kind: "layer", name: name.to_owned(), doc }
        })
        .collect()
}

fn functions() -> Vec<Entry> {
    let prims = Prim::ALL.iter().map(|prim| {
        let arguments = if prim.arity().count() == 1 { "x" } else { "a, b" };
        Entry { kind: "primitive", name: format!("{}({arguments})", prim.name()), doc: prim.doc().to_owned() }
    });
    let moments = Moment::ALL.iter().map(|moment| Entry {
        kind: "moment",
        name: format!("{}[set](x)", moment.name()),
        doc: moment.doc().to_owned(),
    });
    let sets = INDEX_SETS.iter().map(|(name, reduces)| Entry {
        kind: "index set",
        name: (*name).to_owned(),
        doc: format!("averages over {reduces}"),
    });
    let prelude = prelude_functions().iter().map(|function| {
        let arguments: Vec<&str> = function.arguments.iter().map(|argument| argument.text.as_str()).collect();
        let source = normact_syntax::prelude_source();
        let definition = source.text[function.span.start..function.span.end].to_owned();
        Entry { kind: "function", name: format!("{}({})", function.name.text, arguments.join(", ")), doc: definition }
    });
    prims.chain(moments).chain(sets).chain(prelude).collect()
}
