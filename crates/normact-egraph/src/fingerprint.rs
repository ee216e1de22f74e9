//! A functional fingerprint: what a layer does on a few fixed inputs, as 64 bits.
//!
//! A canonical key says that two layers are equal by algebra; a fingerprint says it by numbers, and
//! neither knows how the other is made. Put side by side they find both kinds of mistake: one key
//! for two functions, and two keys for one function.
//!
//! **Equality.** Two layers are equal if they are the same real function in training mode, almost
//! everywhere in `x`, for almost all parameter values and for the initial ones, up to renaming
//! parameters of one class (same extent, same initial value). What real arithmetic leaves undefined
//! is undefined, division by exactly 0 and the logarithm of exactly 0, and so is all that is
//! computed from it: `sigmoid(1 / 0)` is not 1. Running averages play no part.
//!
//! **Numbers.** Every element carries a bound of its error (running error analysis, Higham,
//! "Accuracy and Stability of Numerical Algorithms", section 3.3). The rounding errors of `+ * /`
//! and of roots are measured rather than estimated (Dekker 1971), and the fixed inputs are short
//! dyadic fractions, so that `(x + v) - v - x` is exactly 0 and dividing by it is undefined, not
//! inexact. An element is *lost* where the bound does not decide a zero test, or where a number is
//! too large for f64. Outputs are rounded; a fingerprint is [`Fingerprint::Unstable`] if an output
//! is lost or might be rounded otherwise. Equal layers thus have equal fingerprints unless one is
//! unstable.
//!
//! **Inputs.** The first of the fixed tensors has enough channels that `group` is not `instance`; on
//! the second, exact and at-most numbers of groups differ. Small tensors follow that show what these
//! hide: large and small numbers for `max(x, 3)` and `max(x, 0.01)`, and inputs and parameters of
//! one sign for the mean of `log(max(x, 0))`, which is undefined if one element is negative. Layers
//! that differ only where no fixed input reaches, as `x` and `max(x, -100)`, or only in at-most
//! numbers of groups between 18 and 35, have one fingerprint. A tensor whose channels an exact
//! number of groups does not divide contributes a marker, if the value has channels; where that
//! leaves no tensor, some are made for these groups.
//!
//! **Parameters.** Each class has a pool of fixed values. The set of the results over all ways to
//! give the parameters of a class different values of a pool of `max(2, k)`, for `k` parameters,
//! does not depend on their names. Nor does it depend on parameters without influence, as in `0 * v`,
//! if `k` does not count them. For a class of one or two it makes no difference; for a larger one
//! the pool is `k + 1`, which shows the parameters that have influence, and the set is that of the
//! ways that give these the first values of the pool. A layer with more than [`MAX_ASSIGNMENTS`]
//! ways is unstable, since any part of the set would depend on the order of the parameters.

use std::fmt;

use normact_ir::{Arity, Dag, Extent, Groups, IndexSet, MomentOp, NodeId, Op, Operands, ParamId, Prim, Quantity};
use rustc_hash::FxHashMap;

/// The most ways to distribute values over parameters that are tried: `7!`.
pub const MAX_ASSIGNMENTS: usize = 5040;

/// The sizes of the fixed tensors, and the numbers in them.
const TENSORS: [(Sizes, Numbers); 8] = {
    let many_channels = Sizes { samples: 2, positions: 3, channels: 36 };
    let odd_channels = Sizes { samples: 2, positions: 4, channels: 5 };
    let small = Sizes { samples: 2, positions: 2, channels: 6 };
    let mixed = Numbers { x: None, params: None, largest: 0, smallest: 0 };
    [
        (many_channels, mixed),
        (odd_channels, mixed),
        (small, Numbers { largest: 2, ..mixed }),
        (small, Numbers { smallest: -8, ..mixed }),
        (small, Numbers { x: Some(1.0), params: Some(1.0), ..mixed }),
        (small, Numbers { x: Some(1.0), params: Some(-1.0), ..mixed }),
        (small, Numbers { x: Some(-1.0), params: Some(1.0), ..mixed }),
        (small, Numbers { x: Some(-1.0), params: Some(-1.0), ..mixed }),
    ]
};

/// What numbers an input and the parameters that go with it have.
#[derive(Debug, Clone, Copy)]
struct Numbers {
    /// The sign of the input; `None` for both signs.
    x: Option<f64>,
    /// The sign of the parameters; `None` for both signs.
    params: Option<f64>,
    /// The largest power of two that a number is multiplied by.
    largest: i32,
    /// The smallest.
    smallest: i32,
}

impl Numbers {
    /// A number of this size, to be made smaller or larger as `draw` says.
    fn scaled(self, size: f64, draw: u64) -> f64 {
        let exponents = (self.largest - self.smallest + 1) as u64;
        size * 2f64.powi(self.smallest + (draw % exponents) as i32)
    }
}

/// A fixed input, samples x positions x channels.
#[derive(Debug, Clone)]
struct Tensor {
    sizes: Sizes,
    numbers: Numbers,
    x: Vec<f64>,
}

/// The most channels of a tensor made for exact numbers of groups that fit no fixed tensor.
const MAX_CHANNELS: usize = 512;

/// What a layer does on a few fixed inputs, in training mode.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Fingerprint {
    /// The hash of the rounded outputs.
    Stable(u64),
    /// Rounding errors decide what the output is.
    Unstable,
}

impl fmt::Display for Fingerprint {
    /// 16 hexadecimal digits, or `unstable`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fingerprint::Stable(hash) => write!(f, "{hash:016x}"),
            Fingerprint::Unstable => f.write_str("unstable"),
        }
    }
}

/// The fingerprint of one layer. For many, keep a [`Fingerprinter`].
pub fn fingerprint(dag: &Dag) -> Fingerprint {
    Fingerprinter::new().of(dag)
}

/// The fixed tensors, and buffers that are used again from layer to layer.
#[derive(Debug, Clone)]
pub struct Fingerprinter {
    tensors: Vec<Tensor>,
    slots: Slots,
}

impl Default for Fingerprinter {
    fn default() -> Self {
        Self::new()
    }
}

impl Fingerprinter {
    /// Makes the fixed tensors.
    pub fn new() -> Self {
        Self { tensors: TENSORS.map(|(sizes, numbers)| Tensor::new(sizes, numbers)).to_vec(), slots: Slots::default() }
    }

    /// The fingerprint of a layer.
    pub fn of(&mut self, dag: &Dag) -> Fingerprint {
        match self.hash(dag) {
            Ok(hash) => Fingerprint::Stable(hash),
            Err(Lost) => Fingerprint::Unstable,
        }
    }

    fn hash(&mut self, dag: &Dag) -> Result<u64, Lost> {
        let plan = Plan::of(dag);
        let tailored = self.tailored(&plan);
        let assignments = Assignments::new(dag, &plan)?;
        let mut initial = Hash::new();
        let mut hashes = vec![Hash::new(); assignments.list.len()];
        for Tensor { sizes, numbers, x } in self.tensors.iter().chain(&tailored) {
            if !plan.fits(sizes.channels) {
                initial.add(MARKER);
                continue;
            }
            let mut run = |changed: u64, param: &dyn Fn(ParamId, &mut Vec<f64>), hash: &mut Hash| {
                plan.run(*sizes, changed, &Sources { x, param, statistics: &[] }, &mut self.slots);
                hash_output(self.slots.value(plan.output), *sizes, hash)
            };
            run(EVERYTHING, &|param, values| values.push(dag.param(param).init.get()), &mut initial)?;
            let mut previous: Option<&[usize]> = None;
            for (assignment, hash) in assignments.list.iter().zip(&mut hashes) {
                let changed = match previous {
                    None => EVERYTHING,
                    Some(previous) => plan.mask(|position| assignment[position] != previous[position]),
                };
                let param = |param: ParamId, values: &mut Vec<f64>| {
                    let (class, pool) = (Class::of(dag, param), assignment[plan.position_of(param)]);
                    let count = dag.param(param).extent.len(sizes.channels);
                    values.extend((0..count).map(|channel| {
                        let value = class.value(pool, channel);
                        numbers
                            .scaled(numbers.params.map_or(value, |sign| value.copysign(sign)), mixed(value.to_bits()))
                    }));
                };
                run(changed, &param, hash)?;
                previous = Some(assignment);
            }
        }
        let hashes: Vec<u64> = hashes.into_iter().map(Hash::finish).collect();
        assignments.set(&hashes).into_iter().for_each(|hash| initial.add(hash));
        Ok(initial.finish())
    }

