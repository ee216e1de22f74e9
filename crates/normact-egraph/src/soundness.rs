//! Every rule on numbers: instances of each rule, from formulas that call for it and from random
//! graphs, are evaluated on at least 10,000 random assignments with all signs, zeros and large values;
//! rules about statistics on tensors.

use std::collections::BTreeMap;

use normact_ir::random::Space;
use normact_ir::{Dag, Inputs, Mode, Op, Operands, Prim, Shape, Slope, evaluate};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::check::Checker;
use crate::fingerprint::formula::layer;
use crate::normal::{Budget, Normalizer, Relation};
use crate::proof::{self, Move};
use crate::rules::{Class, Rule, Theme};
use crate::term::ParamClass;
use crate::write::write;

/// Formulas whose normal forms need the rules that random graphs seldom meet.
const FORMULAS: &[&str] = &[
    "(add (add 0.1 0.2) (mul 3 (mul 4 x)))",
    "(add (add x v=1) (add x (mul 2 x)))",
    "(mul (add x v=1) (add x (neg v=1)))",
    "(add (mul x v=1) (mul (square x) v=1))",
    "(add x (mul (square (add x v=1)) w=0.5))",
    "(mul 0 (sigmoid x))",
    "(mul 0 (div 1 x))",
    "(mul (mul 1 x) (add 0 v=1))",
    "(log (mul (mul -3 x) (mul (exp v=1) (square w=0.5))))",
    "(log (exp (add x 2)))",
    "(exp (mul 2 (log (abs x))))",
    "(exp (add (log (add 1 (square x))) v=1))",
    "(exp (mul 0.5 (log (abs (tanh x)))))",
    "(mul (exp x) (exp v=1))",
    "(square (exp (sqrt x)))",
    "(tanh (neg x))",
    "(tanh (mul -2 (add x v=1)))",
    "(erf (mul (abs x) v=1))",
    "(tanh (mul (sign x) v=1))",
    "(abs (tanh x))",
    "(sqrt (abs (erf x)))",
    "(sign (tanh (add x v=1)))",
    "(add 1 (neg (sigmoid x)))",
    "(add x (mul v=1 (sigmoid (neg x))))",
    "(add v=1 (square (sigmoid (neg x))))",
    "(add (mul 2 (sigmoid x)) -1)",
    "(add x (add (mul 2 (mul x (sigmoid v=1))) (neg x)))",
    "(add 1 (tanh x))",
    "(add (mul x (tanh v=1)) (mul 3 x))",
    "(mul (exp (neg x)) (sigmoid x))",
    "(mul (exp (mul -2 x)) (square (sigmoid x)))",
    "(div x (add 1 (exp (neg x))))",
    "(add 0.25 (exp (add x v=1)))",
    "(max (max x v=1) (max 2 3))",
    "(max (max x v=1) (max x w=0.5))",
    "(max (sigmoid x) -1)",
    "(max x (sqrt (add (square x) 1)))",
    "(max x (exp x))",
    "(max (max x (neg x)) 0)",
    "(max (add v=1 (abs x)) w=0.5)",
    "(max (max (add x v=1) (add w=0.5 v=1)) v=1)",
    "(max (max (mul 3 x) (mul 2 v=1)) w=0.5)",
    "(max (max (mul (exp u=2) x) (mul (exp u=2) v=1)) (mul (exp u=2) w=0.5))",
    "(abs (max x 1))",
    "(log (max x 1))",
    "(abs (neg (exp x)))",
    "(sign (sigmoid x))",
    "(sign (neg (sigmoid x)))",
    "(abs (sign x))",
    "(abs (sqrt (square x)))",
    "(mul (sqrt x) (sqrt x))",
    "(mul (sign x) (abs x))",
    "(mul (sign x) x)",
    "(div x x)",
    "(div 1 (div 1 x))",
    "(div (square x) x)",
    "(sqrt (div (mul 4 x) v=1))",
    "(div 1 0)",
    "(add x (log 0))",
    "(sigmoid (sigmoid 1))",
    "(sqrt -2)",
    "(std/instance x)",
    "(rms/layer x)",
    "(rms/layer (add x v=1))",
    "(mean/batch (mul v=1 (add (mul 2 x) 1)))",
    "(mean/batch v=1)",
    "(var/batch v=1)",
    "(var/layer (div 1 w:2))",
    "(mean/layer (mean/instance x))",
    "(mean/batch (mean/layer x))",
    "(mean/batch (mean/group=2 x))",
    "(mean/batch (mean/group=2 (square x)))",
    "(mean/layer (var/instance x))",
    "(mean/group=2 (mean/group=4 (exp x)))",
    "(rms/group=2 (std/group=4 (rms/group=2 v=1)))",
    "(std/group=4 (rms/group=2 (std/group=4 x)))",
    "(mean/batch (mul x (mean/instance x)))",
    "(mean/layer (mul x v=1))",
    "(mean/layer (mul v=1 (mul x (mean/instance (exp x)))))",
    "(mean/all (mul x (exp (mean/layer x))))",
    "(mean/instance (square (mul x (sigmoid x))))",
    "(var/batch (add (mul 3 x) v=1))",
    "(var/layer (add (mul x (mean/layer x)) 2))",
    "(std/group=2 (mul (mul 2 (mean/layer x)) x))",
    "(mean/batch (std/instance (mean/layer x)))",
    "(mean/layer (mul (sigmoid x) (add x v=1)))",
];

