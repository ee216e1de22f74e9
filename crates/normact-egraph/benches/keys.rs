//! How fast keys and simpler forms are made, and how complete the keys are, beside an e-graph with the
//! usual rules. Prints a table and, last, one line of JSON.
//!
//! `cargo bench -p normact-egraph -- 100000` takes that many random layers instead of 20,000.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::time::Instant;

use egg::{AstSize, Extractor, RecExpr, Rewrite, Runner, SymbolLang, rewrite};
use normact_egraph::{Budget, Canonicalizer, Fingerprint, Fingerprinter, Key, SimplifyBudget, Status, simplify};
use normact_ir::random::Space;
use normact_ir::{Builder, Dag, NodeId, Op, Operands, Prim, Scalar};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SEED: u64 = 1;

fn main() {
    let count = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(20_000);
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let space = Space::evonorm();
    let layers: Vec<Dag> = (0..count).map(|_| space.draw(&mut rng).dag).collect();
    println!("{count} random layers of 14 nodes and a final scale and shift, one core, seed {SEED}\n");
    let mut json = Json::new(count);

    let mut canonicalizer = Canonicalizer::new(Budget::default());
    let (keys, times) = timed(&layers, |dag| canonicalizer.key(dag));
    let budget = keys.iter().filter(|(_, status)| *status == Status::Budget).count();
    report("keys", &times, &mut json, "keys");
    println!("  out of budget: {budget}");
    json.number("keys_out_of_budget", budget as f64);

    let mut fingerprinter = Fingerprinter::new();
    let (fingerprints, times) = timed(&layers, |dag| (canonicalizer.key(dag), fingerprinter.of(dag)).1);
    report("keys with fingerprints", &times, &mut json, "keys_with_fingerprints");

    println!("\n30 distinct terms in 200 random orders");
    for prim in [Prim::Add, Prim::Mul, Prim::Max] {
        let orders: Vec<Dag> = (0..200).map(|_| chain(prim, 30, &mut rng)).collect();
        let (keys, times) = timed(&orders, |dag| canonicalizer.key(dag).0);
        let distinct = keys.iter().collect::<std::collections::BTreeSet<_>>().len();
        let each = mean(&times);
        println!("  {}: {distinct} key(s), {:.3} ms each", prim.name(), each * 1e3);
        json.number(&format!("chain_{}_keys", prim.name()), distinct as f64);
        json.number(&format!("chain_{}_ms", prim.name()), each * 1e3);
    }

    baseline(&layers, &mut rng, &mut json);
    missed(&layers, &keys, &fingerprints, &mut json);

    let sample = &layers[..layers.len().min(2_000)];
    let (forms, times) = timed(sample, |dag| simplify(dag, &SimplifyBudget::default()));
    println!();
    report("simplify", &times, &mut json, "simplify");
    let saturated = forms.iter().filter(|form| form.status == Status::Saturated).count();
    let share = |part: usize| 100.0 * part as f64 / sample.len() as f64;
    println!("  saturated: {:.1} %", share(saturated));
    json.number("simplify_saturated_percent", share(saturated));
    println!("\n{}", json.finish());
}

/// Applies a function to every layer, timing each.
fn timed<T>(layers: &[Dag], mut of: impl FnMut(&Dag) -> T) -> (Vec<T>, Vec<f64>) {
    let timed = layers.iter().map(|dag| {
        let start = Instant::now();
        let result = of(dag);
        (result, start.elapsed().as_secs_f64())
    });
    timed.unzip()
}

fn mean(times: &[f64]) -> f64 {
    times.iter().sum::<f64>() / times.len() as f64
}

fn report(what: &str, times: &[f64], json: &mut Json, key: &str) {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |share: f64| sorted[((sorted.len() - 1) as f64 * share) as usize] * 1e6;
    let rate = 1.0 / mean(times);
    println!("{what}: {rate:.0} a second; p50 {:.0} µs, p99 {:.0} µs, max {:.0} µs", at(0.5), at(0.99), at(1.0));
    json.number(&format!("{key}_per_second"), rate);
    for (name, share) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        json.number(&format!("{key}_{name}_us"), at(share));
    }
}

