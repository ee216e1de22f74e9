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

/// The most orders of parameters of one kind that are tried: 6 parameters.
const MAX_ORDERS: usize = 720;

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
}

/// The key of a layer. For many layers, a [`Canonicalizer`] is faster.
pub fn key(dag: &Dag) -> (Key, Status) {
    Canonicalizer::default().key(dag)
}

/// Brings a layer into normal form with its parameters numbered in the canonical way.
pub(crate) fn normal_form(normalizer: &mut Normalizer, dag: &Dag) -> Normal {
    let classes: Vec<ParamClass> =
        dag.params().iter().map(|param| ParamClass { extent: param.extent, init: param.init }).collect();
    let mut labels: Vec<u32> = vec![0; classes.len()];
    for index in 1..classes.len() {
        labels[index] = classes[..index].iter().filter(|class| **class == classes[index]).count() as u32;
    }
    let run = |normalizer: &mut Normalizer, labels: &[u32]| -> Run {
        normalizer.start(labels.iter().copied().zip(classes.iter().copied()));
        let raw = normalizer.read(dag, |param| param as u32);
        let root = normalizer.canonical(raw);
        let start = normalizer.special_at_start(raw, root);
        let start_hash = start.map_or(0, |start| normalizer.terms.hash(start));
        let hash = (normalizer.terms.hash(root), start_hash);
        Run { root, start, hash, exhausted: normalizer.exhausted() }
    };
    let mut best = run(normalizer, &labels);
    let finish = |run: Run, labels: Vec<u32>, exhausted: bool| Normal {
        root: run.root,
        start: run.start,
        labels,
        status: if exhausted { Status::Budget } else { Status::Saturated },
    };
    let groups = used_by_class(&normalizer.terms, best.root, &classes);
    let orders = groups.iter().map(|group| (1..=group.len()).product::<usize>()).fold(1, usize::saturating_mul);
    let dense = groups.iter().all(|group| {
        let mut used: Vec<u32> = group.iter().map(|&param| labels[param]).collect();
        used.sort_unstable();
        used.iter().enumerate().all(|(index, &label)| label == index as u32)
    });
    if orders == 1 && dense {
        let exhausted = best.exhausted;
        return finish(best, labels, exhausted);
    }
    let mut best_labels: Option<Vec<u32>> = None;
    let mut last_labels = labels.clone();
    let mut exhausted = orders > MAX_ORDERS;
    for order in 0..orders.min(MAX_ORDERS) {
        let mut tried = labels.clone();
        // Parameters that do not occur get the labels after those that do.
        for (param, label) in tried.iter_mut().enumerate() {
            let class = &classes[param];
            let group = groups.iter().find(|group| classes[group[0]] == *class);
            if !group.is_some_and(|group| group.contains(&param)) {
                let before = (0..param)
                    .filter(|&other| classes[other] == *class && !group.is_some_and(|group| group.contains(&other)))
                    .count();
                *label = (group.map_or(0, Vec::len) + before) as u32;
            }
        }
        let mut rest = order;
        for group in &groups {
            let count = (1..=group.len()).product::<usize>();
            for (position, label) in nth_permutation(group.len(), rest % count).into_iter().enumerate() {
                tried[group[position]] = label as u32;
            }
            rest /= count;
        }
        let found = run(normalizer, &tried);
        exhausted |= found.exhausted;
        if best_labels.is_none() || found.hash < best.hash {
            best = found;
            best_labels = Some(tried.clone());
        }
        last_labels = tried;
    }
    let best_labels = best_labels.unwrap_or(labels);
    if last_labels != best_labels {
        best = run(normalizer, &best_labels);
    }
    finish(best, best_labels, exhausted)
}

struct Run {
    root: TermId,
    start: Option<TermId>,
    hash: (u64, u64),
    exhausted: bool,
}

/// The parameters that occur in a term, those of one class together.
fn used_by_class(terms: &Terms, root: TermId, classes: &[ParamClass]) -> Vec<Vec<usize>> {
    let mut used = vec![false; classes.len()];
    for id in walk(terms, root) {
        if let Head::Param(param) = terms.head(id) {
            used[param as usize] = true;
        }
    }
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for param in (0..classes.len()).filter(|&param| used[param]) {
        match groups.iter_mut().find(|group| classes[group[0]] == classes[param]) {
            Some(group) => group.push(param),
            None => groups.push(vec![param]),
        }
    }
    groups
}

/// The permutation of `0..count` with that number in lexicographic order.
fn nth_permutation(count: usize, mut number: usize) -> Vec<usize> {
    let mut left: Vec<usize> = (0..count).collect();
    let mut permutation = Vec::with_capacity(count);
    for remaining in (1..=count).rev() {
        let block: usize = (1..remaining).product();
        permutation.push(left.remove(number / block));
        number %= block;
    }
    permutation
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
