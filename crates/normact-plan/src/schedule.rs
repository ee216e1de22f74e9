//! From a joint graph to passes over memory.
//!
//! The input is cut into **blocks**, as small as the reductions allow: no statistic that a block
//! needs has elements outside of it. For statistics of one group a block is one group of one
//! sample, for batch statistics it is one channel of all samples. A block runs through all its
//! passes before the next one begins, so that it is read from memory once if it fits into the cache
//! (or, on a GPU, is the work of one workgroup, without a launch per statistic). In each pass every
//! element of the block is visited once: its values are computed in registers from `x`, `dy` and
//! the statistics of earlier passes, then written or accumulated. Nothing full-size is stored in
//! memory in between. What a later pass needs again is computed again, unless that costs more than
//! a detour through the cache of a small block: such values are **held**. An executor without such
//! a cache (a workgroup of a GPU) computes them again all the same.
//!
//! Sums over samples that only end in a parameter's gradient do not make blocks larger: they are
//! accumulated across blocks.
//!
//! What the backward pass keeps of the forward pass are reductions, never full-size values, and
//! only as far as they stay below [`KEPT_SHARE`] of the input; the others are computed again.

use normact_ir::{Axes, Channels, Dag, Mode, Prim};

use crate::adjoint::{Joint, joint};
use crate::graph::{Expr, Graph, Statistic, ValueId, one_by_one};
use crate::nested::nested;

/// The sizes of an input in the view that all ranks share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sizes {
    /// The size of axis 0.
    pub samples: usize,
    /// The size of axis 1.
    pub channels: usize,
    /// The product of the spatial axes.
    pub positions: usize,
}

impl Sizes {
    /// The number of elements.
    pub fn elements(self) -> usize {
        self.samples * self.channels * self.positions
    }

    /// How many slots a value that varies along `axes` has.
    ///
    /// # Panics
    /// An exact number of groups does not divide the channels; shape checks come first.
    pub fn slots(self, axes: Axes) -> [usize; 3] {
        let channels = match axes.channels {
            Channels::One => 1,
            Channels::Groups(groups) => groups.count(self.channels).expect("the groups divide the channels"),
            Channels::All => self.channels,
        };
        [if axes.samples { self.samples } else { 1 }, channels, if axes.positions { self.positions } else { 1 }]
    }

    /// The number that a [`Expr::Count`] stands for.
    pub fn count(self, of: Axes, per: Axes) -> f64 {
        let product = |axes: Axes| self.slots(axes).iter().product::<usize>() as f64;
        product(of) / product(per)
    }
}

/// The largest share of the input's bytes that statistics may take which are kept for the backward
/// pass. With what autodiff keeps for an operation, a layer stays below 5 % also on an input of 32 KB; to compute a
/// mean and a variance once more in a block that is in the cache anyway takes no time that can be measured.
pub const KEPT_SHARE: f64 = 0.03;

/// A kept statistic is counted with the bytes of the widest format a back-end keeps it in.
const KEPT_BYTES: usize = 8;

/// The most elements of a block whose values may be held for a later pass: with `x`, `dy` and the
/// result, a held value of a larger block would not stay in the second-level cache.
pub const HELD_BLOCK: usize = 1 << 16;

/// The most values held at a time.
const HELD: usize = 2;

/// What a held value costs, in additions: a store and a load, both past the first-level cache.
const HOLDING_COST: usize = 4;

/// A forward and a backward schedule over one joint graph.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The values of both.
    pub joint: Joint,
    /// Computes the output, the new running averages and what is kept.
    pub forward: Schedule,
    /// Computes the gradients.
    pub backward: Schedule,
    /// The reductions that the forward pass keeps for the backward pass.
    pub kept: Vec<ValueId>,
}

/// Passes over blocks.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Along which axes blocks are cut: into single samples, into channels or groups of channels,
    /// and anywhere along positions.
    pub cut: Axes,
    /// Small reductions that need no pass.
    pub before: Vec<ValueId>,
    /// What happens to each block, in order; at least one.
    pub passes: Vec<Pass>,
    /// Small reductions that need sums across blocks; they run once, after the last block.
    pub after: Vec<ValueId>,
    /// Reductions that are accumulated across blocks.
    pub across: Vec<ValueId>,
    /// Reductions that are read from memory instead of computed.
    pub given: Vec<ValueId>,
    /// Reductions whose results leave their block.
    pub exported: Vec<ValueId>,
}

