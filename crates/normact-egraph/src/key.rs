//! The canonical key: one name for a layer, however it is written.
//!
//! The key is a hash of the content of the [normal form](crate::normal), so it does not depend on the
//! run, the machine or the number of processors. Dead nodes, names and the order of operands never
//! reach it. Parameters are told apart by extent and initial value; those of one kind are numbered in
//! every order, and the order with the least hash counts. (Any rule that looks at the order of
//! operands is harmless that way; a refinement by colours would have to prove that there is none.)

use std::fmt;
use std::sync::OnceLock;

use normact_ir::{Dag, Extent, Groups, IndexSet, Running};
use sha2::{Digest, Sha256};

use crate::labels::{self, Orders};
use crate::normal::{Budget, Normalizer, Relation};
use crate::rules::Rule;
use crate::term::{Head, ParamClass, TermId, Terms, quantum};

/// The name of a layer. Printed as 32 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(u128);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl std::str::FromStr for Key {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u128::from_str_radix(text, 16).map(Key)
    }
}

/// Whether the rules came to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// No rule applies any more.
    Saturated,
    /// The budget ran out first: equal layers may have different keys.
    Budget,
}

impl Status {
    /// The name in machine output.
    pub fn name(self) -> &'static str {
        match self {
            Status::Saturated => "saturated",
            Status::Budget => "budget",
        }
    }
}

/// The most orders of parameters of one class that are tried: those of 6 parameters.
const MAX_ORDERS: usize = 720;

/// Fewer orders are tried of large layers: so many nodes in all.
const MAX_ORDER_NODES: usize = 500_000;

/// Makes keys, keeping its memory from one layer to the next.
#[derive(Debug)]
pub struct Canonicalizer {
    normalizer: Normalizer,
}

impl Default for Canonicalizer {
    fn default() -> Self {
        Self::new(Budget::default())
    }
}

/// A layer in normal form, in the arena of a normalizer.
#[derive(Debug, Clone)]
pub(crate) struct Normal {
    /// In normal form.
    pub(crate) root: TermId,
    /// What it is at the initial values of its parameters, where the normal form does not say so.
    pub(crate) start: Option<TermId>,
    /// The label of each parameter of the graph.
    pub(crate) labels: Vec<u32>,
    pub(crate) status: Status,
}

impl Canonicalizer {
    /// A canonicalizer whose work on one layer is bounded.
    pub fn new(budget: Budget) -> Self {
        Self { normalizer: Normalizer::new(Relation::AlmostEverywhere, budget) }
    }

    /// The key of a layer.
    pub fn key(&mut self, dag: &Dag) -> (Key, Status) {
        let normal = normal_form(&mut self.normalizer, dag);
        (content_key(&self.normalizer.terms, &normal), normal.status)
    }

    /// How often each rule of [`Rule::ALL`] was applied to the layers so far, also on ways that were
    /// only tried: guards look at other terms, and several numberings of parameters are compared.
    pub fn applied(&self) -> &[u64] {
        self.normalizer.applied()
    }
}

/// The key of a layer. For many layers, a [`Canonicalizer`] is faster.
pub fn key(dag: &Dag) -> (Key, Status) {
    Canonicalizer::default().key(dag)
}

/// Brings a layer into normal form with its parameters numbered in the canonical way.
pub(crate) fn normal_form(normalizer: &mut Normalizer, dag: &Dag) -> Normal {
    let classes: Vec<ParamClass> =
        dag.params().iter().map(|param| ParamClass { extent: param.extent, init: param.init }).collect();
    let first = with_labels(normalizer, dag, &classes, labels::by_declaration(&classes));
    let orders = Orders::new(&classes, &occurring(&normalizer.terms, first.root, classes.len()));
    if orders.count() == 1 && orders.labels(0) == first.labels {
        return first;
    }
    let affordable = MAX_ORDERS.min(1 + MAX_ORDER_NODES / dag.len());
    let mut exhausted = orders.count() > affordable;
    let mut least: Option<Candidate> = None;
    for order in 0..orders.count().min(affordable) {
        let normal = with_labels(normalizer, dag, &classes, orders.labels(order));
        exhausted |= normal.status == Status::Budget;
        let hash = (normalizer.terms.hash(normal.root), normal.start.map(|start| normalizer.terms.hash(start)));
        if least.as_ref().is_none_or(|least| hash < least.hash) {
            least = Some(Candidate { order, hash });
        }
    }
    let order = least.map_or(0, |least| least.order);
    let normal = with_labels(normalizer, dag, &classes, orders.labels(order));
    Normal { status: if exhausted { Status::Budget } else { normal.status }, ..normal }
}

