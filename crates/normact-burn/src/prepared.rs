//! A layer with everything about it that is known before the first input.

use std::sync::Once;

use normact_cpu::{Compiled, Lane};
use normact_ir::{Buffers, Dag, Layer, Mode, Op, Shape, ShapeError, check};
use normact_plan::Sizes;

use crate::fused::{Cache, cube};

/// A layer with everything about it that is known before the first input.
#[derive(Debug)]
pub(crate) struct Prepared {
    pub(crate) layer: Layer,
    pub(crate) channels: usize,
    pub(crate) buffers: Buffers,
    /// The layer compiled for the CPU.
    pub(crate) on_cpu: Cache<(Mode, Sizes, Lane), Compiled>,
    /// The layer lowered for GPUs.
    pub(crate) on_gpu: Cache<(Mode, Sizes, cube::Wanted), cube::Compiled>,
    /// Whether it was said that the layer runs operation by operation.
    fallback_is_told: Once,
    /// How often each node is read in training.
    training_reads: Vec<usize>,
    /// The same in evaluation, where batch statistics do not read their operand.
    evaluation_reads: Vec<usize>,
}

impl Prepared {
    /// # Errors
    /// Everything about the layer that does not fit the number of channels.
    pub(crate) fn new(layer: Layer, channels: usize) -> Result<Self, Vec<ShapeError>> {
        let any_input = Shape::new(&[1, channels]).map_err(|error| vec![error])?;
        let (errors, _) = check(&layer.dag, &any_input);
        if !errors.is_empty() {
            return Err(errors);
        }
        let buffers = Buffers::of(&layer.dag);
        let training_reads = reads(&layer.dag, &buffers, Mode::Training);
        let evaluation_reads = reads(&layer.dag, &buffers, Mode::Evaluation);
        Ok(Self {
            layer,
            channels,
            buffers,
            on_cpu: Cache::new(),
            on_gpu: Cache::new(),
            fallback_is_told: Once::new(),
            training_reads,
            evaluation_reads,
        })
    }

    /// Says once, to whoever listens to the log, why the layer does not run fused.
    pub(crate) fn tell_fallback(&self, reason: &str) {
        let name = &self.layer.name;
        self.fallback_is_told.call_once(|| log::warn!("layer `{name}` runs operation by operation, since {reason}"));
    }

    /// Whether the output depends on the input.
    pub(crate) fn depends_on_input(&self, mode: Mode) -> bool {
        self.depends_on(mode, |op| op == Op::Input)
    }

    /// Whether the output depends on a parameter, by its number.
    pub(crate) fn depends_on_param(&self, mode: Mode, number: usize) -> bool {
        self.depends_on(mode, |op| matches!(op, Op::Param(param) if param.index() == number))
    }

    fn depends_on(&self, mode: Mode, is_it: impl Fn(Op) -> bool) -> bool {
        let dag = &self.layer.dag;
        dag.ids().any(|id| is_it(dag.op(id)) && self.reads(mode)[id.index()] > 0)
    }

    /// How often each node is read.
    pub(crate) fn reads(&self, mode: Mode) -> &[usize] {
        match mode {
            Mode::Training => &self.training_reads,
            Mode::Evaluation => &self.evaluation_reads,
        }
    }
}

/// How often each node's value is read; 0 for nodes that need not be computed.
fn reads(dag: &Dag, buffers: &Buffers, mode: Mode) -> Vec<usize> {
    let mut reads = vec![0; dag.len()];
    reads[dag.output().index()] = 1;
    for id in dag.ids().rev() {
        let from_buffer = mode == Mode::Evaluation && buffers.of_node(id).is_some();
        if reads[id.index()] > 0 && !from_buffer {
            dag.operands(id).iter().for_each(|operand| reads[operand.index()] += 1);
        }
    }
    reads
}
