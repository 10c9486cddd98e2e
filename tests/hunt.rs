//! The corruption hunter: one program with one error for each kind (`tests/common/hunted.rs`), and what is said of it.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

#[path = "common/example.rs"]
mod example;
#[path = "common/in_time.rs"]
mod in_time;

use in_time::output_in_time;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

/// How the program ended, and what it said of itself and of its errors.
#[derive(Debug)]
struct Said {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

/// Runs the program with `arguments` and with `words` in the environment variable.
fn run(words: &str, arguments: &str) -> Said {
    let mut command = Command::new(example::path("hunted"));
    command.args(arguments.split(' ')).env("STRATALLOC_DEBUG", words).env_remove("RUST_BACKTRACE");
    said(&mut command)
}

/// As `run`, with so many KiB of addresses at the most.
fn run_with(kib: usize, words: &str, arguments: &str) -> Said {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {kib}; exec \"$0\" {arguments}")]).arg(example::path("hunted"));
    said(command.env("STRATALLOC_DEBUG", words).env("RUST_MIN_STACK", "200000"))
}

fn said(command: &mut Command) -> Said {
    let output = output_in_time(command);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { status: output.status, stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

impl Said {
    /// It was aborted after a report that begins with `first` and has each of `more` in it, in this order.
    #[track_caller]
    fn reports(&self, first: &str, more: &[&str]) {
        assert_eq!(self.status.signal(), Some(libc::SIGABRT), "{self:#?}");
        self.says(first, more);
    }

    #[track_caller]
    fn says(&self, first: &str, more: &[&str]) {
        assert_eq!(self.stderr.lines().next(), Some(format!("stratalloc: {first}").as_str()), "{}", self.stderr);
        let mut rest = self.stderr.as_str();
        for part in more {
            let at =
                rest.find(part).unwrap_or_else(|| panic!("not {part:?} in what is left of\n{}\n{rest}", self.stderr));
            rest = &rest[at + part.len()..];
        }
    }

    /// It lost about so many blocks: a word that was left on a stack may look like a pointer to one of them, or two.
    #[track_caller]
    fn loses(&self, blocks: usize) {
        let line = self.stderr.lines().nth(1).expect("a sum");
        let count: usize = line.trim_start().split(' ').next().and_then(|count| count.parse().ok()).expect("a number");
        assert!(count + 3 > blocks && count <= blocks, "{count} of {blocks}\n{}", self.stderr);
    }

    /// As `reports`, by an audit, while the program ran: or, if not, when it exited.
    #[track_caller]
    fn reports_early(&self, is_early: bool, first: &str, more: &[&str]) {
        self.reports(first, more);
        assert_eq!(self.stdout, if is_early { "" } else { "done\n" }, "{self:#?}");
    }

    /// It ran to its end and nothing was reported.
    #[track_caller]
    fn is_silent(&self) {
        assert!(self.status.success() && self.stderr.is_empty() && self.stdout.ends_with("done\n"), "{self:#?}");
    }
}

const OVERFLOW: &str = "overflow: bytes behind a block were written";
const UNDERFLOW: &str = "underflow: bytes before a block were written";
const WRITTEN_AFTER_FREE: &str = "use after free: a block was written after it was freed";
const BEHIND: &str = "overflow: a byte behind a block was touched";
const BEFORE: &str = "underflow: a byte before a block was touched";
const AFTER_FREE: &str = "use after free: a block was touched after it was freed";
const DOUBLE: &str = "double free: a block was freed that had been freed before";
const INTERIOR: &str = "invalid free: the pointer is not to the begin of a block, but into it";
const INTERIOR_FREED: &str = "invalid free: the pointer is into a block that had been freed before";
const FOREIGN: &str = "invalid free: no block begins at the pointer";
const LAYOUT: &str = "wrong layout: a block was freed or resized with another layout than it was allocated with";
const HEAP: &str = "wrong heap: a block of another heap was freed or resized";
const RECORD: &str = "damaged record: what lies before a block was written over";
const LEAK: &str = "leak: blocks were lost: no pointer to them is left, and they were not freed";

const LEFT: &str = "leak: blocks were allocated in a piece of work and not freed";

#[test]
fn d1_a_byte_beyond_a_block_of_any_size_is_found() {
    for size in [1, 7, 8, 15, 16, 24, 64, 100, 192, 1024, 2048, 3584, 4096, 5000, 65_536, 3 << 20] {
        for align in [1, 8, 16, 64, 4096] {
            for distance in [1, 2, 9, 16] {
                run("", &format!("overflow {size} {align} {distance}")).reports(
                    OVERFLOW,
                    &[
                        &format!("with size {size} and alignment {align}\n"),
                        &format!("allocated with size {size} and alignment {align}\n"),
                        &format!("{} bytes behind the end\n", distance - 1),
                        "  1 of 16 bytes from ",
                        " [00]",
                        "  allocated 0.",
                        "hunted::make_the_block+",
                        "hunted::make+",
                        "hunted::main+",
                        "  noticed by thread ",
                        "hunted::free_the_block+",
                    ],
                );
            }
        }
        for distance in [1, 8] {
            let before = "  the first bad byte is 0x";
            run("", &format!("underflow {size} 8 {distance}")).reports(
                UNDERFLOW,
                &[before, &format!(": {distance} bytes before the begin\n"), "  1 of 8 bytes from "],
            );
        }
    }
}

#[test]
fn d1_far_beyond_a_block_faults_with_pages_of_its_own() {
    for (error, first, distance) in
        [("read-behind", BEHIND, "0 bytes behind the end"), ("read-far-behind", BEHIND, "3000 bytes behind the end")]
    {
        let place =
            ["allocated with size 64 and alignment 8\n", distance, "hunted::make_the_block+", "hunted::read_a_byte+"];
        run("page", &format!("{error} 64 8")).reports(first, &place);
        run("page,side=right", &format!("{error} 64 8")).reports(first, &place);
    }
    run("page,side=left", "read-before 100 4").reports(BEFORE, &["1 bytes before the begin", "hunted::read_a_byte+"]);
    run("page", "overflow 24 8 1").reports(BEHIND, &["0 bytes behind the end", "hunted::write_a_byte+"]);
    run("page,side=left", "underflow 24 8 1").reports(BEFORE, &["1 bytes before the begin", "hunted::write_a_byte+"]);
    // What an alignment leaves between a block and its guard page has guard bytes.
    run("page", "overflow 20 16 1").reports(OVERFLOW, &["0 bytes behind the end", "hunted::make_the_block+"]);
    run("page", "underflow 20 16 1").reports(UNDERFLOW, &["1 bytes before the begin"]);
    run("page,side=both", "nothing 20 16 1").is_silent();
}

#[test]
fn d1_what_is_never_freed_is_found_by_an_audit_or_at_exit() {
    for (error, first) in [("overflow-unfreed 24 8", OVERFLOW), ("underflow-unfreed 24 8", UNDERFLOW)] {
        run("sweep=1", error).reports_early(true, first, &["hunted::make_the_block+"]);
        run("", error).reports_early(false, first, &["hunted::make_the_block+"]);
    }
    // Between a block with pages of its own and its guard there are guard bytes, too.
    run("page", "overflow-unfreed 20 16").reports_early(false, OVERFLOW, &["hunted::make_the_block+"]);
}

#[test]
fn d2_a_write_after_free_is_found_when_the_block_leaves_or_is_audited_or_at_exit() {
    let places =
        ["2 bytes behind the begin\n", "[00]", "hunted::make_the_block+", "  freed 0.", "hunted::free_the_block+"];
    for size in [3, 24, 1000, 30_000] {
        run("", &format!("write-after-free {size} 8 2")).reports(WRITTEN_AFTER_FREE, &places);
        run("", &format!("write-after-free-unevicted {size} 8 2")).reports(WRITTEN_AFTER_FREE, &places);
        run("sweep=100", &format!("write-after-free {size} 8 2")).reports(WRITTEN_AFTER_FREE, &places);
    }
    run("sweep=1", "write-after-free-unevicted 24 8 2").reports_early(true, WRITTEN_AFTER_FREE, &places);
    run("", "write-after-free-unevicted 24 8 2").reports_early(false, WRITTEN_AFTER_FREE, &places);
}

#[test]
fn d2_what_touches_a_freed_block_faults_with_pages_of_its_own() {
    for error in ["read-after-free 24 8", "write-after-free 24 8 0", "read-after-free 9000 8"] {
        let places = [
            "allocated with size ",
            "0 bytes behind the begin",
            "hunted::make_the_block+",
            "  freed ",
            "hunted::free_the_block+",
        ];
        run("page", error).reports(AFTER_FREE, &places);
    }
    // Elsewhere what is read there is a pattern.
    let said = run("", "read-after-free 24 8");
    assert!(
        said.status.success() && said.stdout.starts_with("read ") && !said.stdout.starts_with("read 0\n"),
        "{said:?}"
    );
}

#[test]
fn a_fresh_block_has_a_pattern_in_it_as_far_as_is_wanted() {
    for words in ["", "page", "page,canary", "page,side=left"] {
        let said = run(&format!("{words},poison=100"), "read-unwritten 5000 8 100");
        let mut bytes = said.stdout.trim_start_matches("read [").split([',', ']']).map(str::trim);
        let [first, last, next, end] = [(); 4].map(|()| bytes.next().expect("four bytes"));
        assert!(first != "0" && last != "0" && said.stderr.is_empty(), "{words}: {said:?}");
        // Pages of its own are fresh.
        assert!(!words.contains("page") || (next, end) == ("0", "0"), "{words}: {said:?}");
    }
    run("page", "zeroed 5000 8").is_silent();
}

#[test]
fn d3_a_block_freed_twice_is_found_near_and_late_and_from_two_threads() {
    let places = [
        "allocated with size ",
        "hunted::make_the_block+",
        "  freed 0.",
        "hunted::free_the_block+",
        "hunted::free_it_again+",
    ];
    for words in ["", "page"] {
        run(words, "double-free 24 8").reports(DOUBLE, &places);
        run(words, "double-free 9000 64").reports(DOUBLE, &places);
    }
    run("", "double-free-late 24 8 10000").reports(DOUBLE, &places);
    // By then its memory may have been another block, which was freed, too.
    run("", "double-free-late 1000 8 10000").reports(DOUBLE, &places[..1]);
    run("page", "double-free-late 24 8 10000").reports(DOUBLE, &places);
    for _ in 0..20 {
        run("", "double-free-of-two-threads 24 8").reports(
            DOUBLE,
            &["  freed ", "hunted::free_the_block+", "  noticed by thread ", "hunted::free_the_block+"],
        );
        run("page", "double-free-of-two-threads 24 8")
            .reports(DOUBLE, &["  freed ", "  noticed by thread ", "hunted::free_the_block+"]);
    }
}

#[test]
fn d4_pointers_at_which_no_block_begins_are_told_apart() {
    run("", "interior 24 8 8")
        .reports(INTERIOR, &["the pointer is 0x", ": 8 bytes behind the begin", "hunted::make_the_block+"]);
    run("", "interior 5000 8 4096").reports(INTERIOR, &[": 4096 bytes behind the begin"]);
    run("page", "interior 24 8 8").reports(INTERIOR, &[": 8 bytes behind the begin"]);
    run("", "guard-pointer 24 8").reports(INTERIOR, &[": 8 bytes before the begin"]);
    for words in ["", "page"] {
        run(words, "interior-freed 24 8 8").reports(INTERIOR_FREED, &["  freed ", "hunted::free_the_block+"]);
    }
    run("", "stack 24 8").reports(FOREIGN, &["  the pointer is into the mapping ", "[stack]"]);
    run("", "static 24 8").reports(FOREIGN, &["  the pointer is into the mapping ", "hunted"]);
    run("", "foreign 24 8").reports(FOREIGN, &["  the pointer is into the mapping ", "[heap]"]);
    run("", "unmapped 24 8").reports(FOREIGN, &["  nothing is mapped at the pointer"]);
    for words in ["", "page"] {
        run(words, "other-heap 24 8").reports(HEAP, &["hunted::make_in_another_heap+", "hunted::free_the_block+"]);
        run(words, "to-another-heap 24 8").reports(HEAP, &["hunted::make_the_block+", "hunted::free_to_another_heap+"]);
        run(words, "realloc-other-heap 24 8")
            .reports(HEAP, &["realloc was passed ", "hunted::make_in_another_heap+", "  noticed by "]);
    }
    run("", "free-after-the-owner 24 8")
        .reports(OVERFLOW, &["\"the owner\", which has ended, in", "hunted::make_the_block+"]);
}

#[test]
fn d5_another_layout_is_found_also_within_one_class() {
    let passed = ["free was passed 0x", "with size 25 and alignment 8\n", "allocated with size 24 and alignment 8\n"];
    for words in ["", "page"] {
        run(words, "wrong-size 24 8 1").reports(LAYOUT, &passed);
        run(words, "wrong-align 24 8")
            .reports(LAYOUT, &["with size 24 and alignment 16\n", "with size 24 and alignment 8\n"]);
        run(words, "realloc-wrong-size 24 8")
            .reports(LAYOUT, &["realloc was passed 0x", "with size 25", "with size 24"]);
        run(words, "realloc-wrong-align 24 8")
            .reports(LAYOUT, &["realloc was passed 0x", "with size 24 and alignment 16\n", "and alignment 8\n"]);
    }
}

#[test]
fn d6_a_block_used_after_realloc_moved_it_is_found() {
    run("", "realloc-moved 24 8").reports(WRITTEN_AFTER_FREE, &["hunted::make_the_block+", "  freed "]);
    run("page", "realloc-moved 24 8")
        .reports(AFTER_FREE, &["hunted::make_the_block+", "  freed ", "hunted::write_a_byte+"]);
    run("", "realloc-freed 24 8").reports(DOUBLE, &["realloc was passed ", "  freed ", "hunted::free_the_block+"]);
}

#[test]
fn d7_a_record_or_a_link_written_over_is_named() {
    run("", "record 24 8").reports(RECORD, &["of which nothing else is known"]);
    run("sweep=1", "record-unfreed 24 8").reports_early(true, RECORD, &[]);
    run("", "record-unfreed 24 8").reports_early(false, RECORD, &[]);
    let said = run("", "link 24 8");
    assert!(said.status.success() && said.stdout.contains("the heap is damaged: "), "{said:#?}");
}

#[test]
fn d8_leaks_are_told_by_site_and_only_leaks() {
    let said = run("leaks", "leak 24 8 1000");
    said.says(
        LEAK,
        &[" blocks, ", " bytes, allocated, in", "hunted::make_the_block+", "hunted::lose_one+", "hunted::lose+"],
    );
    said.loses(1001);
    assert!(said.status.success(), "{said:?}");
    run("", "leak 24 8 1000").is_silent();
    run("leaks", "no-leak 24 8").is_silent();
    run("leaks,page", "no-leak 24 8").is_silent();
    run("leaks", "busy").is_silent();
    let said = run("", "leaks-called 100 8 50");
    said.says(LEAK, &[" blocks, ", " bytes, allocated, in", "hunted::lose_one+"]);
    said.loses(51);
    assert!(said.stdout.ends_with("lost\n"), "{said:?}");
    let said = run("", "assert-no-leaks 24 8 3");
    said.says(
        LEFT,
        &[
            "  3 blocks, 72 bytes\n",
            "  3 blocks, 72 bytes, allocated, in\n",
            "hunted::make_the_block+",
            "hunted::lose_one+",
            "hunted::lose+",
            "3 blocks were allocated and not freed",
        ],
    );
    assert!(said.stdout == "fine\n", "{said:?}");
}

#[test]
fn d9_a_report_says_all_that_is_known_and_then_the_process_ends() {
    let said = run("", "overflow 24 8 3");
    said.reports(
        OVERFLOW,
        &["by thread ", " \"hunted\", in\n", "hunted.rs:", "  noticed by thread ", " \"hunted\", in\n", "hunted.rs:"],
    );
    let shown = said.stderr.lines().filter(|line| line.starts_with("    0x")).count();
    assert!((2..=5).contains(&shown), "{}", said.stderr);
    // To go on is a wish of the user's.
    let said = run("continue", "two-errors 24 8");
    assert!(said.status.success() && said.stdout == "done\n", "{said:?}");
    said.says(OVERFLOW, &["stratalloc: double free: "]);
}

/// What a report needs of the system it has when standard output and error are closed, full or slow, too.
#[test]
fn d10_a_report_needs_no_lock_no_stdio_and_no_heap() {
    let program = example::path("hunted");
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        said(command.args(["-c", script]).arg(&program).env("STRATALLOC_DEBUG", ""))
    };
    let closed = shell("exec \"$0\" overflow 24 8 2>&- >&-");
    assert_eq!(closed.status.signal(), Some(libc::SIGABRT), "{closed:?}");
    // A pipe whose reader is slow, and whose writer does not wait by itself.
    let slow = shell("{ \"$0\" overflow 24 8 2>&1; echo \"status $?\"; } | { sleep 1; cat; } >&2");
    assert!(slow.stderr.contains(OVERFLOW) && slow.stderr.contains("status 134"), "{slow:?}");
}

#[test]
fn d11_damage_is_a_finding_for_who_asks() {
    for (error, rule) in [
        ("check 24 8", "bytes behind a block are as they were written"),
        ("check-freed 24 8", "a freed block is as it was filled"),
        ("check-record 24 8", "a block's record is as it was written"),
    ] {
        let said = run("", error);
        let begin = format!("stratalloc: the heap is damaged: Blocks: not so: {rule} (at 0x");
        assert!(said.status.success() && said.stdout.starts_with(&begin) && said.stderr.is_empty(), "{said:?}");
    }
}

const MODES: [&str; 5] =
    ["", "page", "sample=50,side=both", "sweep=100003,quarantine=100k", "frames=32,blocks=100,poison=16"];

#[test]
fn d12_correct_programs_are_silent() {
    for words in MODES {
        run(&format!("{words},sweep=3001"), "busy").is_silent();
        for program in ["nothing 24 8", "nothing 100000 4096", "zeroed 5000 8", "no-leak 24 8", "busy", "fork", "map"] {
            run(words, program).is_silent();
        }
    }
}

/// A fault that is none of the hunter's goes to the program's handlers, each once, whatever the order is in which they and the
/// hunter's were installed, and whether they hand it on, put back who was there before them, or return.
#[test]
fn d12_handlers_of_faults_are_called_as_without_a_hunter() {
    let ends = |words: &str, order: &str, said: &str| {
        let ended = run(words, &format!("handlers:{order}"));
        let segv = (None, Some(libc::SIGSEGV));
        let (code, signal) = if said.ends_with('a') { (Some(77), None) } else { segv };
        assert_eq!((ended.status.code(), ended.status.signal()), (code, signal), "{words}: {order}: {ended:?}");
        assert_eq!(ended.stdout, said, "{words}: {order}");
    };
    for words in ["", "page"] {
        for (order, said) in [
            ("a.", "a"),
            ("a.b", "ba"),
            ("a.b.", "ba"),
            ("a.b.c.", "cba"),
            ("a.b.b", "ba"),
            ("a.b.b.", "ba"),
            ("a.b.b.b.b.b.b.b.b.b.", "ba"),
            (".b.", "b"),
        ] {
            ends(words, order, said);
        }
        for (order, said) in [("a.p.", "pa"), (".p.", "p"), ("a.b.p.", "pba"), ("a.o.", "o"), (".o.", "o")] {
            ends(words, order, said);
        }
        assert!(run(words, "handlers:.m.").stdout == "mmmdone\n");
    }
    // Two that hand on to one another, but for the hunter between them.
    ends("page", "a.b.c.b.c.", "cba");
    ends("page", ".b.c.b", "bc");
    // The hunter does not see who was installed again when another one is there by then.
    ends("page", "a.b.bc.", "cbba");
}

const NO_MORE_PAGES: &str =
    "stratalloc: page mode: there are no more pages with guards; further blocks have guard bytes around them\n";

#[test]
fn d12_exhausted_memory_is_null_and_no_report() {
    for words in MODES {
        for said in [run_with(700_000, words, "fill"), run_with(400_000, words, "limit"), run(words, "mappings")] {
            // There may be no more addresses for blocks with pages of their own: that is said, once.
            let rest = said.stderr.strip_prefix(NO_MORE_PAGES).unwrap_or(&said.stderr).to_string();
            Said { stderr: rest, ..said }.is_silent();
        }
    }
}

#[test]
fn words_that_say_nothing_are_warned_of() {
    let said = run("pages,leaks", "nothing 24 8");
    assert!(
        said.status.success()
            && said.stderr.starts_with("stratalloc: STRATALLOC_DEBUG: ignored: \"pages\"; the words are off, "),
        "{said:?}"
    );
    let off = run("off", "overflow 24 8 1");
    assert!(off.status.success() && off.stdout == "done\n" && off.stderr.is_empty(), "{off:?}");
}

#[test]
fn some_blocks_have_pages_of_their_own_and_the_others_guards_if_that_is_said() {
    run("sample=10", "overflow-many 24 8 1000").reports(BEHIND, &["hunted::make_the_block+", "hunted::write_a_byte+"]);
    run("sample=1000000", "overflow 24 8 1").is_silent();
    run("sample=1000000,canary", "overflow 24 8 1").reports(OVERFLOW, &["hunted::make_the_block+"]);
}

#[test]
fn as_much_is_held_back_as_is_wanted() {
    let noticed = |words: &str| {
        let said = run(words, "write-after-free 24 8 2");
        said.reports(WRITTEN_AFTER_FREE, &["  noticed by "]);
        said.stderr[said.stderr.find("  noticed by ").expect("it is said")..].contains("hunted::free_others+")
    };
    // 20,000 other blocks are freed behind the one that was written: it leaves among them, or when the process exits.
    assert!(noticed("") && noticed("blocks=30000,quarantine=100k") && !noticed("blocks=30000,quarantine=8m"));
    // What is not held back is the heap's at once.
    run("quarantine=0", "write-after-free 24 8 2").is_silent();
    run("blocks=0", "write-after-free 24 8 2").is_silent();
}

#[test]
fn a_backtrace_has_as_many_frames_as_are_wanted() {
    let frames = |words: &str| {
        let said = run(words, "overflow 24 8 1");
        said.reports(OVERFLOW, &["  allocated "]);
        let lines = said.stderr.lines().skip_while(|line| !line.starts_with("  allocated "));
        lines.skip(1).take_while(|line| !line.starts_with("  noticed ")).count()
    };
    assert_eq!(frames("frames=0"), 0);
    let (some, more) = (frames("frames=3"), frames("frames=16"));
    assert!((1..=3).contains(&some) && more >= 3, "{some}, {more}");
}

#[test]
fn threads_and_sizes_may_be_left_out() {
    run("", "unwatched 24 8").reports(OVERFLOW, &["  allocated ", "  noticed by"]);
    let some = run("min=100,max=1000", "overflow 24 8 1");
    some.reports(OVERFLOW, &["  allocated "]);
    assert!(!some.stderr.contains("make_the_block"), "{}", some.stderr);
    run("min=10,max=1000", "overflow 24 8 1").reports(OVERFLOW, &["hunted::make_the_block+"]);
}
