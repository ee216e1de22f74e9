//! A schedule lowered to the programs of one or two kernels.

use std::collections::HashMap;

use normact_ir::{Axes, Channels, Extent as ParamExtent};
use normact_plan::graph::{Expr, Graph, ValueId, one_by_one};
use normact_plan::{Kind, Plan, Reduction, Schedule, Sizes};

use super::blocks::{Blocks, Threads};
use super::code::{Code, MOST_ROUNDS, Placed, Placement, SUMS, Setting, Sum, centered, is_mean};
use super::program::{Given, Lowered, Own, Part, Target};

/// What the kernels of a pass are made for, beside the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Wanted {
    /// Whether the backward pass gives the gradient of the input.
    pub(super) input_gradient: bool,
    /// How many neighbouring elements are read at a time, where that is possible.
    pub(super) lanes: usize,
    /// How the device runs threads.
    pub(super) threads: Threads,
}

/// Lowers the forward and the backward pass.
pub(super) fn lower(
    plan: &Plan,
    params: &[ParamExtent],
    running: &[ParamExtent],
    sizes: Sizes,
    wanted: Wanted,
) -> [Lowered; 2] {
    let axes = |extent: &ParamExtent| match extent {
        ParamExtent::PerChannel => Axes::CHANNEL,
        ParamExtent::Scalar => Axes::NONE,
    };
    let params: Vec<Axes> = params.iter().map(axes).collect();
    let running: Vec<Axes> = running.iter().map(axes).collect();
    let updates: Vec<_> = plan.joint.updates.iter().copied().zip(running.iter().copied()).collect();
    let gradients: Vec<_> = plan.joint.param_gradients.iter().copied().zip(params.iter().copied()).collect();
    let unread;
    let backward = if wanted.input_gradient {
        &plan.backward
    } else {
        let mut schedule = plan.backward.clone();
        schedule.passes.iter_mut().for_each(|pass| pass.write = None);
        unread = schedule;
        &unread
    };
    let graph = &plan.joint.graph;
    // What is the same for all samples and positions is computed once.
    let output = graph.axes(plan.joint.output);
    let reads_nothing = plan.forward.passes.iter().all(|pass| pass.reductions.is_empty());
    let is_repeated = reads_nothing && !output.samples && !output.positions;
    let of_forward = if is_repeated { Sizes { samples: 1, positions: 1, ..sizes } } else { sizes };
    let setting = Setting {
        graph,
        centers: &centers(graph),
        params: &params,
        running: &running,
        sizes,
        counted: sizes,
        lanes: 1,
        threads: wanted.threads,
    };
    let pass = |schedule: &Schedule, sizes: Sizes, finals: &[(Option<ValueId>, Axes)], kept: &Placed| {
        let setting = Setting { sizes, ..setting };
        let together = Blocks::new(graph, schedule, sizes, wanted.threads);
        let of_threads = [Blocks::whole_channels, Blocks::alone].map(|of| of(graph, schedule, sizes, wanted.threads));
        let blocks: Vec<Blocks> = of_threads.into_iter().flatten().chain([together]).collect();
        let lower = |lanes: usize| {
            let setting = Setting { lanes, ..setting };
            blocks.iter().find_map(|&blocks| setting.schedule(schedule, blocks, finals, kept))
        };
        lower(wanted.lanes).or_else(|| lower(1)).expect("single elements are always possible")
    };
    let forward = pass(&plan.forward, of_forward, &updates, &HashMap::new());
    let backward = pass(backward, sizes, &gradients, &forward.exported);
    [forward, backward]
}

/// Which reductions are means that are subtracted from something that varies along more axes: of those both
/// parts are computed.
fn centers(graph: &Graph) -> Vec<bool> {
    let mut centers = vec![false; graph.len()];
    for id in graph.ids() {
        if let Some((_, mean)) = centered(graph, id) {
            centers[mean.index()] = true;
        }
    }
    // A mean of means is as good as these.
    for id in graph.ids().rev() {
        if let (true, Expr::Reduce { operand, .. }) = (centers[id.index()], graph.expr(id))
            && is_mean(graph, operand)
        {
            centers[operand.index()] = true;
        }
    }
    centers
}

