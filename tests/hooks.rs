//! Rows H1 to H3: memory hooks. Each test in a process of its own, which has a component of its own.

#![expect(clippy::disallowed_methods, reason = "a test takes memory away")]

#[path = "common/own_process.rs"]
mod own_process;
#[path = "common/random.rs"]
mod random;
#[path = "common/told.rs"]
mod told;

use own_process::in_own_process;
use random::Random;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use stratalloc::Stratalloc;
use stratalloc::hooks::{
    self, Callback, Choice, Component, Declined, HooksError, Notice, Release, Settings, Support, Unwatched,
};
use told::skipped::skipped;
use told::{PAGE, TOLD, forks, give_back, map, note_all, use_component};

#[global_allocator]
static A: Stratalloc = Stratalloc::new();

#[test]
fn h1_the_best_component_that_does_not_decline_serves() {
    let ended = in_own_process(|| {
        assert!(hooks::chosen().is_none());
        hooks::register(map(1), PAGE, 1).expect("registered");
        let chosen = hooks::chosen().expect("the first use chooses");
        match chosen.component.name() {
            "userfaultfd" => assert!(chosen.declined.is_empty() && chosen.priority == 60),
            "allocator" => {
                skipped(&format!("userfaultfd declined: {:?}", chosen.declined));
                assert_eq!(chosen.declined[0].0, "userfaultfd");
            }
            other => panic!("{other}"),
        }
        let error = hooks::init(&Settings::new()).expect_err("chosen");
        assert_eq!(error, HooksError::Begun { component: chosen.component.name() });
        let error = hooks::close().expect_err("something is registered");
        assert_eq!(error, HooksError::StillRegistered { count: 1 });
    });
    ended.hand_on("SKIPPED");
    ended.well();
}

/// A component of a program's own.
#[derive(Debug)]
struct Own {
    name: &'static str,
    declines: bool,
    opened: AtomicUsize,
    closed: AtomicUsize,
    watched: AtomicUsize,
}

impl Own {
    const fn new(name: &'static str, declines: bool) -> Self {
        Self { name, declines, opened: AtomicUsize::new(0), closed: AtomicUsize::new(0), watched: AtomicUsize::new(0) }
    }
}

impl Component for Own {
    fn name(&self) -> &'static str {
        self.name
    }

    fn priority(&self) -> i32 {
        70
    }

    fn support(&self) -> Support {
        Support { heaps: Notice::Polled, process: Notice::Polled }
    }

    fn open(&self) -> Result<(), Declined> {
        self.opened.fetch_add(1, SeqCst);
        if self.declines { Err(Declined("not today".into())) } else { Ok(()) }
    }

    fn close(&self) {
        self.closed.fetch_add(1, SeqCst);
    }

    fn watch(&self, base: usize, bytes: usize) -> Result<(), Unwatched> {
        assert!(base.is_multiple_of(PAGE) && bytes.is_multiple_of(PAGE));
        if base == 13 * PAGE {
            return Err(Unwatched("thirteen"));
        }
        assert_ne!(base, 14 * PAGE, "fourteen");
        self.watched.fetch_add(bytes / PAGE, SeqCst);
        Ok(())
    }

    fn unwatch(&self, base: usize, bytes: usize) {
        assert!(base.is_multiple_of(PAGE) && bytes > 0 && bytes.is_multiple_of(PAGE));
        self.watched.fetch_sub(bytes / PAGE, SeqCst);
    }

    fn process(&self, each: &mut dyn FnMut(Release)) {
        each(Release { base: 7 * PAGE, bytes: PAGE, from_allocator: false });
        hooks::settle();
    }
}

static SHY: Own = Own::new("shy", true);
static BOLD: Own = Own::new("bold", false);

