#include "runner/job/ranks.h"
#include "config/error.h"
#include "config/log.h"
#include "runner/run/restart.h"
#include "runner/run/run_store.h"
#include "runner/work_dir.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>

enum { LOOK_AGAIN_MS = 300, TEXT_MAX = 4096 };
enum { PORT_FIRST = 20000, PORTS = 10000 };

#define END_SUFFIX ".end"

struct rank {
    int64_t mtime_ns; /* of its pulse, by the store's clock; 0: none was seen */
    int64_t seen_us;  /* when that changed, by ours */
    bool is_over;     /* ended, or lost */
};

struct ranks {
    struct store *root;
    const struct run *run;
    char *start, *prefix;

    pthread_mutex_t lock;
    struct rank *all; /* guarded by lock, as are those below */
    struct rank_end worst;
};

static char *rank_prefix(const struct run *run)
{
    return g_strdup_printf("runs/%s/%s.rank-", run->repo, run->name);
}

static char *rank_key(const struct run *run, unsigned rank, const char *suffix)
{
    return g_strdup_printf("runs/%s/%s.rank-%u%s", run->repo, run->name, rank, suffix);
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
    g_autofree char *prefix = rank_prefix(run), *key = rank_key(run, 0, ""), *start = start_name();

    return store_delete_prefix(root, prefix, NULL, error) &&
           store_write(root, key, start, strlen(start), NULL, NULL, error);
}

/* *TEXT stays NULL when there is nothing. */
static bool read_text(struct store *root, const char *key, char **text, GError **error)
{
    g_autoptr(GError) missing = NULL;
    size_t size;

    if (store_read(root, key, TEXT_MAX, text, &size, NULL, &missing) || error_is(missing, ENOENT))
        return true;
    g_propagate_error(error, g_steal_pointer(&missing));
    return false;
}

bool ranks_are_ours(struct store *root, const struct run *run, bool *ours, GError **error)
{
    g_autofree char *key = rank_key(run, 0, ""), *start = start_name(), *open = NULL;

    *ours = false;
    if (!read_text(root, key, &open, error))
        return false;
    *ours = g_strcmp0(open, start) == 0;
    return true;
}

void ranks_become(struct run *run, unsigned rank)
{
    char *id = g_strdup_printf("%s-r%u", run->id, rank);

    g_free(run->id);
    run->id = id;
    run->rank = rank;
    run_own(run);
    g_free(run->owner.work_dir);
    run->owner.work_dir = work_dir_default(run);
}

struct run *ranks_join(struct store *root, const char *repo, const char *name, unsigned rank,
                       GError **error)
{
    int64_t until_us = g_get_monotonic_time() + (int64_t)RANK_JOIN_MS * 1000;

    while (g_get_monotonic_time() < until_us) {
        g_autoptr(Run) run = run_store_load(root, repo, name, error);
        bool ours;

        if (!run || !ranks_are_ours(root, run, &ours, error))
            return NULL;
        if (run_status_is_final(run->status)) {
            error_set(error, EPERM, "run %s is %s: nothing to do", name,
                      run_status_name(run->status));
            return NULL;
        }
        if (ours) {
            ranks_become(run, rank);
            return g_steal_pointer(&run);
        }
        g_usleep(LOOK_AGAIN_MS * 1000);
    }
    error_set(error, ETIMEDOUT, "rank 0 of run %s did not begin in %d s", name,
              RANK_JOIN_MS / 1000);
    return NULL;
}

/* --- how they ended --- */

void rank_end_clear(struct rank_end *end)
{
    g_clear_pointer(&end->why, g_free);
}

char *rank_end_text(const struct rank_end *end)
{
    return end->why ? g_strdup_printf("rank %u: %s", end->rank, end->why) : NULL;
}

bool ranks_tell_end(struct store *root, const struct run *run, const struct rank_end *end,
                    GError **error)
{
    g_autofree char *key = rank_key(run, run->rank, END_SUFFIX), *start = start_name();
    g_autofree char *text = g_strdup_printf("%s %s %u %.1000s", start, run_status_name(end->status),
                                            end->rank, end->why ? end->why : "");

    return store_write(root, key, text, strlen(text), NULL, NULL, error);
}

/* Foreign: it comes out of the store. False: it is another start's, or makes no sense. */
static bool parse_end(const char *text, const char *start, struct rank_end *end)
{
    g_auto(GStrv) words = g_strsplit(text, " ", 4);

    if (g_strv_length(words) != 4 || strcmp(words[0], start) != 0 ||
        !run_status_parse(words[1], &end->status))
        return false;
    end->rank = (unsigned)g_ascii_strtoull(words[2], NULL, 10);
    end->why = *words[3] ? g_strdup(words[3]) : NULL;
    return true;
}

static int badness(enum run_status status)
{
    switch (status) {
    case RUN_DONE:
        return 0;
    case RUN_FAILED:
        return 2;
    case RUN_INTERRUPTED:
        return 3;
    default:
        return 1;
    }
}

/* lock held; takes what END holds */
static void take_end(struct ranks *ranks, unsigned rank, struct rank_end *end)
{
    ranks->all[rank].is_over = true;
    if (badness(end->status) > badness(ranks->worst.status)) {
        rank_end_clear(&ranks->worst);
        ranks->worst = *end;
        end->why = NULL;
    }
    rank_end_clear(end);
}

