//! A schedule compiled for one direction of memory: steps on chunks, and arithmetic on scalars.
//!
//! A chunk is a run of elements along the lane axis: positions, or channels where those are
//! contiguous or there are hardly any positions. A value that does not vary along the lanes is a
//! scalar, computed in f64 once for as many elements as it is the same for; so the reciprocal of a
//! standard deviation or a product of parameters costs nothing per element. A value that varies along
//! the lanes only (a parameter, when lanes are channels) is computed once per chunk of lanes.

use normact_ir::{Axes, Channels, Prim};
use normact_plan::graph::{Expr, Graph, Operands, Statistic, ValueId};
use normact_plan::{Kind as Reduced, Pass, Plan, Reduction, Schedule, Sizes};

use crate::native::{Instructions, Native};
use crate::run::STREAMED;
use crate::slots::Kind;
use crate::vector::{Source, Step};

/// The axis that chunks run along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Chunks are runs of positions of one channel.
    Positions,
    /// Chunks are runs of channels at one position.
    Channels,
}

impl Lane {
    /// The axis of a chunk and the axis of the rows beside it, in the view of all ranks.
    pub(crate) fn axes(self) -> (usize, usize) {
        match self {
            Lane::Positions => (2, 1),
            Lane::Channels => (1, 2),
        }
    }

    fn varies(self, axes: Axes) -> bool {
        match self {
            Lane::Positions => axes.positions,
            Lane::Channels => axes.channels != Channels::One,
        }
    }

    fn rows_vary(self, axes: Axes) -> bool {
        match self {
            Lane::Positions => axes.channels != Channels::One,
            Lane::Channels => axes.positions,
        }
    }

    /// The layout of accumulators: with lanes along channels, one for each channel of a group.
    pub(crate) fn accumulated(self, to: Axes) -> Axes {
        match (self, to.channels) {
            (Lane::Channels, Channels::Groups(_)) => Axes { channels: Channels::All, ..to },
            _ => to,
        }
    }
}

/// How often a value changes while a pass walks over a region.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    /// Once for each run of lanes.
    Lanes,
    /// Once for each sample.
    Sample,
    /// Once for each row.
    Row,
}

/// Where the value of a slot comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Array {
    Param(usize),
    Running(usize),
    /// A reduction that was given.
    Given(usize),
    /// A reduction of this schedule.
    Result(usize),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum ScalarStep {
    Constant(f64),
    Load(Array),
    Unary(Prim, usize),
    Binary(Prim, usize, usize),
}

/// Arithmetic on scalars: each step gives the scalar of its number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scalars {
    pub(crate) steps: Vec<ScalarStep>,
    of_value: Vec<Option<usize>>,
}

/// What a pass does with a chunk.
#[derive(Debug, Clone, Default)]
pub(crate) struct PassProgram {
    pub(crate) scalars: Scalars,
    /// The numbers of the scalars of each tier, in order.
    pub(crate) scalar_tiers: [Vec<usize>; 3],
    /// The steps of the tiers that rows share: what to compute and into which register.
    pub(crate) shared: [Vec<(Step, usize)>; 2],
    /// The steps of a row.
    pub(crate) steps: Vec<(Step, Place)>,
    /// Where vectors are loaded from.
    pub(crate) loads: Vec<Array>,
    pub(crate) registers: usize,
    pub(crate) accumulate: Vec<Accumulate>,
    pub(crate) write: Option<Source>,
    /// Whether the last step of a row may write the result itself.
    pub(crate) last_step_writes: bool,
    pub(crate) reads: [bool; 2],
    pub(crate) small: Vec<Small>,
    /// The machine code of the steps, where there is one.
    pub(crate) native: Option<Native>,
}

/// Where a step puts its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Register(usize),
    /// The chunk's part of what is held for the block.
    Held(usize),
}