#[test]
fn h1_components_are_chosen_by_name_priority_and_support() {
    in_own_process(|| {
        let init = |settings: &Settings| hooks::init(settings).map(|chosen| chosen.component.name());
        let only = |name: &str| Settings::new().choice(Choice::new().only(name));
        for name in ["allocator", "empty"] {
            assert_eq!(init(&only(name)), Ok(name));
            hooks::close().expect("nothing is registered");
            assert!(hooks::chosen().is_none());
        }
        let text = |settings: &Settings| hooks::init(settings).expect_err("refused").to_string();
        assert_eq!(
            text(&only("userfault")),
            "hooks: there is no component `userfault`; there are userfaultfd, allocator, empty"
        );
        let both = Settings::new().component(&SHY).component(&BOLD);
        let chosen = hooks::init(&both).expect("bold serves");
        assert_eq!(chosen.component.name(), "bold");
        assert_eq!(chosen.declined, [("shy", Declined("not today".into()))]);
        assert_eq!((SHY.opened.load(SeqCst), SHY.closed.load(SeqCst)), (1, 0));
        hooks::close().expect("nothing is registered");
        assert_eq!((BOLD.opened.load(SeqCst), BOLD.closed.load(SeqCst)), (1, 1));
        let before = Support { heaps: Notice::Before, process: Notice::Never };
        let needs = Settings::new().component(&BOLD).needs(before).choice(Choice::new().priority("allocator", 61));
        let chosen = hooks::init(&needs).expect("allocator serves");
        assert_eq!((chosen.component.name(), chosen.priority), ("allocator", 61));
        assert_eq!(chosen.declined, [("bold", Declined("it is not told before a heap's memory goes".into()))]);
        hooks::close().expect("nothing is registered");
        let all = Support { heaps: Notice::Before, process: Notice::Polled };
        let error = text(&only("allocator").needs(all));
        assert!(error.contains("allocator: it is not told of what others do in the process;"), "{error}");
        assert!(text(&only("empty").needs(before)).contains("empty: it is not told before a heap's memory goes;"));
        assert!(
            text(&Settings::new().component(&BOLD).component(&BOLD)).contains("two components have the name `bold`")
        );
        // SAFETY: no other thread reads it.
        unsafe { std::env::set_var("STRATALLOC_HOOKS", "userfaultfd=1,allocator=2") };
        let _callback = hooks::on_release(|_| ()).expect("a component");
        assert_eq!(hooks::chosen().expect("chosen").component.name(), "allocator");
        hooks::close().expect("nothing is registered");
        // SAFETY: as above.
        unsafe { std::env::set_var("STRATALLOC_HOOKS", "what is this") };
        let error = hooks::on_release(|_| ()).expect_err("unreadable");
        assert!(error.to_string().starts_with("hooks: `what is this` chooses no component"), "{error}");
        // SAFETY: as above.
        unsafe { std::env::set_var("STRATALLOC_HOOKS", "empty") };
        hooks::register(&raw const TOLD as *const u8, 1, 0).expect("another try may succeed");
    })
    .well();
}

#[test]
fn h1_components_come_and_go_beside_other_calls() {
    in_own_process(|| {
        // SAFETY: no other thread reads it yet.
        unsafe { std::env::set_var("STRATALLOC_HOOKS", "allocator") };
        let busy = AtomicBool::new(true);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while busy.load(SeqCst) {
                        if let Some(chosen) = hooks::chosen() {
                            assert!(["bold", "allocator"].contains(&chosen.component.name()));
                            let declined: Vec<&str> = chosen.declined.iter().map(|(name, _)| *name).collect();
                            assert!(declined.is_empty() || declined == ["shy"], "{declined:?}");
                        }
                        _ = hooks::process();
                        assert!(!hooks::is_in_flight());
                    }
                });
            }
            scope.spawn(|| {
                while busy.load(SeqCst) {
                    let block = vec![1_u8; 20_000];
                    // Where there is none this chooses one: any will do.
                    if hooks::register(block.as_ptr(), block.len(), 1).is_ok() {
                        hooks::deregister(block.as_ptr(), block.len(), 1).expect("registered before");
                    }
                }
            });
            for round in 0..600 {
                let settings = Settings::new().component(&SHY).component(&BOLD);
                let only = Settings::new().choice(Choice::new().only("allocator"));
                _ = hooks::init(if round % 2 == 0 { &settings } else { &only });
                drop(hooks::on_release(|_| ()).expect("a component"));
                _ = hooks::close();
            }
            busy.store(false, SeqCst);
        });
    })
    .well();
}

