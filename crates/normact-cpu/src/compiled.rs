//! A layer compiled for one mode, one shape and one direction of memory.

use normact_ir::{Axes, Buffers, Dag, Extent, Mode};
use normact_plan::{Plan, Sizes};

use crate::native::Instructions;
use crate::output::{Shared, View, ViewMut};
use crate::program::{Lane, Program};
use crate::run::{Reads, run};
use crate::slots::Layout;

/// A layer compiled for one mode, one shape and one direction of memory.
#[derive(Debug)]
pub struct Compiled {
    sizes: Sizes,
    plan: Plan,
    forward: Program,
    backward: Program,
}

/// What a forward pass gives beside the output.
#[derive(Debug, Clone)]
pub struct Forward {
    /// The output where it is a broadcast: a value for each of [`Compiled::broadcast_output`].
    pub output: Option<Vec<f64>>,
    /// What the backward pass needs.
    pub kept: Vec<f64>,
    /// The new value of each buffer of [`Buffers::list`]: one for each channel, or one; `None` in
    /// evaluation.
    pub updates: Vec<Option<Vec<f64>>>,
}

/// What a backward pass gives beside the gradient of the input.
#[derive(Debug, Clone)]
pub struct Backward {
    /// The gradient of the input where it is a broadcast, as [`Forward::output`].
    pub input: Option<Vec<f64>>,
    /// The gradient of each parameter; `None` where the output does not depend on it.
    pub params: Vec<Option<Vec<f64>>>,
}

impl Compiled {
    /// Plans and compiles a layer. The layer must fit the sizes.
    pub fn new(dag: &Dag, mode: Mode, sizes: Sizes, lane: Lane) -> Self {
        Self::with_instructions(dag, mode, sizes, lane, Instructions::detect())
    }

    /// With machine code of these instructions, which the processor must have, or none: for tests.
    #[doc(hidden)]
    pub fn with_instructions(
        dag: &Dag,
        mode: Mode,
        sizes: Sizes,
        lane: Lane,
        instructions: Option<Instructions>,
    ) -> Self {
        let plan = Plan::new(dag, mode, sizes);
        let axes = |extent: Extent| match extent {
            Extent::PerChannel => Axes::CHANNEL,
            Extent::Scalar => Axes::NONE,
        };
        let params: Vec<Axes> = dag.params().iter().map(|param| axes(param.extent)).collect();
        let running: Vec<Axes> = Buffers::of(dag).list().iter().map(|buffer| axes(buffer.extent)).collect();
        let extents = (&params[..], &running[..]);
        let (joint, kept) = (&plan.joint, &plan.kept);
        let updates: Vec<_> = joint.updates.iter().copied().zip(running.iter().copied()).collect();
        let gradients: Vec<_> = joint.param_gradients.iter().copied().zip(params.iter().copied()).collect();
        let mut forward = Program::new(&plan, &plan.forward, kept, &updates, extents, lane, sizes);
        // In training a gradient does not depend on running averages.
        let extents = if mode == Mode::Training { (&params[..], &[][..]) } else { extents };
        let mut backward = Program::new(&plan, &plan.backward, &[], &gradients, extents, lane, sizes);
        if let Some(instructions) = instructions {
            assert!(instructions.is_available(), "the processor does not have {instructions:?}");
            forward.generate(instructions);
            backward.generate(instructions);
        }
        Self { sizes, forward, backward, plan }
    }

    /// For each pass that does something for every element, the bytes of its machine code, if it has
    /// one: for tests.
    #[doc(hidden)]
    pub fn native_sizes(&self) -> Vec<Option<usize>> {
        let passes = self.forward.passes.iter().chain(&self.backward.passes);
        passes.filter(|pass| pass.has_elements()).map(|pass| Some(pass.native.as_ref()?.size())).collect()
    }

    /// The most elements of a block, and how many of its values are held for later passes: for tests.
    #[doc(hidden)]
    pub fn held(&self) -> [[usize; 2]; 2] {
        [&self.forward, &self.backward].map(|program| [program.blocks.largest(), program.held])
    }

    /// The plan it runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The sizes of an output that is the same at every position, as `[samples, channels]` with 1 for an
    /// axis that it does not vary along: it is given instead of written.
    pub fn broadcast_output(&self) -> Option<[usize; 2]> {
        self.broadcast(&self.forward)
    }

    /// The same for the gradient of the input.
    pub fn broadcast_input_gradient(&self) -> Option<[usize; 2]> {
        self.broadcast(&self.backward)
    }

    fn broadcast(&self, program: &Program) -> Option<[usize; 2]> {
        let (_, grid) = program.broadcast.as_ref()?;
        let [samples, channels, _] = grid.count;
        Some([samples, channels])
    }

    /// Computes the layer of `x` into `y`, unless it is a broadcast. `params` are the values of each parameter, `running` those
    /// of each buffer.
    pub fn forward(&self, x: View<'_>, params: &[&[f32]], running: &[&[f32]], y: Option<ViewMut<'_>>) -> Forward {
        Self::check(&self.forward, params, running);
        let reads = Reads { x, dy: x, params, running, given: &[] };
        let outcome = run(&self.forward, &reads, y.map(|y| Shared::new(y, self.dims())));
        Forward { output: outcome.broadcast, kept: outcome.kept, updates: outcome.finals }
    }

    /// Computes the gradients for the upstream gradient `dy`, and that of the input into `dx`, unless it
    /// is a broadcast. `running` is read in evaluation mode alone.
    pub fn backward(
        &self,
        x: View<'_>,
        params: &[&[f32]],
        running: &[&[f32]],
        kept: &[f64],
        dy: View<'_>,
        dx: Option<ViewMut<'_>>,
    ) -> Backward {
        let running = if self.backward.running.is_empty() { &[] } else { running };
        Self::check(&self.backward, params, running);
        let reads = Reads { x, dy, params, running, given: kept };
        let writes = self.plan.joint.input_gradient.is_some();
        let into = match dx {
            Some(dx) if !writes => {
                dx.data.fill(0.0);
                None
            }
            dx => dx.map(|dx| Shared::new(dx, self.dims())),
        };
        let outcome = run(&self.backward, &reads, into);
        Backward { input: outcome.broadcast, params: outcome.finals }
    }

    fn dims(&self) -> [usize; 3] {
        [self.sizes.samples, self.sizes.channels, self.sizes.positions]
    }

    fn check(program: &Program, params: &[&[f32]], running: &[&[f32]]) {
        let lens = |layouts: &[Layout], values: &[&[f32]]| {
            layouts.iter().map(|layout| layout.len()).eq(values.iter().map(|values| values.len()))
        };
        let fit = lens(&program.params, params) && lens(&program.running, running);
        assert!(fit, "a parameter or buffer has one value per slot");
    }
}
