//! What a debugger of this heap asks of the system about the process and its threads. Nothing here allocates or locks.

#![allow(clippy::disallowed_methods, reason = "this folder is where the system is called")]

use super::Span;
use super::unix::map_with_flags;
use crate::sync::{AcqRel, AtomicUsize, Relaxed};
use core::ffi::{CStr, c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr::null_mut;

/// Fresh zeroed memory that becomes resident where it is written, however much of it there is.
pub(crate) fn map_sparse(bytes: usize) -> Option<Span> {
    let span = map_with_flags(bytes, libc::MAP_NORESERVE)?;
    // SAFETY: the mapping is ours; advice on huge pages changes no contents, and on dumps neither.
    let _ = unsafe { libc::madvise(span.at as *mut c_void, span.bytes, libc::MADV_NOHUGEPAGE) };
    Some(span)
}

/// The system's number of the calling thread.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: no preconditions.
    let id = unsafe { libc::syscall(libc::SYS_gettid) };
    u32::try_from(id).unwrap_or(0)
}

/// The name of the calling thread, as the system has it: up to 15 bytes, and zeros behind them.
pub(crate) fn thread_name() -> [u8; 16] {
    let mut name = [0; 16];
    // SAFETY: the place has the 16 bytes that are written.
    let _ = unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
    name
}

/// Milliseconds since some moment before the process began.
pub(crate) fn milliseconds() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is ours.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1000).wrapping_add(time.tv_nsec as u64 / 1_000_000)
}

/// A counter that goes on by itself, and is cheap to read: its rate is the processor's affair.
#[inline(always)]
pub(crate) fn ticks() -> u64 {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: every processor of this kind has it.
    return unsafe { core::arch::x86_64::_rdtsc() };
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    (milliseconds() << 20)
}

/// Opens a file to be read; negative if that fails.
fn open(path: &CStr) -> c_int {
    // SAFETY: the path ends with a zero.
    unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) }
}

/// Reads a file through `buffer`, a piece at a time, until `take` has enough. False if it cannot be opened.
pub(crate) fn read_file(path: &CStr, buffer: &mut [u8], mut take: impl FnMut(&[u8]) -> bool) -> bool {
    let file = open(path);
    if file < 0 {
        return false;
    }
    loop {
        // SAFETY: the buffer is ours to write.
        let count = unsafe { libc::read(file, buffer.as_mut_ptr().cast::<c_void>(), buffer.len()) };
        let piece = usize::try_from(count).ok().filter(|count| *count > 0).and_then(|count| buffer.get(..count));
        if !piece.is_some_and(&mut take) {
            break;
        }
    }
    // SAFETY: opened above, and used no more.
    let _ = unsafe { libc::close(file) };
    true
}

/// Bytes in a page.
pub(crate) fn page_bytes() -> usize {
    // SAFETY: no preconditions.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Whether the page at `at` is in memory.
pub(crate) fn is_resident(at: usize) -> bool {
    let mut state = 0;
    // SAFETY: one page, one byte; what is not mapped is an error.
    let known = unsafe { libc::mincore(at as *mut c_void, 1, &raw mut state) } == 0;
    known && state & 1 != 0
}

/// Writes all of `bytes` to file descriptor 2, and waits if it is a pipe that is full.
pub(crate) fn say(mut bytes: &[u8]) {
    let mut refusals = 0;
    while !bytes.is_empty() && refusals < 1000 {
        // SAFETY: the bytes are valid.
        let count = unsafe { libc::syscall(libc::SYS_write, 2, bytes.as_ptr(), bytes.len()) };
        match usize::try_from(count) {
            Ok(count) if count > 0 => bytes = bytes.get(count..).unwrap_or_default(),
            // Interrupted, or a pipe that does not wait by itself.
            _ => {
                refusals += 1;
                super::unix::pause(1_000_000);
            }
        }
    }
}

/// Shows each line of `/proc/self/maps` to `show`, with the range it is about.
fn each_mapping(mut show: impl FnMut(Span, &[u8])) {
    let (mut line, mut length) = ([0; 512], 0);
    let mut piece = [0; 1024];
    read_file(c"/proc/self/maps", &mut piece, |bytes| {
        for byte in bytes {
            if *byte == b'\n' {
                let line = &line[..length];
                if let Some(span) = range(line) {
                    show(span, line);
                }
                length = 0;
            } else if let Some(place) = line.get_mut(length) {
                *place = *byte;
                length += 1;
            }
        }
        true
    });
}

/// The range that a line of `/proc/self/maps` begins with.
fn range(line: &[u8]) -> Option<Span> {
    let hexadecimal = |text: &[u8]| usize::from_str_radix(core::str::from_utf8(text).ok()?, 16).ok();
    let mut ends = line.split(|byte| *byte == b' ').next()?.split(|byte| *byte == b'-');
    let (at, end) = (hexadecimal(ends.next()?)?, hexadecimal(ends.next()?)?);
    Some(Span { at, bytes: end.checked_sub(at)? })
}

/// Shows the line of `/proc/self/maps` about the mapping that `address` is in.
pub(crate) fn mapping_around(address: usize, mut show: impl FnMut(&[u8])) {
    each_mapping(|span, line| {
        if span.contains(Span { at: address, bytes: 1 }) {
            show(line);
        }
    });
}

/// Shows each private mapping that the program may read and write.
pub(crate) fn each_writable_mapping(mut show: impl FnMut(Span)) {
    each_mapping(|span, line| {
        let access = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        if access.starts_with(b"rw") && access.ends_with(b"p") {
            show(span);
        }
    });
}

/// The value of an environment variable, as the process began with it, in `buffer`; `None` if there is none, or if it is longer.
/// (By the system's own copy: the C library may not be ready when the first block is asked for.)
pub(crate) fn environment<'b>(name: &[u8], buffer: &'b mut [u8]) -> Option<&'b [u8]> {
    let mut piece = [0; 512];
    // Of the entry that is being read: how much of the name it has matched, and whether it may still be the one.
    let (mut matched, mut may_be, mut length) = (0, true, 0);
    let mut found = false;
    read_file(c"/proc/self/environ", &mut piece, |bytes| {
        for byte in bytes {
            match (*byte, may_be) {
                (0, true) if matched > name.len() => {
                    found = true;
                    return false;
                }
                (0, _) => (matched, may_be, length) = (0, true, 0),
                (byte, true) if matched < name.len() => (matched, may_be) = (matched + 1, byte == name[matched]),
                (byte, true) if matched == name.len() => (matched, may_be) = (matched + 1, byte == b'='),
                (byte, true) => match buffer.get_mut(length) {
                    Some(place) => (*place, length) = (byte, length + 1),
                    None => may_be = false,
                },
                (_, false) => {}
            }
        }
        true
    });
    found.then(|| &buffer[..length])
}

