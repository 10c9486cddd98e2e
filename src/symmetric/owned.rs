//! Symmetric objects that free themselves.

use super::error::{Call, SymmetricError};
use super::world::{self, World, world};
use super::{Pod, Result, Word};
use core::marker::PhantomData;
use std::vec::Vec;

/// `len` elements on every PE, at one address. All PEs make one together, and drop it together, in the same order as all else that is
/// collective.
///
/// It lends no references: others write to it. What is read is copied. Elements are plain data, valid whatever is written.
#[derive(Debug)]
pub struct SymSlice<T: Pod> {
    at: *mut T,
    len: usize,
    /// Which initialisation of the library it is of.
    world: u64,
    elements: PhantomData<T>,
}

// SAFETY: it is an address; what lies there is copied.
unsafe impl<T: Pod + Send> Send for SymSlice<T> {}
// SAFETY: as above.
unsafe impl<T: Pod + Send> Sync for SymSlice<T> {}

impl<T: Pod> SymSlice<T> {
    /// `len` elements that are zero, on every PE. Collective; a barrier when it is done.
    ///
    /// # Errors
    /// [`SymmetricError::NoRoom`], on all PEs, and where calls are compared that they differ.
    pub fn new(len: usize) -> Result<Self> {
        let world = world();
        let too_many = SymmetricError::NoRoom { bytes: usize::MAX, heap: world.transport().heap().bytes };
        let bytes = len.checked_mul(size_of::<T>()).ok_or(too_many)?;
        let at = if align_of::<T>() > 16 && bytes > 0 {
            let at = world.align(align_of::<T>(), bytes)?;
            // SAFETY: the block is new, and so large; all have one.
            unsafe { at.write_bytes(0, bytes) };
            world.barrier_all()?;
            at
        } else {
            world.calloc(bytes, 1)?
        };
        Ok(Self { at: at.cast(), len, world: world.number, elements: PhantomData })
    }

    /// How many elements there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where they are: the symmetric address.
    #[must_use]
    pub fn as_ptr(&self) -> *mut T {
        self.at
    }

    /// Where references to them begin, which are never null: elements may have no bytes.
    fn begin(&self) -> *mut T {
        if self.at.is_null() { core::ptr::dangling_mut() } else { self.at }
    }

    /// Where `count` elements from number `first` on are.
    fn part(&self, first: usize, count: usize) -> Result<*mut T> {
        let is_inside = first <= self.len && count <= self.len - first && get_world(self.world).is_some();
        let at = self.at.wrapping_add(first);
        let bytes = count.saturating_mul(size_of::<T>());
        if is_inside { Ok(at) } else { Err(SymmetricError::NotSymmetric { address: at as usize, bytes }) }
    }

    /// Copies `source` to the elements from number `first` on, on PE `pe`.
    ///
    /// # Errors
    /// [`SymmetricError::Pe`]; [`SymmetricError::NotSymmetric`] if there are not so many elements: nothing was copied.
    #[inline]
    pub fn put(&self, pe: usize, first: usize, source: &[T]) -> Result<()> {
        let at = self.part(first, source.len())?;
        // SAFETY: the elements are there, and plain data.
        unsafe { super::put(at, source, pe) }
    }

    /// Copies the elements from number `first` on, of PE `pe`, to `dest`.
    ///
    /// # Errors
    /// As those of [`put`](Self::put).
    #[inline]
    pub fn get(&self, pe: usize, first: usize, dest: &mut [T]) -> Result<()> {
        let at = self.part(first, dest.len())?;
        // SAFETY: the elements are there, and plain data, valid whatever others write.
        unsafe { super::get(dest, at, pe) }
    }

    /// Element `number` of PE `pe`.
    ///
    /// # Errors
    /// As those of [`put`](Self::put).
    pub fn get_one(&self, pe: usize, number: usize) -> Result<T> {
        let mut one = [T::zeroed()];
        self.get(pe, number, &mut one).map(|()| one[0])
    }

    /// Copies `source` to this PE's elements from number `first` on.
    ///
    /// # Errors
    /// As those of [`put`](Self::put).
    pub fn write(&self, first: usize, source: &[T]) -> Result<()> {
        self.part(first, source.len())?;
        self.put(super::my_pe(), first, source)
    }

