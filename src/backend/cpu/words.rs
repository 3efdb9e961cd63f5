//! Host memory for residues: aligned, on large pages, and recycled, since a fresh page costs as much as a kernel on it.

use std::sync::{Arc, Mutex, PoisonError};

/// Alignment in words: a cache line and the widest vector.
const LINE: usize = 16;
/// Words of a large page.
const PAGE: usize = (2 << 20) / 4;

/// Host words on a 64-byte boundary. Dropped, they go back to the pool they came from.
#[derive(Debug)]
pub struct AlignedWords {
    block: Block,
    len: usize,
    pool: Option<Arc<Pool>>,
}

/// An allocation and its aligned part.
#[derive(Debug, Default)]
struct Block {
    words: Vec<u32>,
    start: usize,
}

impl Block {
    /// At least `len` aligned zeros.
    fn zeroed(len: usize) -> Self {
        // Large blocks start on a large page. Untouched words of the allocation cost nothing.
        let align = if len >= 2 * PAGE { PAGE } else { LINE };
        let words = vec![0u32; len + align];
        let misplaced = words.as_ptr() as usize / 4 % align;
        let mut block = Self { words, start: (align - misplaced) % align };
        if align == PAGE {
            large_pages(block.aligned());
        }
        block
    }
    /// Aligned words there are.
    fn capacity(&self) -> usize {
        self.words.len() - self.start
    }
    fn aligned(&mut self) -> &mut [u32] {
        &mut self.words[self.start..]
    }
}

impl AlignedWords {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        Self { block: Block::zeroed(len), len, pool: None }
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
        &self.block.words[self.block.start..][..self.len]
    }
    /// The words, mutable.
    pub fn as_mut_slice(&mut self) -> &mut [u32] {
        &mut self.block.words[self.block.start..][..self.len]
    }
}

impl Clone for AlignedWords {
    fn clone(&self) -> Self {
        let mut copy = Self::zeroed(self.len);
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}

impl Drop for AlignedWords {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.put(std::mem::take(&mut self.block));
        }
    }
}

/// Memory of dropped buffers, kept for the next ones.
#[derive(Debug, Default)]
pub struct Pool {
    free: Mutex<Vec<Block>>,
}

impl Pool {
    /// Words kept at most.
    const LIMIT: usize = (768 << 20) / 4;
    /// Smaller buffers are left to the allocator.
    const SMALLEST: usize = (16 << 10) / 4;

    /// `len` words of any content.
    pub fn take(self: &Arc<Self>, len: usize) -> AlignedWords {
        if len < Self::SMALLEST {
            return AlignedWords::zeroed(len);
        }
        let recycled = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            // The tightest that fits, unless it would waste more than a quarter (beyond what aligning it left over).
            let slack = len / 4 + if len >= 2 * PAGE { PAGE } else { LINE };
            let fits = |block: &Block| (len..=len + slack).contains(&block.capacity());
            let best = (0..free.len()).filter(|&i| fits(&free[i])).min_by_key(|&i| free[i].capacity());
            best.map(|i| free.swap_remove(i))
        };
        AlignedWords { block: recycled.unwrap_or_else(|| Block::zeroed(len)), len, pool: Some(self.clone()) }
    }

    fn put(&self, block: Block) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.push(block);
        let mut kept: usize = free.iter().map(Block::capacity).sum();
        while kept > Self::LIMIT {
            kept -= free.remove(0).capacity();
        }
    }
}

/// Asks for large pages where the system gives them on demand only: with small ones, address translation is half the cost
/// of streaming a key.
#[cfg(target_os = "linux")]
fn large_pages(words: &mut [u32]) {
    const MADV_HUGEPAGE: std::ffi::c_int = 14;
    unsafe extern "C" {
        fn madvise(addr: *mut std::ffi::c_void, len: usize, advice: std::ffi::c_int) -> std::ffi::c_int;
    }
    let whole = words.len() / PAGE * PAGE;
    // SAFETY: the range lies within the allocation and starts on a page; the advice changes how pages are backed, not their
    // content, and a refusal is harmless.
    unsafe { madvise(words.as_mut_ptr().cast(), whole * 4, MADV_HUGEPAGE) };
}

#[cfg(not(target_os = "linux"))]
fn large_pages(_words: &mut [u32]) {}
