//! What the search itself costs when judging a layer is free: candidates a second of one worker, on SQLite and on
//! PostgreSQL, with the defaults and as in the example (mere statistics rejected, a small population), and the share
//! that this is of the time in which the example judges a layer.
//!
//! `cargo bench --bench overhead -- [EVALUATIONS]`. The PostgreSQL server is the one that `NORMACT_POSTGRES` names,
//! or one of its own, which writes through to the disk as servers do.

#![allow(missing_docs)]

use std::hint::black_box;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use normact_ir::Layer;
use normact_search::{
    Evolution, Fitness, Options, Protocol, Run, Space, Store, Strategy, Verdict, Winner, structure, work,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The seconds that judging a layer takes in `examples/search/digits.toml`.
const JUDGING: f64 = 0.49;

/// The layers that a run of it may judge.
const BUDGET: u64 = 650;

/// Judges at random, or by the nodes that are live first: then what is evolved is large, and hardly ever met before.
struct Free {
    rng: ChaCha8Rng,
    prefers_large: bool,
}

impl Fitness for Free {
    fn evaluate(&mut self, layer: &Layer, _: Protocol, _: u64, _: &AtomicBool) -> Result<Verdict, String> {
        let live = layer.dag.live().iter().filter(|live| **live).count();
        let least = if self.prefers_large { live as f64 } else { 0.0 };
        Ok(Verdict::Scored((0..3).map(|_| least + self.rng.random_range(0.0..1.0)).collect()))
    }
}

fn main() {
    let evaluations: u64 = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(BUDGET);
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let (server, is_own) = server();
    let small = Evolution {
        population: 200,
        tournament: 0.1,
        winner: Winner::Average,
        initial: 1500,
        fresh: 0.1,
        mutations: 2,
    };
    for (number, (name, mere_statistics, evolution, prefers_large)) in [
        ("the defaults", true, Evolution::default(), false),
        ("as in the example", false, small.clone(), false),
        ("as in the example, judged by size", false, small, true),
    ]
    .into_iter()
    .enumerate()
    {
        let [drawing, key] = parts(mere_statistics);
        println!(
            "{name}: drawing a layer takes {:.0} µs, the key and structure of a random one {:.0} µs",
            drawing * 1e6,
            key * 1e6
        );
        let file = folder.path().join(format!("{number}.db"));
        let mut databases = vec![("SQLite", file.to_str().expect("a path in UTF-8").to_owned())];
        databases.extend(server.as_ref().map(|server| ("PostgreSQL", database(server, number))));
        for (kind, url) in databases {
            let (candidates, seconds) = search(&url, evaluations, mere_statistics, evolution.clone(), prefers_large);
            let evaluation = seconds / evaluations as f64;
            println!(
                "  {kind:<10} {:>6.0} candidates a second ({candidates}, {:.0} for each evaluation, in {seconds:.1} s); \
                 {:.1} ms for each evaluation, {:.2} % of one that takes {JUDGING} s",
                candidates / seconds,
                candidates / evaluations as f64,
                evaluation * 1e3,
                100.0 * evaluation / JUDGING
            );
        }
    }
    if is_own {
        let stopped = Command::new(script()).args(["stop", "durable"]).status();
        assert!(stopped.is_ok_and(|status| status.success()), "the server is stopped");
    }
}

/// Candidates and seconds of a search with so many free evaluations.
fn search(url: &str, evaluations: u64, mere_statistics: bool, evolution: Evolution, prefers_large: bool) -> (f64, f64) {
    let strategy = Strategy::Evolution.name().to_owned();
    let proposals = evaluations * Run::PROPOSALS_PER_LAYER;
    let run = Run { id: 0, strategy, seed: 1, budget: evaluations, proposals };
    Store::open(url).and_then(|mut store| store.begin_search("a", "", &[run])).expect("a database");
    let options = Options {
        space: Space::evonorm(10, false),
        mere_statistics,
        evolution,
        fixed: vec![],
        evaluation_seed: 0,
        lease_seconds: 60.0,
        is_alone: true,
        max_deaths: Options::MAX_DEATHS,
        max_failures: Options::MAX_FAILURES,
    };
    let mut free = Free { rng: ChaCha8Rng::seed_from_u64(1), prefers_large };
    let start = Instant::now();
    work(url, &options, &mut free, &AtomicBool::new(false), &|notice| println!("{notice}")).expect("the search ends");
    let seconds = start.elapsed().as_secs_f64();
    let candidates = Store::open(url).and_then(|mut store| store.candidates()).expect("a database");
    (candidates.len() as f64, seconds)
}

/// Seconds for drawing a candidate, and for its key and a look at its structure.
fn parts(mere_statistics: bool) -> [f64; 2] {
    const COUNT: usize = 5_000;
    let space = Space::evonorm(10, false);
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let start = Instant::now();
    let draw = |_| {
        let mut genotype = space.draw(&mut rng);
        (0..2).for_each(|_| space.mutate(&mut genotype, &mut rng));
        space.parse(&genotype.to_string()).expect("a genotype").layer("one")
    };
    let layers: Vec<Layer> = (0..COUNT).map(draw).collect();
    let drawn = Instant::now();
    for layer in &layers {
        black_box(structure(&layer.dag, mere_statistics));
    }
    [(drawn - start).as_secs_f64() / COUNT as f64, drawn.elapsed().as_secs_f64() / COUNT as f64]
}

fn script() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/postgres"))
}

/// The URL of a PostgreSQL server, and whether it was started here.
fn server() -> (Option<String>, bool) {
    if let Ok(server) = std::env::var("NORMACT_POSTGRES") {
        return (Some(server), false);
    }
    let started = Command::new(script()).arg("durable").stderr(Stdio::inherit()).output();
    match started {
        Ok(output) if output.status.success() => {
            (Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()), true)
        }
        _ => {
            println!("without PostgreSQL, which could not be started");
            (None, false)
        }
    }
}

/// An empty database on the server.
fn database(server: &str, number: usize) -> String {
    let name = format!("overhead_{}_{number}", std::process::id());
    let mut client = postgres::Client::connect(&format!("{server}/postgres"), postgres::NoTls).expect("a server");
    client.batch_execute(&format!("CREATE DATABASE {name}")).expect("a database");
    format!("{server}/{name}")
}
