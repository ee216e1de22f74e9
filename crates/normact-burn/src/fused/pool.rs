//! Memory for full-size results on the CPU, used again.
//!
//! A large allocation comes from the operating system page by page, each page zeroed at its first
//! touch, and goes back when it is freed. For a layer that reads and writes each element once this
//! costs several times what the layer costs. So results of at least [`SMALLEST`] bytes are mapped, in
//! large pages where the system has them, and, when their tensor is dropped, kept for the next result of
//! that size, up to [`KEPT`] bytes in all, the ones unused for longest given up first.

use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use burn_std::{AccessError, AccessPolicy, AllocationController, AllocationProperty, Bytes};
use memmap2::MmapMut;

/// Results of fewer bytes come from the allocator.
pub(super) const SMALLEST: usize = 256 << 10;

/// The most bytes kept for later.
const KEPT: usize = 1 << 30;

/// Sizes from this on are multiples of it: the size of a large page on most machines.
const PAGE: usize = 2 << 20;

/// Buffers that wait for their next use; the last was used last.
static FREE: Mutex<VecDeque<MmapMut>> = Mutex::new(VecDeque::new());

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST_IN_USE: AtomicUsize = AtomicUsize::new(0);

/// Bytes of results that are alive, and the most there were since [`reset_most_in_use`].
pub fn result_bytes() -> (usize, usize) {
    (IN_USE.load(Ordering::Relaxed), MOST_IN_USE.load(Ordering::Relaxed))
}

/// Starts to look for the most bytes in use anew.
pub fn reset_most_in_use() {
    MOST_IN_USE.store(IN_USE.load(Ordering::Relaxed), Ordering::Relaxed);
}

/// A buffer that goes back to the free ones when it is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    /// There until the drop.
    map: Option<MmapMut>,
}

impl Buffer {
    /// A buffer of at least so many bytes, with any contents; `None` if there is no memory for it.
    pub(super) fn take(bytes: usize) -> Option<Self> {
        let bytes = bytes.next_multiple_of(if bytes >= PAGE { PAGE } else { 4096 });
        let found = {
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            let position = free.iter().rposition(|map| map.len() == bytes);
            position.and_then(|position| free.remove(position))
        };
        let map = match found {
            Some(map) => map,
            None => {
                let map = MmapMut::map_anon(bytes).ok()?;
                #[cfg(target_os = "linux")]
                // Only speed depends on it.
                drop(map.advise(memmap2::Advice::HugePage));
                map
            }
        };
        let now = IN_USE.fetch_add(bytes, Ordering::Relaxed) + bytes;
        MOST_IN_USE.fetch_max(now, Ordering::Relaxed);
        Some(Self { map: Some(map) })
    }

    /// The first `len` numbers.
    pub(super) fn numbers(&mut self, len: usize) -> &mut [f32] {
        let map = self.map.as_mut().expect("there until the drop");
        &mut bytemuck::cast_slice_mut(map)[..len]
    }

    /// The first `len` bytes as the storage of a tensor.
    pub(super) fn into_bytes(self, len: usize) -> Bytes {
        // SAFETY: the buffer has at least `len` bytes; a mapping is initialised, with zeros at least.
        #[allow(unsafe_code)]
        unsafe {
            Bytes::from_controller(Box::new(self), len)
        }
    }

    fn memory(&self) -> &[u8] {
        self.map.as_ref().expect("there until the drop")
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(map) = self.map.take() else { return };
        IN_USE.fetch_sub(map.len(), Ordering::Relaxed);
        let mut given_up = vec![];
        {
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            free.push_back(map);
            while free.iter().map(|map| map.len()).sum::<usize>() > KEPT {
                given_up.extend(free.pop_front());
            }
        }
        // Unmapped here, after the lock.
        drop(given_up);
    }
}

impl AllocationController for Buffer {
    fn alloc_align(&self) -> usize {
        4096
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    #[allow(unsafe_code)]
    unsafe fn memory_mut(&mut self, _policy: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        let map = self.map.as_mut().expect("there until the drop");
        // SAFETY: the same bytes; the caller writes initialised data only.
        Ok(unsafe { std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), map.len()) })
    }

    fn memory(&self, _policy: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        let memory = Buffer::memory(self);
        // SAFETY: the same bytes, all of them initialised.
        #[allow(unsafe_code)]
        Ok(unsafe { std::slice::from_raw_parts(memory.as_ptr().cast(), memory.len()) })
    }

    fn capacity(&self) -> usize {
        Buffer::memory(self).len()
    }
}
