// Every rule that C23, POSIX.1-2024 and glibc have for the allocation functions.
//
// It runs on whatever allocator the process has. Without the library preloaded that is glibc's: a check that fails there is
// wrong. Where glibc 2.36 differs from a standard, or promises less than the library does, the check is for ours alone, and
// says why.

#define _GNU_SOURCE
#include "check.h"
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define COUNT(array) (sizeof(array) / sizeof *(array))
// An error number that nobody sets.
#define NOBODYS 4242

// Whether the bare names are the library's.
static int ours;
static size_t page;

// C23's two are not in glibc 2.36.
static void (*free_sized)(void *, size_t);
static void (*free_aligned_sized)(void *, size_t, size_t);

static int is_at_multiple(const void *at, size_t align) {
    return (uintptr_t)at % align == 0;
}

// Whether `at` is null with `number`; takes the number back, and frees what should not be there.
static int failed_with(void *at, int number) {
    int was = errno;
    errno = NOBODYS;
    free(at);
    return at == NULL && was == number;
}

static const size_t TOO_LARGE[] = {
    (size_t)PTRDIFF_MAX, (size_t)PTRDIFF_MAX + 1, SIZE_MAX / 2 + 4096, SIZE_MAX - 64 * 1024, SIZE_MAX - 4096,
    SIZE_MAX - 4095,     SIZE_MAX - 15,           SIZE_MAX - 1,        SIZE_MAX,
};

// C23 7.24.3: no object is larger than PTRDIFF_MAX. POSIX: ENOMEM.
static void sizes_beyond_every_heap(void) {
    for (size_t index = 0; index < COUNT(TOO_LARGE); index++) {
        size_t size = TOO_LARGE[index];
        errno = NOBODYS;
        CHECK(failed_with(malloc(size), ENOMEM));
        CHECK(failed_with(calloc(size, 1), ENOMEM));
        CHECK(failed_with(calloc(1, size), ENOMEM));
        CHECK(failed_with(realloc(NULL, size), ENOMEM));
        CHECK(failed_with(reallocarray(NULL, size, 1), ENOMEM));
        CHECK(failed_with(reallocarray(NULL, 1, size), ENOMEM));
        CHECK(failed_with(aligned_alloc(16, size), ENOMEM));
        CHECK(failed_with(aligned_alloc(4096, size), ENOMEM));
        CHECK(failed_with(memalign(8, size), ENOMEM));
        CHECK(failed_with(memalign(64 * KIB, size), ENOMEM));
        CHECK(failed_with(valloc(size), ENOMEM));
        CHECK(failed_with(pvalloc(size), ENOMEM));
    }
    // No sum with the alignment wraps around.
    CHECK(failed_with(aligned_alloc(SIZE_MAX / 2 + 1, 8), ENOMEM));
    CHECK(failed_with(aligned_alloc(SIZE_MAX / 4 + 1, 8), ENOMEM));
    CHECK(failed_with(aligned_alloc(SIZE_MAX / 4 + 1, SIZE_MAX / 2), ENOMEM));
    CHECK(failed_with(memalign(SIZE_MAX / 2 + 1, 8), ENOMEM));
}

// C23 7.24.3.2: a product that overflows fails. The factors are such that the rest modulo the word is small.
static void products_that_overflow(void) {
    static const size_t FACTORS[][2] = {
        {SIZE_MAX, 2},           {2, SIZE_MAX},       {SIZE_MAX / 2 + 1, 2}, {(size_t)1 << 32, (size_t)1 << 32},
        {((size_t)1 << 32) + 1, ((size_t)1 << 32) + 1}, {SIZE_MAX, SIZE_MAX},   {SIZE_MAX / 3 + 1, 3},
    };
    for (size_t index = 0; index < COUNT(FACTORS); index++) {
        size_t count = FACTORS[index][0], size = FACTORS[index][1];
        errno = NOBODYS;
        CHECK(failed_with(calloc(count, size), ENOMEM));
        CHECK(failed_with(reallocarray(NULL, count, size), ENOMEM));
        char *block = malloc(100);
        fill(block, 100, index);
        errno = NOBODYS;
        CHECK(reallocarray(block, count, size) == NULL && errno == ENOMEM);
        CHECK(is_filled(block, 100, index));
        free(block);
    }
}

