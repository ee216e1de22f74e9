//! What there is to draw of a layer, for every form of drawing: nodes with a role and a label, and links to
//! their operands.
//!
//! Dead nodes are left out. A parameter or a constant is drawn at each of its uses, and `a + (-b)` is one
//! node, a subtraction, where nothing else reads `-b`. Where the order of the operands matters, the link of
//! the second has a sign: `÷` leads to the divisor, `−` to what is subtracted.

use normact_ir::{Axes, Buffers, Dag, Extent, Groups, IndexSet, Law, Layer, NodeId, Op, Prim, Running, infer};

use crate::text::text;

/// Nodes, operands before users; the last is the result.
#[derive(Debug, Clone)]
pub(crate) struct Drawing {
    pub(crate) name: String,
    pub(crate) nodes: Vec<Node>,
}

/// A shape with a label.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Letters and digits, unlike every other node's.
    pub(crate) key: String,
    /// The numbers of the graph's nodes that it stands for: two for a subtraction, none for the result.
    pub(crate) stands_for: Vec<NodeId>,
    pub(crate) role: Role,
    /// The label, line by line.
    pub(crate) lines: Vec<String>,
    /// What else there is to say about it, in one line.
    pub(crate) note: String,
    /// Its operands, in order.
    pub(crate) links: Vec<Link>,
}

/// What a node is to the layer, told by its shape and colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// The input or the result.
    End,
    Statistic,
    Param,
    Constant,
    Operation,
}

impl Role {
    /// Every role, in the order of a legend.
    pub(crate) const ALL: [Role; 5] = [Role::End, Role::Statistic, Role::Operation, Role::Param, Role::Constant];

    /// The name of its style; no word of the language of a drawing, as `end` is.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Role::End => "terminal",
            Role::Statistic => "statistic",
            Role::Param => "param",
            Role::Constant => "constant",
            Role::Operation => "operation",
        }
    }

    /// What a legend calls it.
    pub(crate) fn legend(self) -> &'static str {
        match self {
            Role::End => "input, result",
            Role::Statistic => "statistic",
            Role::Param => "parameter",
            Role::Constant => "constant",
            Role::Operation => "operation",
        }
    }

    /// The colours of its inside and its outline: those of Okabe and Ito, which the colour-blind tell apart,
    /// the inside so light that black text is read on it in print.
    pub(crate) fn colors(self) -> (&'static str, &'static str) {
        match self {
            Role::End => ("#d5e8f5", BLUE),
            Role::Statistic => ("#fdebc8", "#c98500"),
            Role::Param => ("#d3efe5", "#009e73"),
            Role::Constant => ("#ffffff", GRAY),
            Role::Operation => ("#ffffff", "#333333"),
        }
    }

    /// Whether it is drawn at each use, beside its user.
    pub(crate) fn is_leaf(self) -> bool {
        matches!(self, Role::Param | Role::Constant)
    }
}

/// The colour of the main path.
pub(crate) const BLUE: &str = "#0072b2";
/// The colour of every other line.
pub(crate) const GRAY: &str = "#7a7a7a";

/// A line from an operand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Link {
    /// The operand's position in [`Drawing::nodes`].
    pub(crate) from: usize,
    /// `÷` from the divisor, `−` from what is subtracted, otherwise empty.
    pub(crate) sign: &'static str,
    /// Whether it is on the main path from the input to the result: at each operation, the first operand that
    /// varies from element to element, or else the first that depends on the input.
    pub(crate) main: bool,
}

impl Drawing {
    pub(crate) fn new(layer: &Layer) -> Self {
        let dag = &layer.dag;
        let graph = Graph::new(dag);
        let mut drawing = Self { name: layer.name.clone(), nodes: vec![] };
        let mut drawn: Vec<Option<usize>> = vec![None; dag.len()];
        let is_leaf = |id| matches!(dag.op(id), Op::Param(_) | Op::Constant(_));
        for id in dag.ids().filter(|id| graph.live[id.index()] && !graph.is_subtracted[id.index()] && !is_leaf(*id)) {
            let node = drawing.node(&graph, id, &drawn);
            drawing.nodes.push(node);
            drawn[id.index()] = Some(drawing.nodes.len() - 1);
        }
        let output = dag.output();
        let from = drawn[output.index()].unwrap_or_else(|| drawing.leaf(&graph, output, "y0"));
        drawing.nodes.push(Node {
            key: "y".to_owned(),
            stands_for: vec![],
            role: Role::End,
            lines: vec!["y".to_owned()],
            note: "the result".to_owned(),
            links: vec![Link { from, sign: "", main: graph.is_main(output) }],
        });
        drawing
    }

    fn node(&mut self, graph: &Graph, id: NodeId, drawn: &[Option<usize>]) -> Node {
        let dag = graph.dag;
        let mut stands_for = vec![id];
        let operands: Vec<NodeId> = dag.operands(id).iter().collect();
        let on_path = graph.is_main(id);
        let mut links = vec![];
        let mut sign = match dag.op(id) {
            Op::Prim(prim) if !prim.obeys(Law::Commutative) => text(prim).sign,
            _ => "",
        };
        let mut lines = label(dag, id);
        for (slot, &operand) in operands.iter().enumerate() {
            let mut operand = operand;
            if graph.is_subtracted[operand.index()] && slot == 1 {
                stands_for.push(operand);
                operand = dag.operands(operand).iter().next().unwrap_or(operand);
                sign = text(Prim::Neg).sign;
                lines = vec![sign.to_owned()];
            }
            let from =
                drawn[operand.index()].unwrap_or_else(|| self.leaf(graph, operand, &format!("n{}_{slot}", id.index())));
            let main = on_path && graph.main_operand(id) == Some(slot);
            links.push(Link { from, sign: if slot == 1 { sign } else { "" }, main });
        }
        if let Some(index) = graph.buffers.of_node(id) {
            let buffer = &graph.buffers.list()[index];
            lines.push(format!("{}, momentum {}", buffer.name, buffer.tracking.momentum));
        }
        let role = match dag.op(id) {
            Op::Input => Role::End,
            Op::Moment(_) => Role::Statistic,
            Op::Param(_) => Role::Param,
            Op::Constant(_) => Role::Constant,
            Op::Prim(_) => Role::Operation,
        };
        Node { key: format!("n{}", id.index()), stands_for, role, lines, note: note(graph, id), links }
    }

