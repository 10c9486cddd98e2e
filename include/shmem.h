/*
 * OpenSHMEM 1.5 for the processes of one machine: the memory management of the standard, and of the rest what programs need to use that
 * memory. Licence: MIT or Apache-2.0.
 *
 *     shmem_init();
 *     long *counter = shmem_calloc(1, sizeof *counter);     the same address on every PE
 *     shmem_long_atomic_inc(counter, 0);                    on PE 0
 *     shmem_barrier_all();
 *
 * Compile with this header, link with the library, and start the program by `stratalloc run -n 4 -- PROGRAM`; started alone it is a job of
 * one PE. SHMEM_SYMMETRIC_SIZE says how large the heap is on each (256m), STRATALLOC_MEMHEAP which component manages it (strata, buddy,
 * ptmalloc); with SHMEM_DEBUG set, PEs compare each collective call, and name the one that differs.
 *
 * Symmetric objects are what shmem_malloc and its like return, and the global and static variables of the program (not of libraries), if it
 * has one thread when it calls shmem_init. There are no contexts, and no team but that of all PEs; nor names of complex numbers, of waits for
 * several words, and of those atomics that do not wait. Reductions and collections are made of gets between barriers. For C from C99 on, and
 * C++; type-generic names from C11 on.
 */

#ifndef STRATALLOC_SHMEM_H
#define STRATALLOC_SHMEM_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SHMEM_MAJOR_VERSION 1
#define SHMEM_MINOR_VERSION 5
#define SHMEM_MAX_NAME_LEN 64
#define SHMEM_VENDOR_STRING "stratalloc"
#define _SHMEM_MAJOR_VERSION SHMEM_MAJOR_VERSION
#define _SHMEM_MINOR_VERSION SHMEM_MINOR_VERSION
#define _SHMEM_MAX_NAME_LEN SHMEM_MAX_NAME_LEN
#define _SHMEM_VENDOR_STRING SHMEM_VENDOR_STRING

#define SHMEM_THREAD_SINGLE 0
#define SHMEM_THREAD_FUNNELED 1
#define SHMEM_THREAD_SERIALIZED 2
#define SHMEM_THREAD_MULTIPLE 3

#define SHMEM_MALLOC_ATOMICS_REMOTE 1L
#define SHMEM_MALLOC_SIGNAL_REMOTE 2L

#define SHMEM_CMP_EQ 0
#define SHMEM_CMP_NE 1
#define SHMEM_CMP_GT 2
#define SHMEM_CMP_LE 3
#define SHMEM_CMP_LT 4
#define SHMEM_CMP_GE 5
#define _SHMEM_CMP_EQ SHMEM_CMP_EQ
#define _SHMEM_CMP_NE SHMEM_CMP_NE
#define _SHMEM_CMP_GT SHMEM_CMP_GT
#define _SHMEM_CMP_LE SHMEM_CMP_LE
#define _SHMEM_CMP_LT SHMEM_CMP_LT
#define _SHMEM_CMP_GE SHMEM_CMP_GE

/* Work arrays of the older collectives, which these need not have. */
#define SHMEM_SYNC_VALUE 0L
#define SHMEM_SYNC_SIZE 1
#define SHMEM_BARRIER_SYNC_SIZE 1
#define SHMEM_BCAST_SYNC_SIZE 1
#define SHMEM_REDUCE_SYNC_SIZE 1
#define SHMEM_COLLECT_SYNC_SIZE 1
#define SHMEM_ALLTOALL_SYNC_SIZE 1
#define SHMEM_REDUCE_MIN_WRKDATA_SIZE 1
#define _SHMEM_SYNC_VALUE SHMEM_SYNC_VALUE
#define _SHMEM_BARRIER_SYNC_SIZE SHMEM_BARRIER_SYNC_SIZE
#define _SHMEM_BCAST_SYNC_SIZE SHMEM_BCAST_SYNC_SIZE
#define _SHMEM_REDUCE_SYNC_SIZE SHMEM_REDUCE_SYNC_SIZE
#define _SHMEM_COLLECT_SYNC_SIZE SHMEM_COLLECT_SYNC_SIZE
#define _SHMEM_REDUCE_MIN_WRKDATA_SIZE SHMEM_REDUCE_MIN_WRKDATA_SIZE

