/* The requests of s3_xml.h; s3_xml.c has the answers. */
#include "storage/s3_xml.h"

#include <string.h>

/* XML 1.0, 2.2: no control characters, no U+FFFE and U+FFFF. */
bool s3_xml_can_hold(const char *key)
{
    if (strstr(key, "\xef\xbf\xbe") || strstr(key, "\xef\xbf\xbf"))
        return false;
    for (; *key; key++)
        if ((unsigned char)*key < ' ' && !strchr("\t\n\r", *key))
            return false;
    return true;
}

/* A bare carriage return would be read as a newline. */
static void append_escaped(GString *xml, const char *text)
{
    for (; *text; text++) {
        if (strchr("<>&\"'\r\n\t", *text))
            g_string_append_printf(xml, "&#%d;", *text);
        else
            g_string_append_c(xml, *text);
    }
}

GString *s3_xml_make_delete(GPtrArray *keys)
{
    GString *xml = g_string_new("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                                "<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
                                "<Quiet>true</Quiet>");

    for (guint i = 0; i < keys->len; i++) {
        g_string_append(xml, "<Object><Key>");
        append_escaped(xml, keys->pdata[i]);
        g_string_append(xml, "</Key></Object>");
    }
    return g_string_append(xml, "</Delete>");
}

GString *s3_xml_make_commit(GArray *parts, GPtrArray *checksums)
{
    GString *xml =
        g_string_new("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<CompleteMultipartUpload "
                     "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");

    for (guint i = 0; parts && i < parts->len; i++) {
        const struct store_part *part = &g_array_index(parts, struct store_part, i);

        g_string_append_printf(xml, "<Part><PartNumber>%u</PartNumber><ETag>&quot;", part->number);
        append_escaped(xml, part->etag);
        g_string_append(xml, "&quot;</ETag>");
        if (checksums->pdata[i]) {
            g_string_append(xml, "<ChecksumCRC32C>");
            append_escaped(xml, checksums->pdata[i]);
            g_string_append(xml, "</ChecksumCRC32C>");
        }
        g_string_append(xml, "</Part>");
    }
    return g_string_append(xml, "</CompleteMultipartUpload>");
}
