//! Host memory for residues, recycled: a fresh page costs as much as a kernel on it.

use std::sync::{Arc, Mutex, PoisonError};

/// Host words on a 64-byte boundary. Dropped, they go back to the pool they came from.
#[derive(Debug)]
pub struct AlignedWords {
    lines: Vec<Line>,
    len: usize,
    pool: Option<Arc<Pool>>,
}

#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u32; 16]);

impl AlignedWords {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line([0; 16]); len.div_ceil(16)], len, pool: None }
    }
    /// How many words.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// The words.
    pub fn as_slice(&self) -> &[u32] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
    /// The words, mutable.
    pub fn as_mut_slice(&mut self) -> &mut [u32] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

impl Clone for AlignedWords {
    fn clone(&self) -> Self {
        Self { lines: self.lines.clone(), len: self.len, pool: self.pool.clone() }
    }
}

impl Drop for AlignedWords {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.put(std::mem::take(&mut self.lines));
        }
    }
}

/// Memory of dropped buffers, kept for the next ones.
#[derive(Debug, Default)]
pub struct Pool {
    free: Mutex<Vec<Vec<Line>>>,
}

impl Pool {
    /// Bytes kept at most.
    const LIMIT: usize = 768 << 20;
    /// Smaller buffers are left to the allocator.
    const SMALLEST: usize = 16 << 10;

    /// `len` words of any content.
    pub fn take(self: &Arc<Self>, len: usize) -> AlignedWords {
        let need = len.div_ceil(16);
        if need * 64 < Self::SMALLEST {
            return AlignedWords::zeroed(len);
        }
        let recycled = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            // The tightest that fits, unless it would waste more than a quarter.
            let best = (0..free.len()).filter(|&i| free[i].len() >= need && free[i].len() - need <= need / 4);
            best.min_by_key(|&i| free[i].len()).map(|i| free.swap_remove(i))
        };
        let lines = recycled.unwrap_or_else(|| fresh(need));
        AlignedWords { lines, len, pool: Some(self.clone()) }
    }

    fn put(&self, lines: Vec<Line>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(lines);
        let mut kept: usize = free.iter().map(|l| l.len() * 64).sum();
        while kept > Self::LIMIT {
            kept -= free.remove(0).len() * 64;
        }
    }
}

/// Zeroed lines, on large pages where the system gives them on demand only.
fn fresh(lines: usize) -> Vec<Line> {
    let mut fresh = vec![Line([0; 16]); lines];
    large_pages(&mut fresh);
    fresh
}

#[cfg(target_os = "linux")]
fn large_pages(lines: &mut [Line]) {
    const PAGE: usize = 2 << 20;
    const MADV_HUGEPAGE: std::ffi::c_int = 14;
    unsafe extern "C" {
        fn madvise(addr: *mut std::ffi::c_void, len: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
    }
    let start = lines.as_mut_ptr() as usize;
    let end = start + lines.len() * 64;
    let (start, end) = (start.next_multiple_of(PAGE), end / PAGE * PAGE);
    if start < end {
        // SAFETY: the range lies within the allocation; the advice changes how pages are backed, not their content, and a
        // refusal is harmless.
        unsafe { madvise(start as *mut _, end - start, MADV_HUGEPAGE) };
    }
}

#[cfg(not(target_os = "linux"))]
fn large_pages(_lines: &mut [Line]) {}
