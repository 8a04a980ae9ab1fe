#include "storage/transfer_engine.h"

#include "config/error.h"
#include "storage/keys.h"

#include <errno.h>
#include <time.h>

#define DEFAULT_MEMORY (128u << 20)
#define DEFAULT_CALLS  8
#define PROGRESS_US    (G_USEC_PER_SEC / 10)

void transfer_init(struct transfer *transfer, const struct transfer_options *options,
                   unsigned parallel)
{
    static const struct transfer_options defaults;
    pthread_condattr_t attr;

    *transfer = (struct transfer){.options = options ? options : &defaults};
    transfer->parallel = transfer->options->parallel ? transfer->options->parallel
                                                     : (parallel ? parallel : DEFAULT_CALLS);
    transfer->memory_bytes =
        transfer->options->memory_bytes ? transfer->options->memory_bytes : DEFAULT_MEMORY;
    transfer->progress.counting = true;
    transfer->running = g_hash_table_new(NULL, NULL);
    pthread_mutex_init(&transfer->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&transfer->changed, &attr);
    pthread_condattr_destroy(&attr);
    g_queue_init(&transfer->done);
}

static void report(struct transfer *transfer, bool now)
{
    int64_t time_us = g_get_monotonic_time();

    if (!transfer->options->progress || (!now && time_us < transfer->next_progress_us))
        return;
    transfer->next_progress_us = time_us + PROGRESS_US;
    transfer->options->progress(&transfer->progress, transfer->options->progress_user);
}

bool transfer_end(struct transfer *transfer, struct transfer_result *result, GError **error)
{
    bool is_ok;

    while (transfer_step(transfer))
        ;
    transfer->progress.counting = false;
    transfer_goes_on(transfer);
    report(transfer, true);
    if (result)
        *result = transfer->result;
    is_ok = !transfer->error && !transfer->skipped;
    if (transfer->error)
        g_propagate_error(error, g_steal_pointer(&transfer->error));
    else if (transfer->skipped)
        g_propagate_error(error, g_steal_pointer(&transfer->skipped));
    g_clear_error(&transfer->skipped);
    g_hash_table_unref(transfer->running);
    pthread_cond_destroy(&transfer->changed);
    pthread_mutex_destroy(&transfer->lock);
    return is_ok;
}

void transfer_fail(struct transfer *transfer, GError *error)
{
    if (transfer->error)
        g_error_free(error);
    else
        transfer->error = error;
}

void transfer_skip(struct transfer *transfer, GError *error)
{
    if (transfer->skipped)
        g_error_free(error);
    else
        transfer->skipped = error;
}

void transfer_fail_call(struct transfer *transfer, const struct transfer_task *task,
                        const char *verb, const char *name)
{
    GError *error = NULL;

    error_set(&error, error_errno(task->call->error), "%s %s: %s", verb, name,
              task->call->error->message);
    if (error_is(error, ENAMETOOLONG)) /* its name's fault, not the store's */
        transfer_skip(transfer, error);
    else
        transfer_fail(transfer, error);
}

/* An upload whose beginning or abort was cancelled would stay, and nobody would know its id. */
static bool may_cancel(const struct transfer_task *task)
{
    return task->call->verb != STORE_BEGIN && task->call->verb != STORE_ABORT;
}

static void cancel_running(struct transfer *transfer)
{
    GHashTableIter iter;
    gpointer data;

    if (transfer->cancelled)
        return;
    transfer->cancelled = true;
    g_hash_table_iter_init(&iter, transfer->running);
    while (g_hash_table_iter_next(&iter, &data, NULL)) {
        struct transfer_task *task = data;

        if (may_cancel(task))
            store_cancel(task->store, task->call);
    }
}

bool transfer_goes_on(struct transfer *transfer)
{
    const int *stop = transfer->options->stop;

    if (stop && __atomic_load_n(stop, __ATOMIC_RELAXED)) {
        GError *error = NULL;

        error_set(&error, ECANCELED, "the transfer was stopped");
        transfer_fail(transfer, error);
        cancel_running(transfer);
    }
    return !transfer->error;
}