struct Candidate {
    order: usize,
    hash: (u64, Option<u64>),
}

fn with_labels(normalizer: &mut Normalizer, dag: &Dag, classes: &[ParamClass], labels: Vec<u32>) -> Normal {
    normalizer.start(labels.iter().copied().zip(classes.iter().copied()));
    let raw = normalizer.read(dag, |param| param as u32);
    let root = normalizer.canonical(raw);
    let start = normalizer.special_at_start(raw, root);
    let status = if normalizer.exhausted() { Status::Budget } else { Status::Saturated };
    Normal { root, start, labels, status }
}

/// Which parameters occur in a term.
fn occurring(terms: &Terms, root: TermId, params: usize) -> Vec<bool> {
    let mut occurs = vec![false; params];
    for id in walk(terms, root) {
        if let Head::Param(param) = terms.head(id) {
            occurs[param as usize] = true;
        }
    }
    occurs
}

/// Every term below a root, operands before users, in an order that depends on nothing else.
pub(crate) fn walk(terms: &Terms, root: TermId) -> Vec<TermId> {
    let mut seen = vec![false; root.index() + 1];
    let mut order = Vec::new();
    let mut stack = vec![(root, false)];
    while let Some((id, operands_done)) = stack.pop() {
        if operands_done {
            order.push(id);
            continue;
        }
        if seen.len() <= id.index() {
            seen.resize(id.index() + 1, false);
        }
        if std::mem::replace(&mut seen[id.index()], true) {
            continue;
        }
        stack.push((id, true));
        stack.extend(terms.operands(id).iter().rev().map(|&operand| (operand, false)));
    }
    order
}

/// The version of the keys: it changes with the rules.
pub fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let mut hasher = Sha256::new();
        hasher.update(b"normact key 1\n");
        for rule in Rule::ALL {
            hasher.update(format!("{}: {} [{}]\n", rule.name(), rule.statement(), rule.class().name()));
        }
        hasher.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect()
    })
}

pub(crate) fn content_key(terms: &Terms, normal: &Normal) -> Key {
    let mut bytes: Vec<u8> = Vec::with_capacity(512);
    bytes.extend_from_slice(version().as_bytes());
    encode_all(terms, normal.root, &mut bytes);
    if let Some(start) = normal.start {
        bytes.push(b'@');
        encode_all(terms, start, &mut bytes);
    }
    let digest = Sha256::digest(&bytes);
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    Key(u128::from_be_bytes(half))
}

/// Every term below a root, with its operands as positions in the walk.
fn encode_all(terms: &Terms, root: TermId, bytes: &mut Vec<u8>) {
    let order = walk(terms, root);
    let mut number = vec![0u32; order.iter().map(|id| id.index() + 1).max().unwrap_or(0)];
    for (position, &id) in order.iter().enumerate() {
        number[id.index()] = position as u32;
        encode(terms, id, bytes);
        let operands = terms.operands(id);
        bytes.extend_from_slice(&(operands.len() as u32).to_le_bytes());
        for operand in operands {
            bytes.extend_from_slice(&number[operand.index()].to_le_bytes());
        }
    }
}

