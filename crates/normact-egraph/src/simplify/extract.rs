//! The cheapest graph an e-graph holds, where a shared value counts once.
//!
//! The cost of a term is the sum over the classes in it, so it is no sum over operands: finding the
//! least is NP-hard. Each class first takes the member whose classes together cost least, given what
//! its operands have taken, until nothing changes; then every choice in the result is tried against
//! the alternatives in the same class, as long as that makes the whole cheaper. So `std(x)` next to a
//! `var(x)` that is needed anyway becomes `sqrt(var(x) + eps)`.

use std::cmp::Ordering;

use egg::{EClass, Id, Language};
use normact_ir::{Moment, Prim};
use rustc_hash::FxHashSet;

use super::analysis::{Graph, Known};
use super::cost::{self, Cost};
use super::language::{ENode, Head};

/// For each class, by its number, the member to compute it by.
pub(super) type Choice = Vec<Option<ENode>>;

/// A node that is not written in the layer costs this much more, and one whose operands are in an unusual
/// order once more: of two forms that cost the same, the user's own is kept.
const FOREIGN: u64 = 2;
const UNUSUAL_ORDER: u64 = 1;
/// A thousandth of a full-size operation.
const WORK: u64 = 1 << 12;
/// More than any work.
const HAZARD: u64 = 1 << 44;

/// What counts most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Aim {
    /// Few steps that can overflow, and little work among those.
    Safe,
    /// Little work.
    Fast,
}

/// The members of a class that can be computed.
struct Class {
    id: Id,
    members: Vec<(ENode, u64)>,
}

/// Chooses a member for every class below the root.
pub(super) fn choose(
    graph: &Graph,
    written: &FxHashSet<ENode>,
    root: Id,
    aim: Aim,
    frozen_cost: impl Fn(&ENode) -> Cost,
) -> Choice {
    let depths = depths(graph);
    let weight = |node: &ENode| {
        let cost = cost_of(graph, node, &frozen_cost);
        let hazards = if aim == Aim::Safe { cost.hazards * HAZARD } else { 0 };
        let foreign = if written.contains(node) { 0 } else { FOREIGN + unusual(graph, node, &depths) };
        // Every operation costs something, so no cheapest member contains its own class.
        hazards + cost.work * WORK + foreign + u64::from(!node.is_leaf())
    };
    let mut classes: Vec<Class> = graph
        .classes()
        .map(|class| Class {
            id: class.id,
            members: members(graph, class).map(|node| (node.clone(), weight(node))).collect(),
        })
        .collect();
    classes.sort_unstable_by_key(|class| class.id);
    let mut search = Search::new(&classes);
    search.settle(&classes);
    search.improve(&classes, graph.find(root));
    search.choice
}

/// A class that is known to be a variance is computed as one, not by `E[x^2] - E[x]^2`; and the number
/// under a root is a constant.
fn members<'a>(graph: &'a Graph, class: &'a EClass<ENode, Known>) -> impl Iterator<Item = &'a ENode> {
    let is_variance = class.nodes.iter().any(|node| node.head == Head::Moment(Moment::Var));
    class.nodes.iter().filter(move |node| match node.head {
        Head::Prim(Prim::Add) => !is_variance,
        Head::Moment(moment) if moment.is_root() => {
            graph[node.children()[2]].data.constant.is_some_and(|eps| eps.get() >= 0.0)
        }
        // Rounding can leave two numbers in one class.
        Head::Constant(value) => class.data.constant == Some(value),
        _ => true,
    })
}

fn cost_of(graph: &Graph, node: &ENode, frozen: &impl Fn(&ENode) -> Cost) -> Cost {
    let child = |index: usize| -> &Known { &graph[node.children()[index]].data };
    match node.head {
        Head::Input | Head::Param(_) | Head::Set(_) => Cost { hazards: 0, work: 0 },
        Head::Constant(value) => cost::of_constant(value),
        Head::Prim(prim) => {
            let operands: Vec<&Known> = (0..node.len()).map(child).collect();
            cost::of_prim(prim, &operands)
        }
        Head::Moment(moment) => cost::of_moment(moment, child(1)),
        Head::Frozen(_) => frozen(node),
    }
}

/// Constants are read first in products and last elsewhere, values of full size before others, those
/// made from the input before parameters, short operands before long ones.
fn unusual(graph: &Graph, node: &ENode, depths: &[u32]) -> u64 {
    let Head::Prim(prim) = node.head else { return 0 };
    let &[a, b] = node.children() else { return 0 };
    if !prim.obeys(normact_ir::Law::Commutative) {
        return 0;
    }
    let constant = |id: Id| graph[id].data.constant.is_some();
    let swapped = match (constant(a), constant(b)) {
        (true, false) => prim != Prim::Mul,
        (false, true) => prim == Prim::Mul,
        _ => match cost::share(graph[a].data.axes).cmp(&cost::share(graph[b].data.axes)) {
            Ordering::Equal => {
                let key = |id: Id| (!graph[id].data.of_input, depths[usize::from(graph.find(id))]);
                key(a) > key(b)
            }
            order => order == Ordering::Less,
        },
    };
    if swapped { UNUSUAL_ORDER } else { 0 }
}