// glibc: size 0 is a block of its own, which can be freed.
static void size_zero(void) {
    enum { EACH = 50, WAYS = 8 };
    void *blocks[EACH * WAYS];
    size_t count = 0;
    for (int turn = 0; turn < EACH; turn++) {
        blocks[count++] = malloc(0);
        blocks[count++] = calloc(0, 0);
        blocks[count++] = calloc(0, 8);
        blocks[count++] = calloc(8, 0);
        blocks[count++] = realloc(NULL, 0);
        blocks[count++] = aligned_alloc(64, 0);
        blocks[count++] = memalign(32, 0);
        void *aligned = NULL;
        CHECK(posix_memalign(&aligned, 16, 0) == 0);
        blocks[count++] = aligned;
    }
    for (size_t one = 0; one < count; one++) {
        CHECK(blocks[one] != NULL);
        for (size_t other = 0; other < one; other++) {
            CHECK(blocks[one] != blocks[other]);
        }
    }
    CHECK(is_at_multiple(blocks[5], 64) && is_at_multiple(blocks[6], 32) && is_at_multiple(blocks[7], 16));
    for (size_t one = 0; one < count; one++) {
        free(blocks[one]);
    }
    void *first = valloc(0), *second = pvalloc(0);
    CHECK(first != NULL && second != NULL && first != second);
    CHECK(is_at_multiple(first, page) && is_at_multiple(second, page));
    free(first);
    free(second);
}

static int is_zero(const unsigned char *at, size_t bytes) {
    return bytes == 0 || (at[0] == 0 && memcmp(at, at + 1, bytes - 1) == 0);
}

// C23 7.24.3.2: all bits zero, also where somebody else's bytes were.
static void calloc_after_dirty_blocks(void) {
    static const size_t SIZES[] = {1,     8,     24,    100,       1000,    2048,    3000,        4096,
                                   5000, 16384, 65536, 300 * KIB, MIB - 1, 2 * MIB, 8 * MIB + 123, 40 * MIB};
    enum { MOST = 64 };
    for (size_t index = 0; index < COUNT(SIZES); index++) {
        size_t size = SIZES[index], count = size < MIB ? MOST : 4;
        unsigned char *blocks[MOST];
        for (int turn = 0; turn < 3; turn++) {
            for (size_t one = 0; one < count; one++) {
                blocks[one] = malloc(size);
                memset(blocks[one], 0xa5, size);
            }
            for (size_t one = 0; one < count; one++) {
                free(blocks[one]);
            }
            for (size_t one = 0; one < count; one++) {
                blocks[one] = turn == 1 ? calloc(size, 1) : calloc(1, size);
                CHECK(is_zero(blocks[one], size));
            }
            for (size_t one = 0; one < count; one++) {
                free(blocks[one]);
            }
        }
    }
    // Of a block that is cut off a larger one, and of one beside a shrunk one.
    unsigned char *block = malloc(20 * MIB);
    memset(block, 0xa5, 20 * MIB);
    block = realloc(block, MIB);
    unsigned char *zeroes = calloc(5, 3 * MIB);
    CHECK(is_zero(zeroes, 15 * MIB) && block[MIB - 1] == 0xa5);
    free(zeroes);
    free(block);
}

