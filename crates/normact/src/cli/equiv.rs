//! `normact equiv`: are two layers equal? With a proof, or an input on which they differ.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use normact_egraph::{
    Budget, Class, Kind, Options, Proof, Relation, Rule, Step, Unknown, Verdict, Witness, canonical, check, core, equiv,
};
use normact_ir::{Buffers, Dag, Layer, Mode};
use normact_syntax::print as print_text;
use serde::Serialize;

use super::tensors::{self, Format, NamedTensor};
use super::{Outcome, note, print, print_json, quoted, rule_counts};
use crate::{Failure, load};

const EXAMPLES: &str = "\
Examples:
  normact equiv bn_relu my.nact
  normact equiv my.nact:a my.nact:b --set groups=8 --exact
  normact equiv ln_gelu ln_gelu_tanh --witness w.safetensors
  normact run ln_gelu --input w.safetensors --output y.safetensors --device cpu

The first line of the answer is `equal`, `equal almost everywhere`, `different` or `unknown`; after it
comes the proof, step by step, or an input on which the layers differ. Without --exact and
--almost-everywhere, layers that are not equal everywhere are also compared almost everywhere: `x / x`
and `1` differ at 0 only. docs/equality.md says what counts as equal.

Exit codes: 0 equal, 1 different or unknown, 2 bad use.";

/// Prove two layers equal, or find an input on which they differ
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// A layer: FILE, FILE:NAME, a graph in JSON, the name of a built-in layer, or - for standard input
    #[arg(value_name = "A")]
    a: String,

    /// Another layer
    #[arg(value_name = "B")]
    b: String,

    /// Equal only if the same number comes out for every input for which one of them is defined
    #[arg(long, conflicts_with = "almost_everywhere")]
    exact: bool,

    /// Leave out of account what happens on inputs of measure zero
    #[arg(long)]
    almost_everywhere: bool,

    /// Leave a final scale and shift per channel, and the scales of trainable parameters, out of
    /// account
    #[arg(long)]
    modulo_affine: bool,

    /// Override a setting of the layers that have it; may be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,

    /// Write the input on which they differ to this safetensors file, for `normact run`
    #[arg(long, value_name = "FILE", conflicts_with = "modulo_affine")]
    witness: Option<PathBuf>,

    /// The seed of the search for such an input
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// How many inputs that search tries [default: 300, fewer if the layers have more than 20,000
    /// operations]
    #[arg(long, value_name = "N")]
    attempts: Option<usize>,

    /// How many rules may be applied to each layer
    #[arg(long, value_name = "N", default_value_t = Budget::default().steps)]
    steps: usize,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Print long formulas whole, the rules used with their counts, and the budget
    #[arg(long, conflicts_with = "json")]
    verbose: bool,
}

pub(crate) fn run(args: &Args) -> Result<Outcome, Failure> {
    let [a, b] = load::pair([&args.a, &args.b], &args.set)?.map(|loaded| loaded.layer);
    let answer = compare(args, &a, &b);
    if args.json {
        print_json(&answer.record(args, &a, &b))?;
    } else {
        print(&answer.report(args, &a, &b))?;
    }
    if let Some(path) = &args.witness {
        match answer.separating_input() {
            Some(witness) => {
                tensors::write(path, &witness_tensors(&a.dag, &b.dag, witness))?;
                note(&how_to_reproduce(args, path, witness, &a.dag, &b.dag));
            }
            None => note(&format!("no input on which they differ is known, so {} is not written", path.display())),
        }
    }
    Ok(match answer.verdict {
        Verdict::Equal(_) => Outcome::Success,
        Verdict::Different(_) | Verdict::Unknown(_) => Outcome::Negative,
    })
}

/// The answer to the question that was asked last.
struct Answer {
    verdict: Verdict,
    relation: Relation,
    /// Layers that are equal almost everywhere: an input on which they are not.
    exception: Option<Box<Witness>>,
}

/// What the search for an input costs by default at most: inputs times operations.
const SEARCH_WORK: usize = 6_000_000;

fn options(args: &Args, relation: Relation, a: &Layer, b: &Layer) -> Options {
    let operations = a.dag.len() + b.dag.len();
    let attempts = args.attempts.unwrap_or_else(|| Options::default().attempts.min(SEARCH_WORK / operations));
    let default = Budget::default();
    // Room for terms grows with the number of rules.
    let terms = default.terms.saturating_mul(args.steps.div_ceil(default.steps.max(1)).max(1));
    Options {
        relation,
        modulo_affine: args.modulo_affine,
        budget: Budget { steps: args.steps, terms, ..default },
        attempts,
        seed: args.seed,
    }
}

