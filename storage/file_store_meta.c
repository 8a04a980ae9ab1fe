#include "storage/file_store.h"

#include "config/error.h"
#include "storage/file_attrs.h"

#include <string.h>
#include <sys/xattr.h>

#define XATTR     "user.dstack.metadata"
#define XATTR_MAX 65536

static void append_escaped(GString *text, const char *string, bool is_name)
{
    for (; *string; string++) {
        unsigned char byte = (unsigned char)*string;

        if (byte < 0x20 || byte == 0x7f || byte == '%' || (is_name && byte == '='))
            g_string_append_printf(text, "%%%02X", byte);
        else
            g_string_append_c(text, *string);
    }
}

char *file_store_format_metadata(GHashTable *metadata)
{
    GString *text = g_string_new(NULL);
    GHashTableIter iter;
    gpointer name, value;

    g_hash_table_iter_init(&iter, metadata);
    while (g_hash_table_iter_next(&iter, &name, &value)) {
        append_escaped(text, name, true);
        g_string_append_c(text, '=');
        append_escaped(text, value, false);
        g_string_append_c(text, '\n');
    }
    return g_string_free(text, FALSE);
}

static void parse_line(const char *line, GHashTable *metadata)
{
    const char *equals = strchr(line, '=');
    g_autofree char *name = NULL;
    g_autofree char *value = NULL;

    if (!equals || equals == line)
        return;
    name = g_uri_unescape_segment(line, equals, NULL);
    value = g_uri_unescape_string(equals + 1, NULL);
    if (name && value)
        g_hash_table_replace(metadata, g_steal_pointer(&name), g_steal_pointer(&value));
}

GHashTable *file_store_parse_metadata(const char *text, size_t size)
{
    GHashTable *metadata = metadata_new();
    g_autofree char *copy = g_strndup(text, size);
    g_auto(GStrv) lines = g_strsplit(copy, "\n", -1);

    for (char **line = lines; *line; line++)
        parse_line(*line, metadata);
    return metadata;
}

bool file_store_read_metadata(int fd, const char *key, GHashTable **metadata, GError **error)
{
    char small[4096];
    g_autofree char *large = NULL;
    char *text = small;
    ssize_t size = fgetxattr(fd, XATTR, small, sizeof small);

    if (size < 0 && errno == ERANGE) {
        text = large = g_malloc(XATTR_MAX);
        size = fgetxattr(fd, XATTR, large, XATTR_MAX);
    }
    if (size < 0 && errno != ENODATA && errno != ENOTSUP)
        return error_set_errno(error, EIO, "%s: read its metadata", key);
    *metadata = file_store_parse_metadata(text, size > 0 ? (size_t)size : 0);
    return true;
}

bool file_store_write_metadata(int fd, const char *key, GHashTable *metadata, GError **error)
{
    g_autofree char *text = NULL;
    int code;

    if (!metadata || !g_hash_table_size(metadata))
        return true;
    text = file_store_format_metadata(metadata);
    if (fsetxattr(fd, XATTR, text, strlen(text), 0) == 0)
        return true;
    code = errno;
    if (code == ENOTSUP)
        return error_set(error, ENOTSUP,
                         "%s: the filesystem keeps no user extended attributes, which hold an "
                         "object's metadata; use another one (ext4, xfs, btrfs)",
                         key);
    return file_store_error(error, code, "keep the metadata of", key);
}
