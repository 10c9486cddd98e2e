//! What the allocator does with the process's addresses and the kernel's mappings, which others need too.

#![allow(clippy::disallowed_macros, clippy::disallowed_methods, reason = "a test maps memory and says what it skips")]

#[path = "common/own_process.rs"]
mod own_process;
#[path = "common/skipped.rs"]
mod skipped;

use own_process::in_own_process;
use skipped::skipped;
use stratalloc::Stratalloc;

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

/// The kernel's mappings of this process.
fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").expect("the kernel says what is mapped").lines().count()
}

/// A number below `end`, from a sequence that is the same in every run.
fn below(state: &mut u64, end: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 11) as usize % end
}

#[test]
fn g8_growing_blocks_leave_few_mappings() {
    in_own_process(|| {
        let (mut state, before) = (7, mappings());
        let mut held: Vec<Vec<u64>> = (0..100).map(|_| Vec::new()).collect();
        for turn in 0..3000u64 {
            let (pick, more) = (below(&mut state, 100), 1 + below(&mut state, 1 << 20));
            let (first, last) = (held[pick].first().copied(), held[pick].last().copied());
            held[pick].reserve_exact(more);
            assert_eq!((held[pick].first().copied(), held[pick].last().copied()), (first, last), "turn {turn}");
            // SAFETY: only the first and the last are read, above.
            unsafe { set_last(&mut held[pick], turn) };
            if turn % 5 == 0 || held[pick].len() > 2 << 20 {
                held[below(&mut state, 100)] = Vec::new();
            }
        }
        let stats = Stratalloc::stats();
        assert!(stats.runs.relocations > 50, "{}", stats.runs);
        // A piece of a mapping is never smaller than 2 MiB but at the ends of what the system gave.
        let allowed = before + 2 * (stats.mapped >> 21) + 2 * stats.runs.spans as usize + 16;
        assert!(mappings() <= allowed, "{} mappings, {allowed} allowed", mappings());
    })
    .well();
}

/// Makes `numbers` as long as its capacity and writes the last one, touching nothing else.
///
/// # Safety
/// - The caller reads only the first number and the last.
unsafe fn set_last(numbers: &mut Vec<u64>, value: u64) {
    let len = numbers.capacity();
    // SAFETY: inside the capacity.
    unsafe { numbers.as_mut_ptr().wrapping_add(len - 1).write(value) };
    if numbers.is_empty() {
        numbers.push(value);
    }
    // SAFETY: the numbers between are not read, as the caller states.
    unsafe { numbers.set_len(len) };
}

#[test]
fn g13_there_is_room_beside_a_large_reservation() {
    in_own_process(|| {
        drop(vec![1u8; 100]);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping touches nothing that exists.
        let far = unsafe { libc::mmap(std::ptr::null_mut(), 10 << 40, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(far, libc::MAP_FAILED, "there are addresses for 10 TiB");
        let held: Vec<Vec<u8>> = (0..20).map(|turn| vec![turn; 8 << 20]).collect();
        assert!(held.iter().zip(0..).all(|(bytes, turn)| bytes.iter().all(|byte| *byte == turn)));
    })
    .well();
}

#[test]
fn g13_more_than_the_machine_could_have_is_an_error() {
    let mode = std::fs::read_to_string("/proc/sys/vm/overcommit_memory").expect("the kernel says how it counts");
    if mode.trim() == "1" {
        skipped("this system grants whatever is asked for (vm.overcommit_memory = 1)");
        return;
    }
    for bytes in [1 << 42, 1 << 44, 1 << 46] {
        assert!(Vec::<u8>::new().try_reserve_exact(bytes).is_err(), "{bytes} bytes were promised");
    }
    assert_eq!(vec![7u8; 1 << 20].len(), 1 << 20);
}

/// Kilobytes of addresses that the process has.
fn addresses_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("the kernel says how much is mapped");
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("a line with the figure");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

/// A block of `bytes` bytes, filled with `mark`, or none.
fn block(bytes: usize, mark: u8) -> Option<Vec<u8>> {
    let mut block = Vec::new();
    block.try_reserve_exact(bytes).ok()?;
    block.resize(bytes, mark);
    Some(block)
}

/// Blocks of `bytes` bytes until there is no more memory, 256 MiB at the most.
fn blocks_until_null(bytes: usize) -> Vec<Vec<u8>> {
    let mut held = Vec::with_capacity(1 << 20);
    let most = ((256 << 20) / bytes).min(held.capacity());
    held.extend((0..most).map_while(|turn| block(bytes, turn as u8)));
    held
}

fn all_intact(held: &[Vec<u8>]) -> bool {
    held.iter().zip(0..).all(|(bytes, turn)| bytes.iter().all(|byte| *byte == turn as u8))
}

#[test]
fn g13_a_low_limit_of_addresses_is_null_and_serves_again() {
    in_own_process(|| {
        drop(block(100, 1));
        let bytes = ((addresses_kib() << 10) + (192 << 20)) as libc::rlim_t;
        let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
        // SAFETY: the value is valid.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
        for size in [200, 3000, 50_000, 1 << 20, 9 << 20, 200] {
            let held = blocks_until_null(size);
            let sum = held.len() * size;
            assert!(sum > 64 << 20 && sum < 224 << 20, "{} blocks of {size} bytes", held.len());
            assert!(all_intact(&held));
        }
    })
    .well();
}

#[test]
fn g13_no_mapping_is_left_to_be_had() {
    in_own_process(|| {
        let warm: Vec<_> = (0..40).map(|turn| block(3 << 20, turn).expect("memory")).collect();
        // Every second page of a mapping has another protection, so that each is a mapping of its own.
        const PAGES: usize = 70_000;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping touches nothing that exists.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), PAGES << 12, libc::PROT_NONE, flags, -1, 0) };
        assert_ne!(at, libc::MAP_FAILED);
        let split = (0..PAGES).step_by(2).take_while(|page| {
            // SAFETY: the page is ours and nobody uses it.
            unsafe { libc::mprotect(at.wrapping_byte_add(page << 12), 4096, libc::PROT_READ) == 0 }
        });
        let (split, limit) = (split.count(), mappings());
        assert!(split < PAGES / 2, "the kernel has no limit of mappings: {limit}");
        // What is mapped serves; what would need a mapping more is null or done another way, and nothing breaks.
        drop(warm);
        for size in [100, 3000, 70_000, 5 << 20, 40 << 20] {
            let mut held = blocks_until_null(size);
            held.truncate(1000);
            let mut grown: Vec<_> = held.drain(..held.len() / 2).collect();
            for bytes in &mut grown {
                let (mark, more) = (bytes[0], bytes.len());
                if bytes.try_reserve_exact(more).is_ok() {
                    bytes.resize(2 * more, mark);
                }
                assert!(bytes.iter().all(|byte| *byte == mark));
            }
        }
        Stratalloc::collect();
        // SAFETY: mapped above, and nobody uses it.
        assert_eq!(unsafe { libc::munmap(at, PAGES << 12) }, 0);
        assert!(mappings() < limit / 2);
        assert!(block(64 << 20, 7).is_some_and(|bytes| bytes.iter().all(|byte| *byte == 7)));
    })
    .well();
}
