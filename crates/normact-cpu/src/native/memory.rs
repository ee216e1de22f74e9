//! Memory that holds code.

use memmap2::{Mmap, MmapMut};

/// Functions start on cache lines.
const ALIGNMENT: usize = 64;

/// Appends a function to code and gives where it starts.
pub(super) fn append(code: &mut Vec<u8>, function: &[u8]) -> usize {
    code.resize(code.len().next_multiple_of(ALIGNMENT), 0);
    let start = code.len();
    code.extend_from_slice(function);
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

    /// Calls the function at `start` for a range of elements.
    ///
    /// # Safety
    /// A function that takes these arguments starts there, in instructions of this processor. The streams
    /// at the addresses and the frame have the elements that it reads and writes.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub(super) unsafe fn call(&self, start: usize, streams: &[*mut f32], frame: &mut [f32], [from, to]: [usize; 2]) {
        #[cfg(target_arch = "x86_64")]
        {
            /// With the range in bytes, the end first.
            type Function = unsafe extern "sysv64" fn(*const *mut f32, *mut f32, usize, usize);
            let bytes = size_of::<f32>();
            // SAFETY: by the conditions above.
            unsafe {
                let function = std::mem::transmute::<*const u8, Function>(self.map[start..].as_ptr());
                function(streams.as_ptr(), frame.as_mut_ptr(), bytes * to, bytes * from);
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (&self.map, start, streams, frame, from, to);
            unreachable!("other processors have no native code");
        }
    }
}
