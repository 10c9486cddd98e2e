//! A global allocator with settings of its own: every one of them differs from the default.

use std::collections::BTreeMap;
use stratalloc::{Config, HugePages, Purge, Stratalloc};

const CONFIG: Config = Config::new()
    .idle_bytes(1 << 20)
    .idle_share(16)
    .list_bytes(16 << 10)
    .huge_pages(HugePages::Above(8 << 20))
    .purge(Purge::AtFree);

#[global_allocator]
static A: Stratalloc = Stratalloc::with_config(CONFIG);

#[test]
fn a_program_runs_on_it() {
    assert!(Stratalloc::is_active());
    let mut map: BTreeMap<u64, String> = (0..100_000).map(|i| (i * 7919 % 100_003, format!("value {i}"))).collect();
    let buffer = vec![1u8; 32 << 20];
    assert_eq!(map.len(), 100_000);
    assert!(map.values().map(String::len).sum::<usize>() > 1_000_000);
    map.retain(|key, _| key % 10 == 0);
    drop(buffer);
    let stats = Stratalloc::stats();
    assert!(stats.retained <= (1 << 20).max(stats.allocated / 8), "{stats}");
    assert_eq!(map.range(5000..).next().map(|(key, _)| *key), Some(5000));
}
