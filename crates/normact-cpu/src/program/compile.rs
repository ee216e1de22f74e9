//! From a schedule to a program.

use std::collections::HashMap;

use normact_ir::{Axes, Channels, Prim};
use normact_plan::graph::{Expr, Graph, Operands, ValueId, one_by_one};
use normact_plan::{HELD_BLOCK, Kind, Pass, Plan, Reduction, Schedule, Sizes};

use super::{
    Accumulate, Across, Array, BlockReduction, Home, Lane, PassProgram, Program, Same, ScalarStep, Scalars, SharedStep,
    Small, SmallValue, Summand, Target, Tier,
};
use crate::run::Blocks;
use crate::slots::{Accumulation, Grid, Layout};
use crate::vector::{Source, Step};

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
        let mut blocks = Blocks::new(schedule.cut, lane, sizes);
        // Where channels are lanes, a block has all of them, and may be larger than planned.
        let recomputing;
        let schedule = if blocks.largest() > HELD_BLOCK {
            recomputing = schedule.without_held(graph);
            &recomputing
        } else {
            schedule
        };
        let in_passes = schedule.passes.iter().flat_map(|pass| {
            pass.reductions.iter().flat_map(|reduction| reduction.kind.results()).chain(pass.small.iter().copied())
        });
        let results: Vec<ValueId> =
            in_passes.chain(schedule.before.iter().copied()).chain(schedule.after.iter().copied()).collect();
        let compiler = Compiler {
            graph,
            sizes,
            lane,
            numbers: results.iter().enumerate().map(|(number, &id)| (id, number)).collect(),
            given: schedule.given.iter().enumerate().map(|(number, &id)| (id, number)).collect(),
            across: schedule.across.iter().enumerate().map(|(number, &id)| (id, number)).collect(),
        };
        let number = |id: ValueId| compiler.numbers[&id];
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
            passes.push(compiler.pass(pass, &held, &mut reductions));
            block.push(reductions);
        }
        let layout = |axes: Axes| Layout::new(axes, sizes);
        // The slots of a value, a channel from each group of channels that share one.
        let grid = |axes: Axes, samples: usize| {
            let channels = sizes.slots(axes)[1];
            Grid { start: [0; 3], count: [samples, channels, 1], unit: sizes.channels / channels }
        };
        let mut start = 0;
        let given = schedule.given.iter().map(|&id| {
            let layout = layout(graph.axes(id));
            start += layout.len();
            (layout, start - layout.len())
        });
        let mut program = Self {
            lane,
            sizes,
            blocks: Blocks::default(),
            before: schedule.before.iter().map(|&id| compiler.small(id)).collect(),
            passes,
            held: held.len(),
            block,
            after: schedule.after.iter().map(|&id| compiler.small(id)).collect(),
            across: schedule.across.iter().map(|&id| compiler.across(id)).collect(),
            results: results.iter().map(|&id| layout(graph.axes(id))).collect(),
            exported: compiler.exported(schedule, &results, broadcast).map(number).collect(),
            broadcast: broadcast.map(|id| {
                let axes = graph.axes(id);
                let is_single = axes.channels == Channels::One;
                let axes = if is_single { axes } else { Axes { channels: Channels::All, ..axes } };
                (compiler.small_value(id), grid(axes, sizes.slots(axes)[0]))
            }),
            kept: kept.iter().map(|&id| number(id)).collect(),
            given: given.collect(),
            params: extents.0.iter().copied().map(layout).collect(),
            running: extents.1.iter().copied().map(layout).collect(),
            finals: finals.iter().map(|&(id, axes)| id.map(|id| (compiler.small_value(id), grid(axes, 1)))).collect(),
        };
        blocks.share(&program);
        program.blocks = blocks;
        program
    }
}

struct Compiler<'a> {
    graph: &'a Graph,
    sizes: Sizes,
    lane: Lane,
    /// The number of each reduction: of those of the schedule, those given, and those across blocks.
    numbers: HashMap<ValueId, usize>,
    given: HashMap<ValueId, usize>,
    across: HashMap<ValueId, usize>,
}

/// Scalars in the making.
#[derive(Default)]
struct ScalarCode {
    scalars: Scalars,
    of_value: HashMap<ValueId, usize>,
}

