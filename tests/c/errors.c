// One error of a C program, named by its argument, for the library with the corruption hunter in it.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((noinline)) char *make_the_block(size_t size) {
    char *block = malloc(size);
    memset(block, 1, size);
    return block;
}

__attribute__((noinline)) void free_the_block(void *block) {
    free(block);
    __asm__ volatile("");
}

int main(int count, char **arguments) {
    const char *error = count > 1 ? arguments[1] : "nothing";
    char *block = make_the_block(24);
    if (strcmp(error, "overflow") == 0) {
        block[24] = 0;
    } else if (strcmp(error, "double") == 0) {
        free_the_block(block);
    } else if (strcmp(error, "written") == 0) {
        free_the_block(block);
        block[3] = 0;
        return 0;
    } else if (strcmp(error, "interior") == 0) {
        block += 4;
    } else if (strcmp(error, "usable") == 0) {
        extern size_t malloc_usable_size(void *);
        return malloc_usable_size(block) == 24 ? 0 : 1;
    }
    free_the_block(block);
    puts("done");
    return 0;
}
