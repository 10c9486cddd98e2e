// What the C programs of these tests share.

#ifndef CHECK_H
#define CHECK_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

// Says, on a line of its own, which check does not hold.
#define CHECK(holds)                                                                                                   \
    do {                                                                                                               \
        if (!(holds)) {                                                                                                \
            printf("%s:%d: in %s: not %s\n", __FILE__, __LINE__, __func__, #holds);                                    \
            __atomic_fetch_add(&failures, 1, __ATOMIC_RELAXED);                                                        \
        }                                                                                                              \
    } while (0)

// An exit status from the count.
static inline int status(void) {
    return failures > 100 ? 100 : failures;
}

// The word at `index` of what `fill` writes: two seeds, or two places, have different ones.
static inline uint64_t word_at(size_t index, uint64_t seed) {
    return (index + 1) * 0x9e3779b97f4a7c15u ^ seed * 0xd1342543de82ef95u;
}

// Writes a pattern to a block, which is aligned to 8 at least.
static inline void fill(void *at, size_t bytes, uint64_t seed) {
    uint64_t *words = (uint64_t *)at, last = word_at(bytes / 8, seed);
    for (size_t index = 0; index < bytes / 8; index++) {
        words[index] = word_at(index, seed);
    }
    memcpy(words + bytes / 8, &last, bytes % 8);
}

// Whether what is there is what `fill` wrote for as many bytes, or for more.
static inline int is_filled(const void *at, size_t bytes, uint64_t seed) {
    const uint64_t *words = (const uint64_t *)at, last = word_at(bytes / 8, seed);
    for (size_t index = 0; index < bytes / 8; index++) {
        if (words[index] != word_at(index, seed)) {
            return 0;
        }
    }
    return memcmp(words + bytes / 8, &last, bytes % 8) == 0;
}

// The next number below `end`, from a sequence that is the same in every run.
static inline size_t below(uint64_t *state, size_t end) {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return (size_t)(*state >> 11) % end;
}

#endif
