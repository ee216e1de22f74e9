//! Machine code for the steps of a pass.
//!
//! The interpreter of [`crate::vector`] reads and writes a slice in the first-level cache for each
//! step; most steps are one instruction, so most of the time goes into loads and stores. Generated
//! code keeps values in vector registers from the first step of a pass to its last.
//!
//! * `operations` turns the steps into operations on vectors, elementary functions included;
//! * `window` keeps sums of squares within what an f32 holds;
//! * `code` hands out registers and writes the loops;
//! * `instructions` is the two encodings of each operation, AVX-512 and AVX2;
//! * `memory` is the memory the code is in.
//!
//! The loops are straight lines of some thirty kinds of instructions, so an assembler suffices. A
//! compiler back-end would take longer to run than a plan does to make, and Cranelift has no vectors of
//! 512 bits. The assembler is iced-x86, with nothing but its encoder.
//!
//! The interpreter stays: for other processors, for sums by lane, for a chunk whose numbers exceed an f32 (a
//! factor that is too large or too small, a sum that is not finite), for a pass of more than
//! [`MOST_OPERATIONS`] or of more sums than there are registers, and where the system lets no program write
//! code. Code does the same operations in the same order; sums are added up in another order, which the
//! instruction set decides, and their products are not rounded first where a vector is whole.

mod code;
mod instructions;
mod memory;
mod operations;
mod window;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use instructions::Instructions;
pub(crate) use operations::Stream;

use crate::program::PassProgram;
use crate::slots::{Kind, Moments};
use code::{Function, Writes};
use memory::{Arguments, Executable, append};
use operations::{Form, Number, Operations};
use window::Window;

/// The bytes that an address is a multiple of where code writes past the caches.
pub(crate) const ALIGNMENT: usize = 64;

/// A pass of more operations is interpreted: it would be long code, and long to make.
const MOST_OPERATIONS: usize = 4096;

/// The code of one pass.
#[derive(Debug, Clone)]
pub(crate) struct Native {
    memory: Arc<Executable>,
    /// Where it starts, and where the same does that writes past the caches.
    plain: usize,
    past_caches: Option<usize>,
    size: usize,
    streams: Vec<Stream>,
    /// The scalars it reads, and what is made of them.
    scalars: Vec<(usize, Form)>,
    /// The kinds of the accumulations that it sums up.
    kinds: Vec<Kind>,
    frame: usize,
}

/// What a thread calls native code with.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    streams: Vec<*mut f32>,
    memory: Vec<f32>,
    row: Vec<f32>,
    /// For each accumulation, and what code reads of them.
    windows: Vec<Window>,
    numbers: Vec<f32>,
    totals: Vec<f64>,
}

