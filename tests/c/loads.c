// Loads a library and closes it: loads LIBRARY.

#include "check.h"
#include <dlfcn.h>
#include <unistd.h>

int main(int count, char **arguments) {
    alarm(30);
    for (int turn = 0; turn < 3; turn++) {
        void *library = dlopen(count > 1 ? arguments[1] : "", RTLD_NOW);
        CHECK(library != NULL);
        CHECK(dlclose(library) == 0);
    }
    return status();
}
