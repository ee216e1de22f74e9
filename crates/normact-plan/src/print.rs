//! Joint graphs and plans as text of the language.
//!
//! A joint graph reduces values to the axes that are left; the language names what a statistic is over.
//! [`over`] finds the index sets, two of them where no single one leaves these axes. Sizes are written as
//! counts of the input's elements: the number of samples is `count[batch](x) / count[instance](x)`.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use normact_ir::json::{self, defaults};
use normact_ir::{Axes, Channels, Dag, Groups, IndexSet, Op, Prim};

use crate::adjoint::Joint;
use crate::graph::{Expr, Graph, Operands, Statistic, ValueId};
use crate::schedule::{Plan, Schedule, Sizes};

/// The gradient of a layer in training as a definition of the language, one statement to a line: a `let` for
/// each value that is used more than once, then the results. It belongs below the layer's own text, whose
/// `groups` setting it reads, and may need the layout of `normact fmt`.
pub fn gradient_text(joint: &Joint, name: &str, dag: &Dag) -> String {
    let mut names = Names::new(dag);
    let params = dag.params().iter().zip(&joint.param_gradients).map(|(param, id)| (param.name.as_str(), *id));
    let results: Vec<(String, Option<ValueId>)> = std::iter::once((names.input.as_str(), joint.input_gradient))
        .chain(params)
        .map(|(name, id)| (format!("d{name}"), id))
        .collect();
    results.iter().for_each(|(result, _)| names.take(result));
    // No line should have the name of a value that goes on meaning something else.
    names.upstream = names.fresh("dy", true);
    let roots: Vec<ValueId> = results.iter().filter_map(|(_, id)| *id).collect();
    let header = format!("gradient {name}({}, {}) {{", names.input, names.upstream);
    let about = format!("// What a backward pass computes for the upstream gradient {}.", names.upstream);
    let writer = Writer::new(&joint.graph, dag, names, &roots, true);
    let mut text = format!("{about}\n{header}\n");
    for (line, _) in &writer.lines {
        let _ = writeln!(text, "    {line}");
    }
    if !writer.lines.is_empty() {
        text.push('\n');
    }
    let width = results.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, id) in &results {
        let value = id.map_or_else(|| "0".to_owned(), |id| writer.value(id));
        let _ = writeln!(text, "    {name:width$} = {value}");
    }
    text + "}\n"
}

/// Expressions higher than this get a name, so that brackets do not nest too deeply.
const MAX_HEIGHT: usize = 24;

/// Writes values as expressions of the language: reductions, values that are used more than once and those that
/// would nest too deeply get a name.
pub(crate) struct Writer<'a> {
    graph: &'a Graph,
    dag: &'a Dag,
    buffers: Vec<String>,
    leaves: Names,
    names: HashMap<ValueId, String>,
    /// The number of groups of `group` where nothing else is said.
    groups: u32,
    /// The `let` lines so far, and whether each names a reduction.
    pub(crate) lines: Vec<(String, bool)>,
}

/// How tightly the outermost operator of a text binds.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Level {
    Sum,
    Product,
    Prefix,
    Primary,
}

