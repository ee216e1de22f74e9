//! Are two layers equal? With a proof, or an input that separates them.

use normact_ir::{Dag, Param};

use crate::affine::without_affine;
use crate::canonical::{Canonical, canonical_for};
use crate::key::walk;
use crate::normal::{Budget, Normalizer, Relation};
use crate::proof::{self, Proof};
use crate::term::ParamClass;
use crate::witness::{Witness, separate};

/// Layers with more terms get no proof: each of its steps shows the whole layer.
const MAX_PROOF_TERMS: usize = 1_000;

/// How two layers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// What counts as equal.
    pub relation: Relation,
    /// Whether a final scale and shift per channel, and the scales of trainable parameters, are left
    /// out of account.
    pub modulo_affine: bool,
    /// The bound on rewriting.
    pub budget: Budget,
    /// How many inputs the search for a witness tries.
    pub attempts: usize,
    /// The seed of that search.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { relation: Relation::Exact, modulo_affine: false, budget: Budget::default(), attempts: 300, seed: 0 }
    }
}

/// Neither a proof nor a witness was found.
#[derive(Debug, Clone)]
pub struct Unknown {
    /// The normal form of the first layer.
    pub first: Canonical,
    /// The normal form of the second layer.
    pub second: Canonical,
    /// How many inputs were tried.
    pub attempts: usize,
}

/// The answer.
#[derive(Debug, Clone)]
pub enum Verdict {
    /// The same function.
    Equal(Box<Proof>),
    /// Different functions.
    Different(Box<Witness>),
    /// It could not be decided.
    Unknown(Box<Unknown>),
}

/// Compares two layers: a proof if they have one normal form, else a search for a witness.
///
/// Parameters are matched by extent, initial value and the part they play; their names do not count.
pub fn equiv(a: &Dag, b: &Dag, options: &Options) -> Verdict {
    let (a, b) = match options.modulo_affine {
        true => (core(a, options), core(b, options)),
        false => (a.clone(), b.clone()),
    };
    if a.normalized() == b.normalized() {
        return Verdict::Equal(Box::new(Proof::nothing_to_show(&a)));
    }
    let first = normal(&a, options);
    let second = normal(&b, options);
    if first.key == second.key
        && let Some(proof) = prove(&a, &b, &first, &second, options)
    {
        return Verdict::Equal(Box::new(proof));
    }
    // Layers that the rules find equal have no witness; everything else is worth a search.
    match separate(&a, &b, options.relation, true, options.seed, options.attempts) {
        Some(witness) => Verdict::Different(Box::new(witness)),
        None => Verdict::Unknown(Box::new(Unknown { first, second, attempts: options.attempts })),
    }
}

/// What is compared with [`Options::modulo_affine`]: the layer without a final scale and shift per
/// channel, constants included, and without the scales of its parameters.
pub fn core(dag: &Dag, options: &Options) -> Dag {
    without_affine(dag, options.relation, options.budget)
}

fn normal(dag: &Dag, options: &Options) -> Canonical {
    canonical_for(dag, options.relation, options.budget)
}

/// The proof for two layers with one normal form: both are read into one arena, the second with the
/// first one's parameters.
fn prove(a: &Dag, b: &Dag, first: &Canonical, second: &Canonical, options: &Options) -> Option<Proof> {
    let mut params: Vec<Param> = a.params().to_vec();
    let mut labels = first.labels.clone();
    let mut positions = vec![0; b.params().len()];
    let used = proof::used_params(&second.dag);
    for (index, partner) in second.matching(first).into_iter().enumerate() {
        positions[index] = match partner.filter(|_| used[index]) {
            Some(partner) => partner as u32,
            None => {
                let mut param = b.params()[index].clone();
                while params.iter().any(|other| other.name == param.name) {
                    param.name.push('_');
                }
                // A label of its own: it plays no part in the normal form.
                labels.push((1 << 16) + index as u32);
                params.push(param);
                params.len() as u32 - 1
            }
        };
    }
    let mut normalizer = Normalizer::new(options.relation, options.budget);
    let classes = params.iter().map(|param| ParamClass { extent: param.extent, init: param.init });
    normalizer.start(labels.into_iter().zip(classes));
    let raw_a = normalizer.read(a, |param| param as u32);
    let raw_b = normalizer.read(b, |param| positions[param]);
    if normalizer.canonical(raw_a) != normalizer.canonical(raw_b) || normalizer.exhausted() {
        return None;
    }
    if [raw_a, raw_b].into_iter().any(|raw| walk(&normalizer.terms, raw).len() > MAX_PROOF_TERMS) {
        return None;
    }
    let there = proof::moves(&mut normalizer, raw_a)?;
    let moves = proof::joined(there, proof::moves(&mut normalizer, raw_b)?);
    let terms = normalizer.terms;
    let steps = proof::written(&terms, &moves, &params)?;
    let state_differs = steps.iter().any(|step| step.rule.changes_state() && step.touches_batch_statistics());
    let names = |index: usize| (params[positions[index] as usize].name.clone(), b.params()[index].name.clone());
    let matching = (0..b.params().len()).filter(|&index| used[index]).map(names).collect();
    Some(Proof { moves, terms, positions, steps, matching, state_differs })
}