    /// Draws a parameter or a constant for one of its uses.
    fn leaf(&mut self, graph: &Graph, id: NodeId, key: &str) -> usize {
        let node = Node { key: key.to_owned(), ..self.node(graph, id, &[]) };
        self.nodes.push(node);
        self.nodes.len() - 1
    }
}

/// A graph with what is known of its nodes.
struct Graph<'a> {
    dag: &'a Dag,
    live: Vec<bool>,
    axes: Vec<Axes>,
    buffers: Buffers,
    depends_on_input: Vec<bool>,
    /// Whether it is `-b` of an `a + (-b)` and nothing else.
    is_subtracted: Vec<bool>,
    /// Whether the main path passes through it.
    main: Vec<bool>,
}

impl<'a> Graph<'a> {
    fn new(dag: &'a Dag) -> Self {
        let live = dag.live();
        let mut uses = vec![0; dag.len()];
        for id in dag.ids().filter(|id| live[id.index()]) {
            dag.operands(id).iter().for_each(|operand| uses[operand.index()] += 1);
        }
        uses[dag.output().index()] += 1;
        let mut is_subtracted = vec![false; dag.len()];
        for id in dag.ids().filter(|id| live[id.index()] && dag.op(*id) == Op::Prim(Prim::Add)) {
            if let Some(second) = dag.operands(id).iter().nth(1) {
                is_subtracted[second.index()] = dag.op(second) == Op::Prim(Prim::Neg) && uses[second.index()] == 1;
            }
        }
        let mut graph = Self {
            dag,
            live,
            axes: infer(dag),
            buffers: Buffers::of(dag),
            depends_on_input: dag.depends_on_input(),
            is_subtracted,
            main: vec![false; dag.len()],
        };
        let mut next = graph.depends_on_input[dag.output().index()].then_some(dag.output());
        while let Some(id) = next {
            graph.main[id.index()] = true;
            next = graph.main_operand(id).and_then(|slot| dag.operands(id).iter().nth(slot));
        }
        graph
    }

    fn is_main(&self, id: NodeId) -> bool {
        self.main[id.index()]
    }

    /// The number of the operand through which the main path comes.
    fn main_operand(&self, id: NodeId) -> Option<usize> {
        let operands = self.dag.operands(id);
        let varies = |id: NodeId| self.depends_on_input[id.index()] && self.axes[id.index()] == Axes::INPUT;
        let full = operands.iter().position(varies);
        full.or_else(|| operands.iter().position(|operand| self.depends_on_input[operand.index()]))
    }
}

/// The lines of a label: `gamma`; `×`; `std over group (32)`, `eps 1e-5`.
fn label(dag: &Dag, id: NodeId) -> Vec<String> {
    match dag.op(id) {
        Op::Input => vec!["x".to_owned()],
        Op::Constant(value) => vec![value.to_string().replace('-', "−")],
        Op::Param(param) => vec![dag.param(param).name.clone()],
        Op::Prim(prim) => vec![text(prim).sign.to_owned()],
        Op::Moment(op) => {
            let groups = match op.over() {
                IndexSet::Group(Groups::AtMost(count)) => format!(" ({count})"),
                IndexSet::Group(Groups::Exactly(count)) => format!(" (exactly {count})"),
                IndexSet::Batch | IndexSet::Instance | IndexSet::Layer | IndexSet::Channel | IndexSet::All => {
                    String::new()
                }
            };
            let moment = format!("{} over {}{groups}", op.moment().name(), op.over().name());
            let eps = op.moment().is_root().then(|| format!("eps {}", op.eps()));
            [moment].into_iter().chain(eps).collect()
        }
    }
}

fn note(graph: &Graph, id: NodeId) -> String {
    let dag = graph.dag;
    match dag.op(id) {
        Op::Input => "the input".to_owned(),
        Op::Constant(value) => format!("the number {value}"),
        Op::Param(param) => {
            let param = dag.param(param);
            let extent = match param.extent {
                Extent::PerChannel => "one value per channel",
                Extent::Scalar => "one value",
            };
            format!("{}: {extent}, starts at {}", param.name, param.init)
        }
        Op::Prim(prim) => format!("{}, varies along {}", prim.name(), graph.axes[id.index()]),
        Op::Moment(op) => {
            let axes = graph.axes[id.index()];
            let mut note = format!("{}, varies along {axes}", op.moment().name());
            if let (Some(_), Some(tracking)) = (graph.buffers.of_node(id), op.tracking()) {
                note.push_str("; a running average stands for it in evaluation");
                if tracking.running == Running::Unbiased {
                    note.push_str(", of the unbiased variance");
                }
            }
            note
        }
    }
}
