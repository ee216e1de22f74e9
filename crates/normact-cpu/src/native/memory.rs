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

    /// Calls the function at `start`.
    ///
    /// # Safety
    /// A function that takes these arguments starts there, in instructions of this processor. The arguments
    /// are those of [`Argument`](super::instructions::Argument): the addresses among them, and the frame, are
    /// of memory that the function may read and write.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub(super) unsafe fn call(&self, start: usize, arguments: &mut [usize], frame: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        {
            type Function = unsafe extern "sysv64" fn(*mut usize, *mut f32);
            // SAFETY: by the conditions above.
            unsafe {
                let function = std::mem::transmute::<*const u8, Function>(self.map[start..].as_ptr());
                function(arguments.as_mut_ptr(), frame.as_mut_ptr());
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (&self.map, start, arguments, frame);
            unreachable!("other processors have no native code");
        }
    }
}
