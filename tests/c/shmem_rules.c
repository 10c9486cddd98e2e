// What each shmem_ name does (row C3), on however many PEs.

#include "check.h"
#include <shmem.h>
#include <sys/wait.h>
#include <unistd.h>

static int me, pes;

static void memory(void) {
    CHECK(shmem_malloc(0) == NULL && shmem_calloc(0, 8) == NULL && shmem_calloc(8, 0) == NULL);
    CHECK(shmem_align(64, 0) == NULL && shmem_malloc_with_hints(0, SHMEM_MALLOC_ATOMICS_REMOTE) == NULL);
    shmem_free(NULL);
    char *block = shmem_malloc(1000);
    CHECK(block != NULL && (uintptr_t)block % 16 == 0 && shmem_addr_accessible(block, 0));
    fill(block, 1000, 7 + (uint64_t)me);
    block = shmem_realloc(block, 200000);
    CHECK(block != NULL && is_filled(block, 1000 & ~7, 7 + (uint64_t)me));
    // More than there is: null everywhere, and the block stays.
    CHECK(shmem_realloc(block, (size_t)1 << 40) == NULL && is_filled(block, 1000 & ~7, 7 + (uint64_t)me));
    CHECK(shmem_malloc((size_t)1 << 40) == NULL && shmem_malloc(SIZE_MAX) == NULL && shmem_calloc(SIZE_MAX, 3) == NULL);
    CHECK(shmem_realloc(block, 0) == NULL);
    for (size_t alignment = 8; alignment <= 65536; alignment *= 2) {
        char *aligned = shmem_align(alignment, 100);
        CHECK(aligned != NULL && (uintptr_t)aligned % alignment == 0);
        shmem_free(aligned);
    }
    char *zeroed = shmem_calloc(100, 30);
    for (int at = 0; at < 3000; at++) {
        CHECK(zeroed[at] == 0);
    }
    shmem_free(zeroed);
    long *hinted = shmem_malloc_with_hints(sizeof *hinted, SHMEM_MALLOC_ATOMICS_REMOTE | SHMEM_MALLOC_SIGNAL_REMOTE);
    CHECK(hinted != NULL && (uintptr_t)hinted % 64 == 0);
    shmem_free(hinted);
    // The older names.
    block = shmalloc(10);
    block = shrealloc(block, 20);
    CHECK(block != NULL);
    shfree(block);
    block = shmemalign(256, 1);
    CHECK((uintptr_t)block % 256 == 0);
    shfree(block);
}

// Global and static variables are symmetric, too.
static long of_file = 5;
static char large[100000];

static void variables(void) {
    static int of_function;
    int right = (me + 1) % pes, left = (me + pes - 1) % pes;
    CHECK(shmem_addr_accessible(&of_function, right) && shmem_addr_accessible(large + 99999, right));
    CHECK(!shmem_addr_accessible("constant", right) && !shmem_addr_accessible(&right, right));
    CHECK(of_file == 5 && of_function == 0);
    shmem_barrier_all();
    shmem_int_p(&of_function, me + 10, right);
    shmem_long_atomic_add(&of_file, me + 1, right);
    large[me] = 'x';
    shmem_barrier_all();
    CHECK(of_function == left + 10 && of_file == 5 + left + 1);
    CHECK(shmem_char_g(large + right, right) == 'x');
    int *there = shmem_ptr(&of_function, right);
    CHECK(there != NULL && *there == me + 10);
    shmem_barrier_all();
    // A child has its own, as they were when it was made.
    fflush(stdout);
    for (int turn = 0; turn < 20; turn++) {
        int result, was = of_function, child = fork();
        if (child == 0) {
            usleep(500);
            _exit(of_function == was && (of_file = 0, of_function = 0, 1) ? 0 : 1);
        }
        of_function = 1000 + turn;
        CHECK(waitpid(child, &result, 0) == child && result == 0);
    }
    of_function = left + 10;
    CHECK(of_function == left + 10 && of_file == 5 + left + 1);
    shmem_barrier_all();
}