    /// Tensors whose channels all exact numbers of groups divide, if no fixed tensor has such.
    fn tailored(&self, plan: &Plan) -> Vec<Tensor> {
        if self.tensors.iter().any(|tensor| plan.fits(tensor.sizes.channels)) {
            return Vec::new();
        }
        match plan.channels_multiple(plan) {
            Some(multiple) if 2 * multiple <= MAX_CHANNELS => {
                let sizes = Sizes { samples: 2, positions: 2, channels: 2 * multiple };
                TENSORS[1..].iter().map(|&(_, numbers)| Tensor::new(sizes, numbers)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// An output that rounding errors decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Lost;

/// Parameters that may be renamed into each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Class {
    scalar: bool,
    init: u64,
}

impl Class {
    pub(crate) fn of(dag: &Dag, param: ParamId) -> Self {
        let param = dag.param(param);
        Self { scalar: param.extent == Extent::Scalar, init: param.init.get().to_bits() }
    }

    /// A value of the pool: an odd multiple of `2^-14`, 0.4 to 1.6 in size. No element of an input is
    /// one, so that differences of inputs and parameters are not 0 by accident.
    fn value(self, pool: usize, channel: usize) -> f64 {
        let seed = mixed(self.init ^ u64::from(self.scalar)).wrapping_add(((pool as u64) << 32) | channel as u64);
        let bits = mixed(seed);
        let size = 6554 + (bits >> 8) % 19660;
        let value = (size | 1) as f64 / 16384.0;
        if bits & 1 == 0 { value } else { -value }
    }
}

/// How many lists of `count` different numbers below `limit` there are.
pub(crate) fn falling_factorial(limit: usize, count: usize) -> usize {
    (0..count).map(|taken| limit.saturating_sub(taken)).fold(1, usize::saturating_mul)
}

/// The ways to give parameters values of their pools. An assignment has a pool index for each live
/// parameter of the plan.
#[derive(Debug, Clone)]
struct Assignments {
    /// The positions of the parameters of each class.
    classes: Vec<Vec<usize>>,
    list: Vec<Vec<usize>>,
}

impl Assignments {
    /// Lists the assignments in lexicographic order, class after class.
    fn new(dag: &Dag, plan: &Plan) -> Result<Self, Lost> {
        let mut classes: Vec<(Class, Vec<usize>)> = Vec::new();
        for (position, &param) in plan.params.iter().enumerate() {
            let class = Class::of(dag, param);
            match classes.iter_mut().find(|(known, _)| *known == class) {
                Some((_, members)) => members.push(position),
                None => classes.push((class, vec![position])),
            }
        }
        let classes: Vec<Vec<usize>> = classes.into_iter().map(|(_, members)| members).collect();
        let pool = |members: &[usize]| if is_large(members) { members.len() + 1 } else { 2 };
        let count = classes
            .iter()
            .map(|members| falling_factorial(pool(members), members.len()))
            .fold(1, usize::saturating_mul);
        if count > MAX_ASSIGNMENTS {
            return Err(Lost);
        }
        let mut list = vec![vec![0; plan.params.len()]];
        for members in &classes {
            let pool = pool(members);
            for (index, &position) in members.iter().enumerate() {
                let mut longer = Vec::with_capacity(list.len() * pool);
                for assignment in &list {
                    let is_free = |value: usize| members[..index].iter().all(|&other| assignment[other] != value);
                    longer.extend((0..pool).filter(|&value| is_free(value)).map(|value| {
                        let mut longer = assignment.clone();
                        longer[position] = value;
                        longer
                    }));
                }
                list = longer;
            }
        }
        Ok(Self { classes, list })
    }

    /// The set of hashes that does not depend on the names of parameters nor on idle ones, given the
    /// hash of each assignment of the list.
    fn set(&self, hashes: &[u64]) -> Vec<u64> {
        let mut kept = vec![true; self.list.len()];
        for members in self.classes.iter().filter(|members| is_large(members)) {
            let influential: Vec<usize> =
                members.iter().copied().filter(|&position| self.has_influence(position, hashes)).collect();
            let pool = influential.len().max(2);
            for (assignment, kept) in self.list.iter().zip(&mut kept) {
                *kept &= influential.iter().all(|&position| assignment[position] < pool);
            }
        }
        let mut set: Vec<u64> = hashes.iter().zip(kept).filter(|(_, kept)| *kept).map(|(&hash, _)| hash).collect();
        set.sort_unstable();
        set.dedup();
        set
    }

    /// Whether two assignments that differ only in one parameter have different hashes.
    fn has_influence(&self, position: usize, hashes: &[u64]) -> bool {
        let mut known: FxHashMap<Vec<usize>, u64> = FxHashMap::default();
        self.list.iter().zip(hashes).any(|(assignment, &hash)| {
            let mut others = assignment.clone();
            others[position] = 0;
            *known.entry(others).or_insert(hash) != hash
        })
    }
}

/// Whether the set of a class depends on parameters without influence: not with a pool of two, which
/// gives one parameter and the first of two the same values.
fn is_large(members: &[usize]) -> bool {
    members.len() > 2
}

impl Tensor {
    /// Odd multiples of `2^-13`, 0.05 to 1.7 in size, no two of the same size; then scaled.
    fn new(sizes: Sizes, numbers: Numbers) -> Self {
        let mut used = vec![false; 1 << 14];
        let sign = |sign: Option<f64>| sign.map_or(0, f64::to_bits);
        let kind = [sign(numbers.x), sign(numbers.params), numbers.largest as u64, numbers.smallest as u64];
        let mut draw = kind.into_iter().fold(sizes.elements() as u64, |seed, part| mixed(seed ^ part));
        let mut element = || loop {
            draw = mixed(draw.wrapping_add(1));
            let size = (410 + (draw >> 8) % 13517) as usize | 1;
            if !std::mem::replace(&mut used[size], true) {
                let value = numbers.scaled(size as f64 / 8192.0, draw >> 40);
                return value.copysign(numbers.x.unwrap_or(if draw & 1 == 0 { 1.0 } else { -1.0 }));
            }
        };
        let x = (0..sizes.elements()).map(|_| element()).collect();
        Self { sizes, numbers, x }
    }
}

/// A well-mixed function of 64 bits (the finalizer of SplitMix64, Steele et al. 2014).
fn mixed(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ (bits >> 31)
}

/// A hash of a sequence of words that is the same on every machine.
#[derive(Debug, Clone, Copy)]
struct Hash(u64);

/// Stands for undefined elements and for tensors that do not fit.
const MARKER: u64 = 0x7FF8_0000_0000_0001;

impl Hash {
    fn new() -> Self {
        Self(0x243F_6A88_85A3_08D3)
    }

    fn add(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 29;
    }

    fn finish(self) -> u64 {
        mixed(self.0)
    }
}

/// Hashes the rounded elements of an output, broadcast to the input's sizes.
fn hash_output(output: &Bounded, sizes: Sizes, hash: &mut Hash) -> Result<(), Lost> {
    // A value that does not vary is hashed as often as it is repeated.
    let Sizes { samples, positions, channels } = sizes;
    for sample in 0..samples {
        for position in 0..positions {
            let row = output.row(sample, position);
            let step = usize::from(output.sizes.channels > 1);
            for channel in 0..channels {
                hash.add(rounded(output.values[row + channel * step], output.errors[row + channel * step])?);
            }
        }
    }
    Ok(())
}

/// Where rounding turns from relative to absolute.
const SMALL: f64 = 1.0 / 4096.0;

/// The number of a rounding interval. Intervals are about `1e-7 (|v| + 1/4096)` wide.
fn rounded(value: f64, error: f64) -> Result<u64, Lost> {
    if value.is_nan() {
        return Ok(MARKER);
    }
    // First-order bounds are doubled; the last term covers the rounding of `interval` itself.
    let error = 2.0 * error + 4.0 * f64::EPSILON * (value.abs() + SMALL);
    // Infinite errors, of lost elements, reach from one end to the other.
    let (low, high) = (interval(value - error), interval(value + error));
    if low == high { Ok(low) } else { Err(Lost) }
}

/// The bits of a positive number, read as an integer, grow with it and roughly as its logarithm does.
/// The offset keeps numbers that formulas like, such as 0, inside an interval.
fn interval(value: f64) -> u64 {
    let compressed = (value.abs() + SMALL).to_bits() - SMALL.to_bits();
    let signed = if value < 0.0 { compressed.wrapping_neg() } else { compressed };
    (signed.wrapping_add(0x0CE6_6D3A) as i64 >> 29) as u64
}

// ---------------------------------------------------------------------------------------------
// Evaluation with error bounds, for the fingerprint and for the search of witnesses.

/// The sizes of a value: samples, positions, channels; 1 for an axis it does not vary along.
/// Channels are innermost, so that per-channel values meet inputs in contiguous rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Sizes {
    pub(crate) samples: usize,
    pub(crate) positions: usize,
    pub(crate) channels: usize,
}

impl Sizes {
    pub(crate) fn elements(self) -> usize {
        self.samples * self.positions * self.channels
    }

    fn with(self, other: Self) -> Self {
        Self {
            samples: self.samples.max(other.samples),
            positions: self.positions.max(other.positions),
            channels: self.channels.max(other.channels),
        }
    }
}

/// Values, each with a bound of its absolute error.
///
/// * value not a number: undefined;
/// * error 0: exactly that value;
/// * error infinite: lost, it could be anything, undefined included.
///
/// Values are never infinite.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bounded {
    pub(crate) sizes: Sizes,
    pub(crate) values: Vec<f64>,
    pub(crate) errors: Vec<f64>,
}

impl Bounded {
    /// The offset of the row of channels at a sample and position.
    fn row(&self, sample: usize, position: usize) -> usize {
        let sample = if self.sizes.samples == 1 { 0 } else { sample };
        let position = if self.sizes.positions == 1 { 0 } else { position };
        (sample * self.sizes.positions + position) * self.sizes.channels
    }

    /// The value and its error bound, with axes of size 1 repeated.
    pub(crate) fn at(&self, sample: usize, position: usize, channel: usize) -> (f64, f64) {
        let channel = if self.sizes.channels == 1 { 0 } else { channel };
        let offset = self.row(sample, position) + channel;
        (self.values[offset], self.errors[offset])
    }

    fn reset(&mut self, sizes: Sizes) {
        self.sizes = sizes;
        self.values.clear();
        self.errors.clear();
    }

    fn resize(&mut self, sizes: Sizes) {
        self.sizes = sizes;
        self.values.resize(sizes.elements(), 0.0);
        self.errors.resize(sizes.elements(), 0.0);
    }

    /// Declares the values exact.
    fn exact(&mut self) {
        self.errors.clear();
        self.errors.resize(self.values.len(), 0.0);
    }

    fn push(&mut self, (value, error): (f64, f64)) {
        self.values.push(value);
        self.errors.push(error);
    }

    fn map(&mut self, x: &Bounded, f: impl Fn(f64, f64) -> (f64, f64)) {
        self.resize(x.sizes);
        let operands = x.values.iter().zip(&x.errors);
        for ((value, error), (&x, &ex)) in self.values.iter_mut().zip(&mut self.errors).zip(operands) {
            let (y, ey) = f(x, ex);
            (*value, *error) = settled(y, ey);
        }
    }

    fn zip(&mut self, a: &Bounded, b: &Bounded, f: impl Fn(f64, f64, f64, f64) -> (f64, f64)) {
        let sizes = a.sizes.with(b.sizes);
        self.resize(sizes);
        let width = sizes.channels;
        let rows = |x: &Bounded, row: usize| (row, row + x.sizes.channels);
        for sample in 0..sizes.samples {
            for position in 0..sizes.positions {
                let out = (sample * sizes.positions + position) * width;
                let (a_from, a_to) = rows(a, a.row(sample, position));
                let (b_from, b_to) = rows(b, b.row(sample, position));
                let out = self.values[out..out + width].iter_mut().zip(&mut self.errors[out..out + width]);
                let a = (&a.values[a_from..a_to], &a.errors[a_from..a_to]);
                let b = (&b.values[b_from..b_to], &b.errors[b_from..b_to]);
                let set = |(value, error): (&mut f64, &mut f64), (y, ey): (f64, f64)| {
                    (*value, *error) = settled(y, ey);
                };
                if a.0.len() == b.0.len() {
                    for ((((out, &a), &ea), &b), &eb) in out.zip(a.0).zip(a.1).zip(b.0).zip(b.1) {
                        set(out, f(a, ea, b, eb));
                    }
                } else if a.0.len() == 1 {
                    let (a, ea) = (a.0[0], a.1[0]);
                    out.zip(b.0).zip(b.1).for_each(|((out, &b), &eb)| set(out, f(a, ea, b, eb)));
                } else {
                    let (b, eb) = (b.0[0], b.1[0]);
                    out.zip(a.0).zip(a.1).for_each(|((out, &a), &ea)| set(out, f(a, ea, b, eb)));
                }
            }
        }
    }
}

/// Where a plan gets its leaves from.
pub(crate) struct Sources<'a> {
    /// The input, samples x positions x channels.
    pub(crate) x: &'a [f64],
    /// Appends the values of a parameter: one, or one per channel.
    pub(crate) param: &'a dyn Fn(ParamId, &mut Vec<f64>),
    /// For steps that read a running average, the average; empty in training.
    pub(crate) statistics: &'a [Option<Bounded>],
}

/// The value of every step of a plan.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slots {
    list: Vec<Bounded>,
    scratch: Bounded,
}

