/*
 * The C names of a heap in a file, which many processes have open at one address. Licence: MIT or Apache-2.0.
 *
 *     if (shm_init("/dev/shm/orders") == -1)
 *         perror("shm_init");
 *     char *text = shm_malloc(100);       any process may read and free it
 *     shm_set_global(text);               how others find it, and the next run
 *
 * A process has one such heap open. Functions that return an int return 0, or -1 with a number in errno; those that return a
 * pointer return null with one. Sizes are in bytes. Any thread may call any of them at any time, but for shm_fini and shm_destroy:
 * no other thread may use the heap then.
 *
 * For C from C89 on, and C++. With a compiler that has no variadic macros, shm_init takes two arguments, and so does (shm_init).
 */

#ifndef STRATALLOC_SHM_H
#define STRATALLOC_SHM_H

#include <stddef.h>

#ifdef __cplusplus
#define STRATALLOC_SHM_OR_NULL = NULL
extern "C" {
#else
#define STRATALLOC_SHM_OR_NULL
#endif

/*
 * shm_init(path) or shm_init(path, init): opens the heap in the file at path. If there is no such file it is made, for its owner
 * alone, up to 64 GiB large (it takes room for what was used), and init, unless null, runs once: in one process, before any other
 * gets the heap. It may use the heap, and must return; if its process ends before, the next who opens the heap begins anew. Where
 * one process makes the heap, the others wait, for a minute at most. To open the same file again is 0, and does nothing.
 * O(512), but O(pages of the heap) for the first process in it, and if one died there.
 *
 * Errors, beside those of open, ftruncate, fallocate and mmap:
 *     EINVAL      path is null, or the file is no heap
 *     EBUSY       another heap is open, or the file of the open one was replaced; or the call comes out of init
 *     ENODEV      path names no regular file
 *     EREMOTE     the file is on a network file system
 *     ENOTSUP     the heap is of another version, page size, ladder of classes or build than this library's
 *     EUCLEAN     the heap's header or records are damaged, or the file was cut off or appended to
 *     EADDRINUSE  something else is mapped at the heap's addresses
 *     EUSERS      512 processes have it open
 *     EMFILE      this process has 64 shared heaps open, by whatever names, or too many files
 *     ETIMEDOUT   another process is making the heap, and has not finished in a minute
 */
int shm_init(const char *path, void (*init)(void) STRATALLOC_SHM_OR_NULL);

/*
 * Closes the heap: what this process has cached goes back, and the addresses are free again. What was allocated stays. A process
 * that just ends need not call it, whatever ends it. EINVAL if no heap is open, EBUSY out of init. O(what is cached).
 */
int shm_fini(void);

/*
 * Closes the heap and removes its file. Processes that have it open go on with it; whoever opens the path makes a new one.
 * Errors are those of shm_fini and of unlink; ENOENT also if the file had been removed before, or another one has its name, which
 * stays. But for EINVAL and EBUSY the heap is closed all the same.
 */
int shm_destroy(void);

/*
 * Registers a process that was forked after shm_init. It need not be called: the first call that uses the heap does the same, and
 * a child that only ends, or begins another program, need not be registered. But this one says what went wrong: EUSERS if 512
 * processes have the heap open, EBADF if its file could not be opened again when the process was forked (too many files, no /proc,
 * or no right to it any more), ETIMEDOUT, and the system's. EINVAL if no heap is open. In a process that is registered it does
 * nothing. O(512).
 */
int shm_child(void);

/*
 * A block of size bytes, which any process may free; at a multiple of 16, or of 8 if it is smaller than that. Size 0 is served
 * like 1. Null and ENOMEM if neither the heap nor the disk has room, EINVAL if no heap is open. O(1), but for every target-th call
 * of a size class, and O(log) of free runs from half a page on.
 */
void *shm_malloc(size_t size);

/*
 * As shm_malloc, a block of count times size bytes that are zero. Null and ENOMEM also where the product overflows. O(size of the
 * block), where it was used before.
 */
void *shm_calloc(size_t count, size_t size);

/*
 * Changes the size of a block to size bytes and returns where it is then: the first bytes are the same. Null is shm_malloc; size 0
 * frees the block and is null. Where it fails it is null, and the block is as it was: ENOMEM without memory, EINVAL if no heap is
 * open. O(1) where the block stays, else O(size). The block may be of whatever process; where none begins the process ends.
 */
void *shm_realloc(void *block, size_t size);

/*
 * Frees a block, of whatever process; null is none. errno stays as it is. Where no block begins the process ends, and so it does
 * if no heap is open. O(1), but for every target-th call of a size class.
 */
void shm_free(void *block);

/*
 * As shm_malloc, a block of size bytes at a multiple of align, a power of two; null and EINVAL if it is none.
 */
void *shm_memalign(size_t align, size_t size);

/*
 * The root that was set last, by whatever process; null in a new heap. Null and EINVAL if no heap is open. O(1).
 */
void *shm_global(void);

/*
 * Sets the root, by which processes find what is in the heap; null is one, too. What was written before is seen by whoever gets
 * the root by shm_global. EINVAL if no heap is open. O(1).
 */
int shm_set_global(void *root);

#ifdef __cplusplus
}
#elif defined(__GNUC__) || (defined(__STDC_VERSION__) && __STDC_VERSION__ >= 199901L)
#ifdef __GNUC__
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wvariadic-macros"
#endif
/* The second argument is null if it is left out. (A name in brackets is no macro.) */
#define shm_init(...) STRATALLOC_SHM_FIRST_TWO(__VA_ARGS__, NULL, NULL)
#define STRATALLOC_SHM_FIRST_TWO(path, init, ...) (shm_init)(path, init)
#ifdef __GNUC__
#pragma GCC diagnostic pop
#endif
#endif

#undef STRATALLOC_SHM_OR_NULL

#endif /* STRATALLOC_SHM_H */