/* --- looking at them --- */

struct ranks *ranks_new(struct store *root, const struct run *run)
{
    struct ranks *ranks;

    if (run->lifetime.nodes <= 1)
        return NULL;
    ranks = g_new0(struct ranks, 1);
    ranks->root = root;
    ranks->run = run;
    ranks->start = start_name();
    ranks->prefix = rank_prefix(run);
    ranks->all = g_new0(struct rank, run->lifetime.nodes);
    ranks->worst.status = RUN_DONE;
    pthread_mutex_init(&ranks->lock, NULL);
    return ranks;
}

void ranks_free(struct ranks *ranks)
{
    if (!ranks)
        return;
    rank_end_clear(&ranks->worst);
    pthread_mutex_destroy(&ranks->lock);
    g_free(ranks->all);
    g_free(ranks->prefix);
    g_free(ranks->start);
    g_free(ranks);
}

bool ranks_beat(struct ranks *ranks, GError **error)
{
    g_autofree char *key = rank_key(ranks->run, ranks->run->rank, "");

    return store_write(ranks->root, key, ranks->start, strlen(ranks->start), NULL, NULL, error);
}

struct look {
    struct ranks *ranks;
    int64_t now_us;
    bool *has_ended; /* of each rank: there is an end to be read */
};

static bool note_object(const struct store_object *object, void *user, GError **error)
{
    struct look *look = user;
    struct ranks *ranks = look->ranks;
    const char *name = object->key + strlen(ranks->prefix);
    char *suffix;
    guint64 rank = g_ascii_strtoull(name, &suffix, 10);

    if (suffix == name || rank >= ranks->run->lifetime.nodes)
        return true;
    if (strcmp(suffix, END_SUFFIX) == 0) {
        look->has_ended[rank] = true;
    } else if (!*suffix && object->mtime_ns != ranks->all[rank].mtime_ns) {
        ranks->all[rank].mtime_ns = object->mtime_ns;
        ranks->all[rank].seen_us = look->now_us;
    }
    return true;
}

static bool read_end(struct ranks *ranks, unsigned rank, GError **error)
{
    g_autofree char *key = rank_key(ranks->run, rank, END_SUFFIX), *text = NULL;
    struct rank_end end = {.status = RUN_DONE};

    if (!read_text(ranks->root, key, &text, error))
        return false;
    pthread_mutex_lock(&ranks->lock);
    if (text && parse_end(text, ranks->start, &end))
        take_end(ranks, rank, &end);
    pthread_mutex_unlock(&ranks->lock);
    return true;
}

/* lock held */
static void judge_pulse(struct ranks *ranks, unsigned rank, int64_t now_us)
{
    struct rank *it = &ranks->all[rank];
    int64_t limit_ms = it->mtime_ns ? RANK_LOST_MS : RANK_JOIN_MS;
    struct rank_end end = {.status = RUN_INTERRUPTED, .rank = rank};

    if (it->seen_us == 0)
        it->seen_us = now_us;
    if (it->is_over || now_us - it->seen_us < limit_ms * 1000)
        return;
    end.why = g_strdup_printf(it->mtime_ns ? "no sign of it for %d s" : "it did not begin in %d s",
                              (int)(limit_ms / 1000));
    take_end(ranks, rank, &end);
}

/* A store that cannot be asked makes nobody lost. */
static void forgive(struct ranks *ranks, int64_t now_us)
{
    pthread_mutex_lock(&ranks->lock);
    for (unsigned rank = 0; rank < ranks->run->lifetime.nodes; rank++)
        ranks->all[rank].seen_us = now_us;
    pthread_mutex_unlock(&ranks->lock);
}

bool ranks_look(struct ranks *ranks, int64_t now_us, bool *is_bad, GError **error)
{
    unsigned nodes = ranks->run->lifetime.nodes;
    g_autofree bool *has_ended = g_new0(bool, nodes);
    struct look look = {ranks, now_us, has_ended};

    *is_bad = false;
    if (!store_list(ranks->root, ranks->prefix, false, note_object, &look, error)) {
        forgive(ranks, now_us);
        return false;
    }
    for (unsigned rank = 0; rank < nodes; rank++) {
        if (rank == ranks->run->rank)
            continue;
        if (has_ended[rank] && !ranks->all[rank].is_over && !read_end(ranks, rank, error))
            return false;
        pthread_mutex_lock(&ranks->lock);
        judge_pulse(ranks, rank, now_us);
        *is_bad |= ranks->worst.status != RUN_DONE;
        pthread_mutex_unlock(&ranks->lock);
    }
    return true;
}

bool ranks_have_ended(struct ranks *ranks)
{
    bool all = true;

    pthread_mutex_lock(&ranks->lock);
    for (unsigned rank = 0; rank < ranks->run->lifetime.nodes; rank++)
        all &= rank == ranks->run->rank || ranks->all[rank].is_over;
    pthread_mutex_unlock(&ranks->lock);
    return all;
}

void ranks_verdict(struct ranks *ranks, struct rank_end *end)
{
    pthread_mutex_lock(&ranks->lock);
    *end = ranks->worst;
    end->why = g_strdup(ranks->worst.why);
    pthread_mutex_unlock(&ranks->lock);
}
