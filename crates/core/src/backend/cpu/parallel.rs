//! Parallel loops over disjoint pieces of buffers.

use rayon::prelude::*;
use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::Range;

/// Words of work below which a loop is not worth sharing out (a hand-over costs some microseconds).
const SMALLEST: usize = 1 << 15;
/// Bytes of last-level cache that threads with items of their own may take together.
const CACHE: usize = 24 << 20;

thread_local! {
    /// How many threads work on items of their own, this one among them; 1 if a loop may be shared out.
    static CROWD: Cell<usize> = const { Cell::new(1) };
}

/// Sets [`CROWD`] on this thread, and sets it back when dropped: a task that panics, and is caught, must not leave its thread alone
/// for good.
struct Crowd {
    before: usize,
}

impl Crowd {
    fn of(threads: usize) -> Self {
        Self { before: CROWD.replace(threads) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        CROWD.set(self.before);
    }
}

/// The threads that a loop can be shared out to.
pub(super) fn threads() -> usize {
    if crowd() > 1 { 1 } else { rayon::current_num_threads() }
}

/// How many work like this one, each with its share of the last-level cache.
pub(super) fn crowd() -> usize {
    CROWD.get()
}

/// Runs `f(0..count)`, in parallel if all of it is worth `work` word operations or more than a hand-over.
pub(super) fn each(count: usize, work: usize, f: impl Fn(usize) + Sync) {
    if count < 2 || work < SMALLEST || threads() == 1 {
        (0..count).for_each(f);
    } else {
        // Any piece worth a hand-over can be taken by an idle thread.
        let piece = (SMALLEST.saturating_mul(count) / work).max(1);
        (0..count).into_par_iter().with_max_len(piece).for_each(&f);
    }
}

/// Runs `f` over all of `0..count`, range by range. Where every thread can have an item (of `bytes` in cache) to itself, it
/// does all steps of that item alone, without waiting for others between them; the rest is shared out step by step.
pub(super) fn items(count: usize, bytes: usize, work: usize, f: impl Fn(Range<usize>) + Sync) {
    let threads = threads();
    let alone = threads > 1 && work >= SMALLEST && bytes.saturating_mul(threads) <= CACHE;
    let whole = if alone { count / threads * threads } else { 0 };
    if whole > 0 {
        (0..whole).into_par_iter().with_max_len(1).for_each(|i| {
            let _crowd = Crowd::of(threads);
            f(i..i + 1);
        });
    }
    if whole < count {
        f(whole..count);
    }
}

/// Runs a routine of several parallel loops, handing it over to the pool once.
pub(super) fn region<T: Send>(work: usize, f: impl FnOnce() -> T + Send) -> T {
    if work < SMALLEST || threads() == 1 || rayon::current_thread_index().is_some() { f() } else { rayon::scope(|_| f()) }
}

/// Copies a piece of a buffer, of any size.
pub(super) fn copy(to: &mut [u32], from: &[u32]) {
    const PIECE: usize = 1 << 16;
    assert_eq!(to.len(), from.len(), "equal lengths");
    let shared = Shared::new(to);
    each(from.len().div_ceil(PIECE), from.len(), |i| {
        let piece = &from[i * PIECE..from.len().min((i + 1) * PIECE)];
        // SAFETY: a piece of this task's own, checked to be there; the source is another slice.
        unsafe { std::ptr::copy_nonoverlapping(piece.as_ptr(), shared.piece(i * PIECE, piece.len()), piece.len()) };
    });
}

/// A buffer whose pieces tasks write, each its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shared<'a> {
    at: *mut u32,
    len: usize,
    /// The buffer is borrowed for as long.
    buffer: PhantomData<&'a mut [u32]>,
}

// SAFETY: only a pointer; every dereference is an `unsafe` of the kernel that makes it, on its own piece.
unsafe impl Send for Shared<'_> {}
// SAFETY: as above.
unsafe impl Sync for Shared<'_> {}

impl<'a> Shared<'a> {
    /// All of a buffer, which is not used otherwise while tasks run.
    pub(super) fn new(words: &'a mut [u32]) -> Self {
        Self { at: words.as_mut_ptr(), len: words.len(), buffer: PhantomData }
    }
    /// The words from `at`, of which `len` must be there.
    #[inline(always)]
    pub(super) fn piece(self, at: usize, len: usize) -> *mut u32 {
        assert!(at <= self.len && len <= self.len - at, "a piece within the buffer");
        // SAFETY: just checked.
        unsafe { self.at.add(at) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    #[test]
    fn a_panic_leaves_no_thread_alone() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        let stopped = catch_unwind(AssertUnwindSafe(|| {
            pool.install(|| items(2, 1, SMALLEST, |_| std::panic::resume_unwind(Box::new("stop"))));
        }));
        assert!(stopped.is_err());
        assert_eq!(pool.broadcast(|_| crowd()), [1, 1]);
        // While items run, each has its thread to itself.
        pool.install(|| items(2, 1, SMALLEST, |_| assert_eq!((crowd(), threads()), (2, 1))));
    }
}
