//! What the C names do with what they are given.

use crate::symmetric::transport::{AtomicOp, Width};
use crate::symmetric::{self, SymmetricError};
use core::ffi::{CStr, c_char, c_int, c_void};
use core::ptr::null_mut;
use std::format;

/// The number of `SHMEM_THREAD_MULTIPLE`.
const MULTIPLE: c_int = 3;

/// Says what was wrong.
fn tell(error: &SymmetricError) {
    let pe = if symmetric::is_initialized() { format!("PE {}: ", symmetric::my_pe()) } else { Default::default() };
    crate::fatal::tell(&format!("stratalloc: {pe}{error}\n"));
}

/// Says what was wrong, and ends the job.
#[cold]
#[inline(never)]
fn die(error: &SymmetricError) -> ! {
    tell(error);
    symmetric::global_exit(1)
}

pub(super) fn init() {
    // Again is nothing.
    if symmetric::is_initialized() {
        return;
    }
    if let Err(error) = symmetric::init_with_variables() {
        tell(&error);
        std::process::exit(1);
    }
}

pub(super) unsafe fn init_thread(provided: *mut c_int) -> c_int {
    let result = symmetric::init_with_variables();
    if let Err(error) = &result {
        tell(error);
    } else if !provided.is_null() {
        // SAFETY: the caller's promise.
        unsafe { provided.write(MULTIPLE) };
    }
    c_int::from(result.is_err())
}

pub(super) fn finalize() {
    if symmetric::is_initialized() {
        done(symmetric::finalize);
    }
}

/// The number of a PE, of which there may be none.
fn number(pe: c_int) -> usize {
    usize::try_from(pe).unwrap_or(usize::MAX)
}

pub(super) fn pe_accessible(pe: c_int) -> c_int {
    c_int::from(number(pe) < symmetric::n_pes())
}

pub(super) fn addr_accessible(address: *const c_void, pe: c_int) -> c_int {
    c_int::from(symmetric::addr_accessible(address.cast::<u8>(), number(pe)))
}

pub(super) fn ptr(address: *const c_void, pe: c_int) -> *mut c_void {
    symmetric::ptr(address.cast::<u8>(), number(pe)).map_or(null_mut(), |at| at.as_ptr().cast())
}

/// A block, or null. That there is no room is told by that alone.
pub(super) fn block(make: impl FnOnce() -> Result<*mut u8, SymmetricError>) -> *mut c_void {
    match make() {
        Ok(block) => block.cast(),
        Err(SymmetricError::NoRoom { .. }) => null_mut(),
        Err(error) => {
            tell(&error);
            null_mut()
        }
    }
}

pub(super) fn done(call: impl FnOnce() -> Result<(), SymmetricError>) {
    if let Err(error) = call() {
        tell(&error);
    }
}

pub(super) unsafe fn put(dest: *mut c_void, source: *const c_void, bytes: usize, pe: c_int) {
    // SAFETY: the caller's promise.
    if let Err(error) = unsafe { symmetric::put_bytes(dest as usize, source.cast(), bytes, number(pe)) } {
        die(&error);
    }
}

pub(super) unsafe fn get(dest: *mut c_void, source: *const c_void, bytes: usize, pe: c_int) {
    // SAFETY: the caller's promise.
    if let Err(error) = unsafe { symmetric::get_bytes(dest.cast(), source as usize, bytes, number(pe)) } {
        die(&error);
    }
}

pub(super) unsafe fn atomic(op: c_int, word: *mut c_void, value: u64, expected: u64, bytes: usize, pe: c_int) -> u64 {
    let op = match op {
        0 => AtomicOp::Fetch,
        1 => AtomicOp::Swap(value),
        2 => AtomicOp::Add(value),
        3 => AtomicOp::And(value),
        4 => AtomicOp::Or(value),
        5 => AtomicOp::Xor(value),
        _ => AtomicOp::CompareSwap { expected, new: value },
    };
    let width = if bytes == 4 { Width::Four } else { Width::Eight };
    // SAFETY: the caller's promise.
    unsafe { symmetric::atomic_of(op, word as usize, width, number(pe)) }.unwrap_or_else(|error| die(&error))
}

pub(super) fn rest(round: u32) {
    symmetric::rest(round);
}

pub(super) unsafe fn die_of(text: *const c_char) -> ! {
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(text) };
    crate::fatal::tell(&format!("stratalloc: {}\n", text.to_string_lossy()));
    symmetric::global_exit(1)
}
