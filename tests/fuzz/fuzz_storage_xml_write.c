/* Keys and ETags that go into requests' bodies: what is written is one whole document that says the
 * same, whatever they hold. */
#include "storage/s3_xml.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_delete(const char *key)
{
    g_autoptr(GPtrArray) keys = g_ptr_array_new();
    g_autofree char *object = NULL, *back = NULL, *bare = s3_unquote(key); /* as s3_xml_text does */
    const char *from;
    GString *text;

    g_ptr_array_add(keys, (void *)key);
    text = s3_xml_make_delete(keys);
    from = strstr(text->str, "<Object>") + strlen("<Object>");
    object =
        g_strdup_printf("<Object>%.*s</Object>", (int)(strstr(from, "</Object>") - from), from);
    back = s3_xml_text(object, strlen(object), "Object", "Key", NULL);
    if (!s3_xml_is_whole(text->str, text->len) || !back || strcmp(back, bare) != 0)
        abort();
    g_string_free(text, TRUE);
}

static void check_commit(char *etag)
{
    g_autoptr(GArray) parts = g_array_new(FALSE, FALSE, sizeof(struct store_part));
    g_autoptr(GPtrArray) checksums = g_ptr_array_new();
    struct store_part part = {1, etag};
    GString *text;

    g_array_append_val(parts, part);
    g_ptr_array_add(checksums, NULL);
    text = s3_xml_make_commit(parts, checksums);
    if (!s3_xml_is_whole(text->str, text->len))
        abort();
    g_string_free(text, TRUE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    g_autofree char *text = g_strndup((const char *)data, size);

    if (*text && strlen(text) <= 1024 && g_utf8_validate(text, -1, NULL) && s3_xml_can_hold(text)) {
        check_delete(text);
        check_commit(text);
    }
    return 0;
}
