//! What holds of every primitive and every graph: laws, derivatives, ranges, round trips.

use normact_ir::json::{from_json, to_json, to_json_pretty};
use normact_ir::random::Space;
use normact_ir::{
    Buffers, Inputs, Interval, Law, Layer, Mode, Prim, Shape, Slope, check, evaluate, findings, gradcheck, infer,
    ranges,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Numbers of all signs and sizes.
fn number(rng: &mut ChaCha8Rng) -> f64 {
    let magnitude = match rng.random_range(0..10) {
        0 => 0.0,
        1 => 1.0,
        2 => 10f64.powf(rng.random_range(-12.0..12.0)),
        _ => rng.random_range(0.0..5.0),
    };
    if rng.random_bool(0.5) { magnitude } else { -magnitude }
}

fn same(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-9 * (1.0 + a.abs().max(b.abs()))
}

#[test]
fn every_law_holds_on_numbers() {
    for &prim in Prim::ALL {
        for &law in prim.laws() {
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            for round in 0..10_000 {
                let (a, b, c) = (number(&mut rng), number(&mut rng), number(&mut rng));
                let f = |a: f64, b: f64| prim.value(a, b);
                let (left, right) = match law {
                    Law::Commutative => (f(a, b), f(b, a)),
                    Law::Associative => {
                        // Sums of very different numbers lose their smallest term in any order.
                        let scale = 1.0 + a.abs() + b.abs() + c.abs();
                        let (left, right) = (f(f(a, b), c), f(a, f(b, c)));
                        if prim == Prim::Add { (left / scale, right / scale) } else { (left, right) }
                    }
                    Law::Idempotent => (f(a, a), a),
                    Law::Identity(e) => (f(a, e) + f(e, a), 2.0 * a),
                    Law::RightIdentity(e) => (f(a, e), a),
                    Law::Absorbing(e) => (f(a, e) + f(e, a), 2.0 * e),
                    Law::Involution => (f(f(a, 0.0), 0.0), a),
                    Law::Projection => (f(f(a, 0.0), 0.0), f(a, 0.0)),
                    Law::Odd => (f(-a, 0.0), -f(a, 0.0)),
                    Law::Even => (f(-a, 0.0), f(a, 0.0)),
                };
                assert!(same(left, right), "{prim:?} {law:?}, round {round}: {left} and {right} at {a}, {b}, {c}");
            }
        }
    }
}

#[test]
fn every_slope_is_the_derivative() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for &prim in Prim::ALL {
        for _ in 0..2_000 {
            // Away from the kinks at 0 and at a = b.
            let mut away = || rng.random_range(0.05..3.0) * if rng.random_bool(0.5) { 1.0 } else { -1.0 };
            let (a, b): (f64, f64) = (away(), away());
            if (a - b).abs() < 0.01 {
                continue;
            }
            let difference = |da: f64, db: f64| {
                let central =
                    |h: f64| (prim.value(a + h * da, b + h * db) - prim.value(a - h * da, b - h * db)) / (2.0 * h);
                (4.0 * central(5e-5) - central(1e-4)) / 3.0
            };
            let close = |slope: f64, difference: f64| (slope - difference).abs() <= 1e-8 * (1.0 + slope.abs());
            match prim.slope(a, b, prim.value(a, b)) {
                Slope::Unary(slope) => assert!(close(slope, difference(1.0, 0.0)), "{prim:?} at {a}"),
                Slope::Binary(da, db) => {
                    assert!(close(da, difference(1.0, 0.0)), "{prim:?} at {a}, {b}");
                    assert!(close(db, difference(0.0, 1.0)), "{prim:?} at {a}, {b}");
                }
            }
        }
    }
}

#[test]
fn slopes_at_kinks_are_as_stated() {
    let at = |prim: Prim, a: f64, b: f64| prim.slope(a, b, prim.value(a, b));
    assert_eq!(at(Prim::Max, 2.0, 2.0), Slope::Binary(0.5, 0.5));
    assert_eq!(at(Prim::Max, 3.0, 2.0), Slope::Binary(1.0, 0.0));
    assert_eq!(at(Prim::Abs, 0.0, 0.0), Slope::Unary(0.0));
    assert_eq!(at(Prim::Sqrt, 0.0, 0.0), Slope::Unary(0.0));
    assert_eq!(at(Prim::Sqrt, -4.0, 0.0), Slope::Unary(0.25));
    assert_eq!(at(Prim::Sign, 0.0, 0.0), Slope::Unary(0.0));
}

