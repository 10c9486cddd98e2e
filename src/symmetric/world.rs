//! The symmetric heap of this process: a memory heap and a transport, and the collective calls on both.

use super::error::{Call, SymmetricError};
use super::front::{Front, Number, forget};
use super::memheap::{Framework, Memheap};
use super::settings::Settings;
use super::transport::{Transport, WORDS};
use crate::fatal::{Fatal, die};
use crate::os::{self, Span};
use crate::sync::{Acquire, AtomicPtr, AtomicU64, Relaxed, Release};
use core::alloc::Layout;
use core::ptr::{NonNull, null_mut};
use std::boxed::Box;
use std::collections::BTreeSet;
use std::string::String;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

/// What every block is aligned to, and its smallest size: so it is aligned for any use.
const ALIGN: usize = 16;
/// What blocks for atomics and signals are aligned to: lines of the cache, so that two of them do not share one.
const LINE: usize = 64;

/// Collective calls, by the numbers by which PEs compare them.
const NAMES: [&str; 12] = [
    "barrier_all",
    "malloc",
    "calloc",
    "align",
    "malloc_with_hints",
    "realloc",
    "free",
    "broadcast",
    "sum_to_all",
    "collect",
    "finalize",
    "the end of a call",
];
/// The last of them: what a call has come to, and the bytes that it was for.
const RESULT: &str = NAMES[NAMES.len() - 1];

/// This process as a PE.
#[derive(Debug)]
pub(super) struct World {
    transport: Box<dyn Transport>,
    heap: Mutex<Option<Heap>>,
    /// The heap's range.
    range: Span,
    /// Where the heap of each PE can be loaded from and stored to by this one; 0 where it cannot.
    reach: Box<[usize]>,
    checks: bool,
    /// Collective calls so far.
    calls: AtomicU64,
    /// Which initialisation of this process it is, from 1 on.
    pub(super) number: u64,
}

/// The memory heap, and what is to be kept of hints.
#[derive(Debug)]
struct Heap {
    memheap: Memheap,
    number: Number,
    /// Blocks that have a line of the cache for themselves: `realloc` keeps that.
    lined: BTreeSet<usize>,
}

impl Heap {
    fn front(&mut self) -> Front<'_> {
        Front::new(&mut self.memheap, &self.number)
    }

    /// The heap, in which a live block begins at `at`.
    fn with_block(heap: &mut Option<Self>, at: NonNull<u8>) -> Result<&mut Self, SymmetricError> {
        let error = SymmetricError::NoBlock { address: at.as_ptr() as usize };
        let Some(heap) = heap else { return Err(error) };
        if heap.front().is_block(at) { Ok(heap) } else { Err(error) }
    }
}

static WORLD: AtomicPtr<World> = AtomicPtr::new(null_mut());
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The process as a PE. It ends if it is none: no call can be made sense of then.
#[inline]
pub(super) fn world() -> &'static World {
    get().unwrap_or_else(|| die(Fatal::NoPe))
}

/// The process as a PE, if it is one.
#[inline]
pub(super) fn get() -> Option<&'static World> {
    // Acquire: pairs with `enter`. SAFETY: a world is leaked by `enter`, and so stays.
    unsafe { WORLD.load(Acquire).as_ref() }
}

/// Makes this process a PE over `transport`, with a heap of its framework's components.
pub(super) fn enter(
    transport: Box<dyn Transport>,
    framework: &Framework,
    settings: &Settings,
) -> Result<(), SymmetricError> {
    let (range, number) = (transport.heap(), 1 + NUMBER.fetch_add(1, Relaxed));
    // SAFETY: the heap is the transport's, and this is the only use of it.
    let selected = unsafe { framework.select(&settings.choice, range) };
    // All tell who serves, or that nobody does: no PE goes on alone.
    let name = selected.as_ref().map_or([0; NAME_WORDS], |memheap| words_of(memheap.component().name));
    // Where one of them compares calls, all do.
    let (mut unlike, mut failed, mut checks) = (None, None, false);
    let mut mine = [u64::from(settings.checks); WORDS];
    mine[1..].copy_from_slice(&name);
    transport.gather(mine, &mut |pe, theirs| {
        checks |= theirs[0] == 1;
        if theirs[1..] == [0; NAME_WORDS] {
            failed = failed.or(Some(pe));
        } else if theirs[1..] != name {
            unlike = unlike.or(Some((pe, theirs)));
        }
    });
    let result = selected.map_err(SymmetricError::from).and_then(|memheap| match (failed, unlike) {
        (Some(pe), _) => Err(SymmetricError::Peer { pe }),
        (None, Some((pe, theirs))) => {
            let (theirs, ours) = (name_of(&theirs[1..]), name_of(&name));
            Err(SymmetricError::ComponentsDiffer { pe, theirs, ours })
        }
        (None, None) => Ok(memheap),
    });
    match result {
        Ok(memheap) => {
            let heap = Mutex::new(Some(Heap { memheap, number: Number::new(), lined: BTreeSet::new() }));
            let calls = AtomicU64::new(0);
            let reach = |pe| transport.ptr(range.at, pe).map_or(0, |at| at.as_ptr() as usize);
            let reach = (0..transport.n_pes()).map(reach).collect();
            let world = Box::new(World { transport, heap, range, reach, checks, calls, number });
            WORLD.store(Box::leak(world), Release);
            FORKS.call_once(|| os::at_fork(nothing, nothing, be_no_pe));
            Ok(())
        }
        Err(error) => {
            if failed.is_none_or(|pe| pe == transport.my_pe()) {
                transport.refuse();
            }
            transport.barrier();
            let _ = transport.finalize();
            Err(error)
        }
    }
}

