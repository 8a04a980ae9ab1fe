#include "runner/ranks.h"
#include "config/error.h"
#include "runner/run_store.h"
#include <string.h>

enum { JOIN_MS = 120000, END_MS = 60000, LOOK_AGAIN_MS = 300, REPORT_MAX = 4096 };
enum { PORT_FIRST = 20000, PORTS = 10000 };

static char *rank_key(const struct run *run, unsigned rank)
{
    return g_strdup_printf("runs/%s/%s.rank-%u", run->repo, run->name, rank);
}

static guint64 number_of(const char *variable)
{
    const char *text = g_getenv(variable);

    return text ? g_ascii_strtoull(text, NULL, 10) : 0;
}

/* Of this job, as often as it was started. */
static char *start_name(void)
{
    return g_strdup_printf("%" G_GUINT64_FORMAT ".%" G_GUINT64_FORMAT, number_of("SLURM_JOB_ID"),
                           number_of("SLURM_RESTART_COUNT"));
}

unsigned ranks_own(const struct run *run)
{
    return run->lifetime.nodes > 1 ? (unsigned)number_of("SLURM_PROCID") : 0;
}

void ranks_set_environment(struct launch *launch)
{
    const char *address = g_getenv("SLURM_LAUNCH_NODE_IPADDR");
    g_autofree char *nodes = g_strdup_printf("%u", launch->run->lifetime.nodes);
    g_autofree char *rank = g_strdup_printf("%u", launch->run->rank);
    g_autofree char *port =
        g_strdup_printf("%u", (unsigned)(PORT_FIRST + number_of("SLURM_JOB_ID") % PORTS));

    if (launch->run->lifetime.nodes <= 1)
        return;
    launch_set(launch, "DSTACK_NODES", nodes);
    launch_set(launch, "DSTACK_NODE_RANK", rank);
    launch_set(launch, "DSTACK_MASTER_ADDR", address ? address : "127.0.0.1");
    launch_set(launch, "DSTACK_MASTER_PORT", port);
}

bool ranks_open(struct store *root, const struct run *run, GError **error)
{
    g_autofree char *key = rank_key(run, 0), *start = start_name();

    for (unsigned rank = 1; rank < run->lifetime.nodes; rank++) {
        g_autofree char *old = rank_key(run, rank);

        if (!store_delete(root, old, error))
            return false;
    }
    return store_write(root, key, start, strlen(start), NULL, NULL, error);
}

/* *TEXT stays NULL when there is nothing yet. */
static bool read_report(struct store *root, const struct run *run, unsigned rank, char **text,
                        GError **error)
{
    g_autofree char *key = rank_key(run, rank);
    g_autoptr(GError) missing = NULL;
    size_t size;

    if (store_read(root, key, REPORT_MAX, text, &size, NULL, &missing) || error_is(missing, ENOENT))
        return true;
    g_propagate_error(error, g_steal_pointer(&missing));
    return false;
}

static void become(struct run *run, unsigned rank)
{
    char *id = g_strdup_printf("%s-r%u", run->id, rank);

    g_free(run->id);
    run->id = id;
    run->rank = rank;
}

struct run *ranks_join(struct store *root, const char *repo, const char *name, unsigned rank,
                       GError **error)
{
    int64_t until_us = g_get_monotonic_time() + (int64_t)JOIN_MS * 1000;
    g_autofree char *start = start_name();

    while (g_get_monotonic_time() < until_us) {
        g_autoptr(Run) run = run_store_load(root, repo, name, error);
        g_autofree char *open = NULL;

        if (!run || !read_report(root, run, 0, &open, error))
            return NULL;
        if (run_status_is_final(run->status)) {
            error_set(error, EPERM, "run %s is %s: nothing to do", name,
                      run_status_name(run->status));
            return NULL;
        }
        if (g_strcmp0(open, start) == 0) {
            become(run, rank);
            return g_steal_pointer(&run);
        }
        g_usleep(LOOK_AGAIN_MS * 1000);
    }
    error_set(error, ETIMEDOUT, "rank 0 of run %s did not begin in %d s", name, JOIN_MS / 1000);
    return NULL;
}

bool ranks_report(struct store *root, const struct run *run, int exit_code, const char *reason,
                  GError **error)
{
    g_autofree char *key = rank_key(run, run->rank);
    g_autofree char *text = g_strdup_printf("%d %.1000s", exit_code, reason ? reason : "");

    return store_write(root, key, text, strlen(text), NULL, NULL, error);
}

/* A report of rank RANK is in: that it failed, if none before it did. */
static void take_report(unsigned rank, const char *text, char **failed)
{
    const char *reason = strchr(text, ' ');

    if (*failed || g_str_has_prefix(text, "0 "))
        return;
    *failed = g_strdup_printf("rank %u: %s", rank, reason && reason[1] ? reason + 1 : text);
}

/* How long the others may still take: as long as they like, unless all are to end. */
static int64_t patience_us(struct job_watch *watch, bool failed)
{
    int64_t left_ms = job_watch_left_ms(watch);

    if (left_ms >= 0)
        return left_ms * 1000;
    return failed || job_watch_wish(watch) != STOP_NONE ? END_MS * INT64_C(1000) : G_MAXINT64;
}

bool ranks_wait(struct store *root, const struct run *run, struct job_watch *watch, char **failed,
                GError **error)
{
    int64_t began_us = g_get_monotonic_time();
    unsigned next = 1;

    *failed = NULL;
    while (next < run->lifetime.nodes) {
        g_autofree char *text = NULL;

        if (!read_report(root, run, next, &text, error))
            return false;
        if (text) {
            take_report(next++, text, failed);
            continue;
        }
        if (job_watch_wish(watch) == STOP_ABORT ||
            g_get_monotonic_time() - began_us >= patience_us(watch, *failed != NULL)) {
            if (!*failed)
                *failed = g_strdup_printf("rank %u did not end in time", next);
            return true;
        }
        g_usleep(LOOK_AGAIN_MS * 1000);
    }
    return true;
}