#[test]
fn extreme_operands_are_safe() {
    for x in [88.0, 100.0, 1e4, 1e30, f64::MAX] {
        assert_eq!(Prim::Tanh.value(x, 0.0), 1.0);
        assert_eq!(Prim::Tanh.value(-x, 0.0), -1.0);
        assert!((0.0..1e-38).contains(&Prim::Sigmoid.value(-x, 0.0)));
        assert!((0.0..1e-38).contains(&Prim::Exp.value(-x, 0.0)));
    }
    for &prim in Prim::ALL.iter().filter(|prim| **prim != Prim::Sign) {
        assert!(prim.value(f64::NAN, 1.0).is_nan(), "{prim:?} keeps NaN");
    }
}

#[test]
fn every_range_holds_its_values() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    for &prim in Prim::ALL {
        for _ in 0..5_000 {
            let mut interval = || {
                let (a, b) = (number(&mut rng), number(&mut rng));
                Interval::new(a.min(b), a.max(b))
            };
            let (a, b) = (interval(), interval());
            let range = prim.range(a, b);
            for _ in 0..4 {
                let x = rng.random_range(a.low()..=a.high());
                let y = rng.random_range(b.low()..=b.high());
                let value = prim.value(x, y);
                if !value.is_finite() {
                    continue;
                }
                let slack = 1e-12 * (1.0 + value.abs());
                assert!(
                    range.low() <= value + slack && value - slack <= range.high(),
                    "{prim:?} of {x} in {a:?}, {y} in {b:?}: {value} not in {range:?}"
                );
                // Ranges are of real numbers; exp(-800) is positive there and 0 in f64.
                let underflow = x.abs() > 700.0 || y.abs() > 700.0;
                assert!(
                    value != 0.0 || range.contains_zero() || underflow,
                    "{prim:?} of {x} in {a:?}, {y} in {b:?} is zero"
                );
            }
        }
    }
}

fn graphs(count: u64) -> impl Iterator<Item = (u64, Layer)> {
    (0..count).map(|seed| {
        let space = if seed % 2 == 0 { Space::language() } else { Space::evonorm() };
        (seed, space.draw(&mut ChaCha8Rng::seed_from_u64(seed)))
    })
}

fn inputs(layer: &Layer, seed: u64) -> Inputs {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5eed);
    let shape = [vec![4, 6], vec![3, 4, 5], vec![2, 6, 3, 2], vec![3, 2, 2, 1, 3]][seed as usize % 4].clone();
    let shape = Shape::new(&shape).unwrap();
    let x = (0..shape.elements()).map(|_| rng.random_range(-2.0..2.0)).collect();
    let mut inputs = Inputs::initial(&layer.dag, shape, x);
    inputs.params.iter_mut().flatten().for_each(|value| *value += rng.random_range(-0.5..0.5));
    inputs
}

#[test]
fn json_keeps_every_graph_node_for_node() {
    for (seed, layer) in graphs(3_000) {
        assert_eq!(from_json(&to_json(&layer)).as_ref(), Ok(&layer), "seed {seed}");
        assert_eq!(from_json(&to_json_pretty(&layer)).as_ref(), Ok(&layer), "seed {seed}");
    }
}

#[test]
fn the_normal_form_is_the_same_function_and_its_own_normal_form() {
    for (seed, layer) in graphs(1_000) {
        let normal = layer.dag.normalized();
        assert_eq!(normal.normalized(), normal, "seed {seed}");
        assert!(normal.live().iter().all(|live| *live), "seed {seed}");
        let inputs = inputs(&layer, seed);
        let before = evaluate(&layer.dag, &inputs, Mode::Training).unwrap();
        let after = evaluate(&normal, &inputs, Mode::Training).unwrap();
        let bits = |values: Vec<f64>| values.into_iter().map(f64::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(before.output()), bits(after.output()), "seed {seed}");
    }
}

