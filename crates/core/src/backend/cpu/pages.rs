//! Large pages that are shared out and come back. A block that was freed is cut and joined with its neighbours, so that what one
//! layer of a network held serves the next one, whose buffers are of other sizes: clearing fresh pages was a tenth of a large network's
//! time while only blocks of about the same size were used again.

use memmap2::MmapMut;
use std::ops::Range;
use std::sync::Arc;

/// Words of a large page.
pub(super) const PAGE: usize = (2 << 20) / 4;
/// Pages of the smallest and of the largest region that is mapped for several blocks.
const REGION: Range<usize> = 128..512;

/// Pages beside each other in memory, in use by one block.
#[derive(Debug)]
pub(super) struct Span {
    region: Arc<Region>,
    pages: Range<usize>,
}

/// A mapping. Its pages are handed out by [`Pages`] alone, each to one span at a time.
#[derive(Debug)]
struct Region {
    map: MmapMut,
    /// Bytes before the first large page.
    start: usize,
}

impl Region {
    fn new(pages: usize) -> Option<Self> {
        let map = MmapMut::map_anon((pages + 1).checked_mul(4 * PAGE)?).ok()?;
        #[cfg(target_os = "linux")]
        // Where large pages are given on demand only: with small ones, address translation is half the cost of streaming
        // a key. A refusal is harmless.
        let _ = map.advise(memmap2::Advice::HugePage);
        let start = map.as_ptr().align_offset(4 * PAGE);
        Some(Self { map, start })
    }

    /// Gives the memory of pages that nobody uses back to the system, after which they are zeros; whether that can be done.
    fn discard(&self, pages: &Range<usize>) -> bool {
        #[cfg(target_os = "linux")]
        {
            let (from, size) = (self.start + 4 * PAGE * pages.start, 4 * PAGE * pages.len());
            // SAFETY: the pages belong to no span, so that nothing refers to their content.
            unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, from, size) }.is_ok()
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = pages;
            false
        }
    }
}

impl Span {
    /// Words in it.
    pub(super) fn len(&self) -> usize {
        PAGE * self.pages.len()
    }

    fn at(&self) -> *const u32 {
        // Whole pages from the first one on lie within the mapping.
        self.region.map.as_ptr().wrapping_add(self.region.start + 4 * PAGE * self.pages.start).cast()
    }

    pub(super) fn words(&self) -> &[u32] {
        // SAFETY: initialised words of the mapping, aligned to a page; none but this span has them, and the region lives as long.
        unsafe { std::slice::from_raw_parts(self.at(), self.len()) }
    }

    pub(super) fn words_mut(&mut self) -> &mut [u32] {
        // SAFETY: as in `words`; the mapping is writable, and this span is borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.at().cast_mut(), self.len()) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Used,
    /// Never touched, or given back to the system: zeros, which take no memory.
    Cold,
    /// Free with memory behind it, since the time noted.
    Warm(u64),
}

#[derive(Debug)]
struct Shared {
    region: Arc<Region>,
    pages: Vec<State>,
}

/// All pages of a pool.
#[derive(Debug, Default)]
pub(super) struct Pages {
    regions: Vec<Shared>,
    warm: usize,
    clock: u64,
}

impl Pages {
    /// Words of free pages with memory behind them.
    pub(super) fn kept(&self) -> usize {
        PAGE * self.warm
    }

    /// At least `len` words of any content, and whether they are zeros; none if the system has no such pages.
    pub(super) fn take(&mut self, len: usize) -> Option<(Span, bool)> {
        if cfg!(miri) {
            return None;
        }
        let count = len.div_ceil(PAGE);
        let (at, first) = match self.best(count) {
            Some(place) => place,
            None => (self.grow(count)?, 0),
        };
        let shared = &mut self.regions[at];
        let taken = &mut shared.pages[first..first + count];
        let cold = taken.iter().filter(|page| **page == State::Cold).count();
        taken.fill(State::Used);
        self.warm -= count - cold;
        Some((Span { region: shared.region.clone(), pages: first..first + count }, cold == count))
    }

    /// Where `count` free pages lie together: with as much memory behind them as can be had, then in the tightest gap, at its end.
    fn best(&self, count: usize) -> Option<(usize, usize)> {
        let mut best: Option<((usize, usize), (usize, usize))> = None;
        for (at, shared) in self.regions.iter().enumerate() {
            let mut first = 0;
            for gap in shared.pages.chunk_by(|a, b| (*a == State::Used) == (*b == State::Used)) {
                let from = first;
                first += gap.len();
                if gap[0] == State::Used || gap.len() < count {
                    continue;
                }
                let cold = |pages: &[State]| pages.iter().filter(|page| **page == State::Cold).count();
                for start in [0, gap.len() - count] {
                    let price = (cold(&gap[start..start + count]), gap.len() - count);
                    if best.is_none_or(|(least, _)| price < least) {
                        best = Some((price, (at, from + start)));
                    }
                }
            }
        }
        best.map(|(_, place)| place)
    }

    /// A new region with room for `count` pages.
    fn grow(&mut self, count: usize) -> Option<usize> {
        let all: usize = self.regions.iter().map(|shared| shared.pages.len()).sum();
        let wanted = count.max(all.clamp(REGION.start, REGION.end));
        let (region, pages) = Region::new(wanted).map(|r| (r, wanted)).or_else(|| Some((Region::new(count)?, count)))?;
        self.regions.push(Shared { region: Arc::new(region), pages: vec![State::Cold; pages] });
        Some(self.regions.len() - 1)
    }

    /// A span comes back.
    pub(super) fn put(&mut self, span: Span) {
        self.clock += 1;
        self.warm += span.pages.len();
        if let Some(shared) = self.regions.iter_mut().find(|shared| Arc::ptr_eq(&shared.region, &span.region)) {
            shared.pages[span.pages.clone()].fill(State::Warm(self.clock));
        }
    }