impl Slots {
    /// The value of a step.
    pub(crate) fn value(&self, step: usize) -> &Bounded {
        &self.list[step]
    }
}

/// What a step computes, from steps before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Work {
    Input,
    Constant(f64),
    Param(ParamId),
    Unary(Prim, usize),
    Binary(Prim, usize, usize),
    /// `a - a`: 0 where `a` is defined, whatever its error.
    Cancel(usize),
    /// `a / a`: 1 where `a` is defined and not 0.
    Ratio(usize),
    Moment(MomentOp, usize),
}

/// A step of a plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub(crate) work: Work,
    /// A node of the graph with this value.
    pub(crate) node: NodeId,
    /// The live parameters it depends on, a bit each; the last bit stands for all from the 64th on.
    depends: u64,
    /// Whether it can vary from channel to channel.
    has_channels: bool,
}

/// The mask of a run from scratch.
pub(crate) const EVERYTHING: u64 = u64::MAX;

/// The live nodes of a graph in order, equal ones once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) steps: Vec<Step>,
    /// The step that computes the output.
    pub(crate) output: usize,
    /// The parameters the output depends on.
    pub(crate) params: Vec<ParamId>,
    /// The exact numbers of groups.
    exact_groups: Vec<usize>,
    /// Those that make a difference: a value without channels is the same in every group.
    binding_groups: Vec<usize>,
}

