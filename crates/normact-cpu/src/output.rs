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

// SAFETY: the pieces handed out by `run` and `put` are disjoint between threads, since every element
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
            reach = stride * (size - 1) + reach;
        }
        assert!(reach <= view.data.len(), "the result has room for {} elements, not {reach}", view.data.len());
        Self { start: view.data.as_mut_ptr(), len: view.data.len(), strides: view.strides, lifetime: PhantomData }
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
