#include "fusefs/lease_record.h"

#include "config/error.h"
#include "config/process_id.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UPLOADS_MAX 10000
#define RENAMES_MAX 1000
#define TTL_MIN_MS  1000
#define TTL_MAX_MS  600000

static void free_upload(void *data)
{
    struct lease_upload *upload = data;

    g_free(upload->key);
    g_free(upload->id);
    g_free(upload);
}

static void free_rename(void *data)
{
    struct lease_rename *rename = data;

    g_free(rename->from);
    g_free(rename->to);
    g_free(rename);
}

struct lease_upload *lease_upload_new(const char *key, const char *id)
{
    struct lease_upload *upload = g_new0(struct lease_upload, 1);

    upload->key = g_strdup(key);
    upload->id = g_strdup(id);
    return upload;
}

struct lease_rename *lease_rename_new(const char *from, const char *to)
{
    struct lease_rename *rename = g_new0(struct lease_rename, 1);

    rename->from = g_strdup(from);
    rename->to = g_strdup(to);
    return rename;
}

static struct lease_record *record_new(void)
{
    struct lease_record *record = g_new0(struct lease_record, 1);

    record->uploads = g_ptr_array_new_with_free_func(free_upload);
    record->renames = g_ptr_array_new_with_free_func(free_rename);
    return record;
}

struct lease_record *lease_record_new(unsigned ttl_ms)
{
    g_autoptr(GDateTime) now = g_date_time_new_now_utc();
    struct lease_record *record = record_new();

    record->owner = g_uuid_string_random();
    record->host = g_utf8_make_valid(g_get_host_name(), -1);
    record->machine = machine_id();
    record->since = g_date_time_format(now, "%Y-%m-%dT%H:%M:%SZ");
    record->pid = getpid();
    record->start_ticks = process_start_ticks(getpid());
    record->ttl_ms = CLAMP(ttl_ms, TTL_MIN_MS, TTL_MAX_MS);
    return record;
}

void lease_record_free(struct lease_record *record)
{
    if (!record)
        return;
    g_free(record->owner);
    g_free(record->host);
    g_free(record->machine);
    g_free(record->since);
    g_ptr_array_unref(record->uploads);
    g_ptr_array_unref(record->renames);
    g_free(record);
}

void lease_record_inherit(struct lease_record *record, const struct lease_record *before)
{
    g_ptr_array_set_size(record->uploads, 0);
    g_ptr_array_set_size(record->renames, 0);
    record->unsettled_ns = 0;
    for (guint i = 0; before && i < before->uploads->len; i++) {
        const struct lease_upload *upload = before->uploads->pdata[i];

        g_ptr_array_add(record->uploads, lease_upload_new(upload->key, upload->id));
    }
    for (guint i = 0; before && i < before->renames->len; i++) {
        const struct lease_rename *rename = before->renames->pdata[i];

        g_ptr_array_add(record->renames, lease_rename_new(rename->from, rename->to));
    }
    if (before)
        record->unsettled_ns = before->unsettled_ns ? before->unsettled_ns : before->written_ns;
}

bool lease_record_is_settled(const struct lease_record *record)
{
    return !record->uploads->len && !record->renames->len && !record->unsettled_ns;
}

/* --- writing --- */

char *lease_record_format(const struct lease_record *record)
{
    json_t *uploads = json_array(), *renames = json_array(), *document;
    char *text, *copy;

    for (guint i = 0; i < record->uploads->len; i++) {
        const struct lease_upload *upload = record->uploads->pdata[i];

        json_array_append_new(uploads,
                              json_pack("{s:s, s:s}", "key", upload->key, "id", upload->id));
    }
    for (guint i = 0; i < record->renames->len; i++) {
        const struct lease_rename *rename = record->renames->pdata[i];

        json_array_append_new(renames,
                              json_pack("{s:s, s:s}", "from", rename->from, "to", rename->to));
    }
    document = json_pack("{s:i, s:s, s:s, s:s, s:i, s:I, s:s, s:I, s:i, s:I, s:o, s:o}", "version",
                         1, "owner", record->owner, "host", record->host, "machine",
                         record->machine, "pid", record->pid, "start_ticks",
                         (json_int_t)record->start_ticks, "since", record->since, "beats",
                         (json_int_t)record->beats, "ttl_ms", (int)record->ttl_ms, "unsettled_ns",
                         (json_int_t)record->unsettled_ns, "uploads", uploads, "renames", renames);
    text = document ? json_dumps(document, JSON_COMPACT) : NULL;
    json_decref(document);
    copy = g_strdup(text);
    free(text);
    return copy;
}

