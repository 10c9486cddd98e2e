//! The walk: from a frame to its caller, by rules that are remembered, else by the tables.

use super::Frame;
use super::registers::{R12, RBP, RBX, RIP, RSP, Registers};
use super::row::{Caller, Found};
use super::rules::{self, Rule};
use super::stop::Stop;
use super::tables;
use super::words::{Copied, Direct, Stack, Words};
use core::mem::MaybeUninit;

/// The place in a program that a walk begins at: the registers that calls preserve.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    rbx: usize,
    rbp: usize,
    r12_to_r15: [usize; 4],
    rsp: usize,
    rip: usize,
}

impl Context {
    /// This place, in the function that this is inlined in. It is good until that function returns.
    #[inline(always)]
    pub(crate) fn here() -> Self {
        let mut context = MaybeUninit::<Self>::uninit();
        // SAFETY: writes the eight words of `context`, in their order.
        unsafe {
            core::arch::asm!(
                "mov qword ptr [{to}], rbx",
                "mov qword ptr [{to} + 8], rbp",
                "mov qword ptr [{to} + 16], r12",
                "mov qword ptr [{to} + 24], r13",
                "mov qword ptr [{to} + 32], r14",
                "mov qword ptr [{to} + 40], r15",
                "mov qword ptr [{to} + 48], rsp",
                "lea {here}, [rip]",
                "mov qword ptr [{to} + 56], {here}",
                to = in(reg) context.as_mut_ptr(),
                here = out(reg) _,
                options(nostack, preserves_flags)
            );
        }
        // SAFETY: written above, wholly.
        unsafe { context.assume_init() }
    }

    /// The place where a signal interrupted a thread.
    pub(crate) const fn interrupted(registers: &crate::os::Registers) -> Self {
        let crate::os::Registers { rbx, rbp, r12_to_r15, rsp, rip } = *registers;
        Self { rbx, rbp, r12_to_r15, rsp, rip }
    }

    /// The instruction.
    #[inline(always)]
    pub(crate) const fn ip(&self) -> usize {
        self.rip
    }

    /// A place that there may not be.
    #[cfg(test)]
    pub(super) const fn made_up(rip: usize, rsp: usize, rbp: usize) -> Self {
        Self { rbx: rbp, rbp, r12_to_r15: [rbp; 4], rsp, rip }
    }

    #[inline(always)]
    const fn position(&self) -> Position {
        Position { sp: self.rsp, bp: self.rbp, instruction: self.rip, back: 0 }
    }

    fn registers(&self) -> Registers {
        let named = [(RBX, self.rbx), (RBP, self.rbp), (RSP, self.rsp), (RIP, self.rip)];
        Registers::only(named.into_iter().chain((R12..).zip(self.r12_to_r15)))
    }
}

/// Where the stack ends in the function that this is inlined in: the return address of it and of all its callers lie above.
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let pointer;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// Fills `frames` with the callers of the function that `context` was taken in, the nearest first, as many as there are or
/// have room; how many that were.
///
/// Each has the return address into a caller and the word of the stack that it was read from. `stack` is the calling
/// thread's. The first walk over a place takes some 6 KiB of stack (15 in a build that is not
/// optimised), a later one less than 300 bytes.
pub(crate) fn walk(context: &Context, stack: &mut Stack, frames: &mut [Frame]) -> usize {
    let mut direct = stack.direct(context.rsp);
    let mut walk = Walk { frames, len: 0, at: context.position() };
    match walk.run(&mut direct) {
        Stop::End => walk.len,
        Stop::Unreadable => walk.go_on(context, direct),
        Stop::Unknown => walk.again(context, direct),
    }
}

/// A frame, by the registers that nearly all callers are found by.
#[derive(Clone, Copy)]
struct Position {
    sp: usize,
    bp: usize,
    /// The instruction whose row holds: the one that the frame is at, or before that, in the call.
    instruction: usize,
    /// How many bytes before.
    back: usize,
}

impl Position {
    /// The caller, by a rule.
    #[inline(always)]
    fn caller(self, rule: Rule, words: &mut impl Words) -> Result<(Self, Frame), Stop> {
        if rule.is_end() {
            return Err(Stop::End);
        }
        let base = if rule.is_from_base() { self.bp } else { self.sp };
        let cfa = base.wrapping_add(rule.offset());
        if cfa <= self.sp || !cfa.is_multiple_of(align_of::<usize>()) {
            return Err(Stop::End);
        }
        let slot = cfa - size_of::<usize>();
        let address = words.word(slot).ok_or(Stop::Unreadable)?;
        let bp = match rule.saved() {
            0 => self.bp,
            below => words.word(cfa.wrapping_sub(below)).ok_or(Stop::Unreadable)?,
        };
        // The outermost frame returns nowhere.
        let instruction = address.checked_sub(1).ok_or(Stop::End)?;
        Ok((Self { sp: cfa, bp, instruction, back: 1 }, Frame { address, slot }))
    }
}

