//! Bytes that a step allocates. On the CPU they are counted by the allocator of the program and by the pool of
//! results; on a GPU the device tells what is in use, and what it holds for it.

use burn::tensor::Device;
use normact_burn::{reset_most_in_use, result_bytes};
use peak_alloc::PeakAlloc;

/// The type of [`TRACKED`].
pub type Allocator = PeakAlloc;

/// The allocator that counts. The `normact` program makes it the global one; in another program
/// nothing is counted and memory figures of the CPU are absent.
pub const TRACKED: PeakAlloc = PeakAlloc;

/// Bytes allocated since a moment.
#[derive(Debug)]
pub enum Memory {
    /// What was alive at the start, in the program's memory.
    Host(usize),
    /// What was in use on a device, and what it held for it.
    Device(Box<Device>, [usize; 2]),
    /// Nothing is counted.
    Unknown,
}

impl Memory {
    /// Starts to count. `of_peak` makes a device give up what it holds without need, which takes time, but
    /// else what it held before hides what it holds at most.
    pub fn start(device: &Device, of_peak: bool) -> Self {
        if let Some(usage) = device.memory_pool_usage() {
            if of_peak {
                device.memory_cleanup();
            }
            let held = device.memory_pool_usage().unwrap_or(usage).bytes_reserved;
            return Self::Device(Box::new(device.clone()), [usage.bytes_in_use as usize, held as usize]);
        }
        TRACKED.reset_peak_usage();
        reset_most_in_use();
        match TRACKED.current_usage() {
            0 => Self::Unknown,
            allocated => Self::Host(allocated + result_bytes().0),
        }
    }

    /// Bytes that were allocated since and are alive.
    pub fn alive(&self) -> Option<usize> {
        match self {
            Self::Host(before) => Some((TRACKED.current_usage() + result_bytes().0).saturating_sub(*before)),
            Self::Device(device, [before, _]) => {
                let usage = device.memory_pool_usage()?;
                Some((usage.bytes_in_use as usize).saturating_sub(*before))
            }
            Self::Unknown => None,
        }
    }

    /// The most bytes that were alive at once, beyond what was alive at the start. On the CPU there are two
    /// counts, which may be largest at different moments: then this is more than there were. A device holds
    /// memory in pages: there it is what pages were added.
    pub fn peak(&self) -> Option<usize> {
        match self {
            Self::Host(before) => Some((TRACKED.peak_usage() + result_bytes().1).saturating_sub(*before)),
            Self::Device(device, [_, before]) => {
                let usage = device.memory_pool_usage()?;
                Some((usage.bytes_reserved as usize).saturating_sub(*before))
            }
            Self::Unknown => None,
        }
    }
}
