//! Every rule on numbers, and what comes out of small layers.

use egg::{ENodeOrVar, Pattern};
use normact_ir::{
    Dag, Evaluation, Groups, IndexSet, Inputs, Mode, NodeId, Op, Operands, Running, Shape, Tracking, evaluate,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::rules::{Guard, Line, lines};
use super::*;
use crate::fingerprint::formula::layer;

/// A graph as a formula; a shared value is written at every use.
fn text(dag: &Dag) -> String {
    formula(dag, dag.output())
}

fn formula(dag: &Dag, id: NodeId) -> String {
    let name = match dag.op(id) {
        Op::Input => "x".to_owned(),
        Op::Constant(value) => value.to_string(),
        Op::Param(param) => dag.param(param).name.clone(),
        Op::Prim(prim) => prim.name().to_owned(),
        Op::Moment(op) if op.moment().is_root() && op.eps().get() != 1e-5 => {
            format!("{}/{}/{}", op.moment().name(), op.over(), op.eps())
        }
        Op::Moment(op) => format!("{}/{}", op.moment().name(), op.over()),
    };
    match dag.operands(id) {
        Operands::None => name,
        Operands::One(a) => format!("({name} {})", formula(dag, a)),
        Operands::Two(a, b) => format!("({name} {} {})", formula(dag, a), formula(dag, b)),
    }
}

fn simplified(input: &str) -> Simplified {
    simplify(&layer(input), &SimplifyBudget::default())
}

fn check(input: &str, expected: &str) {
    let result = simplified(input);
    assert_eq!(text(&result.dag), expected, "from {input} by {:?}", result.fired);
    assert_eq!(result.status, Status::Saturated, "{input}");
}

/// No form is cheaper than the one that is written.
fn stays(input: &str) {
    check(input, &text(&layer(input)));
}

#[test]
fn what_does_nothing_goes() {
    check("(add x 0)", "x");
    check("(neg (neg x))", "x");
    check("(mul (div x 1) 1)", "x");
    check("(add (mul x 0) v=1)", "v");
    check("(max x x)", "x");
    check("(add (add x v=1) (neg x))", "v");
    check("(add (max x 0) (neg (max (neg x) 0)))", "x");
    check("(mean/layer (mean/layer x))", "(mean/layer x)");
    check("(mean/batch v=1)", "v");
}

#[test]
fn what_may_be_undefined_stays() {
    stays("(mul 0 (log x))");
    stays("(div x x)");
    stays("(mul 0 (mean/layer (log x)))");
    stays("(exp (log x))");
    check("(div (exp x) (exp x))", "1");
    check("(exp (log (exp x)))", "(exp x)");
}

#[test]
fn activations_take_their_safe_form() {
    check("(div x (add 1 (exp (neg x))))", "(mul x (sigmoid x))");
    check("(mul (mul 0.5 x) (add 1 (tanh (div x 2))))", "(mul x (sigmoid x))");
    check("(mul (mul x 0.5) (add (tanh (mul 0.5 x)) 1))", "(mul x (sigmoid x))");
    check("(div (exp x) (add 1 (exp x)))", "(sigmoid x)");
    check("(div 1 (add 1 (exp (neg (mul v=1 x)))))", "(sigmoid (mul v x))");
    check("(mul x (add 1 (neg (sigmoid (neg x)))))", "(mul x (sigmoid x))");
    check("(mul (exp x) (exp (neg x)))", "1");
    stays("(add (max x 0) (log (add 1 (exp (neg (abs x))))))");
    stays("(mul 0.5 (mul x (add 1 (erf (mul 0.7 x)))))");
}

#[test]
fn statistics_are_recognized() {
    check("(sqrt (add (var/layer x) 0.001))", "(std/layer/0.001 x)");
    check("(sqrt (add (var/batch x) 0.001))", "(std/batch/0.001 x)");
    check("(sqrt (add 1e-5 (mean/group (square x))))", "(rms/group x)");
    check("(add (mean/layer (mul x x)) (neg (square (mean/layer x))))", "(var/layer x)");
    check("(sqrt (add 1e-5 (mean/layer (square (add x (neg (mean/layer x)))))))", "(std/layer x)");
    check("(std/layer (mul 2 x))", "(mul 2 (std/layer/2.5e-6 x))");
    check("(mean/layer (add (mul x 2) v:1))", "(add (mul 2 (mean/layer x)) v)");
    check("(mean/layer (add x (neg (mean/layer x))))", "0");
    check("(add (std/layer x) (var/layer x))", "(add (sqrt (add (var/layer x) 1e-5)) (var/layer x))");
    check("(mean/layer (mean/instance x))", "(mean/layer x)");
    stays("(mean/channel (mean/instance x))");
    // An eps of 1e-45 would be 0 in f32.
    stays("(std/layer (mul 1e20 x))");
}

#[test]
fn statistics_of_the_batch_keep_their_averages() {
    stays("(sqrt (add (mean/batch (square x)) 1e-5))");
    stays("(std/batch (mul 2 x))");
    stays("(add (mean/batch (mul x x)) (neg (square (mean/batch x))))");
    stays("(mean/batch (add (add x (neg x)) v=1))");
    stays("(max (var/batch (mul 0.1 (tanh x))) 0.5)");
    check("(max (var/instance (mul 0.1 (tanh x))) 0.5)", "0.5");
    check("(mean/batch (div x (add 1 (exp (neg x)))))", "(mean/batch (mul x (sigmoid x)))");
    // The frozen statistic does not keep the rest from becoming simpler.
    check("(mul 1 (add x (mean/batch (add (add x (neg x)) v=1))))", "(add x (mean/batch (add (add x (neg x)) v)))");
}

#[test]
fn averages_are_traced_and_keep_their_order() {
    let input = "(add (mul 0 (mean/batch x)) (add (std/batch (tanh x)) (mul (mean/batch (sigmoid x)) 1)))";
    let result = simplified(input);
    assert_eq!(text(&result.dag), "(add (std/batch (tanh x)) (mean/batch (sigmoid x)))");
    assert_eq!(result.buffers, [1, 2]);
    // Both stand for the average of `x + x`.
    let result = simplified("(mul (mean/batch (add x x)) (mean/batch (mul x 2)))");
    assert_eq!(text(&result.dag), "(mul (mean/batch (add x x)) (mean/batch (add x x)))");
    assert_eq!(result.buffers, [0]);
}

#[test]
fn work_moves_to_small_values() {
    check(
        "(add (mul (div (mul x (sigmoid (mul v=1 x))) (std/group x)) gamma=1) beta=0)",
        "(add (mul (mul x (sigmoid (mul v x))) (div gamma (std/group x))) beta)",
    );
    // Differences from statistics stay together: apart they lose digits.
    check(
        "(add (mul (div (add x (neg (mean/layer x))) (std/layer x)) gamma=1) beta=0)",
        "(add (mul (add x (neg (mean/layer x))) (div gamma (std/layer x))) beta)",
    );
    check("(add (add x beta=0) b=1)", "(add x (add beta b))");
}

#[test]
fn long_chains_are_in_reach() {
    let chain =
        |op: &str, terms: &[&str]| terms.iter().skip(1).fold(terms[0].to_owned(), |a, b| format!("({op} {a} {b})"));
    let names: Vec<String> = (0..12).map(|number| format!("(tanh (mul x p{number}={number}))")).collect();
    let mut terms: Vec<&str> = names.iter().map(String::as_str).collect();
    let sum = chain("add", &terms);
    terms.reverse();
    let result = simplified(&format!("(add {sum} (neg {}))", chain("add", &terms)));
    assert_eq!(text(&result.dag), "0");
}

#[test]
fn operands_in_any_order_cost_the_same() {
    for (a, b) in [
        ("(mul x (add 1 (tanh (mul 0.5 x))))", "(mul (add (tanh (mul x 0.5)) 1) x)"),
        ("(mul (div x (std/layer x)) gamma=1)", "(div (mul gamma=1 x) (std/layer x))"),
        ("(add (mul x v=1) v=1)", "(add v=1 (mul v=1 x))"),
    ] {
        assert_eq!(simplified(a).cost.1, simplified(b).cost.1, "{a} and {b}");
    }
}

#[test]
fn the_budget_is_respected() {
    let chain =
        (0..40).fold("x".to_owned(), |sum, number| format!("(mul (add {sum} (tanh {number}.5)) (add x {number}))"));
    let budget = SimplifyBudget { nodes: 300, iterations: 3, ..SimplifyBudget::default() };
    let result = simplify(&layer(&chain), &budget);
    assert_eq!(result.status, Status::Budget);
    assert!(result.cost.1 <= result.cost.0);
}

/// What a variable of a rule stands for.
#[derive(Clone, Copy)]
enum Bound {
    Node(NodeId),
    Number(f64),
    Set(Set),
}

/// One side of a rule with its variables filled in.
fn instance(builder: &mut Builder, side: &str, bound: &HashMap<String, Bound>) -> NodeId {
    let pattern: Pattern<ENode> = side.parse().unwrap();
    let nodes: Vec<_> = pattern.ast.iter().cloned().collect();
    let mut built: Vec<Bound> = Vec::new();
    for node in nodes {
        built.push(match node {
            ENodeOrVar::Var(var) => bound[&var.to_string()],
            ENodeOrVar::ENode(node) => {
                let children: Vec<Bound> = node.children().iter().map(|&id| built[usize::from(id)]).collect();
                apply(builder, node.head, &children)
            }
        });
    }
    as_node(builder, built[built.len() - 1])
}

fn as_node(builder: &mut Builder, bound: Bound) -> NodeId {
    match bound {
        Bound::Node(id) => id,
        Bound::Number(value) => builder.constant(Scalar::new(value).unwrap()),
        Bound::Set(_) => unreachable!("a set is no value"),
    }
}

fn apply(builder: &mut Builder, head: Head, children: &[Bound]) -> Bound {
    match (head, children) {
        (Head::Constant(value), _) => Bound::Number(value.get()),
        (Head::Prim(prim), [Bound::Number(a)]) => Bound::Number(prim.value(*a, 0.0)),
        (Head::Prim(prim), [Bound::Number(a), Bound::Number(b)]) => Bound::Number(prim.value(*a, *b)),
        (Head::Prim(prim), _) => {
            let operands: Vec<NodeId> = children.iter().map(|&child| as_node(builder, child)).collect();
            Bound::Node(builder.intern(Op::Prim(prim), Operands::from_slice(&operands).unwrap()))
        }
        (Head::Moment(moment), [Bound::Set(set), operand, rest @ ..]) => {
            let eps = match rest {
                [Bound::Number(eps)] => *eps,
                _ => 0.0,
            };
            let operand = as_node(builder, *operand);
            let op = set.moment(moment, Scalar::new(eps).unwrap());
            Bound::Node(builder.intern(Op::Moment(op), Operands::One(operand)))
        }
        _ => unreachable!("patterns are made of primitives, moments and numbers"),
    }
}

/// The variables of a rule: sets, numbers under roots or with a guard that says so, other values.
struct Variables {
    sets: Vec<String>,
    numbers: Vec<String>,
    values: Vec<String>,
}

fn variables(line: &Line) -> Variables {
    let pattern: Pattern<ENode> = line.from.parse().unwrap();
    let nodes: Vec<_> = pattern.ast.iter().cloned().collect();
    let mut found = Variables { sets: vec![], numbers: vec![], values: vec![] };
    let name = |id: Id| match &nodes[usize::from(id)] {
        ENodeOrVar::Var(var) => Some(var.to_string()),
        ENodeOrVar::ENode(_) => None,
    };
    for node in &nodes {
        if let ENodeOrVar::ENode(node) = node
            && matches!(node.head, Head::Moment(_))
        {
            found.sets.extend(name(node.children()[0]));
            found.numbers.extend(node.children().get(2).and_then(|&eps| name(eps)));
        }
    }
    let is_moment = !found.sets.is_empty();
    for guard in &line.guards {
        if let (Guard::Constant(name), true) = (guard, is_moment) {
            found.numbers.push((*name).to_owned());
        }
    }
    for var in pattern.vars() {
        let name = var.to_string();
        if !found.sets.contains(&name) && !found.numbers.contains(&name) {
            found.values.push(name);
        }
    }
    [&mut found.sets, &mut found.numbers].into_iter().for_each(|list| {
        list.sort();
        list.dedup();
    });
    found
}

/// Whether a guard about numbers holds of these; one about axes is asked elsewhere.
fn holds_of(guard: Guard, values: &[f64]) -> bool {
    let a = values[0];
    match guard {
        Guard::Nonzero(_) => a != 0.0,
        Guard::Positive(_) => a > 0.0,
        Guard::Negative(_) => a < 0.0,
        Guard::NotNegative(_) => a >= 0.0,
        Guard::NotPositive(_) => a <= 0.0,
        Guard::Defined(_) => a.is_finite(),
        Guard::AtLeast(..) => a >= values[1],
        Guard::Constant(_)
        | Guard::ConstantAlong(..)
        | Guard::PartOf(..)
        | Guard::WithinSample(_)
        | Guard::FewerAxes(..)
        | Guard::AwayFromZero(_)
        | Guard::NotOne(_)
        | Guard::NoConstant(_)
        | Guard::FreeOfInput(_)
        | Guard::OfInput(_)
        | Guard::Differ(..)
        | Guard::NoMultipleOfItself(_) => true,
    }
}

/// A guard about a value that is undefined does not hold, but for an order of undefined values: there both
/// sides are undefined.
fn guards_hold(line: &Line, value_of: impl Fn(&str) -> f64) -> bool {
    line.guards.iter().all(|&guard| {
        let values: Vec<f64> = guard.variables().into_iter().map(&value_of).collect();
        let undefined = values.iter().any(|value| value.is_nan()) && !matches!(guard, Guard::Defined(_));
        undefined || holds_of(guard, &values)
    })
}

/// The largest number that came up.
fn scale(dag: &Dag, evaluation: &Evaluation) -> f64 {
    let values = dag.ids().filter_map(|id| evaluation.value(id)).flat_map(|array| array.data().iter());
    values.filter(|value| value.is_finite()).fold(0.0, |largest: f64, value| largest.max(value.abs()))
}

fn same(line: &Line, a: f64, b: f64, scale: f64) {
    let both = a.is_finite() && b.is_finite();
    assert_eq!(a.is_finite(), b.is_finite(), "{}: {} = {}: {a} and {b}", line.name, line.from, line.to);
    assert!(
        !both || (a - b).abs() <= 1e-9 * a.abs() + 1e-13 * scale,
        "{}: {} = {}: {a} and {b}, scale {scale}",
        line.name,
        line.from,
        line.to
    );
}

const ASSIGNMENTS: usize = 20_000;

/// Numbers of both signs and all sizes, zero, and NaN for a value that is undefined.
fn number(rng: &mut ChaCha8Rng, largest: f64) -> f64 {
    let sign = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
    match rng.random_range(0..20) {
        0 | 1 => 0.0,
        2 => f64::NAN,
        3 | 4 => sign,
        5..=7 => sign * rng.random_range(1e-3..1.0),
        8..=10 => sign * rng.random_range(0.5..1.0) * largest,
        _ => sign * rng.random_range(0.1..5.0),
    }
}

fn check_elementwise(line: &Line, variables: &Variables, rng: &mut ChaCha8Rng) {
    let has_exp = ["exp", "sigmoid", "tanh"].iter().any(|name| line.from.contains(name));
    let largest = if has_exp { 100.0 } else { 1e6 };
    let mut builder = Builder::new();
    let mut bound = HashMap::new();
    for name in &variables.values {
        let param = Param { name: name.clone(), extent: Extent::PerChannel, init: Scalar::ZERO };
        let id = builder.declare(param).unwrap();
        bound.insert(name.clone(), Bound::Node(builder.intern(Op::Param(id), Operands::None)));
    }
    let sides = [&line.from, &line.to].map(|side| instance(&mut builder, side, &bound));
    let dags = sides.map(|side| builder.clone().finish(side));
    let shape = Shape::new(&[1, ASSIGNMENTS]).unwrap();
    let mut inputs = Inputs::initial(&dags[0], shape, vec![0.0; ASSIGNMENTS]);
    inputs.params.iter_mut().flatten().for_each(|value| *value = number(rng, largest));
    let evaluations = [&dags[0], &dags[1]].map(|dag| evaluate(dag, &inputs, Mode::Training).unwrap());
    let [a, b] = [0, 1].map(|side: usize| evaluations[side].output());
    let mut admitted = 0;
    for index in 0..ASSIGNMENTS {
        let value = |name: &str| {
            let position = variables.values.iter().position(|known| known == name).unwrap();
            inputs.params[position][index]
        };
        if !guards_hold(line, value) {
            continue;
        }
        admitted += 1;
        // An infinite part is undefined, even where the whole is finite again.
        let parts = [0, 1].map(|side: usize| -> Vec<f64> {
            let values = dags[side].ids().filter_map(|id| evaluations[side].value(id));
            values.map(|array| array.data()[if array.data().len() == 1 { 0 } else { index }]).collect()
        });
        let result =
            |side: usize, value: f64| if parts[side].iter().all(|part| part.is_finite()) { value } else { f64::NAN };
        let finite = parts.iter().flatten().filter(|part| part.is_finite());
        let scale = finite.fold(0.0, |largest: f64, part| largest.max(part.abs()));
        same(line, result(0, a[index]), result(1, b[index]), scale);
    }
    assert!(admitted >= ASSIGNMENTS / 4, "{}: {admitted} assignments", line.name);
}

/// The index sets within a sample, and over samples.
fn index_sets() -> ([Set; 5], [Set; 2]) {
    let groups = |count: u32| std::num::NonZeroU32::new(count).unwrap();
    let tracking = Tracking { momentum: Scalar::new(0.1).unwrap(), running: Running::Biased };
    let within = [
        IndexSet::Instance,
        IndexSet::Layer,
        IndexSet::Group(Groups::AtMost(groups(3))),
        IndexSet::Group(Groups::Exactly(groups(2))),
        IndexSet::Channel,
    ];
    let batch = [IndexSet::Batch, IndexSet::All];
    (within.map(|over| Set { over, tracking: None }), batch.map(|over| Set { over, tracking: Some(tracking) }))
}

/// A value that varies along all axes.
fn full_value(builder: &mut Builder, name: &str) -> NodeId {
    let mut param = |part: &str| {
        let name = format!("{name}{part}");
        let id = builder.declare(Param { name, extent: Extent::PerChannel, init: Scalar::ZERO }).unwrap();
        builder.intern(Op::Param(id), Operands::None)
    };
    let (p, q, r) = (param("p"), param("q"), param("r"));
    let x = builder.input();
    let linear = builder.binary(Prim::Mul, x, p);
    let wave = builder.binary(Prim::Mul, x, q);
    let wave = builder.unary(Prim::Tanh, wave);
    let wave = builder.binary(Prim::Mul, wave, r);
    builder.binary(Prim::Add, linear, wave)
}

fn check_moment(line: &Line, variables: &Variables, sets: &HashMap<String, Set>, rng: &mut ChaCha8Rng) -> usize {
    let mut builder = Builder::new();
    let mut bound: HashMap<String, Bound> = sets.iter().map(|(name, &set)| (name.clone(), Bound::Set(set))).collect();
    let mut numbers = HashMap::new();
    for name in &variables.numbers {
        let choices: &[f64] = if name == "?e" { &[0.0, 1e-5, 0.1, 3.0] } else { &[-2.0, -1.0, 0.5, 3.0, 100.0] };
        let value = choices[rng.random_range(0..choices.len())];
        numbers.insert(name.clone(), value);
        bound.insert(name.clone(), Bound::Number(value));
    }
    for name in &variables.values {
        let mut node = full_value(&mut builder, name);
        for guard in &line.guards {
            if let Guard::ConstantAlong(value, set) = guard
                && *value == name.as_str()
            {
                let op = sets[*set].moment(Moment::Mean, Scalar::ZERO);
                node = builder.intern(Op::Moment(op), Operands::One(node));
            }
        }
        bound.insert(name.clone(), Bound::Node(node));
    }
    let sides = [&line.from, &line.to].map(|side| instance(&mut builder, side, &bound));
    let dags = sides.map(|side| builder.clone().finish(side));
    let shape = Shape::new(&[3, 6, 2, 2]).unwrap();
    let mut size = 1.0;
    let x = (0..shape.elements()).map(|_| rng.random_range(-2.0..2.0)).collect();
    let mut inputs = Inputs::initial(&dags[0], shape, x);
    for (index, values) in inputs.params.iter_mut().enumerate() {
        // One size for the three parameters of a value; some values are 0 everywhere, some undefined.
        if index % 3 == 0 {
            size = [0.0, 1e-3, 1.0, 1.0, 1e3, 1e3, f64::NAN][rng.random_range(0..7)];
        }
        values.iter_mut().for_each(|value| *value = size * rng.random_range(-1.0..1.0));
    }
    let value_of = |name: &str| match (bound.get(name), variables.values.iter().position(|known| known == name)) {
        (_, Some(position)) => inputs.params[3 * position][0],
        (Some(Bound::Number(value)), _) => *value,
        _ => 1.0,
    };
    if !guards_hold(line, value_of) {
        return 0;
    }
    let other = Inputs { state: Inputs::initial(&dags[1], inputs.shape.clone(), vec![]).state, ..inputs.clone() };
    let a = evaluate(&dags[0], &inputs, Mode::Training).unwrap();
    let b = evaluate(&dags[1], &other, Mode::Training).unwrap();
    let scale = scale(&dags[0], &a).max(scale(&dags[1], &b));
    let tracked = sets.values().any(|set| set.tracking.is_some());
    for (&x, &y) in a.output().iter().zip(&b.output()) {
        // The root of what rounding leaves of zero.
        let root = if line.from.contains("std") && x.abs().max(y.abs()) < 1e-7 * scale { 1e-7 * scale } else { 0.0 };
        if (x - y).abs() > root || !x.is_finite() || !y.is_finite() {
            same(line, x, y, scale);
        }
    }
    if tracked {
        assert_eq!(a.state().len(), b.state().len(), "{} changes what is averaged", line.name);
        for (x, y) in a.state().iter().flatten().zip(b.state().iter().flatten()) {
            same(line, *x, *y, scale);
        }
    }
    a.output().len()
}

fn check_rule(line: &Line, rng: &mut ChaCha8Rng) {
    let (within, batch) = index_sets();
    let variables = variables(line);
    if variables.sets.is_empty() {
        return check_elementwise(line, &variables, rng);
    }
    let keeps_within = line.guards.iter().any(|guard| matches!(guard, Guard::WithinSample(_)));
    let allowed: Vec<Set> = if keeps_within { within.to_vec() } else { within.into_iter().chain(batch).collect() };
    let mut compared = 0;
    for &first in &allowed {
        for &second in if variables.sets.len() > 1 { allowed.as_slice() } else { &allowed[..1] } {
            let sets: HashMap<String, Set> = variables.sets.iter().cloned().zip([first, second]).collect();
            let part_of = line.guards.iter().all(|&guard| match guard {
                Guard::PartOf(set, larger, _) => {
                    let mut builder = Builder::new();
                    let x = builder.input();
                    let full = known(&builder.finish(x))[0];
                    guard.holds(&[Known::of_set(sets[set]), Known::of_set(sets[larger]), full])
                }
                _ => true,
            });
            for _ in 0..if part_of { 100 } else { 0 } {
                compared += check_moment(line, &variables, &sets, rng);
            }
        }
    }
    assert!(compared >= 10_000, "{}: {compared} numbers", line.name);
}

#[test]
fn every_rule_holds_on_numbers() {
    const SEED: u64 = 11;
    println!("seed {SEED}");
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    lines().iter().for_each(|line| check_rule(line, &mut rng));
}

#[test]
fn rules_that_are_wrong_are_found_out() {
    let along = || vec![Guard::WithinSample("?i")];
    for (from, to, guards) in [
        ("(exp (log ?a))", "?a", vec![]),
        ("(log (mul ?a ?b))", "(add (log ?a) (log ?b))", vec![]),
        ("(sqrt (square ?a))", "?a", vec![]),
        ("(add ?a (neg ?a))", "0", vec![]),
        ("(div ?a ?a)", "1", vec![Guard::Defined("?a")]),
        ("(div ?a ?a)", "1", vec![Guard::Nonzero("?a")]),
        ("(max (mul ?a ?c) (mul ?b ?c))", "(mul (max ?a ?b) ?c)", vec![]),
        ("(sign ?a)", "1", vec![Guard::NotNegative("?a"), Guard::Defined("?a")]),
        ("(div ?a (div ?b ?c))", "(div (mul ?a ?c) ?b)", vec![]),
        ("(mean ?i (mul ?a ?c))", "(mul (mean ?i ?a) ?c)", along()),
        ("(var ?i (add ?a ?c))", "(var ?i ?a)", vec![Guard::ConstantAlong("?c", "?i"), Guard::WithinSample("?i")]),
        ("(var ?i (add ?a ?b))", "(add (var ?i ?a) (var ?i ?b))", along()),
        ("(mean ?i (mean ?j ?a))", "(mean ?i ?a)", along()),
        ("(sqrt (add (mean ?i (square ?a)) ?e))", "(rms ?i ?a ?e)", vec![]),
        (
            "(std ?i (mul ?k ?a) ?e)",
            "(mul (abs ?k) (std ?i ?a ?e))",
            vec![Guard::Constant("?k"), Guard::WithinSample("?i")],
        ),
    ] {
        let line = Line {
            theme: crate::rules::Theme::Ring,
            name: "wrong".to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            guards,
        };
        let outcome = std::panic::catch_unwind(|| check_rule(&line, &mut ChaCha8Rng::seed_from_u64(1)));
        assert!(outcome.is_err(), "{from} = {to} was accepted");
    }
}

#[test]
fn names_of_rules_are_unique() {
    let mut names: Vec<String> = lines().into_iter().map(|line| line.name).collect();
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn rules_say_when_they_hold() {
    let rules = simplify_rules();
    let find = |name: &str| rules.iter().find(|rule| rule.name == name).unwrap();
    let rule = find("divide-by-itself");
    assert_eq!(rule.statement, "(div ?a ?a) = 1 if ?a != 0 and ?a is defined");
    assert_eq!((rule.class, rule.changes_gradient), (crate::rules::Class::Guarded, false));
    let rule = find("abs-even");
    assert_eq!(rule.statement, "(abs (neg ?a)) = (abs ?a)");
    assert_eq!((rule.class, rule.changes_gradient), (crate::rules::Class::Exact, true));
}

#[test]
fn large_layers_are_bounded() {
    let deep = (0..400).fold("x".to_owned(), |inner, _| format!("(add (tanh {inner}) 0)"));
    let result = simplified(&deep);
    assert_eq!(text(&result.dag).matches("tanh").count(), 400);
    assert!(!text(&result.dag).contains("add"));
    let mut builder = Builder::new();
    let x = builder.input();
    let deeper = (0..3000).fold(x, |inner, _| builder.unary(Prim::Tanh, inner));
    assert_eq!(simplify(&builder.finish(deeper), &SimplifyBudget::default()).status, Status::Budget);
    let wide = (0..150).fold("x".to_owned(), |sum, number| format!("(add {sum} (mul {number}.5 (tanh x)))"));
    assert!(simplified(&wide).dag.len() < 10);
}