/// Asks for exact equality, and where that is not proved for equality almost everywhere.
fn compare(args: &Args, a: &Layer, b: &Layer) -> Answer {
    let ask = |relation: Relation| replayed(&a.dag, &b.dag, &options(args, relation, a, b));
    let answer = |verdict, relation| Answer { verdict, relation, exception: None };
    if args.almost_everywhere {
        return answer(ask(Relation::AlmostEverywhere), Relation::AlmostEverywhere);
    }
    let exact = ask(Relation::Exact);
    if args.exact || matches!(exact, Verdict::Equal(_)) {
        return answer(exact, Relation::Exact);
    }
    match (exact, ask(Relation::AlmostEverywhere)) {
        // They do differ, though it is not known on how many inputs.
        (exact @ Verdict::Different(_), Verdict::Unknown(_)) => answer(exact, Relation::Exact),
        (Verdict::Different(exception), almost @ Verdict::Equal(_)) => {
            Answer { verdict: almost, relation: Relation::AlmostEverywhere, exception: Some(exception) }
        }
        (_, almost) => answer(almost, Relation::AlmostEverywhere),
    }
}

/// What the library says, without a proof that the independent checker does not accept.
fn replayed(a: &Dag, b: &Dag, options: &Options) -> Verdict {
    let verdict = equiv(a, b, options);
    let Verdict::Equal(proof) = &verdict else { return verdict };
    let (a, b) = match options.modulo_affine {
        true => (&core(a, options), &core(b, options)),
        false => (a, b),
    };
    match check(proof, a, b, options.relation) {
        Ok(()) => verdict,
        Err(refuted) => {
            note(&format!("a proof was found that the checker does not accept: {refuted}"));
            let (first, second) = (canonical(a, options.budget), canonical(b, options.budget));
            Verdict::Unknown(Box::new(Unknown { first, second, attempts: 0 }))
        }
    }
}

fn relation_name(relation: Relation) -> &'static str {
    match relation {
        Relation::Exact => "exact",
        Relation::AlmostEverywhere => "almost-everywhere",
    }
}

fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Training => "training",
        Mode::Evaluation => "evaluation",
    }
}

impl Answer {
    fn separating_input(&self) -> Option<&Witness> {
        match &self.verdict {
            Verdict::Different(witness) => Some(witness),
            Verdict::Equal(_) | Verdict::Unknown(_) => self.exception.as_deref(),
        }
    }

    fn report(&self, args: &Args, a: &Layer, b: &Layer) -> String {
        let mut text = match (&self.verdict, self.relation) {
            (Verdict::Equal(_), Relation::Exact) => "equal\n",
            (Verdict::Equal(_), Relation::AlmostEverywhere) => "equal almost everywhere\n",
            (Verdict::Different(_), _) => "different\n",
            (Verdict::Unknown(_), _) => "unknown\n",
        }
        .to_owned();
        if args.modulo_affine {
            text.push_str("a final scale and shift per channel and the scales of parameters do not count\n");
        }
        match &self.verdict {
            Verdict::Equal(proof) => text.push_str(&proof_text(proof, args.verbose)),
            Verdict::Different(witness) => text.push_str(&witness_text(args, a, b, witness)),
            Verdict::Unknown(unknown) => text.push_str(&unknown_text(args, a, b, unknown)),
        }
        if let Some(exception) = &self.exception {
            text.push_str("\nthey are not equal everywhere:\n");
            text.push_str(&witness_text(args, a, b, exception));
        }
        if let (true, Verdict::Equal(proof)) = (args.verbose, &self.verdict) {
            let count = |rule: Rule| proof.steps.iter().filter(|step| step.rule == rule).count() as u64;
            text.push_str("\nrules used:\n");
            text.push_str(&rule_counts(Rule::ALL.iter().map(|&rule| (rule.name(), count(rule)))));
            text.push('\n');
        }
        if args.verbose {
            let Options { budget, attempts, seed, .. } = options(args, self.relation, a, b);
            text.push_str(&format!(
                "\nbudget: {} rules and {} terms for each layer, {attempts} inputs, seed {seed}\n",
                budget.steps, budget.terms
            ));
        }
        text
    }
}

