/* What the server can do: the store's own parallel client, without a mount. Prints seconds, and
 * those of CPU. With --unsigned-payload as dstack-mount with it. What follows ENDPOINT and BUCKET:
 *   put KEY BYTES                  one object, parts of 16 MiB, 8 at once
 *   get KEY BYTES                  one object, ranges of 8 MiB, 8 at once
 *   ranges KEY BYTES PARALLEL      an eighth of its 256 KiB, at most 1,024, in any order
 *   copy KEY BYTES                 KEY.copy, in parts of 256 MiB that the server copies, 8 at once
 *   move KEY BYTES                 KEY.copy, copied whole, and KEY removed
 *   list PREFIX COUNT              so many names, page by page
 *   puts PREFIX COUNT PARALLEL     objects of 4 KiB, with the attributes that files have
 *   moves PREFIX COUNT PARALLEL    those, to moved-PREFIX: copied, then removed
 */
#include "storage/file_attrs.h"
#include "storage/store.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define PART_BYTES  (16u << 20)
#define RANGE_BYTES (8u << 20)
#define PARALLEL    8
#define SMALL_BYTES 4096
#define COPY_BYTES  (256ull << 20)
#define ANY_BYTES   (256u << 10)
#define ANY_MOST    1024

struct work {
    struct store *store;
    const char *key;
    uint64_t bytes, step;
    char *upload_id;
    char **etags;
    atomic_uint next, count;
    atomic_bool failed;
    struct store_call *(*make)(struct work *work, unsigned number, void *buffer);
};

static struct store_call *make_part(struct work *work, unsigned number, void *buffer)
{
    uint64_t start = number * work->step;

    return store_call_part(work->key, work->upload_id, number + 1, buffer,
                           MIN(work->step, work->bytes - start));
}

static struct store_call *make_range(struct work *work, unsigned number, void *buffer)
{
    uint64_t start = number * work->step;

    return store_call_get(work->key, start, buffer, MIN(work->step, work->bytes - start));
}

/* Of the blocks of ANY_BYTES one that NUMBER alone decides. */
static struct store_call *make_any_range(struct work *work, unsigned number, void *buffer)
{
    uint64_t block = number * 2654435761ull % (work->bytes / ANY_BYTES);

    return store_call_get(work->key, block * ANY_BYTES, buffer, ANY_BYTES);
}

static struct store_call *make_small(struct work *work, unsigned number, void *buffer)
{
    const int64_t now_ns = g_get_real_time() * 1000;
    const struct file_attrs attrs = {S_IFREG | 0644, 0, 0, now_ns, now_ns, now_ns};
    g_autofree char *key = g_strdup_printf("%s%06u", work->key, number);
    struct store_call *call = store_call_put(key, buffer, work->step);

    call->metadata = metadata_new();
    file_attrs_save(&attrs, call->metadata);
    return call;
}

static struct store_call *make_copy(struct work *work, unsigned number, void *buffer)
{
    g_autofree char *to = g_strdup_printf("moved-%s%06u", work->key, number);
    struct store_call *call = store_call_new(STORE_COPY, to);

    (void)buffer;
    call->source_key = g_strdup_printf("%s%06u", work->key, number);
    return call;
}

static struct store_call *make_remove(struct work *work, unsigned number, void *buffer)
{
    struct store_call *call = store_call_new(STORE_DELETE_MANY, "");
    unsigned most = store_caps(work->store)->max_delete_keys, first = number * most;

    (void)buffer;
    for (unsigned i = first; i < MIN(first + most, work->bytes); i++)
        g_ptr_array_add(call->keys, g_strdup_printf("%s%06u", work->key, i));
    return call;
}

static void *work_main(void *user)
{
    struct work *work = user;
    g_autofree char *buffer = g_malloc(work->step);
    unsigned number;

    memset(buffer, 'x', work->step);
    while ((number = atomic_fetch_add(&work->next, 1)) < work->count) {
        g_autoptr(StoreCall) call = work->make(work, number, buffer);
        g_autoptr(GError) error = NULL;

        if (!store_run(work->store, call, &error)) {
            fprintf(stderr, "raw: %s: %s\n", call->key, error->message);
            atomic_store(&work->failed, true);
            break;
        }
        if (work->etags)
            work->etags[number] = g_strdup(call->part_etag);
    }
    return NULL;
}

static bool run_parallel(struct work *work, unsigned parallel)
{
    pthread_t threads[64];

    parallel = CLAMP(parallel, 1, G_N_ELEMENTS(threads));
    for (unsigned i = 0; i < parallel; i++)
        if (pthread_create(&threads[i], NULL, work_main, work) != 0)
            abort();
    for (unsigned i = 0; i < parallel; i++)
        pthread_join(threads[i], NULL);
    return !atomic_load(&work->failed);
}

static bool move_all(struct work *work, unsigned parallel)
{
    unsigned most = store_caps(work->store)->max_delete_keys;

    work->make = make_copy;
    work->step = 1;
    work->count = (unsigned)work->bytes;
    if (!run_parallel(work, parallel))
        return false;
    work->make = make_remove;
    work->next = 0;
    work->count = (unsigned)((work->bytes + most - 1) / most);
    return run_parallel(work, parallel);
}

static bool begin(struct work *work, GError **error)
{
    g_autoptr(StoreCall) call = store_call_new(STORE_BEGIN, work->key);

    if (!store_run(work->store, call, error))
        return false;
    work->upload_id = g_strdup(call->upload_id);
    return true;
}

static bool commit(struct work *work, GError **error)
{
    g_autoptr(StoreCall) call = store_call_commit(work->key, work->upload_id);

    for (unsigned i = 0; i < work->count; i++)
        store_call_add_part(call, i + 1, work->etags[i]);
    return store_run(work->store, call, error);
}

