//! The allocator of this build: one feature, one `#[global_allocator]`, and its name.

macro_rules! allocator {
    ($($feature:literal: $type:ty = $value:expr;)*) => {
        $(
            #[cfg(feature = $feature)]
            #[global_allocator]
            static ALLOCATOR: $type = $value;
        )*
        /// The name of this build's allocator, as the tables print it.
        pub const NAME: &str = {
            #[allow(unused_mut)]
            let mut name = "system";
            $(if cfg!(feature = $feature) { name = $feature; })*
            name
        };
    };
}

allocator! {
    "stratalloc": stratalloc::Stratalloc = stratalloc::Stratalloc::new();
    "stratalloc-fine": stratalloc::Stratalloc = stratalloc::Stratalloc::new();
    "stratalloc-hunt": stratalloc::Stratalloc = stratalloc::Stratalloc::new();
    "stratalloc-hooks": stratalloc::Stratalloc = stratalloc::Stratalloc::new();
    "mimalloc3": mimalloc::MiMalloc = mimalloc::MiMalloc;
    "mimalloc2": mimalloc::MiMalloc = mimalloc::MiMalloc;
    "jemalloc": tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
    "snmalloc": snmalloc_rs::SnMalloc = snmalloc_rs::SnMalloc;
    "rpmalloc": rpmalloc::RpMalloc = rpmalloc::RpMalloc;
    "rusty-alloc": rusty_alloc_api::RustyAlloc = rusty_alloc_api::RustyAlloc;
    "smmalloc": smmalloc::Smalloc = smmalloc::Smalloc::new();
    "stoolap-jemalloc": stoolap_jemalloc::Jemalloc = stoolap_jemalloc::Jemalloc::new();
}
