//! Graph to text: the formula of a layer, with its functions inlined.
//!
//! The text reads back as the same graph (dead nodes apart). Values used more than once become
//! `let`s, and so do values that would nest too deeply to read.

use std::collections::{HashMap, HashSet};

use normact_ir::{Dag, Extent, Groups, IndexSet, Layer, MomentOp, NodeId, Op, Operands, Prim, Running, json};

/// Expressions higher than this get a name.
const MAX_HEIGHT: usize = 24;

/// The layer as text in the language. The text of a very large graph can be longer than what is read
/// back ([`crate::MAX_BYTES`]).
pub fn print(layer: &Layer) -> String {
    let dag = &layer.dag;
    let mut names = Names::new(dag);
    let input = names.fresh("x", true);
    let header = Header::of(dag, &mut names);
    let mut ctx = Ctx { dag, header: &header, input: &input, texts: vec![None; dag.len()] };
    let live = dag.live();
    let uses = uses(dag, &live);
    let mut heights = vec![0; dag.len()];
    let mut body = String::new();
    for param in dag.params() {
        let extent = match param.extent {
            Extent::PerChannel => "",
            Extent::Scalar => ": scalar",
        };
        body.push_str(&format!("    param {}{extent} = {}\n", param.name, param.init));
    }
    if !body.is_empty() {
        body.push('\n');
    }
    for id in dag.ids().filter(|id| live[id.index()]) {
        let text = ctx.text(id);
        let operands = dag.operands(id);
        let height = operands.iter().map(|operand| heights[operand.index()] + 1).max().unwrap_or(0);
        let is_leaf = operands == Operands::None;
        let named = !is_leaf && id != dag.output() && (uses[id.index()] > 1 || height > MAX_HEIGHT);
        if named {
            let name = names.fresh("t", false);
            body.push_str(&format!("    let {name} = {}\n", text.text));
            ctx.texts[id.index()] = Some(Text { text: name, level: Level::Primary });
        } else {
            heights[id.index()] = height;
            ctx.texts[id.index()] = Some(text);
        }
        if id == dag.output() {
            body.push_str(&format!("    {}\n", ctx.of(id).text));
        }
    }
    format!("layer {}({input}{}) {{\n{body}}}\n", layer.name, header.text())
}

/// How tightly the outermost operator of a text binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Sum,
    Product,
    Prefix,
    Primary,
}

#[derive(Debug, Clone)]
struct Text {
    text: String,
    level: Level,
}

impl Text {
    /// The text where an operator that binds as tightly as `level` needs an operand.
    fn at(&self, level: Level) -> String {
        if self.level < level { format!("({})", self.text) } else { self.text.clone() }
    }
}

struct Ctx<'a> {
    dag: &'a Dag,
    header: &'a Header,
    input: &'a str,
    texts: Vec<Option<Text>>,
}

impl Ctx<'_> {
    fn of(&self, id: NodeId) -> &Text {
        self.texts[id.index()].as_ref().unwrap_or_else(|| unreachable!("operands of live nodes are printed first"))
    }

    fn text(&self, id: NodeId) -> Text {
        let primary = |text: String| Text { text, level: Level::Primary };
        match (self.dag.op(id), self.dag.operands(id)) {
            (Op::Input, _) => primary(self.input.to_owned()),
            (Op::Constant(value), _) => {
                let level = if value.get() < 0.0 { Level::Prefix } else { Level::Primary };
                Text { text: value.to_string(), level }
            }
            (Op::Param(param), _) => primary(self.dag.param(param).name.clone()),
            (Op::Moment(op), Operands::One(x)) => primary(self.moment(op, x)),
            (Op::Prim(prim), Operands::One(x)) => self.unary(prim, x),
            (Op::Prim(prim), Operands::Two(a, b)) => self.binary(prim, a, b),
            (Op::Moment(_) | Op::Prim(_), _) => unreachable!("a graph's operations have their operands"),
        }
    }

    fn unary(&self, prim: Prim, x: NodeId) -> Text {
        // `-2` is a number; the negation of a number is written as a call.
        if prim == Prim::Neg && !matches!(self.dag.op(x), Op::Constant(_)) {
            return Text { text: format!("-{}", self.of(x).at(Level::Primary)), level: Level::Prefix };
        }
        Text { text: format!("{}({})", prim.name(), self.of(x).text), level: Level::Primary }
    }

    fn binary(&self, prim: Prim, a: NodeId, b: NodeId) -> Text {
        let infix = |operator: &str, level: Level, right: &Text, right_level: Level| Text {
            text: format!("{} {operator} {}", self.of(a).at(level), right.at(right_level)),
            level,
        };
        match prim {
            Prim::Add => match self.subtracted(b) {
                Some(subtracted) => infix("-", Level::Sum, self.of(subtracted), Level::Product),
                None => infix("+", Level::Sum, self.of(b), Level::Product),
            },
            Prim::Mul => infix("*", Level::Product, self.of(b), Level::Prefix),
            Prim::Div => infix("/", Level::Product, self.of(b), Level::Prefix),
            _ => Text {
                text: format!("{}({}, {})", prim.name(), self.of(a).text, self.of(b).text),
                level: Level::Primary,
            },
        }
    }

    /// The `b` of `neg(b)`, where the negation has no name of its own.
    fn subtracted(&self, id: NodeId) -> Option<NodeId> {
        let is_named = self.of(id).level == Level::Primary && !self.of(id).text.starts_with("neg(");
        match (self.dag.op(id), self.dag.operands(id)) {
            (Op::Prim(Prim::Neg), Operands::One(b)) if !is_named => Some(b),
            _ => None,
        }
    }

    fn moment(&self, op: MomentOp, x: NodeId) -> String {
        let mut settings = String::new();
        let mut set = |differs: bool, text: String| {
            if differs {
                settings.push_str(", ");
                settings.push_str(&text);
            }
        };
        if let IndexSet::Group(Groups::AtMost(groups)) = op.over() {
            set(self.header.groups != Some(groups.get()), format!("groups = {groups}"));
        }
        if op.moment().is_root() {
            set(self.header.eps.as_deref() != Some(&op.eps().to_string()), format!("eps = {}", op.eps()));
        }
        if let Some(tracking) = op.tracking() {
            let momentum = tracking.momentum.to_string();
            set(self.header.momentum.as_deref() != Some(&momentum), format!("momentum = {momentum}"));
            if op.moment().quantity() == normact_ir::Quantity::Variance {
                set(self.header.running != Some(tracking.running), format!("running = {}", running(tracking.running)));
            }
        }
        format!("{}[{}]({}{settings})", op.moment().name(), op.over(), self.of(x).text)
    }
}