fn encode(terms: &Terms, id: TermId, bytes: &mut Vec<u8>) {
    let number = |bytes: &mut Vec<u8>, value: f64| bytes.extend_from_slice(&value.to_bits().to_le_bytes());
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.push(text.len() as u8);
        bytes.extend_from_slice(text.as_bytes());
    };
    match terms.head(id) {
        Head::Undefined => bytes.push(b'u'),
        Head::Const(value) => {
            bytes.push(b'k');
            bytes.extend_from_slice(&quantum(value).to_le_bytes());
        }
        Head::Input => bytes.push(b'x'),
        Head::Param(param) => {
            let class = terms.param_class(param);
            bytes.push(match class.extent {
                Extent::PerChannel => b'p',
                Extent::Scalar => b's',
            });
            bytes.extend_from_slice(&terms.param_label(param).to_le_bytes());
            number(bytes, class.init.get());
        }
        Head::Sum => bytes.push(b'+'),
        Head::Product => bytes.push(b'*'),
        Head::Max => bytes.push(b'm'),
        Head::Power(exponent) => {
            bytes.push(if exponent.odd { b'o' } else { b'e' });
            number(bytes, exponent.get());
        }
        Head::Unary(prim) => {
            bytes.push(b'f');
            text(bytes, prim.name());
        }
        Head::Moment(op) => {
            bytes.push(b'i');
            text(bytes, op.moment().name());
            text(bytes, op.over().name());
            if let IndexSet::Group(groups) = op.over() {
                let (kind, count) = match groups {
                    Groups::AtMost(count) => (b'<', count),
                    Groups::Exactly(count) => (b'=', count),
                };
                bytes.push(kind);
                bytes.extend_from_slice(&count.get().to_le_bytes());
            }
            number(bytes, op.eps().get());
            if let Some(tracking) = op.tracking() {
                number(bytes, tracking.momentum.get());
                bytes.push(match tracking.running {
                    Running::Biased => b'b',
                    Running::Unbiased => b'u',
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fingerprint::formula::layer;

    fn same(a: &str, b: &str) -> bool {
        key(&layer(a)).0 == key(&layer(b)).0
    }

    #[test]
    fn one_layer_has_one_key() {
        for (a, b) in [
            ("(add (mul x v=1) (mul x v=1))", "(mul (mul 2 g=1) x)"),
            ("(square (add x 1))", "(add (add (square x) (mul 2 x)) 1)"),
            ("(div (mul x x) x)", "x"),
            ("(sqrt (square (add x v=1)))", "(abs (add v=1 x))"),
            ("(max (max x (neg x)) 0)", "(abs x)"),
            ("(rms/layer (rms/instance x))", "(sqrt (add 2e-5 (mean/layer (square x))))"),
            ("(std/batch (add (mul -2 x) v=1))", "(mul 2 (std/batch/2.5e-6 x))"),
            ("(log (tanh (max v=1 0.1)))", "(log (tanh (max 0.1 w=1)))"),
            ("(add 0.1 (add 0.2 x))", "(add x 0.3)"),
        ] {
            assert!(same(a, b), "{a} and {b}");
        }
    }

    #[test]
    fn what_only_looks_equal_has_two() {
        for (a, b) in [
            // Undefined on more than a set of measure zero, or at the start.
            ("(div (max x 0) (max x 0))", "1"),
            ("(div (mul x v=0) v=0)", "x"),
            ("(mul 0 (log (max x 0)))", "0"),
            ("(div (rms/layer (log (max x 0))) (rms/layer (log (max x 0))))", "1"),
            ("(div (mean/batch (sign x)) (mean/batch (sign x)))", "1"),
            (
                "(max (max (max (max 0 x) (max (add (mul 2 x) 1) (tanh x))) (max (max (erf x) (exp x)) (max (sigmoid x) (sqrt x)))) (add -1 (neg (square (div 1 (max x 0))))))",
                "(max (max (max 0 x) (max (add (mul 2 x) 1) (tanh x))) (max (max (erf x) (exp x)) (max (sigmoid x) (sqrt x))))",
            ),
            // Zero for every input, though no rule says so.
            (
                "(div (add (add (log (add 1 (exp x))) (neg (log (add 1 (exp (neg x)))))) (neg x)) (add (add (log (add 1 (exp x))) (neg (log (add 1 (exp (neg x)))))) (neg x)))",
                "1",
            ),
            // Numbers that only f64 takes for 0 or 1.
            ("(mul x (sign (square 1e-200)))", "(mul x 0)"),
            ("(div x (add 1 (neg (tanh 50))))", "(div x 0)"),
            ("(div x (add (abs x) (add 1e-5 (add 1e9 -1e9))))", "(div x (abs x))"),
            (
                "(abs (add (add (mul 1e13 (square x)) (mul -8944272 (mul x v=1))) (square v=1)))",
                "(add (add (mul 1e13 (square x)) (mul -8944272 (mul x v=1))) (square v=1))",
            ),
            // The signed functions.
            ("(exp (log x))", "x"),
            ("(log (mul x v=1))", "(add (log x) (log v=1))"),
            // Two groupings of the channels.
            ("(mean/group=2 (mean/group=3 x))", "(mean/group=2 x)"),
            (
                "(abs (add (add (var/group=2 x) (neg (var/group=2 (mean/group=3 x)))) (exp (mean/instance x))))",
                "(add (add (var/group=2 x) (neg (var/group=2 (mean/group=3 x)))) (exp (mean/instance x)))",
            ),
            ("(std/instance (mul 2 x))", "(mul 2 (std/instance x))"),
        ] {
            assert!(!same(a, b), "{a} and {b}");
        }
    }

    #[test]
    fn shared_values_nest_without_doubling_the_work() {
        let mut builder = normact_ir::Builder::new();
        let mut node = builder.input();
        for _ in 0..60 {
            let (a, b) = (builder.unary(normact_ir::Prim::Sigmoid, node), builder.unary(normact_ir::Prim::Erf, node));
            node = builder.binary(normact_ir::Prim::Add, a, b);
        }
        let quotient = builder.binary(normact_ir::Prim::Div, node, node);
        assert_eq!(key(&builder.finish(quotient)).0, key(&layer("1")).0);
    }
}