/// One visit of every element of a block.
#[derive(Debug, Clone, Default)]
pub struct Pass {
    /// The values computed, operands first: full-size ones for every element, others once for every
    /// slot.
    pub values: Vec<ValueId>,
    /// Full-size values that are accumulated.
    pub reductions: Vec<Reduction>,
    /// The values among these that later passes read, where blocks stay in cache.
    pub held: Vec<ValueId>,
    /// The value written as the full-size result.
    pub write: Option<ValueId>,
    /// Small reductions at the end of the pass, in order.
    pub small: Vec<ValueId>,
}

/// The statistics of one operand that are accumulated together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reduction {
    /// The value reduced.
    pub operand: ValueId,
    /// The axes the results vary along.
    pub to: Axes,
    /// What is accumulated.
    pub kind: Kind,
}

/// What is accumulated of the elements of a slot, and the values it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A sum: the values of the sum and of the mean, where they are needed.
    Sum {
        /// The sum.
        sum: Option<ValueId>,
        /// The sum divided by the number of elements.
        mean: Option<ValueId>,
    },
    /// The mean of squares.
    MeanSquare(ValueId),
    /// Count, mean and squared deviations: the values of the mean, where it is needed, and of the
    /// variance.
    Moments {
        /// The mean.
        mean: Option<ValueId>,
        /// The population variance.
        variance: ValueId,
    },
}

impl Kind {
    /// The values it gives.
    pub fn results(self) -> impl Iterator<Item = ValueId> {
        let (a, b) = match self {
            Kind::Sum { sum, mean } => (sum, mean),
            Kind::MeanSquare(id) => (Some(id), None),
            Kind::Moments { mean, variance } => (mean, Some(variance)),
        };
        a.into_iter().chain(b)
    }
}

impl Plan {
    /// Plans a layer for a mode and the sizes of its input.
    pub fn new(dag: &Dag, mode: Mode, sizes: Sizes) -> Self {
        let joint = nested(joint(dag, mode, Some(sizes)));
        let updates: Vec<ValueId> = joint.updates.iter().copied().flatten().collect();
        let gradients: Vec<ValueId> =
            joint.input_gradient.iter().chain(joint.param_gradients.iter().flatten()).copied().collect();
        let kept = kept(&joint, &updates, &gradients, sizes);
        let forward = schedule(&joint, Some(joint.output), &updates, &[], &kept, sizes);
        let backward = schedule(
            &joint,
            joint.input_gradient,
            &joint.param_gradients.iter().copied().flatten().collect::<Vec<_>>(),
            &kept,
            &[],
            sizes,
        );
        Self { joint, forward, backward, kept }
    }

    /// How many statistics are kept for the backward pass.
    pub fn kept_slots(&self, sizes: Sizes) -> usize {
        let slots = |id: &ValueId| sizes.slots(self.joint.graph.axes(*id)).iter().product::<usize>();
        self.kept.iter().map(slots).sum()
    }

    /// Full-size tensors read and written, forward and backward, when each pass goes to memory.
    pub fn traffic(&self) -> [usize; 2] {
        [&self.forward, &self.backward].map(|schedule| schedule.traffic(&self.joint, false))
    }

    /// The same when a block stays in cache from its first pass to its last: each tensor moves once.
    pub fn cached_traffic(&self) -> [usize; 2] {
        [&self.forward, &self.backward].map(|schedule| schedule.traffic(&self.joint, true))
    }
}

impl Schedule {
    /// Full-size tensors read and written; once for each pass, or once in all if blocks stay in cache.
    pub fn traffic(&self, joint: &Joint, cached: bool) -> usize {
        let reads = |pass: &Pass| {
            let roots = pass.roots();
            let cone = joint.graph.cone(&roots, |id| matches!(joint.graph.expr(id), Expr::Reduce { .. }));
            [Expr::Input, Expr::Upstream]
                .map(|leaf| joint.graph.ids().any(|id| cone[id.index()] && joint.graph.expr(id) == leaf))
        };
        let reads: Vec<[bool; 2]> = self.passes.iter().map(reads).collect();
        let per_tensor = |tensor: usize| reads.iter().filter(|reads| reads[tensor]).count();
        let counts = [per_tensor(0), per_tensor(1)];
        let reads: usize = counts.iter().map(|&count| if cached { count.min(1) } else { count }).sum();
        reads + self.passes.iter().filter(|pass| pass.write.is_some()).count()
    }