#[test]
fn h2_deregister_matches_a_registration_exactly() {
    in_own_process(|| {
        hooks::init(&Settings::new().component(&BOLD)).expect("bold serves");
        let at = |page: usize| (page * PAGE) as *const u8;
        assert!(!hooks::changed());
        hooks::register(at(2), 3 * PAGE, 5).expect("registered");
        for (base, bytes, cookie) in
            [(at(2), PAGE, 5), (at(3), 2 * PAGE, 5), (at(2), 3 * PAGE, 6), (at(2), 3 * PAGE + 1, 5)]
        {
            let error = hooks::deregister(base, bytes, cookie).expect_err("not that one");
            assert_eq!(error, HooksError::NotRegistered { base: base as usize, bytes, cookie });
        }
        assert_eq!((hooks::registered(), BOLD.watched.load(SeqCst)), (1, 3));
        hooks::deregister(at(2), 3 * PAGE, 5).expect("that one");
        assert_eq!((hooks::registered(), BOLD.watched.load(SeqCst)), (0, 0));
        for (base, bytes) in [(at(2), 0), (at(2), usize::MAX)] {
            let error = hooks::register(base, bytes, 5).expect_err("no range");
            assert_eq!(error, HooksError::Range { base: base as usize, bytes });
        }
        let error = hooks::register(at(13), 1, 0).expect_err("it cannot be watched");
        assert_eq!(error, HooksError::Unwatched { base: 13 * PAGE, bytes: 1, why: "thirteen" });
        assert_eq!(hooks::registered(), 0);
        // The same one twice is two.
        for _ in 0..2 {
            hooks::register(at(5), 10, 9).expect("registered");
        }
        hooks::deregister(at(5), 10, 9).expect("one");
        assert_eq!(hooks::registered(), 1);
        hooks::deregister(at(5), 10, 9).expect("and the other");
        hooks::deregister(at(5), 10, 9).expect_err("no third");
        // Announced, processed, told, settled.
        let _callback = note_all();
        hooks::announce();
        assert!(hooks::changed());
        assert_eq!(hooks::process(), Ok(1));
        assert!(!hooks::changed() && TOLD.all() == [(7 * PAGE, PAGE)]);
    })
    .well();
}

/// Which pages a component watches, against a list of ranges.
#[derive(Debug)]
struct Pages([AtomicBool; 64]);

impl Component for Pages {
    fn name(&self) -> &'static str {
        "pages"
    }

    fn priority(&self) -> i32 {
        99
    }

    fn support(&self) -> Support {
        Support::NONE
    }

    fn open(&self) -> Result<(), Declined> {
        Ok(())
    }

    fn close(&self) {}

    fn watch(&self, base: usize, bytes: usize) -> Result<(), Unwatched> {
        (base / PAGE..(base + bytes) / PAGE).for_each(|page| self.0[page].store(true, SeqCst));
        Ok(())
    }

    fn unwatch(&self, base: usize, bytes: usize) {
        for page in base / PAGE..(base + bytes) / PAGE {
            assert!(self.0[page].swap(false, SeqCst), "page {page} is given up once");
        }
    }
}

static PAGES: Pages = Pages([const { AtomicBool::new(false) }; 64]);

