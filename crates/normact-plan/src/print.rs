//! Joint graphs and plans as text.

use std::collections::HashMap;
use std::fmt::Write as _;

use normact_ir::{Axes, Channels, Dag, Law, Prim};

use crate::adjoint::Joint;
use crate::graph::{Expr, Graph, Operands, Statistic, ValueId};
use crate::schedule::{Plan, Schedule, Sizes};

/// Writes values as expressions of the language: values that are used more than once get a name.
pub(crate) struct Writer<'a> {
    graph: &'a Graph,
    dag: &'a Dag,
    buffers: Vec<String>,
    names: HashMap<ValueId, String>,
    /// The `let` lines so far, and whether each names a reduction.
    pub(crate) lines: Vec<(String, bool)>,
}

/// How tightly an operator binds.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Binding {
    Sum,
    Product,
    Tight,
}

impl<'a> Writer<'a> {
    /// A writer that names every value which `roots` use more than once.
    pub(crate) fn new(graph: &'a Graph, dag: &'a Dag, roots: &[ValueId]) -> Self {
        let buffers = normact_ir::Buffers::of(dag).list().iter().map(|buffer| buffer.name.clone()).collect();
        let mut writer = Self { graph, dag, buffers, names: HashMap::new(), lines: vec![] };
        let cone = graph.cone(roots, |_| false);
        let mut uses = vec![0; graph.len()];
        for id in graph.ids().filter(|id| cone[id.index()]) {
            graph.expr(id).operands().for_each(|operand| uses[operand.index()] += 1);
        }
        roots.iter().for_each(|root| uses[root.index()] += 1);
        let taken: Vec<&str> = dag.params().iter().map(|param| param.name.as_str()).collect();
        for id in graph.ids().filter(|id| cone[id.index()]) {
            let is_leaf = graph.expr(id).operands().next().is_none();
            let is_small_sign = matches!(graph.expr(id), Expr::Prim(Prim::Neg, _));
            let is_named = matches!(graph.expr(id), Expr::Reduce { .. }) || uses[id.index()] > 1;
            if is_leaf || is_small_sign || !is_named {
                continue;
            }
            let stem = match graph.expr(id) {
                Expr::Reduce { statistic, .. } => statistic_name(statistic),
                _ => "t",
            };
            let name = (1..)
                .map(|number| format!("{stem}{number}"))
                .find(|name| !taken.contains(&name.as_str()) && !writer.names.values().any(|known| known == name))
                .expect("there are names enough");
            let text = writer.expression(id, Binding::Sum);
            let is_reduction = matches!(graph.expr(id), Expr::Reduce { .. });
            writer.lines.push((format!("let {name} = {text}"), is_reduction));
            writer.names.insert(id, name);
        }
        writer
    }

    /// The lines of shared values that are not reductions.
    fn shared(&self) -> impl Iterator<Item = &String> {
        self.lines.iter().filter(|(_, is_reduction)| !is_reduction).map(|(line, _)| line)
    }

    /// A value as text.
    pub(crate) fn value(&self, id: ValueId) -> String {
        self.write(id, Binding::Sum)
    }

    fn write(&self, id: ValueId, within: Binding) -> String {
        match self.names.get(&id) {
            Some(name) => name.clone(),
            None => self.expression(id, within),
        }
    }