impl<'a> Writer<'a> {
    /// A writer that names values for the sake of `roots`. Where they are results with names of their own,
    /// a reduction that is nothing but a result gets no other.
    pub(crate) fn new(graph: &'a Graph, dag: &'a Dag, leaves: Names, roots: &[ValueId], are_results: bool) -> Self {
        let buffers = normact_ir::Buffers::of(dag).list().iter().map(|buffer| buffer.name.clone()).collect();
        let groups = groups_of(dag);
        let mut writer = Self { graph, dag, buffers, leaves, names: HashMap::new(), groups, lines: vec![] };
        let cone = graph.cone(roots, |_| false);
        let mut uses = vec![0; graph.len()];
        let mut heights = vec![0; graph.len()];
        for id in graph.ids().filter(|id| cone[id.index()]) {
            graph.expr(id).operands().for_each(|operand| uses[operand.index()] += 1);
        }
        let mut is_result = vec![false; graph.len()];
        for root in roots {
            uses[root.index()] += 1;
            is_result[root.index()] = are_results && uses[root.index()] == 1;
        }
        for id in graph.ids().filter(|id| cone[id.index()]) {
            let is_reduction = matches!(graph.expr(id), Expr::Reduce { .. });
            let height = graph.expr(id).operands().map(|operand| heights[operand.index()] + 1).max().unwrap_or(0);
            let is_small_sign = matches!(graph.expr(id), Expr::Prim(Prim::Neg, _)) && height <= 1;
            let is_named = (is_reduction && !is_result[id.index()]) || uses[id.index()] > 1 || height > MAX_HEIGHT;
            if height == 0 || is_small_sign || !is_named {
                heights[id.index()] = height;
                continue;
            }
            let stem = match graph.expr(id) {
                Expr::Reduce { statistic, .. } => stem(statistic),
                _ => "t",
            };
            let name = writer.leaves.fresh(stem, false);
            let text = if is_reduction { writer.expression(id, Level::Sum) } else { writer.value(id) };
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
        self.write(id, Level::Sum)
    }

    fn write(&self, id: ValueId, within: Level) -> String {
        let (base, ratio) = self.scaled(id);
        if let (Some(base), true) = (base, ratio.is_one()) {
            return self.unscaled(base, within);
        }
        let call = |set: &IndexSet| self.call("count", *set, &self.leaves.input);
        let base = base.map(|base| self.unscaled(base, Level::Product));
        let above: Vec<String> = base.into_iter().chain(ratio.above.iter().map(call)).collect();
        let above = if above.is_empty() { "1".to_owned() } else { above.join(" * ") };
        let below: String = ratio.below.iter().map(|set| format!(" / {}", call(set))).collect();
        bracketed(format!("{above}{below}"), Level::Product, within)
    }

    fn unscaled(&self, id: ValueId, within: Level) -> String {
        match self.names.get(&id) {
            Some(name) => name.clone(),
            None => self.expression(id, within),
        }
    }

    /// A value as another one times numbers of elements.
    fn scaled(&self, id: ValueId) -> (Option<ValueId>, Ratio) {
        let mut factors: Vec<(Axes, Axes)> = vec![];
        let mut base = Some(id);
        while let Some(id) = base.filter(|id| !self.names.contains_key(id)) {
            let count = |id: ValueId| match self.graph.expr(id) {
                Expr::Count { of, per } => Some((of, per)),
                _ => None,
            };
            let (factor, rest) = match self.graph.expr(id) {
                Expr::Count { of, per } => ((of, per), None),
                Expr::Prim(Prim::Mul, Operands::Two(a, b)) => match (count(a), count(b)) {
                    (_, Some(factor)) => (factor, Some(a)),
                    (Some(factor), None) => (factor, Some(b)),
                    (None, None) => break,
                },
                _ => break,
            };
            factors.push(factor);
            base = rest;
        }
        // Where a sum keeps groups, the joint graph counts each of a group's channels and the language does not.
        if let Some(Expr::Reduce { statistic: Statistic::Sum, operand, to }) = base.map(|id| self.graph.expr(id))
            && matches!(to.channels, Channels::Groups(_))
            && self.graph.axes(operand).channels == to.channels
        {
            factors.push((Axes::CHANNEL, Axes { channels: to.channels, ..Axes::NONE }));
        }
        (base, Ratio::of(&factors))
    }

    fn expression(&self, id: ValueId, within: Level) -> String {
        let (text, level) = match self.graph.expr(id) {
            Expr::Input => (self.leaves.input.clone(), Level::Primary),
            Expr::Upstream => (self.leaves.upstream.clone(), Level::Primary),
            Expr::Constant(value) => {
                (value.to_string(), if value.get() < 0.0 { Level::Prefix } else { Level::Primary })
            }
            Expr::Count { .. } => return self.write(id, within),
            Expr::Param(param) => (self.dag.param(param).name.clone(), Level::Primary),
            Expr::Running(buffer) => (self.buffers[buffer].clone(), Level::Primary),
            Expr::Prim(Prim::Neg, Operands::One(a)) => (format!("-{}", self.write(a, Level::Primary)), Level::Prefix),
            Expr::Prim(Prim::Add, Operands::Two(a, b)) => (self.sum(a, b), Level::Sum),
            Expr::Prim(Prim::Mul, Operands::Two(a, b)) => (self.infix(a, "*", b), Level::Product),
            Expr::Prim(Prim::Div, Operands::Two(a, b)) => (self.infix(a, "/", b), Level::Product),
            Expr::Prim(prim, operands) => {
                let operands: Vec<String> = operands.iter().map(|id| self.write(id, Level::Sum)).collect();
                (format!("{}({})", prim.name(), operands.join(", ")), Level::Primary)
            }
            Expr::Reduce { statistic, operand, to } => (self.reduction(statistic, operand, to), Level::Primary),
        };
        bracketed(text, level, within)
    }

    fn infix(&self, a: ValueId, operator: &str, b: ValueId) -> String {
        format!("{} {operator} {}", self.write(a, Level::Product), self.write(b, Level::Prefix))
    }

    /// A sum of two. What is subtracted comes last, whichever was made first.
    fn sum(&self, a: ValueId, b: ValueId) -> String {
        match (self.subtracted(a), self.subtracted(b)) {
            (_, Some(b)) => format!("{} - {b}", self.write(a, Level::Sum)),
            (Some(a), None) => format!("{} - {a}", self.write(b, Level::Sum)),
            (None, None) => format!("{} + {}", self.write(a, Level::Sum), self.write(b, Level::Product)),
        }
    }

    /// What is subtracted where a value is added: of `-v`, the `v`.
    fn subtracted(&self, id: ValueId) -> Option<String> {
        match self.graph.expr(id) {
            Expr::Prim(Prim::Neg, Operands::One(inner)) if !self.names.contains_key(&id) => {
                Some(self.write(inner, Level::Product))
            }
            Expr::Constant(value) if value.get() < 0.0 => Some(value.to_string().trim_start_matches('-').to_owned()),
            _ => None,
        }
    }

    fn reduction(&self, statistic: Statistic, operand: ValueId, to: Axes) -> String {
        let value = self.write(operand, Level::Sum);
        let sets = over(self.graph.axes(operand), to);
        let nested = |name: &str, value: String| sets.iter().fold(value, |value, set| self.call(name, *set, &value));
        match (statistic, sets.as_slice()) {
            (Statistic::Sum, _) => nested("sum", value),
            (Statistic::Mean, _) => nested("mean", value),
            (Statistic::MeanSquare, _) => nested("mean", format!("square({value})")),
            (Statistic::Variance, [one]) => self.call("var", *one, &value),
            (Statistic::Variance, _) => {
                let mean = nested("mean", value);
                let deviation = format!("{} - {mean}", self.write(operand, Level::Sum));
                nested("mean", format!("square({deviation})"))
            }
        }
    }

    /// A statistic; `group` says its number of groups where it is not the layer's.
    fn call(&self, name: &str, set: IndexSet, value: &str) -> String {
        match set {
            IndexSet::Group(Groups::AtMost(groups)) if groups.get() != self.groups => {
                format!("{name}[{set}]({value}, groups = {groups})")
            }
            _ => format!("{name}[{set}]({value})"),
        }
    }

    /// A reduction with its name: `var1 = var[group](x)`.
    fn named(&self, id: ValueId) -> String {
        let text = self.expression(id, Level::Sum);
        match self.names.get(&id) {
            Some(name) => format!("{name} = {text}"),
            None => text,
        }
    }
}

fn bracketed(text: String, level: Level, within: Level) -> String {
    if level < within { format!("({text})") } else { text }
}

fn stem(statistic: Statistic) -> &'static str {
    match statistic {
        Statistic::Sum => "sum",
        Statistic::Mean => "mean",
        Statistic::MeanSquare => "mean_square",
        Statistic::Variance => "var",
    }
}