impl Compiler<'_> {
    /// The reductions of blocks that are read after the last block.
    fn exported(
        &self,
        schedule: &Schedule,
        results: &[ValueId],
        broadcast: Option<ValueId>,
    ) -> impl Iterator<Item = ValueId> {
        let roots: Vec<ValueId> = broadcast.into_iter().collect();
        let cone = self.graph.cone(&roots, |id| self.array(id).is_some());
        let is_read = |id: &ValueId| {
            let is_in_blocks = !self.across.contains_key(id) && !schedule.after.contains(id);
            schedule.exported.contains(id) || cone[id.index()] && is_in_blocks
        };
        results.iter().copied().filter(is_read).collect::<Vec<_>>().into_iter()
    }

    fn array(&self, id: ValueId) -> Option<Array> {
        match self.graph.expr(id) {
            Expr::Param(param) => Some(Array::Param(param.index())),
            Expr::Running(buffer) => Some(Array::Running(buffer)),
            Expr::Reduce { .. } => match self.given.get(&id) {
                Some(&given) => Some(Array::Given(given)),
                None => Some(Array::Result(self.numbers[&id])),
            },
            Expr::Input | Expr::Upstream | Expr::Constant(_) | Expr::Count { .. } | Expr::Prim(..) => None,
        }
    }

    /// Adds the arithmetic of a scalar and gives its number; `added` is told of each step.
    fn scalar(&self, code: &mut ScalarCode, root: ValueId, mut added: impl FnMut(ValueId)) -> usize {
        let mut open = vec![root];
        while let Some(&id) = open.last() {
            let array = self.array(id);
            let waits = open.len();
            if array.is_none() && !code.of_value.contains_key(&id) {
                open.extend(self.graph.expr(id).operands().filter(|operand| !code.of_value.contains_key(operand)));
            }
            if open.len() > waits {
                continue;
            }
            open.pop();
            if code.of_value.contains_key(&id) {
                continue;
            }
            let of = |id: ValueId| code.of_value[&id];
            let step = match (array, self.graph.expr(id)) {
                (Some(array), _) => ScalarStep::Load(array),
                (None, Expr::Constant(value)) => ScalarStep::Constant(value.get()),
                (None, Expr::Count { of, per }) => ScalarStep::Constant(self.sizes.count(of, per)),
                (None, Expr::Prim(prim, Operands::One(a))) => ScalarStep::Unary(prim, of(a)),
                (None, Expr::Prim(prim, Operands::Two(a, b))) => ScalarStep::Binary(prim, of(a), of(b)),
                (None, _) => unreachable!("a scalar does not depend on x or dy"),
            };
            code.of_value.insert(id, code.scalars.steps.len());
            code.scalars.steps.push(step);
            added(id);
        }
        code.of_value[&root]
    }

    fn small_value(&self, id: ValueId) -> SmallValue {
        let mut code = ScalarCode::default();
        let root = self.scalar(&mut code, id, |_| {});
        SmallValue { scalars: code.scalars, root }
    }

    fn small(&self, id: ValueId) -> Small {
        let Expr::Reduce { statistic, operand, to } = self.graph.expr(id) else { unreachable!("a reduction") };
        let across = self.across.get(&id).copied();
        let axes = self.graph.axes(operand);
        Small {
            operand: self.small_value(operand),
            varies: [axes.samples, axes.channels != Channels::One, axes.positions],
            to: Layout::new(to, self.sizes),
            statistic,
            count: self.sizes.count(one_by_one(axes), to),
            result: across.unwrap_or_else(|| self.numbers[&id]),
            is_across: across.is_some(),
        }
    }

    fn across(&self, id: ValueId) -> Across {
        let Expr::Reduce { statistic, to, .. } = self.graph.expr(id) else { unreachable!("a reduction") };
        Across {
            sums: Layout::new(self.lane.accumulated(to), self.sizes),
            to: Layout::new(to, self.sizes),
            statistic,
            result: self.numbers[&id],
        }
    }

    fn is_vector(&self, id: ValueId) -> bool {
        self.lane.varies(self.graph.axes(id))
    }

    /// How long a value stays the same, if rows share it.
    fn tier(&self, id: ValueId) -> Option<Tier> {
        let axes = self.graph.axes(id);
        match (self.lane.rows_vary(axes), axes.samples) {
            (true, _) => None,
            (false, true) => Some(Tier::Sample),
            (false, false) => Some(Tier::Lanes),
        }
    }

    fn is_shared(&self, id: ValueId) -> bool {
        self.is_vector(id) && self.tier(id).is_some()
    }

    /// Whether an f32 holds a shared value, whatever it is.
    fn is_single(&self, id: ValueId) -> bool {
        matches!(self.graph.expr(id), Expr::Param(_) | Expr::Running(_))
    }

    /// Compiles a pass; `held` are the values that it and the passes before it hold.
    fn pass(&self, pass: &Pass, held: &[ValueId], block: &mut Vec<BlockReduction>) -> PassProgram {
        let graph = self.graph;
        let roots = pass.roots();
        let fusion = Fusion::new(self, pass, held, &roots);
        let mut code = Code {
            compiler: self,
            program: PassProgram::default(),
            scalars: ScalarCode::default(),
            registers: HashMap::new(),
            remainders: HashMap::new(),
            held,
            last_use: last_uses(graph, pass, &fusion.is_part, &roots),
            last_read: vec![],
        };
        for (position, &id) in pass.values.iter().enumerate() {
            if !self.is_vector(id) || fusion.is_part[id.index()] {
                continue;
            }
            if self.is_shared(id) {
                code.share(id);
                continue;
            }
            match (graph.expr(id), fusion.with.get(&id)) {
                (_, Some(&(inner, other))) => match graph.expr(inner) {
                    Expr::Prim(Prim::Neg, Operands::One(negated)) => code.subtract(id, other, negated, position),
                    Expr::Prim(_, Operands::Two(a, b)) => {
                        let (a, b) = if self.is_vector(a) { (a, b) } else { (b, a) };
                        let step = Step::MultiplyAdd(code.factor(a), code.factor(b), code.source(other));
                        code.emit(id, step, position);
                    }
                    _ => unreachable!("a negation or a product"),
                },
                (Expr::Prim(Prim::Add, Operands::Two(a, b)), None) => code.add(id, a, b, position),
                (Expr::Prim(prim @ (Prim::Mul | Prim::Div), Operands::Two(a, b)), None) => {
                    let step = Step::Binary(prim, code.factor(a), code.factor(b));
                    code.emit(id, step, position);
                }
                (Expr::Prim(prim, Operands::One(a)), None) => {
                    let step = Step::Unary(prim, code.source(a));
                    code.emit(id, step, position);
                }
                (Expr::Prim(prim, Operands::Two(a, b)), None) => {
                    let step = Step::Binary(prim, code.source(a), code.source(b));
                    code.emit(id, step, position);
                }
                _ => unreachable!("the values of a pass are elementwise"),
            }
        }
        for reduction in &pass.reductions {
            let accumulate = self.accumulate(&mut code, reduction, &fusion, block);
            let same = Same::of(reduction.to, self.lane, self.sizes);
            code.program.same = code.program.same.and(same);
            if self.lane.varies(reduction.to) {
                // A run may not go on behind the end of its row.
                code.program.same.rows = 1;
                code.program.by_lane.push(accumulate);
            } else {
                code.program.sums.push(accumulate);
            }
        }
        code.program.write = pass.write.map(|id| code.source(id));
        let mut program = code.program;
        program.scalars = code.scalars.scalars;
        program.same = program.same.and(program.scalars_same);
        let last = program.steps.last().map(|&(_, home)| home.source());
        program.last_step_writes = pass.write.is_some_and(|id| fusion.uses[id.index()] == 1) && last == program.write;
        program.small = pass.small.iter().map(|&id| self.small(id)).collect();
        program
    }

    fn accumulate(
        &self,
        code: &mut Code<'_>,
        reduction: &Reduction,
        fusion: &Fusion,
        block: &mut Vec<BlockReduction>,
    ) -> Accumulate {
        let by_lane = self.lane.varies(reduction.to);
        let summand = match fusion.product(self, reduction) {
            Some((a, b)) => Summand::Product(code.source(a), code.source(b)),
            None => Summand::Value(code.source(reduction.operand)),
        };
        let what = match (reduction.kind, summand) {
            // What is subtracted from the elements it is the mean of must be closer to it than a sum in f32.
            (Kind::Sum { sum: None, .. }, Summand::Value(_)) if !by_lane => Accumulation::Moments,
            (Kind::Sum { .. }, _) => Accumulation::Sum,
            (Kind::MeanSquare(_), _) => Accumulation::SumOfSquares,
            (Kind::Moments { .. }, _) => Accumulation::Moments,
        };
        let results = reduction.kind.results().map(|id| match self.graph.expr(id) {
            Expr::Reduce { statistic, .. } => (id, statistic),
            _ => unreachable!("a reduction"),
        });
        let mut results = results.peekable();
        let &(first, _) = results.peek().expect("a reduction has a result");
        let target = match self.across.get(&first) {
            Some(&number) => Target::Across(number),
            None => {
                block.push(BlockReduction {
                    what,
                    sums: Layout::new(self.lane.accumulated(reduction.to), self.sizes),
                    to: Layout::new(reduction.to, self.sizes),
                    results: results.map(|(id, statistic)| (self.numbers[&id], statistic)).collect(),
                    count: self.sizes.count(Axes::INPUT, reduction.to),
                });
                Target::Block(block.len() - 1)
            }
        };
        Accumulate { target, summand, what }
    }
}

