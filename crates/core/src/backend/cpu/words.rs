//! Host memory for residues: aligned, on large pages, and recycled, since a fresh page costs as much as a kernel on it.
//!
//! Words may be marked as secret: they are then wiped before their memory goes anywhere else. Those of a key that lives long have
//! pages of their own ([`AlignedWords::secret`]), which the system is asked to keep out of swap and of core dumps.

use super::pages::{PAGE, Pages, Span};
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::Zeroize;

/// Alignment in words: a cache line and the widest vector.
const LINE: usize = 16;

/// Host words on a 64-byte boundary. Dropped, they go back to the pool they came from, wiped if they are secret.
#[derive(Debug)]
pub struct AlignedWords {
    block: Block,
    len: usize,
    pool: Option<Arc<Pool>>,
    secret: bool,
}

/// An allocation and its aligned part.
#[derive(Debug)]
struct Block {
    memory: Memory,
    /// First aligned word.
    start: usize,
    /// Aligned words there are.
    capacity: usize,
}

#[derive(Debug)]
enum Memory {
    /// From the allocator.
    Heap(Vec<u32>),
    /// Pages of their own, large if the system has them, so that the allocator's heap is left alone.
    Pages(memmap2::MmapMut),
    /// Some of the pages that a pool shares out.
    Shared(Span),
}

impl Memory {
    fn words(&self) -> &[u32] {
        match self {
            Self::Heap(words) => words,
            Self::Pages(pages) => bytemuck::cast_slice(pages),
            Self::Shared(span) => span.words(),
        }
    }
    fn words_mut(&mut self) -> &mut [u32] {
        match self {
            Self::Heap(words) => words,
            Self::Pages(pages) => bytemuck::cast_slice_mut(pages),
            Self::Shared(span) => span.words_mut(),
        }
    }
}

impl Block {
    /// At least `len` aligned zeros.
    fn zeroed(len: usize) -> Self {
        Self::pages(len).unwrap_or_else(|| Self::aligned(Memory::Heap(vec![0u32; len + LINE]), len, LINE))
    }

    fn aligned(memory: Memory, capacity: usize, align: usize) -> Self {
        let misplaced = memory.words().as_ptr() as usize / 4 % align;
        Self { memory, start: (align - misplaced) % align, capacity }
    }

    /// Large blocks start on a large page and end with one. Untouched words of a mapping cost nothing.
    fn pages(len: usize) -> Option<Self> {
        if len < 2 * PAGE || cfg!(miri) {
            return None;
        }
        let capacity = len.next_multiple_of(PAGE);
        let pages = memmap2::MmapMut::map_anon((capacity + PAGE) * 4).ok()?;
        #[cfg(target_os = "linux")]
        // Where large pages are given on demand only: with small ones, address translation is half the cost of streaming
        // a key. A refusal is harmless.
        let _ = pages.advise(memmap2::Advice::HugePage);
        Some(Self::aligned(Memory::Pages(pages), capacity, PAGE))
    }

    /// Zeros on pages of their own, kept out of swap and of core dumps where the system lets it. None where there are no such pages.
    fn guarded(len: usize) -> Option<Self> {
        // Miri, which looks for undefined behaviour, has no pages to lock.
        if cfg!(miri) {
            return None;
        }
        let small = || {
            let pages = memmap2::MmapMut::map_anon(len.max(1).checked_mul(4)?).ok()?;
            Some(Self::aligned(Memory::Pages(pages), len, LINE))
        };
        let block = Self::pages(len).or_else(small)?;
        if let Memory::Pages(pages) = &block.memory {
            guard(pages);
        }
        Some(block)
    }
}