/// The layer's settings: of each kind, the value of the first moment that reads it.
#[derive(Debug, Default)]
struct Header {
    groups: Option<u32>,
    eps: Option<String>,
    momentum: Option<String>,
    running: Option<Running>,
}

impl Header {
    fn of(dag: &Dag, names: &mut Names) -> Self {
        let mut header = Self::default();
        let live = dag.live();
        for id in dag.ids().filter(|id| live[id.index()]) {
            let Op::Moment(op) = dag.op(id) else { continue };
            if let IndexSet::Group(Groups::AtMost(groups)) = op.over() {
                header.groups.get_or_insert(groups.get());
            }
            if op.moment().is_root() {
                header.eps.get_or_insert(op.eps().to_string());
            }
            if let Some(tracking) = op.tracking() {
                header.momentum.get_or_insert(tracking.momentum.to_string());
                if op.moment().quantity() == normact_ir::Quantity::Variance {
                    header.running.get_or_insert(tracking.running);
                }
            }
        }
        // A setting must not have the name of a param; then every moment says its own.
        let mut free = |name: &str| names.claim(name);
        header.groups = header.groups.filter(|_| free("groups"));
        header.eps = header.eps.filter(|_| free("eps"));
        header.momentum = header.momentum.filter(|_| free("momentum"));
        header.running = header.running.filter(|_| free("running"));
        header
    }

    fn text(&self) -> String {
        let groups = self.groups.map(|groups| format!(", groups = {groups}"));
        let eps = self.eps.as_ref().map(|eps| format!(", eps = {eps}"));
        let momentum = self.momentum.as_ref().map(|momentum| format!(", momentum = {momentum}"));
        let running = self.running.map(|running| format!(", running = {}", self::running(running)));
        [groups, eps, momentum, running].into_iter().flatten().collect()
    }
}

fn running(running: Running) -> &'static str {
    match running {
        Running::Biased => "biased",
        Running::Unbiased => "unbiased",
    }
}

/// How many live nodes use each node.
fn uses(dag: &Dag, live: &[bool]) -> Vec<usize> {
    let mut uses = vec![0; dag.len()];
    for id in dag.ids().filter(|id| live[id.index()]) {
        dag.operands(id).iter().for_each(|operand| uses[operand.index()] += 1);
    }
    uses
}

/// Names in use, and for each stem the number to try next.
struct Names {
    taken: HashSet<String>,
    next: HashMap<String, usize>,
}

impl Names {
    fn new(dag: &Dag) -> Self {
        Self { taken: dag.params().iter().map(|param| param.name.clone()).collect(), next: HashMap::new() }
    }

    /// Takes a name if it is free.
    fn claim(&mut self, name: &str) -> bool {
        self.taken.insert(name.to_owned())
    }

    /// A free name: the stem itself where that is allowed and free, or with the next number.
    fn fresh(&mut self, stem: &str, bare: bool) -> String {
        if bare && self.claim(stem) {
            return stem.to_owned();
        }
        loop {
            let number = self.next.entry(stem.to_owned()).or_insert(0);
            *number += 1;
            let name = format!("{stem}{number}");
            if json::is_identifier(&name) && self.claim(&name) {
                return name;
            }
        }
    }
}
