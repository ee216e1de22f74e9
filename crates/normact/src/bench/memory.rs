//! Bytes that a step allocates: counted by the allocator of the program, and by the pool of results.

use burn::tensor::Device;
use normact_burn::{reset_most_in_use, result_bytes};
use peak_alloc::PeakAlloc;

/// The type of [`TRACKED`].
pub type Allocator = PeakAlloc;

/// The allocator that counts. The `normact` program makes it the global one; in another program
/// nothing is counted and memory figures are absent.
pub const TRACKED: PeakAlloc = PeakAlloc;

/// Bytes allocated since a moment.
#[derive(Debug)]
pub struct Memory {
    /// What was alive at the start; `None` where nothing is counted.
    before: Option<usize>,
}

impl Memory {
    /// Starts to count, on devices whose tensors the program's allocator makes.
    pub fn start(device: &Device) -> Self {
        let is_host = !format!("{device:?}").contains("Cube");
        TRACKED.reset_peak_usage();
        reset_most_in_use();
        let (allocated, results) = (TRACKED.current_usage(), result_bytes().0);
        Self { before: (is_host && allocated > 0).then_some(allocated + results) }
    }

    /// Bytes that were allocated since and are alive.
    pub fn alive(&self) -> Option<usize> {
        self.before.map(|before| (TRACKED.current_usage() + result_bytes().0).saturating_sub(before))
    }

    /// The most bytes that were alive at once, beyond what was alive at the start. The two counts
    /// may be largest at different moments: then this is more than there were.
    pub fn peak(&self) -> Option<usize> {
        self.before.map(|before| (TRACKED.peak_usage() + result_bytes().1).saturating_sub(before))
    }
}
