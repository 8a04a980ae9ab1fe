/* A file's POSIX attributes as metadata of its object, in the keys and forms that s3fs uses, so
 * that a bucket moves between the two: mode, uid, gid (decimal), mtime, ctime, atime
 * ("S.NNNNNNNNN").
 *
 * shape:  a directory is an empty object whose key ends in '/'; a symlink is an object with
 *         S_IFLNK in its mode and the target as its body.
 * safety: metadata is foreign: what does not parse or is out of range falls back to the default.
 */
#pragma once

#include "storage/store.h"
#include <sys/stat.h>

struct file_attrs {
    mode_t mode; /* with its S_IFMT bits */
    uid_t uid;
    gid_t gid;
    int64_t mtime_ns, ctime_ns, atime_ns;
};

/* Puts ATTRS into METADATA (char* -> char*, both owned by the table). */
void file_attrs_save(const struct file_attrs *attrs, GHashTable *metadata);

/* ATTRS comes with defaults; whatever OBJECT's metadata says well-formed replaces them. Without an
 * mtime there, the store's own. */
void file_attrs_load(struct file_attrs *attrs, const struct store_object *object);

/* A table for metadata, and a copy of one (NULL gives an empty one). */
GHashTable *metadata_new(void);
GHashTable *metadata_copy(GHashTable *metadata);