/// `tanh(x) op tanh(2 * x) op ...` in a random order, with random brackets.
fn chain(prim: Prim, terms: usize, rng: &mut ChaCha8Rng) -> Dag {
    let mut builder = Builder::new();
    let x = builder.input();
    let mut parts: Vec<NodeId> = (1..=terms)
        .map(|number| {
            let number = builder.constant(Scalar::new(number as f64).expect("small numbers are finite"));
            let product = builder.binary(Prim::Mul, number, x);
            builder.unary(Prim::Tanh, product)
        })
        .collect();
    while parts.len() > 1 {
        let a = parts.swap_remove(rng.random_range(0..parts.len()));
        let b = parts.swap_remove(rng.random_range(0..parts.len()));
        parts.push(builder.binary(prim, a, b));
    }
    builder.finish(parts[0])
}

/// egg with associativity, commutativity, distributivity and identities, its default limits, and the
/// smallest term as the form.
fn baseline(layers: &[Dag], rng: &mut ChaCha8Rng, json: &mut Json) {
    let rules = usual_rules();
    println!("\nan e-graph with the usual rules, egg's default limits, smallest term");
    let sample = &layers[..layers.len().min(200)];
    let (_, times) = timed(sample, |dag| usual_form(dag, &rules));
    report("  random layers", &times, json, "baseline");
    for terms in 4..=10 {
        let orders: Vec<Dag> = (0..12).map(|_| chain(Prim::Add, terms, rng)).collect();
        let (forms, times) = timed(&orders, |dag| usual_form(dag, &rules));
        let mut votes: HashMap<&str, usize> = HashMap::new();
        forms.iter().for_each(|form| *votes.entry(form).or_default() += 1);
        let agree = votes.values().max().copied().unwrap_or(0);
        println!("  sum of {terms}: {agree} of {} orders agree, {:.0} ms each", orders.len(), mean(&times) * 1e3);
        json.number(&format!("baseline_sum_{terms}_agree_percent"), 100.0 * agree as f64 / orders.len() as f64);
        json.number(&format!("baseline_sum_{terms}_ms"), mean(&times) * 1e3);
    }
}

fn usual_rules() -> Vec<Rewrite<SymbolLang, ()>> {
    vec![
        rewrite!("add-commutative"; "(add ?a ?b)" => "(add ?b ?a)"),
        rewrite!("mul-commutative"; "(mul ?a ?b)" => "(mul ?b ?a)"),
        rewrite!("max-commutative"; "(max ?a ?b)" => "(max ?b ?a)"),
        rewrite!("add-associative"; "(add (add ?a ?b) ?c)" => "(add ?a (add ?b ?c))"),
        rewrite!("mul-associative"; "(mul (mul ?a ?b) ?c)" => "(mul ?a (mul ?b ?c))"),
        rewrite!("max-associative"; "(max (max ?a ?b) ?c)" => "(max ?a (max ?b ?c))"),
        rewrite!("distribute"; "(mul ?a (add ?b ?c))" => "(add (mul ?a ?b) (mul ?a ?c))"),
        rewrite!("factor-out"; "(add (mul ?a ?b) (mul ?a ?c))" => "(mul ?a (add ?b ?c))"),
        rewrite!("add-zero"; "(add ?a 0)" => "?a"),
        rewrite!("mul-one"; "(mul ?a 1)" => "?a"),
        rewrite!("max-idempotent"; "(max ?a ?a)" => "?a"),
        rewrite!("neg-neg"; "(neg (neg ?a))" => "?a"),
        rewrite!("cancel"; "(add ?a (neg ?a))" => "0"),
        rewrite!("div-one"; "(div ?a 1)" => "?a"),
        rewrite!("square"; "(mul ?a ?a)" => "(square ?a)"),
    ]
}

