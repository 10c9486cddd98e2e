//! The whole heap against the shadow oracle: random operations on a caller's buffer, on the process's own memory, and by
//! several threads at once.

#[path = "oracle/mod.rs"]
mod oracle;

use oracle::{
    ALIGN_LOGS, Burst, Op, Player, Pool, SIZE_LOGS, assert_empty, layout_of_code, open, size_of_code, with_player,
};
use proptest::prelude::*;
use proptest::test_runner::Config as Cases;
use std::alloc::Layout;
use std::ptr::NonNull;
use stratalloc::Config;
use stratalloc::heap::Engine;
use stratalloc::lock::{RawLock, Spin};
use stratalloc::os::{Fixed, Mmap, Source};

/// Zeroed memory that lives as long as this value.
struct Buffer {
    at: NonNull<u8>,
    layout: Layout,
}

impl Buffer {
    fn new(bytes: usize) -> Self {
        let layout = Layout::from_size_align(bytes, 8).unwrap();
        // SAFETY: the size is not 0.
        let at = unsafe { std::alloc::alloc_zeroed(layout) };
        Self { at: NonNull::new(at).unwrap(), layout }
    }

    /// An engine over the buffer, which outlives it and has no other user; `None` if it is too small.
    fn engine(&self, page: usize, config: &Config) -> Option<Engine<Fixed, Spin>> {
        // SAFETY: zeroed by `new`; the callers make one engine of a buffer, and drop it first.
        open(unsafe { Fixed::new(self.at, self.layout.size(), page) }, config)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated by `new` for the layout.
        unsafe { std::alloc::dealloc(self.at.as_ptr(), self.layout) }
    }
}