#[test]
fn h2_ranges_overlap_split_and_nest() {
    in_own_process(|| {
        hooks::init(&Settings::new().component(&PAGES)).expect("pages serves");
        let mut random = Random::new(4242);
        let mut live: Vec<(usize, usize, u64)> = Vec::new();
        for round in 0..5000 {
            if live.len() < 12 && random.below(2) == 0 {
                let base = PAGE + random.below(50 * PAGE);
                let most = [10, PAGE, 12 * PAGE][random.below(3)];
                let range = (base, 1 + random.below(most), round % 3);
                hooks::register(range.0 as *const u8, range.1, range.2).expect("registered");
                live.push(range);
            } else if !live.is_empty() {
                let (base, bytes, cookie) = live.swap_remove(random.below(live.len()));
                hooks::deregister(base as *const u8, bytes, cookie).expect("registered before");
            }
            assert_eq!(hooks::registered(), live.len());
            for (page, watched) in PAGES.0.iter().enumerate() {
                let touches =
                    |(base, bytes, _): &(usize, usize, u64)| base / PAGE <= page && page <= (base + bytes - 1) / PAGE;
                assert_eq!(watched.load(SeqCst), live.iter().any(touches), "page {page} in round {round}");
            }
        }
    })
    .well();
}

static CALLS: [AtomicUsize; 4] = [const { AtomicUsize::new(0) }; 4];

fn calls() -> [usize; 4] {
    std::array::from_fn(|at| CALLS[at].load(SeqCst))
}

static FIRST: Mutex<Option<Callback>> = Mutex::new(None);

/// Has the component tell of something.
fn tell_once() {
    hooks::announce();
    hooks::process().expect("processed");
}

#[test]
fn h3_callbacks_come_and_go_from_the_inside_too() {
    in_own_process(|| {
        hooks::init(&Settings::new().component(&BOLD)).expect("bold serves");
        let second = hooks::on_release(|release| {
            assert!(!release.from_allocator);
            CALLS[1].fetch_add(1, SeqCst);
            // What is registered may be taken back, and the like.
            hooks::register(release.base as *const u8, release.bytes, 77).expect("registered");
            hooks::deregister(release.base as *const u8, release.bytes, 77).expect("registered before");
            assert_eq!(hooks::process(), Err(HooksError::Inside));
        })
        .expect("a component");
        // One that takes itself off.
        let first = hooks::on_release(|_| {
            CALLS[0].fetch_add(1, SeqCst);
            let own = FIRST.lock().expect("not poisoned");
            assert!(own.as_ref().expect("there").unregister());
            assert!(!own.as_ref().expect("there").unregister(), "it is off");
        });
        *FIRST.lock().expect("not poisoned") = Some(first.expect("a component"));
        tell_once();
        assert_eq!(calls(), [1, 1, 0, 0]);
        tell_once();
        assert_eq!(calls(), [1, 2, 0, 0]);
        // The handle of the one that is off means none of those that come later.
        let third = hooks::on_release(|_| _ = CALLS[2].fetch_add(1, SeqCst)).expect("a component");
        drop(FIRST.lock().expect("not poisoned").take());
        tell_once();
        assert_eq!(calls(), [1, 3, 1, 0]);
        drop(second);
        tell_once();
        assert_eq!(calls(), [1, 3, 2, 0]);
        third.forget();
        tell_once();
        assert_eq!(calls(), [1, 3, 3, 0]);
        // Many, and what they hold is dropped.
        let token = std::sync::Arc::new(());
        let many: Vec<Callback> = (0..300)
            .map(|_| {
                let token = token.clone();
                hooks::on_release(move |_| {
                    let _ = &token;
                    CALLS[3].fetch_add(1, SeqCst);
                })
                .expect("a component")
            })
            .collect();
        tell_once();
        assert_eq!(calls()[3], 300);
        drop(many);
        assert_eq!(std::sync::Arc::strong_count(&token), 1);
    })
    .well();
}

static RUNNING: AtomicUsize = AtomicUsize::new(0);