impl Plan {
    pub(crate) fn of(dag: &Dag) -> Self {
        let nodes: Vec<(Op, Operands)> = dag.ids().map(|id| (dag.op(id), dag.operands(id))).collect();
        let mut live = vec![false; nodes.len()];
        live[dag.output().index()] = true;
        for index in (0..nodes.len()).rev().filter(|&index| index <= dag.output().index()) {
            if live[index] {
                nodes[index].1.iter().for_each(|operand| live[operand.index()] = true);
            }
        }
        let mut plan = Self::default();
        let mut known: FxHashMap<(Op, usize, usize), usize> = FxHashMap::default();
        let mut step_of = vec![0; nodes.len()];
        for id in dag.ids().filter(|id| live[id.index()]) {
            let (op, operands) = nodes[id.index()];
            let (a, b) = match operands {
                Operands::None => (0, 0),
                Operands::One(a) => (step_of[a.index()], 0),
                Operands::Two(a, b) => {
                    let (a, b) = (step_of[a.index()], step_of[b.index()]);
                    let commutes = matches!(op, Op::Prim(Prim::Add | Prim::Mul | Prim::Max));
                    if commutes && b < a { (b, a) } else { (a, b) }
                }
            };
            step_of[id.index()] = *known.entry((op, a, b)).or_insert_with(|| plan.push(dag, id, a, b));
        }
        plan.output = step_of[dag.output().index()];
        plan
    }

    /// Adds a step for a node whose operands are the steps `a` and `b`.
    fn push(&mut self, dag: &Dag, node: NodeId, a: usize, b: usize) -> usize {
        let op = dag.op(node);
        let operands = &[a, b][..op.operand_count()];
        let mut depends = operands.iter().fold(0, |depends, &operand| depends | self.steps[operand].depends);
        let mut has_channels = operands.iter().any(|&operand| self.steps[operand].has_channels);
        let negates = |x: usize, y: usize| self.steps[y].work == Work::Unary(Prim::Neg, x);
        let work = match op {
            Op::Input => {
                has_channels = true;
                Work::Input
            }
            Op::Constant(value) => Work::Constant(value.get()),
            Op::Param(param) => {
                depends = bit(self.params.len());
                has_channels = dag.param(param).extent == Extent::PerChannel;
                self.params.push(param);
                Work::Param(param)
            }
            Op::Prim(Prim::Add) if negates(a, b) => Work::Cancel(a),
            Op::Prim(Prim::Div) if a == b => Work::Ratio(a),
            Op::Prim(prim) => match prim.arity() {
                Arity::Unary => Work::Unary(prim, a),
                Arity::Binary => Work::Binary(prim, a, b),
            },
            Op::Moment(moment) => {
                if let IndexSet::Group(Groups::Exactly(count)) = moment.over() {
                    let count = count.get() as usize;
                    self.exact_groups.push(count);
                    if has_channels {
                        self.binding_groups.push(count);
                    }
                }
                has_channels &= match moment.over() {
                    IndexSet::Batch | IndexSet::Instance | IndexSet::Group(_) => true,
                    IndexSet::Layer | IndexSet::Channel | IndexSet::All => false,
                };
                Work::Moment(moment, a)
            }
        };
        self.steps.push(Step { work, node, depends, has_channels });
        self.steps.len() - 1
    }

    /// Whether every exact number of groups that makes a difference divides so many channels.
    pub(crate) fn fits(&self, channels: usize) -> bool {
        self.binding_groups.iter().all(|&groups| channels.is_multiple_of(groups))
    }

    /// The least number of channels that every exact number of groups of this plan and another
    /// divides; `None` if it is very large.
    pub(crate) fn channels_multiple(&self, other: &Plan) -> Option<usize> {
        self.exact_groups.iter().chain(&other.exact_groups).try_fold(1usize, |multiple, &groups| {
            let divisor = (1..=multiple.min(groups)).rev().find(|&d| multiple % d == 0 && groups % d == 0).unwrap_or(1);
            (multiple / divisor).checked_mul(groups).filter(|&multiple| multiple <= MAX_CHANNELS)
        })
    }

    /// The position of a live parameter in [`Self::params`].
    fn position_of(&self, param: ParamId) -> usize {
        self.params.iter().position(|&live| live == param).expect("plans read live parameters only")
    }

    /// The mask of the parameters, by position, that `changed` is true of.
    fn mask(&self, changed: impl Fn(usize) -> bool) -> u64 {
        (0..self.params.len()).filter(|&position| changed(position)).fold(0, |mask, position| mask | bit(position))
    }

    /// Evaluates the steps that depend on a parameter in `changed`, or all for [`EVERYTHING`]. The
    /// other slots keep their values.
    pub(crate) fn run(&self, sizes: Sizes, changed: u64, sources: &Sources<'_>, slots: &mut Slots) {
        if slots.list.len() < self.steps.len() {
            slots.list.resize_with(self.steps.len(), Bounded::default);
        }
        for (index, step) in self.steps.iter().enumerate() {
            if changed != EVERYTHING && step.depends & changed == 0 {
                continue;
            }
            let (before, rest) = slots.list.split_at_mut(index);
            let out = &mut rest[0];
            match step.work {
                Work::Input => {
                    out.reset(sizes);
                    out.values.extend_from_slice(sources.x);
                    out.exact();
                }
                Work::Constant(value) => {
                    out.reset(Sizes { samples: 1, positions: 1, channels: 1 });
                    out.push((value, 0.0));
                }
                Work::Param(param) => {
                    out.reset(sizes);
                    (sources.param)(param, &mut out.values);
                    out.sizes = Sizes { samples: 1, positions: 1, channels: out.values.len() };
                    out.exact();
                }
                Work::Unary(prim, x) => unary(prim, &before[x], out),
                Work::Binary(prim, a, b) => binary(prim, &before[a], &before[b], out),
                Work::Cancel(a) => out.map(&before[a], |a, ea| (a * 0.0, if ea.is_finite() { 0.0 } else { ea })),
                Work::Ratio(a) => out.map(&before[a], ratio),
                Work::Moment(op, x) => {
                    let average = &mut slots.scratch;
                    let statistic = sources.statistics.get(index).and_then(Option::as_ref);
                    match statistic {
                        Some(statistic) => average.clone_from(statistic),
                        None => self::average(&before[x], op, sizes.channels, average),
                    }
                    // Groups are repeated for each of their channels.
                    let wide = if statistic.is_none() && average.sizes.channels > 1 {
                        before[x].sizes.channels
                    } else {
                        average.sizes.channels
                    };
                    let repeat = wide / average.sizes.channels;
                    out.reset(Sizes { channels: wide, ..average.sizes });
                    for (&value, &error) in average.values.iter().zip(&average.errors) {
                        let finished = match op.moment().is_root() {
                            true => root(value, error, op.eps().get()),
                            false => (value, error),
                        };
                        (0..repeat).for_each(|_| out.push(finished));
                    }
                }
            }
        }
    }
}

fn bit(position: usize) -> u64 {
    1 << position.min(63)
}

