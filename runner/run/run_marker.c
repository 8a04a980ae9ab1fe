#include "runner/run/run_marker.h"
#include "config/error.h"
#include <string.h>

enum {
    WORKFLOW_MAX = 20, /* characters: a key has 255 bytes, each may take 12 */
    USER_MAX = 16,
    FIELDS = 8, /* the last, the user, may be missing */
};

/* Letters, digits, '.', '_' and '-' only, so that a key stays short. */
static char *user_field(const char *user)
{
    char *field = g_strndup(user ? user : "", USER_MAX);

    for (char *c = field; *c; c++)
        if (!g_ascii_isalnum(*c) && !strchr("._-", *c))
            *c = '-';
    return field;
}

char *run_marker_key(const struct run *run)
{
    g_autofree char *valid = g_utf8_make_valid(run->workflow ? run->workflow : "", -1);
    g_autofree char *cut = g_utf8_substring(valid, 0, MIN(g_utf8_strlen(valid, -1), WORKFLOW_MAX));
    g_autofree char *workflow = g_uri_escape_string(cut, "", FALSE);
    g_autofree char *user = user_field(run->user);

    return g_strdup_printf("runs/%s/%s!%s!%" G_GINT64_FORMAT "!%" G_GINT64_FORMAT
                           "!%d!%" G_GUINT64_FORMAT "!%s!%s",
                           run->repo, run->name, run_status_name(run->status), run->submitted_ms,
                           run->finished_ms, run->exit_code, run->revision, workflow, user);
}

static bool parse_number(const char *text, int64_t min, int64_t max, int64_t *number)
{
    return g_ascii_string_to_signed(text, 10, min, max, number, NULL);
}

bool run_marker_parse(const char *repo, const char *key, struct run_marker *marker)
{
    g_autofree char *prefix = g_strdup_printf("runs/%s/", repo);
    g_auto(GStrv) fields = NULL;
    struct run_marker found = {0};
    int64_t exit_code, revision;
    guint count;

    if (!g_str_has_prefix(key, prefix))
        return false;
    fields = g_strsplit(key + strlen(prefix), "!", FIELDS + 1);
    count = g_strv_length(fields);
    if ((count != FIELDS && count != FIELDS - 1) || !run_name_is_valid(fields[0]) ||
        !run_status_parse(fields[1], &found.status) ||
        !parse_number(fields[2], 0, INT64_MAX, &found.submitted_ms) ||
        !parse_number(fields[3], 0, INT64_MAX, &found.finished_ms) ||
        !parse_number(fields[4], -1, 255, &exit_code) ||
        !parse_number(fields[5], 0, INT64_MAX, &revision))
        return false;
    found.workflow = g_uri_unescape_string(fields[6], NULL);
    if (!found.workflow)
        return false;
    found.name = g_strdup(fields[0]);
    found.user = count == FIELDS && *fields[7] ? g_strdup(fields[7]) : NULL;
    found.exit_code = (int)exit_code;
    found.revision = (uint64_t)revision;
    *marker = found;
    return true;
}

void run_marker_clear(struct run_marker *marker)
{
    g_clear_pointer(&marker->name, g_free);
    g_clear_pointer(&marker->workflow, g_free);
    g_clear_pointer(&marker->user, g_free);
}

struct older {
    const struct run *run;
    GPtrArray *keys;
};

static bool note_older(const struct store_object *object, void *user, GError **error)
{
    struct older *older = user;
    struct run_marker marker;

    if (!run_marker_parse(older->run->repo, object->key, &marker))
        return true;
    if (marker.revision < older->run->revision)
        g_ptr_array_add(older->keys, g_strdup(object->key));
    run_marker_clear(&marker);
    return true;
}

bool run_marker_write(struct store *root, const struct run *run, GError **error)
{
    g_autofree char *key = run_marker_key(run);
    g_autofree char *prefix = g_strdup_printf("runs/%s/%s!", run->repo, run->name);
    g_autoptr(GPtrArray) keys = g_ptr_array_new_with_free_func(g_free);
    struct older older = {run, keys};

    if (!store_write(root, key, "", 0, NULL, NULL, error) ||
        !store_list(root, prefix, false, note_older, &older, error))
        return false;
    for (guint i = 0; i < keys->len; i++)
        if (!store_delete(root, keys->pdata[i], error))
            return false;
    return true;
}
