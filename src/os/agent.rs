//! A thread that comes when it is summoned, works for a while, and ends: for what must happen after the last call.

use crate::sync::{AcqRel, AtomicU32, AtomicUsize, Relaxed, Release};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::null_mut;

/// What the thread runs.
pub(crate) type Body = extern "C" fn(*mut c_void) -> *mut c_void;

/// Its stack: enough for a few calls and for the thread-locals of a large program.
const STACK_BYTES: usize = 256 << 10;

/// There is no thread to be had, one may be summoned, or one is at work.
const NONE: u32 = 0;
const AWAY: u32 = 1;
const AT_WORK: u32 = 2;

/// The one thread of that kind that a source has, or may have.
#[derive(Debug)]
pub(crate) struct Agent {
    state: AtomicU32,
    /// The function, as an address; 0 before `enlist`.
    body: AtomicUsize,
}

impl Agent {
    crate::sync::const_unless_loom! {
        pub(crate) fn new() -> Self {
            Self { state: AtomicU32::new(NONE), body: AtomicUsize::new(0) }
        }
    }

    /// From now on a summons starts a thread with `body`, which ends when `dismiss` says so. Nothing happens where `body`
    /// could be unloaded while the thread is in it.
    pub(crate) fn enlist(&self, body: Body) {
        if !stays(body) {
            return;
        }
        self.body.store(body as usize, Relaxed);
        // Release: publishes the body; pairs with the exchange in `summon`.
        self.state.store(AWAY, Release);
    }

    /// Whether there is a thread to be summoned.
    pub(crate) fn is_enlisted(&self) -> bool {
        self.state.load(Relaxed) != NONE
    }

    /// Whether the thread is at work.
    pub(crate) fn is_at_work(&self) -> bool {
        self.state.load(Relaxed) == AT_WORK
    }

    /// Makes sure that the thread is at work; false if none can be had. It allocates nothing from the heap.
    pub(crate) fn summon(&self) -> bool {
        match self.state.load(Relaxed) {
            AT_WORK => true,
            // Acquire: pairs with `enlist`, for the body, and with `dismiss`, for what the last thread did.
            AWAY if self.state.compare_exchange(AWAY, AT_WORK, AcqRel, Relaxed).is_ok() => self.begin(),
            AWAY => true,
            _ => false,
        }
    }

    #[cold]
    fn begin(&self) -> bool {
        let begun = start(self.body.load(Relaxed));
        if !begun {
            // Where threads are refused once, they are not asked for again.
            self.state.store(NONE, Relaxed);
        }
        begun
    }

    /// Says, in the thread, that it is about to end: the next summons starts another one.
    pub(crate) fn dismiss(&self) {
        // Release: pairs with the exchange in `summon`: the next thread sees what this one did.
        self.state.store(AWAY, Release);
    }

    /// Takes a dismissal back, in the thread; false if another one has been summoned meanwhile.
    pub(crate) fn stay(&self) -> bool {
        self.state.compare_exchange(AWAY, AT_WORK, AcqRel, Relaxed).is_ok()
    }

    /// After a fork, in the child: the thread is not here.
    pub(crate) fn forget(&self) {
        let _ = self.state.compare_exchange(AT_WORK, AWAY, AcqRel, Relaxed);
    }
}

/// Makes sure that the code of `body` stays loaded as long as the process lives: a thread may be in it, or about to begin
/// there, when its library is closed. False if it may go.
fn stays(body: Body) -> bool {
    cfg!(target_feature = "crt-static") || is_in_program(body) || pin_library(body)
}

/// Whether `body` is code of the program itself, which is never unloaded.
fn is_in_program(body: Body) -> bool {
    /// Called with what the loader knows of the program, which comes first, and with the address of an address: 1 if that
    /// lies in the program, and -1 if not. Either ends the walk.
    unsafe extern "C" fn look(object: *mut libc::dl_phdr_info, _: usize, address: *mut c_void) -> libc::c_int {
        // SAFETY: the loader hands a valid object, which stays while we are here.
        let object = unsafe { &*object };
        // SAFETY: `is_in_program` hands the address of one.
        let address = unsafe { address.cast::<usize>().read() };
        // SAFETY: the loader says where the program's headers are, and how many.
        let headers = unsafe { core::slice::from_raw_parts(object.dlpi_phdr, usize::from(object.dlpi_phnum)) };
        let offset = address.wrapping_sub(object.dlpi_addr as usize);
        let holds = |header: &libc::Elf64_Phdr| offset.wrapping_sub(header.p_vaddr as usize) < header.p_memsz as usize;
        if headers.iter().any(|header| header.p_type == libc::PT_LOAD && holds(header)) { 1 } else { -1 }
    }
    let mut address = body as usize;
    // SAFETY: `look` is such a function, and the address lives as long as the call.
    unsafe { libc::dl_iterate_phdr(Some(look), (&raw mut address).cast()) == 1 }
}

/// Lets the library that `body` is code of never be unloaded.
#[cfg(not(target_feature = "crt-static"))]
fn pin_library(body: Body) -> bool {
    let mut library = MaybeUninit::<libc::Dl_info>::uninit();
    // SAFETY: the place is ours; any address may be asked for.
    if unsafe { libc::dladdr(body as *const c_void, library.as_mut_ptr()) } == 0 {
        return false;
    }
    // SAFETY: written by the call above, which has found the library.
    let name = unsafe { library.assume_init() }.dli_fname;
    let flags = libc::RTLD_LAZY | libc::RTLD_NOLOAD | libc::RTLD_NODELETE;
    // SAFETY: the name is the loader's own. The library is loaded, so none of its code is run.
    unsafe { !libc::dlopen(name, flags).is_null() }
}

/// Here there are no libraries.
#[cfg(target_feature = "crt-static")]
fn pin_library(_: Body) -> bool {
    false
}

/// Starts a detached thread that no signal is delivered to.
fn start(body: usize) -> bool {
    // SAFETY: `enlist` made the address of just such a function.
    let body = unsafe { core::mem::transmute::<usize, Body>(body) };
    with_signals_blocked(|| {
        let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
        // SAFETY: the place is ours.
        if unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) } != 0 {
            return false;
        }
        // SAFETY: initialised above. A stack size that is refused leaves the system's own.
        let _ = unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK_BYTES) };
        // SAFETY: as above; the value is one of the two there are.
        let detached =
            unsafe { libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED) };
        let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
        // SAFETY: the attributes are initialised, and the function takes a pointer that it does not use.
        let started = detached == 0
            && unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), body, null_mut()) } == 0;
        // SAFETY: initialised above, and used no more.
        let _ = unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
        started
    })
}

/// Runs `section` with all signals of this thread blocked: a thread started there never takes one from the program's own.
fn with_signals_blocked(section: impl FnOnce() -> bool) -> bool {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the place is ours.
    let _ = unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: both sets are ours, and the first is filled.
    if unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) } != 0 {
        return false;
    }
    let result = section();
    // SAFETY: written by the call above.
    let _ = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), null_mut()) };
    result
}

/// Lets the calling thread sleep for so many milliseconds, below a second.
pub(crate) fn sleep(milliseconds: u32) {
    let time = libc::timespec { tv_sec: 0, tv_nsec: libc::c_long::from(milliseconds) * 1_000_000 };
    // SAFETY: the time is there to be read; to wake early does no harm.
    let _ = unsafe { libc::nanosleep(&raw const time, null_mut()) };
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