/// Formulas longer than this are cut unless everything is asked for.
const SHOWN_LINES: usize = 12;
const SHOWN_COLUMNS: usize = 400;
/// Formulas of more nodes are not even made.
const SHOWN_NODES: usize = 2_000;

/// What formulas are indented by.
const INDENT: &str = "      ";

/// The body of a layer without its params, each line after `indent`.
fn body(dag: &Dag, indent: &str, whole: bool) -> String {
    if dag.len() > SHOWN_NODES && !whole {
        return format!("{indent}(a formula of {} operations; --verbose prints it)\n", dag.len());
    }
    let text = print_text(&Layer { name: "l".to_owned(), dag: dag.clone() });
    let lines = text.lines().filter(|line| line.starts_with("    ") && !line.starts_with("    param "));
    let lines: Vec<&str> = lines.map(str::trim_start).collect();
    let shown = if whole { lines.len() } else { SHOWN_LINES };
    let mut body = String::new();
    for line in lines.iter().take(shown) {
        match line.char_indices().nth(SHOWN_COLUMNS).filter(|_| !whole) {
            Some((end, _)) => body.push_str(&format!("{indent}{} ... (--verbose prints it whole)\n", &line[..end])),
            None => body.push_str(&format!("{indent}{line}\n")),
        }
    }
    if lines.len() > shown {
        body.push_str(&format!("{indent}... ({} more lines; --verbose prints them)\n", lines.len() - shown));
    }
    body
}

fn proof_text(proof: &Proof, whole: bool) -> String {
    let mut text = String::new();
    let mut shown = match proof.steps.first() {
        None => "both are written alike\n".to_owned(),
        Some(first) => format!("\n{}", body(&first.before, INDENT, whole)),
    };
    text.push_str(&shown);
    for (number, step) in proof.steps.iter().enumerate() {
        let Step { rule, class, reversed, after, .. } = step;
        let direction = if *reversed { ", from right to left" } else { "" };
        let number = number + 1;
        text.push_str(&format!("{number:>3}.  {} ({}{direction}): {}\n", rule.name(), class.name(), rule.statement()));
        let after = body(after, INDENT, whole);
        text.push_str(if after == shown { "      (written the same way)\n" } else { &after });
        shown = after;
    }
    let renamed: Vec<String> =
        proof.matching.iter().filter(|(a, b)| a != b).map(|(a, b)| format!("{a} is called {b}")).collect();
    let mut notes = Vec::new();
    if !renamed.is_empty() {
        notes.push(format!("in the second layer {}", renamed.join(", ")));
    }
    if proof.steps.iter().any(|step| step.changes_gradient) {
        notes.push("gradients may differ where one of them has a kink".to_owned());
    }
    if proof.state_differs {
        notes.push(
            "running statistics are kept differently, so evaluation mode may differ until they have settled".to_owned(),
        );
    }
    if !notes.is_empty() {
        text.push_str(&format!("\n{}\n", notes.join("\n")));
    }
    text
}

fn unknown_text(args: &Args, a: &Layer, b: &Layer, unknown: &Unknown) -> String {
    let mut text =
        format!("the rules do not bring them to one form, and none of {} inputs tells them apart\n", unknown.attempts);
    for (label, layer, form) in [("a", a, &unknown.first), ("b", b, &unknown.second)] {
        text.push_str(&format!("\nnormal form of {label}, {} ({}):\n", layer.name, form.status.name()));
        text.push_str(&body(&form.dag, INDENT, args.verbose));
    }
    let steps = args.steps.saturating_mul(10);
    text.push_str(&format!("\nlarger budgets: --steps {steps} --attempts {}\n", unknown.attempts.saturating_mul(10)));
    text
}

/// Numbers of a list that are shown unless everything is asked for.
const SHOWN_NUMBERS: usize = 24;

fn number(value: f64) -> String {
    if value.is_nan() { "undefined".to_owned() } else { value.to_string() }
}

fn numbers(values: &[f64], whole: bool) -> String {
    let shown = if whole { values.len() } else { SHOWN_NUMBERS };
    let mut list: Vec<String> = values.iter().take(shown).map(|value| number(*value)).collect();
    if values.len() > shown {
        list.push(format!("... ({} numbers)", values.len()));
    }
    format!("[{}]", list.join(", "))
}

