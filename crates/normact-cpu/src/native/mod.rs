//! Machine code for the steps of a pass.
//!
//! The interpreter of [`crate::vector`] reads and writes a slice in the first-level cache for each
//! step; most steps are one instruction, so most of the time goes into loads and stores. Generated
//! code keeps values in vector registers from the first step of a pass to its last.
//!
//! * `operations` turns the steps into operations on vectors, elementary functions included;
//! * `visit` is a function over a chunk: what it is called with and what it gives;
//! * `code` hands out registers and writes the loops;
//! * `instructions` is the two encodings of each operation, AVX-512 and AVX2;
//! * `memory` is the memory the code is in.
//!
//! The loops are straight lines of some thirty kinds of instructions, so an assembler suffices. A
//! compiler back-end would take longer to run than a plan does to make, and Cranelift has no vectors of
//! 512 bits. The assembler is iced-x86, with nothing but its encoder.
//!
//! The interpreter stays: for other processors, for sums by lane, and for a chunk whose numbers exceed
//! an f32 (a factor that is too large or too small, a sum that overflows), and for a pass of more than
//! [`MOST_OPERATIONS`]. Code does the same operations in the same order; sums are added up in another
//! order, which the instruction set decides, and their products are not rounded first where a vector is
//! whole.

mod code;
mod instructions;
mod memory;
mod operations;
mod visit;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use instructions::Instructions;
pub(crate) use operations::Stream;

use crate::program::PassProgram;
use crate::slots::Kind;
use code::Writes;
use memory::Executable;
use operations::Operations;
use visit::{Visit, VisitFrame};

/// The bytes that an address is a multiple of where code writes past the caches.
pub(crate) const ALIGNMENT: usize = 64;

/// A pass of more operations is interpreted: it would be long code, and long to make.
const MOST_OPERATIONS: usize = 4096;

/// The code of one pass.
#[derive(Debug, Clone)]
pub(crate) struct Native {
    memory: Arc<Executable>,
    /// The steps, and sums.
    steps: Visit,
    /// The same, writing past the caches.
    streaming: Option<Visit>,
    /// For moments, the deviations from the means that the sums give.
    deviations: Option<Visit>,
    /// The kinds of the accumulations that it sums up.
    kinds: Vec<Kind>,
}

/// What a thread calls native code with.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    steps: VisitFrame,
    streaming: VisitFrame,
    deviations: VisitFrame,
    means: Vec<f64>,
}

/// What native code adds to an accumulator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Part {
    /// To the sum.
    Sum(f64),
    /// The mean and the sum of squared deviations.
    Moments(f64, f64),
}