/// A bound of the relative error of the functions of the system's library, with room to spare.
const LIBRARY: f64 = 4.0 * f64::EPSILON;

/// Below this size, products of small numbers are not exact to a relative error.
const TINY: f64 = 1e-290;

/// Makes results too large for f64 lost.
#[inline(always)]
fn settled(value: f64, error: f64) -> (f64, f64) {
    let overflow = value.abs() == f64::INFINITY;
    // The comparison is false for errors that are not a number.
    let kept = !overflow & (error < f64::MAX);
    (if overflow { 1.0 } else { value }, if kept { error } else { f64::INFINITY })
}

/// The error of `product = a * b` (Dekker 1971), at most half a unit in the last place.
#[inline(always)]
fn product_error(a: f64, b: f64, product: f64) -> f64 {
    let split = |x: f64| {
        let scaled = 134_217_729.0 * x;
        let high = scaled - (scaled - x);
        (high, x - high)
    };
    let ((a_high, a_low), (b_high, b_low)) = (split(a), split(b));
    ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
}

/// A bound of the rounding error where `measured` is the error, unless very large numbers spoilt it.
#[inline(always)]
fn rounding(measured: f64, result: f64) -> f64 {
    // The minimum with a number that is none is the other one.
    measured.abs().min(f64::EPSILON * result.abs())
}

#[inline(always)]
fn sum(a: f64, ea: f64, b: f64, eb: f64) -> (f64, f64) {
    let y = a + b;
    let b_part = y - a;
    let measured = (a - (y - b_part)) + (b - b_part);
    (y, ea + eb + rounding(measured, y))
}

#[inline(always)]
fn product(a: f64, ea: f64, b: f64, eb: f64) -> (f64, f64) {
    let y = a * b;
    let underflow = if (y.abs() < TINY) & (a != 0.0) & (b != 0.0) { TINY } else { 0.0 };
    (y, a.abs() * eb + b.abs() * ea + ea * eb + rounding(product_error(a, b, y), y) + underflow)
}

#[inline(always)]
fn quotient(a: f64, ea: f64, b: f64, eb: f64) -> (f64, f64) {
    let y = a / b;
    let measured = ((a - y * b) - product_error(y, b, y * b)) / b;
    let underflow = if (y.abs() < TINY) & (a != 0.0) { TINY } else { 0.0 };
    let error = (ea + y.abs() * eb) / (b.abs() - eb) + rounding(measured, y) + underflow;
    let undefined = (b == 0.0) & (eb == 0.0);
    let lost = (b.abs() <= eb) & !undefined;
    let y = if undefined {
        f64::NAN
    } else if lost {
        // Still undefined if `a` or `b` is.
        1.0 + 0.0 * a + 0.0 * b
    } else {
        y
    };
    (y, if lost { f64::INFINITY } else { error })
}

fn ratio(a: f64, ea: f64) -> (f64, f64) {
    if a.is_nan() || (a == 0.0 && ea == 0.0) {
        (f64::NAN, 0.0)
    } else {
        (1.0, if a.abs() <= ea { f64::INFINITY } else { 0.0 })
    }
}

/// `sqrt(x + eps)`, undefined for negative numbers.
fn root(x: f64, ex: f64, eps: f64) -> (f64, f64) {
    let (x, ex) = sum(x, ex, eps, 0.0);
    if x.is_nan() || x < -ex {
        (f64::NAN, 0.0)
    } else if eps < 0.0 && x <= ex {
        (1.0, f64::INFINITY)
    } else {
        square_root(x.max(0.0), ex)
    }
}

/// The root of a number that is not negative.
fn square_root(x: f64, ex: f64) -> (f64, f64) {
    let y = x.sqrt();
    if x <= 2.0 * ex {
        return (y, if x == 0.0 && ex == 0.0 { 0.0 } else { 2.0 * (x + ex).sqrt() });
    }
    let measured = if y > 0.0 { ((x - y * y) - product_error(y, y, y * y)) / y } else { 0.0 };
    (y, if y > 0.0 { ex / y } else { 0.0 } + rounding(measured, y))
}

/// The change of a function with this slope, where the slope at most grows by `exp(2 |change|)`;
/// `most` is how much the function can change at all.
fn change(slope: f64, ex: f64, steepest: f64, most: f64) -> f64 {
    if ex < 0.1 {
        1.25 * slope * ex
    } else if ex.is_finite() {
        (steepest * ex).min(most)
    } else {
        f64::INFINITY
    }
}

fn unary(prim: Prim, x: &Bounded, out: &mut Bounded) {
    let exact_at = |place: f64, x: f64, ex: f64, y: f64| if x == place && ex == 0.0 { 0.0 } else { LIBRARY * y.abs() };
    match prim {
        Prim::Neg => out.map(x, |x, ex| (-x, ex)),
        Prim::Abs => out.map(x, |x, ex| (x.abs(), ex)),
        Prim::Square => out.map(x, |x, ex| product(x, ex, x, ex)),
        Prim::Sigmoid => out.map(x, |x, ex| {
            let y = Prim::Sigmoid.value(x, 0.0);
            let underflow = if y < TINY { TINY } else { 0.0 };
            (y, change(y * (1.0 - y), ex, 0.25, 1.0) + exact_at(0.0, x, ex, y) + underflow)
        }),
        Prim::Tanh => out.map(x, |x, ex| {
            let y = Prim::Tanh.value(x, 0.0);
            (y, change(1.0 - y * y, ex, 1.0, 2.0) + exact_at(0.0, x, ex, y))
        }),
        Prim::Erf => out.map(x, |x, ex| {
            let y = Prim::Erf.value(x, 0.0);
            let change = if ex.is_finite() { (1.13 * ex).min(2.0) } else { ex };
            (y, change + exact_at(0.0, x, ex, y))
        }),
        Prim::Exp => out.map(x, |x, ex| {
            let y = Prim::Exp.value(x, 0.0);
            let change = if ex < 0.1 { 1.1 * y * ex } else { y * ex.exp_m1() };
            let underflow = if y < TINY { TINY } else { 0.0 };
            (y, change + exact_at(0.0, x, ex, y) + underflow)
        }),
        Prim::Log => out.map(x, |x, ex| {
            let size = x.abs();
            if x == 0.0 && ex == 0.0 {
                (f64::NAN, 0.0)
            } else if size <= 2.0 * ex {
                (1.0, f64::INFINITY)
            } else {
                let y = Prim::Log.value(x, 0.0);
                (y, 2.0 * ex / size + exact_at(1.0, size, ex, y))
            }
        }),
        Prim::Sqrt => out.map(x, |x, ex| {
            // The table's root is that of `|x|` with the sign of `x`.
            let (size, error) = square_root(x.abs(), ex);
            (size.copysign(x), error)
        }),
        Prim::Sign => out.map(x, |x, ex| {
            let decided = x.abs() > ex || ex == 0.0;
            (Prim::Sign.value(x, 0.0), if decided { 0.0 } else { f64::INFINITY })
        }),
        Prim::Add | Prim::Mul | Prim::Div | Prim::Max => unreachable!("the plan asks for the arity"),
    }
}

fn binary(prim: Prim, a: &Bounded, b: &Bounded, out: &mut Bounded) {
    match prim {
        Prim::Add => out.zip(a, b, sum),
        Prim::Mul => out.zip(a, b, product),
        Prim::Div => out.zip(a, b, quotient),
        Prim::Max => out.zip(a, b, |a, ea, b, eb| {
            let either = ea + eb;
            let error = if a - b > either {
                ea
            } else if b - a > either {
                eb
            } else {
                ea.max(eb)
            };
            // The sums keep what is undefined undefined and what is lost lost.
            let larger = if a > b { a } else { b };
            (larger + 0.0 * a + 0.0 * b, error + 0.0 * either)
        }),
        Prim::Neg
        | Prim::Sigmoid
        | Prim::Tanh
        | Prim::Exp
        | Prim::Log
        | Prim::Abs
        | Prim::Square
        | Prim::Sqrt
        | Prim::Erf
        | Prim::Sign => unreachable!("the plan asks for the arity"),
    }
}

