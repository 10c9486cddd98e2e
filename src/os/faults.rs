//! Faults: who hears of them, where the thread was, and a stack to work on meanwhile.

use super::Span;
use crate::sync::{Acquire, AtomicUsize, Relaxed, Release};
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

/// Who handled faults before, and who does.
struct Handlers {
    /// By signal; the newest generation counts.
    before: core::cell::UnsafeCell<[[MaybeUninit<libc::sigaction>; 2]; GENERATIONS]>,
    generation: AtomicUsize,
    /// The newest generation that somebody writes, or has written.
    claimed: AtomicUsize,
    ours: AtomicUsize,
}

/// How often others may take the place of our handler: after that it is theirs.
const GENERATIONS: usize = 8;

// SAFETY: a generation is written by one thread, before it is published.
unsafe impl Sync for Handlers {}

static HANDLERS: Handlers = Handlers {
    before: core::cell::UnsafeCell::new([const { [const { MaybeUninit::zeroed() }; 2] }; GENERATIONS]),
    generation: AtomicUsize::new(0),
    claimed: AtomicUsize::new(0),
    ours: AtomicUsize::new(0),
};

/// Has `ours`, the same in every call, called when an address faults, before whoever was there for it. Another call finds out
/// whether somebody has taken its place since, and then comes before that one.
pub(crate) fn on_fault(ours: OnFault) {
    // Relaxed: the system's call below publishes it to every handler.
    HANDLERS.ours.store(ours as usize, Relaxed);
    // Acquire: pairs with the release below.
    let generation = HANDLERS.generation.load(Acquire);
    if FAULTS.into_iter().all(|signal| is_ours(&handler_of(signal))) {
        return;
    }
    // One thread at a time: the next generation is its own. Relaxed: who loses writes nothing.
    if generation + 1 >= GENERATIONS
        || HANDLERS.claimed.compare_exchange(generation, generation + 1, Relaxed, Relaxed).is_err()
    {
        return;
    }
    for (index, signal) in FAULTS.into_iter().enumerate() {
        let now = handler_of(signal);
        let before = if is_ours(&now) { handler_before(generation, index) } else { now };
        // SAFETY: this generation is this thread's to write, and read by nobody before it is published.
        unsafe { (&mut *HANDLERS.before.get())[generation + 1][index].write(before) };
    }
    // Release: publishes who was there before; pairs with the acquire above and in `forward`.
    HANDLERS.generation.store(generation + 1, Release);
    for signal in FAULTS {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: zero bits are one.
        let action = unsafe { action.assume_init_mut() };
        action.sa_sigaction = handle as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
        // SAFETY: the handler stays as long as the process.
        let _ = unsafe { libc::sigaction(signal, action, null_mut()) };
    }
}

/// Whether a signal comes to us.
fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == handle as *const () as usize
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
    // Acquire: pairs with the release in `on_fault`.
    let (index, generation) = (usize::from(signal == FAULTS[1]), HANDLERS.generation.load(Acquire));
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
