//! Models that are broken, or made to do harm: an error or a layer, at once, and never a panic.

use std::time::{Duration, Instant};

use normact_emit::{Options, Target, emit, import_onnx};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::layers;

/// What reading one model may take; it takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

fn models(names: &[&str]) -> Vec<Vec<u8>> {
    let layers = layers::built_in().into_iter().filter(|layer| names.contains(&&*layer.name));
    let options = Options { channels: Some(4), ..Options::default() };
    let files = layers.flat_map(|layer| emit(&layer, Target::Onnx, &options).expect("the layer can be emitted"));
    files.map(|file| file.bytes).collect()
}

fn read(bytes: &[u8], what: &str) -> bool {
    let start = Instant::now();
    let imported = import_onnx(bytes);
    assert!(start.elapsed() < PATIENCE, "{what} took {:?}", start.elapsed());
    if let Err(errors) = &imported {
        assert!(!errors.0.is_empty() && !errors.to_string().is_empty(), "{what}: an error without a word");
    }
    imported.is_ok()
}

#[test]
fn a_model_that_ends_early_is_an_error() {
    for model in models(&["evonorm_s0", "dyt"]) {
        for len in 0..model.len() {
            // The functions come last: without them, the plain model is whole.
            let is_whole = read(&model[..len], &format!("a model of {len} bytes"));
            assert!(!is_whole, "{len} of {} bytes were read as a layer", model.len());
        }
    }
}

#[test]
fn random_damage_is_an_error_or_another_layer() {
    let models = models(&["evonorm_s0", "evonorm_b0", "rms_norm", "gn_silu"]);
    for seed in 0..20_000 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut model = models[rng.random_range(0..models.len())].clone();
        for _ in 0..rng.random_range(1..6) {
            let (at, len) = (rng.random_range(0..model.len()), rng.random_range(1..16));
            let end = (at + len).min(model.len());
            match rng.random_range(0..5) {
                0 => model[at] = rng.random_range(0..=255),
                1 => model[at] ^= 1 << rng.random_range(0..8),
                2 => drop(model.drain(at..end)),
                3 => {
                    let copy = model[at..end].to_vec();
                    let to = rng.random_range(0..=model.len());
                    model.splice(to..to, copy);
                }
                // The largest number that a field may have.
                _ => drop(model.splice(at..end, [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f])),
            }
            if model.is_empty() {
                break;
            }
        }
        let result = std::panic::catch_unwind(|| read(&model, &format!("seed {seed}")));
        assert!(result.is_ok(), "seed {seed}");
    }
}

#[test]
fn claims_are_not_believed() {
    // A graph, an initializer and its bytes, each said to be a gigabyte long.
    let gigabyte = [0x80, 0x80, 0x80, 0x80, 0x04];
    for fields in [&[0x3a][..], &[0x3a, 0x08, 0x2a], &[0x3a, 0x10, 0x2a, 0x0e, 0x4a]] {
        assert!(!read(&[fields, &gigabyte].concat(), "a gigabyte"));
    }
    // A million empty nodes, and more messages within messages than any stack holds.
    let mut nodes = vec![0x3a, 0x80, 0x80, 0x3c];
    nodes.extend([0x0a, 0x00].repeat(0xf_0000 / 2));
    assert!(!read(&nodes, "many nodes"));
    assert!(!read(&[0x3a, 0x7f].repeat(0x7_0000), "many levels"));
    assert!(!read(&vec![0; 2 << 20], "a large file"));
    assert!(!read(b"layer x(x) { x }", "a formula"));
}
