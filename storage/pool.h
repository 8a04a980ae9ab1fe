/* A fixed number of threads that run jobs in the order they were given.
 *
 * shape:   the queue has no limit of its own: whoever adds jobs bounds them.
 * owns:    a job's data stays the caller's; the pool calls RUN once for each job, also for those
 *          still waiting when the pool is freed, but not for those that were removed.
 * threads: pool_add from any thread, a job's included. pool_free waits for every job; called from
 *          a job it waits for the others only, and its own thread ends when that job returns.
 */
#pragma once

#include <glib.h>
#include <stdbool.h>

struct pool;

typedef void pool_job(void *data);

/* NULL and *ERROR when no thread can be started. */
struct pool *pool_new(unsigned threads, GError **error);
void pool_add(struct pool *pool, pool_job *run, void *data);
/* Takes a job that waits out of the queue: the first one for whose data IS_IT says yes. Its data,
 * or NULL: there is none. */
typedef bool pool_match(const void *data, const void *user);
void *pool_remove(struct pool *pool, pool_match *is_it, const void *user);
void pool_free(struct pool *pool); /* takes NULL */