    /// The same schedule with nothing held: for an executor whose blocks are larger than planned.
    pub fn without_held(&self, graph: &Graph) -> Self {
        let mut schedule = self.clone();
        schedule.passes.iter_mut().for_each(|pass| pass.held.clear());
        set_values(graph, &mut schedule.passes);
        schedule
    }

    /// How many blocks there are.
    pub fn blocks(&self, sizes: Sizes) -> usize {
        blocks(self.cut, sizes)
    }
}

fn blocks(cut: Axes, sizes: Sizes) -> usize {
    let [samples, channels, _] = sizes.slots(Axes { positions: false, ..cut });
    samples * channels
}

impl Pass {
    /// The same pass if it does not write `id`; else only what it does beside.
    pub fn without(&self, id: Option<ValueId>) -> Self {
        let write = self.write.filter(|_| self.write != id);
        if write.is_none() && self.reductions.is_empty() {
            return Self { small: self.small.clone(), ..Self::default() };
        }
        Self { write, ..self.clone() }
    }

    /// The full-size values it is for.
    pub fn roots(&self) -> Vec<ValueId> {
        let reduced = self.reductions.iter().map(|reduction| reduction.operand);
        reduced.chain(self.held.iter().copied()).chain(self.write).collect()
    }
}

/// Computes the values of each pass from what the passes before it hold.
fn set_values(graph: &Graph, passes: &mut [Pass]) {
    let mut held = vec![];
    for pass in passes {
        let stop = |id: ValueId| matches!(graph.expr(id), Expr::Reduce { .. }) || held.contains(&id);
        let cone = graph.cone(&pass.roots(), stop);
        let is_computed =
            |id: ValueId| cone[id.index()] && matches!(graph.expr(id), Expr::Prim(..)) && !held.contains(&id);
        pass.values = graph.ids().filter(|&id| is_computed(id)).collect();
        held.extend_from_slice(&pass.held);
    }
}

/// Chooses what passes hold for later ones: again and again the value that saves most.
fn hold(graph: &Graph, passes: &mut [Pass]) {
    let cost = |passes: &[Pass]| -> usize {
        let values = passes.iter().flat_map(|pass| &pass.values);
        values.filter(|id| graph.axes(**id) == Axes::INPUT).map(|&id| cost(graph.expr(id))).sum()
    };
    for _ in 0..HELD {
        let now = cost(passes);
        let mut best: Option<(usize, Vec<Pass>)> = None;
        for first in 0..passes.len() {
            for &id in &passes[first].values {
                let is_read_later = passes[first + 1..].iter().any(|pass| pass.values.contains(&id));
                if graph.axes(id) != Axes::INPUT || !is_read_later {
                    continue;
                }
                let mut trial = passes.to_vec();
                trial[first].held.push(id);
                set_values(graph, &mut trial);
                let cost = cost(&trial) + HOLDING_COST;
                if cost < best.as_ref().map_or(now, |(cost, _)| *cost) {
                    best = Some((cost, trial));
                }
            }
        }
        let Some((_, trial)) = best else { break };
        passes.clone_from_slice(&trial);
    }
}

/// What computing a value costs, in additions.
fn cost(expr: Expr) -> usize {
    match expr {
        Expr::Prim(Prim::Sigmoid | Prim::Tanh | Prim::Exp | Prim::Log | Prim::Erf, _) => 16,
        Expr::Prim(Prim::Div | Prim::Sqrt, _) => 4,
        _ => 1,
    }
}

/// Whether a reduction of such a value visits every element of the input.
fn is_every_element(axes: Axes) -> bool {
    one_by_one(axes) == Axes::INPUT
}

fn is_reduce(joint: &Joint, id: ValueId) -> bool {
    matches!(joint.graph.expr(id), Expr::Reduce { .. })
}