/// The averages of a moment before its root, one per statistic, for an input of so many channels.
///
/// # Panics
/// An exact number of groups does not divide the channels; [`Plan::fits`] tells.
pub(crate) fn average(x: &Bounded, op: MomentOp, channels: usize, out: &mut Bounded) {
    let over = op.over();
    let groups = match over {
        // A value that is the same in every channel is the same in every group.
        _ if x.sizes.channels == 1 => 1,
        IndexSet::Batch | IndexSet::Instance => channels,
        IndexSet::Layer | IndexSet::Channel | IndexSet::All => 1,
        IndexSet::Group(groups) => groups.count(channels).expect("the caller asks `fits` first"),
    };
    let (samples_each, samples) = if over.reduces_samples() { (x.sizes.samples, 1) } else { (1, x.sizes.samples) };
    let (positions_each, positions) =
        if over.reduces_positions() { (x.sizes.positions, 1) } else { (1, x.sizes.positions) };
    let channels_each = x.sizes.channels / groups;
    out.reset(Sizes { samples, positions, channels: groups });
    for sample in 0..samples {
        for position in 0..positions {
            for group in 0..groups {
                let offsets = || {
                    (sample * samples_each..(sample + 1) * samples_each).flat_map(move |sample| {
                        (position * positions_each..(position + 1) * positions_each).flat_map(move |position| {
                            let row = (sample * x.sizes.positions + position) * x.sizes.channels;
                            row + group * channels_each..row + (group + 1) * channels_each
                        })
                    })
                };
                let elements = || offsets().map(|offset| (x.values[offset], x.errors[offset]));
                let (value, error) = match op.moment().quantity() {
                    Quantity::Mean => mean(elements()),
                    Quantity::MeanSquare => mean(elements().map(|(x, ex)| product(x, ex, x, ex))),
                    Quantity::Variance => variance(elements),
                };
                out.push(settled(value, error));
            }
        }
    }
}

fn mean(elements: impl Iterator<Item = (f64, f64)>) -> (f64, f64) {
    let (mut total, mut error, mut count) = (0.0, 0.0, 0.0);
    for (x, ex) in elements {
        (total, error) = sum(total, error, x, ex);
        count += 1.0;
    }
    if count == 1.0 { (total, error) } else { quotient(total, error, count, 0.0) }
}

fn variance<I: Iterator<Item = (f64, f64)>>(elements: impl Fn() -> I) -> (f64, f64) {
    let (centre, centre_error) = mean(elements());
    // mean((x − c)²) = Var(x) + (mean(x) − c)², so an error of the centre `c` counts squared. The
    // centre is subtracted as an exact number.
    let (value, error) = mean(elements().map(|(x, ex)| {
        let (distance, error) = sum(x, ex, -centre, 0.0);
        product(distance, error, distance, error)
    }));
    // A single element has no variance, however inexact it is.
    let single = elements().nth(1).is_none();
    let error = if single && centre_error.is_finite() { 0.0 } else { error + centre_error * centre_error };
    (value, error)
}

/// Layers written down shortly, for tests.
#[cfg(test)]
pub(crate) mod formula {
    use std::num::NonZeroU32;

    use normact_ir::{Builder, Moment, NodeId, Param, Running, Scalar, Tracking};

    use super::*;

    /// The layer of a formula such as `(add (mul x v=0) (std/instance x))`.
    ///
    /// `x` is the input, a number a constant, `v=0` a parameter with its initial value and `v:0` one
    /// for the whole layer. A moment is `std/set/eps/momentum/running` with defaults from the right;
    /// the set `group=3` is exact, `group<3` at most.
    pub(crate) fn layer(text: &str) -> Dag {
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let mut builder = Builder::new();
        let output = read(&mut spaced.split_whitespace(), &mut builder);
        builder.finish(output)
    }

    fn read<'a>(words: &mut impl Iterator<Item = &'a str>, builder: &mut Builder) -> NodeId {
        match words.next().unwrap() {
            "(" => {
                let op = words.next().unwrap();
                let op = Prim::by_name(op).map_or_else(|| Op::Moment(moment(op)), Op::Prim);
                let operands: Vec<NodeId> = (0..op.operand_count()).map(|_| read(words, builder)).collect();
                assert_eq!(words.next(), Some(")"));
                builder.intern(op, Operands::from_slice(&operands).unwrap())
            }
            "x" => builder.input(),
            word => match word.parse() {
                Ok(value) => builder.constant(Scalar::new(value).unwrap()),
                Err(_) => {
                    let extent = if word.contains(':') { Extent::Scalar } else { Extent::PerChannel };
                    let (name, init) = word.split_once([':', '=']).unwrap();
                    let id = builder.param_named(name).unwrap_or_else(|| {
                        let init = Scalar::new(init.parse().unwrap()).unwrap();
                        builder.declare(Param { name: name.to_owned(), extent, init }).unwrap()
                    });
                    builder.intern(Op::Param(id), Operands::None)
                }
            },
        }
    }

    fn moment(text: &str) -> MomentOp {
        let parts: Vec<&str> = text.split('/').collect();
        let number =
            |index: usize, default: &str| Scalar::new(parts.get(index).unwrap_or(&default).parse().unwrap()).unwrap();
        let count = |text: &str| NonZeroU32::new(text.parse().unwrap()).unwrap();
        let over = match parts[1] {
            "batch" => IndexSet::Batch,
            "instance" => IndexSet::Instance,
            "layer" => IndexSet::Layer,
            "channel" => IndexSet::Channel,
            "all" => IndexSet::All,
            "group" => IndexSet::Group(Groups::AtMost(count("32"))),
            group => match group.strip_prefix("group=") {
                Some(exact) => IndexSet::Group(Groups::Exactly(count(exact))),
                None => IndexSet::Group(Groups::AtMost(count(group.strip_prefix("group<").unwrap()))),
            },
        };
        let running = if parts.get(4) == Some(&"unbiased") { Running::Unbiased } else { Running::Biased };
        let tracking = Tracking { momentum: number(3, "0.1"), running };
        MomentOp::new(Moment::by_name(parts[0]).unwrap(), over, number(2, "1e-5"), tracking)
    }
}

#[cfg(test)]
mod tests {
    use normact_ir::random::Space;
    use normact_ir::{Builder, Inputs, Mode, Param, Shape, evaluate};
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::formula::layer;
    use super::*;

    fn stable(text: &str) -> u64 {
        match fingerprint(&layer(text)) {
            Fingerprint::Stable(hash) => hash,
            Fingerprint::Unstable => panic!("{text} is unstable"),
        }
    }

    fn equal(a: &str, b: &str) {
        assert_eq!(stable(a), stable(b), "{a} and {b} are equal");
    }

    fn differ(a: &str, b: &str) {
        assert_ne!(stable(a), stable(b), "{a} and {b} differ");
    }

    #[test]
    fn algebra_does_not_matter() {
        equal("(add x (tanh x))", "(add (tanh x) x)");
        equal("(mul x (add v=1 2))", "(add (mul v=1 x) (mul 2 x))");
        equal("(div x x)", "1");
        equal("(mul x (sigmoid x))", "(div x (add 1 (exp (neg x))))");
        equal("(neg (max x 0))", "(neg (mul 0.5 (add x (abs x))))");
        equal("(var/layer x)", "(add (mean/layer (square x)) (neg (square (mean/layer x))))");
        equal("(mean/layer (mean/instance x))", "(mean/layer x)");
        equal("(std/batch/1e-5/0.1 x)", "(std/batch/1e-5/0.9/unbiased x)");
        equal("(div x (add (add x v=1) (neg (add v=1 x))))", "(div 1 0)");
    }

