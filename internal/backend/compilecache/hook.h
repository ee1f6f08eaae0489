// What the cache knows of the PJRT C API, whose binary layout only grows at its ends: places in the table of functions, and the
// arguments of the functions it calls.
#ifndef MERGEKIT_HOOK_H
#define MERGEKIT_HOOK_H
#include <stddef.h>

void *mergekit_find_api(const char *path);
int mergekit_hook(void *api);

#endif
