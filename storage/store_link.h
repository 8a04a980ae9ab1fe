/* Where a program that is none of ours finds an object: for machines that have nothing of ours yet.
 *
 * shape:  a path of this machine, or an https (http) URL that is signed and valid for a while.
 * source: "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)".
 */
#pragma once

#include "storage/store.h"

enum { STORE_LINK_MAX_S = 7 * 24 * 3600 }; /* as S3 allows */

/* ROOT and OPTIONS as for store_open; KEY without odd characters. The caller's. */
char *store_link(const char *root, const struct store_options *options, const char *key,
                 unsigned valid_s, GError **error);