static void places(void) {
    int own, *word = shmem_malloc(sizeof *word);
    *word = me;
    shmem_barrier_all();
    for (int pe = 0; pe < pes; pe++) {
        int *there = shmem_ptr(word, pe);
        CHECK(there != NULL && *there == pe && (there == word) == (pe == me));
        CHECK(shmem_pe_accessible(pe));
    }
    CHECK(shmem_ptr(&own, me) == NULL && !shmem_addr_accessible(&own, me));
    CHECK(shmem_ptr(word, pes) == NULL && shmem_ptr(word, -1) == NULL && !shmem_addr_accessible(word, -1));
    CHECK(!shmem_pe_accessible(pes) && !shmem_pe_accessible(-1));
    shmem_free(word);
}

#define TRANSFERS(NAME, TYPE)                                                                                          \
    do {                                                                                                               \
        TYPE *there = shmem_calloc(8, sizeof *there), own[4], one;                                                     \
        for (int at = 0; at < 4; at++) {                                                                               \
            own[at] = (TYPE)(10 * me + at);                                                                            \
        }                                                                                                              \
        shmem_##NAME##_put(there, own, 4, right);                                                                      \
        shmem_##NAME##_p(there + 4, (TYPE)(me + 1), right);                                                            \
        shmem_##NAME##_iput(there + 5, own, 2, 3, 2, right);                                                           \
        shmem_barrier_all();                                                                                           \
        CHECK(there[0] == (TYPE)(10 * left) && there[3] == (TYPE)(10 * left + 3) && there[4] == (TYPE)(left + 1));     \
        CHECK(there[5] == (TYPE)(10 * left) && there[6] == 0 && there[7] == (TYPE)(10 * left + 3));                    \
        shmem_##NAME##_get(own, there, 3, right);                                                                      \
        one = shmem_##NAME##_g(there + 4, right);                                                                      \
        CHECK(own[2] == (TYPE)(10 * me + 2) && one == (TYPE)(me + 1));                                                 \
        shmem_##NAME##_iget(own, there, 3, 2, 2, right);                                                               \
        CHECK(own[0] == (TYPE)(10 * me) && own[3] == (TYPE)(10 * me + 2));                                             \
        shmem_##NAME##_put_nbi(there, own, 1, right);                                                                  \
        shmem_quiet();                                                                                                 \
        shmem_##NAME##_get_nbi(own, there, 1, right);                                                                  \
        shmem_free(there);                                                                                             \
    } while (0);

static void transfers(void) {
    int right = (me + 1) % pes, left = (me + pes - 1) % pes;
    SHMEM__RMA_TYPES(TRANSFERS)
    uint64_t *words = shmem_calloc(16, sizeof *words), own[16];
    fill(own, sizeof own, 3);
    shmem_putmem(words, own, sizeof own, right);
    shmem_barrier_all();
    CHECK(is_filled(words, sizeof own, 3));
    memset(own, 0, sizeof own);
    shmem_get64(own, words, 16, right);
    CHECK(is_filled(own, sizeof own, 3));
    shmem_put8(words, own, 1, right);
    shmem_put16(words, own, 1, right);
    shmem_put32(words, own, 2, right);
    shmem_put128(words, own, 8, right);
    shmem_barrier_all();
    uint32_t all[8], some[4];
    shmem_get32(all, words, 8, right);
    shmem_iget32(some, words, 1, 2, 4, right);
    CHECK(some[0] == all[0] && some[1] == all[2] && some[2] == all[4] && some[3] == all[6]);
    shmem_barrier_all();
    // By type.
    shmem_p(words, 77ul, right);
    shmem_put(words + 1, own, 2, right);
    shmem_barrier_all();
    CHECK(shmem_g(words, me) == 77 && words[0] == 77);
    shmem_get(own + 3, words, 1, right);
    CHECK(own[3] == 77);
    // A put with a signal.
    uint64_t *signal = shmem_calloc(1, sizeof *signal);
    shmem_putmem_signal(words + 4, own, 16, signal, 9, SHMEM_SIGNAL_SET, right);
    CHECK(shmem_signal_wait_until(signal, SHMEM_CMP_EQ, 9) == 9);
    shmem_free(signal);
    shmem_free(words);
}

