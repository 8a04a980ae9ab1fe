/* The index of a directory's attributes: an object of ours that saves the HEADs of `ls -l`.
 *
 * shape:  "dstack-index 1\n", then a zlib stream: for each file 58 bytes of lengths, flags and
 *         numbers (little-endian), its name, its ETag and a symlink's target; at the end a byte 0,
 *         which no entry begins with.
 * safety: foreign input. What does not parse is no index. What does is believed only where
 *         record_matches says so.
 * source: RFC 1950 (zlib); docs/attributes.md.
 */
#pragma once

#include "fusefs/record.h"

#define INDEX_RAW_MAX    (16u << 20) /* of entries, unpacked */
#define INDEX_OBJECT_MAX (16u << 20)

/* Appends RECORD, which must be of a file and full, to RAW; false: the index is full. */
bool index_add(GByteArray *raw, const struct record *record);

/* The object's bytes. */
GBytes *index_pack(const GByteArray *raw);

/* A table of records (record.h); NULL: damaged, or of another version. */
GHashTable *index_parse(const void *data, size_t size);