/// Runs `play` with a player on a fresh engine over `bytes` bytes, and asserts that nothing is left behind.
fn on_buffer<R>(bytes: usize, page: usize, play: impl FnOnce(&mut Player<'_, Fixed, Spin>) -> R) -> R {
    let buffer = Buffer::new(bytes);
    let engine = buffer.engine(page, &Config::new()).expect("large enough for the page map");
    let result = with_player(&engine, &Pool::default(), 1, play);
    assert_empty(&engine);
    result
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

/// Sizes of all layers, small ones more often.
fn size() -> impl Strategy<Value = usize> {
    let log = prop_oneof![8 => 0..12u8, 3 => 12..17u8, 1 => 17..SIZE_LOGS];
    let part = prop_oneof![0..1u8, Just(64), Just(128), Just(192), any::<u8>()];
    (log, part, 0..3u8).prop_map(|(log, part, nudge)| size_of_code(log, part, nudge))
}

fn any_layout() -> impl Strategy<Value = Layout> {
    let align = prop_oneof![12 => 0..5u8, 1 => 5..ALIGN_LOGS];
    (size(), align).prop_map(|(size, align)| layout_of_code(size, align))
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        40 => any_layout().prop_map(Op::Alloc),
        10 => any_layout().prop_map(Op::AllocZeroed),
        35 => any::<usize>().prop_map(Op::Free),
        15 => (any::<usize>(), size()).prop_map(|(index, size)| Op::Realloc(index, size)),
        2 => any::<usize>().prop_map(Op::Hand),
        2 => Just(Op::Take),
        1 => Just(Op::Park),
        1 => Just(Op::Collect),
    ]
}

/// A stretch of the same operation: stretches reach the depot and the slabs, which single steps seldom do.
fn burst() -> impl Strategy<Value = Burst> {
    (prop_oneof![4 => Just(1), 1 => 2..200usize], op()).prop_map(|(times, op)| Burst::new(times, op))
}

fn script() -> impl Strategy<Value = Vec<Burst>> {
    prop::collection::vec(burst(), 1..400)
}

/// Settings that make the heap purge always, often or seldom, and its lists short or long.
fn config() -> impl Strategy<Value = Config> {
    let list = prop_oneof![Just(64), Just(8 << 10)];
    (idle(), list).prop_map(|(idle, list)| bounded(idle).list_bytes(list))
}

fn idle() -> impl Strategy<Value = usize> {
    prop_oneof![Just(0), Just(64 << 10), Just(8 << 20)]
}

/// Settings with an idle bound of `idle` bytes, whatever is live.
fn bounded(idle: usize) -> Config {
    Config::new().idle_bytes(idle).idle_share(usize::MAX)
}

fn cases(cases: u32) -> Cases {
    Cases { cases, failure_persistence: None, max_shrink_time: 20_000, ..Cases::default() }
}

/// Plays `script`, audits the books now and then, and asserts that the heap is empty at the end; how often it refused.
fn play_alone<S: Source, L: RawLock>(engine: &Engine<S, L>, script: &[Burst]) -> usize {
    let pool = Pool::default();
    let refused = with_player(engine, &pool, 1, |player| {
        for part in script.chunks(16) {
            part.iter().for_each(|burst| player.play_burst(*burst));
            player.audit();
        }
        player.finish();
        player.oracle.refused
    });
    assert_empty(engine);
    refused
}

/// Plays each of `scripts` in a thread of its own; the blocks in the pool at the end are freed by this thread.
fn play_together<S, L>(engine: &Engine<S, L>, scripts: &[Vec<Burst>])
where
    S: Source + Sync,
    L: RawLock + Sync,
{
    let pool = Pool::default();
    std::thread::scope(|scope| {
        for (script, seed) in scripts.iter().zip(1..) {
            let pool = &pool;
            let play = move |player: &mut Player<'_, S, L>| script.iter().for_each(|burst| player.play_burst(*burst));
            scope.spawn(move || with_player(engine, pool, seed, play));
        }
    });
    with_player(engine, &pool, 0, |player| player.finish());
    assert_empty(engine);
}

proptest! {
    #![proptest_config(cases(64))]

    #[test]
    fn random_operations_on_a_buffer(
        script in script(),
        config in config(),
        page in prop_oneof![Just(4096), Just(16384), Just(65536)],
        pages in 40..800usize,
    ) {
        let buffer = Buffer::new(page * pages);
        if let Some(engine) = buffer.engine(page, &config) {
            play_alone(&engine, &script);
        }
    }

    #[test]
    fn random_operations_on_mapped_memory(script in script(), config in config()) {
        let engine = open::<_, Spin>(Mmap::new(), &config).unwrap();
        prop_assert_eq!(play_alone(&engine, &script), 0, "mapped memory does not run out");
    }
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn g14_the_idle_bound_holds_after_every_burst(script in script(), idle in idle()) {
        let engine = open::<_, Spin>(Mmap::new(), &bounded(idle)).unwrap();
        with_player(&engine, &Pool::default(), 1, |player| {
            for burst in &script {
                player.play_burst(*burst);
                assert!(player.stats().retained <= idle, "{burst:?} leaves\n{}", player.stats());
            }
            player.finish();
        });
    }

    #[test]
    fn g6_random_operations_of_several_threads(scripts in prop::collection::vec(script(), 2..5), config in config()) {
        let engine = open::<_, Spin>(Mmap::new(), &config).unwrap();
        play_together(&engine, &scripts);
    }

    #[test]
    fn g13_several_threads_exhaust_a_buffer(
        scripts in prop::collection::vec(script(), 2..5),
        config in config(),
        pages in 40..800usize,
    ) {
        let buffer = Buffer::new(4096 * pages);
        if let Some(engine) = buffer.engine(4096, &config) {
            play_together(&engine, &scripts);
        }
    }
}

/// Blocks of `size` bytes until the heap refuses; how many there are.
fn fill_up<S: Source, L: RawLock>(player: &mut Player<'_, S, L>, size: usize) -> usize {
    while player.oracle.alloc(layout(size, 1)) {}
    player.oracle.len()
}

#[test]
fn g13_exhaustion_is_null_and_frees_make_room_again() {
    for size in [8, 100, 2048, 2049, 4096, 70_000, 1 << 20] {
        on_buffer(4 << 20, 4096, |player| {
            let held = fill_up(player, size);
            assert!(held * size > 1 << 20, "{held} blocks of {size} bytes in 4 MiB");
            player.oracle.free(held / 2);
            assert!(player.oracle.alloc(layout(size, 1)), "one was freed, so one can be had");
            player.oracle.free_all();
            assert!(fill_up(player, size) >= held);
        });
    }
}

#[test]
fn g13_exhaustion_by_one_class_leaves_room_for_another_after_its_frees() {
    on_buffer(2 << 20, 4096, |player| {
        for size in [16, 2048, 64, 512, 8, 1024].repeat(3) {
            assert!(fill_up(player, size) * size > 1 << 19);
            player.oracle.free_all();
        }
    });
}

#[test]
fn g7_sizes_near_the_maximum_are_null() {
    const MAX: usize = isize::MAX as usize;
    on_buffer(1 << 20, 4096, |player| {
        player.oracle.alloc(layout(100, 1));
        for size in [MAX, MAX - 1, MAX / 2 + 1, 1 << 62, (1 << 44) + 16, (4 << 30) + 16, (16 << 40) + 16] {
            assert!(!player.oracle.alloc(layout(size, 1)));
            assert!(!player.oracle.alloc_zeroed(layout(size, 1)));
            player.oracle.realloc(0, size);
        }
        assert_eq!((player.oracle.refused, player.oracle.len()), (3 * 7, 1));
        player.audit();
    });
}

#[test]
fn g7_alignments_near_the_maximum_are_null() {
    on_buffer(1 << 20, 4096, |player| {
        for log in 21..63 {
            assert!(!player.oracle.alloc(layout(1, 1 << log)));
            assert!(!player.oracle.alloc(layout(0, 1 << log)));
        }
    });
}

#[test]
fn g7_mapped_memory_beyond_every_window_is_null() {
    let engine = open::<_, Spin>(Mmap::new(), &Config::new()).unwrap();
    with_player(&engine, &Pool::default(), 1, |player| {
        for size in [isize::MAX as usize, 1 << 62, 1 << 50, 1 << 46] {
            assert!(!player.oracle.alloc(layout(size, 1)));
        }
        assert!(!player.oracle.alloc(layout(1, 1 << 62)));
        assert!(player.oracle.alloc(layout(1, 1)));
    });
    assert_empty(&engine);
}

#[test]
fn size_zero_is_served_like_size_one() {
    on_buffer(4 << 20, 4096, |player| {
        for log in 0..16 {
            assert!(player.oracle.alloc(layout(0, 1 << log)));
            assert!(player.oracle.alloc_zeroed(layout(0, 1 << log)));
            player.oracle.realloc(log, 100);
        }
    });
}

#[test]
fn g10_every_alignment() {
    on_buffer(32 << 20, 4096, |player| {
        for log in 0..ALIGN_LOGS {
            for size in [1, 8, 9, 100, 2047, 2048, 2049, 4096, 4097, 65_537, 300_000] {
                assert!(player.oracle.alloc(layout(size, 1 << log)), "{size} bytes at 2^{log}");
            }
            player.oracle.free_all();
        }
    });
}

#[test]
fn g10_alignment_wastes_nothing_that_stays() {
    on_buffer(32 << 20, 4096, |player| {
        let active = |player: &Player<'_, Fixed, Spin>| player.stats().active;
        for log in 13..ALIGN_LOGS {
            let before = active(player);
            assert!(player.oracle.alloc(layout(8192, 1 << log)));
            assert_eq!(active(player), before + 8192);
        }
    });
}

#[test]
fn g8_realloc_keeps_contents() {
    let engine = open::<_, Spin>(Mmap::new(), &Config::new()).unwrap();
    let sizes = [1, 8, 9, 100, 2048, 2049, 4096, 4097, 20_000, 65_536, 300_000, 1 << 20, 5 << 20, 17 << 20];
    with_player(&engine, &Pool::default(), 1, |player| {
        for old in sizes {
            for new in sizes {
                player.oracle.alloc(layout(old, 16));
                player.oracle.realloc(player.oracle.len() - 1, new);
                player.oracle.alloc(layout(new, 16));
                player.oracle.realloc(0, old);
            }
            player.oracle.free_all();
        }
        assert_eq!(player.oracle.refused, 0);
    });
    assert_empty(&engine);
}

#[test]
fn g8_a_large_block_grows_into_the_free_run_behind_it_or_moves_by_its_page_tables() {
    let engine = open::<_, Spin>(Mmap::new(), &Config::new()).unwrap();
    with_player(&engine, &Pool::default(), 1, |player| {
        player.oracle.alloc(layout(1 << 20, 1));
        for mib in 2..64 {
            player.oracle.realloc(0, mib << 20);
        }
        let runs = player.stats().runs;
        assert!(runs.grown_in_place > 0 && runs.grown_in_place + runs.relocations >= 55, "{runs}");
    });
    assert_empty(&engine);
}

#[test]
fn g8_a_refused_realloc_leaves_the_block_as_it_was() {
    on_buffer(4 << 20, 4096, |player| {
        let sizes = [8, 2048, 5000, 300_000];
        sizes.iter().for_each(|size| assert!(player.oracle.alloc(layout(*size, 1))));
        (0..4).for_each(|index| player.oracle.realloc(index, 8 << 20));
        assert_eq!(player.oracle.refused, 4);
        player.audit();
    });
}

#[test]
fn g9_zeroed_memory_is_zero_after_every_kind_of_use() {
    for bytes in [8, 2048, 4096, 20_000, 65_536, 65_537, 1 << 20] {
        on_buffer(8 << 20, 4096, |player| {
            for round in 0..50 {
                assert!(player.oracle.alloc(layout(bytes, 1)));
                player.oracle.free(0);
                assert!(player.oracle.alloc_zeroed(layout(bytes, 1 << (round % 14))));
                player.oracle.realloc(0, bytes / 2 + 1);
                player.oracle.free_all();
            }
        });
    }
}

#[test]
fn g6_freed_by_another_thread() {
    let engine = open::<_, Spin>(Mmap::new(), &Config::new()).unwrap();
    let once = |op| Burst::new(1, op);
    let sizes = [8, 100, 2048, 5000, 70_000];
    let maker = sizes.map(|size| [once(Op::Alloc(layout(size, 1))), once(Op::Hand(0))]).concat();
    let taker = [once(Op::Take), once(Op::Free(0))];
    play_together(&engine, &[maker.repeat(4000), taker.repeat(10_000), taker.repeat(10_000)]);
}
