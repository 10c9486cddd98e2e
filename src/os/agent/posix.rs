//! The agent's thread as one of the C library's: it is detached, and no signal is delivered to it.

use super::{Body, with_signals_blocked};
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::null_mut;

/// Its stack: enough for a few calls and for the thread-locals of a large program.
const STACK_BYTES: usize = 256 << 10;

/// What there is to know of the thread: nothing.
#[derive(Debug)]
pub(super) struct Thread;

impl Thread {
    pub(super) const fn new() -> Self {
        Self
    }

    /// Starts it.
    pub(super) fn start(&self, body: Body) -> bool {
        with_signals_blocked(|| start_detached(body))
    }

    /// After a fork, in the child: it is not here.
    pub(super) fn forget(&self) {}
}

/// Makes sure that the code of `body` stays loaded as long as the process lives: a thread may be in it, or about to begin
/// there, when its library is closed. False if it may go.
pub(super) fn stays(body: Body) -> bool {
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

fn start_detached(body: Body) -> bool {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: the place is ours.
    if unsafe { libc::pthread_attr_init(attributes.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: initialised above. A stack size that is refused leaves the system's own.
    let _ = unsafe { libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), STACK_BYTES) };
    // SAFETY: as above; the value is one of the two there are.
    let detached = unsafe { libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED) };
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: the attributes are initialised, and the function takes a pointer that it does not use.
    let started = detached == 0
        && unsafe { libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), body, null_mut()) } == 0;
    // SAFETY: initialised above, and used no more.
    let _ = unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    started
}