static FORKS: Once = Once::new();

extern "C" fn nothing() {}

/// A forked child is no PE: it would come to barriers in its parent's place.
extern "C" fn be_no_pe() {
    WORLD.store(null_mut(), Release);
}

/// Words of a gather that a name is told in.
const NAME_WORDS: usize = WORDS - 1;

/// The first bytes of a name. They are not all zero.
fn words_of(name: &str) -> [u64; NAME_WORDS] {
    let mut words = [0; NAME_WORDS];
    for (word, bytes) in words.iter_mut().zip(name.as_bytes().chunks(8)) {
        *word = bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    words[0] |= u64::from(name.is_empty());
    words
}

fn name_of(words: &[u64]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_le_bytes()).take_while(|byte| *byte != 0);
    bytes.map(char::from).collect()
}

/// Takes this process out of its job.
pub(super) fn leave() -> Result<(), SymmetricError> {
    let world = world();
    let mut heap = world.heap();
    world.barrier(Call { name: "finalize", arguments: [0; 3] })?;
    // Nobody begins anything from here on; what others are at was the program's to wait for.
    WORLD.store(null_mut(), Release);
    *heap = None;
    forget(world.range);
    world.transport.finalize()
}

fn layout(bytes: usize, align: usize) -> Option<Layout> {
    Layout::from_size_align(bytes.max(ALIGN), align.max(ALIGN)).ok()
}