// What a block costs, whether it lies on glibc's heap or in a mapping of its own there.
static size_t live_bytes(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

// glibc (and C17 allows it): null, and the block is gone. C23 leaves it undefined.
static void realloc_to_nothing(void) {
    static const size_t SIZES[] = {1, 100, 3000, 5000, 100 * KIB, MIB};
    for (size_t index = 0; index < COUNT(SIZES); index++) {
        size_t before = live_bytes();
        for (int turn = 0; turn < 1000; turn++) {
            void *block = malloc(SIZES[index]);
            errno = NOBODYS;
            CHECK(block != NULL && realloc(block, 0) == NULL);
            CHECK(errno == NOBODYS);
        }
        CHECK(live_bytes() < before + MIB + 2 * SIZES[index]);
    }
    errno = NOBODYS;
    CHECK(reallocarray(malloc(100), 0, 8) == NULL && reallocarray(malloc(100), 8, 0) == NULL && errno == NOBODYS);
}

// C23 7.24.3.7: a block that cannot be resized is as it was.
static void realloc_that_fails(void) {
    static const size_t SIZES[] = {1, 10, 100, 2000, 3000, 4096, 5000, MIB, 40 * MIB};
    for (size_t index = 0; index < COUNT(SIZES); index++) {
        size_t size = SIZES[index];
        char *block = malloc(size);
        fill(block, size, index);
        size_t usable = malloc_usable_size(block);
        for (size_t large = 0; large < COUNT(TOO_LARGE); large++) {
            errno = NOBODYS;
            CHECK(realloc(block, TOO_LARGE[large]) == NULL && errno == ENOMEM);
            errno = NOBODYS;
            CHECK(reallocarray(block, TOO_LARGE[large], 1) == NULL && errno == ENOMEM);
        }
        CHECK(is_filled(block, size, index) && malloc_usable_size(block) == usable);
        block = realloc(block, size + 1);
        CHECK(block != NULL && is_filled(block, size, index));
        free(block);
    }
}

// Resizes a block, which keeps the lesser of the two lengths.
static char *resized(char *block, size_t from, size_t to, uint64_t seed) {
    char *fresh = realloc(block, to);
    CHECK(fresh != NULL);
    CHECK(is_filled(fresh, from < to ? from : to, seed));
    CHECK(malloc_usable_size(fresh) >= to && is_at_multiple(fresh, to < 16 ? 8 : 16));
    if (to > from) {
        fill(fresh, to, seed);
    }
    return fresh;
}

// From 1 byte to 64 MiB and back, two blocks at a time, so that the one may lie in the other's way.
static void realloc_up_and_down(void) {
    size_t sizes[100], count = 0;
    for (size_t size = 1; size < 64 * MIB; size += size / 2 + 1) {
        sizes[count++] = size;
    }
    sizes[count++] = 64 * MIB;
    char *one = malloc(1), *other = realloc(NULL, 1);
    fill(one, 1, 1);
    fill(other, 1, 2);
    for (size_t step = 1; step < count; step++) {
        one = resized(one, sizes[step - 1], sizes[step], 1);
        other = resized(other, sizes[step - 1], sizes[step], 2);
    }
    for (size_t step = count - 1; step-- > 0;) {
        one = resized(one, sizes[step + 1], sizes[step], 1);
        other = resized(other, sizes[step + 1], sizes[step], 2);
    }
    // To a quarter and four times as much at once.
    for (size_t step = 0; step + 7 < count; step += 7) {
        one = resized(one, sizes[step], sizes[step + 7], 1);
    }
    one = resized(one, sizes[(count - 1) / 7 * 7], 1, 1);
    free(one);
    free(other);
}

static void reallocarray_that_works(void) {
    uint64_t *numbers = reallocarray(NULL, 10, sizeof *numbers);
    CHECK(numbers != NULL);
    fill(numbers, 80, 3);
    for (size_t count = 10; count < 100000; count *= 3) {
        numbers = reallocarray(numbers, 3 * count, sizeof *numbers);
        CHECK(numbers != NULL && is_filled(numbers, 8 * count, 3));
        fill(numbers, 24 * count, 3);
    }
    free(numbers);
}

// C23 7.24.3: aligned for any object that fits: 8 bytes below 16, 16 from there on.
static void alignment_of_every_size(void) {
    enum { HELD = 64 };
    void *held[3][HELD] = {{0}};
    char *grown = NULL;
    for (size_t size = 1; size <= 70000; size++) {
        size_t align = size < 16 ? 8 : 16;
        void *blocks[3] = {malloc(size), calloc(1, size), NULL};
        grown = realloc(grown, size);
        CHECK(grown != NULL && is_at_multiple(grown, align));
        if (size % 16 == 0 || size < 4096) {
            blocks[2] = realloc(malloc(1 + size / 3), size);
            CHECK(blocks[2] != NULL);
        }
        for (int way = 0; way < 3; way++) {
            CHECK(way == 2 || blocks[way] != NULL);
            CHECK(is_at_multiple(blocks[way], align));
            free(held[way][size % HELD]);
            held[way][size % HELD] = blocks[way];
        }
    }
    free(grown);
    for (int one = 0; one < 3 * HELD; one++) {
        free(held[one / HELD][one % HELD]);
    }
}

// What one of the functions with an alignment gave: where it should be, as long as it should be, and its own.
static void check_aligned(char *block, size_t align, size_t size) {
    CHECK(block != NULL);
    CHECK(is_at_multiple(block, align));
    CHECK(malloc_usable_size(block) >= size);
    fill(block, size, align ^ size);
}

static void powers_of_two(void) {
    for (size_t align = 1; align <= 4 * MIB; align *= 2) {
        const size_t sizes[] = {1, 8, 15, 100, align - 1, align, align + 1, 3 * align, 5000, 70000};
        enum { SIZES = COUNT(sizes) };
        char *blocks[3][SIZES];
        for (size_t index = 0; index < SIZES; index++) {
            void *block = NULL;
            blocks[0][index] = aligned_alloc(align, sizes[index]);
            blocks[1][index] = memalign(align, sizes[index]);
            CHECK(posix_memalign(&block, align < 8 ? 8 : align, sizes[index]) == 0);
            blocks[2][index] = block;
            for (int way = 0; way < 3; way++) {
                check_aligned(blocks[way][index], align, sizes[index]);
            }
        }
        for (size_t one = 0; one < 3 * SIZES; one++) {
            char *block = blocks[one / SIZES][one % SIZES];
            size_t size = sizes[one % SIZES];
            CHECK(is_filled(block, size, align ^ size));
            // What is resized keeps its contents, if not its alignment.
            if (one % 2 == 0) {
                block = realloc(block, 2 * size + 1);
                CHECK(block != NULL && is_filled(block, size, align ^ size));
            }
            free(block);
        }
        // Sorts what was freed: whoever took a short run for a block, or a block for a run, notices now.
        malloc_trim(0);
    }
}

// C23 7.24.3.1: an alignment that is not supported fails; POSIX: with EINVAL. glibc 2.36 rounds it up, as `memalign` does
// (from 2.38 on it fails, too).
static void aligned_alloc_of_no_power_of_two(void) {
    static const size_t ALIGNS[] = {0, 3, 12, 24, 48, 4095, 4097, 3 * 4096, SIZE_MAX / 2, SIZE_MAX};
    for (size_t index = 0; ours && index < COUNT(ALIGNS); index++) {
        errno = NOBODYS;
        CHECK(failed_with(aligned_alloc(ALIGNS[index], 100), EINVAL));
        CHECK(failed_with(aligned_alloc(ALIGNS[index], 0), EINVAL));
    }
}

// glibc: rounded up to a power of two; EINVAL where there is none.
static void memalign_rounds(void) {
    for (size_t align = 0; align <= 10000; align += 1 + align / 9) {
        size_t rounded = 1;
        while (rounded < align) {
            rounded *= 2;
        }
        char *block = memalign(align, 40);
        check_aligned(block, rounded, 40);
        free(block);
    }
    errno = NOBODYS;
    CHECK(failed_with(memalign(SIZE_MAX / 2 + 2, 8), EINVAL));
    CHECK(failed_with(memalign(SIZE_MAX, 8), EINVAL));
}

// POSIX: the error is returned. (POSIX.1-2024 lets `*memptr` be null then; glibc, as POSIX.1-2008 TC2, leaves it.)
static void posix_memalign_fails(void) {
    static const size_t ALIGNS[] = {0, 1, 2, 3, 4, 7, 12, 24, 40, 4097, 3 * 4096, SIZE_MAX};
    void *const untouched = &page;
    void *at = untouched;
    errno = NOBODYS;
    for (size_t index = 0; index < COUNT(ALIGNS); index++) {
        CHECK(posix_memalign(&at, ALIGNS[index], 100) == EINVAL && at == untouched && errno == NOBODYS);
    }
    for (size_t index = 0; index < COUNT(TOO_LARGE); index++) {
        CHECK(posix_memalign(&at, 8, TOO_LARGE[index]) == ENOMEM && at == untouched);
        CHECK(posix_memalign(&at, 64 * KIB, TOO_LARGE[index]) == ENOMEM && at == untouched);
    }
    CHECK(posix_memalign(&at, SIZE_MAX / 2 + 1, 8) == ENOMEM && at == untouched);
    // glibc does set it where there is no memory.
    CHECK(!ours || errno == NOBODYS);
    errno = NOBODYS;
    CHECK(posix_memalign(&at, 64, 100) == 0 && at != untouched && errno == NOBODYS);
    free(at);
}

static void whole_pages(void) {
    static const size_t SIZES[] = {1, 100, 4095, 4096, 4097, 10000, 65536, 3 * MIB + 5};
    for (size_t index = 0; index < COUNT(SIZES); index++) {
        size_t size = SIZES[index], rounded = (size + page - 1) / page * page;
        char *one = valloc(size), *other = pvalloc(size);
        check_aligned(one, page, size);
        check_aligned(other, page, rounded);
        CHECK(is_filled(one, size, page ^ size));
        free(one);
        free(other);
    }
    // glibc rounds 0 to 0 pages.
    void *none = pvalloc(0);
    CHECK(!ours || malloc_usable_size(none) >= page);
    free(none);
}

// glibc: all that is usable may be written; none of it is a neighbour's.
static void usable_sizes(void) {
    CHECK(malloc_usable_size(NULL) == 0);
    enum { SIDE = 3 };
    for (size_t size = 1; size < 6 * MIB; size += 1 + size / 11) {
        char *blocks[SIDE];
        size_t usable[SIDE];
        for (int one = 0; one < SIDE; one++) {
            blocks[one] = malloc(size);
            usable[one] = malloc_usable_size(blocks[one]);
            CHECK(usable[one] >= size);
            fill(blocks[one], usable[one], one);
        }
        for (int one = 0; one < SIDE; one++) {
            CHECK(is_filled(blocks[one], usable[one], one));
            // A block that is asked to be as long as it is stays as it is.
            blocks[one] = realloc(blocks[one], usable[one]);
            CHECK(is_filled(blocks[one], usable[one], one));
            free(blocks[one]);
        }
    }
}

// Frees a block; the error number is what it was.
static void free_and_look(void *block) {
    errno = NOBODYS;
    free(block);
    CHECK(errno == NOBODYS);
}

// POSIX.1-2024: `free` keeps the error number, whatever the system says to it.
static void free_keeps_errno(void) {
    static const size_t SIZES[] = {1, 100, 3000, 4096, 5000, 40 * KIB, 200 * KIB, 3 * MIB, 15 * MIB, 100 * MIB};
    enum { MOST = 2000 };
    static void *blocks[MOST];
    free_and_look(NULL);
    for (size_t index = 0; index < COUNT(SIZES); index++) {
        size_t size = SIZES[index], count = size < 100 * KIB ? MOST : size < MIB ? 100 : 3;
        for (size_t one = 0; one < count; one++) {
            blocks[one] = malloc(size);
            memset(blocks[one], 1, size);
        }
        for (size_t one = 0; one < count; one++) {
            free_and_look(blocks[one]);
        }
    }
}

// As above where nothing can be mapped: what would start a thread on the way fails, and that sets the number.
static void free_without_addresses_keeps_errno(void) {
    void *block = memset(malloc(60 * MIB), 1, 60 * MIB), *beside = memset(malloc(60 * MIB), 1, 60 * MIB);
    struct rlimit limit;
    getrlimit(RLIMIT_AS, &limit);
    const struct rlimit none = {1, limit.rlim_max};
    setrlimit(RLIMIT_AS, &none);
    free_and_look(block);
    errno = NOBODYS;
    CHECK(realloc(beside, 0) == NULL && errno == NOBODYS);
    setrlimit(RLIMIT_AS, &limit);
}

// What a rule leaves of the allocator's state stays in the child.
static void in_a_child(void (*rule)(void)) {
    pid_t child = fork();
    if (child == 0) {
        rule();
        exit(status());
    }
    int how = -1;
    CHECK(waitpid(child, &how, 0) == child && how == 0);
}

// C23 7.24.3.4 and 7.24.3.5.
static void free_with_a_size(void) {
    CHECK(!ours || (free_sized != NULL && free_aligned_sized != NULL));
    if (free_sized == NULL || free_aligned_sized == NULL) {
        return;
    }
    size_t before = live_bytes();
    errno = NOBODYS;
    free_sized(NULL, 0);
    free_sized(NULL, 100);
    free_aligned_sized(NULL, 16, 100);
    for (size_t size = 0; size < 5 * MIB; size += 1 + size / 3) {
        for (int turn = 0; turn < 10; turn++) {
            void *blocks[] = {malloc(size), calloc(size, 1), realloc(malloc(1), size + 1), aligned_alloc(64, size),
                              aligned_alloc(8192, size)};
            for (size_t one = 0; one < COUNT(blocks); one++) {
                memset(blocks[one], 1, size);
            }
            errno = NOBODYS;
            free_sized(blocks[0], size);
            free_sized(blocks[1], size);
            free_sized(blocks[2], size + 1);
            free_aligned_sized(blocks[3], 64, size);
            free_aligned_sized(blocks[4], 8192, size);
            CHECK(errno == NOBODYS);
        }
    }
    CHECK(live_bytes() <= before + MIB);
}

// glibc: 1 if memory went to the system.
static void trimming(void) {
    enum { BLOCKS = 60000 };
    static void *blocks[BLOCKS];
    for (int one = 0; one < BLOCKS; one++) {
        blocks[one] = memset(malloc(1000), 1, 1000);
    }
    // With a block left in every eighth page glibc cannot give it back by itself.
    for (int one = 0; one < BLOCKS; one++) {
        if (one % 32 != 0) {
            free(blocks[one]);
            blocks[one] = NULL;
        }
    }
    errno = NOBODYS;
    CHECK(malloc_trim(0) == 1);
    // glibc gives back again what has gone already.
    CHECK(!ours || malloc_trim(0) == 0);
    CHECK(!ours || malloc_trim(100 * MIB) == 0);
    CHECK(!ours || errno == NOBODYS);
    for (int one = 0; one < BLOCKS; one++) {
        free(blocks[one]);
    }
}

static void figures(void) {
    enum { SMALL = 10000, LARGE = 10 };
    static void *blocks[SMALL + LARGE];
    const size_t sum = SMALL * 1000 + LARGE * MIB;
    malloc_trim(0);
    errno = NOBODYS;
    struct mallinfo2 first = mallinfo2();
    size_t before = live_bytes();
    for (int one = 0; one < SMALL + LARGE; one++) {
        blocks[one] = malloc(one < SMALL ? 1000 : MIB);
    }
    size_t between = live_bytes();
    CHECK(between >= before + sum && between < before + sum + sum / 2);
    struct mallinfo2 info = mallinfo2();
    CHECK(info.arena + info.hblkhd >= between && info.arena + info.hblkhd >= first.arena + first.hblkhd);
    CHECK(info.smblks == 0 || !ours);
    for (int one = 0; one < SMALL + LARGE; one++) {
        free(blocks[one]);
    }
    // glibc counts what a thread has at hand as live.
    CHECK(live_bytes() <= before + 100 * KIB);
    info = mallinfo2();
    CHECK(!ours || (info.uordblks + info.fordblks == info.arena && info.keepcost <= info.fordblks));
    CHECK(errno == NOBODYS);
}

// Blocks that the C library allocates for whoever calls it are freed and resized as any.
static void blocks_of_the_c_library(void) {
    char *text = strdup("a text");
    CHECK(text != NULL && strcmp(text, "a text") == 0);
    text = realloc(text, 10000);
    CHECK(strcmp(text, "a text") == 0);
    free(text);
    char *folder = getcwd(NULL, 0), *path = realpath("/proc/self/..", NULL), *print = NULL;
    CHECK(folder != NULL && path != NULL && strcmp(path, "/proc") == 0);
    CHECK(asprintf(&print, "%s %*d", "number", 6000, 7) == 6007 && malloc_usable_size(print) >= 6008);
    free(folder);
    free(path);
    free(print);
    char *memory = NULL, *line = malloc(2);
    size_t written = 0, room = 2;
    FILE *stream = open_memstream(&memory, &written);
    for (int number = 0; number < 20000; number++) {
        fprintf(stream, "%d ", number);
    }
    fclose(stream);
    CHECK(written == 108890 && malloc_usable_size(memory) > written);
    stream = fmemopen(memory, written, "r");
    CHECK(getline(&line, &room, stream) == (ssize_t)written && memcmp(line, memory, written) == 0);
    fclose(stream);
    free(line);
    free(memory);
}

// Whether the process's `malloc` and the library's are of one library.
static int is_preloaded(void) {
    Dl_info one, other;
    return dladdr(dlsym(RTLD_DEFAULT, "malloc"), &one) != 0 && dlsym(RTLD_DEFAULT, "stratalloc_malloc") != NULL &&
           dladdr(dlsym(RTLD_DEFAULT, "stratalloc_malloc"), &other) != 0 && one.dli_fbase == other.dli_fbase;
}

int main(void) {
    setvbuf(stdout, NULL, _IONBF, 0);
    ours = is_preloaded();
    page = (size_t)sysconf(_SC_PAGESIZE);
    *(void **)&free_sized = dlsym(RTLD_DEFAULT, "free_sized");
    *(void **)&free_aligned_sized = dlsym(RTLD_DEFAULT, "free_aligned_sized");
    puts(ours ? "the library's rules" : "the system's rules");
    void (*const rules[])(void) = {
        sizes_beyond_every_heap, products_that_overflow, size_zero, calloc_after_dirty_blocks, realloc_to_nothing,
        realloc_that_fails, realloc_up_and_down, reallocarray_that_works, alignment_of_every_size, powers_of_two,
        aligned_alloc_of_no_power_of_two, memalign_rounds, posix_memalign_fails, whole_pages, usable_sizes,
        free_keeps_errno, free_with_a_size, trimming, figures, blocks_of_the_c_library,
    };
    in_a_child(free_without_addresses_keeps_errno);
    for (size_t index = 0; index < COUNT(rules); index++) {
        rules[index]();
    }
    return status();
}