#[test]
fn h3_unregister_waits_for_calls_that_run() {
    in_own_process(|| {
        hooks::init(&Settings::new().component(&BOLD)).expect("bold serves");
        for round in 0..200 {
            let alive = std::sync::Arc::new(AtomicBool::new(true));
            let seen = alive.clone();
            let callback = hooks::on_release(move |_| {
                RUNNING.fetch_add(1, SeqCst);
                for _ in 0..50 {
                    assert!(seen.load(SeqCst), "it runs no more once it is off");
                    std::thread::yield_now();
                }
            })
            .expect("a component");
            let before = RUNNING.load(SeqCst);
            let teller = std::thread::spawn(tell_once);
            while round % 2 == 0 && RUNNING.load(SeqCst) == before {
                std::thread::yield_now();
            }
            assert!(callback.unregister());
            alive.store(false, SeqCst);
            teller.join().expect("it ends well");
        }
    })
    .well();
}

#[test]
fn h3_a_callback_from_the_allocator_may_not_allocate() {
    let ended = in_own_process(|| {
        use_component("allocator");
        let _callback = hooks::on_release(|release| {
            assert!(release.from_allocator);
            std::hint::black_box(Box::new(release.base));
        });
        give_back();
    });
    if cfg!(debug_assertions) {
        let line = "stratalloc: a release callback that was told from inside the allocator allocated or freed; let it only note \
                    what it is told\n";
        assert!(ended.stderr.contains(line), "{}", ended.stderr);
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(libc::SIGABRT));
    } else {
        ended.well();
    }
}

#[test]
fn h3_a_callback_that_panics_ends_the_process() {
    let ended = in_own_process(|| {
        hooks::init(&Settings::new().component(&BOLD)).expect("bold serves");
        let _callback = hooks::on_release(|_| panic!("oh no"));
        tell_once();
    });
    let line =
        "stratalloc: a release callback panicked; it is called where nothing may unwind, so catch that inside of it\n";
    assert!(ended.stderr.contains(line), "{}", ended.stderr);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(libc::SIGABRT));
}

#[test]
fn h3_a_component_that_panics_ends_the_process() {
    let ended = in_own_process(|| {
        hooks::init(&Settings::new().component(&BOLD)).expect("bold serves");
        _ = hooks::register((14 * PAGE) as *const u8, 1, 1);
    });
    let line = "stratalloc: a component of the hooks panicked where it was asked to watch memory; nothing may unwind there, so refuse \
                with Unwatched\n";
    // To panic allocates, which builds that check the order of locks end for that.
    let order = "stratalloc: internal: locks taken against their order\n";
    assert!(ended.stderr.contains(line) || cfg!(debug_assertions) && ended.stderr.contains(order), "{}", ended.stderr);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&ended.status), Some(libc::SIGABRT));
}

#[test]
fn h3_a_fork_leaves_registrations_to_the_parent() {
    in_own_process(|| forks("allocator")).well();
}

static BEGUN: AtomicBool = AtomicBool::new(false);
static ENDED: AtomicBool = AtomicBool::new(false);
std::thread_local! {
    static FORKS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}
static CHILD: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Forks from the inside of a callback, once, while another thread is in it, too.
fn fork_beside_another_call() {
    if !BEGUN.swap(true, SeqCst) {
        while !ENDED.load(SeqCst) {
            std::thread::yield_now();
        }
    } else if FORKS.replace(false) {
        // SAFETY: the child ends by itself.
        CHILD.store(unsafe { libc::fork() } as usize, SeqCst);
    }
}

#[test]
fn h3_a_fork_from_inside_of_a_callback_leaves_calls_of_other_threads_to_the_parent() {
    in_own_process(|| {
        use_component("allocator");
        let callback = hooks::on_release(|_| fork_beside_another_call()).expect("a component");
        let other = std::thread::spawn(give_back);
        while !BEGUN.load(SeqCst) {
            std::thread::yield_now();
        }
        FORKS.set(true);
        while CHILD.load(SeqCst) == usize::MAX {
            give_back();
        }
        if CHILD.load(SeqCst) == 0 {
            // SAFETY: no preconditions. What hangs is ended.
            unsafe { libc::alarm(30) };
            assert!(callback.unregister(), "the other thread is not in it here");
            // SAFETY: no preconditions.
            unsafe { libc::_exit(7) };
        }
        let mut status = 0;
        // SAFETY: the child is ours.
        unsafe { libc::waitpid(CHILD.load(SeqCst) as i32, &raw mut status, 0) };
        assert_eq!(libc::WEXITSTATUS(status), 7, "the child ends well: {status:x}");
        ENDED.store(true, SeqCst);
        other.join().expect("it ends well");
        assert!(callback.unregister());
    })
    .well();
}