#ifdef __cplusplus
#define SHMEM__NORETURN [[noreturn]]
extern "C" {
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
#define SHMEM__NORETURN _Noreturn
#else
#define SHMEM__NORETURN
#endif

typedef int shmem_team_t;
#define SHMEM_TEAM_WORLD 0
/* All PEs reach each other's memory. */
#define SHMEM_TEAM_SHARED SHMEM_TEAM_WORLD
#define SHMEM_TEAM_INVALID (-1)

/* The library: who is there. */
void shmem_init(void);
int shmem_init_thread(int requested, int *provided);
void shmem_finalize(void);
SHMEM__NORETURN void shmem_global_exit(int status);
int shmem_my_pe(void);
int shmem_n_pes(void);
int shmem_pe_accessible(int pe);

/* Memory. All PEs make each of these calls together, with the same arguments; shmem_ptr and shmem_addr_accessible each alone. */
void *shmem_malloc(size_t bytes);
void *shmem_calloc(size_t count, size_t bytes);
void *shmem_align(size_t alignment, size_t bytes);
void *shmem_malloc_with_hints(size_t bytes, long hints);
void *shmem_realloc(void *block, size_t bytes);
void shmem_free(void *block);
void *shmem_ptr(const void *address, int pe);
int shmem_addr_accessible(const void *address, int pe);

/* Transfers, and their order. */
void shmem_putmem(void *dest, const void *source, size_t bytes, int pe);
void shmem_getmem(void *dest, const void *source, size_t bytes, int pe);
void shmem_fence(void);
void shmem_quiet(void);
void shmem_barrier_all(void);

/* What the names below are made of. */
uint64_t stratalloc_shmem_atomic(int op, void *word, uint64_t value, uint64_t expected, size_t bytes, int pe);
void stratalloc_shmem_rest(uint32_t round);
SHMEM__NORETURN void stratalloc_shmem_die(const char *text);

static inline int shmem_query_thread_level_(void) { return SHMEM_THREAD_MULTIPLE; }
static inline void shmem_query_thread(int *provided) { *provided = shmem_query_thread_level_(); }
static inline void shmem_info_get_version(int *major, int *minor)
{
    *major = SHMEM_MAJOR_VERSION;
    *minor = SHMEM_MINOR_VERSION;
}
static inline void shmem_info_get_name(char *name) { strcpy(name, SHMEM_VENDOR_STRING); }
static inline void shmem_sync_all(void) { shmem_barrier_all(); }

/* The names that the standard deprecates. */
static inline void start_pes(int ignored)
{
    static int begun;
    (void)ignored;
    if (begun++ == 0) {
        shmem_init();
        atexit(shmem_finalize);
    }
}
static inline int _my_pe(void) { return shmem_my_pe(); }
static inline int _num_pes(void) { return shmem_n_pes(); }
static inline void *shmalloc(size_t bytes) { return shmem_malloc(bytes); }
static inline void *shmemalign(size_t alignment, size_t bytes) { return shmem_align(alignment, bytes); }
static inline void *shrealloc(void *block, size_t bytes) { return shmem_realloc(block, bytes); }
static inline void shfree(void *block) { shmem_free(block); }

/* Teams: there is the one of all PEs. */
static inline void shmem__only_world(shmem_team_t team)
{
    if (team != SHMEM_TEAM_WORLD)
        stratalloc_shmem_die("a team that is not SHMEM_TEAM_WORLD; there is no other");
}
static inline int shmem_team_my_pe(shmem_team_t team) { return team == SHMEM_TEAM_WORLD ? shmem_my_pe() : -1; }
static inline int shmem_team_n_pes(shmem_team_t team) { return team == SHMEM_TEAM_WORLD ? shmem_n_pes() : -1; }
static inline int shmem_team_translate_pe(shmem_team_t from, int pe, shmem_team_t to)
{
    return from == SHMEM_TEAM_WORLD && to == SHMEM_TEAM_WORLD && shmem_pe_accessible(pe) ? pe : -1;
}
static inline int shmem_team_sync(shmem_team_t team)
{
    shmem__only_world(team);
    shmem_barrier_all();
    return 0;
}

/* An active set of the older collectives, which must be all PEs. */
static inline void shmem__only_all(int start, int stride, int size)
{
    /* Of one PE the stride means nothing. */
    if (start != 0 || (stride != 0 && size != 1) || size != shmem_n_pes())
        stratalloc_shmem_die("an active set that is not all PEs; call with 0, 0, shmem_n_pes()");
}
static inline void shmem_barrier(int start, int stride, int size, long *psync)
{
    (void)psync;
    shmem__only_all(start, stride, size);
    shmem_barrier_all();
}
static inline void shmem_sync(int start, int stride, int size, long *psync) { shmem_barrier(start, stride, size, psync); }

static inline void shmem_putmem_nbi(void *dest, const void *source, size_t bytes, int pe)
{
    shmem_putmem(dest, source, bytes, pe);
}
static inline void shmem_getmem_nbi(void *dest, const void *source, size_t bytes, int pe)
{
    shmem_getmem(dest, source, bytes, pe);
}

/* Transfers of elements, one in each stride. */
static inline void shmem__iput(char *dest, const char *source, ptrdiff_t to, ptrdiff_t from, size_t count, size_t bytes, int pe)
{
    for (size_t at = 0; at < count; at++)
        shmem_putmem(dest + (ptrdiff_t)at * to * (ptrdiff_t)bytes, source + (ptrdiff_t)at * from * (ptrdiff_t)bytes, bytes, pe);
}
static inline void shmem__iget(char *dest, const char *source, ptrdiff_t to, ptrdiff_t from, size_t count, size_t bytes, int pe)
{
    for (size_t at = 0; at < count; at++)
        shmem_getmem(dest + (ptrdiff_t)at * to * (ptrdiff_t)bytes, source + (ptrdiff_t)at * from * (ptrdiff_t)bytes, bytes, pe);
}

/* Collectives of bytes. */
static inline int shmem_broadcastmem(shmem_team_t team, void *dest, const void *source, size_t bytes, int root)
{
    shmem__only_world(team);
    shmem_barrier_all();
    if (bytes > 0)
        shmem_getmem(dest, source, bytes, root);
    shmem_barrier_all();
    return 0;
}
static inline int shmem_fcollectmem(shmem_team_t team, void *dest, const void *source, size_t bytes)
{
    shmem__only_world(team);
    shmem_barrier_all();
    for (int pe = 0; pe < shmem_n_pes() && bytes > 0; pe++)
        shmem_putmem((char *)dest + (size_t)shmem_my_pe() * bytes, source, bytes, pe);
    shmem_barrier_all();
    return 0;
}
static inline int shmem_alltoallmem(shmem_team_t team, void *dest, const void *source, size_t bytes)
{
    shmem__only_world(team);
    shmem_barrier_all();
    for (int pe = 0; pe < shmem_n_pes() && bytes > 0; pe++)
        shmem_putmem((char *)dest + (size_t)shmem_my_pe() * bytes, (const char *)source + (size_t)pe * bytes, bytes, pe);
    shmem_barrier_all();
    return 0;
}

/* Of every type: put, get, one element, strided, and collectives. */
#define SHMEM__RMA_TYPES(X)                                                                                                    \
    X(float, float) X(double, double) X(longdouble, long double) X(char, char) X(schar, signed char) X(short, short)           \
    X(int, int) X(long, long) X(longlong, long long) X(uchar, unsigned char) X(ushort, unsigned short) X(uint, unsigned int)   \
    X(ulong, unsigned long) X(ulonglong, unsigned long long) X(int8, int8_t) X(int16, int16_t) X(int32, int32_t)               \
    X(int64, int64_t) X(uint8, uint8_t) X(uint16, uint16_t) X(uint32, uint32_t) X(uint64, uint64_t) X(size, size_t)            \
    X(ptrdiff, ptrdiff_t)

#define SHMEM__RMA(NAME, TYPE)                                                                                                 \
    static inline void shmem_##NAME##_put(TYPE *dest, const TYPE *source, size_t count, int pe)                                \
    {                                                                                                                          \
        shmem_putmem(dest, source, count * sizeof(TYPE), pe);                                                                  \
    }                                                                                                                          \
    static inline void shmem_##NAME##_get(TYPE *dest, const TYPE *source, size_t count, int pe)                                \
    {                                                                                                                          \
        shmem_getmem(dest, source, count * sizeof(TYPE), pe);                                                                  \
    }                                                                                                                          \
    static inline void shmem_##NAME##_put_nbi(TYPE *dest, const TYPE *source, size_t count, int pe)                            \
    {                                                                                                                          \
        shmem_putmem(dest, source, count * sizeof(TYPE), pe);                                                                  \
    }                                                                                                                          \
    static inline void shmem_##NAME##_get_nbi(TYPE *dest, const TYPE *source, size_t count, int pe)                            \
    {                                                                                                                          \
        shmem_getmem(dest, source, count * sizeof(TYPE), pe);                                                                  \
    }                                                                                                                          \
    static inline void shmem_##NAME##_p(TYPE *dest, TYPE value, int pe) { shmem_putmem(dest, &value, sizeof value, pe); }      \
    static inline TYPE shmem_##NAME##_g(const TYPE *source, int pe)                                                            \
    {                                                                                                                          \
        TYPE value;                                                                                                            \
        shmem_getmem(&value, source, sizeof value, pe);                                                                        \
        return value;                                                                                                          \
    }                                                                                                                          \
    static inline void shmem_##NAME##_iput(TYPE *dest, const TYPE *source, ptrdiff_t to, ptrdiff_t from, size_t count, int pe) \
    {                                                                                                                          \
        shmem__iput((char *)dest, (const char *)source, to, from, count, sizeof(TYPE), pe);                                    \
    }                                                                                                                          \
    static inline void shmem_##NAME##_iget(TYPE *dest, const TYPE *source, ptrdiff_t to, ptrdiff_t from, size_t count, int pe) \
    {                                                                                                                          \
        shmem__iget((char *)dest, (const char *)source, to, from, count, sizeof(TYPE), pe);                                    \
    }                                                                                                                          \
    static inline int shmem_##NAME##_broadcast(shmem_team_t team, TYPE *dest, const TYPE *source, size_t count, int root)      \
    {                                                                                                                          \
        return shmem_broadcastmem(team, dest, source, count * sizeof(TYPE), root);                                             \
    }                                                                                                                          \
    static inline int shmem_##NAME##_fcollect(shmem_team_t team, TYPE *dest, const TYPE *source, size_t count)                 \
    {                                                                                                                          \
        return shmem_fcollectmem(team, dest, source, count * sizeof(TYPE));                                                    \
    }                                                                                                                          \
    static inline int shmem_##NAME##_alltoall(shmem_team_t team, TYPE *dest, const TYPE *source, size_t count)                 \
    {                                                                                                                          \
        return shmem_alltoallmem(team, dest, source, count * sizeof(TYPE));                                                    \
    }
SHMEM__RMA_TYPES(SHMEM__RMA)

#define SHMEM__SIZED(BITS)                                                                                                     \
    static inline void shmem_put##BITS(void *dest, const void *source, size_t count, int pe)                                   \
    {                                                                                                                          \
        shmem_putmem(dest, source, count * (BITS / 8), pe);                                                                    \
    }                                                                                                                          \
    static inline void shmem_get##BITS(void *dest, const void *source, size_t count, int pe)                                   \
    {                                                                                                                          \
        shmem_getmem(dest, source, count * (BITS / 8), pe);                                                                    \
    }                                                                                                                          \
    static inline void shmem_put##BITS##_nbi(void *dest, const void *source, size_t count, int pe)                             \
    {                                                                                                                          \
        shmem_putmem(dest, source, count * (BITS / 8), pe);                                                                    \
    }                                                                                                                          \
    static inline void shmem_get##BITS##_nbi(void *dest, const void *source, size_t count, int pe)                             \
    {                                                                                                                          \
        shmem_getmem(dest, source, count * (BITS / 8), pe);                                                                    \
    }                                                                                                                          \
    static inline void shmem_iput##BITS(void *dest, const void *source, ptrdiff_t to, ptrdiff_t from, size_t count, int pe)    \
    {                                                                                                                          \
        shmem__iput((char *)dest, (const char *)source, to, from, count, BITS / 8, pe);                                        \
    }                                                                                                                          \
    static inline void shmem_iget##BITS(void *dest, const void *source, ptrdiff_t to, ptrdiff_t from, size_t count, int pe)    \
    {                                                                                                                          \
        shmem__iget((char *)dest, (const char *)source, to, from, count, BITS / 8, pe);                                        \
    }
SHMEM__SIZED(8)
SHMEM__SIZED(16)
SHMEM__SIZED(32)
SHMEM__SIZED(64)
SHMEM__SIZED(128)

/* The older broadcasts: of all PEs but the root, as the standard has it. */
#define SHMEM__BROADCAST(BITS)                                                                                                 \
    static inline void shmem_broadcast##BITS(void *dest, const void *source, size_t count, int root, int start, int stride,    \
                                             int size, long *psync)                                                            \
    {                                                                                                                          \
        (void)psync;                                                                                                           \
        shmem__only_all(start, stride, size);                                                                                  \
        shmem_barrier_all();                                                                                                   \
        if (shmem_my_pe() != root)                                                                                             \
            shmem_getmem(dest, source, count * (BITS / 8), root);                                                              \
        shmem_barrier_all();                                                                                                   \
    }                                                                                                                          \
    static inline void shmem_fcollect##BITS(void *dest, const void *source, size_t count, int start, int stride, int size,     \
                                            long *psync)                                                                       \
    {                                                                                                                          \
        (void)psync;                                                                                                           \
        shmem__only_all(start, stride, size);                                                                                  \
        shmem_fcollectmem(SHMEM_TEAM_WORLD, dest, source, count * (BITS / 8));                                                 \
    }
