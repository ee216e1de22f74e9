//! The full-size result, written by several threads at once.

use std::marker::PhantomData;

/// A tensor in the view samples x channels x positions: where it is and how far apart its elements
/// are.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The elements; the first is at index 0.
    pub data: &'a [f32],
    /// The distance between neighbours along samples, channels and positions.
    pub strides: [usize; 3],
}

/// The same for the result, which every element of the input has one place in.
#[derive(Debug)]
pub struct ViewMut<'a> {
    /// The elements; the first is at index 0.
    pub data: &'a mut [f32],
    /// The distance between neighbours along samples, channels and positions. No two elements may
    /// share a place.
    pub strides: [usize; 3],
}

/// A result that is handed out in pieces.
#[derive(Clone, Copy)]
pub(crate) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    pub(crate) strides: [usize; 3],
    lifetime: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pieces handed out by `run` are disjoint between threads, since every element
// of the input belongs to one block, a block to one thread, and no two elements share a place.
#[allow(unsafe_code)]
unsafe impl Send for Shared<'_> {}
#[allow(unsafe_code)]
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// # Panics
    /// Two elements share a place, or one has none.
    pub(crate) fn new(view: ViewMut<'a>, dims: [usize; 3]) -> Self {
        let mut axes: Vec<(usize, usize)> = view.strides.into_iter().zip(dims).filter(|&(_, size)| size > 1).collect();
        axes.sort_unstable();
        let mut reach = 1;
        for (stride, size) in axes {
            assert!(stride >= reach, "the strides {:?} of the result overlap for {dims:?}", view.strides);
            reach += stride * (size - 1);
        }
        assert!(reach <= view.data.len(), "the result has room for {} elements, not {reach}", view.data.len());
        Self { start: view.data.as_mut_ptr(), len: view.data.len(), strides: view.strides, lifetime: PhantomData }
    }

    /// How many elements after `offset` an address is a multiple of so many bytes for the first time.
    #[inline(always)]
    pub(crate) fn until_aligned(&self, offset: usize, bytes: usize) -> usize {
        self.start.wrapping_add(offset).align_offset(bytes)
    }

    /// Where `offset` is, from which on there are so many elements.
    #[inline(always)]
    pub(crate) fn part(&self, offset: usize, len: usize) -> *mut f32 {
        assert!(offset + len <= self.len, "the part lies within the result");
        self.start.wrapping_add(offset)
    }

    /// `len` neighbouring elements from `offset` on.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    #[inline(always)]
    pub(crate) fn run(&self, offset: usize, len: usize) -> &mut [f32] {
        assert!(offset + len <= self.len, "the run lies within the result");
        // SAFETY: within bounds by the assertion; disjoint from other pieces as said above.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(offset), len) }
    }
}

/// Copies past the caches, for results too large to stay in them: a plain store would first read
/// what it overwrites from memory. [`finish_streams`] comes after the last.
#[inline(always)]
pub(crate) fn stream(into: &mut [f32], from: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_mm_loadu_ps, _mm_stream_ps};
        assert_eq!(into.len(), from.len());
        let head = into.as_ptr().align_offset(16).min(into.len());
        let (into_head, into) = into.split_at_mut(head);
        let (from_head, from) = from.split_at(head);
        into_head.copy_from_slice(from_head);
        let ((into, into_tail), (from, from_tail)) = (into.as_chunks_mut::<4>(), from.as_chunks::<4>());
        for (into, from) in into.iter_mut().zip(from) {
            // SAFETY: both point to four numbers, and `into` is aligned to 16 bytes.
            #[allow(unsafe_code)]
            unsafe {
                _mm_stream_ps(into.as_mut_ptr(), _mm_loadu_ps(from.as_ptr()));
            }
        }
        into_tail.copy_from_slice(from_tail);
    }
    #[cfg(not(target_arch = "x86_64"))]
    into.copy_from_slice(from);
}

/// Makes streamed results visible to other threads.
pub(crate) fn finish_streams() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a fence touches no memory.
    #[allow(unsafe_code)]
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}

/// Asks for the cache lines of a slice that will be read soon.
#[inline(always)]
pub(crate) fn prefetch(data: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in data.chunks(16) {
        // SAFETY: a prefetch reads nothing that the program can see.
        #[allow(unsafe_code)]
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = data;
}