/// The component `bold` serves, and pages 2 to 6 are registered.
fn register_five_pages() {
    hooks::init(&Settings::new().component(&BOLD)).expect("bold serves");
    for page in 2..7 {
        hooks::register((page * PAGE) as *const u8, PAGE, 1).expect("registered");
    }
}

#[test]
fn h3_what_callbacks_register_in_the_child_of_a_fork_is_the_childs() {
    in_own_process(|| {
        register_five_pages();
        let at = |page: usize| (page * PAGE) as *const u8;
        let parent = std::process::id();
        let _callback = hooks::on_release(move |release| {
            // Of page 7 the component tells each time.
            if std::process::id() != parent && release.base != 7 * PAGE {
                // Once more the same, and another one in front of all.
                let base = release.base as *const u8;
                hooks::register(base, release.bytes, 1).expect("registered");
                hooks::register(at(1), 1 + release.base / PAGE, 1).expect("registered");
            }
        });
        told::in_child(|| {
            assert_eq!(hooks::process(), Ok(6));
            assert_eq!(hooks::registered(), 10, "what the parent had is gone, and what callbacks registered is not");
            for page in 2..7 {
                hooks::deregister(at(page), PAGE, 1).expect("the child's own");
                hooks::deregister(at(1), 1 + page, 1).expect("the child's own");
            }
            assert!(!hooks::changed());
            // And in a child of the child none of it is.
            hooks::register(at(3), PAGE, 1).expect("registered");
            told::in_child(|| {
                assert_eq!(hooks::registered(), 0);
                assert_eq!((hooks::process(), hooks::registered()), (Ok(2), 2));
            });
        });
        assert_eq!(hooks::registered(), 5);
    })
    .well();
}

static FORKED_AGAIN: AtomicBool = AtomicBool::new(false);
static GRANDCHILD: AtomicBool = AtomicBool::new(false);

/// A child is told of what was its parent's, and forks meanwhile: the child of that is told of what was both's.
#[test]
fn h3_a_fork_while_the_child_of_one_is_told() {
    in_own_process(|| {
        register_five_pages();
        let parent = std::process::id();
        let _callback = hooks::on_release(move |release| {
            assert_eq!(hooks::init(&Settings::new()).err(), Some(HooksError::Inside));
            if std::process::id() != parent && release.base != 7 * PAGE {
                hooks::register(release.base as *const u8, release.bytes, 1).expect("registered");
                if release.base == 4 * PAGE && !FORKED_AGAIN.swap(true, SeqCst) {
                    // SAFETY: the child goes on below.
                    GRANDCHILD.store(unsafe { libc::fork() } == 0, SeqCst);
                }
            }
        });
        told::in_child(|| {
            hooks::process().expect("processed");
            assert_eq!(hooks::registered(), 5);
            // Nothing is left to be told.
            assert_eq!(hooks::process(), Ok(1));
            if GRANDCHILD.load(SeqCst) {
                // SAFETY: no preconditions.
                unsafe { libc::_exit(0) };
            }
            let mut status = 0;
            // SAFETY: the child of this one is its own.
            unsafe { libc::wait(&raw mut status) };
            assert_eq!(status, 0, "the child of the child ends well");
        });
    })
    .well();
}

