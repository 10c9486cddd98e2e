// One error of a C program, named by its argument, for whoever hunts them. Without one, or by another name, it is correct.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char in_the_program[64];

__attribute__((noinline)) char *make_the_block(size_t size) {
    char *block = malloc(size);
    memset(block, 1, size);
    return block;
}

__attribute__((noinline)) void free_the_block(void *block) {
    free(block);
    __asm__ volatile("");
}

__attribute__((noinline)) char read_a_byte(const char *at) {
    char byte = *(const volatile char *)at;
    __asm__ volatile("");
    return byte;
}

__attribute__((noinline)) void write_a_byte(char *at, char byte) {
    *(volatile char *)at = byte;
    __asm__ volatile("");
}

// Other blocks of the same size come and go.
static void go_on(size_t size) {
    for (int count = 0; count < 10000; ++count) {
        free_the_block(make_the_block(size));
    }
}

int main(int count, char **arguments) {
    const char *error = count > 1 ? arguments[1] : "nothing";
    size_t size = count > 2 ? (size_t)atol(arguments[2]) : 24;
    char on_the_stack[64];
    char *block = make_the_block(size);
    if (strcmp(error, "overflow") == 0) {
        write_a_byte(block + size, 0);
    } else if (strcmp(error, "underflow") == 0) {
        write_a_byte(block - 1, 0);
    } else if (strcmp(error, "far") == 0) {
        write_a_byte(block + 4096, 0);
    } else if (strcmp(error, "read-behind") == 0) {
        read_a_byte(block + size);
    } else if (strcmp(error, "double") == 0) {
        free_the_block(block);
    } else if (strcmp(error, "double-late") == 0) {
        free_the_block(block);
        go_on(size);
    } else if (strcmp(error, "written") == 0) {
        free_the_block(block);
        write_a_byte(block + 3, 0);
        return 0;
    } else if (strcmp(error, "written-late") == 0) {
        free_the_block(block);
        write_a_byte(block + size - 1, 0);
        go_on(size);
        puts("done");
        return 0;
    } else if (strcmp(error, "read-freed") == 0) {
        free_the_block(block);
        read_a_byte(block + 3);
        puts("done");
        return 0;
    } else if (strcmp(error, "moved") == 0) {
        char *moved = realloc(block, size * 100);
        write_a_byte(block + 3, 0);
        block = moved;
    } else if (strcmp(error, "interior") == 0) {
        block += 4;
    } else if (strcmp(error, "stack") == 0) {
        block = on_the_stack + 16;
    } else if (strcmp(error, "static") == 0) {
        block = in_the_program + 16;
    } else if (strcmp(error, "lost") == 0) {
        block = make_the_block(size);
    } else if (strcmp(error, "usable") == 0) {
        extern size_t malloc_usable_size(void *);
        return malloc_usable_size(block) == size ? 0 : 1;
    }
    free_the_block(block);
    puts("done");
    return 0;
}
