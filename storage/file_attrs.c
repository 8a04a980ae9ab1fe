#include "storage/file_attrs.h"

#include <inttypes.h>
#include <string.h>

#define NS_PER_S INT64_C(1000000000)

static void save_time(GHashTable *metadata, const char *name, int64_t time_ns)
{
    int64_t seconds = time_ns / NS_PER_S, rest = time_ns % NS_PER_S;

    if (rest < 0) {
        rest += NS_PER_S;
        seconds--;
    }
    g_hash_table_replace(metadata, g_strdup(name),
                         g_strdup_printf("%" PRId64 ".%09" PRId64, seconds, rest));
}

static void save_number(GHashTable *metadata, const char *name, unsigned long number)
{
    g_hash_table_replace(metadata, g_strdup(name), g_strdup_printf("%lu", number));
}

void file_attrs_save(const struct file_attrs *attrs, GHashTable *metadata)
{
    save_number(metadata, "mode", attrs->mode);
    save_number(metadata, "uid", attrs->uid);
    save_number(metadata, "gid", attrs->gid);
    save_time(metadata, "mtime", attrs->mtime_ns);
    save_time(metadata, "ctime", attrs->ctime_ns);
    save_time(metadata, "atime", attrs->atime_ns);
}

/* The fraction, of one to nine digits (more are dropped), in nanoseconds. */
static bool parse_fraction(const char *text, int64_t *ns)
{
    int64_t scale = NS_PER_S / 10;

    if (!g_ascii_isdigit(*text))
        return false;
    for (*ns = 0; g_ascii_isdigit(*text); text++, scale /= 10)
        *ns += (*text - '0') * scale;
    return !*text;
}

/* "S" or "S.FRACTION"; S is rounded down, so that a time before 1970 is S plus the fraction too. */
static void load_time(GHashTable *metadata, const char *name, int64_t *time_ns)
{
    const char *text = g_hash_table_lookup(metadata, name);
    g_autofree char *seconds_text = NULL;
    const char *point;
    int64_t seconds, fraction = 0;

    if (!text)
        return;
    point = strchr(text, '.');
    seconds_text = point ? g_strndup(text, (size_t)(point - text)) : g_strdup(text);
    if (!g_ascii_string_to_signed(seconds_text, 10, INT64_MIN / NS_PER_S + 1,
                                  INT64_MAX / NS_PER_S - 1, &seconds, NULL))
        return;
    if (point && !parse_fraction(point + 1, &fraction))
        return;
    *time_ns = seconds * NS_PER_S + fraction;
}

static bool load_number(GHashTable *metadata, const char *name, uint64_t max, uint64_t *number)
{
    const char *text = g_hash_table_lookup(metadata, name);

    return text && g_ascii_string_to_unsigned(text, 10, 0, max, number, NULL);
}

static bool is_file_type(mode_t type)
{
    return type == S_IFREG || type == S_IFDIR || type == S_IFLNK || type == S_IFIFO ||
           type == S_IFSOCK || type == S_IFCHR || type == S_IFBLK;
}

static void load_mode(GHashTable *metadata, mode_t *mode)
{
    uint64_t number;

    if (!load_number(metadata, "mode", 0177777, &number))
        return;
    /* Some writers keep the permissions alone. */
    if (!(number & S_IFMT))
        *mode = (*mode & S_IFMT) | (mode_t)number;
    else if (is_file_type(number & S_IFMT))
        *mode = (mode_t)number;
}

void file_attrs_load(struct file_attrs *attrs, const struct store_object *object)
{
    uint64_t number;

    if (object->mtime_ns)
        attrs->mtime_ns = attrs->ctime_ns = attrs->atime_ns = object->mtime_ns;
    if (!object->metadata)
        return;
    load_mode(object->metadata, &attrs->mode);
    /* The highest number means "no change" to chown. */
    if (load_number(object->metadata, "uid", UINT32_MAX - 1, &number))
        attrs->uid = (uid_t)number;
    if (load_number(object->metadata, "gid", UINT32_MAX - 1, &number))
        attrs->gid = (gid_t)number;
    load_time(object->metadata, "mtime", &attrs->mtime_ns);
    load_time(object->metadata, "ctime", &attrs->ctime_ns);
    load_time(object->metadata, "atime", &attrs->atime_ns);
}

GHashTable *metadata_new(void)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
}

GHashTable *metadata_copy(GHashTable *metadata)
{
    GHashTable *copy = metadata_new();
    GHashTableIter iter;
    gpointer name, value;

    if (!metadata)
        return copy;
    g_hash_table_iter_init(&iter, metadata);
    while (g_hash_table_iter_next(&iter, &name, &value))
        g_hash_table_insert(copy, g_strdup(name), g_strdup(value));
    return copy;
}