/// For each class, the least depth of a member.
fn depths(graph: &Graph) -> Vec<u32> {
    let size = graph.classes().map(|class| usize::from(class.id) + 1).max().unwrap_or(0);
    let mut depths = vec![u32::MAX; size];
    loop {
        let mut changed = false;
        for class in graph.classes() {
            for node in &class.nodes {
                let below = node.children().iter().map(|&child| depths[usize::from(graph.find(child))]).max();
                let depth = below.map_or(0, |below| below.saturating_add(1));
                let known = &mut depths[usize::from(class.id)];
                if depth < *known {
                    *known = depth;
                    changed = true;
                }
            }
        }
        if !changed {
            return depths;
        }
    }
}

/// The best that is known of a class: its member and all classes in it with their weights, in order.
#[derive(Debug, Clone)]
struct Best {
    total: u64,
    cone: Vec<(Id, u64)>,
}

struct Search {
    choice: Choice,
    best: Vec<Option<Best>>,
    /// The position in the list of classes.
    position: Vec<usize>,
}

impl Search {
    fn new(classes: &[Class]) -> Self {
        let size = classes.iter().map(|class| usize::from(class.id) + 1).max().unwrap_or(0);
        let mut position = vec![usize::MAX; size];
        for (index, class) in classes.iter().enumerate() {
            position[usize::from(class.id)] = index;
        }
        Self { choice: vec![None; size], best: vec![None; size], position }
    }

    fn settle(&mut self, classes: &[Class]) {
        let mut changed_in = vec![0u32; self.best.len()];
        for pass in 1.. {
            let mut changed = false;
            for class in classes {
                for (node, weight) in &class.members {
                    let news = |child: &Id| changed_in[usize::from(*child)] + 1 >= pass;
                    if pass > 1 && !node.children().iter().any(news) {
                        continue;
                    }
                    let Some(found) = self.total(class.id, node, *weight) else { continue };
                    let known = &mut self.best[usize::from(class.id)];
                    if known.as_ref().is_none_or(|known| found.total < known.total) {
                        *known = Some(found);
                        self.choice[usize::from(class.id)] = Some(node.clone());
                        changed_in[usize::from(class.id)] = pass;
                        changed = true;
                    }
                }
            }
            if !changed {
                return;
            }
        }
    }

    /// The cost of a class by this member; `None` if an operand cannot be computed yet or needs the class.
    fn total(&self, class: Id, node: &ENode, weight: u64) -> Option<Best> {
        let mut cone: Vec<(Id, u64)> = Vec::new();
        for (index, &child) in node.children().iter().enumerate() {
            if node.children()[..index].contains(&child) {
                continue;
            }
            let below = self.best[usize::from(child)].as_ref()?;
            cone = if index == 0 { below.cone.clone() } else { merged(&cone, &below.cone) };
        }
        let place = cone.binary_search_by_key(&class, |(id, _)| *id).err()?;
        cone.insert(place, (class, weight));
        let total = cone.iter().map(|(_, weight)| weight).sum();
        Some(Best { total, cone })
    }

    /// Tries every alternative of every class in the result.
    fn improve(&mut self, classes: &[Class], root: Id) {
        let Some((mut total, _)) = self.walk(classes, root) else { return };
        loop {
            let Some((_, reached)) = self.walk(classes, root) else { return };
            let mut improved = false;
            for id in reached {
                let mut kept = self.choice[usize::from(id)].clone();
                for (node, _) in &classes[self.position[usize::from(id)]].members {
                    if Some(node) == kept.as_ref() {
                        continue;
                    }
                    self.choice[usize::from(id)] = Some(node.clone());
                    match self.walk(classes, root) {
                        Some((less, _)) if less < total => {
                            total = less;
                            kept = Some(node.clone());
                            improved = true;
                        }
                        _ => {}
                    }
                }
                self.choice[usize::from(id)] = kept;
            }
            if !improved {
                return;
            }
        }
    }

    /// The weight of everything below the root, and its classes, operands first; `None` if a class contains
    /// itself.
    fn walk(&self, classes: &[Class], root: Id) -> Option<(u64, Vec<Id>)> {
        const OPEN: u8 = 1;
        const DONE: u8 = 2;
        let mut state = vec![0u8; self.choice.len()];
        let mut order = Vec::new();
        let mut total = 0;
        let mut stack = vec![root];
        while let Some(&id) = stack.last() {
            let index = usize::from(id);
            if state[index] == DONE {
                stack.pop();
                continue;
            }
            let node = self.choice[index].as_ref()?;
            if state[index] == OPEN {
                state[index] = DONE;
                let members = &classes[self.position[index]].members;
                total += members.iter().find(|(member, _)| member == node).map_or(0, |(_, weight)| *weight);
                order.push(id);
                stack.pop();
                continue;
            }
            state[index] = OPEN;
            for &child in node.children().iter().rev() {
                match state[usize::from(child)] {
                    OPEN => return None,
                    DONE => {}
                    _ => stack.push(child),
                }
            }
        }
        Some((total, order))
    }
}

/// The union of two ordered lists.
fn merged(a: &[(Id, u64)], b: &[(Id, u64)]) -> Vec<(Id, u64)> {
    let mut all = Vec::with_capacity(a.len() + b.len());
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        match a[i].0.cmp(&b[j].0) {
            Ordering::Less => {
                all.push(a[i]);
                i += 1;
            }
            Ordering::Greater => {
                all.push(b[j]);
                j += 1;
            }
            Ordering::Equal => {
                all.push(a[i]);
                i += 1;
                j += 1;
            }
        }
    }
    all.extend_from_slice(&a[i..]);
    all.extend_from_slice(&b[j..]);
    all
}