SHMEM__BROADCAST(32)
SHMEM__BROADCAST(64)

/* Reductions: each PE fetches the elements of all, in the order of PEs, so all get the same. */
#define SHMEM__REDUCE_TYPES(X)                                                                                                 \
    X(float, float) X(double, double) X(longdouble, long double) X(char, char) X(schar, signed char) X(short, short)           \
    X(int, int) X(long, long) X(longlong, long long) X(uchar, unsigned char) X(ushort, unsigned short) X(uint, unsigned int)   \
    X(ulong, unsigned long) X(ulonglong, unsigned long long) X(int8, int8_t) X(int16, int16_t) X(int32, int32_t)               \
    X(int64, int64_t) X(uint8, uint8_t) X(uint16, uint16_t) X(uint32, uint32_t) X(uint64, uint64_t) X(size, size_t)            \
    X(ptrdiff, ptrdiff_t)
#define SHMEM__BIT_TYPES(X)                                                                                                    \
    X(uchar, unsigned char) X(ushort, unsigned short) X(uint, unsigned int) X(ulong, unsigned long)                            \
    X(ulonglong, unsigned long long) X(int8, int8_t) X(int16, int16_t) X(int32, int32_t) X(int64, int64_t) X(uint8, uint8_t)   \
    X(uint16, uint16_t) X(uint32, uint32_t) X(uint64, uint64_t) X(size, size_t)