    fn expression(&self, id: ValueId, within: Binding) -> String {
        let (text, binding) = match self.graph.expr(id) {
            Expr::Input => ("x".to_owned(), Binding::Tight),
            Expr::Upstream => ("dy".to_owned(), Binding::Tight),
            Expr::Constant(value) => {
                let binding = if value.get() < 0.0 { Binding::Sum } else { Binding::Tight };
                (value.to_string(), binding)
            }
            Expr::Count { of, per } => match (sizes_of(of), sizes_of(per)) {
                (of, per) if per.is_empty() => (of.join(" * "), Binding::Product),
                (of, per) => {
                    let of = if of.is_empty() { "1".to_owned() } else { of.join(" * ") };
                    let per = if per.len() == 1 { per.concat() } else { format!("({})", per.join(" * ")) };
                    (format!("{of} / {per}"), Binding::Product)
                }
            },
            Expr::Param(param) => (self.dag.param(param).name.clone(), Binding::Tight),
            Expr::Running(buffer) => (self.buffers[buffer].clone(), Binding::Tight),
            Expr::Prim(Prim::Neg, Operands::One(a)) => {
                (format!("-{}", self.write(a, Binding::Tight)), Binding::Product)
            }
            Expr::Prim(Prim::Add, Operands::Two(a, b)) => {
                // What is subtracted comes last, whichever was made first.
                let is_negated = |id: ValueId| match self.graph.expr(id) {
                    Expr::Prim(Prim::Neg, Operands::One(inner)) if !self.names.contains_key(&id) => Some(inner),
                    _ => None,
                };
                let text = match (is_negated(a), is_negated(b)) {
                    (_, Some(b)) => format!("{} - {}", self.write(a, Binding::Sum), self.write(b, Binding::Product)),
                    (Some(a), None) => format!("{} - {}", self.write(b, Binding::Sum), self.write(a, Binding::Product)),
                    (None, None) => format!("{} + {}", self.write(a, Binding::Sum), self.write(b, Binding::Product)),
                };
                (text, Binding::Sum)
            }
            Expr::Prim(prim @ (Prim::Mul | Prim::Div), Operands::Two(a, b)) => {
                let sign = if prim.obeys(Law::Commutative) { "*" } else { "/" };
                let text = format!("{} {sign} {}", self.write(a, Binding::Product), self.write(b, Binding::Tight));
                (text, Binding::Product)
            }
            Expr::Prim(prim, operands) => {
                let operands: Vec<String> = operands.iter().map(|id| self.write(id, Binding::Sum)).collect();
                (format!("{}({})", prim.name(), operands.join(", ")), Binding::Tight)
            }
            Expr::Reduce { statistic, operand, to } => {
                let axes = letters(to);
                let text = format!("{}{axes}({})", statistic_name(statistic), self.write(operand, Binding::Sum));
                (text, Binding::Tight)
            }
        };
        if binding < within { format!("({text})") } else { text }
    }
}

fn statistic_name(statistic: Statistic) -> &'static str {
    match statistic {
        Statistic::Sum => "sum",
        Statistic::Mean => "mean",
        Statistic::MeanSquare => "mean_square",
        Statistic::Variance => "var",
    }
}

/// The axes a reduction leaves: `[n, group]`, `[c]`, `[]`.
fn letters(axes: Axes) -> String {
    format!("[{}]", sizes_of(axes).join(", "))
}

/// The names of the sizes of a value.
fn sizes_of(axes: Axes) -> Vec<&'static str> {
    let channels = match axes.channels {
        Channels::One => None,
        Channels::Groups(_) => Some("group"),
        Channels::All => Some("c"),
    };
    let letters = [axes.samples.then_some("n"), channels, axes.positions.then_some("s")];
    letters.into_iter().flatten().collect()
}

/// A layer and its gradients in the notation of the language: one line for each shared value, then
/// the results.
pub fn gradient_text(joint: &Joint, name: &str, dag: &Dag) -> String {
    let params = dag.params().iter().zip(&joint.param_gradients);
    let of_params = params.map(|(param, id)| (format!("d{}", param.name), *id));
    let results = [("y".to_owned(), Some(joint.output)), ("dx".to_owned(), joint.input_gradient)];
    let results: Vec<(String, Option<ValueId>)> = results.into_iter().chain(of_params).collect();
    let roots: Vec<ValueId> = results.iter().filter_map(|(_, id)| *id).collect();
    let writer = Writer::new(&joint.graph, dag, &roots);
    let mut text = String::new();
    let _ = writeln!(text, "// {name}(x) with its gradients, given the upstream gradient dy of x's shape.");
    let _ =
        writeln!(text, "// sum[c](v) sums what each channel has, mean[n, group](v) averages what each group of each");
    let _ =
        writeln!(text, "// sample has; n, c, s and group are the numbers of samples, channels, positions and groups.");
    for (line, _) in &writer.lines {
        let _ = writeln!(text, "{line}");
    }
    let width = results.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, id) in &results {
        let value = id.map_or_else(|| "0".to_owned(), |id| writer.value(id));
        let _ = writeln!(text, "{name:width$} = {value}");
    }
    text
}