/// The steps from a layer to its normal form, as graphs.
fn instances(dag: &Dag, relation: Relation) -> Vec<(Move, Class, Dag, Dag)> {
    let params = dag.params();
    let mut normalizer = Normalizer::new(relation, Budget::default());
    let classes = params.iter().map(|param| ParamClass { extent: param.extent, init: param.init });
    normalizer.start((0..).zip(classes));
    let raw = normalizer.read(dag, |param| param as u32);
    normalizer.canonical(raw);
    let moves = if normalizer.exhausted() { None } else { proof::moves(&mut normalizer, raw) };
    let mut checker = Checker::new(normalizer.terms.clone());
    moves
        .unwrap_or_default()
        .into_iter()
        .map(|step| {
            let class = checker.class_of(&step).unwrap_or_else(|reason| {
                panic!("{}: {reason}: {} -> {}", step.rule.name(), text(dag), normalizer.terms.len())
            });
            (step, class, write(&normalizer.terms, step.from, params), write(&normalizer.terms, step.to, params))
        })
        .collect()
}

fn text(dag: &Dag) -> String {
    normact_ir::json::to_json(&normact_ir::Layer { name: "g".to_owned(), dag: dag.clone() })
}

/// A value on one assignment.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Value {
    /// A number with a bound on its rounding error.
    Number(f64, f64),
    /// Not defined in real arithmetic.
    Undefined,
    /// Too large or too small for f64, or decided by rounding errors.
    Unknown,
}

/// The value of an elementwise graph for numbers in place of the input and the parameters.
fn value(dag: &Dag, x: f64, params: &[f64]) -> Value {
    let live = dag.live();
    let mut values: Vec<Value> = vec![Value::Unknown; dag.len()];
    for id in dag.ids().filter(|id| live[id.index()]) {
        let at = |operand: normact_ir::NodeId| values[operand.index()];
        values[id.index()] = match (dag.op(id), dag.operands(id)) {
            (Op::Input, _) => Value::Number(x, 0.0),
            (Op::Constant(value), _) => Value::Number(value.get(), 1e-11 * value.get().abs()),
            (Op::Param(param), _) => Value::Number(params[param.index()], 0.0),
            (Op::Prim(prim), Operands::One(a)) => apply(prim, at(a), Value::Number(0.0, 0.0)),
            (Op::Prim(prim), Operands::Two(a, b)) => apply(prim, at(a), at(b)),
            _ => unreachable!("an elementwise graph"),
        };
    }
    values[dag.output().index()]
}

