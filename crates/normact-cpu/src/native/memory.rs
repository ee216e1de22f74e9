//! Memory that holds code.

use memmap2::{Mmap, MmapMut};

use super::ALIGNMENT;
use super::code::Function;

/// Appends a function to code and gives where it starts.
pub(super) fn append(code: &mut Vec<u8>, function: &Function) -> usize {
    code.resize(code.len().next_multiple_of(ALIGNMENT), 0);
    let start = code.len() + function.start;
    code.extend_from_slice(&function.code);
    start
}

/// The code of a program. It is written before it may be executed, and never again.
#[derive(Debug)]
pub(super) struct Executable {
    map: Mmap,
}

impl Executable {
    /// `None` where there is no code, or where the system does not allow it.
    pub(super) fn new(code: &[u8]) -> Option<Self> {
        let mut map = MmapMut::map_anon(code.len()).ok()?;
        map.copy_from_slice(code);
        Some(Self { map: map.make_exec().ok()? })
    }

    /// Calls the function at `start` for so many elements of each stream.
    ///
    /// # Safety
    /// A function that takes these arguments starts there, in instructions of this processor. The streams,
    /// the frame, the numbers and the totals have what it reads and writes.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub(super) unsafe fn call(&self, start: usize, arguments: Arguments<'_>, len: usize) {
        #[cfg(target_arch = "x86_64")]
        {
            type Function =
                unsafe extern "sysv64" fn(*const *mut f32, *mut f32, *const f32, *const f32, *mut f64, usize);
            let Arguments { streams, frame, row, windows, totals } = arguments;
            // SAFETY: by the conditions above.
            unsafe {
                let function = std::mem::transmute::<*const u8, Function>(self.map[start..].as_ptr());
                let (streams, row, windows) = (streams.as_ptr(), row.as_ptr(), windows.as_ptr());
                function(streams, frame.as_mut_ptr(), row, windows, totals.as_mut_ptr(), size_of::<f32>() * len);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (&self.map, start, arguments, len);
            unreachable!("other processors have no native code");
        }
    }
}

/// What a function is called with.
pub(super) struct Arguments<'a> {
    pub(super) streams: &'a [*mut f32],
    /// Totals of the sums in f64, and values that have no register.
    pub(super) frame: &'a mut [f32],
    /// The scalars.
    pub(super) row: &'a [f32],
    pub(super) windows: &'a [f32],
    pub(super) totals: &'a mut [f64],
}