#define SHMEM__REDUCE(NAME, TYPE, REDUCE, TO_ALL, RESULT)                                                                                  \
    static inline int REDUCE(shmem_team_t team, TYPE *dest, const TYPE *source, size_t count)            \
    {                                                                                                                          \
        size_t at, left = count;                                                                                               \
        int pe;                                                                                                                \
        TYPE part[256], *sums = (TYPE *)malloc(count > 0 ? count * sizeof(TYPE) : 1);                                          \
        shmem__only_world(team);                                                                                               \
        if (sums == NULL)                                                                                                      \
            stratalloc_shmem_die("no memory for a reduction");                                                                 \
        shmem_barrier_all();                                                                                                   \
        for (pe = 0; pe < shmem_n_pes(); pe++)                                                                                 \
            for (left = count; left > 0;) {                                                                                    \
                size_t some = left < 256 ? left : 256, first = count - left;                                                   \
                shmem_getmem(part, source + first, some * sizeof(TYPE), pe);                                                   \
                for (at = 0; at < some; at++) {                                                                                \
                    TYPE a = sums[first + at], b = part[at];                                                                   \
                    sums[first + at] = pe == 0 ? b : (TYPE)(RESULT);                                                           \
                    (void)a;                                                                                                   \
                }                                                                                                              \
                left -= some;                                                                                                  \
            }                                                                                                                  \
        shmem_barrier_all();                                                                                                   \
        memcpy(dest, sums, count * sizeof(TYPE));                                                                              \
        free(sums);                                                                                                            \
        shmem_barrier_all();                                                                                                   \
        return 0;                                                                                                              \
    }                                                                                                                          \
    static inline void TO_ALL(TYPE *dest, const TYPE *source, int count, int start, int stride,          \
                                                    int size, TYPE *pwrk, long *psync)                                         \
    {                                                                                                                          \
        (void)pwrk;                                                                                                            \
        (void)psync;                                                                                                           \
        shmem__only_all(start, stride, size);                                                                                  \
        REDUCE(SHMEM_TEAM_WORLD, dest, source, (size_t)count);                                           \
    }