fn usual_form(dag: &Dag, rules: &[Rewrite<SymbolLang, ()>]) -> String {
    let dag = dag.normalized();
    let mut expression: RecExpr<SymbolLang> = RecExpr::default();
    let mut ids = Vec::new();
    for id in dag.ids() {
        let children = dag.operands(id).iter().map(|operand| ids[NodeId::index(operand)]).collect();
        ids.push(expression.add(SymbolLang::new(name(&dag, id), children)));
    }
    let runner = Runner::default().with_expr(&expression).run(rules);
    Extractor::new(&runner.egraph, AstSize).find_best(runner.roots[0]).1.to_string()
}

fn name(dag: &Dag, id: NodeId) -> String {
    match dag.op(id) {
        Op::Input => "x".to_owned(),
        Op::Constant(value) => value.to_string(),
        Op::Param(param) => dag.param(param).name.clone(),
        Op::Prim(prim) => prim.name().to_owned(),
        Op::Moment(op) => format!("{}/{}", op.moment().name(), op.over()),
    }
}

fn formula(dag: &Dag, id: NodeId) -> String {
    let name = name(dag, id);
    match dag.operands(id) {
        Operands::None => name,
        Operands::One(a) => format!("({name} {})", formula(dag, a)),
        Operands::Two(a, b) => format!("({name} {} {})", formula(dag, a), formula(dag, b)),
    }
}

/// Layers that are one function by their fingerprints and have another key than most of their kind.
fn missed(layers: &[Dag], keys: &[(Key, Status)], fingerprints: &[Fingerprint], json: &mut Json) {
    let mut groups: HashMap<u64, BTreeMap<Key, Vec<usize>>> = HashMap::new();
    let mut stable = 0;
    for (index, fingerprint) in fingerprints.iter().enumerate() {
        if let Fingerprint::Stable(hash) = fingerprint {
            stable += 1;
            groups.entry(*hash).or_default().entry(keys[index].0).or_default().push(index);
        }
    }
    let size = |keys: &BTreeMap<Key, Vec<usize>>| keys.values().map(Vec::len).sum::<usize>();
    let outside = |keys: &BTreeMap<Key, Vec<usize>>| size(keys) - keys.values().map(Vec::len).max().unwrap_or(0);
    let missed: usize = groups.values().map(outside).sum();
    let percent = 100.0 * missed as f64 / stable.max(1) as f64;
    let functions = groups.len();
    println!("\nmissed equivalences: {missed} of {stable} layers with a stable fingerprint ({percent:.3} %)");
    println!("  {functions} functions by fingerprint, {} layers without a stable one", layers.len() - stable);
    json.number("missed", missed as f64);
    json.number("missed_percent", percent);
    json.number("stable", stable as f64);
    let mut split: Vec<&BTreeMap<Key, Vec<usize>>> = groups.values().filter(|keys| keys.len() > 1).collect();
    split.sort_by_key(|keys| (std::cmp::Reverse(outside(keys)), keys.values().flatten().min().copied()));
    for keys in split.into_iter().take(20) {
        println!("  {} layers, {} keys:", size(keys), keys.len());
        let mut by_size: Vec<&Vec<usize>> = keys.values().collect();
        by_size.sort_by_key(|members| (std::cmp::Reverse(members.len()), members[0]));
        for members in by_size.into_iter().take(3) {
            // The shortest spelling shows best what it is.
            let spelled = members.iter().map(|&index| formula(&layers[index], layers[index].output()));
            let shortest = spelled.min_by_key(|text| (text.len(), text.clone())).unwrap_or_default();
            println!("    {} x {shortest}", members.len());
        }
    }
}

/// One flat object.
struct Json(String);

impl Json {
    fn new(layers: usize) -> Self {
        Self(format!("{{\"layers\":{layers}"))
    }

    fn number(&mut self, name: &str, value: f64) {
        write!(self.0, ",\"{name}\":{value:.4}").expect("writing to a string succeeds");
    }

    fn finish(self) -> String {
        self.0 + "}"
    }
}