/// The reductions of the forward pass that the gradients read, as far as they are few.
fn kept(joint: &Joint, updates: &[ValueId], gradients: &[ValueId], sizes: Sizes) -> Vec<ValueId> {
    let graph = &joint.graph;
    let roots: Vec<ValueId> = updates.iter().copied().chain([joint.output]).collect();
    let in_forward = graph.cone(&roots, |_| false);
    // A variance comes with its mean.
    let has_variance = |operand: ValueId, to: Axes| {
        graph.ids().any(|id| {
            in_forward[id.index()] && graph.expr(id) == Expr::Reduce { statistic: Statistic::Variance, operand, to }
        })
    };
    let may_be_kept = |id: ValueId| match graph.expr(id) {
        Expr::Reduce { statistic, operand, to } => {
            in_forward[id.index()] || (statistic == Statistic::Mean && has_variance(operand, to))
        }
        _ => false,
    };
    let read = graph.cone(gradients, may_be_kept);
    let slots = |id: ValueId| sizes.slots(graph.axes(id)).iter().product::<usize>();
    let mut candidates: Vec<ValueId> = graph.ids().filter(|&id| read[id.index()] && may_be_kept(id)).collect();
    candidates.sort_by_key(|&id| (slots(id), id));
    let mut left = (KEPT_SHARE * (4 * sizes.elements()) as f64) as usize;
    candidates.retain(|&id| {
        let bytes = KEPT_BYTES * slots(id);
        let fits = bytes <= left;
        left -= if fits { bytes } else { 0 };
        fits
    });
    candidates.sort_unstable();
    candidates
}

fn schedule(
    joint: &Joint,
    write: Option<ValueId>,
    results: &[ValueId],
    given: &[ValueId],
    exports: &[ValueId],
    sizes: Sizes,
) -> Schedule {
    let graph = &joint.graph;
    let is_given = |id: ValueId| given.contains(&id);
    let roots: Vec<ValueId> = write.iter().chain(results).chain(exports).copied().collect();
    let needed = graph.cone(&roots, is_given);
    let reductions: Vec<ValueId> =
        graph.ids().filter(|&id| needed[id.index()] && is_reduce(joint, id) && !is_given(id)).collect();
    let operand_of = |id: ValueId| match graph.expr(id) {
        Expr::Reduce { operand, .. } => operand,
        _ => unreachable!("one of the reductions"),
    };

    // Sums that end in a result, and that no full-size value waits for, run across blocks.
    let full_operands = reductions.iter().map(|&id| operand_of(id)).filter(|&id| is_every_element(graph.axes(id)));
    let waited_for: Vec<ValueId> = write.iter().chain(exports).copied().chain(full_operands).collect();
    let mut within = graph.cone(&waited_for, is_given);
    // A sum beside a mean that is waited for costs nothing more.
    for &id in &reductions {
        if let Expr::Reduce { statistic: Statistic::Mean, operand, to } = graph.expr(id)
            && within[id.index()]
        {
            let is_sum = |&sum: &ValueId| graph.expr(sum) == Expr::Reduce { statistic: Statistic::Sum, operand, to };
            reductions.iter().copied().filter(is_sum).for_each(|sum| within[sum.index()] = true);
        }
    }
    let mut depends_across = vec![false; graph.len()];
    let mut across = vec![];
    for id in graph.ids().filter(|id| needed[id.index()]) {
        if is_given(id) {
            continue;
        }
        let inherits = graph.expr(id).operands().any(|operand| depends_across[operand.index()]);
        let to = graph.axes(id);
        let is_sum = matches!(graph.expr(id), Expr::Reduce { statistic: Statistic::Sum, .. });
        if is_sum && !inherits && !within[id.index()] && !to.samples && !to.positions {
            across.push(id);
            depends_across[id.index()] = true;
        } else {
            depends_across[id.index()] = inherits;
        }
    }
    let after: Vec<ValueId> =
        reductions.iter().copied().filter(|&id| depends_across[id.index()] && !across.contains(&id)).collect();

    // The pass at whose end a value can be had; -1 before the first.
    let mut ready = vec![-1i32; graph.len()];
    for id in graph.ids().filter(|id| needed[id.index()]) {
        if is_given(id) || depends_across[id.index()] && !across.contains(&id) {
            continue;
        }
        let operands = graph.expr(id).operands().map(|operand| ready[operand.index()]).max().unwrap_or(-1);
        let is_full_reduction = is_reduce(joint, id) && is_every_element(graph.axes(operand_of(id)));
        ready[id.index()] = if is_full_reduction { operands + 1 } else { operands };
    }
    let is_done_in_blocks = |id: ValueId| !after.contains(&id);
    let last = reductions.iter().filter(|&&id| is_done_in_blocks(id)).map(|id| ready[id.index()]).max().unwrap_or(-1);
    let write_pass = write.map(|id| ready[id.index()] + 1);
    let count = last.max(write_pass.unwrap_or(0)).max(0) as usize + 1;

    let mut passes = vec![Pass::default(); count];
    let mut before = vec![];
    for &id in reductions.iter().filter(|&&id| is_done_in_blocks(id)) {
        let pass = ready[id.index()];
        if is_every_element(graph.axes(operand_of(id))) {
            add_reduction(&mut passes[pass as usize].reductions, joint, id);
        } else if across.contains(&id) {
            // Everything of the block is known at its end.
            passes[count - 1].small.push(id);
        } else if pass < 0 {
            before.push(id);
        } else {
            passes[pass as usize].small.push(id);
        }
    }
    if let (Some(id), Some(pass)) = (write, write_pass) {
        passes[pass as usize].write = Some(id);
    }
    set_values(graph, &mut passes);
    let in_blocks = reductions.iter().copied().filter(|&id| is_done_in_blocks(id) && !across.contains(&id));
    let cut = cut(joint, in_blocks.map(|id| (operand_of(id), graph.axes(id))));
    let positions = if cut.positions { 1 } else { sizes.positions };
    let block = sizes.samples * sizes.channels * positions / blocks(cut, sizes);
    if block <= HELD_BLOCK {
        hold(graph, &mut passes);
    }
    let result_cone = graph.cone(&[results, &after].concat(), |id| is_given(id) || across.contains(&id));
    let exported = reductions
        .iter()
        .copied()
        .filter(|&id| {
            let read_after = result_cone[id.index()] && is_done_in_blocks(id) && !across.contains(&id);
            exports.contains(&id) || read_after
        })
        .collect();
    Schedule { cut, before, passes, after, across, given: given.to_vec(), exported }
}

