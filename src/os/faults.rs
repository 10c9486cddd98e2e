//! Faults: who hears of them, where the thread was, and a stack to work on meanwhile.

use super::Span;
use crate::sync::{Acquire, AtomicUsize, Relaxed, Release};
use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::MaybeUninit;
use core::ptr::null_mut;

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

/// Runs `work` on another stack, `stack`: a handler's own may be small. A panic in it ends the process.
///
/// # Safety
/// - `stack` is memory that can be read and written, and nobody else uses it until this returns;
/// - it has room for all that `work` calls: nothing guards its end.
pub(crate) unsafe fn on_stack(stack: Span, work: &mut dyn FnMut()) {
    extern "C" fn run(work: *mut &mut dyn FnMut()) {
        // SAFETY: `on_stack` hands it, and waits.
        unsafe { (*work)() };
    }
    let mut work = work;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the stack is free and has room, as the caller states; a function of C is called there, and then the old stack is
    // used again, whose end is kept in a register that the function preserves.
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

/// Who comes first when an address faults.
static FIRST: AtomicUsize = AtomicUsize::new(0);

/// Has `ours`, the same in every call, called when an address faults, before whoever was there for it. Another call finds out
/// whether somebody has taken its place since, and then comes before that one.
pub(crate) fn on_fault(ours: OnFault) {
    // Relaxed: the system's call that installs a handler publishes it to that one.
    FIRST.store(ours as usize, Relaxed);
    CHAINS.iter().zip(FAULTS).for_each(|(chain, signal)| chain.come_first(signal));
}

/// How often others may take the place of our handler: after that it is theirs.
const GENERATIONS: usize = 8;

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// Our handler has another address each time it comes first. Who takes its place may hand faults on to it, or put it back:
/// then the address tells which handlers are meant, those before it, of which that one is none.
static OURS: [Handler; GENERATIONS] =
    [handle::<0>, handle::<1>, handle::<2>, handle::<3>, handle::<4>, handle::<5>, handle::<6>, handle::<7>];

/// Whether a signal comes to us.
fn is_ours(action: &libc::sigaction) -> bool {
    OURS.iter().any(|ours| *ours as usize == action.sa_sigaction)
}

/// Who handled a signal before us.
struct Chain {
    /// By generation. Of the first, whose handler is never installed, it stays zero: the system's own way.
    before: [UnsafeCell<MaybeUninit<libc::sigaction>>; GENERATIONS],
    generation: AtomicUsize,
    /// The newest generation that somebody writes, or has written.
    claimed: AtomicUsize,
}

// SAFETY: a generation is written by one thread, before its handler is installed.
unsafe impl Sync for Chain {}

static CHAINS: [Chain; 2] = [const {
    Chain {
        before: [const { UnsafeCell::new(MaybeUninit::zeroed()) }; GENERATIONS],
        generation: AtomicUsize::new(0),
        claimed: AtomicUsize::new(0),
    }
}; 2];

impl Chain {
    /// Comes before whoever handles `signal` now, if that is somebody else.
    fn come_first(&self, signal: c_int) {
        // Acquire: pairs with the release below.
        let (now, next) = (handler_of(signal), self.generation.load(Acquire) + 1);
        // One thread at a time: the next generation is its own. Relaxed: who loses writes nothing.
        if is_ours(&now)
            || next >= GENERATIONS
            || self.claimed.compare_exchange(next - 1, next, Relaxed, Relaxed).is_err()
        {
            return;
        }
        // SAFETY: this generation is this thread's to write, and read by nobody before its handler is installed.
        unsafe { self.before[next].get().write(MaybeUninit::new(now)) };
        // Release: the generation is written; pairs with the acquire above.
        self.generation.store(next, Release);
        let mut action = libc::sigaction { sa_sigaction: OURS[next] as usize, ..self.before(0) };
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        install(signal, &action);
    }

    /// Who was there before `generation`.
    fn before(&self, generation: usize) -> libc::sigaction {
        // SAFETY: written before the handler was installed, and never again.
        let before = unsafe { self.before[generation].get().read() };
        // SAFETY: zero bits are one, and so is what the system wrote.
        unsafe { before.assume_init() }
    }

    /// Which generation's `before` gets a fault that comes to `generation`: the last one who does not have it yet, through a
    /// generation in `with` or as the handler `now`. (One who was installed again is there more than once.)
    fn next(&self, generation: usize, with: usize, now: &libc::sigaction) -> usize {
        let has_it = |action: usize| {
            let is_with = |other: usize| with >> other & 1 != 0 && self.before(other).sa_sigaction == action;
            now.sa_sigaction == action || (1..GENERATIONS).any(is_with)
        };
        (1..=generation).rev().find(|other| !has_it(self.before(*other).sa_sigaction)).unwrap_or(0)
    }
}

/// Who handles a signal now.
fn handler_of(signal: c_int) -> libc::sigaction {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the place is ours.
    let _ = unsafe { libc::sigaction(signal, core::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zero bits are one, and so is what the system writes.
    unsafe { action.assume_init() }
}

/// Has `action` handle a signal.
fn install(signal: c_int, action: &libc::sigaction) {
    // SAFETY: what it names was installed before, or stays as long as the process.
    let _ = unsafe { libc::sigaction(signal, action, null_mut()) };
}

/// Which handlers have a fault now. It is noted where what the system tells of the fault ends, in words that it leaves zero:
/// whoever hands a fault on hands them on, too, and who leaves a handler by a jump leaves them behind.
#[derive(Clone, Copy)]
#[repr(C)]
struct Note {
    /// Whose note it is: there may be two heaps of this kind in a process, each with a hunter.
    by: *const Chain,
    /// A bit for each generation whose `before` has it.
    with: usize,
}

/// Called by the system, or by whoever took the place of this generation's handler and hands on to it.
extern "C" fn handle<const GENERATION: usize>(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let chain = &CHAINS[usize::from(signal == FAULTS[1])];
    let place = info.wrapping_add(1).cast::<Note>().wrapping_sub(1);
    // SAFETY: the end of what the system hands.
    let note = unsafe { place.read() };
    let with = if core::ptr::eq(note.by, chain) { note.with } else { 0 };
    if with == 0 {
        // SAFETY: the system hands one.
        let info = unsafe { &*info };
        // SAFETY: it is of a fault.
        let address = unsafe { info.si_addr() } as usize;
        // SAFETY: `on_fault` stored one.
        let ours = unsafe { core::mem::transmute::<usize, OnFault>(FIRST.load(Relaxed)) };
        ours(address, &interrupted(context));
    }
    let next = chain.next(GENERATION, with, &handler_of(signal));
    // SAFETY: as above.
    unsafe { place.write(Note { by: chain, with: with | 1 << next }) };
    call(&chain.before(next), signal, info, context);
    // SAFETY: as above.
    unsafe { place.write(note) };
}

/// Hands a fault to `before`; where that is nobody, the next fault ends the process.
fn call(before: &libc::sigaction, signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    if before.sa_flags & libc::SA_RESETHAND != 0 {
        // Once only, as the system does: else one that counts on that, and returns, is called without end.
        install(signal, &CHAINS[0].before(0));
    }
    match before.sa_sigaction {
        // Puts back what was there; the instruction faults again when this returns.
        libc::SIG_DFL | libc::SIG_IGN => install(signal, before),
        // SAFETY: with this flag it is such a function.
        action if before.sa_flags & libc::SA_SIGINFO != 0 => unsafe {
            core::mem::transmute::<usize, Handler>(action)(signal, info, context);
        },
        // SAFETY: without it, one of the other kind.
        action => unsafe { core::mem::transmute::<usize, extern "C" fn(c_int)>(action)(signal) },
    }
}