/// Which products and negations of a pass become part of the step or the sum that uses them.
struct Fusion {
    /// How often each value is used.
    uses: Vec<usize>,
    is_part: Vec<bool>,
    /// What a sum of two is of: the product or negation, and the other summand.
    with: HashMap<ValueId, (ValueId, ValueId)>,
    held: Vec<ValueId>,
}

impl Fusion {
    fn new(compiler: &Compiler<'_>, pass: &Pass, held: &[ValueId], roots: &[ValueId]) -> Self {
        let graph = compiler.graph;
        let mut uses = vec![0usize; graph.len()];
        for &id in pass.values.iter().filter(|&&id| compiler.is_vector(id)) {
            graph.expr(id).operands().for_each(|operand| uses[operand.index()] += 1);
        }
        roots.iter().for_each(|root| uses[root.index()] += 1);
        let mut fusion = Self { uses, is_part: vec![false; graph.len()], with: HashMap::new(), held: held.to_vec() };
        let may_be_part = |fusion: &Self, id: ValueId, prim: Prim| match graph.expr(id) {
            Expr::Prim(found, _) => {
                let is_of_row = compiler.is_vector(id) && compiler.tier(id).is_none();
                found == prim && is_of_row && fusion.uses[id.index()] == 1 && !held.contains(&id)
            }
            _ => false,
        };
        for &id in pass.values.iter().filter(|&&id| compiler.is_vector(id)) {
            let Expr::Prim(Prim::Add, Operands::Two(a, b)) = graph.expr(id) else { continue };
            let inner = [(b, a), (a, b)]
                .into_iter()
                .find(|&(inner, _)| may_be_part(&fusion, inner, Prim::Neg))
                .or_else(|| [(a, b), (b, a)].into_iter().find(|&(inner, _)| may_be_part(&fusion, inner, Prim::Mul)));
            if let Some((inner, other)) = inner {
                fusion.is_part[inner.index()] = true;
                fusion.with.insert(id, (inner, other));
            }
        }
        for reduction in &pass.reductions {
            if fusion.product(compiler, reduction).is_some() {
                fusion.is_part[reduction.operand.index()] = true;
            }
        }
        fusion
    }

