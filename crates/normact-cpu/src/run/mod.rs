//! Runs a program over all blocks of an input.
//!
//! * `blocks` cuts the input and says who does what;
//! * `pass` walks over the rows of a block, `native` calls machine code for them, `chunk` interprets;
//! * `scalars` is arithmetic on slots: parameters, statistics and what is made of them;
//! * `vectorized` compiles loops for several processors.

mod blocks;
mod chunk;
mod cores;
mod native;
mod pass;
mod scalars;
mod vectorized;

use std::cell::Cell;

use rayon::prelude::*;

pub(crate) use blocks::Blocks;
pub(crate) use scalars::Columns;

use crate::output::{Shared, View, finish_streams};
use crate::program::{Array, Program};
use crate::slots::{Accumulation, Accumulator, Grid, Layout, Numbers, Region, Slots};
use crate::vector::WIDTH;
use blocks::pieces;
use pass::{Job, State};

/// Results of so many elements are written past the caches.
pub(crate) const STREAMED: usize = 1 << 23;

/// How far ahead of the chunk memory is fetched.
pub(crate) const AHEAD: usize = 2 * WIDTH;

/// How many pieces a pass is shared out in.
const PIECES: usize = 16;

/// Elements of a piece of a copy, at least.
const SERIAL: usize = 1 << 14;

/// What a thread keeps for the next run of each list, at most, in numbers.
const KEPT: usize = 1 << 16;

/// Everything a run reads.
pub(crate) struct Reads<'a> {
    pub(crate) x: View<'a>,
    pub(crate) dy: View<'a>,
    pub(crate) params: &'a [&'a [f32]],
    pub(crate) running: &'a [&'a [f32]],
    /// The reductions that are given, one after the other.
    pub(crate) given: &'a [f64],
}

/// What a run gives beside the full-size result.
pub(crate) struct Outcome {
    /// The kept reductions, one after the other.
    pub(crate) kept: Vec<f64>,
    /// For each small value asked for, its slots along channels.
    pub(crate) finals: Vec<Option<Vec<f64>>>,
    /// The slots of a result that is the same at every position.
    pub(crate) broadcast: Option<Vec<f64>>,
}

/// What stays the same in a run.
struct Context<'a> {
    program: &'a Program,
    reads: &'a Reads<'a>,
    out: Option<Shared<'a>>,
}

impl Context<'_> {
    /// The slots of an array: how they are numbered, and what they hold.
    #[inline(always)]
    fn slots<'a>(&'a self, results: &'a [Slots], array: Array) -> (Layout, Numbers<'a>) {
        match array {
            Array::Param(number) => (self.program.params[number], Numbers::Single(self.reads.params[number])),
            Array::Running(number) => (self.program.running[number], Numbers::Single(self.reads.running[number])),
            Array::Given(number) => {
                let (layout, start) = self.program.given[number];
                (layout, Numbers::Double(&self.reads.given[start..start + layout.len()]))
            }
            Array::Result(number) => (results[number].layout, Numbers::Double(&results[number].values)),
        }
    }
}

/// Runs a program; `out` takes the full-size result, if there is one.
pub(crate) fn run(program: &Program, reads: &Reads<'_>, out: Option<Shared<'_>>) -> Outcome {
    let context = Context { program, reads, out };
    let Blocks { regions, teams, shares_passes } = &program.blocks;
    let run_team = |team: usize| {
        let mut workspace = WORKSPACE.take().unwrap_or_default();
        let mut worker = Team { context: &context, across: context.across(), exports: vec![] };
        for &block in &regions[regions.len() * team / teams..regions.len() * (team + 1) / teams] {
            worker.block(block, *shares_passes, &mut workspace);
        }
        finish_streams();
        workspace.trim();
        WORKSPACE.set(Some(workspace));
        worker
    };
    let mut done: Vec<Team<'_>> = match *teams {
        1 => vec![run_team(0)],
        teams => cores::share(teams, run_team),
    };

    let mut workspace = WORKSPACE.take().unwrap_or_default();
    let Workspace { results, small: memory, .. } = &mut *workspace;
    results.resize_with(results.len().max(program.results.len()), Slots::default);
    for &number in &program.exported {
        results[number].reset(program.results[number]);
    }
    for (number, part) in done.iter().flat_map(|team| &team.exports) {
        results[*number].copy_from(part);
    }
    let (first, others) = done.split_first_mut().expect("there is a team");
    for team in others {
        first.across.iter_mut().zip(&team.across).for_each(|(sum, part)| sum.merge(part));
    }
    for (across, sum) in program.across.iter().zip(&first.across) {
        sum.folded(across.to).statistic(across.statistic, 1.0, &mut results[across.result]);
    }
    for small in &program.after {
        context.reduce(small, results, Region::whole(program.sizes), memory);
    }
    let mut slots = |value, grid: Grid| {
        let mut values = Vec::with_capacity(grid.len());
        context.each(value, results, grid, &mut memory.columns, |_, value| values.push(value));
        values
    };
    let finals = program.finals.iter().map(|last| last.as_ref().map(|(value, grid)| slots(value, *grid))).collect();
    let broadcast = program.broadcast.as_ref().map(|(value, grid)| slots(value, *grid));
    let parts = program.kept.iter().map(|&number| &results[number].values[..]);
    let kept = parts.collect::<Vec<_>>().concat();
    workspace.trim();
    WORKSPACE.set(Some(workspace));
    Outcome { kept, finals, broadcast }
}