impl World {
    pub(super) fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    pub(super) fn component(&self) -> &'static str {
        self.heap().as_ref().map_or("none", |heap| heap.memheap.component().name)
    }

    fn heap(&self) -> MutexGuard<'_, Option<Heap>> {
        self.heap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A barrier of the program's own. One thread at a time is in a collective call.
    pub(super) fn barrier_all(&self) -> Result<(), SymmetricError> {
        let _alone = self.heap();
        self.barrier(Call { name: "barrier_all", arguments: [0; 3] })
    }

    /// Runs `section`, which calls [`World::barrier`], while no other thread is in a collective call.
    pub(super) fn collective<R>(&self, section: impl FnOnce() -> R) -> R {
        let _alone = self.heap();
        section()
    }

    /// A barrier, at which all make the same call: that is compared, whatever the settings; it takes no barrier more.
    pub(super) fn barrier(&self, ours: Call) -> Result<(), SymmetricError> {
        let code = NAMES.iter().position(|name| *name == ours.name).unwrap_or(0) as u64;
        let [first, second, third] = ours.arguments;
        let number = self.calls.fetch_add(1, Relaxed);
        let mine: [u64; WORDS] = [number, code, first, second, third, 0, 0, 0];
        let mut result = Ok(());
        self.transport.gather(mine, &mut |pe, theirs| {
            if result.is_ok() && theirs != mine {
                let [_, code, first, second, third, ..] = theirs;
                let name = NAMES.get(code as usize).copied().unwrap_or("something else");
                result = Err(match (name, ours.name) {
                    (RESULT, RESULT) if second == ours.arguments[1] => {
                        SymmetricError::Diverged { pe, theirs: first as usize, ours: ours.arguments[0] as usize }
                    }
                    (RESULT, RESULT) => {
                        let of = |bytes| Call { name: "malloc", arguments: [bytes, 0, 0] };
                        SymmetricError::Differs { pe, theirs: of(second), ours: of(ours.arguments[1]) }
                    }
                    _ => SymmetricError::Differs { pe, theirs: Call { name, arguments: [first, second, third] }, ours },
                });
            }
        });
        result
    }

    /// What all do at the begin of a call that allocates: nothing, unless calls are compared.
    fn begin(&self, call: Call) -> Result<(), SymmetricError> {
        if self.checks { self.barrier(call) } else { Ok(()) }
    }

    /// The barrier at the end of a call that has come to `block`, of `bytes` bytes.
    fn end(&self, block: Option<NonNull<u8>>, bytes: usize) -> Result<(), SymmetricError> {
        let at = block.map_or(0, |block| block.as_ptr() as u64);
        self.barrier(Call { name: RESULT, arguments: [at, bytes as u64, 0] })
    }

    /// Allocates a block of `bytes` bytes on all PEs, on behalf of `call`. A null pointer of 0 bytes, and no barrier then.
    fn allocate(&self, call: Call, bytes: usize, align: usize, zeroed: bool) -> Result<*mut u8, SymmetricError> {
        if bytes == 0 {
            return Ok(null_mut());
        }
        let mut guard = self.heap();
        self.begin(call)?;
        let heap = guard.as_mut().zip(layout(bytes, align));
        let block = heap.and_then(|(heap, layout)| heap.front().alloc(layout, zeroed));
        if let Some((heap, block)) = guard.as_mut().zip(block.filter(|_| call.name == "malloc_with_hints")) {
            heap.lined.insert(block.as_ptr() as usize);
        }
        let result = self.end(block, bytes);
        if let (Err(_), Some((heap, block))) = (&result, guard.as_mut().zip(block)) {
            heap.lined.remove(&(block.as_ptr() as usize));
            // SAFETY: nobody has it.
            unsafe { heap.front().free(block) };
        }
        result?;
        block.map(NonNull::as_ptr).ok_or(SymmetricError::NoRoom { bytes, heap: self.range.bytes })
    }

    pub(super) fn malloc(&self, bytes: usize) -> Result<*mut u8, SymmetricError> {
        self.allocate(Call { name: "malloc", arguments: [bytes as u64, 0, 0] }, bytes, ALIGN, false)
    }

    pub(super) fn calloc(&self, count: usize, bytes: usize) -> Result<*mut u8, SymmetricError> {
        let call = Call { name: "calloc", arguments: [count as u64, bytes as u64, 0] };
        self.allocate(call, count.saturating_mul(bytes), ALIGN, true)
    }

    pub(super) fn align(&self, alignment: usize, bytes: usize) -> Result<*mut u8, SymmetricError> {
        if !alignment.is_power_of_two() || alignment < size_of::<*const u8>() {
            return Err(SymmetricError::Alignment { alignment });
        }
        self.allocate(Call { name: "align", arguments: [alignment as u64, bytes as u64, 0] }, bytes, alignment, false)
    }

    pub(super) fn malloc_with_hints(&self, bytes: usize, hints: u64) -> Result<*mut u8, SymmetricError> {
        let call = Call { name: "malloc_with_hints", arguments: [bytes as u64, hints, 0] };
        match hints {
            0 => self.allocate(Call { name: "malloc", ..call }, bytes, ALIGN, false),
            // Of nothing nothing; else whole lines.
            1..=3 => self.allocate(call, bytes.checked_next_multiple_of(LINE).unwrap_or(usize::MAX), LINE, false),
            hints => Err(SymmetricError::Hints { hints }),
        }
    }

    pub(super) fn free(&self, block: *mut u8) -> Result<(), SymmetricError> {
        let Some(at) = NonNull::new(block) else { return Ok(()) };
        let mut guard = self.heap();
        self.barrier(Call { name: "free", arguments: [block as u64, 0, 0] })?;
        let heap = Heap::with_block(&mut guard, at)?;
        heap.lined.remove(&(block as usize));
        // SAFETY: a live block begins there, and all PEs have come to give it up.
        unsafe { heap.front().free(at) };
        Ok(())
    }

    pub(super) fn realloc(&self, block: *mut u8, bytes: usize) -> Result<*mut u8, SymmetricError> {
        let Some(at) = NonNull::new(block) else { return self.malloc(bytes) };
        if bytes == 0 {
            return self.free(block).map(|()| null_mut());
        }
        let mut guard = self.heap();
        self.barrier(Call { name: "realloc", arguments: [block as u64, bytes as u64, 0] })?;
        let heap = Heap::with_block(&mut guard, at)?;
        let has_line = heap.lined.contains(&(block as usize));
        let lines = || layout(bytes.checked_next_multiple_of(LINE)?, LINE);
        let layout = if has_line { lines() } else { layout(bytes, ALIGN) };
        // SAFETY: a live block begins there, and all PEs have come to change it.
        let new = layout.and_then(|layout| unsafe { heap.front().realloc(at, layout) });
        if let Some(new) = new.filter(|_| has_line) {
            heap.lined.remove(&(block as usize));
            heap.lined.insert(new.as_ptr() as usize);
        }
        self.end(new, bytes)?;
        new.map(NonNull::as_ptr).ok_or(SymmetricError::NoRoom { bytes, heap: self.range.bytes })
    }

    /// Gives the memory of free pages back, on all PEs.
    pub(super) fn collect(&self) -> Result<(), SymmetricError> {
        let mut guard = self.heap();
        self.barrier(Call { name: "collect", arguments: [0; 3] })?;
        if let Some(heap) = guard.as_mut() {
            heap.memheap.module().collect();
        }
        Ok(())
    }

    /// Where `bytes` bytes at `address` are on PE `pe`, if they are the heap's, and within reach. What is none of these is looked at by
    /// [`World::verify`].
    #[inline(always)]
    fn direct(&self, address: usize, bytes: usize, pe: usize) -> Option<usize> {
        let offset = address.wrapping_sub(self.range.at);
        let is_inside = offset <= self.range.bytes && bytes <= self.range.bytes - offset;
        let base = self.reach.get(pe).copied().filter(|base| is_inside && *base != 0);
        base.map(|base| base + offset)
    }

    /// Copies to another PE.
    ///
    /// # Safety
    /// - `from` is so many readable bytes; what is at `to` may be written.
    #[inline(always)]
    pub(super) unsafe fn put(&self, to: usize, from: *const u8, bytes: usize, pe: usize) -> Result<(), SymmetricError> {
        match self.direct(to, bytes, pe) {
            // SAFETY: within reach; it may be a part of the same heap, and overlap.
            Some(at) => unsafe { core::ptr::with_exposed_provenance_mut::<u8>(at).copy_from(from, bytes) },
            // SAFETY: handed on.
            None => unsafe { self.put_by_transport(to, from, bytes, pe)? },
        }
        Ok(())
    }

    /// As `put`, of what is out of reach, or nowhere. (Apart, so that the other way needs no registers saved.)
    #[inline(never)]
    unsafe fn put_by_transport(
        &self,
        to: usize,
        from: *const u8,
        bytes: usize,
        pe: usize,
    ) -> Result<(), SymmetricError> {
        if bytes == 0 {
            return self.verify_pe(pe);
        }
        self.verify(to, bytes, pe)?;
        // SAFETY: verified; the rest is the caller's promise.
        unsafe { self.transport.put(to, from, bytes, pe) };
        Ok(())
    }

    /// Copies from another PE.
    ///
    /// # Safety
    /// - `to` is so many writable bytes.
    #[inline(always)]
    pub(super) unsafe fn get(&self, to: *mut u8, from: usize, bytes: usize, pe: usize) -> Result<(), SymmetricError> {
        match self.direct(from, bytes, pe) {
            // SAFETY: as above.
            Some(at) => unsafe { to.copy_from(core::ptr::with_exposed_provenance::<u8>(at), bytes) },
            // SAFETY: handed on.
            None => unsafe { self.get_by_transport(to, from, bytes, pe)? },
        }
        Ok(())
    }

    /// As `get`, of what is out of reach, or nowhere.
    #[inline(never)]
    unsafe fn get_by_transport(&self, to: *mut u8, from: usize, bytes: usize, pe: usize) -> Result<(), SymmetricError> {
        if bytes == 0 {
            return self.verify_pe(pe);
        }
        self.verify(from, bytes, pe)?;
        // SAFETY: as above.
        unsafe { self.transport.get(to, from, bytes, pe) };
        Ok(())
    }

    /// Whether there is a PE of that number.
    pub(super) fn verify_pe(&self, pe: usize) -> Result<(), SymmetricError> {
        let pes = self.reach.len();
        if pe < pes { Ok(()) } else { Err(SymmetricError::Pe { pe, pes }) }
    }

    /// Whether `bytes` bytes at `address` are symmetric, and there is a PE `pe`.
    #[inline]
    pub(super) fn verify(&self, address: usize, bytes: usize, pe: usize) -> Result<(), SymmetricError> {
        self.verify_pe(pe)?;
        let span = Span { at: address, bytes };
        if self.range.contains(span) || self.transport.is_symmetric(span) {
            Ok(())
        } else {
            Err(SymmetricError::NotSymmetric { address, bytes })
        }
    }
}
