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
//! factor that is too large or too small, a sum or what goes into it that is not finite), for a pass of more than
//! [`MOST_OPERATIONS`] or of more sums than leave registers for operations, and where the system lets no
//! program write code. Code does the same operations in the same order; sums are added up in another order, which the
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
use crate::run::Columns;
use crate::slots::{Accumulation, Moments};
use code::{Function, Writes};
use memory::{Executable, append};
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
    scalars: Vec<Scalar>,
    sums: Vec<Sum>,
    /// How many numbers the windows have, and how many totals there are.
    windows: usize,
    totals: usize,
    frame: usize,
}

/// A scalar that code reads.
#[derive(Debug, Clone, Copy)]
struct Scalar {
    scalar: usize,
    form: Form,
    /// Whether a sum depends on it.
    is_summed: bool,
}

/// What code sums up, the first number of its window and the first of its totals.
#[derive(Debug, Clone, Copy)]
struct Sum {
    what: Accumulation,
    window: usize,
    total: usize,
}

/// The most rows of a call. What code reads and gives for each row is in columns of so many.
pub(crate) const MOST_ROWS: usize = 128;

/// What a thread calls native code with, and what it gives.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    /// For each stream, where the first row starts, and how many elements behind it the next one does.
    streams: Vec<(*mut f32, usize)>,
    /// The columns of the windows, and those of the totals.
    windows: Vec<f32>,
    totals: Vec<f64>,
    arguments: Vec<usize>,
    memory: Vec<f32>,
}

