//! Random well-formed layers, for searches and for tests that hold of every graph.

use std::num::NonZeroU32;

use rand::{Rng, RngExt};

use crate::axes::{Groups, IndexSet};
use crate::dag::{Builder, Extent, MomentOp, NodeId, Op, Operands, Param, Running, Tracking};
use crate::json::defaults;
use crate::layer::Layer;
use crate::prim::{Moment, Prim};
use crate::scalar::Scalar;

/// What random graphs are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Space {
    /// How many nodes are drawn after the initial ones.
    pub nodes: usize,
    /// The operations to draw from, uniformly.
    pub ops: Vec<Op>,
    /// Further constants among the initial nodes; zero is always there.
    pub constants: Vec<Scalar>,
    /// Whether a random earlier node may be the output instead of the last one.
    pub any_output: bool,
}

impl Space {
    /// The search space of EvoNorm (Liu et al. 2020): 12 elementwise primitives and 3 moments over 4
    /// index sets, 10 nodes after the initial `x`, `0`, `v0` and `v1`.
    pub fn evonorm() -> Self {
        let mut space = Self::evonorm_batch_free();
        space.ops.extend([Moment::Mean, Moment::Std, Moment::Rms].map(|moment| moment_op(moment, IndexSet::Batch)));
        space
    }

    /// The same without moments over samples.
    pub fn evonorm_batch_free() -> Self {
        let prims = Prim::ALL.iter().filter(|prim| !matches!(prim, Prim::Erf | Prim::Sign));
        let groups = Groups::AtMost(NonZeroU32::new(defaults::GROUPS).unwrap_or(NonZeroU32::MIN));
        let moments = [IndexSet::Instance, IndexSet::Layer, IndexSet::Group(groups)]
            .into_iter()
            .flat_map(|over| [Moment::Mean, Moment::Std, Moment::Rms].map(|moment| moment_op(moment, over)));
        Self {
            nodes: 10,
            ops: prims.map(|&prim| Op::Prim(prim)).chain(moments).collect(),
            constants: vec![],
            any_output: false,
        }
    }

    /// Every primitive, moment and index set of the language, with constants and dead nodes.
    pub fn language() -> Self {
        let count = |count: u32| NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let sets = [
            IndexSet::Batch,
            IndexSet::Instance,
            IndexSet::Layer,
            IndexSet::Group(Groups::AtMost(count(3))),
            IndexSet::Group(Groups::Exactly(count(2))),
            IndexSet::Channel,
            IndexSet::All,
        ];
        let moments = Moment::ALL.iter().flat_map(|&moment| sets.into_iter().map(move |over| moment_op(moment, over)));
        // Each primitive twice, so that there are about as many of them as moments.
        let prims = Prim::ALL.iter().chain(Prim::ALL).map(|&prim| Op::Prim(prim));
        let constants = [0.5, -2.0, 1.0, 1e-3, 0.1].into_iter().filter_map(Scalar::new).collect();
        Self { nodes: 10, ops: prims.chain(moments).collect(), constants, any_output: true }
    }

    /// Draws a layer: initial nodes, then [`Self::nodes`] times an operation with operands among all
    /// earlier nodes (with replacement), then `* gamma + beta`. The graph keeps every node drawn.
    pub fn draw(&self, rng: &mut impl Rng) -> Layer {
        let mut builder = Builder::new();
        let x = append(&mut builder, Op::Input, Operands::None);
        append(&mut builder, Op::Constant(Scalar::ZERO), Operands::None);
        let params = [("v0", Scalar::ZERO), ("v1", Scalar::ONE), ("gamma", Scalar::ONE), ("beta", Scalar::ZERO)]
            .map(|(name, init)| declare(&mut builder, name, init));
        append(&mut builder, params[0], Operands::None);
        append(&mut builder, params[1], Operands::None);
        for &constant in &self.constants {
            append(&mut builder, Op::Constant(constant), Operands::None);
        }
        let mut last = x;
        for _ in 0..self.nodes {
            let op = self.ops[rng.random_range(0..self.ops.len())];
            let mut operand = || pick(&builder, rng);
            let operands = match op.operand_count() {
                0 => Operands::None,
                1 => Operands::One(operand()),
                _ => Operands::Two(operand(), operand()),
            };
            last = append(&mut builder, op, operands);
        }
        if self.any_output {
            last = pick(&builder, rng);
        }
        let gamma = append(&mut builder, params[2], Operands::None);
        let scaled = append(&mut builder, Op::Prim(Prim::Mul), Operands::Two(last, gamma));
        let beta = append(&mut builder, params[3], Operands::None);
        let shifted = append(&mut builder, Op::Prim(Prim::Add), Operands::Two(scaled, beta));
        Layer { name: "random".to_owned(), dag: builder.finish(shifted) }
    }
}

fn moment_op(moment: Moment, over: IndexSet) -> Op {
    let number = |value| Scalar::new(value).unwrap_or(Scalar::ZERO);
    let tracking = Tracking { momentum: number(defaults::MOMENTUM), running: Running::Biased };
    Op::Moment(MomentOp::new(moment, over, number(defaults::EPS), tracking))
}

fn declare(builder: &mut Builder, name: &str, init: Scalar) -> Op {
    let param = Param { name: name.to_owned(), extent: Extent::PerChannel, init };
    Op::Param(builder.declare(param).expect("the names above are distinct"))
}

fn append(builder: &mut Builder, op: Op, operands: Operands) -> NodeId {
    builder.append(op, operands).expect("operands are drawn among earlier nodes, as many as the operation takes")
}

fn pick(builder: &Builder, rng: &mut impl Rng) -> NodeId {
    builder.node(rng.random_range(0..builder.len())).expect("the number is below the number of nodes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn the_search_space_has_24_operations_and_14_nodes_before_the_affine() {
        assert_eq!(Space::evonorm().ops.len(), 24);
        assert_eq!(Space::evonorm_batch_free().ops.len(), 21);
        let layer = Space::evonorm().draw(&mut ChaCha8Rng::seed_from_u64(1));
        assert_eq!(layer.dag.len(), 14 + 4);
    }

    #[test]
    fn one_seed_gives_one_layer() {
        let draw = |seed| Space::language().draw(&mut ChaCha8Rng::seed_from_u64(seed));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
