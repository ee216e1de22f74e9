//! A look at a layer before anything is trained: its key, and what is wrong with its structure.
//!
//! Every candidate is looked at, and the keys of evolved layers would be the larger part of what a search costs.
//! Many children differ from a layer that was looked at in dead genes alone, the more the smaller the layers are
//! that a search prefers. So what was found out is remembered by the [live genes](Genotype::live). It is found out
//! from them, too: what a worker remembers changes nothing but its speed.

use std::collections::HashMap;

use normact_egraph::{Budget, Canonicalizer, Key, canonical};
use normact_ir::{Dag, infer};

use crate::genotype::Genotype;

/// What a look at a layer shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) key: Key,
    /// What is wrong with its structure, if anything.
    pub(crate) problem: Option<&'static str>,
}

/// Looks at layers and remembers what it has seen.
#[derive(Debug)]
pub(crate) struct Looks {
    mere_statistics: bool,
    keys: Canonicalizer,
    seen: HashMap<Genotype, Look>,
}

/// The most genotypes that are remembered, which takes some 30 MB where ten genes are live.
const MAX_SEEN: usize = 1 << 15;

impl Looks {
    /// Layers that are the same at every position are welcome or not.
    pub(crate) fn new(mere_statistics: bool) -> Self {
        Self { mere_statistics, keys: Canonicalizer::default(), seen: HashMap::new() }
    }

    pub(crate) fn at(&mut self, genotype: &Genotype) -> Look {
        let live = genotype.live();
        if let Some(seen) = self.seen.get(&live) {
            return *seen;
        }
        let look = self.at_layer(&live.layer("live").dag);
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
        }
        self.seen.insert(live, look);
        look
    }

    pub(crate) fn at_layer(&mut self, dag: &Dag) -> Look {
        look(dag, self.mere_statistics, &mut self.keys)
    }
}

/// What is wrong with the structure of a layer, if anything: its function does not depend on its input, or,
/// unless `mere_statistics` are welcome, it is the same at every position. The canonical form tells: in `x - x`
/// the graph reads `x`, and nothing comes of it.
pub fn structure(dag: &Dag, mere_statistics: bool) -> Option<&'static str> {
    look(dag, mere_statistics, &mut Canonicalizer::default()).problem
}

/// One normal form gives both the key and the problem.
fn look(dag: &Dag, mere_statistics: bool, keys: &mut Canonicalizer) -> Look {
    const IGNORES_INPUT: &str = "the output does not depend on the input";
    let depends = |dag: &Dag| dag.depends_on_input()[dag.output().index()];
    if !depends(dag) {
        return Look { key: keys.key(dag).0, problem: Some(IGNORES_INPUT) };
    }
    let canonical = canonical(dag, Budget::default());
    let problem = if !depends(&canonical.dag) {
        Some(IGNORES_INPUT)
    } else if !mere_statistics && !infer(&canonical.dag)[canonical.dag.output().index()].positions {
        Some("the output is a mere statistic, the same at every position")
    } else {
        None
    };
    Look { key: canonical.key, problem }
}

#[cfg(test)]
mod tests {
    use normact_egraph::Status;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::genotype::Space;

    #[test]
    fn what_is_remembered_is_what_a_look_at_the_whole_layer_shows() {
        const SEED: u64 = 11;
        println!("seed {SEED}");
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let space = Space::evonorm(10, false);
        let (mut looks, mut keys) = (Looks::new(false), Canonicalizer::default());
        let mut looked = 0;
        for _ in 0..40 {
            let mut genotype = space.draw(&mut rng);
            for _ in 0..50 {
                (0..rng.random_range(1..3)).for_each(|_| space.mutate(&mut genotype, &mut rng));
                let dag = genotype.layer("one").dag;
                let (key, status) = keys.key(&dag);
                let look = looks.at(&genotype);
                // Out of budget, a key depends on the spelling.
                if status == Status::Saturated {
                    assert_eq!(look, Look { key, problem: structure(&dag, false) }, "{genotype}");
                }
                looked += 1;
            }
        }
        let remembered = looked - looks.seen.len();
        assert!(remembered > looked / 5, "{remembered} of {looked}: neutral mutations are common");
    }

    #[test]
    fn dead_genes_and_the_order_of_operands_say_nothing() {
        let space = Space::evonorm(4, true);
        let live = |text| space.parse(text).unwrap().live().to_string();
        assert_eq!(live("tanh(0) mul(3,0) neg(2) add(5,0)"), "mul(0,3) add(0,4)");
        assert_eq!(live("mul(0,3) neg(2) neg(4) add(0,4)"), "mul(0,3) add(0,4)");
        assert_eq!(live("neg(0) div(4,0) div(0,5) div(6,4)"), "neg(0) div(4,0) div(0,5) div(6,4)");
        assert_eq!(live("neg(0) neg(4) neg(5) neg(1)"), "neg(1)", "of a result that needs no other gene");
    }
}