/// A library makes sure of what it needs, whoever has chosen before it.
#[test]
fn h1_a_library_requires_what_it_needs() {
    in_own_process(|| {
        let heaps = Support { heaps: Notice::Before, process: Notice::Never };
        use_component("allocator");
        assert_eq!(hooks::require(heaps).expect("it is told of heaps").component.name(), "allocator");
        assert_eq!(hooks::require(Support::NONE).expect("of nothing").to_string(), "allocator");
        let error = hooks::require(Support::ALL).expect_err("it is told of heaps alone").to_string();
        assert!(error.contains("allocator: it is not told of what others do in the process;"), "{error}");
        hooks::close().expect("nothing is registered");
        // SAFETY: no other thread reads it.
        unsafe { std::env::set_var("STRATALLOC_HOOKS", "empty") };
        let error = hooks::require(heaps).expect_err("the environment names another one").to_string();
        assert!(error.contains("empty: it is not told before a heap's memory goes;"), "{error}");
        assert!(hooks::chosen().is_none());
        // SAFETY: as above.
        unsafe { std::env::set_var("STRATALLOC_HOOKS", "allocator") };
        assert_eq!(hooks::require(heaps).expect("chosen").component.name(), "allocator");
        hooks::close().expect("nothing is registered");
        let both = Settings::new().component(&SHY).component(&BOLD);
        assert_eq!(hooks::init(&both).expect("bold serves").to_string(), "bold; shy declined: not today");
    })
    .well();
}

static TAKEN: Mutex<Vec<(usize, usize, u64)>> = Mutex::new(Vec::new());

/// A callback that takes back what has even cookies of that which goes.
fn take_even(release: &hooks::Release) {
    let mut taken = TAKEN.lock().expect("not poisoned");
    let before = taken.len();
    let count = hooks::deregister_overlapping(release.base as *const u8, release.bytes, &mut |at, bytes, cookie| {
        let is_own = cookie % 2 == 0;
        if is_own {
            taken.push((at as usize / PAGE, bytes / PAGE, cookie));
        }
        is_own
    });
    assert!(count >= taken.len() - before);
}

/// A callback learns what was registered of the memory that goes, and leaves others' to them.
#[test]
fn h2_what_overlaps_is_taken_back_with_its_cookies() {
    in_own_process(|| {
        hooks::init(&Settings::new().component(&BOLD)).expect("bold serves");
        let at = |page: usize| (page * PAGE) as *const u8;
        let ranges = [(5, 2, 2), (5, 3, 2), (5, 3, 1), (7, 1, 4), (7, 1, 4), (7, 1, 3), (8, 1, 6), (2, 20, 8)];
        for (page, pages, cookie) in ranges {
            hooks::register(at(page), pages * PAGE, cookie).expect("registered");
        }
        let cache = hooks::RegistrationCache::<u8>::new(hooks::Limits::default()).expect("a component");
        cache.get(at(8), PAGE, |_, _| Ok::<_, ()>(1)).map(drop).expect("registered");
        let _callback = hooks::on_release(take_even);
        told::in_child(|| {
            // In a child it is told of all that was the parent's.
            hooks::process().expect("processed");
            let mut taken = TAKEN.lock().expect("not poisoned");
            taken.sort_unstable();
            assert_eq!(*taken, [(2, 20, 8), (5, 2, 2), (5, 3, 2), (7, 1, 4), (8, 1, 6)]);
            assert_eq!(hooks::registered(), 0);
        });
        // It tells of page 7.
        tell_once();
        let mut taken = TAKEN.lock().expect("not poisoned");
        taken.sort_unstable();
        assert_eq!(*taken, [(2, 20, 8), (5, 3, 2), (7, 1, 4)]);
        assert_eq!(hooks::registered(), 5);
        assert_eq!(hooks::deregister_overlapping(at(7), 0, &mut |_, _, _| true), 0);
        assert_eq!(hooks::deregister_overlapping(at(6), usize::MAX, &mut |_, _, _| true), 4);
        assert_eq!(hooks::registered(), 1, "what a cache has it takes back itself");
        let mut made = 0;
        let again = cache.get(at(8), PAGE, |_, _| {
            made += 1;
            Ok::<_, ()>(2)
        });
        drop(again.expect("it is there"));
        assert_eq!(made, 0);
    })
    .well();
}
