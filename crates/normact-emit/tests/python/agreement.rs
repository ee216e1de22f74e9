//! What emitted files compute, in float64, against the evaluator: every built-in layer and random graphs, with
//! outputs, gradients and running averages. One program per library checks all of them, and how the files get
//! on with what else the library does: compiling, tracing, half precision, saved weights.

use std::io::{Write, stderr};
use std::path::Path;
use std::process::Command;

use normact_emit::{Options, Target, emit};
use normact_ir::Layer;
use normact_ir::random::Space;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use crate::cases::Case;
use crate::layers::{built_in, compiled};

/// Numbers of channels that 32 groups divide, and that they do not.
const BUILT_IN_SHAPES: [&[usize]; 5] = [&[2, 64, 3, 5], &[3, 48, 7], &[5, 6], &[2, 40, 2, 1, 3], &[1, 4, 1, 1]];

/// Even numbers of channels, since the language's space has an exact `group(2)`.
const RANDOM_SHAPES: [&[usize]; 9] = [
    &[5, 6],
    &[1, 4],
    &[3, 6, 5],
    &[4, 2, 1],
    &[2, 6, 3, 5],
    &[3, 4, 1, 1],
    &[1, 8, 7, 3],
    &[2, 4, 3, 1, 5],
    &[3, 2, 2, 3, 2],
];

/// What no built-in layer has, and random graphs have seldom.
const CORNERS: &str = "
layer kinks(x) { max(abs(x), sqrt(x - x)) * sign(x) + sqrt(mean[batch](x - x)) + std[instance](x - x, eps = 0) }
layer ties(x) { param a = 1
    relu(x) * a + sqrt(x) * abs(x) + sqrt(a * x) + leaky_relu(x) + max(-abs(x), x) }
layer words(x) {
    param torch = 1
    param x_ = 2
    param list: scalar = 0.5
    param y = 0
    param n = 1
    param jnp = 1
    param state = 1
    param groups_2 = 1
    param t1 = 1
    (x * torch + x_ * list) * n * jnp * state * groups_2 / (1 + exp(-t1)) + y
}
layer settings(x) {
    let wide = mean[group](x, groups = 4) + mean[group(2)](x) + var[group](x, groups = 2)
    let running = std[batch](x, momentum = 0.3, running = unbiased) + std[batch](x, running = biased)
    wide / running + rms[all](x) - var[channel](x) + mean[all](x) * var[all](x)
}
layer narrow(x) { param a: scalar = -1.5
    a * rms[layer](x) + var[batch](a) }
layer undefined(x) { x * log(0) }
layer boundless(x) { param a = 1
    max(exp(a * x), -exp(1000)) + exp(1000) * x }
layer number(x) { 3 * sqrt(2) + 0 * mean[all](x) }
layer signs(x) { param a = 1
    -(x * -a) - (x - (a - -x)) / -(x / (a / -2)) - -3 }
";

#[test]
fn pytorch_agrees() {
    agree(Target::Pytorch, "check_pytorch.py");
}

#[test]
fn jax_agrees() {
    agree(Target::Jax, "check_jax.py");
}

fn agree(target: Target, program: &str) {
    let Ok(python) = std::env::var("NORMACT_PYTHON") else {
        // Not by `eprintln!`, which cargo hides for tests that pass.
        let message = format!(
            "SKIPPED: what emitted {} files compute. To test it, set NORMACT_PYTHON to what \
             crates/normact-emit/tests/python/environment prints, or run ./test --long\n",
            target.name()
        );
        let _ = stderr().write_all(message.as_bytes());
        return;
    };
    // It stays, for a look at what failed.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(target.name());
    if folder.exists() {
        std::fs::remove_dir_all(&folder).expect("the folder is this test's own");
    }
    std::fs::create_dir_all(&folder).expect("the folder can be made");
    let mut cases = vec![];
    for (layer, _) in built_in() {
        for (number, shape) in BUILT_IN_SHAPES.iter().enumerate() {
            let name = layer.name.clone();
            cases.push((Case::draw(layer.clone(), shape, number as u64), layer.clone(), name, "built_in"));
        }
    }
    for layer in compiled(CORNERS) {
        for (number, shape) in [&[2, 8, 3, 2][..], &[3, 4]].into_iter().enumerate() {
            let name = layer.name.clone();
            let case = Case::draw(layer.clone(), shape, number as u64).at_kinks();
            cases.push((case, layer.clone(), name, "corner"));
        }
    }
    for (space, name) in [(Space::language(), "language"), (Space::evonorm(), "search")] {
        for seed in 0..150 {
            let mut layer = space.draw(&mut ChaCha8Rng::seed_from_u64(seed));
            layer.name = format!("{name}_{seed}");
            let shape = RANDOM_SHAPES[seed as usize % RANDOM_SHAPES.len()];
            cases.push((Case::draw(layer.clone(), shape, seed), layer.clone(), layer.name, "random"));
        }
    }
    let (mut values, mut compared, mut random) = (vec![], 0, 0);
    for (case, layer, name, kind) in cases {
        write(&folder, &layer, target);
        let Some((mut value, is_steady)) = case.json(&class(&name)) else { continue };
        value["kind"] = json!(kind);
        random += usize::from(kind == "random");
        compared += usize::from(kind == "random" && is_steady);
        values.push(value);
    }
    println!("{random} of 300 random graphs stay in range, {compared} of them steady");
    assert!(compared >= 270, "only {compared} random graphs could be compared");
    let file = folder.join("cases.json");
    std::fs::write(&file, serde_json::to_vec(&values).expect("cases are JSON")).expect("the folder can be written to");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(program);
    let output =
        Command::new(&python).arg("-B").arg(program).arg(&folder).output().expect("NORMACT_PYTHON is a Python");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{} disagrees", target.name());
}

fn write(folder: &Path, layer: &Layer, target: Target) {
    for file in emit(layer, target, &Options::default()).expect("the layers can be emitted") {
        std::fs::write(folder.join(file.name), file.bytes).expect("the folder can be written to");
    }
}

/// The name of the class that a layer becomes.
fn class(name: &str) -> String {
    let words = name.split('_').map(|word| {
        let (first, rest) = word.split_at(1.min(word.len()));
        first.to_uppercase() + rest
    });
    words.collect()
}