/// Asks the system to keep pages out of swap and of core dumps. It may refuse, since locked memory is limited for each user (`ulimit -l`):
/// the words are as good without. Unmapping takes both back.
fn guard(pages: &memmap2::MmapMut) {
    #[cfg(unix)]
    let _ = pages.lock();
    #[cfg(target_os = "linux")]
    let _ = pages.advise(memmap2::Advice::DontDump);
    #[cfg(windows)]
    // SAFETY: locks pages that are mapped, and stay so while `pages` is borrowed; no word is touched.
    let _ = unsafe { windows_sys::Win32::System::Memory::VirtualLock(pages.as_ptr().cast(), pages.len()) };
    #[cfg(not(any(unix, windows)))]
    let _ = pages;
}

impl AlignedWords {
    /// `len` zeros.
    pub fn zeroed(len: usize) -> Self {
        Self { block: Block::zeroed(len), len, pool: None, secret: false }
    }
    /// `len` zeros for a secret that lives long: on pages of their own, which the system is asked to keep out of swap and of core dumps,
    /// and wiped when dropped.
    pub fn secret(len: usize) -> Self {
        Self { block: Block::guarded(len).unwrap_or_else(|| Block::zeroed(len)), len, pool: None, secret: true }
    }
    /// Has them wiped when dropped.
    pub fn mark_secret(&mut self) {
        self.secret = true;
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
        &self.block.memory.words()[self.block.start..][..self.len]
    }
    /// The words, mutable.
    pub fn as_mut_slice(&mut self) -> &mut [u32] {
        &mut self.block.memory.words_mut()[self.block.start..][..self.len]
    }
}

impl Clone for AlignedWords {
    fn clone(&self) -> Self {
        let mut copy = if self.secret { Self::secret(self.len) } else { Self::zeroed(self.len) };
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        copy
    }
}

impl Drop for AlignedWords {
    fn drop(&mut self) {
        if self.secret {
            self.as_mut_slice().zeroize();
        }
        if let Some(pool) = self.pool.take() {
            pool.put(std::mem::replace(&mut self.block, Block::zeroed(0)));
        }
    }
}

/// Memory of dropped buffers, kept for the next ones. What is in use and what is kept never exceed what was once in use
/// by more than [`Pool::SLACK`], so the pool adds little to a process's peak.
#[derive(Debug, Default)]
pub(super) struct Pool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// For large buffers.
    pages: Pages,
    /// Kept blocks of other buffers, oldest first.
    free: Vec<Block>,
    /// Words of them.
    kept: usize,
    /// Words of blocks in use.
    used: usize,
    /// The most there ever were in use.
    peak: usize,
}

impl State {
    /// Gives the oldest memory back to the system until the bound holds, pages first; the caller drops blocks without the lock.
    fn trim(&mut self) -> Vec<Block> {
        self.peak = self.peak.max(self.used);
        let bound = self.peak + Pool::SLACK;
        if self.used + self.kept + self.pages.kept() > bound {
            self.pages.trim(bound.saturating_sub(self.used + self.kept));
        }
        let mut count = 0;
        while self.used + self.kept > bound && count < self.free.len() {
            self.kept -= self.free[count].capacity;
            count += 1;
        }
        self.free.drain(..count).collect()
    }

    /// Notes a block that is given out.
    fn give(&mut self, words: &AlignedWords) -> Vec<Block> {
        self.used += words.block.capacity;
        self.trim()
    }

    /// The tightest kept block that fits, unless it is more than twice as large.
    fn recycled(&mut self, len: usize) -> Option<Block> {
        let fits = |block: &Block| (len..=2 * len).contains(&block.capacity);
        let best = (0..self.free.len()).filter(|&i| fits(&self.free[i])).min_by_key(|&i| self.free[i].capacity)?;
        let block = self.free.remove(best);
        self.kept -= block.capacity;
        Some(block)
    }
}

impl Pool {
    /// Words kept beyond the peak of use.
    const SLACK: usize = (256 << 20) / 4;
    /// Smaller buffers are left to the allocator.
    const SMALLEST: usize = (16 << 10) / 4;
    /// Smaller buffers are blocks of their own, larger ones made of pages.
    const LARGE: usize = 2 * PAGE;

