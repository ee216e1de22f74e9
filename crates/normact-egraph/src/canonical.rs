//! The canonical form of a layer as a graph.

use normact_ir::{Dag, Param};

use crate::key::{Key, Status, content_key, normal_form};
use crate::normal::{Budget, Normalizer, Relation};
use crate::proof;
use crate::readable::readable;
use crate::rules::Rule;
use crate::write::write;

/// A layer in its canonical form.
#[derive(Debug, Clone)]
pub struct Canonical {
    /// The form, with the layer's parameters, also those that do not occur in it.
    pub dag: Dag,
    /// The layer's key.
    pub key: Key,
    /// What the layer is at the initial values of its parameters, where the form does not say so: `x * v
    /// / v` is `x`, but undefined for a `v` that starts at 0.
    pub at_start: Option<Dag>,
    /// Whether the rules came to an end.
    pub status: Status,
    /// For each parameter, its number among those of its extent and initial value.
    pub(crate) labels: Vec<u32>,
}

impl Canonical {
    /// For each parameter of this form, the parameter of another form with the same key that plays its
    /// part, by position; `None` for one that does not occur there.
    pub fn matching(&self, other: &Canonical) -> Vec<Option<usize>> {
        let classes = |dag: &Dag| -> Vec<_> { dag.params().iter().map(|param| (param.extent, param.init)).collect() };
        let (own, others) = (classes(&self.dag), classes(&other.dag));
        let find = |position: usize| {
            (0..others.len()).find(|&other_position| {
                others[other_position] == own[position] && other.labels[other_position] == self.labels[position]
            })
        };
        (0..own.len()).map(find).collect()
    }
}

/// The canonical form of a layer. Equal layers have one form, up to the names of parameters; it is
/// chosen for identity, not for speed: see [`crate::simplify`] for that.
pub fn canonical(dag: &Dag, budget: Budget) -> Canonical {
    canonical_for(dag, Relation::AlmostEverywhere, budget)
}

/// The normal form by the rules that a relation allows.
pub(crate) fn canonical_for(dag: &Dag, relation: Relation, budget: Budget) -> Canonical {
    let mut normalizer = Normalizer::new(relation, budget);
    let normal = normal_form(&mut normalizer, dag);
    let key = content_key(&normalizer.terms, &normal);
    let params: Vec<Param> = dag.params().to_vec();
    let exhausted = normalizer.exhausted();
    let mut for_people = |id| {
        let form = readable(&mut normalizer.terms, id);
        // Constants that overflow on the way are not worth the trouble.
        if exhausted || normalizer.terms.overflow() { id } else { form }
    };
    let root = for_people(normal.root);
    let at_start = normal.start.map(for_people);
    let at_start = at_start.map(|start| write(&normalizer.terms, start, &params));
    Canonical {
        dag: write(&normalizer.terms, root, &params),
        at_start,
        key,
        status: normal.status,
        labels: normal.labels,
    }
}

/// The rules that lead from a layer to its canonical form, in the order of [`Rule::ALL`], with how often
/// each is used; empty for layers that are too large or run out of budget.
pub fn canonical_rules(dag: &Dag, budget: Budget) -> Vec<(Rule, usize)> {
    let mut normalizer = Normalizer::new(Relation::AlmostEverywhere, budget);
    let normal = normal_form(&mut normalizer, dag);
    if normal.status == Status::Budget || dag.len() > MAX_SHOWN {
        return Vec::new();
    }
    // The terms are still there: reading again finds them.
    let raw = normalizer.read(dag, |param| param as u32);
    let moves = proof::moves(&mut normalizer, raw).unwrap_or_default();
    let count = |rule: Rule| moves.iter().filter(|step| step.rule == rule).count();
    Rule::ALL.iter().map(|&rule| (rule, count(rule))).filter(|(_, count)| *count > 0).collect()
}

/// Steps are found for layers of so many nodes.
const MAX_SHOWN: usize = 1_000;