/// Rows that native code does one after the other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) count: usize,
    /// The elements of each.
    pub(crate) len: usize,
    /// The columns of their numbers, from that of the first row on, and how many behind it that of the next row is.
    pub(crate) numbers: &'a [f32],
    pub(crate) step: usize,
    /// Whether the output is written past the caches: it starts at a multiple of [`ALIGNMENT`].
    pub(crate) past_caches: bool,
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
            let past_caches = if streams && pass.write.is_some() && pass.sums.is_empty() && pass.by_lane.is_empty() {
                Some(Function::of(&operations, instructions, Writes::PastCaches)?)
            } else {
                None
            };
            let functions = || past_caches.iter().chain([&plain]);
            Some(Generated {
                sums: pass.sums.iter().map(|accumulate| accumulate.what).collect(),
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
            let scalar = |(number, is_summed): (&Number, bool)| match *number {
                Number::Scalar(scalar, form) => Some(Scalar { scalar, form, is_summed }),
                Number::Constant(_) | Number::Window(_) => None,
            };
            let in_sums = part.operations.numbers_in_sums();
            let (mut window, mut total) = (0, 0);
            let mut sums = vec![];
            for what in part.sums {
                sums.push(Sum { what, window, total });
                (window, total) = (window + counts(what).0, total + counts(what).1);
            }
            Some(Native {
                memory: memory.clone()?,
                plain: part.plain,
                past_caches: part.past_caches,
                size: part.size,
                frame: part.frame,
                scalars: part.operations.numbers.iter().zip(in_sums).filter_map(scalar).collect(),
                streams: part.operations.streams,
                windows: part.operations.windows,
                totals: part.operations.sums,
                sums,
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

    /// Whether it reads or writes registers of the interpreter, which limit the length of a chunk.
    pub(crate) fn uses_registers(&self) -> bool {
        self.streams.iter().any(|stream| matches!(stream, Stream::Register(_)))
    }

    /// Begins a call: `place` gives where each stream's first row is, and how far apart its rows are.
    #[inline]
    pub(crate) fn begin(&self, frame: &mut Frame, place: impl FnMut(Stream) -> (*mut f32, usize)) {
        frame.streams.clear();
        frame.streams.extend(self.streams.iter().copied().map(place));
        frame.memory.resize(frame.memory.len().max(self.frame), 0.0);
        frame.windows.resize(frame.windows.len().max(self.windows * MOST_ROWS), 0.0);
        frame.totals.resize(frame.totals.len().max(self.totals * MOST_ROWS), 0.0);
    }

    /// Sets the windows of a sum for each row, around these centres.
    #[inline]
    pub(crate) fn set_windows(&self, frame: &mut Frame, sum: usize, centres: impl Iterator<Item = f64>) {
        let Sum { what, window, .. } = self.sums[sum];
        let columns = &mut frame.windows[window * MOST_ROWS..];
        match what {
            Accumulation::Sum => {}
            Accumulation::SumOfSquares => columns[..MOST_ROWS].fill(1.0),
            Accumulation::Moments => {
                let (scales, offsets) = columns.split_at_mut(MOST_ROWS);
                scales.fill(1.0);
                offsets.iter_mut().zip(centres).for_each(|(offset, centre)| *offset = -centre as f32);
            }
        }
    }

    /// Does the rows, at most [`MOST_ROWS`].
    ///
    /// # Safety
    /// The elements of all rows can be read at the places of each stream, and written where a step or the
    /// pass writes to it, with no other reference to them in use.
    #[allow(unsafe_code)]
    #[inline]
    pub(crate) unsafe fn run(&self, frame: &mut Frame, rows: Rows<'_>) {
        // SAFETY: by the conditions above.
        unsafe { self.call(frame, rows, 0, rows.count) };
    }

    /// Whether a sum is finite in every row, and its windows suit.
    #[inline]
    pub(crate) fn suits(&self, frame: &Frame, sum: usize, rows: Rows<'_>) -> bool {
        let Sum { what, total, .. } = self.sums[sum];
        let count = rows.len as f64;
        let column = |number: usize| &frame.totals[number * MOST_ROWS..][..rows.count];
        match what {
            Accumulation::Sum => column(total).iter().all(|sum| sum.is_finite()),
            Accumulation::SumOfSquares => column(total).iter().all(|&squares| window::suits(what, count, 0.0, squares)),
            Accumulation::Moments => {
                let mut sums = column(total).iter().zip(column(total + 1));
                sums.all(|(&sum, &squares)| window::suits(what, count, sum, squares))
            }
        }
    }

    /// Does a row again, until its windows suit it; false if another sum is not finite.
    ///
    /// # Safety
    /// As of [`Self::run`], which came before.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn settle(&self, frame: &mut Frame, rows: Rows<'_>, row: usize) -> bool {
        let count = rows.len as f64;
        let mut windows: Vec<Window> = (0..self.sums.len()).map(|sum| self.window(frame, sum, row)).collect();
        loop {
            let mut suits = true;
            for (&Sum { what, window: number, total }, window) in self.sums.iter().zip(&mut windows) {
                let at = |number: usize| frame.totals[number * MOST_ROWS + row];
                let better = match what {
                    Accumulation::Sum if at(total).is_finite() => None,
                    Accumulation::Sum => return false,
                    Accumulation::SumOfSquares => window.better(what, count, 0.0, at(total)),
                    Accumulation::Moments => window.better(what, count, at(total), at(total + 1)),
                };
                if let Some(better) = better {
                    (*window, suits) = (better, false);
                    let numbers = better.numbers();
                    for (place, number) in (number..).zip(&numbers[..counts(what).0]) {
                        frame.windows[place * MOST_ROWS + row] = *number;
                    }
                }
            }
            if suits {
                return true;
            }
            // SAFETY: by the conditions above.
            unsafe { self.call(frame, rows, row, 1) };
        }
    }

    /// A sum in each row.
    #[inline]
    pub(crate) fn totals<'a>(&self, frame: &'a Frame, sum: usize, rows: Rows<'_>) -> &'a [f64] {
        &frame.totals[self.sums[sum].total * MOST_ROWS..][..rows.count]
    }

    /// The moments of a row, or no more of them than its sum of squares.
    #[inline]
    pub(crate) fn moments(&self, frame: &Frame, sum: usize, rows: Rows<'_>, row: usize) -> Moments {
        let Sum { what, total, .. } = self.sums[sum];
        let at = |number: usize| frame.totals[number * MOST_ROWS + row];
        let (sum_of_row, squares) =
            if what == Accumulation::Moments { (at(total), at(total + 1)) } else { (0.0, at(total)) };
        self.window(frame, sum, row).moments(rows.len as f64, sum_of_row, squares)
    }

    /// The window of a sum in a row.
    #[inline]
    fn window(&self, frame: &Frame, sum: usize, row: usize) -> Window {
        let Sum { what, window, .. } = self.sums[sum];
        let at = |number: usize| frame.windows[number * MOST_ROWS + row];
        match what {
            Accumulation::Sum => Window::new([1.0, 0.0]),
            Accumulation::SumOfSquares => Window::new([at(window), 0.0]),
            Accumulation::Moments => Window::new([at(window), at(window + 1)]),
        }
    }

    /// Calls the code for some of the rows.
    ///
    /// # Safety
    /// As of [`Self::run`].
    #[allow(unsafe_code)]
    #[inline]
    unsafe fn call(&self, frame: &mut Frame, rows: Rows<'_>, first: usize, count: usize) {
        let Frame { streams, windows, totals, arguments, memory } = frame;
        let last = rows.step * (rows.count - 1);
        let has_numbers = self.scalars.is_empty() || (self.scalars.len() - 1) * MOST_ROWS + last < rows.numbers.len();
        assert!(first + count <= rows.count && rows.count <= MOST_ROWS && has_numbers, "each row has its columns");
        let bytes = size_of::<f32>();
        let numbers = rows.numbers.as_ptr().wrapping_add(first * rows.step).expose_provenance();
        let windows = windows.as_ptr().wrapping_add(first).expose_provenance();
        let totals = totals.as_mut_ptr().wrapping_add(first).expose_provenance();
        arguments.clear();
        // In the order of `Argument`.
        arguments.extend([numbers, rows.step * bytes, windows, totals, rows.len * bytes, count]);
        for &(start, stride) in &*streams {
            arguments.extend([start.wrapping_add(first * stride).expose_provenance(), stride * bytes]);
        }
        let start = if rows.past_caches { self.past_caches.expect("code that does so") } else { self.plain };
        // SAFETY: by the conditions above; the other arguments have the sizes that the code was made for.
        unsafe { self.memory.call(start, arguments, memory) };
    }
}

/// What native code reads of the scalars of some rows, as f32 and in columns.
#[derive(Debug, Default)]
pub(crate) struct RowNumbers {
    columns: Vec<f32>,
    /// The rows that are left to the interpreter, since a number needs more than an f32, or since one that is not
    /// finite goes into a sum: that is hardly ever finite then, and would be done twice.
    left: Set,
}

/// Some of the rows of a call, as bits.
type Set = u128;

const _: () = assert!(Set::BITS as usize == MOST_ROWS);

impl RowNumbers {
    #[inline]
    pub(crate) fn fill(&mut self, native: &Native, scalars: &Columns) {
        self.left = 0;
        self.columns.resize(self.columns.len().max(native.scalars.len() * MOST_ROWS), 0.0);
        for (&Scalar { scalar, form, is_summed }, into) in
            native.scalars.iter().zip(self.columns.as_chunks_mut::<MOST_ROWS>().0)
        {
            let scalars = scalars.of(scalar);
            form.of_each(scalars, into);
            let numbers = &into[..scalars.len()];
            if matches!(form, Form::Factor | Form::Reciprocal) {
                self.left |= rows(scalars, |&scalar| form.of(scalar).is_none());
            }
            if is_summed {
                self.left |= rows(numbers, |number| !number.is_finite());
            }
        }
    }

    /// The columns from a row on.
    #[inline]
    pub(crate) fn from(&self, row: usize) -> &[f32] {
        &self.columns[row.min(self.columns.len())..]
    }

    /// Whether all rows are for native code.
    #[inline]
    pub(crate) fn suit_all(&self) -> bool {
        self.left == 0
    }

    /// Whether a row is for native code.
    #[inline]
    pub(crate) fn suit(&self, row: usize) -> bool {
        self.left >> row & 1 == 0
    }
}

/// The rows of which something is true.
#[inline(always)]
fn rows<T>(of: &[T], is_true: impl Fn(&T) -> bool) -> Set {
    if !of.iter().any(&is_true) {
        return 0;
    }
    of.iter().enumerate().filter(|(_, of)| is_true(of)).fold(0, |set, (row, _)| set | 1 << row)
}

/// How many numbers of its window code reads for an accumulation, and how many sums it adds up.
fn counts(what: Accumulation) -> (usize, usize) {
    match what {
        Accumulation::Sum => (0, 1),
        Accumulation::SumOfSquares => (1, 1),
        Accumulation::Moments => (2, 2),
    }
}

/// The code of a pass that has no memory yet.
struct Generated {
    operations: Operations,
    sums: Vec<Accumulation>,
    plain: usize,
    past_caches: Option<usize>,
    size: usize,
    frame: usize,
}