/// The indices of an element of the row-major list.
fn indices(element: usize, dims: &[usize]) -> Vec<usize> {
    let mut rest = element;
    let mut indices: Vec<usize> = dims
        .iter()
        .rev()
        .map(|size| {
            let index = rest % size;
            rest /= size;
            index
        })
        .collect();
    indices.reverse();
    indices
}

fn witness_text(args: &Args, a: &Layer, b: &Layer, witness: &Witness) -> String {
    let shape = &witness.inputs_a.shape;
    let place = indices(witness.element, shape.dims());
    let mut rows: Vec<(String, String)> = vec![
        ("mode".to_owned(), mode_name(witness.mode).to_owned()),
        ("shape".to_owned(), format!("{:?}", shape.dims())),
        ("x".to_owned(), numbers(&witness.inputs_a.x, args.verbose)),
    ];
    for (label, layer, inputs) in [("a", a, &witness.inputs_a), ("b", b, &witness.inputs_b)] {
        for (param, values) in layer.dag.params().iter().zip(&inputs.params) {
            rows.push((format!("{label}: param {}", param.name), numbers(values, args.verbose)));
        }
        if witness.mode == Mode::Evaluation {
            for (buffer, values) in Buffers::of(&layer.dag).list().iter().zip(&inputs.state) {
                rows.push((format!("{label}: {}", buffer.name), numbers(values, args.verbose)));
            }
        }
    }
    rows.push((format!("x{place:?}"), number(witness.inputs_a.x[witness.element])));
    rows.push((format!("a: y{place:?}"), number(witness.y_a[witness.element])));
    rows.push((format!("b: y{place:?}"), number(witness.y_b[witness.element])));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut text = format!("a is {}, b is {}\n\n", args.a, args.b);
    for (name, value) in rows {
        text.push_str(&format!("  {name:width$}  {value}\n"));
    }
    text
}

/// The names of what a layer reads, with the values of a witness.
fn values<'a>(dag: &Dag, inputs: &'a normact_ir::Inputs) -> Vec<(String, &'a [f64])> {
    let params = dag.params().iter().map(|param| format!("param.{}", param.name)).zip(&inputs.params);
    let buffers = Buffers::of(dag);
    let state = buffers.list().iter().map(|buffer| format!("state.{}", buffer.name)).zip(&inputs.state);
    params.chain(state).map(|(name, values)| (name, values.as_slice())).collect()
}

/// The tensors of a witness file: `x`, `y_a`, `y_b`, and what the layers read under their own names.
/// Where both layers read a name and the values differ, those of the second are under `b.NAME`.
fn witness_tensors(a: &Dag, b: &Dag, witness: &Witness) -> BTreeMap<String, NamedTensor> {
    let dims = witness.inputs_a.shape.dims().to_vec();
    let like_x = |values: &[f64]| NamedTensor { dims: dims.clone(), format: Format::F64, values: values.to_vec() };
    let vector =
        |values: &[f64]| NamedTensor { dims: vec![values.len()], format: Format::F64, values: values.to_vec() };
    let mut tensors = BTreeMap::from([
        ("x".to_owned(), like_x(&witness.inputs_a.x)),
        ("y_a".to_owned(), like_x(&witness.y_a)),
        ("y_b".to_owned(), like_x(&witness.y_b)),
    ]);
    for (name, values) in values(a, &witness.inputs_a) {
        tensors.insert(name, vector(values));
    }
    for (name, values) in values(b, &witness.inputs_b) {
        match tensors.get(&name) {
            Some(same) if same.values == values => {}
            Some(_) => drop(tensors.insert(format!("b.{name}"), vector(values))),
            None => drop(tensors.insert(name, vector(values))),
        }
    }
    tensors
}

fn how_to_reproduce(args: &Args, path: &Path, witness: &Witness, a: &Dag, b: &Dag) -> String {
    let needs_side = witness_tensors(a, b, witness).keys().any(|name| name.starts_with("b."));
    let mut text = "the layers differ on this input:".to_owned();
    for (side, spec) in [("a", &args.a), ("b", &args.b)] {
        let mode = if witness.mode == Mode::Evaluation { " --eval" } else { "" };
        let side_option = if needs_side { format!(" --side {side}") } else { String::new() };
        let settings: String = args.set.iter().map(|setting| format!(" --set {}", quoted(setting))).collect();
        text.push_str(&format!(
            "\n  normact run {}{settings} --input {} --output y_{side}.safetensors --device cpu{mode}{side_option}",
            quoted(spec),
            quoted(&path.to_string_lossy())
        ));
    }
    text
}