#define ATOMICS(NAME, TYPE)                                                                                            \
    do {                                                                                                               \
        TYPE *word = shmem_calloc(4, sizeof *word);                                                                    \
        for (int turn = 0; turn < 100; turn++) {                                                                       \
            shmem_##NAME##_atomic_inc(word, 0);                                                                        \
            shmem_##NAME##_atomic_add(word, 2, 0);                                                                     \
            shmem_##NAME##_atomic_fetch_inc(word, 0);                                                                  \
        }                                                                                                              \
        shmem_barrier_all();                                                                                           \
        CHECK(shmem_##NAME##_atomic_fetch(word, 0) == (TYPE)(400 * pes));                                              \
        CHECK(shmem_##NAME##_atomic_fetch_add(word + 1, 5, me) == 0);                                                  \
        CHECK(shmem_##NAME##_atomic_swap(word + 1, 6, me) == 5);                                                       \
        CHECK(shmem_##NAME##_atomic_compare_swap(word + 1, 7, 8, me) == 6);                                            \
        CHECK(shmem_##NAME##_atomic_compare_swap(word + 1, 6, 8, me) == 6 && word[1] == 8);                            \
        shmem_##NAME##_atomic_set(word + 2, (TYPE)(me + 1), (me + 1) % pes);                                           \
        shmem_##NAME##_wait_until(word + 2, SHMEM_CMP_NE, 0);                                                          \
        CHECK(shmem_##NAME##_test(word + 2, SHMEM_CMP_EQ, (TYPE)((me + pes - 1) % pes + 1)));                          \
        CHECK(shmem_##NAME##_test(word + 2, SHMEM_CMP_GT, 0) && shmem_##NAME##_test(word + 2, SHMEM_CMP_GE, 1));       \
        CHECK(!shmem_##NAME##_test(word + 2, SHMEM_CMP_LT, 1) && !shmem_##NAME##_test(word + 2, SHMEM_CMP_LE, 0));     \
        shmem_free(word);                                                                                              \
    } while (0);

#define BITS(NAME, TYPE)                                                                                               \
    do {                                                                                                               \
        TYPE *word = shmem_calloc(1, sizeof *word);                                                                    \
        CHECK(shmem_##NAME##_atomic_fetch_or(word, 12, me) == 0);                                                      \
        CHECK(shmem_##NAME##_atomic_fetch_and(word, 6, me) == 12);                                                     \
        CHECK(shmem_##NAME##_atomic_fetch_xor(word, 5, me) == 4 && *word == 1);                                        \
        shmem_##NAME##_atomic_or(word, 8, me);                                                                         \
        shmem_##NAME##_atomic_and(word, 12, me);                                                                       \
        shmem_##NAME##_atomic_xor(word, 1, me);                                                                        \
        CHECK(*word == 9);                                                                                             \
        shmem_free(word);                                                                                              \
    } while (0);

static void atomics(void) {
    SHMEM__AMO_TYPES(ATOMICS)
    SHMEM__AMO_BIT_TYPES(BITS)
    double *number = shmem_calloc(1, sizeof *number);
    CHECK(shmem_double_atomic_swap(number, 2.5, me) == 0.0 && shmem_double_atomic_fetch(number, me) == 2.5);
    shmem_double_atomic_set(number, -1.0, me);
    CHECK(*number == -1.0);
    shmem_free(number);
    // A negative one, in 32 bits.
    int *small = shmem_calloc(1, sizeof *small);
    CHECK(shmem_atomic_fetch_add(small, -3, me) == 0 && shmem_atomic_fetch(small, me) == -3);
    CHECK(shmem_atomic_compare_swap(small, -3, -4, me) == -3 && *small == -4);
    shmem_free(small);
    // A lock, by which two steps are one.
    long *lock = shmem_calloc(1, sizeof *lock), *sum = shmem_calloc(1, sizeof *sum);
    for (int turn = 0; turn < 200; turn++) {
        shmem_set_lock(lock);
        long value = shmem_long_g(sum, 0);
        shmem_long_p(sum, value + 1, 0);
        shmem_clear_lock(lock);
    }
    shmem_barrier_all();
    CHECK(shmem_long_g(sum, 0) == 200 * pes);
    shmem_barrier_all();
    CHECK(me != 0 || shmem_test_lock(lock) == 0);
    shmem_barrier_all();
    CHECK(me == 0 || shmem_test_lock(lock) == 1);
    shmem_free(sum);
    shmem_free(lock);
}

static void collectives(void) {
    static long psync[SHMEM_REDUCE_SYNC_SIZE], work[SHMEM_REDUCE_MIN_WRKDATA_SIZE];
    long *source = shmem_calloc(1000, sizeof *source), *dest = shmem_calloc(1000 * (size_t)pes, sizeof *dest);
    for (int at = 0; at < 1000; at++) {
        source[at] = at + 1000 * me;
    }
    CHECK(shmem_long_sum_reduce(SHMEM_TEAM_WORLD, dest, source, 1000) == 0);
    CHECK(dest[0] == 500l * pes * (pes - 1) && dest[999] == 999l * pes + 500l * pes * (pes - 1));
    CHECK(shmem_max_reduce(SHMEM_TEAM_WORLD, dest, source, 1000) == 0 && dest[5] == 5 + 1000 * (pes - 1));
    CHECK(shmem_min_reduce(SHMEM_TEAM_WORLD, dest, source, 1000) == 0 && dest[5] == 5);
    shmem_long_sum_to_all(dest, source, 1000, 0, 0, pes, work, psync);
    CHECK(dest[0] == 500l * pes * (pes - 1));
    CHECK(shmem_long_broadcast(SHMEM_TEAM_WORLD, dest, source, 1000, pes - 1) == 0 && dest[3] == 3 + 1000 * (pes - 1));
    CHECK(shmem_fcollect(SHMEM_TEAM_WORLD, dest, source, 3) == 0);
    for (int pe = 0; pe < pes; pe++) {
        CHECK(dest[3 * pe + 2] == 2 + 1000 * pe);
    }
    shmem_barrier_all();
    CHECK(shmem_alltoall(SHMEM_TEAM_WORLD, dest, source, 2) == 0);
    for (int pe = 0; pe < pes; pe++) {
        CHECK(dest[2 * pe + 1] == 2 * me + 1 + 1000 * pe);
    }
    shmem_barrier_all();
    dest[0] = -1;
    shmem_broadcast64(dest, source, 10, 0, 0, 0, pes, psync);
    CHECK(dest[0] == (me == 0 ? -1 : 0));
    shmem_barrier(0, 0, pes, psync);
    shmem_sync_all();
    CHECK(shmem_team_sync(SHMEM_TEAM_WORLD) == 0 && shmem_team_my_pe(SHMEM_TEAM_WORLD) == me);
    CHECK(shmem_team_n_pes(SHMEM_TEAM_WORLD) == pes && shmem_team_n_pes(SHMEM_TEAM_INVALID) == -1);
    unsigned *bits = (unsigned *)dest, *own = (unsigned *)source;
    own[0] = 1u << me;
    CHECK(shmem_uint_or_reduce(SHMEM_TEAM_WORLD, bits, own, 1) == 0 && bits[0] == (1u << pes) - 1);
    shmem_barrier_all();
    shmem_free(dest);
    shmem_free(source);
}

int main(void) {
    int provided = -1, major, minor;
    char name[SHMEM_MAX_NAME_LEN];
    CHECK(shmem_init_thread(SHMEM_THREAD_SINGLE, &provided) == 0 && provided == SHMEM_THREAD_MULTIPLE);
    shmem_query_thread(&provided);
    CHECK(provided == SHMEM_THREAD_MULTIPLE);
    shmem_info_get_version(&major, &minor);
    shmem_info_get_name(name);
    CHECK(major == 1 && minor == 5 && strcmp(name, "stratalloc") == 0);
    me = shmem_my_pe();
    pes = shmem_n_pes();
    CHECK(me == _my_pe() && pes == _num_pes() && 0 <= me && me < pes);
    memory();
    variables();
    places();
    transfers();
    atomics();
    collectives();
    shmem_finalize();
    // Without effect.
    shmem_finalize();
    return status();
}