/// Adds a full-size reduction to those of its pass, together with what shares its accumulation.
fn add_reduction(list: &mut Vec<Reduction>, joint: &Joint, id: ValueId) {
    let Expr::Reduce { statistic, operand, to } = joint.graph.expr(id) else { return };
    let kind = match statistic {
        Statistic::Sum => Kind::Sum { sum: Some(id), mean: None },
        Statistic::Mean => Kind::Sum { sum: None, mean: Some(id) },
        Statistic::MeanSquare => Kind::MeanSquare(id),
        Statistic::Variance => Kind::Moments { mean: None, variance: id },
    };
    for known in list.iter_mut().filter(|known| known.operand == operand && known.to == to) {
        let merged = match (known.kind, kind) {
            (Kind::Sum { sum: a, mean: b }, Kind::Sum { sum: c, mean: d }) => {
                Some(Kind::Sum { sum: a.or(c), mean: b.or(d) })
            }
            (Kind::Sum { sum: None, mean }, Kind::Moments { mean: None, variance })
            | (Kind::Moments { mean: None, variance }, Kind::Sum { sum: None, mean }) => {
                Some(Kind::Moments { mean, variance })
            }
            _ => None,
        };
        if let Some(merged) = merged {
            known.kind = merged;
            return;
        }
    }
    list.push(Reduction { operand, to, kind });
}

/// The finest cut that leaves every slot of the given reductions whole.
fn cut(joint: &Joint, reductions: impl Iterator<Item = (ValueId, Axes)>) -> Axes {
    let mut cut = Axes::INPUT;
    for (operand, to) in reductions {
        let from = one_by_one(joint.graph.axes(operand));
        cut.samples &= to.samples || !from.samples;
        cut.positions &= to.positions || !from.positions;
        if from.channels != to.channels {
            cut.channels = match (cut.channels, to.channels) {
                (Channels::All, coarser) => coarser,
                (Channels::Groups(a), Channels::Groups(b)) if a == b => Channels::Groups(a),
                _ => Channels::One,
            };
        }
    }
    cut
}