impl Place {
    fn source(self) -> Source {
        match self {
            Place::Register(register) => Source::Register(register),
            Place::Held(held) => Source::Held(held),
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Accumulate {
    /// The accumulator's number among those of the pass, or among those across blocks.
    pub(crate) target: Target,
    pub(crate) operand: Operand,
    pub(crate) kind: Kind,
    /// Whether each lane has its own slot.
    pub(crate) by_lane: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    Block(usize),
    Across(usize),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Operand {
    Value(Source),
    /// A product that is summed without being stored.
    Product(Source, Source),
}

/// A reduction of a value that has slots only.
#[derive(Debug, Clone)]
pub(crate) struct Small {
    pub(crate) operand: SmallValue,
    pub(crate) axes: Axes,
    pub(crate) to: Axes,
    pub(crate) statistic: Statistic,
    /// The number of its result, or of its accumulator across blocks.
    pub(crate) result: usize,
    pub(crate) is_across: bool,
}

/// A value that has slots only, with the arithmetic to compute it at one index.
#[derive(Debug, Clone)]
pub(crate) struct SmallValue {
    pub(crate) scalars: Scalars,
    pub(crate) root: usize,
}

/// A compiled schedule.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) lane: Lane,
    pub(crate) sizes: Sizes,
    pub(crate) cut: Axes,
    pub(crate) before: Vec<Small>,
    pub(crate) passes: Vec<PassProgram>,
    /// How many values passes hold.
    pub(crate) held: usize,
    /// What the passes accumulate per block.
    pub(crate) block: Vec<Vec<BlockReduction>>,
    pub(crate) after: Vec<Small>,
    /// The axes of the sums across blocks, and the number of the result of each.
    pub(crate) across: Vec<(Axes, usize)>,
    /// The axes of each result.
    pub(crate) results: Vec<Axes>,
    /// Results that leave their block.
    pub(crate) exported: Vec<usize>,
    /// The results that are kept, in order.
    pub(crate) kept: Vec<usize>,
    pub(crate) given: Vec<Axes>,
    pub(crate) params: Vec<Axes>,
    pub(crate) running: Vec<Axes>,
    /// The small values asked for in the end, with the axes they are wanted along.
    pub(crate) finals: Vec<Option<(SmallValue, Axes)>>,
    /// The result, where it is the same at every position: it is not written but computed in the end,
    /// once for each of its slots.
    pub(crate) broadcast: Option<(SmallValue, Axes)>,
}

/// An accumulator of a block, and the results it gives.
#[derive(Debug, Clone)]
pub(crate) struct BlockReduction {
    pub(crate) kind: Kind,
    pub(crate) to: Axes,
    /// The numbers of the results, and which statistic each is.
    pub(crate) results: Vec<usize>,
    pub(crate) statistics: Vec<Statistic>,
    /// How many elements make a slot.
    pub(crate) count: f64,
}

struct Compiler<'a> {
    graph: &'a Graph,
    sizes: Sizes,
    lane: Lane,
    given: &'a [ValueId],
    results: Vec<ValueId>,
}

impl Program {
    pub(crate) fn new(
        plan: &Plan,
        schedule: &Schedule,
        kept: &[ValueId],
        finals: &[(Option<ValueId>, Axes)],
        extents: (&[Axes], &[Axes]),
        lane: Lane,
        sizes: Sizes,
    ) -> Self {
        let graph = &plan.joint.graph;
        let mut results = vec![];
        let in_passes = schedule.passes.iter().flat_map(|pass| {
            pass.reductions.iter().flat_map(|reduction| reduction.kind.results()).chain(pass.small.iter().copied())
        });
        results.extend(in_passes.chain(schedule.before.iter().copied()).chain(schedule.after.iter().copied()));
        let compiler = Compiler { graph, sizes, lane, given: &schedule.given, results };
        let number = |id: ValueId| compiler.result(id).expect("a reduction of the schedule");
        let across: Vec<ValueId> = schedule.across.clone();
        let mut passes = vec![];
        let mut block = vec![];
        let mut held = vec![];
        // What is the same at every position takes no pass, and no memory.
        let is_broadcast = |id: &ValueId| !graph.axes(*id).positions && sizes.positions > 1;
        let broadcast = schedule.passes.iter().find_map(|pass| pass.write.filter(is_broadcast));
        let written: Vec<Pass> = schedule.passes.iter().map(|pass| pass.without(broadcast)).collect();
        for pass in &written {
            let mut reductions = vec![];
            held.extend_from_slice(&pass.held);
            passes.push(compiler.pass(pass, &held, &across, &mut reductions));
            block.push(reductions);
        }
        Self {
            lane,
            sizes,
            cut: schedule.cut,
            before: schedule.before.iter().map(|&id| compiler.small(id, &across)).collect(),
            passes,
            held: held.len(),
            block,
            after: schedule.after.iter().map(|&id| compiler.small(id, &across)).collect(),
            across: across.iter().map(|&id| (graph.axes(id), number(id))).collect(),
            results: compiler.results.iter().map(|&id| graph.axes(id)).collect(),
            exported: compiler.exported(schedule, broadcast).map(number).collect(),
            broadcast: broadcast.map(|id| {
                let axes = graph.axes(id);
                let is_single = axes.channels == Channels::One;
                let axes = if is_single { axes } else { Axes { channels: Channels::All, ..axes } };
                (compiler.small_value(id), axes)
            }),
            kept: kept.iter().map(|&id| number(id)).collect(),
            given: schedule.given.iter().map(|&id| graph.axes(id)).collect(),
            params: extents.0.to_vec(),
            running: extents.1.to_vec(),
            finals: finals.iter().map(|&(id, axes)| id.map(|id| (compiler.small_value(id), axes))).collect(),
        }
    }
}

impl PassProgram {
    /// Whether there is something to do for every element.
    pub(crate) fn has_elements(&self) -> bool {
        !self.accumulate.is_empty() || self.write.is_some()
    }

    /// What the pass takes for each element, in additions; a rough measure.
    fn work(&self) -> usize {
        let step = |&(step, _): &(Step, Place)| match step {
            Step::Unary(Prim::Exp | Prim::Log | Prim::Sigmoid | Prim::Tanh | Prim::Erf, _) => 8,
            Step::Unary(Prim::Sqrt, _) | Step::Binary(Prim::Div, ..) => 4,
            Step::Unary(..) | Step::Binary(..) | Step::Subtract(..) | Step::MultiplyAdd(..) | Step::Load(_) => 1,
        };
        let accumulate = |accumulate: &Accumulate| match (accumulate.by_lane, accumulate.kind) {
            (false, Kind::Sum | Kind::SumOfSquares) => 1,
            (true, _) | (_, Kind::Moments) => 4,
        };
        let reads = self.reads.iter().filter(|&&reads| reads).count();
        self.steps.iter().map(step).sum::<usize>()
            + self.accumulate.iter().map(accumulate).sum::<usize>()
            + reads
            + usize::from(self.write.is_some())
    }
}

/// What a row takes beside its elements, in additions.
const WORK_OF_ROW: usize = 1000;

impl Program {
    /// What a run takes, in additions of vectors' elements; a rough measure.
    pub(crate) fn work(&self) -> usize {
        let elements = self.sizes.elements();
        let (lane_axis, _) = self.lane.axes();
        let lanes = [self.sizes.samples, self.sizes.channels, self.sizes.positions][lane_axis];
        let passes = self.passes.iter().filter(|pass| pass.has_elements());
        passes.map(|pass| elements * pass.work() + elements / lanes.max(1) * WORK_OF_ROW).sum()
    }

    /// Makes machine code for the passes.
    pub(crate) fn generate(&mut self, instructions: Instructions) {
        let native = Native::of(self.passes.iter(), instructions, self.sizes.elements() >= STREAMED);
        self.passes.iter_mut().zip(native).for_each(|(pass, native)| pass.native = native);
    }
}

impl Compiler<'_> {
    /// The reductions of blocks that are read after the last block.
    fn exported(&self, schedule: &Schedule, broadcast: Option<ValueId>) -> impl Iterator<Item = ValueId> {
        let roots: Vec<ValueId> = broadcast.into_iter().collect();
        let cone = self.graph.cone(&roots, |id| self.array(id).is_some());
        let is_read = |id: &ValueId| {
            let is_in_blocks = !schedule.across.contains(id) && !schedule.after.contains(id);
            schedule.exported.contains(id) || cone[id.index()] && is_in_blocks
        };
        self.results.iter().copied().filter(is_read).collect::<Vec<_>>().into_iter()
    }

    fn result(&self, id: ValueId) -> Option<usize> {
        self.results.iter().position(|&known| known == id)
    }

    fn array(&self, id: ValueId) -> Option<Array> {
        match self.graph.expr(id) {
            Expr::Param(param) => Some(Array::Param(param.index())),
            Expr::Running(buffer) => Some(Array::Running(buffer)),
            Expr::Reduce { .. } => match self.given.iter().position(|&given| given == id) {
                Some(given) => Some(Array::Given(given)),
                None => Some(Array::Result(self.result(id).expect("reductions are given or computed"))),
            },
            Expr::Input | Expr::Upstream | Expr::Constant(_) | Expr::Count { .. } | Expr::Prim(..) => None,
        }
    }

    /// Adds the arithmetic of a scalar and gives its number.
    fn scalar(&self, scalars: &mut Scalars, root: ValueId) -> usize {
        if scalars.of_value.is_empty() {
            scalars.of_value = vec![None; self.graph.len()];
        }
        if let Some(known) = scalars.of_value[root.index()] {
            return known;
        }
        let cone = self.graph.cone(&[root], |id| self.array(id).is_some());
        for id in self.graph.ids().filter(|id| cone[id.index()]) {
            if scalars.of_value[id.index()].is_some() {
                continue;
            }
            let of = |id: ValueId| scalars.of_value[id.index()].expect("operands precede their users");
            let step = match (self.array(id), self.graph.expr(id)) {
                (Some(array), _) => ScalarStep::Load(array),
                (None, Expr::Constant(value)) => ScalarStep::Constant(value.get()),
                (None, Expr::Count { of, per }) => ScalarStep::Constant(self.sizes.count(of, per)),
                (None, Expr::Prim(prim, Operands::One(a))) => ScalarStep::Unary(prim, of(a)),
                (None, Expr::Prim(prim, Operands::Two(a, b))) => ScalarStep::Binary(prim, of(a), of(b)),
                (None, _) => unreachable!("a scalar does not depend on x or dy"),
            };
            scalars.of_value[id.index()] = Some(scalars.steps.len());
            scalars.steps.push(step);
        }
        scalars.of_value[root.index()].expect("just added")
    }

    fn small_value(&self, id: ValueId) -> SmallValue {
        let mut scalars = Scalars::default();
        let root = self.scalar(&mut scalars, id);
        SmallValue { scalars, root }
    }

    fn small(&self, id: ValueId, across: &[ValueId]) -> Small {
        let Expr::Reduce { statistic, operand, to } = self.graph.expr(id) else { unreachable!("a reduction") };
        let across = across.iter().position(|&known| known == id);
        let result = across.unwrap_or_else(|| self.result(id).expect("a reduction of the schedule"));
        let operand_axes = self.graph.axes(operand);
        Small {
            operand: self.small_value(operand),
            axes: operand_axes,
            to,
            statistic,
            result,
            is_across: across.is_some(),
        }
    }

    fn tier(&self, axes: Axes) -> Tier {
        if self.lane.rows_vary(axes) {
            Tier::Row
        } else if axes.samples {
            Tier::Sample
        } else {
            Tier::Lanes
        }
    }

    /// Compiles a pass; `held` are the values that it and the passes before it hold.
    fn pass(&self, pass: &Pass, held: &[ValueId], across: &[ValueId], block: &mut Vec<BlockReduction>) -> PassProgram {
        let graph = self.graph;
        let is_vector = |id: ValueId| self.lane.varies(graph.axes(id));
        let roots = pass.roots();
        let mut uses = vec![0usize; graph.len()];
        for &id in &pass.values {
            if is_vector(id) {
                graph.expr(id).operands().for_each(|operand| uses[operand.index()] += 1);
            }
        }
        roots.iter().for_each(|root| uses[root.index()] += 1);

        // Which products and negations become part of the step that uses them.
        let mut fused = vec![false; graph.len()];
        let is_row = |id: ValueId| self.tier(graph.axes(id)) == Tier::Row;
        let may_fuse = |id: ValueId, prim: Prim| match graph.expr(id) {
            Expr::Prim(found, _) => {
                found == prim && is_vector(id) && is_row(id) && uses[id.index()] == 1 && !held.contains(&id)
            }
            _ => false,
        };
        let mut plans: Vec<Option<(ValueId, ValueId)>> = vec![None; graph.len()];
        for &id in pass.values.iter().filter(|&&id| is_vector(id)) {
            let Expr::Prim(Prim::Add, Operands::Two(a, b)) = graph.expr(id) else { continue };
            let inner = [(b, a), (a, b)]
                .into_iter()
                .find(|&(inner, _)| may_fuse(inner, Prim::Neg))
                .or_else(|| [(a, b), (b, a)].into_iter().find(|&(inner, _)| may_fuse(inner, Prim::Mul)));
            if let Some((inner, other)) = inner {
                fused[inner.index()] = true;
                plans[id.index()] = Some((inner, other));
            }
        }
        let product_of = |reduction: &Reduction| match (reduction.kind, graph.expr(reduction.operand)) {
            (Reduced::Sum { .. }, Expr::Prim(Prim::Mul, Operands::Two(a, b)))
                if uses[reduction.operand.index()] == 1
                    && is_vector(a)
                    && is_vector(b)
                    && !held.contains(&reduction.operand)
                    && !self.by_lane(reduction.to) =>
            {
                Some((a, b))
            }
            _ => None,
        };
        for reduction in &pass.reductions {
            if product_of(reduction).is_some() {
                fused[reduction.operand.index()] = true;
            }
        }

        let mut code = Code {
            compiler: self,
            program: PassProgram::default(),
            registers: vec![None; graph.len()],
            held,
            last_use: vec![],
            last_read: vec![],
        };
        code.last_use = last_uses(graph, pass, &fused, &roots);
        for (position, &id) in pass.values.iter().enumerate() {
            if !is_vector(id) || fused[id.index()] {
                continue;
            }
            let step = match (graph.expr(id), plans[id.index()]) {
                (_, Some((inner, other))) => match graph.expr(inner) {
                    Expr::Prim(Prim::Neg, Operands::One(negated)) => {
                        Step::Subtract(code.source(other), code.source(negated))
                    }
                    Expr::Prim(_, Operands::Two(a, b)) => {
                        let (a, b) = if is_vector(a) { (a, b) } else { (b, a) };
                        Step::MultiplyAdd(code.source(a), code.source(b), code.source(other))
                    }
                    _ => unreachable!("a negation or a product"),
                },
                (Expr::Prim(prim, Operands::One(a)), None) => Step::Unary(prim, code.source(a)),
                (Expr::Prim(prim, Operands::Two(a, b)), None) => Step::Binary(prim, code.source(a), code.source(b)),
                _ => unreachable!("the values of a pass are elementwise"),
            };
            code.emit(id, step, position);
        }
        for reduction in &pass.reductions {
            let operand = match product_of(reduction) {
                Some((a, b)) => Operand::Product(code.source(a), code.source(b)),
                None => Operand::Value(code.source(reduction.operand)),
            };
            let by_lane = self.by_lane(reduction.to);
            let kind = match reduction.kind {
                // What is subtracted from the elements it is the mean of must be closer to it than a sum in f32.
                Reduced::Sum { sum: None, .. } if !by_lane && matches!(operand, Operand::Value(_)) => Kind::Moments,
                Reduced::Sum { .. } => Kind::Sum,
                Reduced::MeanSquare(_) => Kind::SumOfSquares,
                Reduced::Moments { .. } => Kind::Moments,
            };
            let sum = reduction.kind.results().next().expect("a reduction has a result");
            let target = match across.iter().position(|&id| id == sum) {
                Some(number) => Target::Across(number),
                None => {
                    let ids: Vec<ValueId> = reduction.kind.results().collect();
                    let statistic = |&id: &ValueId| match graph.expr(id) {
                        Expr::Reduce { statistic, .. } => statistic,
                        _ => unreachable!("a reduction"),
                    };
                    block.push(BlockReduction {
                        kind,
                        to: reduction.to,
                        results: ids.iter().map(|&id| self.result(id).expect("one of the schedule")).collect(),
                        statistics: ids.iter().map(statistic).collect(),
                        count: self.sizes.count(Axes::INPUT, reduction.to),
                    });
                    Target::Block(block.len() - 1)
                }
            };
            code.program.accumulate.push(Accumulate { target, operand, kind, by_lane });
        }
        code.program.write = pass.write.map(|id| code.source(id));
        let mut program = code.program;
        let last = program.steps.last().map(|&(_, place)| place.source());
        program.last_step_writes = pass.write.is_some_and(|id| uses[id.index()] == 1) && last == program.write;
        program.small = pass.small.iter().map(|&id| self.small(id, across)).collect();
        program
    }

    fn by_lane(&self, to: Axes) -> bool {
        self.lane.varies(to)
    }
}

/// For each value, the position in the pass of the last step that reads it; `usize::MAX` for what is
/// read after the steps.
fn last_uses(graph: &Graph, pass: &Pass, fused: &[bool], roots: &[ValueId]) -> Vec<usize> {
    let mut last = vec![0usize; graph.len()];
    let mut users = pass.values.iter().enumerate().collect::<Vec<_>>();
    users.reverse();
    for root in roots {
        last[root.index()] = usize::MAX;
    }
    // A fused value's operands are read where its one user is.
    for (position, &id) in users {
        let at = if fused[id.index()] { last[id.index()] } else { position };
        for operand in graph.expr(id).operands() {
            last[operand.index()] = last[operand.index()].max(at);
        }
    }
    last
}

struct Code<'a> {
    compiler: &'a Compiler<'a>,
    program: PassProgram,
    registers: Vec<Option<usize>>,
    held: &'a [ValueId],
    last_use: Vec<usize>,
    /// For each register, the position of the last step that reads what it holds.
    last_read: Vec<usize>,
}