/// A walk.
struct Walk<'f> {
    frames: &'f mut [Frame],
    /// Frames that were found.
    len: usize,
    at: Position,
}

impl Walk<'_> {
    #[inline(always)]
    fn run(&mut self, words: &mut impl Words) -> Stop {
        while self.len < self.frames.len() {
            if let Some(stop) = self.run_known(words) {
                return stop;
            }
            if let Err(stop) = self.look_up(words) {
                return stop;
            }
        }
        Stop::End
    }

    /// Goes on while rules are known; why no further, if it is not for that.
    #[inline(always)]
    fn run_known(&mut self, words: &mut impl Words) -> Option<Stop> {
        let mut at = self.at;
        let mut len = self.len;
        let stop = loop {
            let Some(place) = self.frames.get_mut(len) else { break Some(Stop::End) };
            let Some(rule) = rules::known(at.instruction) else { break None };
            match at.caller(rule, words) {
                Ok((caller, frame)) => (at, *place) = (caller, frame),
                Err(stop) => break Some(stop),
            }
            len += 1;
        };
        (self.at, self.len) = (at, len);
        stop
    }

    fn put(&mut self, frame: Frame, caller: Position) {
        if let Some(place) = self.frames.get_mut(self.len) {
            *place = frame;
            self.len += 1;
        }
        self.at = caller;
    }

    /// One frame on, by the tables.
    #[cold]
    #[inline(never)]
    fn look_up(&mut self, words: &mut impl Words) -> Result<(), Stop> {
        let Position { sp, bp, instruction, back } = self.at;
        let found = tables::find(instruction).ok_or(Stop::End)?;
        if let Some(rule) = found.row.packed() {
            rules::remember(instruction, rule);
            let (caller, frame) = self.at.caller(rule, words)?;
            self.put(frame, caller);
            return Ok(());
        }
        let registers = Registers::only([(RSP, sp), (RBP, bp), (RIP, instruction.wrapping_add(back))]);
        self.ascend(&found, &registers, words).map(drop)
    }

    /// One frame on, by a row; the caller's registers.
    fn ascend(&mut self, found: &Found, registers: &Registers, words: &mut impl Words) -> Result<Registers, Stop> {
        let Caller { registers, slot } = found.caller(registers, words)?;
        let sp = registers.get(RSP).ok_or(Stop::End)?;
        let address = registers.get(RIP).filter(|address| *address != 0).ok_or(Stop::End)?;
        // A signal may have come on a stack of its own, to where another one was.
        if sp <= self.at.sp && !found.is_signal {
            return Err(Stop::End);
        }
        let back = usize::from(!found.is_signal);
        let bp = registers.get(RBP).unwrap_or(0);
        self.put(Frame { address, slot }, Position { sp, bp, instruction: address - back, back });
        Ok(registers)
    }

    /// Goes on where a word was not on the part of the stack that can be read as it is.
    #[cold]
    #[inline(never)]
    fn go_on(&mut self, context: &Context, direct: Direct) -> usize {
        match self.run(&mut Copied::new(direct)) {
            Stop::Unknown => self.again(context, direct),
            Stop::End | Stop::Unreadable => self.len,
        }
    }

    /// Begins anew, and keeps all registers that calls preserve: by the tables alone.
    #[cold]
    #[inline(never)]
    fn again(&mut self, context: &Context, direct: Direct) -> usize {
        let mut words = Copied::new(direct);
        let mut registers = context.registers();
        (self.len, self.at) = (0, context.position());
        while self.len < self.frames.len() {
            let Some(found) = tables::find(self.at.instruction) else { break };
            let Ok(caller) = self.ascend(&found, &registers, &mut words) else { break };
            registers = caller;
        }
        self.len
    }
}

/// As `walk`, by the tables alone.
#[cfg(test)]
pub(super) fn walk_by_tables(context: &Context, stack: &mut Stack, frames: &mut [Frame]) -> usize {
    let direct = stack.direct(context.rsp);
    Walk { frames, len: 0, at: context.position() }.again(context, direct)
}