    /// Copies this PE's elements from number `first` on to `dest`.
    ///
    /// # Errors
    /// As those of [`put`](Self::put).
    pub fn read(&self, first: usize, dest: &mut [T]) -> Result<()> {
        self.part(first, dest.len())?;
        self.get(super::my_pe(), first, dest)
    }

    /// A copy of this PE's elements.
    #[must_use]
    pub fn to_vec(&self) -> Vec<T> {
        let mut copy = std::vec![T::zeroed(); self.len];
        // All of them are there, unless the library was finalised: then nothing is.
        if self.read(0, &mut copy).is_err() {
            copy.clear();
        }
        copy
    }

    /// This PE's elements.
    ///
    /// # Safety
    /// - While the result lives nobody writes to them, on whatever PE, and the library is not finalised.
    #[must_use]
    pub unsafe fn as_slice(&self) -> &[T] {
        // SAFETY: the elements are there; the rest is the caller's promise.
        unsafe { core::slice::from_raw_parts(self.begin(), self.len) }
    }

    /// This PE's elements, to be written.
    ///
    /// # Safety
    /// - While the result lives nobody else reads or writes them, on whatever PE, and the library is not finalised.
    #[must_use]
    #[allow(clippy::mut_from_ref, reason = "the caller promises that it is the only one")]
    pub unsafe fn as_mut_slice(&self) -> &mut [T] {
        // SAFETY: the elements are there; the rest is the caller's promise.
        unsafe { core::slice::from_raw_parts_mut(self.begin(), self.len) }
    }

    /// Makes the elements of all PEs those of PE `root`. Collective; a barrier at its begin and at its end. O(PEs + bytes).
    ///
    /// # Errors
    /// [`SymmetricError::Pe`], and where calls are compared that they differ.
    pub fn broadcast(&self, root: usize) -> Result<()> {
        let world = world();
        world.verify_pe(root)?;
        let call = Call { name: "broadcast", arguments: [self.at as u64, self.len as u64, root as u64] };
        let at = self.part(0, self.len)?;
        world.collective(|| {
            world.barrier(call)?;
            if super::my_pe() != root && self.len > 0 {
                // SAFETY: the elements are there, and this PE's are its own until the next barrier.
                unsafe { world.get(at.cast(), at as usize, self.len * size_of::<T>(), root) }?;
            }
            world.barrier(call)
        })
    }
}

/// What can be summed.
pub trait Sum: Pod {
    /// The sum; integers wrap.
    #[must_use]
    fn plus(self, other: Self) -> Self;
}

macro_rules! sums {
    ($how:ident: $($type:ty),*) => {
        $(impl Sum for $type {
            fn plus(self, other: Self) -> Self {
                sums!(@$how self, other)
            }
        })*
    };
    (@wrapping $left:expr, $right:expr) => { $left.wrapping_add($right) };
    (@rounding $left:expr, $right:expr) => { $left + $right };
}
sums!(wrapping: i8, u8, i16, u16, i32, u32, i64, u64, isize, usize, i128, u128);
sums!(rounding: f32, f64);

/// Elements that are fetched from another PE at once.
const STRETCH_BYTES: usize = 32 << 10;

impl<T: Sum> SymSlice<T> {
    /// Makes each element, on all PEs, the sum of those of `source` with the same number, of all PEs, from PE 0 on: so all get the same,
    /// whatever rounding does. Collective; a barrier at its begin and at its end. O(PEs × elements).
    ///
    /// # Errors
    /// [`SymmetricError::Lengths`] if there are not as many elements in both; where calls are compared, that they differ.
    pub fn sum_to_all(&self, source: &Self) -> Result<()> {
        if self.len != source.len {
            return Err(SymmetricError::Lengths { left: self.len, right: source.len });
        }
        let world = world();
        let call = Call { name: "sum_to_all", arguments: [self.at as u64, self.len as u64, source.at as u64] };
        world.collective(|| {
            world.barrier(call)?;
            let stretch = (STRETCH_BYTES / size_of::<T>().max(1)).clamp(1, self.len.max(1));
            let (mut sums, mut theirs) = (std::vec![T::zeroed(); self.len], std::vec![T::zeroed(); stretch]);
            for pe in 0..super::n_pes() {
                for (number, part) in sums.chunks_mut(stretch).enumerate() {
                    let theirs = &mut theirs[..part.len()];
                    source.get(pe, number * stretch, theirs)?;
                    part.iter_mut().zip(theirs).for_each(|(sum, value)| *sum = sum.plus(*value));
                }
            }
            // The source may be the same elements: all have read them.
            world.barrier(call)?;
            self.write(0, &sums)?;
            world.barrier(call)
        })
    }
}