impl Code<'_> {
    fn source(&mut self, id: ValueId) -> Source {
        let (compiler, graph) = (self.compiler, self.compiler.graph);
        match graph.expr(id) {
            Expr::Input => {
                self.program.reads[0] = true;
                return Source::Input;
            }
            Expr::Upstream => {
                self.program.reads[1] = true;
                return Source::Upstream;
            }
            _ => {}
        }
        if !compiler.lane.varies(graph.axes(id)) {
            let before = self.program.scalars.steps.len();
            let scalar = compiler.scalar(&mut self.program.scalars, id);
            let is_new = self.program.scalars.steps.len() > before;
            let ids = is_new.then(|| graph.ids()).into_iter().flatten();
            let known = ids.filter_map(|id| Some((self.program.scalars.of_value[id.index()]?, id)));
            for (number, id) in known.filter(|&(number, _)| number >= before) {
                let tier = compiler.tier(graph.axes(id));
                self.program.scalar_tiers[tier as usize].push(number);
            }
            return Source::Scalar(scalar);
        }
        if let Some(held) = self.held.iter().position(|&held| held == id) {
            return Source::Held(held);
        }
        if let Some(register) = self.registers[id.index()] {
            return Source::Register(register);
        }
        let array = compiler.array(id).expect("a vector is computed before it is used, or loaded");
        self.program.loads.push(array);
        let step = Step::Load(self.program.loads.len() - 1);
        self.place(id, step, usize::MAX)
    }

    fn emit(&mut self, id: ValueId, step: Step, position: usize) {
        match self.held.iter().position(|&held| held == id) {
            Some(held) => self.program.steps.push((step, Place::Held(held))),
            None => {
                self.place(id, step, position);
            }
        }
    }

    fn place(&mut self, id: ValueId, step: Step, position: usize) -> Source {
        let tier = self.compiler.tier(self.compiler.graph.axes(id));
        let register = match (tier, position) {
            (Tier::Row, position) if position != usize::MAX => self.last_read.iter().position(|&last| last < position),
            _ => None,
        };
        let register = register.unwrap_or_else(|| {
            self.program.registers += 1;
            self.last_read.push(0);
            self.program.registers - 1
        });
        self.registers[id.index()] = Some(register);
        // What rows share stays for the next row.
        self.last_read[register] = if tier == Tier::Row { self.last_use[id.index()] } else { usize::MAX };
        match tier {
            Tier::Row => self.program.steps.push((step, Place::Register(register))),
            Tier::Lanes | Tier::Sample => self.program.shared[tier as usize].push((step, register)),
        }
        Source::Register(register)
    }
}