/// Copies a slice with all cores, as fast as memory allows: the yardstick of a full-size read and
/// write.
///
/// # Panics
/// The lengths differ.
pub fn copy(from: &[f32], to: &mut [f32]) {
    let chunk = from.len().div_ceil(PIECES).max(SERIAL);
    to.par_chunks_mut(chunk).zip(from.par_chunks(chunk)).for_each(|(to, from)| to.copy_from_slice(from));
}

impl Context<'_> {
    /// Accumulators across blocks.
    fn across(&self) -> Vec<Accumulator> {
        let across = self.program.across.iter();
        across.map(|across| Accumulator::new(across.sums, Accumulation::Sum)).collect()
    }
}

thread_local! {
    /// Memory that is new must be mapped first, which takes longer than what a block does with it.
    static WORKSPACE: Cell<Option<Box<Workspace>>> = const { Cell::new(None) };
}

/// Memory that is used again for every block and by the next run.
#[derive(Default)]
struct Workspace {
    results: Vec<Slots>,
    sums: Vec<Accumulator>,
    small: scalars::Memory,
    pass: pass::Memory,
}

impl Workspace {
    /// Gives large lists back.
    fn trim(&mut self) {
        self.results.iter_mut().for_each(|slots| slots.values.shrink_to(KEPT));
        self.sums.iter_mut().for_each(|sums| sums.shrink_to(KEPT));
    }
}

/// One team's share of the blocks, and what comes of it.
struct Team<'a> {
    context: &'a Context<'a>,
    across: Vec<Accumulator>,
    exports: Vec<(usize, Slots)>,
}

impl Team<'_> {
    fn block(&mut self, block: Region, shares_passes: bool, workspace: &mut Workspace) {
        let context = self.context;
        let program = context.program;
        let Workspace { results, sums, small: small_memory, pass: memory } = workspace;
        results.resize_with(results.len().max(program.results.len()), Slots::default);
        for small in &program.before {
            context.reduce(small, results, block, small_memory);
        }
        for (pass, reductions) in program.passes.iter().zip(&program.block) {
            sums.resize_with(sums.len().max(reductions.len()), Accumulator::default);
            let sums = &mut sums[..reductions.len()];
            for (reduction, sum) in reductions.iter().zip(&mut *sums) {
                sum.reset(reduction.sums.within(block), reduction.what);
            }
            let job = |region: Region| Job { context, pass, results, region };
            if shares_passes {
                let pieces = pieces(block, program.lane);
                let parts = cores::share(pieces.len(), |piece| {
                    let (mut sums, mut across) = (sums.to_vec(), context.across());
                    let mut workspace = WORKSPACE.take().unwrap_or_default();
                    let state = &mut State { sums: &mut sums, across: &mut across, memory: &mut workspace.pass };
                    job(pieces[piece]).run(state);
                    WORKSPACE.set(Some(workspace));
                    finish_streams();
                    (sums, across)
                });
                for (part, across) in &parts {
                    sums.iter_mut().zip(part).for_each(|(sum, part)| sum.merge(part));
                    self.across.iter_mut().zip(across).for_each(|(sum, part)| sum.merge(part));
                }
            } else {
                job(block).run(&mut State { sums, across: &mut self.across, memory });
            }
            for (reduction, sum) in reductions.iter().zip(sums) {
                let sum = sum.folded(reduction.to.within(block));
                for &(number, statistic) in &reduction.results {
                    sum.statistic(statistic, reduction.count, &mut results[number]);
                }
            }
            for small in &pass.small {
                if small.is_across {
                    let sums = &mut self.across[small.result];
                    context.accumulate(small, results, block, sums, &mut small_memory.columns);
                } else {
                    context.reduce(small, results, block, small_memory);
                }
            }
        }
        for &number in &program.exported {
            self.exports.push((number, results[number].clone()));
        }
    }
}