    /// The factors of a product that is nothing but summed.
    fn product(&self, compiler: &Compiler<'_>, reduction: &Reduction) -> Option<(ValueId, ValueId)> {
        let operand = reduction.operand;
        match (reduction.kind, compiler.graph.expr(operand)) {
            (Kind::Sum { .. }, Expr::Prim(Prim::Mul, Operands::Two(a, b)))
                if self.uses[operand.index()] == 1
                    && compiler.is_vector(a)
                    && compiler.is_vector(b)
                    && !self.held.contains(&operand)
                    && !compiler.lane.varies(reduction.to) =>
            {
                Some((a, b))
            }
            _ => None,
        }
    }
}

/// For each value, the position in the pass of the last step that reads it; `usize::MAX` for what is
/// read after the steps.
fn last_uses(graph: &Graph, pass: &Pass, is_part: &[bool], roots: &[ValueId]) -> Vec<usize> {
    let mut last = vec![0usize; graph.len()];
    for root in roots {
        last[root.index()] = usize::MAX;
    }
    // The operands of what is part of a step are read where that step is.
    for (position, &id) in pass.values.iter().enumerate().rev() {
        let at = if is_part[id.index()] { last[id.index()] } else { position };
        for operand in graph.expr(id).operands() {
            last[operand.index()] = last[operand.index()].max(at);
        }
    }
    last
}

/// A pass in the making.
struct Code<'a> {
    compiler: &'a Compiler<'a>,
    program: PassProgram,
    scalars: ScalarCode,
    registers: HashMap<ValueId, usize>,
    /// The registers of what rounding leaves of shared values.
    remainders: HashMap<ValueId, usize>,
    held: &'a [ValueId],
    last_use: Vec<usize>,
    /// For each register, the position of the last step that reads what it holds.
    last_read: Vec<usize>,
}