static bool put(struct work *work, GError **error)
{
    bool ok;

    work->make = make_part;
    work->step = PART_BYTES;
    work->count = (unsigned)((work->bytes + PART_BYTES - 1) / PART_BYTES);
    work->etags = g_new0(char *, work->count + 1);
    ok = begin(work, error) && run_parallel(work, PARALLEL) && commit(work, error);
    g_strfreev(work->etags);
    return ok;
}

static bool get(struct work *work)
{
    work->make = make_range;
    work->step = RANGE_BYTES;
    work->count = (unsigned)((work->bytes + RANGE_BYTES - 1) / RANGE_BYTES);
    return run_parallel(work, PARALLEL);
}

static bool get_any(struct work *work, unsigned parallel)
{
    work->make = make_any_range;
    work->step = ANY_BYTES;
    work->count = (unsigned)MIN(work->bytes / ANY_BYTES / 8, ANY_MOST);
    return run_parallel(work, parallel);
}

static struct store_call *make_copied_part(struct work *work, unsigned number, void *buffer)
{
    g_autofree char *to = g_strconcat(work->key, ".copy", NULL);
    struct store_call *call = store_call_new(STORE_COPY_PART, to);
    uint64_t start = number * COPY_BYTES;

    (void)buffer;
    call->upload_id = g_strdup(work->upload_id);
    call->part_number = number + 1;
    call->source_key = g_strdup(work->key);
    call->offset = start;
    call->length = MIN(COPY_BYTES, work->bytes - start);
    return call;
}

static bool copy(struct work *work, GError **error)
{
    g_autofree char *to = g_strconcat(work->key, ".copy", NULL);
    struct work target = {.store = work->store, .key = to};
    bool ok;

    work->make = make_copied_part;
    work->step = 1;
    work->count = (unsigned)((work->bytes + COPY_BYTES - 1) / COPY_BYTES);
    work->etags = g_new0(char *, work->count + 1);
    ok = begin(&target, error);
    work->upload_id = target.upload_id;
    ok = ok && run_parallel(work, PARALLEL);
    target.etags = work->etags;
    target.count = work->count;
    ok = ok && commit(&target, error);
    g_strfreev(work->etags);
    return ok;
}

static bool move(struct work *work, GError **error)
{
    g_autofree char *to = g_strconcat(work->key, ".copy", NULL);
    g_autoptr(StoreCall) copying = store_call_new(STORE_COPY, to);

    copying->source_key = g_strdup(work->key);
    return store_run(work->store, copying, error) && store_delete(work->store, work->key, error);
}

static bool list(struct work *work, GError **error)
{
    g_autofree char *token = NULL;
    uint64_t found = 0;

    do {
        g_autoptr(StoreCall) call = store_call_new(STORE_LIST, work->key);

        call->token = g_steal_pointer(&token);
        if (!store_run(work->store, call, error))
            return false;
        found += call->objects->len;
        token = g_strdup(call->next_token);
    } while (token);
    return found == work->bytes;
}

static double cpu_seconds(void)
{
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / G_USEC_PER_SEC;
}

int main(int argc, char **argv)
{
    struct store_options options = {.region = "us-east-1"};
    struct work work = {0};
    g_autoptr(GError) error = NULL;
    g_autofree char *url = NULL;
    unsigned parallel;
    int64_t begun;
    bool ok = false;

    options.unsigned_payload = argc > 1 && strcmp(argv[1], "--unsigned-payload") == 0;
    argc -= options.unsigned_payload;
    argv += options.unsigned_payload;
    if (argc < 6) {
        fprintf(stderr, "usage: raw [--unsigned-payload] ENDPOINT BUCKET "
                        "put|get|ranges|copy|move|list|puts|moves KEY BYTES|COUNT [PARALLEL]\n");
        return 2;
    }
    parallel = argc > 6 ? (unsigned)g_ascii_strtoull(argv[6], NULL, 10) : 1;
    options.endpoint = argv[1];
    url = g_strdup_printf("s3://%s", argv[2]);
    work.store = store_open(url, &options, &error);
    work.key = argv[4];
    work.bytes = g_ascii_strtoull(argv[5], NULL, 10);
    begun = g_get_monotonic_time();
    if (work.store && strcmp(argv[3], "put") == 0) {
        ok = put(&work, &error);
    } else if (work.store && strcmp(argv[3], "get") == 0) {
        ok = get(&work);
    } else if (work.store && strcmp(argv[3], "copy") == 0) {
        ok = copy(&work, &error);
    } else if (work.store && strcmp(argv[3], "ranges") == 0) {
        ok = get_any(&work, parallel);
    } else if (work.store && strcmp(argv[3], "move") == 0) {
        ok = move(&work, &error);
    } else if (work.store && strcmp(argv[3], "list") == 0) {
        ok = list(&work, &error);
    } else if (work.store && strcmp(argv[3], "puts") == 0) {
        work.make = make_small;
        work.step = SMALL_BYTES;
        work.count = (unsigned)work.bytes;
        ok = run_parallel(&work, parallel);
    } else if (work.store && strcmp(argv[3], "moves") == 0) {
        ok = move_all(&work, parallel);
    }
    printf("%.3f %.3f\n", (double)(g_get_monotonic_time() - begun) / G_USEC_PER_SEC, cpu_seconds());
    if (!ok)
        fprintf(stderr, "raw: %s\n", error ? error->message : "failed");
    store_unref(work.store);
    g_free(work.upload_id);
    return ok ? 0 : 1;
}
