// Words that come and go in a table of lists: 12 to 200 bytes each, beside buffers of up to 8 KiB that grow.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LISTS = 1 << 14, STEPS = 2000000 };

struct word {
    struct word *next;
    uint32_t hash;
    char text[];
};

static struct word *lists[LISTS];
static uint64_t state = 88172645463325252;

static uint32_t random_number(void) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)(state >> 32);
}

int main(void) {
    uint64_t sum = 0;
    char *buffer = NULL;
    size_t room = 0;
    for (int step = 0; step < STEPS; ++step) {
        uint32_t hash = random_number();
        struct word **list = &lists[hash % LISTS];
        if (hash >> 16 & 1) {
            size_t length = 1 + (hash >> 17) % (hash >> 28 ? 40 : 180);
            struct word *word = malloc(sizeof *word + length + 1);
            memset(word->text, 'a' + (int)(hash % 26), length);
            word->text[length] = 0;
            word->hash = hash;
            word->next = *list;
            *list = word;
        } else if (*list) {
            struct word *word = *list;
            *list = word->next;
            sum += strlen(word->text) ^ word->hash;
            free(word);
        }
        if (step % 64 == 0) {
            room = room > 8000 ? 0 : room + 512;
            if (room) {
                buffer = realloc(buffer, room);
                memset(buffer + room - 512, step, 512);
            } else {
                free(buffer);
                buffer = NULL;
            }
        }
    }
    free(buffer);
    for (int index = 0; index < LISTS; ++index) {
        while (lists[index]) {
            struct word *word = lists[index];
            lists[index] = word->next;
            free(word);
        }
    }
    printf("%llu\n", (unsigned long long)sum);
    return 0;
}
