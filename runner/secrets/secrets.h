/* A repo's secrets in the store: secrets/REPO/NAME, sealed (see secret_box.h).
 *
 * shape:  a name is that of an environment variable; a value is up to 64 KiB of text.
 * errors: EEXIST, ENOENT: there is one, there is none; EINVAL: no name, no value; else the store's
 *         and secret_box's.
 */
#pragma once

#include "storage/store.h"

struct secret {
    char *name, *value;
};

/* EINVAL for what cannot be one, or must not be set in a job's environment. */
bool secret_name_check(const char *name, GError **error);
bool secret_value_check(const char *value, size_t size, GError **error);

/* Names, in order: char*, freed with the array. */
GPtrArray *secrets_list(struct store *root, const char *repo, GError **error);

bool secrets_has(struct store *root, const char *repo, const char *name, bool *has, GError **error);

/* Adds or replaces. Refused when what is there was sealed with another key: no job could have both.
 */
bool secrets_put(struct store *root, const char *repo, const char *name, const char *value,
                 GError **error);
bool secrets_delete(struct store *root, const char *repo, const char *name, GError **error);

/* Those of FROM that TO has not, as they are: for a remote that was configured after they were
 * added.
 */
bool secrets_copy_missing(struct store *from, struct store *to, const char *repo, GError **error);

/* All of them: struct secret*, freed with the array. No key is needed when there are none. */
GPtrArray *secrets_load(struct store *root, const char *repo, GError **error);

/* The value of NAME; NULL: none is called so. Borrowed. */
const char *secrets_value(const GPtrArray *secrets, const char *name);