impl Code<'_> {
    /// Where a step finds a value.
    fn source(&mut self, id: ValueId) -> Source {
        let compiler = self.compiler;
        match compiler.graph.expr(id) {
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
        if !compiler.is_vector(id) {
            let same = &mut self.program.scalars_same;
            let added = |id: ValueId| {
                *same = same.and(Same::of(compiler.graph.axes(id), compiler.lane, compiler.sizes));
            };
            return Source::Scalar(compiler.scalar(&mut self.scalars, id, added));
        }
        if let Some(held) = self.held.iter().position(|&held| held == id) {
            return Source::Held(held);
        }
        if let Some(&register) = self.registers.get(&id) {
            return Source::Register(register);
        }
        Source::Register(self.share(id))
    }

    /// The same for a factor or a divisor, which may be larger or smaller than an f32.
    fn factor(&mut self, id: ValueId) -> Source {
        let source = self.source(id);
        if let Source::Register(register) = source
            && self.compiler.is_shared(id)
            && !self.compiler.is_single(id)
            && !self.program.factors.contains(&register)
        {
            self.program.factors.push(register);
        }
        source
    }

    /// Computes a value that rows share; the operands are in registers or scalars.
    fn share(&mut self, id: ValueId) -> usize {
        let step = match (self.compiler.array(id), self.compiler.graph.expr(id)) {
            (Some(array), _) => SharedStep::Load(array),
            (None, Expr::Prim(prim, Operands::One(a))) => SharedStep::Unary(prim, self.source(a)),
            (None, Expr::Prim(prim, Operands::Two(a, b))) => SharedStep::Binary(prim, self.source(a), self.source(b)),
            (None, _) => unreachable!("a value that rows share is computed or loaded"),
        };
        let register = self.shared_register(id, step);
        self.registers.insert(id, register);
        register
    }

    fn shared_register(&mut self, id: ValueId, step: SharedStep) -> usize {
        let tier = self.compiler.tier(id).expect("a value that rows share");
        // It stays for the next row.
        self.last_read.push(usize::MAX);
        self.program.registers += 1;
        self.program.shared[tier as usize].push((step, self.program.registers - 1));
        self.program.registers - 1
    }

    /// What rounding leaves of a value that rows share, where it leaves something. A mean that is large beside
    /// the deviations from it would lose their digits if it were rounded to f32.
    fn remainder(&mut self, id: ValueId) -> Option<Source> {
        if !self.compiler.is_shared(id) || self.compiler.is_single(id) {
            return None;
        }
        let Source::Register(register) = self.source(id) else { unreachable!("what rows share is in registers") };
        if let Some(&known) = self.remainders.get(&id) {
            return Some(Source::Register(known));
        }
        let remainder = self.shared_register(id, SharedStep::Remainder(register));
        self.remainders.insert(id, remainder);
        Some(Source::Register(remainder))
    }

    fn add(&mut self, id: ValueId, a: ValueId, b: ValueId, position: usize) {
        let step = Step::Binary(Prim::Add, self.source(a), self.source(b));
        let remainder = self.remainder(a).or_else(|| self.remainder(b));
        self.emit_with(id, step, remainder.map(|rest| (Prim::Add, rest)), position);
    }

    fn subtract(&mut self, id: ValueId, a: ValueId, b: ValueId, position: usize) {
        let step = Step::Subtract(self.source(a), self.source(b));
        let added = self.remainder(a).map(|rest| (Prim::Add, rest));
        let remainder = added.or_else(|| self.remainder(b).map(|rest| (Prim::Neg, rest)));
        self.emit_with(id, step, remainder, position);
    }

    /// Emits a step, and one that adds or subtracts a remainder.
    fn emit_with(&mut self, id: ValueId, step: Step, remainder: Option<(Prim, Source)>, position: usize) {
        let Some((prim, rest)) = remainder else { return self.emit(id, step, position) };
        let first = self.free_register(position, position);
        self.program.steps.push((step, Home::Register(first)));
        let first = Source::Register(first);
        let step = if prim == Prim::Neg { Step::Subtract(first, rest) } else { Step::Binary(prim, first, rest) };
        self.emit(id, step, position);
    }

    fn emit(&mut self, id: ValueId, step: Step, position: usize) {
        if let Some(held) = self.held.iter().position(|&held| held == id) {
            return self.program.steps.push((step, Home::Held(held)));
        }
        let register = self.free_register(position, self.last_use[id.index()]);
        self.registers.insert(id, register);
        self.program.steps.push((step, Home::Register(register)));
    }

    /// A register that is free at a position, for a value that is read until another one.
    fn free_register(&mut self, position: usize, last_read: usize) -> usize {
        let register = self.last_read.iter().position(|&last| last < position).unwrap_or_else(|| {
            self.program.registers += 1;
            self.last_read.push(0);
            self.program.registers - 1
        });
        self.last_read[register] = last_read;
        register
    }
}