    #[test]
    fn what_is_undefined_matters() {
        differ("(div (mul x v=0) v=0)", "x");
        equal("(div (mul x v=1) v=1)", "x");
        differ("(div (max x 0) (max x 0))", "1");
        differ("(sigmoid (div 1 0))", "1");
        differ("(mul 0 (log (add x (neg x))))", "0");
        differ("(mul 0 (div 1 (max x 0)))", "0");
        differ("(mean/layer (log (max x 0)))", "(mean/layer (log (max (neg x) 0)))");
        differ("(mul x (mean/layer (log (max v=1 0))))", "(mul x (mean/layer (log (max (mul 2 v=1) 0))))");
        equal("(div 1 0)", "(log 0)");
        equal("(div x (add (tanh x) (neg (tanh x))))", "(div 1 0)");
        // Defined almost everywhere in the parameters and at their start.
        equal("(add x (mul 0 (div 1 (add v=1 (neg w=0)))))", "x");
        differ("(add x (mul 0 (div 1 (add v=1 (neg w=1)))))", "x");
    }

    #[test]
    fn names_and_idle_parameters_do_not_matter() {
        equal("(add (mul x a=1) (tanh b=1))", "(add (tanh a=1) (mul b=1 x))");
        differ("(add (mul x a=1) (tanh b=1))", "(add (mul x a=1) (tanh a=1))");
        differ("(mul x a=1)", "(mul x a=0.5)");
        differ("(mul x a=1)", "(mul x a:1)");
        equal("(mul x a=1)", "(add (mul x a=1) (mul 0 b=1))");
        equal("(mul x b=1)", "(add (mul x b=1) (mul 0 (add a=1 c=1)))");
        equal(
            "(mul x (tanh (add b=1 (square d=1))))",
            "(add (mul x (tanh (add c=1 (square a=1)))) (mul 0 (add b=1 d=1)))",
        );
        equal("(add x (mul 0 (add a=1 (mul b=1 (mul c=1 d=1)))))", "x");
        equal("(add x (div 0 (add a=1 (add b=1 (add c=1 (neg 9))))))", "x");
        let sum = |factors: &str| format!("(mul (add a=1 (mul b=1 (mul 2 c=1))) (add x (tanh {factors})))");
        equal(&sum("a=1"), &sum("a=1").replace('a', "z").replace("tznh", "tanh").replace("zdd", "add"));
        differ(&sum("a=1"), &sum("b=1"));
    }

    #[test]
    fn too_many_parameters_are_unstable() {
        let terms = (0..7).fold("x".to_owned(), |sum, number| format!("(add {sum} (mul {number}.5 v{number}=1))"));
        assert_eq!(fingerprint(&layer(&terms)), Fingerprint::Unstable);
    }

    #[test]
    fn index_sets_and_groups_differ() {
        let sets = [
            "batch", "instance", "layer", "channel", "all", "group", "group<2", "group<3", "group<8", "group<16",
            "group<64", "group=2", "group=3", "group=4", "group=18", "group=32", "group=5", "group=7", "group=8",
        ];
        for moment in ["mean", "rms", "std", "var"] {
            let mut hashes: Vec<u64> = sets.iter().map(|set| stable(&format!("({moment}/{set} x)"))).collect();
            hashes.push(stable("x"));
            hashes.push(stable("0"));
            hashes.sort_unstable();
            hashes.dedup();
            // Of more channels than fixed tensors have, 64 groups at most are single channels.
            assert_eq!(hashes.len(), sets.len() + 2 - 1, "{moment}");
        }
    }

    #[test]
    fn rounding_errors_that_decide_are_unstable() {
        let unstable = |text: &str| assert_eq!(fingerprint(&layer(text)), Fingerprint::Unstable, "{text}");
        unstable("(sign (add (tanh x) (neg (mul (tanh x) (div 3 3.0000000000000004)))))");
        unstable("(div 1 (add (exp (square x)) (neg (mul (exp x) (exp (add (square x) (neg x)))))))");
        unstable("(exp (exp (exp (exp (exp x)))))");
        assert_eq!(Fingerprint::Unstable.to_string(), "unstable");
        assert_eq!(Fingerprint::Stable(0xab).to_string(), "00000000000000ab");
    }

    #[test]
    fn fixed_inputs_are_irregular() {
        for (sizes, numbers) in TENSORS {
            let mut magnitudes: Vec<f64> = Tensor::new(sizes, numbers).x.into_iter().map(f64::abs).collect();
            magnitudes.sort_by(f64::total_cmp);
            assert!(magnitudes.windows(2).all(|pair| pair[0] < pair[1]));
            let [smallest, largest] = [numbers.smallest, numbers.largest].map(|exponent| 2f64.powi(exponent));
            assert!(magnitudes[0] > 0.05 * smallest && magnitudes[magnitudes.len() - 1] < 1.71 * largest);
        }
    }

    #[test]
    fn natural_numbers_are_inside_their_intervals() {
        for value in [0.0, 0.5, 1.0, 1.0 / 3.0, 2.0, 0.1, 1e-5, 10.0, 1e-5f64.sqrt()] {
            for value in [value, -value] {
                assert!(rounded(value, 1e-13).is_ok(), "{value}");
            }
        }
        assert_ne!(rounded(1.0, 0.0), rounded(1.000001, 0.0));
        assert_ne!(rounded(1e-5, 0.0), rounded(1.0001e-5, 0.0));
        assert_ne!(rounded(0.1, 0.0), rounded(-0.1, 0.0));
        assert_eq!(rounded(1.0, f64::INFINITY), Err(Lost));
    }

