#include "storage/pool.h"

#include <criterion/criterion.h>
#include <stdatomic.h>

static atomic_uint count;

static void add_one(void *data)
{
    atomic_fetch_add(&count, 1);
}

static void free_own_pool(void *data)
{
    pool_free(data);
    atomic_fetch_add(&count, 1000);
}

Test(pool, runs_every_job_before_it_is_gone)
{
    struct pool *pool = pool_new(3, NULL);

    cr_assert(pool != NULL);
    for (int i = 0; i < 1000; i++)
        pool_add(pool, add_one, NULL);
    pool_free(pool);
    cr_assert(atomic_load(&count) == 1000);
}

Test(pool, may_be_freed_by_its_own_job)
{
    struct pool *pool = pool_new(2, NULL);

    pool_add(pool, free_own_pool, pool);
    for (int i = 0; i < 5000 && atomic_load(&count) < 1000; i++)
        g_usleep(1000);
    cr_assert(atomic_load(&count) == 1000);
}