/// Makes whole pages a guard: whatever touches them faults, and what was in them goes. By `MADV_GUARD_INSTALL` where the
/// kernel has it, which costs no mapping.
///
/// # Safety
/// - The pages are ours and nobody uses them.
pub(crate) unsafe fn install_guard(span: Span) -> bool {
    const MADV_GUARD_INSTALL: c_int = 102;
    // SAFETY: as the caller states.
    unsafe { libc::madvise(span.at as *mut c_void, span.bytes, MADV_GUARD_INSTALL) == 0 }
}

/// Takes guards away: the pages read zero.
///
/// # Safety
/// - The pages are ours and nobody uses them.
pub(crate) unsafe fn remove_guard(span: Span) -> bool {
    const MADV_GUARD_REMOVE: c_int = 103;
    // SAFETY: as the caller states.
    unsafe { libc::madvise(span.at as *mut c_void, span.bytes, MADV_GUARD_REMOVE) == 0 }
}

/// Makes whole pages accessible, or takes their memory and all access away; at the price of up to two mappings.
///
/// # Safety
/// - The pages are ours and nobody uses them.
pub(crate) unsafe fn set_access(span: Span, accessible: bool) -> bool {
    let at = span.at as *mut c_void;
    if !accessible {
        // SAFETY: as the caller states. If it is refused the memory stays.
        let _ = unsafe { libc::madvise(at, span.bytes, libc::MADV_DONTNEED) };
    }
    let access = if accessible { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_NONE };
    // SAFETY: as the caller states.
    unsafe { libc::mprotect(at, span.bytes, access) == 0 }
}

/// Has `last` called when the process exits in an orderly way.
pub(crate) fn at_exit(last: extern "C" fn()) -> bool {
    // SAFETY: the function stays as long as the process.
    unsafe { libc::atexit(last) == 0 }
}

/// What a handler of faults is told: the address that was touched, and where the thread was.
pub(crate) type OnFault = fn(address: usize, at: &Registers);

/// Where a thread is: the registers that calls preserve.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Registers {
    pub(crate) rbx: usize,
    pub(crate) rbp: usize,
    pub(crate) r12_to_r15: [usize; 4],
    pub(crate) rsp: usize,
    pub(crate) rip: usize,
}

/// Where a thread was that a signal interrupted.
#[cfg(target_arch = "x86_64")]
fn interrupted(context: *mut c_void) -> Registers {
    // SAFETY: the system hands one to each handler of this kind.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    let of = |register: c_int| context.uc_mcontext.gregs[register as usize] as usize;
    Registers {
        rbx: of(libc::REG_RBX),
        rbp: of(libc::REG_RBP),
        r12_to_r15: [libc::REG_R12, libc::REG_R13, libc::REG_R14, libc::REG_R15].map(of),
        rsp: of(libc::REG_RSP),
        rip: of(libc::REG_RIP),
    }
}
#[cfg(not(target_arch = "x86_64"))]
fn interrupted(_: *mut c_void) -> Registers {
    Registers { rbx: 0, rbp: 0, r12_to_r15: [0; 4], rsp: 0, rip: 0 }
}

