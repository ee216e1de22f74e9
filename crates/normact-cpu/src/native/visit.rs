//! A function over a chunk: what it is called with and what it gives.
//!
//! It finds everything else in its frame: first numbers that count up, which make masks, then its partial
//! sums, the scalars and constants, and values that have no register.

use super::code::{Function, Writes};
use super::instructions::Instructions;
use super::memory::{Executable, append};
use super::operations::{Form, Number, Operations, Stream};

/// One function over a chunk.
#[derive(Debug, Clone)]
pub(super) struct Visit {
    function: Function,
    instructions: Instructions,
    /// Where its code starts.
    start: usize,
    streams: Vec<Stream>,
    sums: usize,
    /// The constants: their places in the frame and their bits.
    constants: Vec<(usize, u32)>,
    /// The scalars: their places in the frame, their numbers and what is made of them.
    scalars: Vec<(usize, usize, Form)>,
}

/// What a thread calls the function with.
#[derive(Debug, Default)]
pub(super) struct VisitFrame {
    numbers: Vec<f32>,
    addresses: Vec<*mut f32>,
    totals: Vec<f64>,
}

impl Visit {
    /// Appends its code; `None` if it cannot be generated.
    pub(super) fn new(
        operations: &Operations,
        instructions: Instructions,
        writes: Writes,
        code: &mut Vec<u8>,
    ) -> Option<Self> {
        let function = Function::of(operations, instructions, writes)?;
        let (mut constants, mut scalars) = (vec![], vec![]);
        for (index, &number) in operations.numbers.iter().enumerate() {
            let place = function.numbers + index;
            match number {
                Number::Constant(bits) => constants.push((place, bits)),
                Number::Scalar(scalar, form) => scalars.push((place, scalar, form)),
            }
        }
        let start = append(code, &function.code);
        Some(Self {
            function,
            instructions,
            start,
            streams: operations.streams.clone(),
            sums: operations.sums,
            constants,
            scalars,
        })
    }

    /// How many bytes its code has.
    pub(super) fn size(&self) -> usize {
        self.function.code.len()
    }

    pub(super) fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// Prepares what stays the same for a pass.
    pub(super) fn begin(&self, frame: &mut VisitFrame) {
        frame.numbers.clear();
        frame.numbers.resize(self.function.frame, 0.0);
        for lane in 0..self.instructions.lanes() {
            frame.numbers[lane] = f32::from_bits(lane as u32);
        }
        for &(place, bits) in &self.constants {
            frame.numbers[place] = f32::from_bits(bits);
        }
    }

    /// Prepares the scalars; false where one needs more than an f32.
    #[inline(always)]
    pub(super) fn prepare(&self, scalars: &[f64], frame: &mut VisitFrame) -> bool {
        self.scalars.iter().all(|&(place, scalar, form)| match form.of(scalars[scalar]) {
            Some(number) => {
                frame.numbers[place] = number;
                true
            }
            None => false,
        })
    }

    /// Runs it for a chunk of `len` elements: gives the total of each sum, or `None` where one overflows
    /// f32.
    ///
    /// # Safety
    /// `len` elements can be read at the address of each stream, and written where the function writes to
    /// it, with no other reference to them in use. The code is that of this function.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub(super) unsafe fn run<'a>(
        &self,
        code: &Executable,
        frame: &'a mut VisitFrame,
        len: usize,
        mut address: impl FnMut(Stream) -> *mut f32,
    ) -> Option<&'a [f64]> {
        let VisitFrame { numbers, addresses, totals } = frame;
        assert_eq!(numbers.len(), self.function.frame, "the pass has begun");
        addresses.clear();
        for &stream in &self.streams {
            addresses.push(address(stream));
        }
        totals.clear();
        totals.resize(self.sums, 0.0);
        let reach = self.function.reach(self.sums, self.instructions);
        for start in (0..len).step_by(reach) {
            // SAFETY: by the conditions above; the frame has room for all that the code keeps there.
            unsafe { code.call(self.start, addresses, numbers, [start, len.min(start.saturating_add(reach))]) };
            let sums = numbers[self.function.sums..].chunks_exact(self.instructions.lanes());
            for (total, vector) in totals.iter_mut().zip(sums) {
                *total += self.total(vector);
            }
        }
        totals.iter().all(|total| total.is_finite()).then_some(&*totals)
    }

    #[inline(always)]
    fn total(&self, vector: &[f32]) -> f64 {
        match self.instructions {
            Instructions::Avx512 => total::<16>(vector),
            Instructions::Avx2 => total::<8>(vector),
        }
    }
}

/// The sum of the lanes of a vector, by halves, so that few additions wait for each other.
#[inline(always)]
fn total<const LANES: usize>(vector: &[f32]) -> f64 {
    let (vector, _) = vector.as_chunks::<LANES>();
    let mut lanes = vector[0].map(f64::from);
    let mut half = LANES / 2;
    while half > 0 {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
        half /= 2;
    }
    lanes[0]
}