impl Setting<'_> {
    /// The axes of the statistics that a value is made of, if they vary along positions and not with every channel.
    fn statistics_by_position(&self, id: ValueId) -> Option<Axes> {
        let graph = self.graph;
        let is_statistic = |id: ValueId| matches!(graph.expr(id), Expr::Reduce { .. });
        let cone = graph.cone(&[id], is_statistic);
        let statistics = graph.ids().filter(|&id| cone[id.index()] && is_statistic(id)).map(|id| graph.axes(id));
        let axes = statistics.reduce(Axes::union)?;
        (axes.positions && axes.channels != Channels::All).then_some(Axes { samples: true, ..axes })
    }

    /// Lowers a schedule; `None` where it cannot read so many elements at a time, or one thread has too many.
    fn schedule(
        &self,
        schedule: &Schedule,
        blocks: Blocks,
        finals: &[(Option<ValueId>, Axes)],
        kept: &Placed,
    ) -> Option<Lowered> {
        let (graph, sizes) = (self.graph, self.sizes);
        let [sample_blocks, channel_blocks, position_blocks] = blocks.count;
        let is_whole = blocks.count == [1; 3];
        let has_finals = finals.iter().any(|(id, _)| id.is_some());
        let is_complete = |id: ValueId| channel_blocks == 1 || graph.axes(id).channels != Channels::One;
        let finishes_in_blocks = sample_blocks == 1
            && position_blocks == 1
            && schedule.across.iter().all(|&id| is_complete(id))
            && (schedule.after.is_empty() || is_whole);
        let deferred;
        let (schedule, read_later) = if finishes_in_blocks {
            (schedule, vec![])
        } else {
            let (rest, read_later) = self.deferred(schedule);
            deferred = rest;
            (&deferred, read_later)
        };

        let mut code = Code::new(*self, blocks);
        code.given(schedule, kept);
        let mut exported = HashMap::new();
        for &id in &schedule.exported {
            for part in self.parts(id) {
                exported.insert((id, part), code.export(sizes.slots(graph.axes(id)).iter().product()));
            }
        }
        let mut left = HashMap::new();
        for id in read_later {
            for part in self.parts(id) {
                left.insert((id, part), code.scratch(sizes.slots(graph.axes(id)).iter().product()));
            }
        }
        let mut partial = HashMap::new();
        let across: Vec<ValueId> = if finishes_in_blocks { vec![] } else { schedule.across.clone() };
        for &id in &across {
            let columns = if is_complete(id) { sizes.slots(graph.axes(id))[1] } else { channel_blocks };
            let offset = code.scratch(sample_blocks * position_blocks * columns);
            partial.insert(id, (offset, columns));
        }
        let full = |id: ValueId| (id, Target::Full, Axes::INPUT);
        let home = |id: ValueId, part: Part| Placement {
            leaves: match (exported.get(&(id, part)), left.get(&(id, part))) {
                (Some(&offset), _) => Some((Own::Exports, offset)),
                (None, offset) => offset.map(|&offset| (Own::Scratch, offset)),
            },
            partial: partial.get(&id).map(|&(offset, columns)| (offset, columns, is_complete(id))),
        };
        let homes = |id: ValueId| self.parts(id).map(|part| (part, home(id, part))).collect::<Vec<_>>();

        code.small(&schedule.before, &homes);
        for pass in &schedule.passes {
            // Axes that differ for the whole input may have the same slots in a block.
            let mut shapes: Vec<Axes> = vec![];
            for reduction in &pass.reductions {
                let spans = code.spans(Axes::INPUT, reduction.to);
                if shapes.iter().all(|&shape| code.spans(Axes::INPUT, shape) != spans) {
                    shapes.push(reduction.to);
                }
            }
            let shape_of = |code: &Code, reduction: &Reduction| {
                let spans = code.spans(Axes::INPUT, reduction.to);
                shapes.iter().copied().find(|&shape| code.spans(Axes::INPUT, shape) == spans).unwrap_or(reduction.to)
            };
            // A sum over the slots of another one begins with sums of these: one walk has them all.
            let by_parts = |code: &Code, reduction: &Reduction| {
                let shape = shape_of(code, reduction);
                let is_part = |&fine: &Axes| fine != shape && code.can_begin_with(fine, reduction.to);
                let is_center = |id: ValueId| self.centers[id.index()];
                let is_sum = matches!(reduction.kind, Kind::Sum { .. }) && !reduction.kind.results().any(is_center);
                shapes.iter().copied().find(is_part).filter(|_| is_sum)
            };
            let mut write = pass.write;
            for &to in &shapes {
                let mut sums = vec![];
                let mut begun: Vec<(Reduction, usize)> = vec![];
                for reduction in &pass.reductions {
                    let parts = by_parts(&code, reduction);
                    if parts == Some(to) {
                        let offset = code.scratch(sizes.slots(to).iter().product());
                        begun.push((*reduction, offset));
                        sums.push(Sum { parts: Some(offset), ..Sum::of(reduction.operand, vec![]) });
                    } else if parts.is_none() && shape_of(&code, reduction) == to {
                        let results = reduction.kind.results().map(|id| (id, homes(id))).collect();
                        sums.push(Sum::of(reduction.operand, results));
                    }
                }
                let mut rest = sums.into_iter();
                loop {
                    let together: Vec<Sum> = rest.by_ref().take(SUMS / 2).collect();
                    if together.is_empty() {
                        break;
                    }
                    let written = if code.is_single(Axes::INPUT, to) { write.take() } else { None };
                    code.walk(Axes::INPUT, to, together, written.into_iter().map(full).collect());
                }
                code.finish_parts(begun, to, &homes);
            }
            if let Some(id) = write {
                // Channel by channel, so that arithmetic on parameters is done once for each; but position by position
                // where several statistics would be read for each vector.
                let by_channel = Axes { positions: false, ..Axes::INPUT };
                let rows = if self.lanes > 1 { self.statistics_by_position(id) } else { None }.unwrap_or(by_channel);
                code.walk(Axes::INPUT, rows, vec![], vec![full(id)]);
            }
            code.small(&pass.small, &homes);
        }
        let lengths: Vec<Option<usize>> = finals.iter().map(|&(id, axes)| id.map(|_| sizes.slots(axes)[1])).collect();
        if finishes_in_blocks || !has_finals {
            if finishes_in_blocks {
                code.small(&schedule.after, &homes);
            }
            code.finals(finals);
            return Some(Lowered { blocks: code.kernel()?, finish: None, sizes, exported, finals: lengths });
        }

        // Sums of as many columns in one walk.
        let rows = sample_blocks * position_blocks;
        let columns = |id: ValueId| (partial[&id].1, is_complete(id));
        let is_by_channel = |axes: Axes| axes.channels == Channels::All;
        let by_channel = across.iter().all(|&id| is_complete(id) && is_by_channel(graph.axes(id)))
            && schedule.after.iter().all(|&id| is_by_channel(graph.axes(id)))
            && finals.iter().all(|&(id, axes)| id.is_none() || is_by_channel(axes));
        let of_operand = |id: ValueId| match graph.expr(id) {
            Expr::Reduce { operand, .. } => sizes.slots(one_by_one(graph.axes(operand))).iter().product(),
            _ => 0,
        };
        let read: usize = across.iter().map(|&id| rows * columns(id).0).sum();
        let read = read + schedule.after.iter().map(|&id| of_operand(id)).sum::<usize>();
        let is_quick = 2 * read / sizes.channels < MOST_ROUNDS;
        let finish_blocks = match self.threads {
            Threads::Cpu { vector, .. } if by_channel && is_quick && sizes.channels >= vector => {
                Blocks::channels(sizes, vector)
            }
            threads => Blocks::whole(sizes, read, threads),
        };
        let mut finish = Code::new(Setting { lanes: 1, ..*self }, finish_blocks);
        finish.given(schedule, kept);
        finish.reads(Given::Exports, &exported);
        finish.reads(Given::Scratch, &left);
        let mut rest = across.clone();
        while let Some(&first) = rest.first() {
            let together: Vec<_> = rest.extract_if(.., |&mut id| columns(id) == columns(first)).collect();
            let (columns, are_slots) = columns(first);
            for together in together.chunks(SUMS) {
                let together: Vec<_> = together.iter().map(|&id| (id, partial[&id].0)).collect();
                finish.partials(&together, rows, columns, are_slots);
            }
        }
        let nowhere = |id: ValueId| self.parts(id).map(|part| (part, Placement::default())).collect();
        finish.small(&schedule.after, &nowhere);
        finish.finals(finals);
        Some(Lowered { blocks: code.kernel()?, finish: Some(finish.kernel()?), sizes, exported, finals: lengths })
    }

    /// The same schedule with sums across blocks of what statistics give left to the second kernel, and the
    /// statistics which that reads: the first one has less to do, and to compile, than with a sum for each block.
    fn deferred(&self, schedule: &Schedule) -> (Schedule, Vec<ValueId>) {
        let graph = self.graph;
        let is_reduction = |id: ValueId| matches!(graph.expr(id), Expr::Reduce { .. });
        let is_left = |id: &ValueId| {
            let Expr::Reduce { operand, .. } = graph.expr(*id) else { return None };
            let leaves: Vec<ValueId> = {
                let cone = graph.cone(&[operand], is_reduction);
                graph.ids().filter(|&id| cone[id.index()] && is_reduction(id)).collect()
            };
            let is_known = |leaf: &ValueId| !schedule.across.contains(leaf) && !schedule.after.contains(leaf);
            let is_small = !graph.axes(operand).positions && !leaves.is_empty() && leaves.iter().all(is_known);
            is_small.then_some(leaves)
        };
        let mut left = schedule.clone();
        let deferred: Vec<ValueId> = left.across.extract_if(.., |id| is_left(id).is_some()).collect();
        let mut read_later: Vec<ValueId> = vec![];
        for leaf in deferred.iter().filter_map(is_left).flatten() {
            if ![&left.given, &left.exported, &read_later].into_iter().any(|known| known.contains(&leaf)) {
                read_later.push(leaf);
            }
        }
        let stays = |id: &ValueId| !deferred.contains(id);
        left.before.retain(stays);
        left.passes.iter_mut().for_each(|pass| pass.small.retain(stays));
        left.after.splice(0..0, deferred.iter().copied());
        (left, read_later)
    }
}