bool transfer_room(struct transfer *transfer, uint64_t bytes)
{
    while (transfer_goes_on(transfer) && transfer->in_flight &&
           (transfer->in_flight >= transfer->parallel ||
            transfer->memory_used + bytes > transfer->memory_bytes))
        transfer_step(transfer);
    return transfer_goes_on(transfer);
}

static void call_done(struct store_call *call, void *user)
{
    struct transfer_task *task = user;
    struct transfer *transfer = task->transfer;

    pthread_mutex_lock(&transfer->lock);
    g_queue_push_tail(&transfer->done, task);
    pthread_cond_signal(&transfer->changed);
    pthread_mutex_unlock(&transfer->lock);
}

void transfer_start(struct transfer *transfer, struct store *store, struct store_call *call,
                    void *buffer, uint64_t bytes, transfer_finished *finished, void *user)
{
    struct transfer_task *task = g_new(struct transfer_task, 1);

    *task = (struct transfer_task){transfer, store, call, buffer, bytes, finished, user};
    transfer->in_flight++;
    transfer->memory_used += bytes;
    g_hash_table_add(transfer->running, task);
    store_start(store, call, call_done, task);
}

/* The next completion, waiting at most the time between two looks at the stop flag. */
static struct transfer_task *take_done(struct transfer *transfer)
{
    struct transfer_task *task;
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += PROGRESS_US * 1000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&transfer->lock);
    while (!(task = g_queue_pop_head(&transfer->done)))
        if (pthread_cond_timedwait(&transfer->changed, &transfer->lock, &until) == ETIMEDOUT)
            break;
    pthread_mutex_unlock(&transfer->lock);
    return task;
}

bool transfer_step(struct transfer *transfer)
{
    struct transfer_task *task = NULL;

    while (transfer->in_flight && !task) {
        task = take_done(transfer);
        transfer_goes_on(transfer);
        report(transfer, false);
    }
    if (!task)
        return false;
    g_hash_table_remove(transfer->running, task);
    transfer->in_flight--;
    transfer->memory_used -= task->bytes;
    task->finished(task, task->user);
    store_call_unref(task->call);
    g_free(task->buffer);
    g_free(task);
    return true;
}

void transfer_found(struct transfer *transfer, uint64_t bytes)
{
    if (transfer->counted)
        return;
    transfer->progress.files_total++;
    transfer->progress.bytes_total += bytes;
}

static bool count_object(const struct store_object *object, void *user, GError **error)
{
    if (!keys_is_of_mount(object->key))
        transfer_found(user, object->size_bytes);
    return transfer_goes_on(user);
}

void transfer_count_list(struct transfer *transfer, struct store *store, const char *prefix)
{
    if (!transfer->options->progress)
        return;
    /* What fails here fails again when it matters. */
    transfer->counted = store_list(store, prefix, false, count_object, transfer, NULL);
    transfer->progress.counting = !transfer->counted;
    if (!transfer->counted)
        transfer->progress = (struct transfer_progress){.counting = true};
}

void transfer_file_done(struct transfer *transfer)
{
    transfer->result.files++;
    transfer->progress.files_done++;
}

void transfer_file_skipped(struct transfer *transfer, uint64_t bytes)
{
    transfer->result.skipped++;
    transfer->progress.files_done++;
    transfer->progress.bytes_done += bytes;
}

void transfer_bytes_done(struct transfer *transfer, uint64_t bytes)
{
    transfer->result.bytes += bytes;
    transfer->progress.bytes_done += bytes;
}

void *transfer_buffer(struct transfer *transfer, size_t size, const char *name)
{
    void *buffer = g_try_malloc(size ? size : 1);
    GError *error = NULL;

    if (buffer)
        return buffer;
    error_set(&error, ENOMEM, "%s: no memory for %zu bytes", name, size);
    transfer_fail(transfer, error);
    return NULL;
}