/// Runs `work` on another stack, `stack`: a handler's own may be small.
pub(crate) fn on_stack(stack: Span, work: &mut dyn FnMut()) {
    extern "C" fn run(work: *mut &mut dyn FnMut()) {
        // SAFETY: `on_stack` hands it, and waits.
        unsafe { (*work)() };
    }
    let mut work = work;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the stack is the caller's, and free; a function of C is called there, and then the old stack is used again,
    // whose end is kept in a register that the function preserves.
    unsafe {
        core::arch::asm!(
            "mov r12, rsp",
            "mov rsp, {top}",
            "call {run}",
            "mov rsp, r12",
            top = in(reg) (stack.at + stack.bytes) & !15,
            run = sym run,
            in("rdi") &raw mut work,
            out("r12") _,
            clobber_abi("C"),
        );
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = stack;
        run(&raw mut work);
    }
}

/// The signals of a fault.
const FAULTS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Who handled faults before, and who does.
struct Handlers {
    /// By signal; the newest generation counts.
    before: core::cell::UnsafeCell<[[MaybeUninit<libc::sigaction>; 2]; GENERATIONS]>,
    generation: AtomicUsize,
    ours: AtomicUsize,
}

/// How often others may take the place of our handler: after that it is theirs.
const GENERATIONS: usize = 8;

// SAFETY: a generation is written by one thread, before it is published.
unsafe impl Sync for Handlers {}

static HANDLERS: Handlers = Handlers {
    before: core::cell::UnsafeCell::new([const { [const { MaybeUninit::zeroed() }; 2] }; GENERATIONS]),
    generation: AtomicUsize::new(0),
    ours: AtomicUsize::new(0),
};

/// Has `ours`, the same in every call, called when an address faults, before whoever was there for it. Another call finds out
/// whether somebody has taken its place since, and then comes before that one.
pub(crate) fn on_fault(ours: OnFault) {
    HANDLERS.ours.store(ours as usize, Relaxed);
    let generation = HANDLERS.generation.load(Relaxed);
    if FAULTS.into_iter().all(|signal| handler_of(signal).sa_sigaction == handle as *const () as usize) {
        return;
    }
    // One thread at a time: the next generation is its own.
    if generation >= GENERATIONS - 1
        || HANDLERS.generation.compare_exchange(generation, generation + 1, AcqRel, Relaxed).is_err()
    {
        return;
    }
    for (index, signal) in FAULTS.into_iter().enumerate() {
        let mut before = handler_of(signal);
        if before.sa_sigaction == handle as *const () as usize {
            before = handler_before(generation, index);
        }
        // SAFETY: this generation is this thread's to write, and read by nobody before the handler is installed.
        unsafe { (&mut *HANDLERS.before.get())[generation + 1][index].write(before) };
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: zero bits are one.
        let action = unsafe { action.assume_init_mut() };
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        // SAFETY: the handler stays as long as the process.
        let _ = unsafe { libc::sigaction(signal, action, null_mut()) };
    }
}

/// Who handled signal `index` before `generation`.
fn handler_before(generation: usize, index: usize) -> libc::sigaction {
    // SAFETY: written before it was published, and never again.
    let before = unsafe { &(&*HANDLERS.before.get())[generation][index] };
    // SAFETY: zero bits are one, and so is what the system wrote.
    unsafe { before.assume_init() }
}

/// Who handles a signal now.
fn handler_of(signal: c_int) -> libc::sigaction {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the place is ours.
    let _ = unsafe { libc::sigaction(signal, core::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zero bits are one, and so is what the system writes.
    unsafe { action.assume_init() }
}

/// Called by the system.
extern "C" fn handle(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the system hands one.
    let info_of_fault = unsafe { &*info };
    // SAFETY: it is of a fault.
    let address = unsafe { info_of_fault.si_addr() } as usize;
    // SAFETY: `on_fault` stored one.
    let ours = unsafe { core::mem::transmute::<usize, OnFault>(HANDLERS.ours.load(Relaxed)) };
    ours(address, &interrupted(context));
    forward(signal, info, context);
}

/// Hands a fault on to whoever handled it before; where nobody did, the next fault ends the process.
fn forward(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let (index, generation) = (usize::from(signal == FAULTS[1]), HANDLERS.generation.load(Relaxed));
    let before = handler_before(generation, index);
    match before.sa_sigaction {
        libc::SIG_DFL | libc::SIG_IGN => {
            // SAFETY: puts back what was there; the instruction faults again when this returns.
            let _ = unsafe { libc::sigaction(signal, &raw const before, null_mut()) };
        }
        // SAFETY: with this flag it is such a function.
        action if before.sa_flags & libc::SA_SIGINFO != 0 => unsafe {
            core::mem::transmute::<usize, extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void)>(action)(
                signal, info, context,
            );
        },
        // SAFETY: without it, one of the other kind.
        action => unsafe { core::mem::transmute::<usize, extern "C" fn(c_int)>(action)(signal) },
    }
}