    /// Gives memory of free pages back to the system, those that were freed first before others, until no more than `words` are kept.
    pub(super) fn trim(&mut self, words: usize) {
        while self.kept() > words && self.give_back() {}
        // Whole regions without memory are forgotten.
        self.regions.retain(|shared| shared.pages.iter().any(|page| *page != State::Cold));
    }

    /// Whether there was something to give back.
    fn give_back(&mut self) -> bool {
        let since = |page: &State| match page {
            State::Warm(since) => Some(*since),
            _ => None,
        };
        let oldest = self.regions.iter().flat_map(|shared| &shared.pages).filter_map(since).min();
        for at in 0..self.regions.len() {
            let shared = &mut self.regions[at];
            let Some(first) = shared.pages.iter().position(|page| since(page) == oldest && oldest.is_some()) else { continue };
            let count = shared.pages[first..].iter().take_while(|page| since(page) == oldest).count();
            if shared.region.discard(&(first..first + count)) {
                shared.pages[first..first + count].fill(State::Cold);
                self.warm -= count;
                return true;
            }
        }
        // Where single pages cannot be given back, a region of which none is used can.
        let unused = self.regions.iter().position(|shared| !shared.pages.contains(&State::Used));
        if let Some(at) = unused {
            let shared = self.regions.swap_remove(at);
            self.warm -= shared.pages.iter().filter(|page| since(page).is_some()).count();
        }
        unused.is_some()
    }
}

#[cfg(test)]
#[cfg(not(miri))]
mod tests {
    use super::*;

    fn marked(mut span: Span, mark: u32) -> Span {
        span.words_mut().fill(mark);
        span
    }

    #[test]
    fn what_came_back_is_cut_and_joined() {
        let mut pages = Pages::default();
        let [a, b, c] = [3, 2, 4].map(|n| {
            let (span, zeros) = pages.take(n * PAGE - 5).unwrap();
            assert!(zeros && span.words().iter().all(|w| *w == 0));
            assert_eq!(span.words().as_ptr() as usize % (4 * PAGE), 0, "on a large page");
            span
        });
        let at = a.words().as_ptr();
        let (a, b, c) = (marked(a, 1), marked(b, 2), marked(c, 3));
        pages.put(a);
        pages.put(b);
        assert_eq!(pages.kept(), 5 * PAGE);
        // Five pages are where three and two were.
        let (joined, zeros) = pages.take(5 * PAGE).unwrap();
        assert!(!zeros && joined.words().as_ptr() == at && pages.kept() == 0);
        assert!(c.words().iter().all(|w| *w == 3), "others are left alone");
        pages.put(joined);
        // One is cut off, and the rest is still there.
        let (one, _) = pages.take(PAGE).unwrap();
        assert_eq!((one.len(), pages.kept()), (PAGE, 4 * PAGE));
    }

    #[test]
    fn memory_is_given_back_oldest_first() {
        let mut pages = Pages::default();
        let [a, b, c] = [2, 2, 2].map(|n| pages.take(n * PAGE).unwrap().0);
        let (first, c) = (a.words().as_ptr(), marked(c, 3));
        pages.put(marked(a, 1));
        pages.put(marked(b, 2));
        pages.trim(2 * PAGE);
        if cfg!(target_os = "linux") {
            assert_eq!(pages.kept(), 2 * PAGE);
            let (warm, zeros) = pages.take(2 * PAGE).unwrap();
            assert!(!zeros && warm.words().iter().all(|w| *w == 2), "what was freed last is kept");
            let (cold, zeros) = pages.take(2 * PAGE).unwrap();
            assert!(zeros && cold.words().iter().all(|w| *w == 0));
            assert_eq!(cold.words().as_ptr(), first);
            pages.put(warm);
            pages.put(cold);
        }
        assert!(c.words().iter().all(|w| *w == 3));
        pages.put(c);
        pages.trim(0);
        assert_eq!((pages.kept(), pages.regions.len()), (0, 0), "nothing is left");
    }

    /// Random sizes and lifetimes: no two spans share a page, and what is free is counted right.
    #[test]
    fn no_page_has_two_owners() {
        let mut state = 7u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % below
        };
        let mut pages = Pages::default();
        let mut held: Vec<(u32, Span)> = Vec::new();
        for mark in 1..400 {
            if held.len() > 12 || (random(3) == 0 && !held.is_empty()) {
                let (mark, span) = held.swap_remove(random(held.len()));
                assert!(span.words().iter().step_by(PAGE / 2).all(|w| *w == mark));
                pages.put(span);
            }
            let (mut span, zeros) = pages.take((1 + random(40)) * PAGE).unwrap();
            assert!(!zeros || span.words().iter().step_by(PAGE / 2).all(|w| *w == 0));
            span.words_mut().iter_mut().step_by(PAGE / 2).for_each(|w| *w = mark);
            held.push((mark, span));
            if random(5) == 0 {
                pages.trim(random(30) * PAGE);
            }
            let warm = |s: &Shared| s.pages.iter().filter(|p| matches!(p, State::Warm(_))).count();
            assert_eq!(pages.warm, pages.regions.iter().map(warm).sum::<usize>());
            let used = |s: &Shared| s.pages.iter().filter(|p| **p == State::Used).count();
            assert_eq!(held.iter().map(|(_, s)| s.pages.len()).sum::<usize>(), pages.regions.iter().map(used).sum::<usize>());
        }
        assert!(held.iter().all(|(mark, span)| span.words().iter().step_by(PAGE / 2).all(|w| w == mark)));
    }
}