    /// `len` words of any content.
    pub(super) fn take(self: &Arc<Self>, len: usize) -> AlignedWords {
        self.taken(len).0
    }

    /// `len` zeros.
    pub(super) fn take_zeroed(self: &Arc<Self>, len: usize) -> AlignedWords {
        let (mut words, zeros) = self.taken(len);
        if !zeros {
            words.as_mut_slice().fill(0);
        }
        words
    }

    /// `len` words, and whether they are zeros.
    fn taken(self: &Arc<Self>, len: usize) -> (AlignedWords, bool) {
        if len < Self::SMALLEST {
            return (AlignedWords::zeroed(len), true);
        }
        let mut state = self.lock();
        let found = if len < Self::LARGE {
            state.recycled(len).map(|block| (block, false))
        } else {
            state.pages.take(len).map(|(span, zeros)| {
                let capacity = span.len();
                (Block { memory: Memory::Shared(span), start: 0, capacity }, zeros)
            })
        };
        let (block, zeros) = match found {
            Some(found) => found,
            None => {
                // The system takes its time to make one.
                drop(state);
                let block = Block::zeroed(len);
                state = self.lock();
                (block, true)
            }
        };
        let words = AlignedWords { block, len, pool: Some(self.clone()), secret: false };
        let dropped = state.give(&words);
        drop(state);
        drop(dropped);
        (words, zeros)
    }

    fn put(&self, block: Block) {
        let mut state = self.lock();
        state.used -= block.capacity;
        match block.memory {
            Memory::Shared(span) => state.pages.put(span),
            _ => {
                state.kept += block.capacity;
                state.free.push(block);
            }
        }
        let dropped = state.trim();
        drop(state);
        drop(dropped);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_words_are_wiped_before_the_pool_has_them() {
        let pool = Arc::new(Pool::default());
        for len in [Pool::SMALLEST + 3, Pool::LARGE + 3] {
            for (secret, kept) in [(true, 0), (false, 7)] {
                let mut words = pool.take(len);
                words.as_mut_slice().fill(7);
                if secret {
                    words.mark_secret();
                }
                let at = words.as_slice().as_ptr();
                drop(words);
                let again = pool.take(len);
                assert_eq!(again.as_slice().as_ptr(), at, "the same block");
                assert!(again.as_slice().iter().all(|&w| w == kept), "{len}, secret: {secret}");
                drop(again);
                assert!(pool.take_zeroed(len).as_slice().iter().all(|&w| w == 0));
            }
        }
    }

    #[test]
    fn secret_words_are_words_like_others() {
        for len in [0, 1, 5, 1024, 100_001] {
            let mut words = AlignedWords::secret(len);
            assert!(words.as_slice().iter().all(|&w| w == 0) && words.len() == len);
            assert_eq!(words.as_slice().as_ptr() as usize % 64, 0);
            words.as_mut_slice().fill(9);
            assert_eq!(words.clone().as_slice(), words.as_slice());
        }
    }

    /// The kernel's own account of a mapping: `lo` is locked, `dd` is left out of core dumps.
    #[test]
    #[cfg(target_os = "linux")]
    fn secret_pages_stay_out_of_core_dumps() {
        let words = AlignedWords::secret(1024);
        let at = words.as_slice().as_ptr() as u64;
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut inside = false;
        let flags = maps.lines().find_map(|line| {
            let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
            let ends = range.and_then(|(a, b)| Some((u64::from_str_radix(a, 16).ok()?, u64::from_str_radix(b, 16).ok()?)));
            if let Some((start, end)) = ends {
                inside = (start..end).contains(&at);
            }
            line.strip_prefix("VmFlags:").filter(|_| inside)
        });
        let flags = flags.unwrap();
        assert!(flags.split_whitespace().any(|f| f == "dd"), "{flags}");
    }
}