impl Native {
    /// The code of those passes that have one; if `streams`, they can write past the caches.
    pub(crate) fn of<'a>(
        passes: impl Iterator<Item = &'a PassProgram>,
        instructions: Instructions,
        streams: bool,
    ) -> Vec<Option<Native>> {
        let mut code = vec![];
        let mut generate = |pass: &PassProgram| {
            if !pass.has_elements() {
                return None;
            }
            let operations = Operations::of(pass, MOST_OPERATIONS)?;
            let steps = Visit::new(&operations, instructions, Writes::Plain, &mut code)?;
            // Where chunks begin depends on the address of the output then, which sums must not.
            let streaming = if streams && pass.write.is_some() && pass.accumulate.is_empty() {
                Some(Visit::new(&operations, instructions, Writes::PastCaches, &mut code)?)
            } else {
                None
            };
            let sums = pass.accumulate.iter().filter(|accumulate| !accumulate.by_lane);
            let kinds: Vec<Kind> = sums.map(|accumulate| accumulate.kind).collect();
            let deviations = if kinds.contains(&Kind::Moments) {
                Some(Visit::new(&Operations::deviations(pass), instructions, Writes::Plain, &mut code)?)
            } else {
                None
            };
            Some((steps, streaming, deviations, kinds))
        };
        let generated: Vec<_> = passes.map(&mut generate).collect();
        let memory = Executable::new(&code).map(Arc::new);
        let native = |(steps, streaming, deviations, kinds)| {
            Some(Native { memory: memory.clone()?, steps, streaming, deviations, kinds })
        };
        generated.into_iter().map(|visits| visits.and_then(native)).collect()
    }

    /// How many bytes its code has.
    pub(crate) fn size(&self) -> usize {
        let others = [&self.streaming, &self.deviations].into_iter().flatten();
        self.steps.size() + others.map(Visit::size).sum::<usize>()
    }

    /// Whether it writes past the caches, from multiples of [`ALIGNMENT`] on.
    pub(crate) fn streams(&self) -> bool {
        self.streaming.is_some()
    }

    /// Whether chunks begin where it can write past the caches.
    pub(crate) fn splits(&self) -> bool {
        self.streams() && !self.uses_registers()
    }

    /// Whether it reads or writes registers of the interpreter, which limit the length of a chunk.
    pub(crate) fn uses_registers(&self) -> bool {
        self.steps.streams().iter().any(|stream| matches!(stream, Stream::Register(_)))
    }

    /// Prepares what stays the same for a pass.
    pub(crate) fn begin(&self, frame: &mut Frame) {
        self.steps.begin(&mut frame.steps);
        if let Some(visit) = &self.streaming {
            visit.begin(&mut frame.streaming);
        }
        if let Some(visit) = &self.deviations {
            visit.begin(&mut frame.deviations);
        }
    }

    /// Prepares the scalars; false where one needs more than an f32.
    #[inline(always)]
    pub(crate) fn prepare(&self, scalars: &[f64], frame: &mut Frame) -> bool {
        let streams = self.streaming.as_ref().is_none_or(|visit| visit.prepare(scalars, &mut frame.streaming));
        streams && self.steps.prepare(scalars, &mut frame.steps)
    }

    /// Runs the pass for a chunk of `len` elements, whose part of each stream starts at `address`: gives
    /// what it adds to each accumulator that has not one slot for each lane, in their order; `None` where a
    /// sum overflows f32. The output is written past the caches if it `streams` and its address allows it.
    ///
    /// # Safety
    /// `len` elements can be read at the address of each stream, and written where a step or the pass
    /// writes to it, with no other reference to them in use.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub(crate) unsafe fn run<'a>(
        &'a self,
        frame: &'a mut Frame,
        len: usize,
        streams: bool,
        mut address: impl FnMut(Stream) -> *mut f32,
    ) -> Option<impl Iterator<Item = Part> + 'a> {
        let Frame { steps, streaming, deviations, means } = frame;
        let (visit, frame) = match &self.streaming {
            Some(visit) if streams && address(Stream::Output).addr().is_multiple_of(ALIGNMENT) => (visit, streaming),
            _ => (&self.steps, steps),
        };
        // SAFETY: by the conditions above; the address is a multiple of what is written past the caches.
        let sums = unsafe { visit.run(&self.memory, frame, len, &mut address) }?;
        let count = len as f64;
        means.clear();
        let mut squares: &[f64] = &[];
        if let Some(visit) = &self.deviations {
            let moments = self.kinds.iter().zip(sums).filter(|(kind, _)| **kind == Kind::Moments);
            means.extend(moments.map(|(_, sum)| sum / count));
            visit.prepare(means, deviations);
            // SAFETY: by the conditions above.
            squares = unsafe { visit.run(&self.memory, deviations, len, &mut address) }?;
        }
        let mut moments = means.iter().zip(squares).map(move |(&mean, square)| {
            // What rounding the mean shifts is taken out again, as the interpreter does.
            let shift = mean - f64::from(mean as f32);
            Part::Moments(mean, (square - count * shift * shift).max(0.0))
        });
        Some(self.kinds.iter().zip(sums).map(move |(kind, &sum)| match kind {
            Kind::Sum | Kind::SumOfSquares => Part::Sum(sum),
            Kind::Moments => moments.next().expect("a mean for each"),
        }))
    }
}
