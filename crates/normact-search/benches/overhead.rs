//! What the search itself costs when judging a layer is free: candidates per second in one worker on SQLite,
//! and the share of drawing, of the key, and of the database.
//!
//! `cargo bench --bench overhead -- [CANDIDATES]`; with `NORMACT_POSTGRES` also on PostgreSQL.

#![allow(missing_docs)]

use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use normact_egraph::Canonicalizer;
use normact_ir::Layer;
use normact_search::{Evolution, Fitness, Options, Protocol, Run, Space, Store, Strategy, Verdict, structure, work};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

struct Free(ChaCha8Rng);

impl Fitness for Free {
    fn evaluate(&mut self, _: &Layer, _: Protocol, _: u64) -> Result<Verdict, String> {
        Ok(Verdict::Scored((0..3).map(|_| self.0.random_range(0.0..1.0)).collect()))
    }
}

fn main() {
    let count: u64 = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(2_000);
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let path = folder.path().join("search.db").to_str().expect("a path in UTF-8").to_owned();
    let mut urls = vec![("SQLite", path)];
    if let Ok(server) = std::env::var("NORMACT_POSTGRES") {
        let name = format!("overhead_{}", std::process::id());
        let mut client = postgres::Client::connect(&format!("{server}/postgres"), postgres::NoTls).expect("a server");
        client.batch_execute(&format!("CREATE DATABASE {name}")).expect("a database");
        urls.push(("PostgreSQL", format!("{server}/{name}")));
    }
    let space = Space::evonorm(10, false);

    let mut rng = ChaCha8Rng::seed_from_u64(0);
    let mut parts = [0.0; 2];
    let mut keys = Canonicalizer::default();
    for _ in 0..count {
        let start = Instant::now();
        let mut genotype = space.draw(&mut rng);
        (0..2).for_each(|_| space.mutate(&mut genotype, &mut rng));
        let layer = space.parse(&genotype.to_string()).expect("a genotype").layer("one");
        let drawn = Instant::now();
        black_box((keys.key(&layer.dag), structure(&layer.dag, false)));
        parts[0] += (drawn - start).as_secs_f64();
        parts[1] += drawn.elapsed().as_secs_f64();
    }

    for (name, url) in urls {
        let run = Run { id: 0, strategy: Strategy::Evolution.name().to_owned(), seed: 1, budget: count };
        Store::open(&url).and_then(|mut store| store.begin_search("a", "", &[run])).expect("a database");
        let options = Options {
            space: space.clone(),
            mere_statistics: false,
            evolution: Evolution::default(),
            fixed: vec![],
            evaluation_seed: 0,
            lease_seconds: 60.0,
            is_alone: true,
        };
        let mut free = Free(ChaCha8Rng::seed_from_u64(1));
        let start = Instant::now();
        work(&url, &options, &mut free, &AtomicBool::new(false)).expect("the search ends");
        let seconds = start.elapsed().as_secs_f64();
        let candidates = Store::open(&url).and_then(|mut store| store.candidates()).expect("a database").len() as f64;
        let [drawing, key] = parts.map(|part| part / count as f64 * candidates / seconds * 100.0);
        println!(
            "{name}: {:.0} candidates a second ({candidates} in {seconds:.1} s); drawing {drawing:.0} %, key and \
             structure {key:.0} %, database and selection {:.0} %",
            candidates / seconds,
            100.0 - drawing - key
        );
    }
}
