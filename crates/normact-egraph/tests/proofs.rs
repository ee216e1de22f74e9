//! Every proof is accepted by the checker, which shares no rewriting with what makes proofs; and the
//! checker refuses proofs that are not.

mod support;

use normact_egraph::{Budget, Options, Relation, Status, Verdict, canonical, check, equiv};
use normact_ir::Dag;
use normact_ir::random::Space;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use support::shuffled;

fn text(dag: &Dag) -> String {
    normact_ir::json::to_json(&normact_ir::Layer { name: "g".to_owned(), dag: dag.clone() })
}

#[test]
fn equal_layers_have_proofs_that_replay() {
    let seed = 4;
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut proofs, mut steps, mut longest) = (0, 0, 0);
    for number in 0..4_000 {
        let space = if number % 3 == 0 { Space::language() } else { Space::evonorm() };
        let dag = space.draw(&mut rng).dag;
        let form = canonical(&dag, Budget::default());
        if form.status == Status::Budget {
            continue;
        }
        // The canonical form says nothing about the initial values if these are special.
        let other = if number % 2 == 0 && form.at_start.is_none() { form.dag } else { shuffled(&dag, &mut rng) };
        for relation in [Relation::Exact, Relation::AlmostEverywhere] {
            let options = Options { relation, ..Options::default() };
            match equiv(&dag, &other, &options) {
                Verdict::Equal(proof) => {
                    check(&proof, &dag, &other, relation).unwrap_or_else(|refuted| {
                        let step = &proof.steps[refuted.step - 1];
                        panic!("seed {seed}, graph {number}: {refuted}\n{}\n{}", text(&step.from), text(&step.to))
                    });
                    (proofs, steps, longest) = (proofs + 1, steps + proof.steps.len(), longest.max(proof.steps.len()));
                }
                // What is equal almost everywhere need not be exactly.
                Verdict::Different(_) | Verdict::Unknown(_) if relation == Relation::Exact => {}
                verdict => panic!("graph {number}: {verdict:?}"),
            }
        }
    }
    println!("{proofs} proofs, {:.1} steps each, the longest {longest}", steps as f64 / proofs as f64);
    assert!(proofs > 7_000);
}

#[test]
fn a_proof_of_something_else_is_refused() {
    let seed = 8;
    println!("seed {seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (mut refused, mut tried) = (0, 0);
    while tried < 200 {
        let dag = Space::evonorm().draw(&mut rng).dag;
        let form = canonical(&dag, Budget::default());
        let stranger = Space::evonorm().draw(&mut rng).dag;
        let options = Options { relation: Relation::AlmostEverywhere, ..Options::default() };
        let Verdict::Equal(proof) = equiv(&dag, &form.dag, &options) else { continue };
        if proof.steps.is_empty() || canonical(&stranger, Budget::default()).key == form.key {
            continue;
        }
        tried += 1;
        refused += usize::from(check(&proof, &dag, &stranger, Relation::AlmostEverywhere).is_err());
        refused += usize::from(check(&proof, &stranger, &form.dag, Relation::AlmostEverywhere).is_err());
    }
    assert_eq!(refused, 2 * tried);
}