#[test]
fn gradients_of_random_graphs_agree_with_finite_differences() {
    let (mut compared, mut skipped) = (0, 0);
    for (seed, layer) in graphs(400) {
        let inputs = inputs(&layer, seed);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let dy: Vec<f64> = (0..inputs.x.len()).map(|_| rng.random_range(-1.0..1.0)).collect();
        for mode in [Mode::Training, Mode::Evaluation] {
            let evaluation = evaluate(&layer.dag, &inputs, mode).unwrap();
            // A difference means something where the function is finite and not too steep or curved.
            let gradients = evaluation.gradients(&dy);
            let tame = |values: &[f64]| values.iter().all(|value| value.abs() < 1e3);
            let values_tame = layer.dag.ids().filter_map(|id| evaluation.value(id)).all(|value| tame(value.data()));
            if !values_tame || !tame(&gradients.x) || !gradients.params.iter().all(|values| tame(values)) {
                skipped += 1;
                continue;
            }
            compared += 1;
            for check in gradcheck(&layer.dag, &inputs, &dy, mode).unwrap() {
                // At a kink that lies on the point itself the one-sided derivatives differ.
                let at_kink = has_tie(&layer, &evaluation);
                assert!(check.worst < 1e-5 || at_kink, "seed {seed} {mode:?}: {check:?}\n{}", to_json(&layer));
            }
        }
    }
    assert!(compared > 300, "only {compared} graphs were compared, {skipped} skipped");
}

/// Whether some `max`, `abs`, `sqrt` or `log` is within reach of its kink.
fn has_tie(layer: &Layer, evaluation: &normact_ir::Evaluation<'_>) -> bool {
    let dag = &layer.dag;
    dag.ids().any(|id| {
        let operands: Vec<_> = dag.operands(id).iter().filter_map(|operand| evaluation.value(operand)).collect();
        match (dag.op(id), operands.as_slice()) {
            (normact_ir::Op::Prim(Prim::Abs | Prim::Sqrt | Prim::Log | Prim::Sign | Prim::Square), [x])
            | (normact_ir::Op::Moment(_), [x]) => x.data().iter().any(|value| value.abs() < 1e-3),
            (normact_ir::Op::Prim(Prim::Max), [a, b]) => {
                a.data().iter().any(|a| b.data().iter().any(|b| (a - b).abs() < 1e-3))
            }
            (normact_ir::Op::Prim(Prim::Div), [_, b]) => b.data().iter().any(|value| value.abs() < 1e-2),
            _ => false,
        }
    })
}

#[test]
fn values_vary_only_along_the_axes_inferred_and_stay_in_their_range() {
    for (seed, layer) in graphs(600) {
        let inputs = inputs(&layer, seed);
        let evaluation = evaluate(&layer.dag, &inputs, Mode::Training).unwrap();
        let (axes, ranges) = (infer(&layer.dag), ranges(&layer.dag));
        for id in layer.dag.ids() {
            let Some(value) = evaluation.value(id) else { continue };
            let (axes, range) = (axes[id.index()], ranges[id.index()]);
            let [samples, channels, positions] = value.dims();
            assert!(axes.samples || samples == 1, "seed {seed}, node {}", id.index());
            assert!(axes.channels != normact_ir::Channels::One || channels == 1, "seed {seed}, node {}", id.index());
            assert!(axes.positions || positions == 1, "seed {seed}, node {}", id.index());
            for &value in value.data().iter().filter(|value| value.is_finite()) {
                let slack = 1e-9 * (1.0 + value.abs());
                assert!(
                    range.low() <= value + slack && value - slack <= range.high(),
                    "seed {seed}, node {}: {value} not in {range:?}",
                    id.index()
                );
            }
        }
        // The other analyses take any graph.
        drop((findings(&layer.dag), Buffers::of(&layer.dag), check(&layer.dag, &inputs.shape)));
    }
}

#[test]
fn statistics_are_stable() {
    use normact_ir::{Builder, IndexSet, Moment, MomentOp, Op, Operands, Running, Scalar, Tracking};
    let mut builder = Builder::new();
    let x = builder.input();
    let tracking = Tracking { momentum: Scalar::new(0.1).unwrap(), running: Running::Biased };
    let op = MomentOp::new(Moment::Var, IndexSet::Instance, Scalar::ZERO, tracking);
    let var = builder.intern(Op::Moment(op), Operands::One(x));
    let dag = builder.finish(var);
    let shape = Shape::new(&[1, 1, 1000]).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    let noise: Vec<f64> = (0..1000).map(|_| rng.random_range(-1.0..1.0)).collect();
    let mean = noise.iter().sum::<f64>() / 1000.0;
    let expected = noise.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / 1000.0;
    for offset in [0.0, 1e4, 1e8] {
        let x = noise.iter().map(|noise| noise + offset).collect();
        let output = evaluate(&dag, &Inputs::initial(&dag, shape.clone(), x), Mode::Training).unwrap().output();
        assert!((output[0] / expected - 1.0).abs() < 1e-6, "offset {offset}: {} and {expected}", output[0]);
    }
}