/// What native code adds to an accumulator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Part {
    /// To the sum.
    Sum(f64),
    Moments(Moments),
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
            let plain = Function::of(&operations, instructions, Writes::Plain)?;
            // Where chunks begin depends on the address of the output then, which sums must not.
            let past_caches = if streams && pass.write.is_some() && pass.accumulate.is_empty() {
                Some(Function::of(&operations, instructions, Writes::PastCaches)?)
            } else {
                None
            };
            let functions = || past_caches.iter().chain([&plain]);
            let sums = pass.accumulate.iter().filter(|accumulate| !accumulate.by_lane);
            Some(Generated {
                kinds: sums.map(|accumulate| accumulate.kind).collect(),
                size: functions().map(|function| function.code.len()).sum(),
                frame: functions().map(|function| function.frame).max().unwrap_or(0),
                past_caches: past_caches.as_ref().map(|function| append(&mut code, function)),
                plain: append(&mut code, &plain),
                operations,
            })
        };
        let parts: Vec<_> = passes.map(&mut generate).collect();
        let memory = Executable::new(&code).map(Arc::new);
        let native = |part: Generated| {
            let scalar = |number: &Number| match *number {
                Number::Scalar(scalar, form) => Some((scalar, form)),
                Number::Constant(_) | Number::Window(_) => None,
            };
            Some(Native {
                memory: memory.clone()?,
                plain: part.plain,
                past_caches: part.past_caches,
                size: part.size,
                frame: part.frame,
                scalars: part.operations.numbers.iter().filter_map(scalar).collect(),
                streams: part.operations.streams,
                kinds: part.kinds,
            })
        };
        parts.into_iter().map(|part| part.and_then(native)).collect()
    }

    /// How many bytes its code has.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// Whether it writes past the caches, from multiples of [`ALIGNMENT`] on.
    pub(crate) fn streams(&self) -> bool {
        self.past_caches.is_some()
    }

    /// Whether chunks begin where it can write past the caches.
    pub(crate) fn splits(&self) -> bool {
        self.streams() && !self.uses_registers()
    }

    /// Whether it reads or writes registers of the interpreter, which limit the length of a chunk.
    pub(crate) fn uses_registers(&self) -> bool {
        self.streams.iter().any(|stream| matches!(stream, Stream::Register(_)))
    }

    /// Prepares the scalars; false where one needs more than an f32.
    #[inline(always)]
    pub(crate) fn prepare(&self, scalars: &[f64], frame: &mut Frame) -> bool {
        frame.row.clear();
        self.scalars.iter().all(|&(scalar, form)| match form.of(scalars[scalar]) {
            Some(number) => {
                frame.row.push(number);
                true
            }
            None => false,
        })
    }

    /// Runs the pass for a chunk of `len` elements, whose part of each stream starts at `address`; `centre`
    /// gives that of the moments of an accumulation. Gives what it adds to each accumulator that has not one
    /// slot for each lane, in their order; `None` where a sum is not finite. The output is written past the
    /// caches if it `streams` and its address allows it.
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
        centre: impl Fn(usize) -> f64,
        mut address: impl FnMut(Stream) -> *mut f32,
    ) -> Option<impl Iterator<Item = Part> + 'a> {
        let start = match self.past_caches {
            Some(start) if streams && address(Stream::Output).addr().is_multiple_of(ALIGNMENT) => start,
            _ => self.plain,
        };
        frame.streams.clear();
        frame.streams.extend(self.streams.iter().map(|&stream| address(stream)));
        frame.memory.resize(frame.memory.len().max(self.frame), 0.0);
        frame.windows.clear();
        for (number, &kind) in self.kinds.iter().enumerate() {
            frame.windows.push(Window::new(if kind == Kind::Moments { centre(number) } else { 0.0 }));
        }
        assert_eq!(frame.row.len(), self.scalars.len(), "the scalars are prepared");
        let count = len as f64;
        loop {
            frame.numbers.clear();
            frame.totals.clear();
            for (kind, window) in self.kinds.iter().zip(&frame.windows) {
                let (numbers, sums) = counts(*kind);
                frame.numbers.extend_from_slice(&window.numbers()[..numbers]);
                frame.totals.resize(frame.totals.len() + sums, 0.0);
            }
            let arguments = Arguments {
                streams: &frame.streams,
                frame: &mut frame.memory,
                row: &frame.row,
                windows: &frame.numbers,
                totals: &mut frame.totals,
            };
            // SAFETY: by the conditions above; the other arguments have the sizes that the code was made for.
            unsafe { self.memory.call(start, arguments, len) };
            let mut totals = frame.totals.iter().copied();
            let mut suits = true;
            for (&kind, window) in self.kinds.iter().zip(&mut frame.windows) {
                let better = match kind {
                    Kind::Sum if next(&mut totals).is_finite() => None,
                    Kind::Sum => return None,
                    Kind::SumOfSquares => window.better(kind, count, 0.0, next(&mut totals)),
                    Kind::Moments => window.better(kind, count, next(&mut totals), next(&mut totals)),
                };
                suits &= better.is_none();
                *window = better.unwrap_or(*window);
            }
            if suits {
                break;
            }
        }
        let mut totals = frame.totals.iter().copied();
        Some(self.kinds.iter().zip(&frame.windows).map(move |(kind, window)| match kind {
            Kind::Sum => Part::Sum(next(&mut totals)),
            Kind::SumOfSquares => Part::Sum(window.moments(count, 0.0, next(&mut totals)).squares),
            Kind::Moments => Part::Moments(window.moments(count, next(&mut totals), next(&mut totals))),
        }))
    }
}

/// How many numbers of its window code reads for an accumulation, and how many sums it adds up.
fn counts(kind: Kind) -> (usize, usize) {
    match kind {
        Kind::Sum => (0, 1),
        Kind::SumOfSquares => (1, 1),
        Kind::Moments => (2, 2),
    }
}

fn next(totals: &mut impl Iterator<Item = f64>) -> f64 {
    totals.next().expect("a total for each sum")
}

/// The code of a pass that has no memory yet.
struct Generated {
    operations: Operations,
    kinds: Vec<Kind>,
    plain: usize,
    past_caches: Option<usize>,
    size: usize,
    frame: usize,
}
