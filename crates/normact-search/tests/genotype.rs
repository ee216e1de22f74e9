//! Genotypes: every one is a layer, mutations change what they say, and all choices are equally likely.

#![allow(missing_docs)]

use std::collections::HashMap;

use normact_ir::{Inputs, Mode, Shape, evaluate, json};
use normact_search::{Drawing, Genotype, Space, Uniform, structure};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SEED: u64 = 5;

#[test]
fn every_genotype_is_a_layer_that_keeps_the_shape() {
    println!("seed {SEED}");
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    for batch_free in [false, true] {
        let space = Space::evonorm(10, batch_free);
        for _ in 0..500 {
            let mut genotype = space.draw(&mut rng);
            (0..rng.random_range(0..5)).for_each(|_| space.mutate(&mut genotype, &mut rng));
            let layer = genotype.layer("one");
            assert_eq!(layer.dag.len(), 14 + 4, "dead nodes stay");
            let shape = Shape::new(&[2, 4, 3, 3]).unwrap();
            let x = (0..72).map(f64::from).collect();
            let inputs = Inputs::initial(&layer.dag, shape, x);
            assert_eq!(evaluate(&layer.dag, &inputs, Mode::Training).unwrap().output().len(), 72);
            assert_eq!(json::from_json(&json::to_json(&layer)).unwrap(), layer);
            assert_eq!(space.parse(&genotype.to_string()).unwrap(), genotype);
        }
    }
}

#[test]
fn a_mutation_changes_one_gene_at_most() {
    let space = Space::evonorm(10, false);
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut places = HashMap::new();
    for _ in 0..20_000 {
        let parent = space.draw(&mut rng);
        let mut child = parent.clone();
        space.mutate(&mut child, &mut rng);
        assert!(parent.distance(&child) <= 1);
        let text = |genotype: &Genotype| genotype.to_string().split(' ').map(str::to_owned).collect::<Vec<_>>();
        let changed = text(&parent).iter().zip(text(&child)).position(|(a, b)| *a != b);
        if let Some(place) = changed {
            *places.entry(place).or_insert(0u32) += 1;
        }
    }
    assert!((0..10).all(|place| places[&place] > 1700), "every gene is as likely: {places:?}");
}

#[test]
fn operations_and_operands_are_uniform() {
    for (batch_free, count) in [(false, 24), (true, 21)] {
        let space = Space::evonorm(10, batch_free);
        assert_eq!(space.operations().len(), count);
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let (mut ops, mut operands) = (HashMap::new(), HashMap::new());
        for _ in 0..4000 {
            for (place, gene) in space.draw(&mut rng).to_string().split(' ').enumerate() {
                let (op, rest) = gene.split_once('(').unwrap();
                *ops.entry(op.to_owned()).or_insert(0.0) += 1.0;
                for operand in rest.trim_end_matches(')').split(',') {
                    *operands.entry((place, operand.parse::<usize>().unwrap())).or_insert(0.0) += 1.0;
                }
            }
        }
        assert_eq!(ops.len(), count);
        let expected = 40_000.0 / count as f64;
        assert!(ops.values().all(|times: &f64| (times / expected - 1.0).abs() < 0.15), "{ops:?}");
        for place in 0..10 {
            let total: f64 = (0..place + 4).map(|operand| operands[&(place, operand)]).sum();
            let share = total / (place + 4) as f64;
            assert!((0..place + 4).all(|operand| (operands[&(place, operand)] / share - 1.0).abs() < 0.2));
        }
    }
}

/// Says of the first of many genes how often each operation came, and whether both operands were one node.
fn first_genes(drawing: Drawing) -> (HashMap<String, f64>, bool) {
    const DRAWN: usize = 40_000;
    let space = Space::evonorm(1, false).drawn(drawing);
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let (mut shares, mut repeats) = (HashMap::new(), false);
    for _ in 0..DRAWN {
        let gene = space.draw(&mut rng).to_string();
        let (op, rest) = gene.split_once('(').unwrap();
        *shares.entry(op.to_owned()).or_insert(0.0) += 1.0 / DRAWN as f64;
        repeats |= rest.trim_end_matches(')').split_once(',').is_some_and(|(a, b)| a == b);
    }
    (shares, repeats)
}

#[test]
fn a_moment_can_count_once_and_operands_can_be_different() {
    let (shares, repeats) = first_genes(Drawing { uniform: Uniform::Primitives, replacement: false });
    assert!(!repeats);
    assert_eq!(shares.len(), 24);
    for (op, share) in shares {
        // 12 elementwise primitives and 3 moments, each with 4 index sets.
        let expected = if op.contains('[') { 1.0 / 15.0 / 4.0 } else { 1.0 / 15.0 };
        assert!((share / expected - 1.0).abs() < 0.15, "{op}: {share}");
    }
    let (shares, repeats) = first_genes(Drawing::default());
    assert!(repeats && shares.values().all(|share| (share * 24.0 - 1.0).abs() < 0.15), "{shares:?}");
}

#[test]
fn texts_that_are_no_genotype_are_refused() {
    let space = Space::evonorm(2, true);
    assert!(space.parse("mul(0,3) neg(4)").is_ok());
    for text in
        ["", "mul(0,3)", "mul(0,3) neg(5)", "mul(0) neg(4)", "mul(0,3) neg(4) neg(5)", "std[batch](0) neg(4)", "x y"]
    {
        let error = space.parse(text).unwrap_err();
        assert!(error.to_string().contains("no gene of this search space"), "{error}");
    }
}

#[test]
fn layers_that_ignore_their_input_are_found() {
    let space = Space::evonorm(2, false);
    for (text, depends, varies) in [
        ("mul(0,3) neg(4)", true, true),
        ("neg(0) add(0,4)", false, false),
        ("mul(0,1) exp(4)", false, false),
        ("neg(2) add(3,4)", false, false),
        ("div(0,0) neg(4)", false, false),
        ("mean[instance](0) tanh(4)", true, false),
        ("mul(0,1) mean[batch](0)", true, false),
    ] {
        let dag = space.parse(text).unwrap().layer("one").dag;
        assert_eq!(structure(&dag, true).is_none(), depends, "{text}");
        assert_eq!(structure(&dag, false).is_none(), varies, "{text}");
    }
}
