//! Simplified layers against the layers they come from, on numbers.

use normact_egraph::{Simplified, SimplifyBudget, Status, simplify};
use normact_ir::random::Space;
use normact_ir::{Buffers, Dag, Inputs, Layer, Mode, Shape, evaluate, json};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const LAYERS: usize = 5_000;

/// What a layer gives for one input in both modes: outputs, gradients and running averages of a step of
/// training, then the output in evaluation mode.
struct Run {
    /// For each mode, the output with the gradients after it.
    modes: [Vec<f64>; 2],
    state: Vec<Vec<f64>>,
}

fn run(dag: &Dag, inputs: &Inputs, dy: &[f64]) -> Run {
    let training = evaluate(dag, inputs, Mode::Training).unwrap();
    let state = training.state().to_vec();
    let settled = Inputs { state: state.clone(), ..inputs.clone() };
    let evaluation = evaluate(dag, &settled, Mode::Evaluation).unwrap();
    let modes = [training, evaluation].map(|evaluation| {
        let gradients = evaluation.gradients(dy);
        let mut numbers = evaluation.output();
        numbers.extend(gradients.x);
        numbers.extend(gradients.params.into_iter().flatten());
        numbers
    });
    Run { modes, state }
}

fn normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (rng.random_range(1e-9..1.0), rng.random_range(0.0..1.0));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// The relative size of the disturbance that shows how well a number is determined.
const DISTURBANCE: f64 = 1e-9;

/// Compares the two on a random input: what differs, else how many numbers were compared.
fn compare(dag: &Dag, simplified: &Simplified, rng: &mut ChaCha8Rng) -> Result<usize, String> {
    let shape = Shape::new(&[3, 6, 2, 2]).unwrap();
    let scale = [0.3, 1.0, 3.0][rng.random_range(0..3)];
    let x: Vec<f64> = (0..shape.elements()).map(|_| scale * normal(rng)).collect();
    let dy: Vec<f64> = (0..shape.elements()).map(|_| normal(rng)).collect();
    let mut inputs = Inputs::initial(dag, shape, x);
    inputs.params.iter_mut().flatten().for_each(|value| *value = normal(rng));
    let mut other = Inputs::initial(&simplified.dag, inputs.shape.clone(), inputs.x.clone());
    other.params.clone_from(&inputs.params);
    let (a, b) = (run(dag, &inputs, &dy), run(&simplified.dag, &other, &dy));
    let mut moved = inputs.clone();
    moved.x.iter_mut().chain(moved.params.iter_mut().flatten()).for_each(|value| {
        *value *= 1.0 + DISTURBANCE * normal(rng);
    });
    let c = run(dag, &moved, &dy);
    let mut compared = 0;
    let differs = |a: f64, b: f64, c: f64| {
        let tolerance = 1e-8 * a.abs() + 1e-10 + 1e-3 * (a - c).abs();
        a.is_finite() && c.is_finite() && (!b.is_finite() || (a - b).abs() > tolerance)
    };
    for (mode, ((a, b), c)) in a.modes.iter().zip(&b.modes).zip(&c.modes).enumerate() {
        // Nothing is asked of a layer that is undefined here.
        if a[..dy.len()].iter().any(|value| !value.is_finite()) {
            continue;
        }
        for (index, ((&a, &b), &c)) in a.iter().zip(b).zip(c).enumerate() {
            compared += usize::from(a.is_finite() && c.is_finite());
            if differs(a, b, c) {
                return Err(format!("number {index} in mode {mode}: {a} and {b} ({c})"));
            }
        }
    }
    for (index, &origin) in simplified.buffers.iter().enumerate() {
        for ((&a, &b), &c) in a.state[origin].iter().zip(&b.state[index]).zip(&c.state[origin]) {
            if differs(a, b, c) {
                return Err(format!("buffer {index}: {a} and {b} ({c})"));
            }
        }
    }
    Ok(compared)
}

fn check_space(name: &str, space: &Space) {
    let budget = SimplifyBudget::default();
    let (mut saturated, mut rewritten, mut compared) = (0, 0, 0);
    let mut failures = Vec::new();
    for seed in 0..LAYERS as u64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let layer = space.draw(&mut rng);
        let simplified = simplify(&layer.dag, &budget);
        assert!(simplified.cost.1 <= simplified.cost.0, "{name}, seed {seed}: {:?}", simplified.cost);
        assert_eq!(simplified.buffers.len(), Buffers::of(&simplified.dag).list().len());
        let again = simplify(&layer.dag, &budget);
        assert!(
            again.dag == simplified.dag && again.fired == simplified.fired,
            "{name}, seed {seed}: not deterministic"
        );
        let twice = simplify(&simplified.dag, &budget);
        assert!(twice.cost.1 <= simplified.cost.1, "{name}, seed {seed}: {:?} then {:?}", simplified.cost, twice.cost);
        saturated += usize::from(simplified.status == Status::Saturated);
        rewritten += usize::from(!simplified.fired.is_empty());
        match compare(&layer.dag, &simplified, &mut rng) {
            Ok(numbers) if !simplified.fired.is_empty() => compared += usize::from(numbers > 0),
            Ok(_) => {}
            Err(what) => failures.push(format!(
                "seed {seed}: {what}\n{}\n{}\n{:?}",
                json::to_json(&layer),
                json::to_json(&Layer { name: "simplified".to_owned(), dag: simplified.dag }),
                simplified.fired,
            )),
        }
    }
    println!("{name}, seeds below {LAYERS}: {saturated} saturated, {rewritten} rewritten, {compared} of them compared");
    assert!(failures.is_empty(), "{} layers changed\n{}", failures.len(), failures[..failures.len().min(4)].join("\n"));
    assert!(saturated > LAYERS * 97 / 100, "{saturated} layers saturated");
    assert!(rewritten > LAYERS / 3 && compared > rewritten / 2, "{rewritten} rewritten, {compared} compared");
}

#[test]
fn layers_of_the_evonorm_space_keep_their_meaning() {
    check_space("evonorm", &Space::evonorm());
}

#[test]
fn layers_of_the_whole_language_keep_their_meaning() {
    check_space("language", &Space::language());
}