fn apply(prim: Prim, a: Value, b: Value) -> Value {
    let ((a, error_a), (b, error_b)) = match (a, b) {
        (Value::Undefined, _) | (_, Value::Undefined) => return Value::Undefined,
        (Value::Unknown, _) | (_, Value::Unknown) => return Value::Unknown,
        (Value::Number(a, error_a), Value::Number(b, error_b)) => ((a, error_a), (b, error_b)),
    };
    if (prim == Prim::Div && b == 0.0 && error_b == 0.0) || (prim == Prim::Log && a == 0.0 && error_a == 0.0) {
        return Value::Undefined;
    }
    // Near a zero, a rounding error would decide.
    let doubtful = |value: f64, error: f64| error > 0.0 && value.abs() <= 100.0 * error;
    let decides = match prim {
        Prim::Div => doubtful(b, error_b),
        Prim::Log | Prim::Sqrt | Prim::Sign => doubtful(a, error_a),
        _ => false,
    };
    let result = prim.value(a, b);
    let underflow = result != 0.0 && result.abs() < 1e-290
        || result == 0.0 && matches!(prim, Prim::Exp | Prim::Sigmoid)
        || result == 0.0
            && matches!(prim, Prim::Mul | Prim::Div | Prim::Square)
            && a != 0.0
            && (b != 0.0 || prim == Prim::Square);
    if decides || !result.is_finite() || underflow {
        return Value::Unknown;
    }
    let inherited = match prim.slope(a, b, result) {
        Slope::Unary(slope) => slope.abs() * error_a,
        // Both slopes of a maximum are at most 1.
        Slope::Binary(..) if prim == Prim::Max => error_a.max(error_b),
        Slope::Binary(da, db) => da.abs() * error_a + db.abs() * error_b,
    };
    Value::Number(result, 2.0 * inherited + 1e-15 * result.abs())
}

/// Numbers of all signs and sizes, zero among them.
fn number(rng: &mut ChaCha8Rng) -> f64 {
    match rng.random_range(0..10) {
        0 => 0.0,
        1 => [1.0, -1.0, 2.0, 0.5][rng.random_range(0..4)],
        2 => rng.random_range(-1e3..1e3),
        3 => rng.random_range(-1e-3..1e-3),
        4 => rng.random_range(-1e6..1e6),
        _ => rng.random_range(-3.0..3.0),
    }
}

/// Compares both sides; returns whether they could be compared.
fn assert_agree(rule: Rule, class: Class, from: Value, to: Value, context: &dyn Fn() -> String) -> usize {
    match (from, to) {
        (Value::Unknown, _) | (_, Value::Unknown) => return 0,
        (Value::Undefined, Value::Undefined) => {}
        (Value::Number(a, error_a), Value::Number(b, error_b)) => {
            let tolerance = 1e-9 * a.abs().max(b.abs()) + error_a + error_b;
            assert!((a - b).abs() <= tolerance, "{}: {a} and {b}, {}", rule.name(), context());
        }
        (Value::Undefined, Value::Number(..)) | (Value::Number(..), Value::Undefined) => assert_eq!(
            class,
            Class::AlmostEverywhere,
            "{} changes where the value is defined, {}",
            rule.name(),
            context()
        ),
    }
    1
}