#define SHMEM__NUMBERS(NAME, TYPE)                                                                                             \
    SHMEM__REDUCE(NAME, TYPE, shmem_##NAME##_sum_reduce, shmem_##NAME##_sum_to_all, a + b)                                                                                      \
    SHMEM__REDUCE(NAME, TYPE, shmem_##NAME##_prod_reduce, shmem_##NAME##_prod_to_all, a *b)                                                                                      \
    SHMEM__REDUCE(NAME, TYPE, shmem_##NAME##_min_reduce, shmem_##NAME##_min_to_all, b < a ? b : a)                                                                              \
    SHMEM__REDUCE(NAME, TYPE, shmem_##NAME##_max_reduce, shmem_##NAME##_max_to_all, b > a ? b : a)
#define SHMEM__BITS(NAME, TYPE)                                                                                                \
    SHMEM__REDUCE(NAME, TYPE, shmem_##NAME##_and_reduce, shmem_##NAME##_and_to_all, a &b)                                                                                       \
    SHMEM__REDUCE(NAME, TYPE, shmem_##NAME##_or_reduce, shmem_##NAME##_or_to_all, a | b)                                                                                       \
    SHMEM__REDUCE(NAME, TYPE, shmem_##NAME##_xor_reduce, shmem_##NAME##_xor_to_all, a ^ b)
SHMEM__REDUCE_TYPES(SHMEM__NUMBERS)
SHMEM__BIT_TYPES(SHMEM__BITS)

/* Atomic operations. */
#define SHMEM__AMO_TYPES(X)                                                                                                    \
    X(int, int) X(long, long) X(longlong, long long) X(uint, unsigned int) X(ulong, unsigned long)                             \
    X(ulonglong, unsigned long long) X(int32, int32_t) X(int64, int64_t) X(uint32, uint32_t) X(uint64, uint64_t)               \
    X(size, size_t) X(ptrdiff, ptrdiff_t)
#define SHMEM__AMO_BIT_TYPES(X)                                                                                                \
    X(uint, unsigned int) X(ulong, unsigned long) X(ulonglong, unsigned long long) X(int32, int32_t) X(int64, int64_t)         \
    X(uint32, uint32_t) X(uint64, uint64_t)

#define SHMEM__CALL(OP, WORD, VALUE, EXPECTED, PE)                                                                             \
    stratalloc_shmem_atomic(OP, (void *)(uintptr_t)(WORD), (uint64_t)(VALUE), (uint64_t)(EXPECTED), sizeof *(WORD), PE)
#define SHMEM__AMO(NAME, TYPE)                                                                                                 \
    static inline TYPE shmem_##NAME##_atomic_fetch(const TYPE *word, int pe)                                                   \
    {                                                                                                                          \
        return (TYPE)SHMEM__CALL(0, word, 0, 0, pe);                                                                           \
    }                                                                                                                          \
    static inline void shmem_##NAME##_atomic_set(TYPE *word, TYPE value, int pe) { SHMEM__CALL(1, word, value, 0, pe); }       \
    static inline TYPE shmem_##NAME##_atomic_swap(TYPE *word, TYPE value, int pe)                                              \
    {                                                                                                                          \
        return (TYPE)SHMEM__CALL(1, word, value, 0, pe);                                                                       \
    }                                                                                                                          \
    static inline TYPE shmem_##NAME##_atomic_compare_swap(TYPE *word, TYPE expected, TYPE value, int pe)                       \
    {                                                                                                                          \
        return (TYPE)SHMEM__CALL(6, word, value, expected, pe);                                                                \
    }                                                                                                                          \
    static inline TYPE shmem_##NAME##_atomic_fetch_add(TYPE *word, TYPE value, int pe)                                         \
    {                                                                                                                          \
        return (TYPE)SHMEM__CALL(2, word, value, 0, pe);                                                                       \
    }                                                                                                                          \
    static inline void shmem_##NAME##_atomic_add(TYPE *word, TYPE value, int pe) { SHMEM__CALL(2, word, value, 0, pe); }       \
    static inline TYPE shmem_##NAME##_atomic_fetch_inc(TYPE *word, int pe) { return (TYPE)SHMEM__CALL(2, word, 1, 0, pe); }    \
    static inline void shmem_##NAME##_atomic_inc(TYPE *word, int pe) { SHMEM__CALL(2, word, 1, 0, pe); }                       \
    /* What a word of this PE is to become, by others. */                                                                      \
    static inline int shmem_##NAME##_test(TYPE *word, int comparison, TYPE value)                                              \
    {                                                                                                                          \
        TYPE now = shmem_##NAME##_atomic_fetch(word, shmem_my_pe());                                                           \
        switch (comparison) {                                                                                                  \
        case SHMEM_CMP_EQ:                                                                                                     \
            return now == value;                                                                                               \
        case SHMEM_CMP_NE:                                                                                                     \
            return now != value;                                                                                               \
        case SHMEM_CMP_GT:                                                                                                     \
            return now > value;                                                                                                \
        case SHMEM_CMP_LE:                                                                                                     \
            return now <= value;                                                                                               \
        case SHMEM_CMP_LT:                                                                                                     \
            return now < value;                                                                                                \
        case SHMEM_CMP_GE:                                                                                                     \
            return now >= value;                                                                                               \
        default:                                                                                                               \
            stratalloc_shmem_die("a comparison that is none; there are SHMEM_CMP_EQ, NE, GT, LE, LT and GE");                  \
        }                                                                                                                      \
        return 0;                                                                                                              \
    }                                                                                                                          \
    static inline void shmem_##NAME##_wait_until(TYPE *word, int comparison, TYPE value)                                       \
    {                                                                                                                          \
        uint32_t round = 0;                                                                                                    \
        while (!shmem_##NAME##_test(word, comparison, value))                                                                  \
            stratalloc_shmem_rest(round++);                                                                                    \
    }
SHMEM__AMO_TYPES(SHMEM__AMO)

#define SHMEM__AMO_BITS(NAME, TYPE)                                                                                            \
    static inline TYPE shmem_##NAME##_atomic_fetch_and(TYPE *word, TYPE value, int pe)                                         \
    {                                                                                                                          \
        return (TYPE)SHMEM__CALL(3, word, value, 0, pe);                                                                       \
    }                                                                                                                          \
    static inline void shmem_##NAME##_atomic_and(TYPE *word, TYPE value, int pe) { SHMEM__CALL(3, word, value, 0, pe); }       \
    static inline TYPE shmem_##NAME##_atomic_fetch_or(TYPE *word, TYPE value, int pe)                                          \
    {                                                                                                                          \
        return (TYPE)SHMEM__CALL(4, word, value, 0, pe);                                                                       \
    }                                                                                                                          \
    static inline void shmem_##NAME##_atomic_or(TYPE *word, TYPE value, int pe) { SHMEM__CALL(4, word, value, 0, pe); }        \
    static inline TYPE shmem_##NAME##_atomic_fetch_xor(TYPE *word, TYPE value, int pe)                                         \
    {                                                                                                                          \
        return (TYPE)SHMEM__CALL(5, word, value, 0, pe);                                                                       \
    }                                                                                                                          \
    static inline void shmem_##NAME##_atomic_xor(TYPE *word, TYPE value, int pe) { SHMEM__CALL(5, word, value, 0, pe); }
SHMEM__AMO_BIT_TYPES(SHMEM__AMO_BITS)

/* Of floating-point numbers there are those that do not compute, by their bits. */
#define SHMEM__AMO_FLOAT(TYPE, WORD)                                                                                           \
    static inline TYPE shmem_##TYPE##_atomic_swap(TYPE *word, TYPE value, int pe)                                              \
    {                                                                                                                          \
        WORD bits;                                                                                                             \
        memcpy(&bits, &value, sizeof bits);                                                                                    \
        bits = (WORD)SHMEM__CALL(1, word, bits, 0, pe);                                                                        \
        memcpy(&value, &bits, sizeof bits);                                                                                    \
        return value;                                                                                                          \
    }                                                                                                                          \
    static inline void shmem_##TYPE##_atomic_set(TYPE *word, TYPE value, int pe) { shmem_##TYPE##_atomic_swap(word, value, pe); } \
    static inline TYPE shmem_##TYPE##_atomic_fetch(const TYPE *word, int pe)                                                   \
    {                                                                                                                          \
        TYPE value;                                                                                                            \
        WORD bits = (WORD)SHMEM__CALL(0, word, 0, 0, pe);                                                                      \
        memcpy(&value, &bits, sizeof bits);                                                                                    \
        return value;                                                                                                          \
    }
SHMEM__AMO_FLOAT(float, uint32_t)
SHMEM__AMO_FLOAT(double, uint64_t)

/* A put, and a word that tells that it has come. */
#define SHMEM_SIGNAL_SET 0
#define SHMEM_SIGNAL_ADD 1
static inline void shmem_putmem_signal(void *dest, const void *source, size_t bytes, uint64_t *signal, uint64_t value,
                                       int how, int pe)
{
    shmem_putmem(dest, source, bytes, pe);
    shmem_fence();
    SHMEM__CALL(how == SHMEM_SIGNAL_ADD ? 2 : 1, signal, value, 0, pe);
}
static inline uint64_t shmem_signal_fetch(const uint64_t *signal) { return shmem_uint64_atomic_fetch(signal, shmem_my_pe()); }
static inline int shmem__holds_of(uint64_t now, int comparison, uint64_t value)
{
    switch (comparison) {
    case SHMEM_CMP_EQ:
        return now == value;
    case SHMEM_CMP_NE:
        return now != value;
    case SHMEM_CMP_GT:
        return now > value;
    case SHMEM_CMP_LE:
        return now <= value;
    case SHMEM_CMP_LT:
        return now < value;
    case SHMEM_CMP_GE:
        return now >= value;
    default:
        stratalloc_shmem_die("a comparison that is none; there are SHMEM_CMP_EQ, NE, GT, LE, LT and GE");
    }
    return 0;
}
static inline uint64_t shmem_signal_wait_until(uint64_t *signal, int comparison, uint64_t value)
{
    uint32_t round = 0;
    for (;;) {
        uint64_t now = shmem_signal_fetch(signal);
        if (shmem__holds_of(now, comparison, value))
            return now;
        stratalloc_shmem_rest(round++);
    }
}

/* Locks: a symmetric long of all, that of PE 0 says who has it. */
static inline int shmem_test_lock(long *lock)
{
    return shmem_long_atomic_compare_swap(lock, 0, shmem_my_pe() + 1, 0) != 0;
}
static inline void shmem_set_lock(long *lock)
{
    uint32_t round = 0;
    while (shmem_test_lock(lock))
        stratalloc_shmem_rest(round++);
}
static inline void shmem_clear_lock(long *lock)
{
    shmem_quiet();
    shmem_long_atomic_set(lock, 0, 0);
}

#ifdef __cplusplus
}
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
/* Names for whatever type the first argument points to. */
#define SHMEM__OF(ADDRESS, WHAT)                                                                                               \
    _Generic((ADDRESS), float *: shmem_float_##WHAT, double *: shmem_double_##WHAT, long double *: shmem_longdouble_##WHAT,    \
        char *: shmem_char_##WHAT, signed char *: shmem_schar_##WHAT, short *: shmem_short_##WHAT, int *: shmem_int_##WHAT,    \
        long *: shmem_long_##WHAT, long long *: shmem_longlong_##WHAT, unsigned char *: shmem_uchar_##WHAT,                    \
        unsigned short *: shmem_ushort_##WHAT, unsigned int *: shmem_uint_##WHAT, unsigned long *: shmem_ulong_##WHAT,         \
        unsigned long long *: shmem_ulonglong_##WHAT)
#define SHMEM__OF_CONST(ADDRESS, WHAT)                                                                                         \
    _Generic((ADDRESS), const float *: shmem_float_##WHAT, float *: shmem_float_##WHAT, const double *: shmem_double_##WHAT,   \
        double *: shmem_double_##WHAT, const long double *: shmem_longdouble_##WHAT, long double *: shmem_longdouble_##WHAT,   \
        const char *: shmem_char_##WHAT, char *: shmem_char_##WHAT, const signed char *: shmem_schar_##WHAT,                   \
        signed char *: shmem_schar_##WHAT, const short *: shmem_short_##WHAT, short *: shmem_short_##WHAT,                     \
        const int *: shmem_int_##WHAT, int *: shmem_int_##WHAT, const long *: shmem_long_##WHAT, long *: shmem_long_##WHAT,    \
        const long long *: shmem_longlong_##WHAT, long long *: shmem_longlong_##WHAT,                                          \
        const unsigned char *: shmem_uchar_##WHAT, unsigned char *: shmem_uchar_##WHAT,                                        \
        const unsigned short *: shmem_ushort_##WHAT, unsigned short *: shmem_ushort_##WHAT,                                    \
        const unsigned int *: shmem_uint_##WHAT, unsigned int *: shmem_uint_##WHAT,                                            \
        const unsigned long *: shmem_ulong_##WHAT, unsigned long *: shmem_ulong_##WHAT,                                        \
        const unsigned long long *: shmem_ulonglong_##WHAT, unsigned long long *: shmem_ulonglong_##WHAT)
#define SHMEM__OF_WORD(ADDRESS, WHAT)                                                                                          \
    _Generic((ADDRESS), int *: shmem_int_##WHAT, long *: shmem_long_##WHAT, long long *: shmem_longlong_##WHAT,                \
        unsigned int *: shmem_uint_##WHAT, unsigned long *: shmem_ulong_##WHAT,                                                \
        unsigned long long *: shmem_ulonglong_##WHAT)
#define SHMEM__OF_NUMBER(ADDRESS, WHAT)                                                                                        \
    _Generic((ADDRESS), float *: shmem_float_##WHAT, double *: shmem_double_##WHAT, int *: shmem_int_##WHAT,                   \
        long *: shmem_long_##WHAT, long long *: shmem_longlong_##WHAT, unsigned int *: shmem_uint_##WHAT,                      \
        unsigned long *: shmem_ulong_##WHAT, unsigned long long *: shmem_ulonglong_##WHAT)
#define SHMEM__OF_CONST_NUMBER(ADDRESS, WHAT)                                                                                  \
    _Generic((ADDRESS), const float *: shmem_float_##WHAT, float *: shmem_float_##WHAT, const double *: shmem_double_##WHAT,   \
        double *: shmem_double_##WHAT, const int *: shmem_int_##WHAT, int *: shmem_int_##WHAT, const long *: shmem_long_##WHAT, \
        long *: shmem_long_##WHAT, const long long *: shmem_longlong_##WHAT, long long *: shmem_longlong_##WHAT,               \
        const unsigned int *: shmem_uint_##WHAT, unsigned int *: shmem_uint_##WHAT,                                            \
        const unsigned long *: shmem_ulong_##WHAT, unsigned long *: shmem_ulong_##WHAT,                                        \
        const unsigned long long *: shmem_ulonglong_##WHAT, unsigned long long *: shmem_ulonglong_##WHAT)
#define SHMEM__OF_BIT_ARRAY(ADDRESS, WHAT)                                                                                     \
    _Generic((ADDRESS), unsigned char *: shmem_uchar_##WHAT, unsigned short *: shmem_ushort_##WHAT,                            \
        unsigned int *: shmem_uint_##WHAT, unsigned long *: shmem_ulong_##WHAT,                                                \
        unsigned long long *: shmem_ulonglong_##WHAT, signed char *: shmem_int8_##WHAT, short *: shmem_int16_##WHAT,           \
        int *: shmem_int32_##WHAT, long *: shmem_int64_##WHAT)
#define SHMEM__OF_BITS(ADDRESS, WHAT)                                                                                          \
    _Generic((ADDRESS), unsigned int *: shmem_uint_##WHAT, unsigned long *: shmem_ulong_##WHAT,                                \
        unsigned long long *: shmem_ulonglong_##WHAT, int *: shmem_int32_##WHAT, long *: shmem_int64_##WHAT)
#define shmem_put(dest, source, count, pe) SHMEM__OF(dest, put)(dest, source, count, pe)
#define shmem_get(dest, source, count, pe) SHMEM__OF(dest, get)(dest, source, count, pe)
#define shmem_put_nbi(dest, source, count, pe) SHMEM__OF(dest, put_nbi)(dest, source, count, pe)
#define shmem_get_nbi(dest, source, count, pe) SHMEM__OF(dest, get_nbi)(dest, source, count, pe)
#define shmem_p(dest, value, pe) SHMEM__OF(dest, p)(dest, value, pe)
#define shmem_g(source, pe) SHMEM__OF_CONST(source, g)(source, pe)
#define shmem_iput(dest, source, to, from, count, pe) SHMEM__OF(dest, iput)(dest, source, to, from, count, pe)
#define shmem_iget(dest, source, to, from, count, pe) SHMEM__OF(dest, iget)(dest, source, to, from, count, pe)
#define shmem_broadcast(team, dest, source, count, root) SHMEM__OF(dest, broadcast)(team, dest, source, count, root)
#define shmem_fcollect(team, dest, source, count) SHMEM__OF(dest, fcollect)(team, dest, source, count)
#define shmem_alltoall(team, dest, source, count) SHMEM__OF(dest, alltoall)(team, dest, source, count)
#define shmem_sum_reduce(team, dest, source, count) SHMEM__OF(dest, sum_reduce)(team, dest, source, count)
#define shmem_prod_reduce(team, dest, source, count) SHMEM__OF(dest, prod_reduce)(team, dest, source, count)
#define shmem_min_reduce(team, dest, source, count) SHMEM__OF(dest, min_reduce)(team, dest, source, count)
#define shmem_and_reduce(team, dest, source, count) SHMEM__OF_BIT_ARRAY(dest, and_reduce)(team, dest, source, count)
#define shmem_or_reduce(team, dest, source, count) SHMEM__OF_BIT_ARRAY(dest, or_reduce)(team, dest, source, count)
#define shmem_xor_reduce(team, dest, source, count) SHMEM__OF_BIT_ARRAY(dest, xor_reduce)(team, dest, source, count)
#define shmem_max_reduce(team, dest, source, count) SHMEM__OF(dest, max_reduce)(team, dest, source, count)
#define shmem_atomic_fetch(word, pe) SHMEM__OF_CONST_NUMBER(word, atomic_fetch)(word, pe)
#define shmem_atomic_set(word, value, pe) SHMEM__OF_NUMBER(word, atomic_set)(word, value, pe)
#define shmem_atomic_swap(word, value, pe) SHMEM__OF_NUMBER(word, atomic_swap)(word, value, pe)
#define shmem_atomic_compare_swap(word, expected, value, pe) SHMEM__OF_WORD(word, atomic_compare_swap)(word, expected, value, pe)
#define shmem_atomic_fetch_add(word, value, pe) SHMEM__OF_WORD(word, atomic_fetch_add)(word, value, pe)
#define shmem_atomic_add(word, value, pe) SHMEM__OF_WORD(word, atomic_add)(word, value, pe)
#define shmem_atomic_fetch_inc(word, pe) SHMEM__OF_WORD(word, atomic_fetch_inc)(word, pe)
#define shmem_atomic_inc(word, pe) SHMEM__OF_WORD(word, atomic_inc)(word, pe)
#define shmem_atomic_fetch_and(word, value, pe) SHMEM__OF_BITS(word, atomic_fetch_and)(word, value, pe)
#define shmem_atomic_and(word, value, pe) SHMEM__OF_BITS(word, atomic_and)(word, value, pe)
#define shmem_atomic_fetch_or(word, value, pe) SHMEM__OF_BITS(word, atomic_fetch_or)(word, value, pe)
#define shmem_atomic_or(word, value, pe) SHMEM__OF_BITS(word, atomic_or)(word, value, pe)
#define shmem_atomic_fetch_xor(word, value, pe) SHMEM__OF_BITS(word, atomic_fetch_xor)(word, value, pe)
#define shmem_atomic_xor(word, value, pe) SHMEM__OF_BITS(word, atomic_xor)(word, value, pe)
#define shmem_test(word, comparison, value) SHMEM__OF_WORD(word, test)(word, comparison, value)
#define shmem_wait_until(word, comparison, value) SHMEM__OF_WORD(word, wait_until)(word, comparison, value)
#endif

#endif
