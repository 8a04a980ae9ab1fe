/* Extended attributes as one piece of an object's metadata, in the form that s3fs uses: "xattr" is
 * URL-encoded JSON, {"user.name": "BASE64 of the value", …}.
 *
 * safety: the text is foreign until parsed; what is not well-formed is left out.
 */
#pragma once

#include <glib.h>

#define XATTR_METADATA "xattr"

/* Name -> GBytes*. TEXT may be NULL. */
GHashTable *xattr_parse(const char *text);
char *xattr_format(GHashTable *xattrs); /* the caller's; NULL when there are none */