/// The passes of a plan, forward and backward, with what each reads, computes and writes.
pub fn plan_text(plan: &Plan, name: &str, dag: &Dag, sizes: Sizes) -> String {
    let joint = &plan.joint;
    let shape = [sizes.samples, sizes.channels, sizes.positions];
    let mut text = String::new();
    let _ = writeln!(text, "{name} on {shape:?} (samples, channels, positions)");
    for (title, schedule, results) in [
        ("forward", &plan.forward, joint.updates.iter().flatten().copied().collect::<Vec<_>>()),
        ("backward", &plan.backward, joint.param_gradients.iter().flatten().copied().collect()),
    ] {
        let in_passes = schedule.passes.iter().flat_map(|pass| pass.roots()).chain(results);
        let writer = Writer::new(&joint.graph, dag, &in_passes.collect::<Vec<_>>());
        let _ = writeln!(text);
        let traffic = [false, true].map(|cached| schedule.traffic(joint, cached));
        let _ = writeln!(
            text,
            "{title}: {} {}, {} full-size reads and writes ({} if blocks stay in cache)",
            schedule.passes.len(),
            if schedule.passes.len() == 1 { "pass" } else { "passes" },
            traffic[0],
            traffic[1]
        );
        for line in writer.shared() {
            let _ = writeln!(text, "  {line}");
        }
        let blocks = schedule.blocks(sizes);
        let _ = writeln!(
            text,
            "  {blocks} {}, each {}",
            if blocks == 1 { "block" } else { "blocks" },
            block_text(schedule, sizes)
        );
        for (number, pass) in schedule.passes.iter().enumerate() {
            let _ = writeln!(text, "  pass {}", number + 1);
            for id in pass.reductions.iter().flat_map(|reduction| reduction.kind.results()) {
                let place = if schedule.across.contains(&id) { ", across blocks" } else { "" };
                let _ = writeln!(text, "    {}{place}", writer.named(id));
            }
            for &id in &pass.held {
                let _ = writeln!(text, "    hold {} in cache for the next pass", writer.value(id));
            }
            if let Some(id) = pass.write {
                let result = if title == "forward" { "y" } else { "dx" };
                let _ = writeln!(text, "    write {result} = {}", writer.value(id));
            }
            for &id in &pass.small {
                let _ = writeln!(text, "    {}", writer.named(id));
            }
        }
        for &id in &schedule.after {
            let _ = writeln!(text, "  then {}", writer.named(id));
        }
    }
    let kept = plan.kept_slots(sizes);
    let share = kept as f64 / sizes.elements() as f64;
    let _ = writeln!(text);
    let _ = writeln!(
        text,
        "kept for the backward pass: x and {kept} statistics ({:.2} % as many as x has elements)",
        100.0 * share
    );
    text
}

impl Writer<'_> {
    /// A reduction with its name: `var1 = var[n, group](x)`.
    fn named(&self, id: ValueId) -> String {
        let text = self.expression(id, Binding::Sum);
        match self.names.get(&id) {
            Some(name) => format!("{name} = {text}"),
            None => text,
        }
    }
}

fn block_text(schedule: &Schedule, sizes: Sizes) -> String {
    let cut = schedule.cut;
    let channels = match cut.channels {
        Channels::One => "all channels".to_owned(),
        Channels::Groups(_) => format!("{} channels", sizes.channels / sizes.slots(cut)[1]),
        Channels::All => "one channel".to_owned(),
    };
    let samples = if cut.samples { "one sample" } else { "all samples" };
    let positions = if cut.positions { "any positions" } else { "all positions" };
    format!("{channels} of {samples}, {positions}")
}
