//! Every built-in layer against three other ways to write it: equal, with a proof that replays. Every
//! two different built-in layers: different, with an input that separates them.

use std::path::Path;

use normact::ir::{Layer, evaluate};
use normact::{built_in, load};
use normact_egraph::{Canonicalizer, Options, Relation, Verdict, check, equiv};

fn layer(spec: &str) -> Layer {
    load::layer(spec, &[]).unwrap_or_else(|failure| panic!("{spec}: {failure}"))
}

#[test]
fn built_in_layers_equal_their_other_spellings() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("spellings");
    let mut report = String::new();
    for name in built_in::names() {
        let built_in = layer(name);
        for number in 1..=3 {
            let file = folder.join(format!("{name}.nact"));
            let other = layer(&format!("{}:{name}_{number}", file.display()));
            let mut canonicalizer = Canonicalizer::default();
            let (key, other_key) = (canonicalizer.key(&built_in.dag), canonicalizer.key(&other.dag));
            assert_eq!(key, other_key, "{name}_{number}");
            let prove = |relation| match equiv(&built_in.dag, &other.dag, &Options { relation, ..Options::default() }) {
                Verdict::Equal(proof) => Some((relation, proof)),
                Verdict::Different(_) | Verdict::Unknown(_) => None,
            };
            let (relation, proof) = prove(Relation::Exact)
                .or_else(|| prove(Relation::AlmostEverywhere))
                .unwrap_or_else(|| panic!("{name}_{number} is not proved"));
            check(&proof, &built_in.dag, &other.dag, relation)
                .unwrap_or_else(|error| panic!("{name}_{number}: {error}"));
            report += &format!("{name}_{number}: {relation:?}, {} steps\n", proof.steps.len());
        }
    }
    expect_test::expect_file!["../../spellings/proofs.txt"].assert_eq(&report);
}

#[test]
fn different_built_in_layers_have_a_witness() {
    let layers: Vec<Layer> = built_in::names().map(layer).collect();
    let mut pairs = 0;
    for (index, a) in layers.iter().enumerate() {
        for b in &layers[index + 1..] {
            for relation in [Relation::Exact, Relation::AlmostEverywhere] {
                let options = Options { relation, ..Options::default() };
                let Verdict::Different(witness) = equiv(&a.dag, &b.dag, &options) else {
                    panic!("{} and {} are not told apart", a.name, b.name);
                };
                // The witness speaks for itself, by the reference evaluator.
                let output = |dag, inputs| evaluate(dag, inputs, witness.mode).unwrap().output()[witness.element];
                assert_eq!(witness.inputs_a.x, witness.inputs_b.x);
                let (y_a, y_b) = (output(&a.dag, &witness.inputs_a), output(&b.dag, &witness.inputs_b));
                let differ = (y_a - y_b).abs() > 1e-6 * y_a.abs().max(y_b.abs()) || y_a.is_finite() != y_b.is_finite();
                assert!(differ, "{} and {}: {y_a} and {y_b}", a.name, b.name);
            }
            pairs += 1;
        }
    }
    assert_eq!(pairs, layers.len() * (layers.len() - 1) / 2);
}
