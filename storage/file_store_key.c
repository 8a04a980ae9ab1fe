#include "storage/file_store.h"

#include "config/error.h"

#include <limits.h>
#include <string.h>

#define RESERVED ".dstack-"

/* "" -> "%", "." -> "%2E", ".." -> "%2E%2E", ".dstack-x" -> "%2Edstack-x"; elsewhere only '%'
 * itself is escaped, so that a name reads as its key does. */
char *file_store_encode_segment(const char *segment)
{
    bool is_dots = g_str_equal(segment, ".") || g_str_equal(segment, "..");
    bool is_reserved = g_str_has_prefix(segment, RESERVED);
    GString *name = g_string_new(*segment ? NULL : "%");

    for (const char *at = segment; *at; at++) {
        if (*at == '%' || is_dots || (is_reserved && at == segment))
            g_string_append_printf(name, "%%%02X", (unsigned char)*at);
        else
            g_string_append_c(name, *at);
    }
    return g_string_free(name, FALSE);
}

static bool decode(const char *name, GString *segment)
{
    if (g_str_equal(name, "%"))
        return true;
    for (; *name; name++) {
        if (*name != '%') {
            g_string_append_c(segment, *name);
            continue;
        }
        if (!g_ascii_isxdigit(name[1]) || !g_ascii_isxdigit(name[2]))
            return false;
        g_string_append_c(
            segment, (char)(g_ascii_xdigit_value(name[1]) * 16 + g_ascii_xdigit_value(name[2])));
        name += 2;
    }
    return g_utf8_validate(segment->str, (gssize)segment->len, NULL);
}

/* A file that somebody else put there is an object only if its name is what its key gives. */
char *file_store_decode_segment(const char *name)
{
    GString *segment = g_string_new(NULL);
    g_autofree char *again = NULL;

    if (decode(name, segment) && !memchr(segment->str, '/', segment->len))
        again = file_store_encode_segment(segment->str);
    if (again && g_str_equal(again, name))
        return g_string_free(segment, FALSE);
    g_string_free(segment, TRUE);
    return NULL;
}

char *file_store_path(const char *key, GError **error)
{
    g_auto(GStrv) segments = NULL;
    GString *path = g_string_new(NULL);

    if (!*key || !g_utf8_validate(key, -1, NULL)) {
        error_set(error, EINVAL, "a key must be UTF-8 and not empty");
    } else if (strlen(key) > FILE_STORE_KEY_MAX) {
        error_set(error, ENAMETOOLONG, "%.40s…: the key has %zu bytes; %d are allowed", key,
                  strlen(key), FILE_STORE_KEY_MAX);
    } else {
        segments = g_strsplit(key, "/", -1);
        for (char **segment = segments; *segment; segment++) {
            g_autofree char *name = file_store_encode_segment(*segment);

            if (strlen(name) > NAME_MAX) {
                error_set(error, ENAMETOOLONG, "%s: a name in a file store has at most %d bytes",
                          key, NAME_MAX);
                g_string_free(path, TRUE);
                return NULL;
            }
            g_string_append_printf(path, "%s%s", path->len ? "/" : "", name);
        }
        return g_string_free(path, FALSE);
    }
    g_string_free(path, TRUE);
    return NULL;
}
