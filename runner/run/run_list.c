/* What `ps` shows: one LIST, and a read for each run that is not known to be finished. */
#include "config/error.h"
#include "config/log.h"
#include "runner/run/run_marker.h"
#include "runner/run/run_store.h"
#include <string.h>

struct entry {
    struct run_marker marker; /* name NULL: none seen */
    bool has_document;
};

struct listing {
    const char *repo;
    size_t skip;         /* bytes of "runs/REPO/" */
    GHashTable *entries; /* name -> struct entry* */
};

static void entry_free(gpointer data)
{
    struct entry *entry = data;

    run_marker_clear(&entry->marker);
    g_free(entry);
}

static struct entry *entry_of(struct listing *listing, const char *name)
{
    struct entry *entry = g_hash_table_lookup(listing->entries, name);

    if (!entry) {
        entry = g_new0(struct entry, 1);
        g_hash_table_insert(listing->entries, g_strdup(name), entry);
    }
    return entry;
}

static bool note_object(const struct store_object *object, void *user, GError **error)
{
    struct listing *listing = user;
    struct run_marker marker;
    struct entry *entry;

    if (g_str_has_suffix(object->key, ".json")) {
        g_autofree char *name = g_strndup(object->key + listing->skip,
                                          strlen(object->key) - listing->skip - strlen(".json"));

        if (run_name_is_valid(name))
            entry_of(listing, name)->has_document = true;
    } else if (run_marker_parse(listing->repo, object->key, &marker)) {
        entry = entry_of(listing, marker.name);
        if (!entry->marker.name || marker.revision > entry->marker.revision) {
            run_marker_clear(&entry->marker);
            entry->marker = marker;
        } else {
            run_marker_clear(&marker);
        }
    }
    return true;
}

void run_summary_free(struct run_summary *summary)
{
    if (!summary)
        return;
    g_free(summary->name);
    g_free(summary->workflow);
    g_free(summary->user);
    g_free(summary->reason);
    g_free(summary);
}

static struct run_summary *summary_of_marker(struct run_marker *marker)
{
    struct run_summary *summary = g_new0(struct run_summary, 1);

    summary->name = g_steal_pointer(&marker->name);
    summary->workflow = g_steal_pointer(&marker->workflow);
    summary->user = g_steal_pointer(&marker->user);
    summary->status = marker->status;
    summary->submitted_ms = marker->submitted_ms;
    summary->finished_ms = marker->finished_ms;
    summary->exit_code = marker->exit_code;
    return summary;
}

static struct run_summary *summary_of_run(struct run *run)
{
    struct run_summary *summary = g_new0(struct run_summary, 1);

    summary->name = g_strdup(run->name);
    summary->workflow = g_strdup(run->workflow ? run->workflow : "");
    summary->user = g_strdup(run->user);
    summary->status = run->status;
    summary->submitted_ms = run->submitted_ms;
    summary->finished_ms = run->finished_ms;
    summary->exit_code = run->exit_code;
    summary->reason =
        run->waiting ? g_strdup_printf("waiting: %s", run->waiting) : g_strdup(run->reason);
    return summary;
}

/* NULL without *ERROR: there is nothing to show (removed meanwhile, or not a run). */
static struct run_summary *summarise(struct store *root, const char *repo, const char *name,
                                     struct entry *entry, GError **error)
{
    g_autoptr(GError) bad = NULL;
    g_autoptr(GError) unmarked = NULL;
    g_autoptr(Run) run = NULL;

    if (!entry->has_document)
        return NULL;
    if (entry->marker.name && run_status_is_final(entry->marker.status))
        return summary_of_marker(&entry->marker);
    run = run_store_refresh(root, repo, name, &bad);
    if (!run) {
        if (error_is(bad, EINVAL) || error_is(bad, ENOTSUP))
            log_warning("%s", bad->message);
        else if (!error_is(bad, ENOENT))
            g_propagate_error(error, g_steal_pointer(&bad));
        return NULL;
    }
    if (run->revision > entry->marker.revision && run_status_is_final(run->status) &&
        !run_marker_write(root, run, &unmarked))
        log_warning("%s", unmarked->message);
    return summary_of_run(run);
}

static gint newest_first(gconstpointer a, gconstpointer b)
{
    const struct run_summary *left = *(struct run_summary *const *)a;
    const struct run_summary *right = *(struct run_summary *const *)b;

    if (left->submitted_ms != right->submitted_ms)
        return left->submitted_ms < right->submitted_ms ? 1 : -1;
    return strcmp(left->name, right->name);
}

GPtrArray *run_store_list(struct store *root, const char *repo, GError **error)
{
    g_autofree char *prefix = g_strdup_printf("runs/%s/", repo);
    g_autoptr(GHashTable) entries =
        g_hash_table_new_full(g_str_hash, g_str_equal, g_free, entry_free);
    g_autoptr(GPtrArray) runs = g_ptr_array_new_with_free_func((GDestroyNotify)run_summary_free);
    struct listing listing = {repo, strlen(prefix), entries};
    GHashTableIter at;
    gpointer name, entry;

    if (!run_name_is_valid(repo))
        return error_set(error, EINVAL, "\"%s\" cannot be the name of a repo", repo), NULL;
    if (!store_list(root, prefix, false, note_object, &listing, error))
        return NULL;
    g_hash_table_iter_init(&at, entries);
    while (g_hash_table_iter_next(&at, &name, &entry)) {
        g_autoptr(GError) failed = NULL;
        struct run_summary *summary = summarise(root, repo, name, entry, &failed);

        if (failed) {
            g_propagate_error(error, g_steal_pointer(&failed));
            return NULL;
        }
        if (summary)
            g_ptr_array_add(runs, summary);
    }
    g_ptr_array_sort(runs, newest_first);
    return g_steal_pointer(&runs);
}
