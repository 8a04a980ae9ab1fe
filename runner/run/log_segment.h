/* Where log segments are: shared by their writer and reader. */
#pragma once

#include "storage/store.h"

char *log_prefix(const char *repo, const char *run); /* "logs/REPO/RUN/" */
char *log_segment_key(const char *prefix, uint64_t number);

/* False: KEY is no segment's. */
bool log_segment_number(const char *prefix, const char *key, uint64_t *number);

/* The number behind the last segment there is. */
bool log_segment_end(struct store *root, const char *prefix, uint64_t *next, GError **error);
