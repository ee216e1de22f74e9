//! What users of keys rely on: the order in which a layer is written does not matter, and layers with
//! one key are one function.
//!
//! `NORMACT_LONG=1` runs a million graphs instead of 20,000.

mod support;

use std::collections::HashMap;
use std::time::Instant;

use normact_egraph::{Budget, Canonical, Canonicalizer, Fingerprint, Fingerprinter, Key, Status, canonical};
use normact_ir::random::Space;
use normact_ir::{Builder, Dag, Groups, IndexSet, NodeId, Op, Prim, Scalar};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use support::{finite_output, inputs, shuffled};

fn is_long() -> bool {
    std::env::var_os("NORMACT_LONG").is_some()
}

#[test]
fn the_order_of_writing_does_not_matter() {
    let seed = 20_260_101;
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut canonicalizer = Canonicalizer::default();
    let mut out_of_budget = 0;
    for (space, count) in [(Space::evonorm(), 90_000), (Space::language(), 10_000)] {
        for number in 0..count {
            let dag = space.draw(&mut rng).dag;
            let copy = shuffled(&dag, &mut rng);
            let (first, second) = (canonicalizer.key(&dag), canonicalizer.key(&copy));
            if first.1 == Status::Budget {
                out_of_budget += 1;
                continue;
            }
            assert_eq!(first, second, "seed {seed}, graph {number}:\n{}\n{}", text(&dag), text(&copy));
        }
    }
    println!("{out_of_budget} of 100000 graphs ran out of budget");
    assert!(out_of_budget < 100);
}

fn text(dag: &Dag) -> String {
    normact_ir::json::to_json(&normact_ir::Layer { name: "g".to_owned(), dag: dag.clone() })
}

#[test]
fn layers_with_one_key_are_one_function() {
    let count = if is_long() { 1_000_000 } else { 20_000 };
    let seed = if is_long() { u64::from(std::process::id()) } else { 7 };
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut first_of: HashMap<Key, (Dag, Canonical)> = HashMap::new();
    let mut fingerprinter = Fingerprinter::new();
    let mut fingerprints: HashMap<Key, Fingerprint> = HashMap::new();
    let (mut compared, mut not_finite) = (0, 0);
    for number in 0..count {
        // Every third graph is from the whole language, with all moments and index sets.
        let space = if number % 3 == 0 { Space::language() } else { Space::evonorm() };
        let dag = space.draw(&mut rng).dag;
        let form = canonical(&dag, Budget::default());
        let fingerprint = fingerprinter.of(&dag);
        // An exact number of groups that does not divide the channels is an error of its own, which a
        // simpler form need not have.
        if fingerprint != Fingerprint::Unstable && !has_exact_groups(&dag) {
            let known = *fingerprints.entry(form.key).or_insert(fingerprint);
            assert_eq!(known, fingerprint, "seed {seed}, graph {number}: one key, two fingerprints\n{}", text(&dag));
        }
        let values: Vec<Vec<f64>> = dag.params().iter().map(|_| vec![0.0; 6]).collect();
        let values: Vec<Vec<f64>> =
            values.into_iter().map(|value| value.iter().map(|_| rng.random_range(-1.5..1.5)).collect()).collect();
        let input = inputs(&dag, &[3, 6, 2], values, &mut rng);
        let Some(expected) = finite_output(&dag, &input) else {
            not_finite += 1;
            continue;
        };
        let mut check = |other: &Dag, what: &str, matching: &[Option<usize>]| {
            let mut params = vec![vec![0.3; 6]; other.params().len()];
            for (own, other) in matching.iter().enumerate() {
                if let Some(other) = other {
                    params[*other] = input.params[own].clone();
                }
            }
            let input = normact_ir::Inputs {
                params,
                ..normact_ir::Inputs::initial(other, input.shape.clone(), input.x.clone())
            };
            let Some(found) = finite_output(other, &input) else { return };
            compared += 1;
            let scale = expected.iter().fold(1.0, |scale: f64, value| scale.max(value.abs()));
            for (a, b) in expected.iter().zip(&found) {
                assert!(
                    (a - b).abs() <= 1e-6 * scale,
                    "seed {seed}, graph {number}, against {what}: {a} and {b}\n{}\n{}",
                    text(&dag),
                    text(other)
                );
            }
        };
        let same: Vec<Option<usize>> = (0..dag.params().len()).map(Some).collect();
        check(&form.dag, "its canonical form", &same);
        match first_of.get(&form.key) {
            Some((first, first_form)) => check(first, "an earlier graph with its key", &form.matching(first_form)),
            None => drop(first_of.insert(form.key, (dag, form))),
        }
    }
    println!("{compared} comparisons, {} keys, {not_finite} graphs with values that are not finite", first_of.len());
    assert!(compared > count);
}

fn has_exact_groups(dag: &Dag) -> bool {
    let exact = |id| matches!(dag.op(id), Op::Moment(op) if matches!(op.over(), IndexSet::Group(Groups::Exactly(_))));
    dag.ids().any(exact)
}

/// A chain of distinct terms, in a random order and with random brackets.
fn chain(prim: Prim, terms: usize, rng: &mut ChaCha8Rng) -> Dag {
    let mut builder = Builder::new();
    let x = builder.input();
    let mut operands: Vec<NodeId> = (0..terms)
        .map(|number| {
            let constant = builder.constant(Scalar::new(0.37 + number as f64).unwrap());
            let scaled = builder.binary(Prim::Mul, constant, x);
            builder.unary(Prim::Tanh, scaled)
        })
        .collect();
    operands.shuffle(rng);
    while operands.len() > 1 {
        let a = operands.swap_remove(rng.random_range(0..operands.len()));
        let b = operands.swap_remove(rng.random_range(0..operands.len()));
        operands.push(builder.binary(prim, a, b));
    }
    builder.finish(operands[0])
}

#[test]
fn thirty_terms_have_one_key_in_every_order() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for prim in [Prim::Add, Prim::Mul, Prim::Max] {
        let mut canonicalizer = Canonicalizer::default();
        let start = Instant::now();
        let keys: Vec<_> = (0..100).map(|_| canonicalizer.key(&chain(prim, 30, &mut rng))).collect();
        println!("{}: {:?} a key", prim.name(), start.elapsed() / 100);
        assert!(keys.iter().all(|key| *key == keys[0] && key.1 == Status::Saturated), "{}", prim.name());
    }
}
