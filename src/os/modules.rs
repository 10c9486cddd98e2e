//! Which module, that is program or shared library, an address lies in.

/// Where a module is mapped, from its first byte, the ELF header, on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Module {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The header of its unwind tables; 0 if that is not known.
    pub(crate) tables: usize,
}

/// What the loader says of an address.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Found {
    In(Module),
    Nowhere,
    /// It cannot be asked.
    Unknown,
}

/// What the loader tells (glibc's `struct dl_find_object` for this processor).
#[repr(C)]
#[derive(Default)]
struct Answer {
    flags: u64,
    start: usize,
    end: usize,
    map: usize,
    tables: usize,
    reserved: [u64; 7],
}

type Find = unsafe extern "C" fn(address: usize, answer: *mut Answer) -> libc::c_int;

/// Asks the loader, without a lock, from signal handlers too.
pub(crate) fn module_at(address: usize) -> Found {
    let Some(find) = finder() else { return Found::Unknown };
    let mut answer = Answer::default();
    // SAFETY: the answer is as glibc documents it; any address may be asked for.
    if unsafe { find(address, &raw mut answer) } != 0 {
        return Found::Nowhere;
    }
    Found::In(Module { start: answer.start, end: answer.end, tables: answer.tables })
}

/// Where the program begins: its segments are described right behind its first header, and the kernel says where.
pub(crate) fn program_start() -> usize {
    const HEADER_BYTES: usize = 64;
    // SAFETY: no preconditions.
    unsafe { libc::getauxval(libc::AT_PHDR) as usize }.wrapping_sub(HEADER_BYTES)
}

/// glibc's `_dl_find_object`, from 2.35 on.
fn finder() -> Option<Find> {
    let at: *const ();
    // SAFETY: reads the address of a weak symbol, 0 if nobody defines it.
    unsafe {
        core::arch::asm!(
            ".weak _dl_find_object",
            "mov {0}, qword ptr [rip + _dl_find_object@GOTPCREL]",
            out(reg) at,
            options(nostack, preserves_flags, pure, nomem)
        );
    }
    // SAFETY: null is `None`; else it is a function of just this type.
    unsafe { core::mem::transmute::<*const (), Option<Find>>(at) }
}
