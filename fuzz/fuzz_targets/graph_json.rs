//! Any text as the JSON form of a graph: an error with a place, or a layer of which everything in
//! the library holds.

#![no_main]

use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target, fuzzer_mutate};
use normact_fuzz::holds;
use normact_ir::{INDEX_SETS, Moment, Prim, json};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

fuzz_target!(|bytes: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(bytes) else { return Corpus::Reject };
    match json::from_json(text) {
        Ok(layer) => holds(&layer),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    Corpus::Keep
});

// Changed bytes seldom make another graph, so every second change is one of a node.
fuzz_mutator!(|bytes: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let mut rng = ChaCha8Rng::seed_from_u64(seed.into());
    let changed = rng.random_bool(0.5).then(|| with_another_node(&bytes[..size], &mut rng)).flatten();
    match changed.map(|value| value.to_string()) {
        Some(text) if text.len() <= max_size => {
            bytes[..text.len()].copy_from_slice(text.as_bytes());
            text.len()
        }
        _ => fuzzer_mutate(bytes, size, max_size),
    }
});

/// The document with one node added at the end or put in the place of another.
fn with_another_node(bytes: &[u8], rng: &mut ChaCha8Rng) -> Option<Value> {
    let mut document: Value = serde_json::from_slice(bytes).ok()?;
    let params = document["params"].as_array().cloned().unwrap_or_default();
    let nodes = document.get_mut("nodes")?.as_array_mut()?;
    let place = rng.random_range(0..=nodes.len());
    let node = node(place, &params, rng);
    if place == nodes.len() { nodes.push(node) } else { nodes[place] = node }
    if rng.random_bool(0.5) {
        document["output"] = json!(place);
    }
    Some(document)
}

/// A node whose operands precede `place`.
fn node(place: usize, params: &[Value], rng: &mut ChaCha8Rng) -> Value {
    let numbers = [0.0, 1.0, -1.0, 0.5, -2.0, 1e-5, 1e-300, 5e-324, 1e16, 1e300];
    if place == 0 || rng.random_bool(0.2) {
        return match params.choose(rng).filter(|_| rng.random_bool(0.5)) {
            Some(param) => json!({"op": "param", "param": param["name"]}),
            None if rng.random_bool(0.5) => json!({"op": "input"}),
            None => json!({"op": "constant", "value": numbers.choose(rng)}),
        };
    }
    let mut operands = |count: usize| (0..count).map(|_| rng.random_range(0..place)).collect::<Vec<_>>();
    let (one, two) = (operands(1), operands(2));
    if rng.random_bool(0.6) {
        let prim = Prim::ALL.choose(rng).expect("there are primitives");
        return json!({"op": prim.name(), "args": if prim.arity().count() == 1 { one } else { two }});
    }
    let moment = Moment::ALL.choose(rng).expect("there are moments");
    let over = INDEX_SETS.choose(rng).map(|(name, _)| name);
    let mut node = json!({"op": moment.name(), "args": one, "over": over});
    let settings = [
        ("groups", json!(rng.random_range(1..6))),
        ("exact", json!(rng.random_bool(0.5))),
        ("eps", json!(numbers.choose(rng))),
        ("momentum", json!(rng.random_range(0.0..=1.0))),
        ("running", json!(["biased", "unbiased"].choose(rng))),
    ];
    for (key, value) in settings {
        if rng.random_bool(0.4) {
            node[key] = value;
        }
    }
    node
}