#[derive(Serialize)]
struct AnswerRecord {
    verdict: &'static str,
    /// The relation that the verdict is about.
    mode: &'static str,
    modulo_affine: bool,
    proof: Option<Vec<StepRecord>>,
    /// For each parameter of both layers, its names.
    matching: Option<Vec<(String, String)>>,
    state_differs: Option<bool>,
    witness: Option<WitnessRecord>,
    /// For layers that are equal almost everywhere, an input on which they are not.
    exception: Option<WitnessRecord>,
    budget: BudgetRecord,
}

#[derive(Serialize)]
struct StepRecord {
    rule: &'static str,
    class: &'static str,
    reversed: bool,
    before: String,
    after: String,
}

#[derive(Serialize)]
struct WitnessRecord {
    mode: &'static str,
    kind: &'static str,
    shape: Vec<usize>,
    x: Vec<f64>,
    element: Vec<usize>,
    a: SideRecord,
    b: SideRecord,
}

#[derive(Serialize)]
struct SideRecord {
    params: BTreeMap<String, Vec<f64>>,
    state: BTreeMap<String, Vec<f64>>,
    /// Null where it is undefined.
    y: Vec<f64>,
}

#[derive(Serialize)]
struct BudgetRecord {
    steps: usize,
    terms: usize,
    attempts: usize,
    /// Whether the rules came to an end on each layer, where the verdict is unknown.
    status: Option<[&'static str; 2]>,
}

impl Answer {
    fn record(&self, args: &Args, a: &Layer, b: &Layer) -> AnswerRecord {
        let Options { budget, attempts, .. } = options(args, self.relation, a, b);
        let mut record = AnswerRecord {
            verdict: "unknown",
            mode: relation_name(self.relation),
            modulo_affine: args.modulo_affine,
            proof: None,
            matching: None,
            state_differs: None,
            witness: None,
            exception: self.exception.as_ref().map(|witness| witness_record(a, b, witness)),
            budget: BudgetRecord { steps: budget.steps, terms: budget.terms, attempts, status: None },
        };
        match &self.verdict {
            Verdict::Equal(proof) => {
                record.verdict = "equal";
                record.proof = Some(proof.steps.iter().map(|step| step_record(a, step)).collect());
                record.matching = Some(proof.matching.clone());
                record.state_differs = Some(proof.state_differs);
            }
            Verdict::Different(witness) => {
                record.verdict = "different";
                record.witness = Some(witness_record(a, b, witness));
            }
            Verdict::Unknown(unknown) => {
                record.budget.status = Some([unknown.first.status.name(), unknown.second.status.name()]);
            }
        }
        record
    }
}

fn step_record(a: &Layer, step: &Step) -> StepRecord {
    let text = |dag: &Dag| print_text(&Layer { name: a.name.clone(), dag: dag.clone() });
    StepRecord {
        rule: step.rule.name(),
        class: Class::name(step.class),
        reversed: step.reversed,
        before: text(&step.before),
        after: text(&step.after),
    }
}

fn witness_record(a: &Layer, b: &Layer, witness: &Witness) -> WitnessRecord {
    let shape = witness.inputs_a.shape.dims();
    let side = |layer: &Layer, inputs: &normact_ir::Inputs, y: &[f64]| {
        let params = layer.dag.params().iter().map(|param| param.name.clone()).zip(inputs.params.clone()).collect();
        let buffers = Buffers::of(&layer.dag);
        let state = buffers.list().iter().map(|buffer| buffer.name.clone()).zip(inputs.state.clone()).collect();
        SideRecord { params, state, y: y.to_vec() }
    };
    WitnessRecord {
        mode: mode_name(witness.mode),
        kind: match witness.kind {
            Kind::Values => "values",
            Kind::Definedness => "definedness",
        },
        shape: shape.to_vec(),
        x: witness.inputs_a.x.clone(),
        element: indices(witness.element, shape),
        a: side(a, &witness.inputs_a, &witness.y_a),
        b: side(b, &witness.inputs_b, &witness.y_b),
    }
}