/// Names in use, and for each stem the number to try next.
pub(crate) struct Names {
    input: String,
    upstream: String,
    taken: HashSet<String>,
    next: HashMap<&'static str, usize>,
}

impl Names {
    /// The names of a layer's text: its params, the settings that moments read, and the input, which has
    /// another name where a param is called `x`.
    pub(crate) fn new(dag: &Dag) -> Self {
        let params = dag.params().iter().map(|param| param.name.clone());
        let mut names =
            Self { input: String::new(), upstream: "dy".to_owned(), taken: params.collect(), next: HashMap::new() };
        names.input = names.fresh("x", true);
        ["groups", "eps", "momentum", "running"].iter().for_each(|setting| names.take(setting));
        names
    }

    fn take(&mut self, name: &str) {
        self.taken.insert(name.to_owned());
    }

    /// A free name: the stem itself where that is allowed and free, or with the next number.
    fn fresh(&mut self, stem: &'static str, bare: bool) -> String {
        if bare && self.taken.insert(stem.to_owned()) {
            return stem.to_owned();
        }
        loop {
            let number = self.next.entry(stem).or_insert(0);
            *number += 1;
            let name = format!("{stem}{number}");
            if json::is_identifier(&name) && self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

/// The layer's `groups` setting, as its text has it: the value of the first moment that reads it.
fn groups_of(dag: &Dag) -> u32 {
    let is_taken = dag.params().iter().any(|param| param.name == "groups");
    let live = dag.live();
    let mut read = dag.ids().filter(|id| live[id.index()] && !is_taken).filter_map(|id| match dag.op(id) {
        Op::Moment(op) => match op.over() {
            IndexSet::Group(Groups::AtMost(groups)) => Some(groups.get()),
            _ => None,
        },
        Op::Input | Op::Constant(_) | Op::Param(_) | Op::Prim(_) => None,
    });
    read.next().unwrap_or(defaults::GROUPS)
}

/// The index sets of the language, with the groups that `axes` have.
fn index_sets(axes: &[Axes]) -> Vec<IndexSet> {
    let mut sets = vec![IndexSet::Batch, IndexSet::Instance, IndexSet::Layer, IndexSet::Channel, IndexSet::All];
    for axes in axes {
        if let Channels::Groups(groups) = axes.channels
            && !sets.contains(&IndexSet::Group(groups))
        {
            sets.push(IndexSet::Group(groups));
        }
    }
    sets
}

/// The index sets, one after the other, that reduce a value with the axes `from` to the axes `to`.
fn over(from: Axes, to: Axes) -> Vec<IndexSet> {
    let sets = index_sets(&[from, to]);
    // The set that leaves these axes of the input says most about them.
    let named = sets.iter().filter(|set| Axes::INPUT.reduce(**set) == to).chain(&sets);
    if let Some(set) = named.into_iter().find(|set| from.reduce(**set) == to) {
        return vec![*set];
    }
    let pairs = sets.iter().flat_map(|first| sets.iter().map(move |second| [*first, *second]));
    let leads_there = |[first, second]: &[IndexSet; 2]| {
        let between = from.reduce(*first);
        // Groups that are put together again would count each of their channels.
        let counts_once = between.channels == from.channels || between.channels == to.channels;
        counts_once && between.reduce(*second) == to
    };
    let pair = pairs.into_iter().find(leads_there);
    // Whatever varies along positions varies along samples, in a layer and in its gradient.
    pair.expect("index sets reduce positions, then channels or samples, from any axes to any that values have").to_vec()
}

/// A ratio of numbers of elements, as counts over index sets of the input.
struct Ratio {
    above: Vec<IndexSet>,
    below: Vec<IndexSet>,
}

impl Ratio {
    /// The product of the ratios of the first number of elements to the second, in as few counts as possible.
    fn of(factors: &[(Axes, Axes)]) -> Self {
        if factors.is_empty() {
            return Self { above: vec![], below: vec![] };
        }
        let axes: Vec<Axes> = factors.iter().flat_map(|(of, per)| [*of, *per]).collect();
        let sets = index_sets(&axes);
        let kinds: Vec<Groups> = sets.iter().filter_map(groups_in).collect();
        let powers = |axes: Axes| Powers::of(axes, &kinds);
        let counts: Vec<(IndexSet, bool, Powers)> = sets
            .iter()
            .map(|set| (*set, powers(Axes::INPUT).over(&powers(Axes::INPUT.reduce(*set)))))
            .flat_map(|(set, count)| [(set, true, count.clone()), (set, false, powers(Axes::NONE).over(&count))])
            .collect();
        let product = factors.iter().fold(powers(Axes::NONE), |product, (of, per)| {
            product.over(&powers(*per)).over(&powers(Axes::NONE).over(&powers(*of)))
        });
        let chosen = (0..=FEW_COUNTS).find_map(|length| choose(&counts, &product, length));
        let chosen = chosen.unwrap_or_else(|| product.one_by_one(&kinds));
        let side =
            |above: bool| chosen.iter().filter(|(_, is_above)| *is_above == above).map(|(set, _)| *set).collect();
        Self { above: side(true), below: side(false) }
    }

    fn is_one(&self) -> bool {
        self.above.is_empty() && self.below.is_empty()
    }
}

/// As many counts are searched for; ratios that need more are written axis by axis.
const FEW_COUNTS: usize = 4;

fn groups_in(set: &IndexSet) -> Option<Groups> {
    match set {
        IndexSet::Group(groups) => Some(*groups),
        IndexSet::Batch | IndexSet::Instance | IndexSet::Layer | IndexSet::Channel | IndexSet::All => None,
    }
}

/// A number of elements as powers of the numbers of samples, channels and positions, and of each kind of groups.
#[derive(Clone, PartialEq)]
struct Powers(Vec<i32>);

impl Powers {
    fn of(axes: Axes, kinds: &[Groups]) -> Self {
        let mut powers = vec![i32::from(axes.samples), 0, i32::from(axes.positions)];
        powers.extend(kinds.iter().map(|kind| i32::from(axes.channels == Channels::Groups(*kind))));
        powers[1] = i32::from(axes.channels == Channels::All);
        Self(powers)
    }

    fn over(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a - b).collect())
    }

    /// The number as counts, axis by axis.
    fn one_by_one(&self, kinds: &[Groups]) -> Vec<(IndexSet, bool)> {
        let [samples, channels, positions] = [
            vec![(IndexSet::Batch, true), (IndexSet::Instance, false)],
            vec![(IndexSet::Channel, true)],
            vec![(IndexSet::Instance, true)],
        ];
        let groups = kinds.iter().map(|kind| vec![(IndexSet::Layer, true), (IndexSet::Group(*kind), false)]);
        let axes = [samples, channels, positions].into_iter().chain(groups);
        let factors = self.0.iter().zip(axes).flat_map(|(&power, counts)| {
            let signed = counts.into_iter().map(move |(set, is_above)| (set, is_above == (power > 0)));
            std::iter::repeat_n(signed.collect::<Vec<_>>(), power.unsigned_abs() as usize).flatten()
        });
        factors.collect()
    }
}

/// The first `length` counts, in their order, whose product is `wanted`.
fn choose(counts: &[(IndexSet, bool, Powers)], wanted: &Powers, length: usize) -> Option<Vec<(IndexSet, bool)>> {
    if length == 0 {
        return wanted.0.iter().all(|power| *power == 0).then(Vec::new);
    }
    counts.iter().enumerate().find_map(|(place, (set, is_above, count))| {
        let mut rest = choose(&counts[place..], &wanted.over(count), length - 1)?;
        rest.insert(0, (*set, *is_above));
        Some(rest)
    })
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
        let writer = Writer::new(&joint.graph, dag, Names::new(dag), &in_passes.collect::<Vec<_>>(), false);
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