/* --- reading --- */

/* The name goes into keys: nothing but what a UUID is made of. */
static bool is_owner_name(const char *owner)
{
    size_t length = strlen(owner);

    return length > 0 && length <= 64 &&
           strspn(owner, "0123456789abcdefghijklmnopqrstuvwxyz-") == length;
}

static bool parse_uploads(struct lease_record *record, json_t *list)
{
    json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        const char *key, *id;

        if (json_unpack(item, "{s:s, s:s}", "key", &key, "id", &id) != 0 || !*key)
            return false;
        g_ptr_array_add(record->uploads, lease_upload_new(key, id));
    }
    return true;
}

static bool parse_renames(struct lease_record *record, json_t *list)
{
    json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        const char *from, *to;

        if (json_unpack(item, "{s:s, s:s}", "from", &from, "to", &to) != 0 ||
            !g_str_has_suffix(from, "/") || !g_str_has_suffix(to, "/") ||
            g_str_has_prefix(to, from))
            return false;
        g_ptr_array_add(record->renames, lease_rename_new(from, to));
    }
    return true;
}

static bool take_document(struct lease_record *record, json_t *document)
{
    const char *owner, *host, *machine, *since;
    json_int_t ticks, beats, unsettled_ns = 0;
    json_t *uploads, *renames;
    int version, ttl_ms;

    if (json_unpack(document, "{s:i, s:s, s:s, s:s, s:i, s:I, s:s, s:I, s:i, s?I, s:o, s:o}",
                    "version", &version, "owner", &owner, "host", &host, "machine", &machine, "pid",
                    &record->pid, "start_ticks", &ticks, "since", &since, "beats", &beats, "ttl_ms",
                    &ttl_ms, "unsettled_ns", &unsettled_ns, "uploads", &uploads, "renames",
                    &renames) != 0)
        return false;
    if (version != 1 || !is_owner_name(owner) || ticks < 0 || beats < 0 || ttl_ms < TTL_MIN_MS ||
        ttl_ms > TTL_MAX_MS || !json_is_array(uploads) || !json_is_array(renames) ||
        json_array_size(uploads) > UPLOADS_MAX || json_array_size(renames) > RENAMES_MAX)
        return false;
    record->owner = g_strdup(owner);
    record->host = g_strdup(host);
    record->machine = g_strdup(machine);
    record->since = g_strdup(since);
    record->start_ticks = (uint64_t)ticks;
    record->beats = (uint64_t)beats;
    record->ttl_ms = (unsigned)ttl_ms;
    record->unsettled_ns = MAX(unsettled_ns, 0);
    return parse_uploads(record, uploads) && parse_renames(record, renames);
}

struct lease_record *lease_record_parse(const char *text, size_t size, GError **error)
{
    struct lease_record *record;
    json_error_t why;
    json_t *document;
    bool ok;

    if (size > LEASE_RECORD_MAX) {
        error_set(error, EINVAL, "a lease of %zu bytes is none of ours", size);
        return NULL;
    }
    document = json_loadb(text, size, JSON_REJECT_DUPLICATES, &why);
    record = record_new();
    ok = document && take_document(record, document);
    json_decref(document);
    if (ok)
        return record;
    error_set(error, EINVAL, "not a lease that this version can read");
    lease_record_free(record);
    return NULL;
}

/* --- judging --- */

bool lease_record_is_dead(const struct lease_record *record)
{
    g_autofree char *here = machine_id();

    return strcmp(here, record->machine) == 0 &&
           !process_is_alive(record->pid, record->start_ticks);
}

char *lease_record_describe(const struct lease_record *record)
{
    g_autofree char *host = g_strescape(record->host, NULL);
    g_autofree char *since = g_strescape(record->since, NULL);

    return g_strdup_printf("%s (pid %d), since %s", host, record->pid, since);
}
