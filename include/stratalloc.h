/* The C names of stratalloc. Made by cbindgen from src/c_abi/mod.rs: do not edit. Licence: MIT or Apache-2.0. */

#ifndef STRATALLOC_H
#define STRATALLOC_H

#include <stddef.h>

/*
 What `mallinfo2` tells, as in `<malloc.h>`: bytes, unless said otherwise.
 */
struct stratalloc_mallinfo {
  /*
   Taken from the system for pages.
   */
  size_t arena;
  /*
   Free blocks in the caches and depots (how many).
   */
  size_t ordblks;
  /*
   Always 0, as are `hblks`, `hblkhd`, `usmblks` and `fsmblks`: there are no such things here.
   */
  size_t smblks;
  /*
   See `smblks`.
   */
  size_t hblks;
  /*
   See `smblks`.
   */
  size_t hblkhd;
  /*
   See `smblks`.
   */
  size_t usmblks;
  /*
   See `smblks`.
   */
  size_t fsmblks;
  /*
   In live blocks.
   */
  size_t uordblks;
  /*
   Free.
   */
  size_t fordblks;
  /*
   Free pages that are resident: what `malloc_trim` may give back.
   */
  size_t keepcost;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 A block of `size` bytes; size 0 is served like 1. Null and `ENOMEM` without memory.
 */
void *stratalloc_malloc(size_t size);

/*
 A block of `count` times `size` zero bytes. Null and `ENOMEM` without memory, and where the product overflows.
 */
void *stratalloc_calloc(size_t count, size_t size);

/*
 Changes the size of a block to `size` bytes, moving it if need be; null is `malloc`, size 0 frees and is null. Null and
 `ENOMEM` without memory: then the block is as it was.

 # Safety
 - `block` came from this heap and is live, or is null.
 */
void *stratalloc_realloc(void *block, size_t size);

/*
 `realloc` to `count` times `size` bytes. Null and `ENOMEM` also where the product overflows.

 # Safety
 - `block` came from this heap and is live, or is null.
 */
void *stratalloc_reallocarray(void *block, size_t count, size_t size);

/*
 Frees a block; null is none. `errno` stays as it is. O(1), but for every `target`-th call of a class.

 # Safety
 - `block` came from this heap and is live, or is null.
 */
void stratalloc_free(void *block);

/*
 `free` of a block that `size` bytes were asked for (C23).

 # Safety
 - `block` came from this heap and is live, or is null.
 */
void stratalloc_free_sized(void *block, size_t _size);

/*
 `free` of a block that `size` bytes at a multiple of `align` were asked for (C23).

 # Safety
 - `block` came from this heap and is live, or is null.
 */
void stratalloc_free_aligned_sized(void *block, size_t _align, size_t _size);

/*
 A block of `size` bytes at a multiple of `align`, a power of two; null and `EINVAL` if it is none.
 */
void *stratalloc_aligned_alloc(size_t align, size_t size);

/*
 As `aligned_alloc`, with an alignment that is rounded up to a power of two.
 */
void *stratalloc_memalign(size_t align, size_t size);

/*
 As `aligned_alloc`, with the block in `*block`, and 0, `EINVAL` or `ENOMEM` returned; `errno` stays as it is. The alignment
 must be a multiple of a pointer's size, too.

 # Safety
 - `*block` may be written.
 */
int stratalloc_posix_memalign(void **block,
                              size_t align,
                              size_t size);

/*
 A block of `size` bytes at a multiple of the page size.
 */
void *stratalloc_valloc(size_t size);

/*
 A block of `size` bytes, rounded up to whole pages, at a multiple of the page size.
 */
void *stratalloc_pvalloc(size_t size);

/*
 Bytes that a block has, all of them usable; 0 for null.

 # Safety
 - `block` came from this heap and is live, or is null.
 */
size_t stratalloc_malloc_usable_size(void *block);

/*
 Gives free memory back to the system; 1 if any was given, else 0. `pad` is not looked at.
 */
int stratalloc_malloc_trim(size_t pad);

/*
 The figures of the heap.
 */
struct stratalloc_mallinfo stratalloc_mallinfo2(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* STRATALLOC_H */
