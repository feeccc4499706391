/* SPDX-License-Identifier: Apache-2.0 */
/* kind: shared library. Preloaded, it counts what a process allocates, whoever does. */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

/* glibc's own names, which are no macros and no symbols that this file takes. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *memory, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

#define PUBLIC __attribute__((visibility("default")))

static atomic_long counted;

PUBLIC long counted_allocations(void);
PUBLIC void *malloc(size_t bytes);
PUBLIC void *calloc(size_t count, size_t bytes);
PUBLIC void *realloc(void *memory, size_t bytes);
PUBLIC void *memalign(size_t alignment, size_t bytes);
PUBLIC void *aligned_alloc(size_t alignment, size_t bytes);
PUBLIC int posix_memalign(void **memory, size_t alignment, size_t bytes);

long counted_allocations(void)
{
    return atomic_load(&counted);
}

void *malloc(size_t bytes)
{
    atomic_fetch_add(&counted, 1);
    return __libc_malloc(bytes);
}

void *calloc(size_t count, size_t bytes)
{
    atomic_fetch_add(&counted, 1);
    return __libc_calloc(count, bytes);
}

void *realloc(void *memory, size_t bytes)
{
    atomic_fetch_add(&counted, 1);
    return __libc_realloc(memory, bytes);
}

void *memalign(size_t alignment, size_t bytes)
{
    atomic_fetch_add(&counted, 1);
    return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes)
{
    return memalign(alignment, bytes);
}

int posix_memalign(void **memory, size_t alignment, size_t bytes)
{
    void *made = memalign(alignment, bytes);
    if (!made)
        return ENOMEM;
    *memory = made;
    return 0;
}
