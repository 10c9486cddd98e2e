//! The workloads by name, and what they share.
//!
//! A workload has two parts: it is prepared (its input is generated), then run once, and only the latter is timed.
//! Its result is the same under every allocator and in every run: input comes from a fixed seed, hashes have no random
//! keys, and no address goes into a checksum.

mod aligned;
mod ast;
mod block;
mod churn;
mod csv_table;
mod fragmentation;
mod json;
mod larson;
mod map_churn;
mod medium_vecs;
mod oscillate;
mod pipe;
mod random;
mod rayon_sort;
mod regexes;
mod runs;
mod sql;
mod syn_files;
mod thread_storm;
mod tokio_tasks;
mod vec_growth;
mod zeroed;

/// What a workload did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Operations, for throughput.
    pub ops: u64,
    /// A number that is the same under every allocator.
    pub checksum: u64,
    /// Why the work could not be done, in one word.
    pub failed: Option<&'static str>,
}

impl Outcome {
    fn of(ops: u64, checksum: u64) -> Self {
        Self { ops, checksum, failed: None }
    }
}

/// A prepared workload: called once, and dropped, with its input, when the clock has stopped.
pub type Work = Box<dyn FnMut() -> Outcome>;

/// One row of the tables.
#[derive(Clone, Copy)]
pub struct Workload {
    /// The row's name.
    pub name: &'static str,
    /// What it does, in one line.
    pub about: &'static str,
    /// Generates its input for so much work: 1.0 is about one second of CPU time.
    pub prepare: fn(f64) -> Work,
}

macro_rules! workloads {
    ($($name:literal $prepare:expr, $about:literal;)*) => {
        /// All workloads, in the order of the tables.
        pub const ALL: &[Workload] = &[$(Workload { name: $name, about: $about, prepare: $prepare },)*];
    };
}

workloads! {
    "json" json::prepare, "serde_json: 10 MB parsed into a tree of values and dropped, one tree at a time";
    "syn" syn_files::prepare, "syn: Rust source parsed into syntax trees, the latest hundred held";
    "regex" regexes::prepare, "regex: 200 patterns compiled, matched a few times and dropped";
    "map-churn" map_churn::prepare, "hash maps of byte vectors and strings: skewed replacing beside a long-lived set";
    "tokio" tokio_tasks::prepare, "tokio, two workers: boxed messages through channels, short tasks spawned";
    "pipe" pipe::prepare, "two threads: one only allocates, the other only frees";
    "rayon-sort" rayon_sort::prepare, "rayon, two threads: a million strings built, sorted, mapped, dropped";
    "larson-2" |scale| larson::prepare(scale, 2), "two threads replace blocks at random, die, and bequeath them";
    "larson-8" |scale| larson::prepare(scale, 8), "eight threads replace blocks at random, die, and bequeath them";
    "vec-growth" vec_growth::prepare, "vectors that grow to 400 MB: one, two interleaved, many in turn";
    "medium-vecs" medium_vecs::prepare, "a thousand vectors of 4 to 256 KiB with random lifetimes, wholly written";
    "zeroed-small" zeroed::prepare_small, "zeroed vectors and boxes of 16 B to 1 KiB";
    "zeroed-large" zeroed::prepare_large, "zeroed vectors of 256 KiB to 64 MiB, few bytes touched";
    "aligned" aligned::prepare, "blocks of 16 B to 8 KiB aligned to 32 B to 4 KiB, with random lifetimes";
    "ast" ast::prepare, "an expression tree of boxed nodes: built, evaluated, rewritten, dropped";
    "sql" sql::prepare, "sqlparser: statements parsed, the latest two thousand held";
    "csv" csv_table::prepare, "csv: records read into vectors of strings, grouped, dropped";
    "fragmentation" fragmentation::prepare, "200 MB of blocks, 90 % freed at random, refilled otherwise, all freed";
    "thread-storm" thread_storm::prepare, "thousands of short threads, sixteen at a time, that hand some blocks on";
    "oscillate" oscillate::prepare, "a working set that swings between 10 and 150 MB";
    "churn-1" |scale| churn::prepare(scale, 1), "one thread replaces blocks of 16 to 512 B at random";
    "churn-2" |scale| churn::prepare(scale, 2), "two threads, each with as much work as churn-1's";
    "churn-8" |scale| churn::prepare(scale, 8), "eight threads with as much work and as many blocks together as churn-2's";
    "churn-64" |scale| churn::prepare(scale, 64), "64 threads with as much work and as many blocks together as churn-2's";
    "runs-2" |scale| runs::prepare(scale, 2), "runs of 17 to 40 pages allocated and freed beside 100 free ones";
    "runs-3" |scale| runs::prepare(scale, 3), "runs of 17 to 40 pages allocated and freed beside 1,000 free ones";
    "runs-4" |scale| runs::prepare(scale, 4), "runs of 17 to 40 pages allocated and freed beside 10,000 free ones";
    "runs-5" |scale| runs::prepare(scale, 5), "runs of 17 to 40 pages allocated and freed beside 100,000 free ones";
    "runs-6" |scale| runs::prepare(scale, 6), "runs of 17 to 40 pages allocated and freed beside 1,000,000 free ones";
}

/// So many at a scale of 1, and at least one.
fn scaled(count: usize, scale: f64) -> usize {
    ((count as f64 * scale) as usize).max(1)
}

/// For a workload whose size makes its peak: above 1 the scale is rounds, below it is a share of the size.
fn rounds_of(size: usize, scale: f64) -> (usize, usize) {
    (scaled(1, scale.round()), scaled(size, scale.min(1.0)))
}
