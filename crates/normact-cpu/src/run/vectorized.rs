//! Loops compiled for the vector instructions that processors have.

/// Something to do, of which each loop is to be compiled for several processors: all of it must be
/// `#[inline(always)]`.
pub(super) trait Vectorized {
    /// Does it; `FMA` tells whether there is fused multiply-add.
    fn run<const FMA: bool>(self);
}

/// Does it with the widest vector instructions of this processor.
pub(super) fn vectorized(task: impl Vectorized) {
    #[cfg(target_arch = "x86_64")]
    {
        use crate::native::Instructions;

        #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")]
        fn avx512(task: impl Vectorized) {
            task.run::<true>();
        }
        #[target_feature(enable = "avx2,fma")]
        fn avx2(task: impl Vectorized) {
            task.run::<true>();
        }
        match Instructions::detect() {
            // SAFETY: the processor has the instructions.
            #[allow(unsafe_code)]
            Some(Instructions::Avx512) => return unsafe { avx512(task) },
            // SAFETY: the processor has the instructions.
            #[allow(unsafe_code)]
            Some(Instructions::Avx2) => return unsafe { avx2(task) },
            None => {}
        }
    }
    // Every 64-bit ARM processor has fused multiply-add.
    task.run::<{ cfg!(target_arch = "aarch64") }>();
}