    #[test]
    fn primitives_mean_what_the_table_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let mut numbers: Vec<f64> = vec![0.0, 1.0, -1.0, 0.5, 2.0, 1e-8, -1e-8, 30.0, -30.0];
        numbers.extend((0..200).map(|_| rng.random_range(-5.0..5.0)));
        for &prim in Prim::ALL {
            for &a in &numbers {
                let b = numbers[rng.random_range(0..numbers.len())];
                let bounded = |value: f64, error: f64| {
                    let mut x = Bounded::default();
                    x.reset(Sizes { samples: 1, positions: 1, channels: 1 });
                    x.push((value, error));
                    x
                };
                let value = |a: &Bounded, b: &Bounded| {
                    let mut y = Bounded::default();
                    match prim.arity() {
                        Arity::Unary => unary(prim, a, &mut y),
                        Arity::Binary => binary(prim, a, b, &mut y),
                    }
                    (y.values[0], y.errors[0])
                };
                let expected = prim.value(a, b);
                let (y, error) = value(&bounded(a, 0.0), &bounded(b, 0.0));
                assert_eq!(y.is_nan(), !expected.is_finite(), "{} of {a}, {b}", prim.name());
                assert!(y.is_nan() || (y - expected).abs() <= 1e-15 * y.abs(), "{} of {a}, {b}", prim.name());
                assert!(y.is_nan() || error <= 1e-15 * y.abs().max(1e-200), "{} of {a}, {b}: {error}", prim.name());
                // The bound holds for operands that are off by no more than theirs.
                for size in [1e-12, 1e-6, 1e-2, 0.3] {
                    let (near_a, near_b) = (a + rng.random_range(-size..size), b + rng.random_range(-size..size));
                    let (y, error) = value(&bounded(a, size), &bounded(b, size));
                    let gap = (prim.value(near_a, near_b) - y).abs();
                    assert!(gap <= 2.0 * error + 1e-15, "{} near {a}, {b}: {gap} > {error}", prim.name());
                }
            }
        }
    }

    #[test]
    fn values_are_those_of_the_reference_evaluator() {
        let seed = 5;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for (space, dims) in [(Space::evonorm(), [2, 36, 3]), (Space::language(), [3, 6, 4])] {
            let mut compared = 0;
            for number in 0..2000 {
                let dag = space.draw(&mut rng).dag;
                let shape = Shape::new(&dims).unwrap();
                let sizes =
                    Sizes { samples: shape.samples(), positions: shape.positions(), channels: shape.channels() };
                let x: Vec<f64> = (0..shape.elements()).map(|_| rng.random_range(-2.0..2.0)).collect();
                let mut inputs = Inputs::initial(&dag, shape, x.clone());
                for values in &mut inputs.params {
                    values.iter_mut().for_each(|value| *value = rng.random_range(-2.0..2.0));
                }
                let expected = evaluate(&dag, &inputs, Mode::Training).unwrap().output();
                let place = |sample: usize, position: usize, channel: usize| {
                    (sample * sizes.channels + channel) * sizes.positions + position
                };
                let mut ordered = Vec::new();
                for sample in 0..sizes.samples {
                    for position in 0..sizes.positions {
                        ordered.extend((0..sizes.channels).map(|channel| x[place(sample, position, channel)]));
                    }
                }
                let plan = Plan::of(&dag);
                let param = |id: ParamId, values: &mut Vec<f64>| values.extend_from_slice(&inputs.params[id.index()]);
                let mut slots = Slots::default();
                plan.run(sizes, EVERYTHING, &Sources { x: &ordered, param: &param, statistics: &[] }, &mut slots);
                for sample in 0..sizes.samples {
                    for position in 0..sizes.positions {
                        for channel in 0..sizes.channels {
                            let (y, error) = slots.value(plan.output).at(sample, position, channel);
                            let expected = expected[place(sample, position, channel)];
                            if !y.is_nan() && error < 1e-12 && expected.is_finite() {
                                compared += 1;
                                let close = (y - expected).abs() <= 1e-9 * (1.0 + y.abs());
                                assert!(close, "seed {seed}, graph {number}: {y} and {expected}");
                            }
                        }
                    }
                }
            }
            assert!(compared > 100_000, "{compared}");
        }
    }

    #[test]
    fn normal_forms_have_the_same_fingerprint() {
        let seed = 11;
        let mut fingerprinter = Fingerprinter::new();
        for space in [Space::evonorm(), Space::language()] {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            for number in 0..5000 {
                let dag = space.draw(&mut rng).dag;
                let normalized = dag.normalized();
                assert_eq!(fingerprinter.of(&dag), fingerprinter.of(&normalized), "seed {seed}, graph {number}");
            }
        }
    }

    #[test]
    fn rewritten_layers_have_the_same_fingerprint() {
        let seed = 13;
        let mut fingerprinter = Fingerprinter::new();
        let mut unstable = 0;
        for space in [Space::evonorm(), Space::language()] {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            for number in 0..5000 {
                let dag = space.draw(&mut rng).dag;
                let same = rewritten(&dag, &mut rng);
                match (fingerprinter.of(&dag), fingerprinter.of(&same)) {
                    (Fingerprint::Stable(a), Fingerprint::Stable(b)) => {
                        assert_eq!(a, b, "seed {seed}, graph {number}: {dag:?} and {same:?}");
                    }
                    _ => unstable += 1,
                }
            }
        }
        assert!(unstable < 50, "{unstable} of 10000");
    }

    /// The same function in other words: operands swapped, identities applied, parameters declared
    /// in another order under other names, and one more that has no influence.
    fn rewritten(dag: &Dag, rng: &mut ChaCha8Rng) -> Dag {
        let mut builder = Builder::new();
        let mut order: Vec<usize> = (0..dag.params().len()).collect();
        for index in (1..order.len()).rev() {
            order.swap(index, rng.random_range(0..=index));
        }
        let mut params = vec![None; order.len()];
        for index in order {
            let name = format!("p{}", rng.random::<u64>());
            params[index] = Some(builder.declare(Param { name, ..dag.params()[index].clone() }).unwrap());
        }
        let mut nodes: Vec<NodeId> = Vec::new();
        for id in dag.ids() {
            let operands: Vec<NodeId> = dag.operands(id).iter().map(|operand| nodes[operand.index()]).collect();
            let number = |builder: &mut Builder, value: f64| builder.constant(normact_ir::Scalar::new(value).unwrap());
            let node = match (dag.op(id), operands.as_slice()) {
                (Op::Param(param), _) => builder.intern(Op::Param(params[param.index()].unwrap()), Operands::None),
                (Op::Prim(prim @ (Prim::Add | Prim::Mul | Prim::Max)), &[a, b]) => match rng.random_range(0..3) {
                    0 => builder.binary(prim, b, a),
                    1 if prim == Prim::Add => {
                        let (a, b) = (builder.unary(Prim::Neg, a), builder.unary(Prim::Neg, b));
                        let sum = builder.binary(Prim::Add, a, b);
                        builder.unary(Prim::Neg, sum)
                    }
                    1 if prim == Prim::Mul => {
                        let minus = builder.unary(Prim::Neg, b);
                        let product = builder.binary(Prim::Mul, minus, a);
                        builder.unary(Prim::Neg, product)
                    }
                    _ => builder.binary(prim, a, b),
                },
                (Op::Prim(Prim::Div), &[a, b]) if rng.random_bool(0.5) => {
                    let minus = builder.unary(Prim::Neg, b);
                    let quotient = builder.binary(Prim::Div, a, minus);
                    builder.unary(Prim::Neg, quotient)
                }
                (Op::Prim(Prim::Square), &[a]) if rng.random_bool(0.5) => builder.binary(Prim::Mul, a, a),
                (Op::Prim(Prim::Abs), &[a]) if rng.random_bool(0.5) => {
                    let minus = builder.unary(Prim::Neg, a);
                    builder.binary(Prim::Max, minus, a)
                }
                (Op::Prim(Prim::Sigmoid), &[a]) if rng.random_bool(0.5) => {
                    // (1 + tanh(a / 2)) / 2
                    let (half, one) = (number(&mut builder, 0.5), number(&mut builder, 1.0));
                    let halved = builder.binary(Prim::Mul, half, a);
                    let tanh = builder.unary(Prim::Tanh, halved);
                    let sum = builder.binary(Prim::Add, one, tanh);
                    builder.binary(Prim::Mul, half, sum)
                }
                (op, _) => builder.append(op, Operands::from_slice(&operands).unwrap()).unwrap(),
            };
            nodes.push(if rng.random_bool(0.1) {
                let (zero, one) = (number(&mut builder, 0.0), number(&mut builder, 1.0));
                let product = builder.binary(Prim::Mul, node, one);
                builder.binary(Prim::Add, zero, product)
            } else {
                node
            });
        }
        let init = dag.params()[rng.random_range(0..dag.params().len())].init;
        let idle = builder.declare(Param { name: "idle".to_owned(), extent: Extent::PerChannel, init }).unwrap();
        let idle = builder.intern(Op::Param(idle), Operands::None);
        let zero = builder.constant(normact_ir::Scalar::ZERO);
        let nothing = builder.binary(Prim::Mul, idle, zero);
        let output = builder.binary(Prim::Add, nodes[dag.output().index()], nothing);
        builder.finish(output)
    }
}