#[test]
fn every_rule_holds_on_numbers() {
    let seed = 11;
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut graphs: Vec<Dag> = FORMULAS.iter().map(|formula| layer(formula)).collect();
    for _ in 0..1_500 {
        graphs.push(Space::evonorm().draw(&mut rng).dag);
        graphs.push(Space::language().draw(&mut rng).dag);
    }
    let mut found: BTreeMap<Rule, Vec<(Class, Dag, Dag)>> = BTreeMap::new();
    for dag in &graphs {
        for relation in [Relation::Exact, Relation::AlmostEverywhere] {
            for (step, class, from, to) in instances(dag, relation) {
                let of_rule = found.entry(step.rule).or_default();
                if of_rule.len() < 200 {
                    of_rule.push((class, from, to));
                }
            }
        }
    }
    for &rule in Rule::ALL {
        let instances = found.get(&rule).unwrap_or_else(|| panic!("no instance of {}", rule.name()));
        let (mut assignments, mut rounds) = (0, 0);
        while assignments < 10_000 {
            rounds += 1;
            assert!(rounds < 20_000, "{} has no instance that can be evaluated", rule.name());
            for (class, from, to) in instances {
                let has_moments = [from, to].iter().any(|dag| dag.ids().any(|id| matches!(dag.op(id), Op::Moment(_))));
                if has_moments {
                    assignments += on_tensors(rule, *class, from, to, &mut rng);
                    continue;
                }
                for _ in 0..20 {
                    let x = number(&mut rng);
                    let mut params: Vec<f64> = from.params().iter().map(|_| number(&mut rng)).collect();
                    if *class == Class::AlmostEverywhere {
                        params.iter_mut().for_each(|param| *param += 0.123_456);
                    }
                    let context = || format!("x = {x}, {params:?}\n{}\n{}", text(from), text(to));
                    // Almost everywhere says nothing about a zero that was drawn on purpose.
                    if *class == Class::AlmostEverywhere && x == 0.0 {
                        continue;
                    }
                    let (left, right) = (value(from, x, &params), value(to, x, &params));
                    assignments += assert_agree(rule, *class, left, right, &context);
                }
            }
        }
        println!("{:24} {:5} instances {assignments:6} assignments", rule.name(), instances.len());
        assert!(rule.theme() != Theme::Moment || instances.len() > 1);
    }
}

/// Evaluates both sides on a tensor; returns how many elements were compared.
fn on_tensors(rule: Rule, class: Class, from: &Dag, to: &Dag, rng: &mut ChaCha8Rng) -> usize {
    let shape = Shape::new(&[3, 4, 5]).unwrap();
    let scale = [1.0, 1.0, 30.0, 0.01][rng.random_range(0..4)];
    let zeros = rng.random_range(0..4) == 0 && class != Class::AlmostEverywhere;
    let x: Vec<f64> = (0..shape.elements())
        .map(|_| if zeros && rng.random_range(0..3) == 0 { 0.0 } else { scale * rng.random_range(-2.0..2.0) })
        .collect();
    let params: Vec<Vec<f64>> = Inputs::initial(from, shape.clone(), x.clone())
        .params
        .into_iter()
        .map(|values| values.iter().map(|_| rng.random_range(-2.0..2.0)).collect())
        .collect();
    let output = |dag: &Dag| {
        let inputs = Inputs { params: params.clone(), ..Inputs::initial(dag, shape.clone(), x.clone()) };
        let evaluation = evaluate(dag, &inputs, Mode::Training).unwrap();
        let finite = |id| evaluation.value(id).is_none_or(|value| value.data().iter().all(|v| v.is_finite()));
        let largest = dag
            .ids()
            .filter_map(|id| evaluation.value(id))
            .flat_map(|value| value.data().to_vec())
            .fold(1.0, |largest: f64, value| largest.max(value.abs()));
        (evaluation.output(), dag.ids().all(finite), largest)
    };
    let ((a, a_finite, a_largest), (b, b_finite, b_largest)) = (output(from), output(to));
    if !a_finite || !b_finite {
        return usize::from(rule == Rule::UndefinedSpreads);
    }
    for (a, b) in a.iter().zip(&b) {
        // Square roots of what cancels keep half of the digits.
        let tolerance = 1e-6 * a.abs().max(b.abs()) + 1e-13 * a_largest.max(b_largest) + 1e-9;
        let rough = (a - b).abs() <= 1e-5 && a.abs().max(b.abs()) < 1e-2;
        assert!((a - b).abs() <= tolerance || rough, "{}: {a} and {b}\n{}\n{}", rule.name(), text(from), text(to));
    }
    a.len()
}