/// The atomic operations on elements.
macro_rules! atomics {
    ($($(#[$meta:meta])* $name:ident($($argument:ident),*);)*) => {
        impl<T: Word> SymSlice<T> {
            $(
                $(#[$meta])*
                ///
                /// # Errors
                /// [`SymmetricError::Pe`]; [`SymmetricError::NotSymmetric`] if there is no such element: nothing was done.
                #[inline]
                pub fn $name(&self, pe: usize, number: usize $(, $argument: T)*) -> Result<T> {
                    let at = self.part(number, 1)?;
                    // SAFETY: the element is there; copies of it may see either value.
                    unsafe { super::$name(at $(, $argument)*, pe) }
                }
            )*
        }
    };
}
atomics! {
    /// Element `number` of PE `pe`, as one step.
    fetch();
    /// Makes element `number` of PE `pe` this; what it was.
    swap(value);
    /// Adds to element `number` of PE `pe`, wrapping; what it was.
    fetch_add(value);
    /// Makes element `number` of PE `pe` `new` if it is `expected`; what it was.
    compare_swap(expected, new);
}

impl<T: Word> SymSlice<T> {
    /// Waits until element `number` of this PE fulfils `condition`; what it is then.
    ///
    /// # Errors
    /// [`SymmetricError::NotSymmetric`] if there is no such element.
    pub fn wait_until(&self, number: usize, condition: impl Fn(T) -> bool) -> Result<T> {
        let at = self.part(number, 1)?;
        // SAFETY: the element is there.
        unsafe { super::wait_until(at, condition) }
    }
}

/// The library as it was initialised for that time, if it still is.
fn get_world(number: u64) -> Option<&'static World> {
    world::get().filter(|world| world.number == number)
}

impl<T: Pod> Drop for SymSlice<T> {
    /// Frees it on all PEs; a barrier. After `finalize` there is nothing to free. A PE that panics frees nothing: others would wait for what
    /// it does not do.
    fn drop(&mut self) {
        if let Some(world) = get_world(self.world).filter(|_| !std::thread::panicking())
            && let Err(error) = world.free(self.at.cast())
        {
            crate::fatal::tell(&std::format!("stratalloc: {error}\n"));
        }
    }
}

/// One `T` on every PE, at one address: a [`SymSlice`] of one element.
#[derive(Debug)]
pub struct SymBox<T: Pod>(SymSlice<T>);

impl<T: Pod> SymBox<T> {
    /// A `T` on every PE that is this PE's `value` there. Collective; a barrier when it is done.
    ///
    /// # Errors
    /// As those of [`SymSlice::new`].
    pub fn new(value: T) -> Result<Self> {
        let this = Self(SymSlice::new(1)?);
        this.0.write(0, &[value])?;
        world().barrier_all()?;
        Ok(this)
    }

    /// Makes it `value` on PE `pe`.
    ///
    /// # Errors
    /// [`SymmetricError::Pe`]; [`SymmetricError::NotSymmetric`] once the library was finalised.
    pub fn put(&self, pe: usize, value: T) -> Result<()> {
        self.0.put(pe, 0, &[value])
    }

    /// What it is on PE `pe`.
    ///
    /// # Errors
    /// As those of [`put`](Self::put).
    pub fn get(&self, pe: usize) -> Result<T> {
        self.0.get_one(pe, 0)
    }

    /// Its only element, as one of a slice: for atomics, and to wait for it.
    #[must_use]
    pub fn slice(&self) -> &SymSlice<T> {
        &self.0
    }
}
